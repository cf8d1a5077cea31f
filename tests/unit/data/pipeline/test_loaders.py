import contextlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from crosswalk.data.pipeline import loaders
from crosswalk.data.pipeline.loaders import BatchRequest, EpochLoader, check_shared_memory
from crosswalk.data.pipeline.plans import IdentityBatches, SequentialBatches, ShuffledBatches
from crosswalk.draws import sample_key

NUM_SAMPLES, BATCH_SIZE, STEPS = 11, 3, 4


class Batch(NamedTuple):
    sample_index: Tensor
    key: Tensor | None


class IndexDataset:
    def __init__(self, num_samples: int = NUM_SAMPLES) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitems__(self, request: BatchRequest) -> Batch:
        return Batch(torch.from_numpy(request.sample_index), request.key())


def make_loader(
    num_workers: int = 0, num_samples: int = NUM_SAMPLES, first_pass: int = 0
) -> EpochLoader:
    return EpochLoader(
        IndexDataset(num_samples),
        ShuffledBatches(num_samples, BATCH_SIZE, seed=1),
        seed=1,
        first_pass=first_pass,
        num_workers=num_workers,
    )


def planned(epoch: int, pass_: int = 0, num_samples: int = NUM_SAMPLES) -> list[list[int]]:
    plan = ShuffledBatches(num_samples, BATCH_SIZE, seed=1)
    plan.set_epoch(epoch, pass_)
    return [batch.tolist() for batch in plan]


def indices(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.sample_index.tolist() for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_epoch_follows_its_plan_and_carries_its_keys(num_workers: int) -> None:
    loader = make_loader(num_workers)

    for epoch in (0, 1, 5):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert indices(batches) == planned(epoch)
        for batch in batches:
            assert torch.equal(batch.key, sample_key(1, epoch, 0, batch.sample_index))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_pass_left_early_does_not_disturb_the_next(num_workers: int) -> None:
    loader = make_loader(num_workers)
    loader.set_epoch(0)
    next(iter(loader))

    loader.set_epoch(1)

    assert indices(loader) == planned(1)


def test_the_plan_is_read_when_the_first_batch_is_asked_for() -> None:
    loader = make_loader()

    batches = iter(loader)
    loader.set_epoch(4)

    assert indices(batches) == planned(4)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_labels_are_asked_for_with_the_first_batch_also_within_a_pass(num_workers: int) -> None:
    labels = torch.full((NUM_SAMPLES,), -1)

    def make_loader() -> EpochLoader:
        return EpochLoader(
            IndexDataset(),
            IdentityBatches(np.full(NUM_SAMPLES, -1), BATCH_SIZE, 1, samples_per_person=1),
            seed=1,
            num_workers=num_workers,
            labels=lambda: labels,
        )

    plan = IdentityBatches(np.arange(NUM_SAMPLES) % 4, BATCH_SIZE, 1, samples_per_person=1)
    plan.set_epoch(2)
    expected = [batch.tolist() for batch in plan]
    loader = make_loader()
    loader.set_epoch(2)

    batches = iter(loader)
    labels.copy_(torch.arange(NUM_SAMPLES) % 4)  # a hook at the start of the epoch
    first = next(batches)
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(2)

    assert indices([first, *resumed]) == expected


def test_further_passes_in_an_epoch_have_orders_and_keys_of_their_own() -> None:
    loader = make_loader()
    loader.set_epoch(3)

    first, second, third = list(loader), list(loader), list(loader)

    assert indices(first) == planned(3, pass_=0)
    assert indices(second) == planned(3, pass_=2)
    assert indices(third) == planned(3, pass_=3)
    assert torch.equal(second[0].key, sample_key(1, 3, 2, second[0].sample_index))


def test_a_sweep_has_the_pass_it_was_given() -> None:
    loader = make_loader(first_pass=1)
    loader.set_epoch(3)

    batches = list(loader)

    assert indices(batches) == planned(3, pass_=1)
    assert torch.equal(batches[0].key, sample_key(1, 3, 1, batches[0].sample_index))


def test_evaluation_batches_have_no_keys() -> None:
    plan = SequentialBatches(NUM_SAMPLES, 4)

    loader = EpochLoader(IndexDataset(), plan, seed=None)

    assert [batch.key for batch in loader] == [None, None, None]
    assert len(loader) == 3


@pytest.mark.parametrize("num_samples", [11, 10, 9, 1])
@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_slices_of_all_processes_join_to_the_batches_of_one(
    monkeypatch: pytest.MonkeyPatch, num_samples: int, world_size: int
) -> None:
    slices = []
    for rank in range(world_size):
        monkeypatch.setattr(loaders, "rank_and_world_size", lambda r=rank: (r, world_size))
        slices.append(list(make_loader(num_samples=num_samples)))

    assert {len(batches) for batches in slices} == {len(planned(0, num_samples=num_samples))}
    for step, expected in enumerate(planned(0, num_samples=num_samples)):
        shares = [batches[step] for batches in slices]
        assert list(chain(*indices(shares))) == expected
        assert max(len(s.sample_index) for s in shares) <= -(-len(expected) // world_size)
        for share in shares:
            assert torch.equal(share.key, sample_key(1, 0, 0, share.sample_index))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("consumed", [0, 1, 3, 4])
def test_a_restored_loader_goes_on_with_the_batches_not_yet_handed_out(
    num_workers: int, consumed: int
) -> None:
    loader = make_loader(num_workers)
    loader.set_epoch(2)
    batches = iter(loader)
    handed = [next(batches) for _ in range(consumed)]
    state = loader.state_dict()

    restored = make_loader(num_workers)
    restored.load_state_dict(state)
    restored.set_epoch(2)

    assert indices(handed) + indices(restored) == planned(2)


def test_a_state_counts_from_the_start_of_the_epoch_even_after_two_stops() -> None:
    loader = make_loader()
    loader.load_state_dict({"epoch": 2, "cycle": 0, "consumed": 1})
    loader.set_epoch(2)
    batches = iter(loader)
    next(batches)

    assert loader.state_dict() == {"epoch": 2, "cycle": 0, "consumed": 2}


def test_a_state_of_another_epoch_is_dropped() -> None:
    loader = make_loader()
    loader.load_state_dict({"epoch": 2, "cycle": 0, "consumed": 3})

    loader.set_epoch(3)

    assert indices(loader) == planned(3)


def test_a_state_in_a_further_pass_restores_that_pass() -> None:
    loader = make_loader()
    list(loader)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()

    restored = make_loader()
    restored.load_state_dict(state)

    assert indices(restored) == planned(0, pass_=2)[1:]


# With a real Trainer.


class Recorder(L.LightningModule):
    """Takes down what it is trained on; fails at a given step."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise InterruptedError
        self.seen.append((self.current_epoch, batch.sample_index.tolist()))
        assert torch.equal(batch.key, sample_key(1, self.current_epoch, 0, batch.sample_index))
        return self.weight * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path) -> L.Trainer:
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    return L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def whole_run() -> list[tuple[int, list[int]]]:
    return [(epoch, batch) for epoch in range(3) for batch in planned(epoch)]


@pytest.mark.parametrize(
    ("num_workers", "stopped_at"), [(0, 1), (0, 4), (0, 6), (0, 8), (0, 11), (2, 1), (2, 6), (2, 8)]
)
def test_a_training_run_stopped_after_any_step_sees_exactly_the_rest(
    tmp_path: Path, num_workers: int, stopped_at: int
) -> None:
    stopped = Recorder(fail_at=stopped_at)
    with pytest.raises(InterruptedError):
        trainer(tmp_path).fit(stopped, make_loader(num_workers))

    resumed = Recorder()
    trainer(tmp_path).fit(
        resumed,
        make_loader(num_workers),
        ckpt_path=str(tmp_path / f"step={stopped_at}.ckpt"),
        weights_only=True,
    )

    assert stopped.seen == whole_run()[:stopped_at]
    assert resumed.seen == whole_run()[stopped_at:]


def test_two_sources_train_in_step_and_the_shorter_begins_anew() -> None:
    class Both(Recorder):
        def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
            self.seen.append((self.current_epoch, batch["target"].sample_index.tolist()))
            return self.weight * 0

    method = Both()
    short, long = make_loader(num_samples=5), make_loader(num_samples=11)
    both = CombinedLoader({"source": long, "target": short}, "max_size_cycle")

    L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(method, both)

    expected = []
    for epoch in range(2):
        expected += [(epoch, batch) for batch in planned(epoch, 0, 5) + planned(epoch, 2, 5)]
    assert method.seen == expected


def test_requests_without_samples_give_batches_without_rows() -> None:
    request = BatchRequest(np.array([], dtype=np.int64), seed=1, epoch=0, pass_=0)

    batch = IndexDataset().__getitems__(request)

    assert batch.sample_index.shape == (0,)
    assert batch.key.shape == (0,)


def test_some_samples_come_in_their_order_without_keys_and_disturb_no_pass() -> None:
    loader = make_loader()
    first = next(iter(loader)).sample_index.tolist()

    batch = loader.batch_of(np.array([7, 2, 7]))

    assert batch.sample_index.tolist() == [7, 2, 7]
    assert batch.key is None
    assert next(iter(loader)).sample_index.tolist() == first


@pytest.mark.parametrize(
    ("num_workers", "free", "fits"), [(0, 0, True), (4, 9, True), (4, 8, False)]
)
def test_workers_whose_batches_do_not_fit_are_refused_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, num_workers: int, free: int, fits: bool
) -> None:
    """Four workers make eight batches ahead, and one is in use."""
    usage = SimpleNamespace(free=free * 1_000_000)
    monkeypatch.setattr("crosswalk.data.pipeline.loaders.shutil.disk_usage", lambda path: usage)

    refused = pytest.raises(ValueError, match=r"/dev/shm has .* data.num_workers=4")
    with contextlib.nullcontext() if fits else refused:
        check_shared_memory(num_workers, batch_bytes=1_000_000)


class NoRoom(Tensor):
    def share_memory_(self) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")


class WithoutRoom:
    def __len__(self) -> int:
        return 3

    def __getitems__(self, request: BatchRequest) -> Tensor:
        return torch.zeros(3).as_subclass(NoRoom)


def test_a_worker_that_finds_no_shared_memory_ends_the_run() -> None:
    loader = EpochLoader(WithoutRoom(), SequentialBatches(3, 3), seed=None, num_workers=1)

    with pytest.raises(RuntimeError, match=r"/dev/shm: unable to allocate .* data.num_workers=0"):
        list(loader)
