from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.memory.cluster_memory import ClusterMemory
from tests.unit.memory.test_hybrid_memory import LABELINGS, product, unit_rows


def memory_of(labels: list[int]) -> ClusterMemory:
    memory = ClusterMemory(len(labels), 5).double()
    memory.fill(unit_rows(len(labels)))
    memory.relabel(torch.tensor(labels))
    return memory


def centroid(memory: ClusterMemory, number: int) -> Tensor:
    """Return the unit vector along the sum of a class's rows."""
    total = torch.zeros(5, dtype=torch.float64)
    for row, label in zip(memory.rows, memory.labels.tolist(), strict=True):
        if label == number:
            total += row
    return total / product(total, total) ** 0.5


@pytest.mark.parametrize("labels", LABELINGS.values(), ids=LABELINGS)
def test_scores_are_similarities_to_the_centroids(labels: list[int]) -> None:
    memory, embedding = memory_of(labels), unit_rows(3, seed=1).requires_grad_()

    scores = memory.scores(embedding)
    scores[:, labels[0]].sum().backward()

    for sample in range(3):
        for number in range(7):
            expected = float("-inf")
            if number in labels:
                expected = product(embedding[sample], centroid(memory, number))
            assert scores[sample, number].item() == pytest.approx(expected, abs=1e-12)
    assert embedding.grad is not None
    assert_close(embedding.grad, centroid(memory, labels[0]).expand(3, 5))


@pytest.mark.parametrize("momentum", [0.0, 0.2, 1.0])
def test_every_member_moves_the_centroid_of_its_class_in_turn(momentum: float) -> None:
    memory, embedding = memory_of([0, 1, 0, 2]), unit_rows(3, seed=3)
    rows = memory.rows.clone()
    expected = [centroid(memory, number) for number in range(3)]
    for vector, number in zip(embedding, (0, 2, 0), strict=True):
        expected[number] = normalize(momentum * expected[number] + (1 - momentum) * vector, dim=0)

    memory.update(embedding, torch.tensor([0, 3, 2]), momentum=momentum)

    assert_close(memory.centroids[:3], torch.stack(expected), rtol=1e-12, atol=1e-14)
    assert torch.equal(memory.rows, rows)


def test_new_labels_make_centroids_of_the_rows_as_last_filled() -> None:
    memory = memory_of([0, 1, 0])
    memory.update(unit_rows(1, seed=2), torch.tensor([0]), momentum=0.0)

    memory.relabel(torch.tensor([1, 1, 0]))

    assert_close(memory.centroids[1], centroid(memory, 1))
    assert_close(memory.centroids[0], memory.rows[2])


def test_new_rows_make_centroids_of_the_old_labels() -> None:
    memory = memory_of([0, 1, 0])

    memory.fill(unit_rows(3, seed=9))

    assert_close(memory.centroids[0], centroid(memory, 0))


def test_labels_that_number_no_class_are_refused() -> None:
    with pytest.raises(ValueError, match="label -1 of 3 slots"):
        ClusterMemory(3, 2).relabel(torch.tensor([0, -1, 0]))


def test_a_memory_survives_a_checkpoint() -> None:
    memory, restored = memory_of([0, 1, 1]), ClusterMemory(3, 5).double()
    embedding, slot = unit_rows(2, seed=1), torch.tensor([2, 2])
    memory.update(embedding, slot, momentum=0.2)

    restored.load_state_dict(memory.state_dict())
    for each in (memory, restored):
        each.update(embedding, slot, momentum=0.2)

    assert torch.equal(restored.scores(embedding), memory.scores(embedding))


def test_a_printed_memory_shows_its_sizes() -> None:
    assert repr(ClusterMemory(7, 5)) == "ClusterMemory(num_slots=7, embedding_size=5)"
