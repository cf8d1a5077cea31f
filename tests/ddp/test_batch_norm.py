import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from crosswalk.distributed import all_gather_rows, sum_over_processes
from crosswalk.encoders.batch_norm import GroupBatchNorm
from tests.ddp.processes import run_on_processes

NUM_SAMPLES, CHANNELS, POSITIONS = 7, 3, 4


def problem(group_size: int | None) -> tuple[torch.nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(NUM_SAMPLES, CHANNELS, POSITIONS, generator=generator, dtype=torch.float64)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(CHANNELS, CHANNELS, 1),
        GroupBatchNorm(CHANNELS, group_size=group_size),
        torch.nn.Conv1d(CHANNELS, 2, 1),
        GroupBatchNorm(2, group_size=group_size),
        torch.nn.Flatten(),
    ).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model, 2 + 3 * x


def train(sizes: list[int] | None, group_size: int | None) -> dict[str, Tensor]:
    """Return loss, gradients and buffers of two steps on one process or on shards."""
    model, x = problem(group_size)
    wrapped = model
    if sizes is not None:
        rank = torch.distributed.get_rank()
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        x = x[sum(sizes[:rank]) : sum(sizes[: rank + 1])]
    results = {}
    for step in range(2):
        model.zero_grad()
        out = all_gather_rows(wrapped(x))
        loss = -(out @ out.T).log_softmax(dim=1).diagonal().sum()
        loss.backward()
        results[f"loss {step}"] = loss.detach()
        results |= {f"{step} {name}": p.grad.clone() for name, p in model.named_parameters()}
    return results | dict(model.named_buffers())


@pytest.mark.parametrize("group_size", [None, 2, 5])
@pytest.mark.parametrize("sizes", [[4, 3], [7, 0], [3, 2, 2]], ids=str)
def test_statistics_and_gradients_are_those_of_one_process(
    sizes: list[int], group_size: int | None
) -> None:
    expected = train(None, group_size)

    for result in run_on_processes(train, len(sizes), sizes, group_size):
        assert_close(result, expected, rtol=1e-9, atol=1e-10)


def gradient_of_sum() -> tuple[Tensor, Tensor]:
    rank = torch.distributed.get_rank()
    x = torch.tensor([1.0 + rank, 2.0], requires_grad=True)
    total = sum_over_processes(x)
    (total * torch.tensor([10.0, rank + 1.0])).sum().backward()
    return total.detach(), x.grad


def test_a_sum_over_processes_sends_back_what_all_processes_send() -> None:
    for total, gradient in run_on_processes(gradient_of_sum, 2):
        assert total.tolist() == [3.0, 4.0]  # 1 + 2, 2 + 2
        assert gradient.tolist() == [20.0, 3.0]  # 10 + 10, 1 + 2


def frozen_forward() -> Tensor:
    norm = GroupBatchNorm(2, statistics="frozen").train()
    return norm(torch.ones(torch.distributed.get_rank() + 1, 2)).detach()


def test_frozen_statistics_need_no_other_process() -> None:
    first, second = run_on_processes(frozen_forward, 2)

    assert_close(first, torch.full((1, 2), (1 + 1e-5) ** -0.5))
    assert_close(second, torch.full((2, 2), (1 + 1e-5) ** -0.5))
