import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.memory.memory_bank import MemoryBank


def filled_bank(num_samples: int, embedding_size: int) -> MemoryBank:
    bank = MemoryBank(num_samples, embedding_size).double()
    generator = torch.Generator().manual_seed(0)
    bank.rows.copy_(normalize(torch.randn(bank.rows.shape, generator=generator).double()))
    return bank


def embeddings(num: int, size: int, seed: int = 1) -> Tensor:
    return normalize(torch.randn(num, size, generator=torch.Generator().manual_seed(seed)).double())


def test_the_old_row_has_the_weight_of_the_momentum() -> None:
    bank = MemoryBank(3, 2).double()
    bank.rows[1] = torch.tensor([1.0, 0.0])

    bank.update(torch.tensor([[0.0, 1.0]]).double(), torch.tensor([1]), momentum=0.25)

    expected = torch.tensor([0.25, 0.75]).double() / 0.625**0.5  # (0.316228, 0.948683)
    assert_close(bank.rows[1], expected, rtol=1e-12, atol=0)
    assert bank.rows[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize("momentum", [0.0, 0.05, 0.4917, 1.0])
@pytest.mark.parametrize("index", [[4], [0, 6, 3], [2, 2], [5, 1, 5, 1, 5, 0, 1], [3] * 7], ids=str)
def test_rows_move_one_after_the_other(index: list[int], momentum: float) -> None:
    bank = filled_bank(7, 5)
    embedding = 1.7 * embeddings(len(index), 5)  # taken as they are, not made unit vectors first
    expected = bank.rows.tolist()
    for vector, row in zip(embedding.tolist(), index, strict=True):
        moved = [
            momentum * o + (1 - momentum) * n for o, n in zip(expected[row], vector, strict=True)
        ]
        length = sum(value**2 for value in moved) ** 0.5
        expected[row] = [value / length for value in moved]

    bank.update(embedding, torch.tensor(index), momentum=momentum)

    assert_close(bank.rows, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_an_empty_batch_changes_nothing() -> None:
    bank = filled_bank(4, 3)
    before = bank.rows.clone()

    bank.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), momentum=0.5)

    assert torch.equal(bank.rows, before)


def test_a_zero_row_that_meets_a_zero_vector_stays_zero() -> None:
    bank = MemoryBank(2, 3)

    bank.update(torch.zeros(1, 3), torch.tensor([1]), momentum=0.5)

    assert torch.equal(bank.rows, torch.zeros(2, 3))


def test_scores_are_products_with_all_rows_and_pass_the_gradient_on() -> None:
    bank = filled_bank(7, 5)
    embedding = embeddings(3, 5).requires_grad_()
    upstream = embeddings(3, 7, seed=2)

    scores = bank.scores(embedding)
    scores.backward(upstream)

    for sample in range(3):
        for row in range(7):
            product = sum(
                a * b
                for a, b in zip(embedding[sample].tolist(), bank.rows[row].tolist(), strict=True)
            )
            assert scores[sample, row].item() == pytest.approx(product, abs=1e-12)
        expected = sum(upstream[sample, row] * bank.rows[row] for row in range(7))
        assert_close(embedding.grad[sample], expected, rtol=1e-12, atol=1e-14)


def test_the_rows_are_state_and_no_parameter() -> None:
    bank = filled_bank(4, 3)
    restored = MemoryBank(4, 3).double()

    restored.load_state_dict(bank.state_dict())

    assert torch.equal(restored.rows, bank.rows)
    assert not list(bank.parameters())
    assert repr(bank) == "MemoryBank(num_samples=4, embedding_size=3)"
