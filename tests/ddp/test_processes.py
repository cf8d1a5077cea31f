import pytest
import torch
from torch import Tensor

from crosswalk.distributed import all_gather_rows, expect_rows, rank_and_world_size
from tests.ddp.processes import run_on_processes


def gather_ragged(num_rows: list[int]) -> Tensor:
    rank, _ = rank_and_world_size()
    return all_gather_rows(torch.full((num_rows[rank],), rank))


def fail_on_the_last(message: str) -> None:
    rank, world_size = rank_and_world_size()
    if rank == world_size - 1:
        raise ValueError(message)


@pytest.mark.parametrize("num_rows", [[2, 1], [0, 3], [2, 0, 1]])
def test_processes_of_one_group_gather_ragged_rows(num_rows: list[int]) -> None:
    gathered = run_on_processes(gather_ragged, len(num_rows), num_rows)

    expected = [rank for rank, rows in enumerate(num_rows) for _ in range(rows)]
    assert [each.tolist() for each in gathered] == [expected] * len(num_rows)


def test_the_error_of_one_process_reaches_the_test() -> None:
    with pytest.raises(RuntimeError, match=r"process 1: (.|\n)*ValueError: out of apples"):
        run_on_processes(fail_on_the_last, 2, "out of apples")


def gather_as_expected(total: int, num_rows: list[int]) -> list[int] | str:
    rank, _ = rank_and_world_size()
    expect_rows(total)
    try:
        return all_gather_rows(torch.full((num_rows[rank],), rank)).tolist()
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize("total", [0, 1, 4, 5])
def test_rows_of_a_batch_that_was_told_arrive_without_being_counted(total: int) -> None:
    num_rows = [total - total // 2, total // 2]

    gathered = run_on_processes(gather_as_expected, 2, total, num_rows)

    assert gathered == [[0] * num_rows[0] + [1] * num_rows[1]] * 2


def test_other_rows_than_those_of_the_batch_are_refused() -> None:
    for message in run_on_processes(gather_as_expected, 2, 4, [3, 1]):
        assert "rows of a batch of 4" in message
