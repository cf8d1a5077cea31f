from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.memory.hybrid_memory import HybridMemory, class_means

LABELINGS = {
    "clusters": [0, 1, 0, 2, 1, 1, 0],
    "one cluster": [0] * 7,
    "single slots": [3, 0, 6, 1, 2, 5, 4],
    "gaps": [0, 2, 2, 0, 5, 5, 2],
}


def unit_rows(num: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num, 5, generator=generator, dtype=torch.float64))


def memory_of(labels: list[int]) -> HybridMemory:
    memory = HybridMemory(len(labels), 5).double()
    memory.fill(unit_rows(len(labels)))
    memory.relabel(torch.tensor(labels))
    return memory


def product(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("labels", LABELINGS.values(), ids=LABELINGS)
def test_scores_are_the_mean_similarities_to_the_members_of_each_class(labels: list[int]) -> None:
    memory, embedding = memory_of(labels), unit_rows(3, seed=1)

    scores = memory.scores(embedding)

    assert scores.shape == (3, 7)
    for sample in range(3):
        for number in range(7):
            members = [slot for slot, label in enumerate(labels) if label == number]
            similarities = [product(embedding[sample], memory.rows[slot]) for slot in members]
            expected = sum(similarities) / len(members) if members else float("-inf")
            assert scores[sample, number].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("labels", LABELINGS.values(), ids=LABELINGS)
def test_the_gradient_goes_to_the_embedding_alone(labels: list[int]) -> None:
    memory, embedding = memory_of(labels), unit_rows(2, seed=1).requires_grad_()
    upstream = unit_rows(2, seed=2)[:, :1].expand(2, 7)

    memory.scores(embedding).backward(upstream)

    expected = torch.zeros(5, dtype=torch.float64)
    for number in set(labels):
        members = [slot for slot, label in enumerate(labels) if label == number]
        expected += memory.rows[members].sum(dim=0) / len(members)
    assert embedding.grad is not None
    assert_close(embedding.grad, upstream[:, :1] * expected)
    assert not memory.rows.requires_grad


@pytest.mark.parametrize("slot", [[4], [0, 6, 3], [2, 2], [5, 1, 5, 1, 5, 0, 1]], ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.2, 1.0])
def test_slots_move_one_after_the_other_whatever_their_classes(
    momentum: float, slot: list[int]
) -> None:
    memory, embedding = memory_of([0] * 7), unit_rows(len(slot), seed=3)
    expected = memory.rows.tolist()
    for vector, row in zip(embedding.tolist(), slot, strict=True):
        moved = [
            momentum * o + (1 - momentum) * n for o, n in zip(expected[row], vector, strict=True)
        ]
        length = sum(value**2 for value in moved) ** 0.5
        expected[row] = [value / length for value in moved]

    memory.update(embedding, torch.tensor(slot), momentum=momentum)

    assert_close(memory.rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    assert memory.labels.tolist() == [0] * 7


def test_backward_uses_the_rows_of_before_the_update() -> None:
    memory, embedding = memory_of([0, 0, 1]), unit_rows(2, seed=1).requires_grad_()
    means = memory.rows[:2].mean(dim=0)

    scores = memory.scores(embedding)
    memory.update(embedding.detach(), torch.tensor([0, 1]), momentum=0.2)
    scores[:, 0].sum().backward()

    assert embedding.grad is not None
    assert_close(embedding.grad, means.expand(2, 5))


def test_rows_and_labels_are_copied() -> None:
    rows, labels = unit_rows(3), torch.tensor([0, 1, 1])
    memory = HybridMemory(3, 5).double()

    memory.fill(rows)
    memory.relabel(labels)
    before = rows.clone()
    rows.zero_()
    labels.zero_()

    assert torch.equal(memory.rows, before)
    assert memory.labels.tolist() == [0, 1, 1]


def test_at_first_every_slot_is_a_class() -> None:
    assert HybridMemory(4, 2).labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1, 0], r"label -1 of 3 slots is not in \[0, 2\].*outliers_as_singletons"),
        ([0, 3, 0], "label 3 of 3 slots is not in"),
        ([0, 1], r"3 slots were given labels of shape \(2,\)"),
    ],
)
def test_labels_that_number_no_class_are_refused(labels: list[int], message: str) -> None:
    memory = HybridMemory(3, 2)

    with pytest.raises(ValueError, match=message):
        memory.relabel(torch.tensor(labels))
    assert memory.labels.tolist() == [0, 1, 2]


def test_means_add_rows_in_order_so_that_two_runs_agree_bit_by_bit() -> None:
    rows = unit_rows(1000).float()
    labels = torch.arange(1000) % 3

    means, present = class_means(rows, labels)

    for number in range(3):
        total = torch.zeros(5)
        for row in rows[labels == number]:
            total += row
        assert_close(means[number], total / int((labels == number).sum()), rtol=1e-6, atol=0)
    assert torch.equal(means, class_means(rows, labels)[0])
    assert present.tolist() == [True] * 3 + [False] * 997


def test_a_memory_survives_a_checkpoint() -> None:
    memory, restored = memory_of([0, 1, 1]), HybridMemory(3, 5).double()
    embedding, slot = unit_rows(2, seed=1), torch.tensor([2, 2])

    restored.load_state_dict(memory.state_dict())
    for each in (memory, restored):
        each.update(embedding, slot, momentum=0.2)

    assert torch.equal(restored.scores(embedding), memory.scores(embedding))


def test_a_printed_memory_shows_its_sizes() -> None:
    assert repr(HybridMemory(7, 5)) == "HybridMemory(num_slots=7, embedding_size=5)"
