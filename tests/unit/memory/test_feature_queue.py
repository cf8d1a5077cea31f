import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.memory.feature_queue import FeatureQueue


def batch_of(person_id: list[int], size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys that tell their person: images by the first entry, captions by the last."""
    persons = torch.tensor(person_id)
    rows = torch.full((len(person_id), size), 0.25)
    image, text = rows.clone(), rows.clone()
    image[:, 0] = persons
    text[:, -1] = -persons.float()
    return image, text, persons


@pytest.mark.parametrize("size", [1, 5, 300])
def test_it_starts_with_random_unit_vectors_of_nobody(size: int) -> None:
    torch.manual_seed(0)
    queue = FeatureQueue(size, 7)

    for rows in (queue.image, queue.text):
        assert rows.shape == (size, 7)
        assert_close(rows.norm(dim=1), torch.ones(size))
        assert rows.min() >= 0
        assert len(rows.unique(dim=0)) == size
    assert not torch.equal(queue.image, queue.text)
    assert queue.person_id.tolist() == [-1] * size
    assert queue.person_id.dtype == torch.int64
    assert queue.pointer.item() == 0


def test_its_start_follows_the_seed_and_not_what_was_drawn_since() -> None:
    torch.manual_seed(4)
    one = FeatureQueue(5, 3)
    torch.rand(17)
    other = FeatureQueue(5, 3)
    torch.manual_seed(5)
    third = FeatureQueue(5, 3)

    assert torch.equal(one.image, other.image)
    assert torch.equal(one.text, other.text)
    assert not torch.equal(one.image, third.image)


@pytest.mark.parametrize(
    ("batches", "stored", "pointer"),
    [
        ([[1, 2]], [1, 2, -1, -1, -1], 2),
        ([[1, 2], [3, 4, 5]], [1, 2, 3, 4, 5], 0),
        ([[1, 2, 3], [4, 5, 6]], [6, 2, 3, 4, 5], 1),
        ([[1], [2], [3], [4], [5], [6], [7]], [6, 7, 3, 4, 5], 2),
        ([[1, 2, 3, 4, 5]], [1, 2, 3, 4, 5], 0),
        ([[1, 2, 3, 4, 5, 6, 7]], [6, 7, 3, 4, 5], 2),
        ([[1, 2, 3], list(range(4, 17))], [16, 12, 13, 14, 15], 1),
        ([[], [1], []], [1, -1, -1, -1, -1], 1),
    ],
    ids=str,
)
def test_a_batch_of_any_size_replaces_the_oldest_pairs(
    batches: list[list[int]], stored: list[int], pointer: int
) -> None:
    queue = FeatureQueue(5, 3)
    start = queue.image.clone()

    for person_id in batches:
        queue.enqueue(*batch_of(person_id))

    assert queue.person_id.tolist() == stored
    assert queue.pointer.item() == pointer
    for place, person in enumerate(stored):
        if person == -1:
            assert torch.equal(queue.image[place], start[place])
        else:
            assert queue.image[place].tolist() == [person, 0.25, 0.25]
            assert queue.text[place].tolist() == [0.25, 0.25, -person]


@pytest.mark.parametrize(
    ("batch", "negative"),
    [
        ([9], [True, True, True, True, True]),
        ([2], [True, False, True, True, True]),
        ([2, 7, 2, 0], [False, False, True, False, True]),
        ([0, 2, 5, 7], [False, False, False, False, True]),
    ],
)
def test_pairs_of_people_in_the_batch_are_no_negatives(
    batch: list[int], negative: list[bool]
) -> None:
    queue = FeatureQueue(5, 3)
    queue.enqueue(*batch_of([0, 2, 5, 7]))

    assert queue.negatives_of(torch.tensor(batch)).tolist() == negative


def test_what_is_in_the_queue_passes_no_gradient_on() -> None:
    queue = FeatureQueue(4, 3)
    image = normalize(torch.rand(2, 3)).requires_grad_()

    queue.enqueue(image * 1.0, image * 1.0, torch.tensor([1, 2]))

    assert not queue.image.requires_grad
    assert torch.equal(queue.image[:2], image.detach())


def test_keys_of_a_narrower_type_are_kept_in_the_type_of_the_queue() -> None:
    queue = FeatureQueue(2, 2)

    queue.enqueue(torch.ones(1, 2).bfloat16(), torch.ones(1, 2).bfloat16(), torch.tensor([3]))

    assert queue.image.dtype == torch.float32
    assert queue.image[0].tolist() == [1, 1]


def test_rows_people_and_the_place_of_the_next_pair_survive_a_checkpoint() -> None:
    queue, restored = FeatureQueue(5, 3), FeatureQueue(5, 3)
    queue.enqueue(*batch_of([4, 6, 8]))

    restored.load_state_dict(queue.state_dict())
    for one in (queue, restored):
        one.enqueue(*batch_of([1, 2, 3]))

    assert restored.person_id.tolist() == [3, 6, 8, 1, 2]
    for name, value in queue.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)
    assert not list(queue.parameters())
    assert repr(queue) == "FeatureQueue(size=5, embedding_size=3)"


def test_a_queue_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="queue_size=0 must be at least 1"):
        FeatureQueue(0, 3)
