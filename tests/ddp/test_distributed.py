import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crosswalk.distributed import (
    all_gather_rows,
    gather_objects,
    gather_table,
    on_rank_zero,
    rank_slice,
)
from tests.ddp.processes import run_on_processes

NUM_ROWS, WIDTH = 7, 3


def problem() -> tuple[nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(NUM_ROWS, WIDTH, generator=generator, dtype=torch.float64)
    model = nn.Linear(WIDTH, 4, bias=False, dtype=torch.float64)
    model.weight.data = torch.randn(4, WIDTH, generator=generator, dtype=torch.float64)
    return model, rows


def contrast(embedding: Tensor, reduction: str) -> Tensor:
    losses = -(embedding @ embedding.T).log_softmax(dim=1).diagonal()
    return losses.sum() if reduction == "sum" else losses.mean()


def gradient_on_shard(sizes: list[int], reduction: str) -> tuple[float, Tensor]:
    rank = torch.distributed.get_rank()
    model, rows = problem()
    wrapped = DistributedDataParallel(model)
    mine = rows[sum(sizes[:rank]) : sum(sizes[: rank + 1])]
    loss = contrast(all_gather_rows(wrapped(mine)), reduction)
    loss.backward()
    return loss.item(), model.weight.grad


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("sizes", [[4, 3], [7, 0], [3, 2, 2]], ids=str)
def test_the_gradient_of_a_gathered_batch_is_that_of_one_process(
    sizes: list[int], reduction: str
) -> None:
    model, rows = problem()
    expected_loss = contrast(model(rows), reduction)
    expected_loss.backward()

    for loss, gradient in run_on_processes(gradient_on_shard, len(sizes), sizes, reduction):
        assert loss == pytest.approx(expected_loss.item(), rel=1e-12)
        torch.testing.assert_close(gradient, model.weight.grad, rtol=1e-12, atol=1e-12)


def gather_kinds() -> list[Tensor]:
    rank = torch.distributed.get_rank()
    return [
        all_gather_rows(torch.arange(rank)),
        all_gather_rows(torch.full((rank + 1,), rank == 1)),
        all_gather_rows(torch.full((1, 2), float(rank))),
    ]


def test_rows_arrive_in_rank_order_whatever_their_number_and_type() -> None:
    for integers, booleans, floats in run_on_processes(gather_kinds, 3):
        assert integers.tolist() == [0, 0, 1]
        assert booleans.tolist() == [False, True, True, False, False, False]
        assert floats.tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]


def table_of_squares(order: list[int]) -> Tensor:
    start, end = rank_slice(len(order), torch.distributed.get_rank(), 2)
    index = torch.tensor(order[start:end], dtype=torch.int64)
    return gather_table(index, index.double() ** 2, 5)


def test_a_table_has_every_sample_at_its_place() -> None:
    for table in run_on_processes(table_of_squares, 2, [3, 0, 4, 1, 2]):
        assert table.tolist() == [0.0, 1.0, 4.0, 9.0, 16.0]


@pytest.mark.parametrize(
    ("order", "message"),
    [([3, 0, 4, 1], r"missing \[2\]"), ([3, 0, 4, 1, 2, 2], r"more than once \[2\]")],
)
def test_a_table_with_a_missing_or_doubled_sample_is_refused(
    order: list[int], message: str
) -> None:
    index = torch.tensor(order)

    with pytest.raises(RuntimeError, match=message):
        gather_table(index, index.double(), 5)


def toss() -> Tensor:
    return torch.rand(3)


def toss_on_rank_zero() -> tuple[Tensor, Tensor]:
    torch.manual_seed(torch.distributed.get_rank())
    return on_rank_zero(toss), torch.rand(1)


def test_what_rank_zero_computes_reaches_everyone() -> None:
    (first, _), (second, _) = run_on_processes(toss_on_rank_zero, 2)

    torch.manual_seed(0)
    expected = torch.rand(3)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected)


def fail() -> Tensor:
    raise ValueError("all losses are equal")


def message_of_failure() -> str:
    try:
        on_rank_zero(fail)
    except ValueError as error:
        return str(error)
    return "nothing was raised"


def test_an_error_of_rank_zero_is_raised_by_everyone() -> None:
    assert run_on_processes(message_of_failure, 2) == ["all losses are equal"] * 2


def ranks() -> list[int]:
    return gather_objects(torch.distributed.get_rank())


def test_objects_arrive_in_rank_order() -> None:
    assert run_on_processes(ranks, 3) == [[0, 1, 2]] * 3


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 64])
def test_slices_of_all_ranks_cover_the_rows_once_and_evenly(num_rows: int, world_size: int) -> None:
    slices = [rank_slice(num_rows, rank, world_size) for rank in range(world_size)]

    assert [row for start, end in slices for row in range(start, end)] == list(range(num_rows))
    assert max(end - start for start, end in slices) - min(end - start for start, end in slices) < 2
