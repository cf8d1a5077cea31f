import torch
from torch.testing import assert_close

from crosswalk.memory.multilabel_memory import MultilabelMemory


def test_a_first_multilabel_is_taken_whole_and_later_ones_by_a_tenth() -> None:
    memory = MultilabelMemory(5, 3).double()
    generator = torch.Generator().manual_seed(0)
    expected: dict[int, list[float]] = {}
    for index in ([3, 0], [1], [0, 3, 4], [3]):
        seen = torch.randn(len(index), 3, generator=generator, dtype=torch.float64).softmax(dim=1)

        memory.update(seen, torch.tensor(index), momentum=0.9)

        for sample, row in zip(index, seen.tolist(), strict=True):
            old = expected.get(sample)
            expected[sample] = (
                row if old is None else [0.9 * a + 0.1 * b for a, b in zip(old, row, strict=True)]
            )
    for sample, row in expected.items():
        assert_close(memory.rows[sample].tolist(), row, rtol=1e-14, atol=0.0)
    assert memory.written.tolist() == [True, True, False, True, True]
    assert memory.rows[2].tolist() == [0.0, 0.0, 0.0]


def test_rows_that_were_written_stay_normalised() -> None:
    memory = MultilabelMemory(2, 4)
    generator = torch.Generator().manual_seed(1)

    for _ in range(50):
        seen = torch.randn(1, 4, generator=generator).softmax(dim=1)
        memory.update(seen, torch.tensor([1]), momentum=0.9)

    assert_close(memory.rows.sum(dim=1), torch.tensor([0.0, 1.0]), rtol=0.0, atol=1e-6)


def test_what_was_read_does_not_change_when_the_memory_is_written() -> None:
    memory = MultilabelMemory(2, 2)
    memory.update(torch.tensor([[0.5, 0.5]]), torch.tensor([1]), momentum=0.9)

    read = memory.read(torch.tensor([1]))
    memory.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), momentum=0.5)

    assert read.tolist() == [[0.5, 0.5]]
    assert memory.read(torch.tensor([1, 0])).tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_an_update_needs_no_gradient_and_gives_none() -> None:
    memory = MultilabelMemory(2, 2)
    seen = torch.tensor([[0.5, 0.5]], requires_grad=True)

    memory.update(seen, torch.tensor([0]), momentum=0.9)

    assert not memory.rows.requires_grad


def test_the_memory_survives_a_checkpoint() -> None:
    memory, restored = MultilabelMemory(3, 2), MultilabelMemory(3, 2)
    memory.update(torch.tensor([[0.25, 0.75]]), torch.tensor([2]), momentum=0.9)

    restored.load_state_dict(memory.state_dict())

    assert restored.rows[2].tolist() == [0.25, 0.75]
    assert restored.written.tolist() == [False, False, True]
