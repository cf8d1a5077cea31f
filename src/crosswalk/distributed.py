"""Everything that talks to other processes. Each function is the identity on one process.

Policy: gather at a method's edge, then compute the single-process loss on every rank
(docs/decisions/0001). DDP averages gradients over ranks; the backward of `all_gather_rows`
sums what all ranks send back, so a loss computed on the whole gathered batch by every rank gives
exactly the gradient of one process, for sums and for means alike.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.host import Values, on_host, to_device
from crosswalk.types import ImageBatch, PairBatch, TextBatch

KnownBatch = ImageBatch | PairBatch | TextBatch


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) without a process group.

    Example:
        >>> rank_and_world_size()
        (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
        assert group is not None
        return group.rank(), group.size()
    return 0, 1


_step_rows: int | None = None


def expect_rows(total: int | None) -> None:
    """Say how many rows the global batch of this training step has, None when it is over.

    Its plan knows it, and so nobody has to ask: whatever has a row per sample is divided as
    `rank_slice` divides it.
    """
    global _step_rows
    _step_rows = total


def rows_of_processes(num_rows: int, device: torch.device) -> tuple[int, ...]:
    """Return how many rows each process has of what has a row per sample of the batch.

    Where `expect_rows` has not told it, all processes are asked.

    Args:
        num_rows: Of this process; 0 or more.
        device: Of what is counted.

    Raises:
        RuntimeError: If this process should have another number of rows.

    Example:
        >>> rows_of_processes(3, torch.device("cpu"))
        (3,)
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return (num_rows,)
    if _step_rows is None:
        return _asked_rows(num_rows, device)
    slices = [rank_slice(_step_rows, each, world_size) for each in range(world_size)]
    rows = tuple(end - start for start, end in slices)
    if rows[rank] != num_rows:
        raise RuntimeError(
            f"process {rank} of {world_size} has {num_rows} rows of a batch of {_step_rows}, and "
            f"not {rows[rank]}. What has not a row per sample is gathered by all_gather_ragged."
        )
    return rows


def _asked_rows(num_rows: int, device: torch.device) -> tuple[int, ...]:
    return tuple(gather_equal(torch.tensor([num_rows], device=device)).flatten().tolist())


def gather_equal(x: Tensor) -> Tensor:
    """Return ``[processes, ...]`` the ``x`` of all, which has one shape, without gradient.

    Example:
        >>> gather_equal(torch.tensor([1.0, 2.0]))
        tensor([[1., 2.]])
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return x.detach()[None]
    gathered = x.new_empty(world_size * x.numel())
    dist.all_gather_into_tensor(gathered, x.detach().flatten())
    return gathered.view(world_size, *x.shape)


def _gathered(rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return all ranks' rows in rank order; gloo and NCCL want equal shapes, so pad and cut."""
    wire = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    if min(sizes) == max(sizes):
        return gather_equal(wire).flatten(0, 1).to(rows.dtype)
    padded = wire.new_zeros((max(sizes), *wire.shape[1:]))
    padded[: rows.shape[0]] = wire
    parts = gather_equal(padded)
    gathered = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return gathered.to(rows.dtype)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...], rank: int) -> Tensor:  # noqa: ANN401
        ctx.start = sum(sizes[:rank])
        ctx.num_rows = sizes[rank]
        return _gathered(rows, sizes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[ctx.start : ctx.start + ctx.num_rows], None, None


def all_gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in rank order, with gradient.

    Args:
        rows: ``[b, ...]``, one per sample of the batch; ``b`` may differ between processes and
            be 0.

    Returns:
        ``[B, ...]``, the same on every process, ``B`` the sum of all ``b``.

    Example:
        >>> all_gather_rows(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if rank_and_world_size()[1] == 1:
        return rows
    return _gather(rows, rows_of_processes(rows.shape[0], rows.device))


def all_gather_ragged(rows: Tensor) -> Tensor:
    """Return the rows of all processes, as `all_gather_rows`, whatever they are rows of.

    Args:
        rows: ``[n, ...]``; every process is asked for its ``n``.

    Example:
        >>> all_gather_ragged(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if rank_and_world_size()[1] == 1:
        return rows
    return _gather(rows, _asked_rows(rows.shape[0], rows.device))


def _gather(rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    if not rows.requires_grad:
        return _gathered(rows, sizes)
    gathered: Tensor = _GatherRows.apply(rows, sizes, rank_and_world_size()[0])
    return gathered


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of all processes' ``x``, which has one shape, without gradient.

    Example:
        >>> sum_over_processes(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if rank_and_world_size()[1] == 1:
        return x.detach()
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def local_slice(num_rows: int) -> tuple[int, int]:
    """Return start and end of this process's contiguous share of ``num_rows`` global rows.

    The first ``num_rows % world_size`` processes get one row more, so any number divides.

    Example:
        >>> local_slice(5)
        (0, 5)
    """
    return rank_slice(num_rows, *rank_and_world_size())


def rank_slice(num_rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return start and end of process ``rank``'s share of ``num_rows`` rows.

    Example:
        >>> [rank_slice(5, rank, 2) for rank in (0, 1)]
        [(0, 3), (3, 5)]
    """
    share, rest = divmod(num_rows, world_size)
    start = rank * share + min(rank, rest)
    return start, start + share + (rank < rest)


def gather_table(sample_index: Tensor, rows: Tensor, num_samples: int) -> Tensor:
    """Return ``[num_samples, ...]`` with every process's rows at their samples' places.

    Args:
        sample_index: ``[n]`` int64 sample of each of this process's rows.
        rows: ``[n, ...]`` values, without gradient.
        num_samples: Size of the training set.

    Raises:
        RuntimeError: If a sample is missing or occurs twice.

    Example:
        >>> gather_table(torch.tensor([1, 0]), torch.tensor([0.5, 0.25]), 2)
        tensor([0.2500, 0.5000])
    """
    index = all_gather_rows(sample_index)
    rows = all_gather_rows(rows.detach())
    count = torch.bincount(index, minlength=num_samples)
    if index.numel() != num_samples or bool((count != 1).any()):
        missing = (count == 0).nonzero().flatten().tolist()
        doubled = (count > 1).nonzero().flatten().tolist()
        raise RuntimeError(
            f"a sweep must see each of the {num_samples} training samples once; missing "
            f"{missing[:5]} ({len(missing)} in all), more than once {doubled[:5]} "
            f"({len(doubled)} in all). Check the plan behind the data module's sweep_dataloader()."
        )
    table = torch.empty_like(rows)
    table[index] = rows
    return table


def global_column(batch: KnownBatch, name: str) -> NDArray[Any]:
    """Return a ``[B]`` column of the global batch on the host, such as ``sample_index``.

    The plan knows it; a batch made by hand, and what was changed on the device, is waited for.

    Args:
        batch: This process's part.
        name: Of a column of `crosswalk.types.WholeBatch`.

    Example:
        >>> from crosswalk.types import ImageBatch
        >>> two = torch.tensor([7, 9])
        >>> batch = ImageBatch(torch.zeros(2, 3, 1, 1), two, two, two, key=None)
        >>> global_column(batch, "sample_index")
        array([7, 9])
    """
    known = None if batch.whole is None else getattr(batch.whole, name)
    return on_host(all_gather_rows(getattr(batch, name))) if known is None else known


def whole_column(batch: KnownBatch, name: str) -> Tensor:
    """Return a ``[B]`` column of the global batch, such as ``person_id``, where the batch is.

    Args:
        batch: This process's part.
        name: Of a column of `crosswalk.types.WholeBatch`.

    Example:
        >>> from crosswalk.types import ImageBatch
        >>> two = torch.tensor([7, 9])
        >>> batch = ImageBatch(torch.zeros(2, 3, 1, 1), two, two, two, key=None)
        >>> whole_column(batch, "sample_index")
        tensor([7, 9])
    """
    own: Tensor = getattr(batch, name)
    if rank_and_world_size()[1] == 1 or batch.whole is None:
        return all_gather_rows(own)
    return to_device(global_column(batch, name), own.device)


def caption_lengths(batch: PairBatch | TextBatch) -> tuple[Values, int]:
    """Return the ``[b]`` lengths of a batch's captions, and the longest of all processes.

    An array where the plan knows them, else they are asked of the device; 0 is the longest where
    there are none.

    Example:
        >>> from crosswalk.types import TextBatch
        >>> tokens, of_nobody = torch.ones(2, 5), torch.tensor([-1, -1])
        >>> caption_lengths(TextBatch(tokens, torch.tensor([3, 5]), *[of_nobody] * 3))
        (tensor([3, 5]), 5)
    """
    whole = batch.whole
    if whole is not None and whole.length is not None:
        own = whole.length[whole.start :][: len(batch.tokens)]
        return own, int(whole.length.max(initial=0))
    lengths = all_gather_rows(batch.length)
    return batch.length, cast(int, lengths.max().item()) if lengths.shape[0] else 0


Result = TypeVar("Result", bound=Tensor | tuple[Tensor, ...])


def on_rank_zero(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:  # noqa: ANN401
    """Return ``function(*args, **kwargs)``, computed by rank 0 only and sent to the others.

    For mixture fits, clusterings and coin tosses, whose results could differ between processes
    in the last bit or in a random draw. An error of rank 0 is raised by every process.

    Example:
        >>> on_rank_zero(torch.add, torch.tensor(1), torch.tensor(2))
        tensor(3)
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return function(*args, **kwargs)
    outcome: list[Any] = [None]
    if rank == 0:
        try:
            outcome = [function(*args, **kwargs)]
        except Exception as error:  # sent on, so that no process waits for ever
            outcome = [error]
    dist.broadcast_object_list(outcome, src=0)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    result: Any = outcome[0]
    device = next((arg.device for arg in args if isinstance(arg, Tensor)), torch.device("cpu"))
    if isinstance(result, Tensor):
        return cast(Result, result.to(device))
    return cast(Result, tuple(part.to(device) for part in result))


def gather_objects(value: Any) -> list[Any]:  # noqa: ANN401
    """Return every process's ``value`` in rank order; for small plain objects.

    Example:
        >>> gather_objects("a")
        ['a']
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


def wait_for_everyone() -> None:
    """Return once every process has come here."""
    if rank_and_world_size()[1] > 1:
        dist.barrier()


_stores: list[Any] = []


def open_store(host: str, port: int, *, hosts: bool, patience: float) -> Any:  # noqa: ANN401
    """Return the store that a process group at this address is made from, before there is one.

    It is kept until the process ends: its server goes with the object that made it.

    Args:
        host: Address of the process that serves it.
        port: Its port.
        hosts: Whether this process serves it.
        patience: Seconds to wait for the server, or for a value.
    """
    store = dist.TCPStore(  # type: ignore[attr-defined]
        host,
        port,
        is_master=hosts,
        timeout=timedelta(seconds=patience),
        wait_for_workers=False,
        multi_tenant=True,  # the process group's own, of the same port, is the same
    )
    _stores.append(store)
    return store
