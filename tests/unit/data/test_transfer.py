import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor

from crosswalk.data.images import ImageToImageData
from crosswalk.data.pipeline import loaders
from crosswalk.data.pipeline.decoding import BrokenImagesError
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.loaders import BatchRequest, EpochLoader
from crosswalk.data.pipeline.plans import ShuffledBatches, identity_plan
from crosswalk.data.readers.records import ImageSplits, Record
from crosswalk.data.transfer import SourceTargetData, SourceTargetLoader
from crosswalk.draws import sample_key
from crosswalk.types import DataSpec, ImageBatch, SourceTargetBatch

# Samples and batches of 3: an epoch has 7 steps, a pass over the target 2.
NUM_SOURCE, NUM_TARGET, BATCH_SIZE, STEPS = 22, 8, 3, 7


class IndexDataset:
    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitems__(self, request: BatchRequest) -> ImageBatch:
        index = torch.from_numpy(request.sample_index)
        image = torch.zeros(len(index), 1)
        return ImageBatch(image, index, index, index, request.key())


def plan(num_samples: int, seed: int) -> ShuffledBatches:
    return ShuffledBatches(num_samples, BATCH_SIZE, seed=seed, drop_last=True)


def make_loader(num_workers: int = 0, num_target: int = NUM_TARGET) -> SourceTargetLoader:
    source, target = (
        EpochLoader(IndexDataset(number), plan(number, seed), seed=seed, num_workers=num_workers)
        for number, seed in ((NUM_SOURCE, 10), (num_target, 11))
    )
    return SourceTargetLoader(source, target)


def planned(epoch: int, num_target: int = NUM_TARGET) -> list[tuple[list[int], list[int], int]]:
    """Return source batch, target batch and number of the target's pass of every step."""

    def target_batches() -> Iterator[tuple[list[int], int]]:
        for pass_ in chain([0], range(2, 100)):
            batches = plan(num_target, 11)
            batches.set_epoch(epoch, pass_)
            yield from ((batch.tolist(), pass_) for batch in batches)

    source = plan(NUM_SOURCE, 10)
    source.set_epoch(epoch)
    return [
        (batch.tolist(), *other) for batch, other in zip(source, target_batches(), strict=False)
    ]


def check(batches: list[SourceTargetBatch], expected: list[Any], epoch: int) -> None:
    for batch, (source, target, pass_) in zip(batches, expected, strict=True):
        assert batch.source.sample_index.tolist() == source
        assert batch.target.sample_index.tolist() == target
        assert torch.equal(batch.source.key, sample_key(10, epoch, 0, torch.tensor(source)))
        assert torch.equal(batch.target.key, sample_key(11, epoch, pass_, torch.tensor(target)))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_target", [3, 8, 21, 23, 60])
def test_the_source_is_passed_once_and_the_target_starts_again(
    num_workers: int, num_target: int
) -> None:
    loader = make_loader(num_workers, num_target)

    for epoch in (0, 1, 5):
        loader.set_epoch(epoch)
        check(list(loader), planned(epoch, num_target), epoch)
    assert len(loader) == STEPS


def test_the_targets_passes_are_numbered_0_2_3() -> None:
    assert [pass_ for _, _, pass_ in planned(0)] == [0, 0, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_slices_of_all_processes_join_to_the_batches_of_one(
    monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    slices = []
    for rank in range(world_size):
        monkeypatch.setattr(loaders, "rank_and_world_size", lambda r=rank: (r, world_size))
        loader = make_loader()
        loader.set_epoch(2)
        slices.append(list(loader))

    for step, (source, target, _) in enumerate(planned(2)):
        assert [i for part in slices for i in part[step].source.sample_index.tolist()] == source
        assert [i for part in slices for i in part[step].target.sample_index.tolist()] == target
    assert {len(batches) for batches in slices} == {STEPS}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("consumed", range(STEPS + 1))
def test_a_restored_loader_goes_on_in_the_middle_of_both_passes(
    num_workers: int, consumed: int
) -> None:
    loader = make_loader(num_workers)
    loader.set_epoch(4)
    batches = iter(loader)
    handed = [next(batches) for _ in range(consumed)]
    state = json.loads(json.dumps(loader.state_dict()))

    restored = make_loader(num_workers)
    restored.load_state_dict(state)
    restored.set_epoch(4)

    check(handed + list(restored), planned(4), 4)


def test_a_loader_restored_twice_goes_on_exactly() -> None:
    seen: list[SourceTargetBatch] = []
    loader = make_loader()
    loader.set_epoch(3)
    for consumed in (3, 1, 2):
        batches = iter(loader)
        seen += [next(batches) for _ in range(consumed)]
        state = loader.state_dict()
        loader = make_loader()
        loader.load_state_dict(state)
        loader.set_epoch(3)

    check(seen + list(loader), planned(3), 3)


@pytest.mark.parametrize("consumed", [0, 3, STEPS])
def test_a_state_of_another_epoch_is_dropped(consumed: int) -> None:
    loader = make_loader()
    batches = iter(loader)
    for _ in range(consumed):
        next(batches)

    restored = make_loader()
    restored.load_state_dict(loader.state_dict())
    restored.set_epoch(1)

    check(list(restored), planned(1), 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_left_early_does_not_disturb_the_next(num_workers: int) -> None:
    loader = make_loader(num_workers)
    loader.set_epoch(0)
    batches = iter(loader)
    for _ in range(4):
        next(batches)

    loader.set_epoch(1)

    check(list(loader), planned(1), 1)


def test_both_plans_are_read_when_the_first_batch_is_asked_for() -> None:
    loader = make_loader()

    batches = iter(loader)
    loader.set_epoch(4)

    check(list(batches), planned(4), 4)


@pytest.mark.parametrize("empty", ["source", "target"])
def test_neither_set_may_be_without_batches(empty: str) -> None:
    number = {"source": 6, "target": 6, empty: 0}
    loaders = {
        name: EpochLoader(IndexDataset(n), ShuffledBatches(n, 3, seed=0), seed=0)
        for name, n in number.items()
    }

    with pytest.raises(ValueError, match=rf"the {empty} has no batch.*data\.batch_size"):
        SourceTargetLoader(**loaders)


# With a real Trainer.


class Recorder(L.LightningModule):
    """Takes down what it is trained on; fails at a given step."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at
        self.seen: list[tuple[int, SourceTargetBatch]] = []
        self.evaluated: list[int] = []

    def training_step(self, batch: SourceTargetBatch, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise InterruptedError
        self.seen.append((self.current_epoch, batch))
        return self.weight * 0

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        assert isinstance(batch, ImageBatch)
        self.evaluated.append(len(batch.image))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path) -> L.Trainer:
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    return L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@pytest.mark.parametrize(
    ("num_workers", "stopped_at"),
    [*((0, step) for step in (1, 2, 3, 6, 7, 8, 11, 13)), (2, 3), (2, 9)],
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

    assert len(stopped.seen) == stopped_at
    seen = stopped.seen + resumed.seen
    for epoch in (0, 1):
        check([batch for e, batch in seen if e == epoch], planned(epoch), epoch)


@pytest.mark.parametrize("stopped_at", [None, 9])
@pytest.mark.parametrize("both", [True, False])
def test_workers_end_with_the_training(tmp_path: Path, both: bool, stopped_at: int | None) -> None:
    others = set(multiprocessing.active_children())
    loader = make_loader(num_workers=1)
    list(loader)
    assert set(multiprocessing.active_children()) > others

    with nullcontext() if stopped_at is None else pytest.raises(InterruptedError):
        trainer(tmp_path).fit(Recorder(stopped_at), loader if both else loader.source)

    if not both:
        loader.target.end_workers()
    assert set(multiprocessing.active_children()) == others
    loader.set_epoch(3)
    check(list(loader), planned(3), 3)
    loader.end_workers()


# The data module.

CAMERAS = {"source": (1, 2), "target": (1, 2, 3)}
PEOPLE = {"source": range(11), "target": (5, 30, 7)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sets of 22 and 9 training images below one folder; red 10 and 200."""
    for name, red in (("source", 10), ("target", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        number = len(CAMERAS[name]) * len(PEOPLE[name])
        for place in [*range(number), 100, 101]:
            pixels = np.full((6, 3, 3), (red, place, 7), dtype=np.uint8)
            pixels[:, 2] = 0  # so that a flip shows
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{place}.png")
    return tmp_path / "data"


def read(root: Path, name: str) -> ImageSplits:
    folder = root / name
    ids = [(person, camera) for person in PEOPLE[name] for camera in CAMERAS[name]]
    train = tuple(Record(folder / f"{n}.png", *each) for n, each in enumerate(ids))
    query, gallery = (Record(folder / f"{n}.png", 3, n) for n in (100, 101))
    return ImageSplits(
        name,
        folder,
        ".",
        train,
        query=() if name == "source" else (query,),
        gallery=() if name == "source" else (gallery,),
        notices=(f"I am the {name}.",),
    )


def part(name: str, **options: object) -> Callable[..., ImageToImageData]:
    return partial(ImageToImageData, reader=partial(read, name=name), **options)


def copied(root: Path) -> Path:
    return root.parent / "copied"


def make_data(root: Path | None, **options: object) -> SourceTargetData:
    settings = {"image_size": (6, 3), "batch_size": 4, **options}
    source, target = (settings.pop(name, part(name)) for name in ("source", "target"))
    return SourceTargetData(source, target, root=root, **settings)


def test_sizes_are_the_targets_with_the_sources_people(root: Path) -> None:
    spec = make_data(root).spec

    assert spec == DataSpec(
        num_samples=9, num_images=9, num_person_ids=3, num_cameras=4, num_source_person_ids=11
    )


def test_batches_hold_samples_of_both_sets_and_drop_the_incomplete_ones(root: Path) -> None:
    data = make_data(root, seed=3)
    loader = data.train_dataloader()
    loader.set_epoch(1)

    batches = list(loader)

    # source: 22 = 5 * 4 + 2, target: 9 = 2 * 4 + 1
    source, target = (ShuffledBatches(n, 4, s, drop_last=True) for n, s in ((22, 6), (9, 7)))
    source.set_epoch(1)
    expected = []
    for pass_ in (0, 2, 3):
        target.set_epoch(1, pass_)
        expected += [batch.tolist() for batch in target]
    assert [batch.source.sample_index.tolist() for batch in batches] == [
        batch.tolist() for batch in source
    ]
    assert [batch.target.sample_index.tolist() for batch in batches] == expected[:5]
    assert len(loader) == 5
    for batch in batches:
        assert batch.source.image[:, 0, 0, 0].tolist() == [10] * 4
        assert batch.target.image[:, 0, 0, 0].tolist() == [200] * 4
        assert batch.source.image[:, 1, 0, 0].tolist() == batch.source.sample_index.tolist()
        assert batch.target.image[:, 1, 0, 0].tolist() == batch.target.sample_index.tolist()


@pytest.mark.parametrize("train_on", ["both", "source"])
def test_a_set_says_what_kind_of_batches_it_gives(root: Path, train_on: str) -> None:
    data = make_data(root, train_on=train_on)

    assert data.batch_types == (type(next(iter(data.train_dataloader()))),)
    assert set(data.batch_types) < set(SourceTargetData.batch_types)
    assert data.target.batch_types == (ImageBatch,)


def test_source_and_target_draw_different_random_numbers(root: Path) -> None:
    shutil.copytree(root / "target", copied(root) / "target")
    both = {"source": part("target", root=copied(root)), "target": part("target")}
    keys, orders = set(), set()
    for seed in (0, 1, 2):
        (first, *_) = make_data(root, seed=seed, batch_size=9, **both).train_dataloader()
        for batch in first:
            keys |= set(batch.key.tolist())
            orders.add(str(batch.sample_index.tolist()))

    assert len(keys) == 6 * 9
    assert len(orders) == 6


def test_each_set_is_normalised_by_its_own_images(root: Path) -> None:
    transform = ImageTransform(flip_probability=0.5)
    data = make_data(root, normalization="dataset", transform=transform)
    batch = next(iter(data.train_dataloader()))

    transformed = data.transform_batch(batch)

    for name, images in zip(("source", "target"), transformed, strict=True):
        raw = getattr(batch, name)
        number = {"source": 22, "target": 9}[name]
        colours = [[{"source": 10, "target": 200}[name], n, 7] for n in range(number)]
        pixels = np.array([*colours, *colours, *[[0, 0, 0]] * number]) / 255
        statistics = {"mean": tuple(pixels.mean(0)), "std": tuple(pixels.std(0))}
        expected = replace(transform, **statistics)(raw).image
        assert torch.allclose(images.image, expected.float(), atol=1e-4)


def test_evaluation_and_sweeps_are_the_targets(root: Path) -> None:
    data = make_data(root, normalization="dataset", extra_map=["first_hit_bonus"])
    (query,), (gallery,) = (list(loader) for loader in data.test_dataloader())

    assert data.evaluation_roles("validate") == []
    assert data.val_dataloader() == []
    assert data.evaluation_roles("test") == [("test", "query"), ("test", "gallery")]
    assert data.num_evaluation_samples("test", "query") == 1
    assert (query.camera_id.tolist(), gallery.camera_id.tolist()) == ([100], [101])
    assert data.evaluation_queries("test") == [root / "target" / "100.png"]
    assert data.evaluation_images("test") == [root / "target" / "101.png"]
    assert (data.directions, data.camera_rule) == (("image_to_image",), True)
    assert data.extra_map == ("first_hit_bonus",)
    assert torch.equal(data.transform_batch(query).image, data.target.transform_batch(query).image)
    assert not torch.equal(
        data.transform_batch(query).image, data.source.transform_batch(query).image
    )
    for epoch in (0, 1):
        index = torch.cat([batch.sample_index for batch in data.sweep_dataloader(epoch)])
        assert sorted(index.tolist()) == list(range(9))
        assert index.tolist() != list(range(9))
    assert data.train_person_id.tolist() == [0, 0, 0, 2, 2, 2, 1, 1, 1]
    assert data.train_image_person_id.tolist() == [0, 0, 0, 2, 2, 2, 1, 1, 1]


def test_clean_sweeps_are_normalised_as_the_target(root: Path) -> None:
    data = make_data(root, normalization="dataset", sweep="clean")

    (batch,) = data.sweep_dataloader(0)

    assert batch.sample_index.tolist() == list(range(9))
    assert torch.equal(data.transform_batch(batch).image, data.target.transform_batch(batch).image)


def test_people_of_the_target_may_be_held_out(root: Path) -> None:
    data = make_data(root, protocol="val", val_person_ids=1)

    assert data.evaluation_roles("validate") == [("val", "query"), ("val", "gallery")]
    assert data.spec.num_samples == 6
    assert data.spec.num_source_person_ids == 11


def test_the_source_alone_is_a_labelled_set_evaluated_on_the_target(root: Path) -> None:
    data = make_data(root, train_on="source", normalization="dataset")

    (batch, *others) = data.train_dataloader()

    assert data.spec == DataSpec(
        num_samples=22, num_images=22, num_person_ids=11, num_cameras=3, num_source_person_ids=11
    )
    assert isinstance(batch, ImageBatch)
    assert len(others) == 4
    assert batch.image[:, 0, 0, 0].tolist() == [10] * 4
    assert torch.equal(data.transform_batch(batch).image, data.source.transform_batch(batch).image)
    (query,) = data.test_dataloader()[0]
    assert torch.equal(data.transform_batch(query).image, data.target.transform_batch(query).image)
    index = torch.cat([batch.sample_index for batch in data.sweep_dataloader(0)])
    assert sorted(index.tolist()) == list(range(22))
    assert len(data.train_person_id) == 22


def test_a_clean_sweep_of_the_source_alone_is_refused(root: Path) -> None:
    data = make_data(root, train_on="source", sweep="clean")

    with pytest.raises(ValueError, match=r"data\.sweep=clean with data\.train_on=source"):
        data.sweep_dataloader(0)


def test_what_a_set_says_itself_counts_more(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "source").rename(tmp_path / "elsewhere" / "source")
    source = part("source", root=tmp_path / "elsewhere", batch_size=2, image_size=None)

    data = make_data(root, source=source, target=part("target", root=None))

    batch = next(iter(data.train_dataloader()))
    assert data.source.splits.root == tmp_path / "elsewhere" / "source"
    assert data.target.splits.root == root / "target"
    assert (len(batch.source.image), len(batch.target.image)) == (2, 4)
    assert batch.source.image.shape[2:] == (6, 3)


def test_the_description_is_plain_and_tells_both_sets(root: Path) -> None:
    data = make_data(root)
    description = data.describe()

    assert json.loads(json.dumps(description)) == description
    assert description["dataset"] == "source to target"
    assert description["source"]["counts"]["train"]["images"] == 22
    assert description["target"]["counts"]["train"]["images"] == 9
    assert description["notices"] == ["source: I am the source.", "target: I am the target."]
    assert description["fingerprint"] == data.fingerprint
    assert data.fingerprint == make_data(root, seed=5).fingerprint
    shutil.copytree(root / "target", copied(root) / "target")
    other = part("target", root=copied(root))
    assert data.fingerprint != make_data(root, source=other).fingerprint


@pytest.mark.parametrize(
    ("broken", "train_on", "stage", "stops"),
    [
        ("source/3.png", "both", "fit", True),
        ("source/3.png", "source", "fit", True),
        ("source/3.png", "both", "test", False),
        ("target/3.png", "both", "fit", True),
        ("target/3.png", "source", "fit", False),
        ("target/100.png", "source", "fit", True),
        ("target/100.png", "both", "test", True),
    ],
)
def test_broken_images_that_a_run_reads_stop_it_at_its_start(
    root: Path, broken: str, train_on: str, stage: str, stops: bool
) -> None:
    (root / broken).write_bytes(b"")
    data = make_data(root, train_on=train_on)

    if stops:
        with pytest.raises(BrokenImagesError, match=broken):
            data.setup(stage)
    else:
        data.setup(stage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"seed=-1 should not be negative"),
        ({"root": None}, r"data\.root is missing"),
    ],
)
def test_wrong_settings_are_named(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(**{"root": root, **options})


@pytest.mark.parametrize("train_on", ["both", "source"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_source_that_is_the_target_is_refused(root: Path, train_on: str, linked: bool) -> None:
    (root / "link").symlink_to(root)
    source = part("target", root=root / "link" if linked else root)

    with pytest.raises(
        ValueError,
        match=r"data\.source\.root and data\.target\.root lead to one data set, .*: 9 of 9 images",
    ):
        make_data(root, source=source, target=part("target"), train_on=train_on)


@pytest.mark.parametrize(("given", "refused"), [((0, 1), False), ((0, 9), True)])
def test_two_tables_of_one_folder_may_hold_source_and_target(
    root: Path, given: tuple[int, ...], refused: bool
) -> None:
    def table(root: Path, name: str) -> ImageSplits:
        splits = read(root, "target")
        places = given if name == "source" else range(2, 9)
        every = [*splits.train, *splits.query]
        train = tuple(every[place] for place in places)
        return replace(splits, train=train, layout=f"{name}.csv")

    tables = {
        name: partial(ImageToImageData, reader=partial(table, name=name))
        for name in ("source", "target")
    }
    if refused:  # the target's query
        with pytest.raises(ValueError, match=r": 1 of 2 images of the source are the target's"):
            make_data(root, **tables)
    else:
        assert make_data(root, **tables).spec.num_samples == 7


def without_labels(root: Path, name: str) -> ImageSplits:
    return replace(read(root, name), train_is_labelled=False)


def test_the_target_may_have_no_labels_and_the_source_may_not(root: Path) -> None:
    unlabelled = {
        name: partial(ImageToImageData, reader=partial(without_labels, name=name))
        for name in ("source", "target")
    }

    data = make_data(root, target=unlabelled["target"])
    transfer = make_data(root, target=unlabelled["target"], train_on="source")

    assert (data.is_labelled, data.train_person_id) == (False, None)
    assert transfer.is_labelled
    assert len(transfer.train_person_id) == 22
    with pytest.raises(ValueError, match=r"source in .* without person ids, .*data\.source\.root="):
        make_data(root, source=unlabelled["source"])


@pytest.mark.parametrize("train_on", ["both", "source"])
def test_labels_make_the_batches_of_the_samples_that_are_counted(root: Path, train_on: str) -> None:
    plan = partial(identity_plan, samples_per_person=2)
    data = make_data(root, plan=plan, identities=False, train_on=train_on)
    labels = torch.arange(data.spec.num_samples) % 4 - 1
    data.plan_labels = lambda: labels

    for batch in data.train_dataloader():
        if train_on == "both":  # the source is a labelled set, whatever the method is told
            persons = batch.source.person_id.unique(return_counts=True)[1]
            assert persons.tolist() == [2, 2]
            batch = batch.target
        assert labels[batch.sample_index].unique(return_counts=True)[1].tolist() == [2, 2]
        assert labels[batch.sample_index].min() >= 0


def test_the_targets_people_are_told_to_methods_that_need_them_only(root: Path) -> None:
    plan = partial(identity_plan, samples_per_person=2)

    for batch in make_data(root, plan=plan).train_dataloader():
        assert batch.target.person_id.unique(return_counts=True)[1].tolist() == [2, 2]
    with pytest.raises(ValueError, match="no person ids"):
        next(iter(make_data(root, plan=plan, identities=False).train_dataloader()))


def test_a_batch_larger_than_a_set_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size=10 is larger than .* of 9 samples"):
        make_data(root, batch_size=10).train_dataloader()


@pytest.mark.parametrize("train_on", ["both", "source"])
def test_a_trainer_transforms_batches_of_both_sets(
    root: Path, tmp_path: Path, train_on: str
) -> None:
    def data() -> SourceTargetData:
        return make_data(
            root,
            normalization="dataset",
            transform=ImageTransform(flip_probability=0.5),
            protocol="official",
            train_on=train_on,
        )

    method = Recorder()
    trainer(tmp_path).fit(method, datamodule=data())

    expected = data()
    loader = expected.train_dataloader()
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        seen = [batch for e, batch in method.seen if e == epoch]
        for batch, raw in zip(seen, loader, strict=True):
            wanted = expected.transform_batch(raw)
            pairs = [(batch, wanted)] if train_on == "source" else zip(batch, wanted, strict=True)
            assert all(torch.equal(one.image, two.image) for one, two in pairs)
    assert method.evaluated == [1, 1] * 2
