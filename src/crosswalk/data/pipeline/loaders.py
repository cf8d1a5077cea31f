"""The loader of every data set: global plans, rank slices, exact resumption."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from crosswalk.data.pipeline.plans import BatchPlan, Index
from crosswalk.distributed import rank_and_world_size, rank_slice
from crosswalk.draws import sample_key

T_co = TypeVar("T_co", covariant=True)


class BatchRequest(NamedTuple):
    """What a dataset is asked for: this process's share of one global batch.

    It carries the epoch and the pass, so that workers need no knowledge of either, and the samples
    of the global batch, of which this process's begin at ``start``; None of a request by hand,
    which is a batch of its own.
    """

    sample_index: Index
    seed: int | None
    epoch: int
    pass_: int
    whole: Index | None = None
    start: int = 0

    @property
    def of_all(self) -> Index:
        """``[B]`` the samples of the global batch."""
        return self.sample_index if self.whole is None else self.whole

    def key(self) -> Tensor | None:
        """Return the ``[b]`` keys of the samples' random draws, None where nothing is augmented.

        Example:
            >>> BatchRequest(np.array([3, 4]), seed=None, epoch=0, pass_=0).key() is None
            True
            >>> BatchRequest(np.array([3, 4]), seed=1, epoch=0, pass_=0).key().shape
            torch.Size([2])
        """
        if self.seed is None:
            return None
        index = torch.from_numpy(np.asarray(self.sample_index, dtype=np.int64))
        return sample_key(self.seed, self.epoch, self.pass_, index)


class BatchDataset(Protocol[T_co]):
    """A dataset that builds whole batches, of 0 samples too."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitems__(self, request: BatchRequest) -> T_co:
        """Return the batch of the requested samples, in their order."""


class _RankSlices:
    """This process's contiguous slice of every batch of a plan, from a given batch on.

    Slices may be ragged, or empty where a batch has fewer samples than there are processes: all
    processes take equally many steps, so their collectives stay in step. Joined in rank order
    the slices are the batch of one process.
    """

    def __init__(self, plan: BatchPlan, seed: int | None) -> None:
        self.plan = plan
        self.seed = seed
        self.epoch, self.pass_, self.skip = 0, 0, 0

    def __iter__(self) -> Iterator[BatchRequest]:
        rank, world_size = rank_and_world_size()
        epoch, pass_ = self.epoch, self.pass_
        for batch in islice(self.plan, self.skip, None):
            start, end = rank_slice(len(batch), rank, world_size)
            yield BatchRequest(batch[start:end], self.seed, epoch, pass_, batch, start)

    def __len__(self) -> int:
        return len(self.plan)


ENDS_WORKERS = property(lambda loader: None, lambda loader, _: loader.end_workers())
"""The attribute ``_iterator`` of loaders, which Lightning clears when its loop is torn down."""


class EpochLoader:
    """A data loader whose plan is read only when the epoch's first batch is asked for.

    Lightning opens a plain loader's workers before ``on_train_epoch_start`` of the first epoch,
    so a plan that depends on that hook's pseudo labels would read stale ones.

    The state counts the batches handed out, not those that workers prepared ahead. Lightning
    saves and restores it with every checkpoint; a pass resumed in the middle goes on with
    exactly the batches that were left. A state of another epoch than the one that is started
    is dropped.

    Args:
        dataset: Builds batches.
        plan: Its global batches.
        seed: Seed of the samples' keys; None for evaluation, without keys.
        first_pass: Number of the first pass of an epoch, in keys and plan. Later passes in the
            same epoch (the shorter one of two sources starts again) count 2, 3, ...
        num_workers: Worker processes; 0 loads in this process. They live through all epochs, and
            torch gives each a single thread. They draw no random numbers: keys decide.
        pin_memory: Whether batches are put into page-locked memory.
        labels: Asked for the ``[num_samples]`` pseudo labels of the plan when a pass's first
            batch is asked for, also where a run goes on within a pass: they have to be those that
            the pass began with, the same on every process. None, or what returns None, leaves
            the plan with the identities it was made with.

    Example:
        >>> from crosswalk.data.pipeline.plans import SequentialBatches
        >>> class Squares:
        ...     def __len__(self): return 5
        ...     def __getitems__(self, request): return (request.sample_index**2).tolist()
        >>> loader = EpochLoader(Squares(), SequentialBatches(5, batch_size=2), seed=None)
        >>> list(loader)
        [[0, 1], [4, 9], [16]]
    """

    batch_sampler = None  # Lightning looks for both names; it calls ``sampler.set_epoch``.

    def __init__(
        self,
        dataset: BatchDataset[Any],
        plan: BatchPlan,
        *,
        seed: int | None,
        first_pass: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        labels: Callable[[], Tensor | None] | None = None,
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.plan = plan
        self.first_pass = first_pass
        self.epoch = 0
        self._cycle = 0  # complete passes in this epoch
        self._consumed = 0  # batches handed out in this pass
        self._resuming = False
        self._slices = _RankSlices(plan, seed)
        self._loader: DataLoader[Any] = DataLoader(
            dataset,  # type: ignore[arg-type]  # needs no __getitem__: batches come whole
            batch_sampler=self._slices,  # type: ignore[arg-type]  # yields requests, not lists
            collate_fn=_shared if num_workers else _unchanged,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            # Nothing here is random; without a generator of its own every new iterator would take
            # a number from torch's, one more of them in a resumed run.
            generator=torch.Generator(),
        )

    @property
    def sampler(self) -> EpochLoader:
        """What Lightning calls ``set_epoch`` of."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` anew, or go on with it if a state of this epoch was just loaded."""
        if not (self._resuming and epoch == self.epoch):
            self._resuming = False
            self._cycle = self._consumed = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next batch: epoch, complete passes, batches of this pass."""
        return {"epoch": self.epoch, "cycle": self._cycle, "consumed": self._consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a place; the next iteration starts there."""
        self.epoch = state["epoch"]
        self._cycle = state["cycle"]
        self._consumed = state["consumed"]
        self._resuming = True

    def batch_of(self, sample_index: Index) -> Any:  # noqa: ANN401
        """Return the batch of some samples, in their order, without keys and whatever the plan."""
        return self.dataset.__getitems__(BatchRequest(sample_index, seed=None, epoch=0, pass_=0))

    def __len__(self) -> int:
        """Return the number of batches of a whole pass, the same on every process."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:
        """Yield this process's batches; nothing is read before the first one is asked for."""
        if not self._resuming:
            self._consumed = 0
        self._resuming = False
        pass_ = self.first_pass if self._cycle == 0 else self._cycle + 1
        self.plan.set_epoch(self.epoch, pass_)
        if self.labels is not None:
            labels = self.labels()
            self.plan.set_labels(None if labels is None else labels.numpy(force=True))
        slices = self._slices
        slices.epoch, slices.pass_, slices.skip = self.epoch, pass_, self._consumed
        for batch in self._loader:
            self._consumed += 1
            yield batch
        self._cycle += 1
        self._consumed = 0

    def end_workers(self) -> None:
        """End the worker processes now; another pass starts new ones.

        Left to the garbage collector, each is waited for in vain for 5 seconds: it closes the
        queue that would tell the worker before it asks the iterator.
        """
        iterator, self._loader._iterator = self._loader._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()

    _iterator = ENDS_WORKERS


SHARED_MEMORY = Path("/dev/shm")
"""Where worker processes put batches for this one to take, on Linux."""
AHEAD = 2
"""Batches that a worker makes before the first is taken; torch's default."""


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Raise an error if the batches that workers make ahead do not fit into /dev/shm.

    Args:
        num_workers: Workers of all processes on this machine that share a batch.
        batch_bytes: Size of a batch.

    Raises:
        ValueError: If they do not.

    Example:
        >>> check_shared_memory(0, batch_bytes=1 << 50)
    """
    if num_workers == 0 or not SHARED_MEMORY.is_dir():
        return
    needed, free = (1 + AHEAD * num_workers) * batch_bytes, shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise ValueError(
            f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, and data.num_workers={num_workers} "
            f"with batches of {batch_bytes / 1e6:,.1f} MB needs {needed / 1e6:,.0f} MB there. Use "
            "data.num_workers=0, or give the container more (docker run --shm-size=8g)."
        )


def _shared(batch: Any) -> Any:  # noqa: ANN401
    """Put a worker's batch into shared memory here, where a failure reaches the run.

    Left to the queue's thread, it would be printed there, and the run would wait for ever.
    """
    if isinstance(batch, Tensor):
        try:
            batch.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise RuntimeError(
                f"a worker could not put a batch into {SHARED_MEMORY}: {error}. Use "
                "data.num_workers=0, or give the container more (docker run --shm-size=8g)."
            ) from error
    if isinstance(batch, tuple):
        for part in batch:
            _shared(part)
    return batch


def _unchanged(batch: Any) -> Any:  # noqa: ANN401
    return batch
