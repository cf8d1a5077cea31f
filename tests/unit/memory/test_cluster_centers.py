import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.memory.cluster_centers import ClusterCenters, move_by_hardest


def unit_rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 5, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize(
    "labels", [[0, 1, 0, -1, 2, 1, -1], [0] * 7, [-1, -1, 0, -1, -1, -1, -1], list(range(7))]
)
def test_centers_are_the_directions_of_the_means_of_members(labels: list[int]) -> None:
    memory, rows = ClusterCenters(7, 5).double(), unit_rows(7)

    memory.fill(rows, torch.tensor(labels))

    assert len(memory.centers) == max(labels) + 1
    for number, center in enumerate(memory.centers):
        members = [row for row, label in zip(rows, labels, strict=True) if label == number]
        total = sum(members[1:], start=members[0])
        assert_close(center, total / total.norm())
    embedding = unit_rows(3, seed=1)
    expected = [[float(e @ c) for c in memory.centers] for e in embedding]
    assert_close(memory.scores(embedding), torch.tensor(expected, dtype=torch.float64))


def test_outliers_alone_leave_no_center_and_nothing_of_the_epoch_before() -> None:
    memory = ClusterCenters(3, 5).double()
    memory.fill(unit_rows(3), torch.tensor([0, 1, 1]))

    memory.fill(unit_rows(3), torch.tensor([-1, -1, -1]))

    assert memory.centers.shape == (0, 5)
    assert not memory.rows.any()


def test_the_memory_of_any_epoch_is_loaded_from_a_checkpoint() -> None:
    saved, loaded = ClusterCenters(5, 5).double(), ClusterCenters(5, 5).double()
    saved.fill(unit_rows(5), torch.tensor([0, 1, 2, -1, 1]))
    loaded.fill(unit_rows(5, seed=3), torch.tensor([0, 0, 0, 0, -1]))

    loaded.load_state_dict(saved.state_dict())

    assert_close(loaded.scores(unit_rows(2)), saved.scores(unit_rows(2)))
    assert loaded.labels.tolist() == [0, 1, 2, -1, 1]


@pytest.mark.parametrize("momentum", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("index", [[0, 2, 0, 0, 2, 3, 0], [1] * 7, [3, 2, 1, 0, 4, 5, 6]])
def test_a_row_moves_toward_the_embedding_that_it_is_least_similar_to(
    index: list[int], momentum: float
) -> None:
    rows, embedding = unit_rows(7), unit_rows(7, seed=2)
    embedding[2] = embedding[0]  # of equals the first counts
    expected = rows.clone()
    for number in set(index):
        own = [place for place, row in enumerate(index) if row == number]
        hardest = min(own, key=lambda place: float(embedding[place] @ rows[number]))
        moved = momentum * rows[number] + (1 - momentum) * embedding[hardest]
        expected[number] = moved / moved.norm()

    move_by_hardest(rows, embedding, torch.tensor(index), momentum=momentum)

    assert_close(rows, expected)


def test_writes_reach_the_memory() -> None:
    memory = ClusterCenters(4, 5).double()
    memory.fill(unit_rows(4), torch.tensor([0, -1, 1, 1]))
    before = memory.rows.clone()

    move_by_hardest(memory.centers, unit_rows(1, seed=2), torch.tensor([1]), momentum=0.0)

    assert_close(memory.rows[1], unit_rows(1, seed=2)[0])
    assert torch.equal(memory.rows[[0, 2, 3]], before[[0, 2, 3]])
