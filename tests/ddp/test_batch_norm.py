import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from crosswalk.distributed import all_gather_rows, expect_rows
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


def frozen_forward() -> Tensor:
    norm = GroupBatchNorm(2, statistics="frozen").train()
    return norm(torch.ones(torch.distributed.get_rank() + 1, 2)).detach()


def test_frozen_statistics_need_no_other_process() -> None:
    first, second = run_on_processes(frozen_forward, 2)

    assert_close(first, torch.full((1, 2), (1 + 1e-5) ** -0.5))
    assert_close(second, torch.full((2, 2), (1 + 1e-5) ** -0.5))


def images_and_gradient(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x, grad = 3 + torch.randn(2, 8, CHANNELS, 4, 2, generator=generator)
    return x.to(dtype), grad.to(dtype)


def channels_last_step(dtype: torch.dtype) -> dict[str, object]:
    """Return output and gradient of this process's half of 8 images, and what is kept between."""
    rank = torch.distributed.get_rank()
    x, grad = images_and_gradient(dtype)
    images = x[4 * rank : 4 * rank + 4].contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    norm = GroupBatchNorm(CHANNELS)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = norm(images)
    out.backward(grad[4 * rank : 4 * rank + 4])
    return {
        "out": out.detach(),
        "gradient": images.grad,
        "running_var": norm.running_var,
        "kept": sum(kept),
        "formats": [
            tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (out, images.grad)
        ],
    }


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str
)
def test_images_keep_memory_format_and_type_and_are_kept_once(
    dtype: torch.dtype, atol: float
) -> None:
    x, grad = (each.float() for each in images_and_gradient(dtype))
    x.requires_grad_()
    alone = torch.nn.BatchNorm2d(CHANNELS)
    expected = alone(x)
    expected.backward(grad)

    halves = run_on_processes(channels_last_step, 2, dtype)

    for half in halves:
        assert half["formats"] == [True, True]
        assert half["out"].dtype == half["gradient"].dtype == dtype
        statistics = 3 * 4 * CHANNELS  # mean, variance and scale, float32
        assert half["kept"] == half["out"].nbytes + statistics
        assert_close(half["running_var"], alone.running_var, rtol=0, atol=1e-5)
    for name, whole in (("out", expected), ("gradient", x.grad)):
        joined = torch.cat([half[name] for half in halves]).float()
        assert_close(joined, whole.detach(), rtol=0, atol=atol)


def collectives_of_a_layer(told: bool) -> tuple[list[str], list[str]]:
    """Return the collectives of one normalisation of 5 samples, forward and backward."""
    distributed, called = torch.distributed, []
    for name in ("all_reduce", "all_gather_into_tensor"):

        def counted(
            *args: object, name: str = name, call: object = getattr(distributed, name)
        ) -> object:
            called.append(name)
            return call(*args)

        setattr(distributed, name, counted)
    rank = distributed.get_rank()
    x = torch.randn(3 - rank, CHANNELS, 2, requires_grad=True)
    expect_rows(5 if told else None)
    out = GroupBatchNorm(CHANNELS)(x)
    forward = called.copy()
    out.sum().backward()
    return forward, called[len(forward) :]


@pytest.mark.parametrize("told", [True, False])
def test_a_layer_has_a_collective_forward_and_one_backward_if_it_is_told_the_batch(
    told: bool,
) -> None:
    for forward, backward in run_on_processes(collectives_of_a_layer, 2, told):
        assert forward == ["all_gather_into_tensor"] * (1 if told else 2)
        assert backward == ["all_reduce"]
