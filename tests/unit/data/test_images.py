import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crosswalk.config.build import instantiate
from crosswalk.config.compose import compose
from crosswalk.data import base
from crosswalk.data.images import ImageToImageData
from crosswalk.data.pipeline import loaders
from crosswalk.data.pipeline.cluster_plans import cluster_plan
from crosswalk.data.pipeline.crops import RectangularCrop
from crosswalk.data.pipeline.datasets import CAMERA_STREAM
from crosswalk.data.pipeline.decoding import BrokenImagesError
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.plans import ShuffledBatches, identity_plan, shuffled_plan
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.data.readers.own_images import read_own_images
from crosswalk.data.readers.records import ImageSplits, Record, shared_pictures
from crosswalk.draws import keyed_uniform, sample_key
from crosswalk.types import DataSpec, ImageBatch

# person, camera and number of images
TRAIN = [(30, 1, 2), (30, 2, 1), (7, 1, 1), (7, 2, 2), (12, 2, 3), (9, 2, 1), (9, 3, 2), (41, 1, 3)]
QUERY = [(5, 1, 1), (5, 2, 1), (2, 3, 1)]
GALLERY = [(0, 1, 1), (5, 1, 2), (5, 2, 1), (2, 1, 2)]
SPLITS = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}
NUM_TRAIN, NUM_CAMERAS = 15, 3


def numbered(split: str) -> list[tuple[int, int, int]]:
    """Return number, person and camera of every image of a split."""
    first = {"train": 0, "query": 100, "gallery": 200}[split]
    ids = [(person, camera) for person, camera, n in SPLITS[split] for _ in range(n)]
    return [(first + place, *each) for place, each in enumerate(ids)]


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(path, format="PNG")  # exact, whatever the name says


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in SPLITS:
        for number, person, camera in numbered(split):
            pixels = np.full((40 + number % 3, 20, 3), (person, number, camera), dtype=np.uint8)
            write(folder / f"{number}.jpg", pixels)
    return folder


@pytest.fixture
def styled(root: Path) -> Path:
    """A folder with camera-style images: red says the new camera, blue is 99."""
    folder = root / "bounding_box_train_camstyle"
    folder.mkdir()
    for number, _, camera in numbered("train"):
        for new in range(1, NUM_CAMERAS + 1):
            if new != camera:
                pixels = np.full((40, 20, 3), (new, number, 99), dtype=np.uint8)
                write(folder / f"{number}_fake_{camera}to{new}.jpg", pixels)
    return root


def read(root: Path) -> ImageSplits:
    parts = {
        split: tuple(
            Record(root / f"{number}.jpg", person, camera)
            for number, person, camera in numbered(split)
        )
        for split in SPLITS
    }
    return ImageSplits("tiny", root, "tiny/*.jpg", junk={"gallery": 3}, notices=("Hm.",), **parts)


def make_data(
    root: Path, reader: Callable[[Path], ImageSplits] = read, **options: object
) -> ImageToImageData:
    settings = {"image_size": (12, 4), "batch_size": 4, "camstyle": "off", **options}
    return ImageToImageData(reader, root=root, **settings)


def numbers(image: Tensor) -> list[int]:
    return image[:, 1, 5, 2].tolist()


def test_sizes_count_images_people_and_cameras(root: Path) -> None:
    spec = make_data(root).spec

    assert spec == DataSpec(num_samples=15, num_images=15, num_person_ids=5, num_cameras=4)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", [True, "off"])
def test_training_batches_hold_image_identity_camera_and_key_of_each_sample(
    root: Path, num_workers: int, cache: bool | str
) -> None:
    data = make_data(root, num_workers=num_workers, cache=cache, seed=5)
    loader = data.train_dataloader()
    loader.set_epoch(3)
    labels = {person: n for n, person in enumerate([7, 9, 12, 30, 41])}

    batches = list(loader)

    plan = ShuffledBatches(NUM_TRAIN, 4, seed=5)
    plan.set_epoch(3)
    assert [b.sample_index.tolist() for b in batches] == [b.tolist() for b in plan]
    for batch in batches:
        assert isinstance(batch, ImageBatch)
        assert torch.equal(batch.key, sample_key(5, 3, 0, batch.sample_index))
        assert batch.image.shape[1:] == (3, 12, 4)
        for row, index in enumerate(batch.sample_index.tolist()):
            number, person, camera = numbered("train")[index]
            assert batch.image[row, :, 5, 2].tolist() == [person, number, camera]
            assert batch.person_id[row].item() == labels[person]
            assert batch.camera_id[row].item() == camera


def test_true_labels_are_known_for_analysis(root: Path) -> None:
    data = make_data(root)
    labels = {person: n for n, person in enumerate([7, 9, 12, 30, 41])}

    expected = [labels[person] for _, person, _ in numbered("train")]
    assert data.train_person_id.tolist() == expected
    assert data.train_image_person_id.tolist() == expected


def unlabelled(root: Path) -> ImageSplits:
    splits = read(root)
    train = tuple(replace(record, person_id=50 + n) for n, record in enumerate(splits.train))
    return replace(splits, train=train, train_is_labelled=False)


def test_nobody_knows_the_people_of_unlabelled_images(root: Path) -> None:
    data = make_data(root, unlabelled)

    batch = next(iter(data.train_dataloader()))

    assert (make_data(root).is_labelled, data.is_labelled) == (True, False)
    assert data.train_person_id is None
    assert data.train_image_person_id is None
    assert batch.person_id.tolist() == batch.sample_index.tolist()
    assert data.spec == DataSpec(num_samples=15, num_images=15, num_person_ids=15, num_cameras=4)
    description = data.describe()
    assert description["labelled"] is False
    assert description["counts"]["train"] == {"person_ids": 0, "images": 15, "cameras": 3}
    assert description["counts"]["gallery"]["person_ids"] == 3


def test_unlabelled_images_are_not_batched_by_identity(root: Path) -> None:
    plan = partial(identity_plan, samples_per_person=2)

    with pytest.raises(ValueError, match=r"data\.plan=identity_plan .* has no person ids"):
        next(iter(make_data(root, unlabelled, plan=plan).train_dataloader()))


@pytest.mark.parametrize("splits", [read, unlabelled])
def test_plans_see_no_identities_that_the_method_does_not_need(
    root: Path, splits: Callable[[Path], ImageSplits]
) -> None:
    told: list[list[int]] = []

    def plan(person_id: NDArray[np.int64], *, batch_size: int, seed: int) -> ShuffledBatches:
        told.append(person_id.tolist())
        return ShuffledBatches(len(person_id), batch_size, seed)

    make_data(root, splits, plan=plan, identities=False).train_dataloader()

    assert told == [[-1] * NUM_TRAIN]


@pytest.mark.parametrize("sweep", ["training", "clean"])
def test_batches_by_identity_follow_the_labels_of_the_method(root: Path, sweep: str) -> None:
    plan = partial(identity_plan, samples_per_person=2)
    data = make_data(root, plan=plan, batch_size=4, identities=False, sweep=sweep)
    labels = torch.arange(NUM_TRAIN) % 5 - 1  # every fifth image is an outlier
    data.plan_labels = lambda: labels

    batches = [batch.sample_index for batch in data.train_dataloader()]
    swept = torch.cat([batch.sample_index for batch in data.sweep_dataloader(0)])

    assert len(batches) == NUM_TRAIN // 4
    for index in batches:
        assert labels[index].unique(return_counts=True)[1].tolist() == [2, 2]
        assert labels[index].min() >= 0
    assert sorted(swept.tolist()) == list(range(NUM_TRAIN))


def test_no_people_can_be_held_out_of_unlabelled_images(root: Path) -> None:
    def held_out_already(root: Path) -> ImageSplits:
        return replace(held_out(root), train_is_labelled=False)

    with pytest.raises(ValueError, match=r"images of tiny .* no person ids, .*\(protocol=val\)"):
        make_data(root, unlabelled, protocol="val")
    assert make_data(root, held_out_already, protocol="val").num_evaluation_samples("val", "query")


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_single_training_image_is_refused_at_the_start(root: Path, batch_size: int) -> None:
    def read_one(root: Path) -> ImageSplits:
        return replace(read(root), train=read(root).train[:1])

    with pytest.raises(ValueError, match=r"a single training image.* Add images"):
        make_data(root, read_one, batch_size=batch_size).train_dataloader()


@pytest.mark.parametrize("batch_size", [2, 7, 14])
def test_a_last_batch_of_one_image_is_refused_at_the_start(root: Path, batch_size: int) -> None:
    message = (
        rf"data\.batch_size={batch_size} leaves a last batch of a single one of the 15 .*"
        r"\+data\.plan\.drop_last=true"
    )

    with pytest.raises(ValueError, match=message):
        make_data(root, batch_size=batch_size).train_dataloader()


@pytest.mark.parametrize(
    ("batch_size", "plan", "sizes"),
    [
        (1, shuffled_plan, [1] * 15),
        (13, shuffled_plan, [13, 2]),
        (15, shuffled_plan, [15]),
        (7, partial(shuffled_plan, drop_last=True), [7, 7]),
        (2, partial(identity_plan, samples_per_person=2), [2] * 7),
        (14, partial(identity_plan, samples_per_person=7), [14]),
        # as many batches as a rest would make, and no rest
        (7, partial(cluster_plan, images_per_cluster=7, num_batches=3), [7] * 3),
    ],
)
def test_other_last_batches_are_trained_on(
    root: Path, batch_size: int, plan: Callable[..., Any], sizes: list[int]
) -> None:
    loader = make_data(root, batch_size=batch_size, plan=plan).train_dataloader()

    assert [len(batch.image) for batch in loader] == sizes


@pytest.mark.parametrize("sweep", ["training", "clean"])
def test_the_processes_of_a_sweep_end_with_it(root: Path, sweep: str) -> None:
    data = make_data(root, num_workers=2, sweep=sweep, eval_batch_size=7, batch_size=7)

    before = set(active_children())  # other tests of this process may have left some
    loader = data.sweep_dataloader(0)  # a last batch of one is no harm here
    sizes = [len(batch.image) for batch in loader]
    started = set(active_children()) - before
    assert len(started) == 2
    del loader

    assert sizes == [7, 7, 1]
    assert not started & set(active_children())


def noise(
    root: Path, numbers: list[int], interpolation: str = "bilinear"
) -> dict[int, Image.Image]:
    """Overwrite images by noise of odd sizes and return them."""
    pictures = {}
    for number in numbers:
        random = np.random.default_rng(number)
        shape = (int(random.integers(30, 60)), int(random.integers(11, 25)), 3)
        write(root / f"{number}.jpg", random.integers(0, 256, shape, dtype=np.uint8))
        pictures[number] = Image.open(root / f"{number}.jpg").convert("RGB")
    return pictures


def pixels(picture: Image.Image, how: Image.Resampling) -> list[Any]:
    return np.asarray(picture.resize((4, 12), how)).transpose(2, 0, 1).tolist()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_images_are_cut_at_their_own_size_and_then_resized(
    root: Path, cache: bool, num_workers: int
) -> None:
    pictures = noise(root, list(range(NUM_TRAIN)))
    crop = RectangularCrop()
    data = make_data(root, crop=crop, cache=cache, num_workers=num_workers, batch_size=15)

    (batch,) = data.train_dataloader()

    shapes = [pictures[n].size for n in batch.sample_index.tolist()]
    widths, heights = np.array(shapes).T
    boxes = np.asarray(crop.boxes(batch.key, heights, widths)).tolist()
    assert len({tuple(box[2:]) for box in boxes}) > 5
    for row, (number, box) in enumerate(zip(batch.sample_index.tolist(), boxes, strict=True)):
        top, left, height, width = box
        cut = pictures[number].crop((left, top, left + width, top + height))
        assert batch.image[row].tolist() == pixels(cut, Image.Resampling.BILINEAR)


@pytest.mark.parametrize("crop", [None, RectangularCrop()])
def test_queries_and_gallery_are_whole_images_with_a_resizing_of_their_own(
    root: Path, crop: RectangularCrop | None
) -> None:
    pictures = noise(root, [100, 200, 0])
    data = make_data(root, crop=crop, interpolation="bilinear", eval_interpolation="bicubic")

    query, gallery = (next(iter(loader)) for loader in data.test_dataloader())
    (train,) = make_data(root, batch_size=15).train_dataloader()

    assert query.image[0].tolist() == pixels(pictures[100], Image.Resampling.BICUBIC)
    assert gallery.image[0].tolist() == pixels(pictures[200], Image.Resampling.BICUBIC)
    row = train.sample_index.tolist().index(0)
    assert train.image[row].tolist() == pixels(pictures[0], Image.Resampling.BILINEAR)


def test_evaluation_is_resized_as_training_unless_told_otherwise(root: Path) -> None:
    pictures = noise(root, [100])

    query = next(iter(make_data(root, interpolation="bicubic").test_dataloader()[0]))

    assert query.image[0].tolist() == pixels(pictures[100], Image.Resampling.BICUBIC)


@pytest.mark.parametrize("camstyle", ["auto", "on", True])
@pytest.mark.parametrize("crop", [None, RectangularCrop()])
def test_camera_styles_are_drawn_by_the_key(
    styled: Path, camstyle: str | bool, crop: RectangularCrop | None
) -> None:
    data = make_data(styled, camstyle=camstyle, crop=crop, seed=2)
    loader = data.train_dataloader()

    seen = set()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            draws = keyed_uniform(batch.key, 1, CAMERA_STREAM)[:, 0].tolist()
            for row, index in enumerate(batch.sample_index.tolist()):
                number, person, camera = numbered("train")[index]
                new = 1 + int(draws[row] * NUM_CAMERAS)
                real = [person, number, camera]
                expected = real if new == camera else [new, number, 99]
                assert batch.image[row, :, 5, 2].tolist() == expected
                assert batch.camera_id[row].item() == camera
                seen.add(new == camera)
    assert seen == {True, False}
    assert data.describe()["camstyle"] is True
    assert data.notices == ["Hm."]


@pytest.mark.parametrize("camstyle", ["off", False])
def test_camera_styles_may_be_left_alone(styled: Path, camstyle: str | bool) -> None:
    data = make_data(styled, camstyle=camstyle, batch_size=15)

    (batch,) = data.train_dataloader()

    assert batch.image[:, 2].max().item() <= NUM_CAMERAS
    assert data.describe()["camstyle"] is False
    assert data.notices == ["Hm."]


def test_missing_camera_styles_are_told_with_their_price(root: Path) -> None:
    data = make_data(root, camstyle="auto", batch_size=15)

    (batch,) = data.train_dataloader()

    assert numbers(batch.image) == batch.sample_index.tolist()
    folder = root / "bounding_box_train_camstyle"
    assert data.describe()["notices"][1:] == [
        f"{folder} is missing, so only the images themselves are trained on "
        "(data.camstyle=auto). Published on Market-1501: 45.5 mAP with camera-style images, "
        "35.3 without."
    ]
    assert data.describe()["camstyle"] is False


def test_camera_styles_that_were_asked_for_must_be_there(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bounding_box_train_camstyle is missing: .*=on"):
        make_data(root, camstyle="on")


def test_clean_sweeps_read_own_images(styled: Path) -> None:
    data = make_data(styled, camstyle="on", sweep="clean", crop=RectangularCrop())

    images = torch.cat([batch.image for batch in data.sweep_dataloader(0)])

    assert numbers(images) == list(range(NUM_TRAIN))
    assert images[:, 2].max().item() <= NUM_CAMERAS


@pytest.mark.parametrize("crop", [None, RectangularCrop()])
def test_images_may_be_normalised_by_those_of_the_training_set(
    styled: Path, crop: RectangularCrop | None
) -> None:
    data = make_data(styled, normalization="dataset", camstyle="on", crop=crop)
    colours = np.array([(p, n, c) for n, p, c in numbered("train")]) / 255
    mean, std = colours.mean(axis=0), colours.std(axis=0)

    (query, *_) = data.test_dataloader()[0]
    image = data.transform_batch(query).image

    assert image[0, :, 0, 0].tolist() == pytest.approx(
        ((np.array([5, 100, 1]) / 255 - mean) / std).tolist(), abs=1e-4
    )
    train = next(iter(data.train_dataloader()))
    expected = (train.image[0, :, 5, 2].numpy() / 255 - mean) / std
    assert data.transform_batch(train).image[0, :, 5, 2].tolist() == pytest.approx(
        expected.tolist(), abs=1e-4
    )


def test_images_are_normalised_as_given_unless_told_otherwise(root: Path) -> None:
    transform = ImageTransform(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    data = make_data(root, transform=transform)
    (query, *_) = data.test_dataloader()[0]

    image = data.transform_batch(query).image

    assert image[0, :, 0, 0].tolist() == pytest.approx(
        [(5 / 255 - 0.5) / 0.5, 100 / 255 - 0.25, 1 / 255 / 2]
    )


def test_camera_statistics_are_measured_where_colours_are_exchanged(root: Path) -> None:
    data = make_data(root, transform=ImageTransform(camera_style=0.5))
    statistics = data.transform.camera_statistics

    assert statistics.shape == (NUM_CAMERAS + 1, 2, 3)
    assert statistics[0].isnan().all()
    for camera in (1, 2, 3):
        colours = np.array([(p, n, c) for n, p, c in numbered("train") if c == camera]) / 255
        assert statistics[camera, 0].tolist() == pytest.approx(colours.mean(0).tolist(), abs=1e-5)
        assert statistics[camera, 1].tolist() == pytest.approx(colours.std(0).tolist(), abs=1e-5)
    assert make_data(root).transform.camera_statistics is None


def test_colours_are_measured_once_until_an_image_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def colours() -> tuple[object, ...]:
        transform = ImageTransform(camera_style=0.5)
        data = make_data(root, transform=transform, normalization="dataset")
        measured = data.transform
        assert measured.camera_statistics is not None
        return measured.mean, measured.std, measured.camera_statistics.nan_to_num().tolist()

    first = colours()
    with monkeypatch.context() as patched:
        for name in ("channel_statistics", "camera_statistics"):
            patched.delattr(f"crosswalk.data.images.{name}")
        kept = colours()
    write(root / "0.jpg", np.full((41, 20, 3), 255, dtype=np.uint8))  # of the training set
    after = colours()

    assert kept == first
    assert all(new != old for new, old in zip(after, first, strict=True))


def test_exchanging_colours_needs_cameras(root: Path) -> None:
    def unknown(root: Path) -> ImageSplits:
        splits = read(root)
        return replace(splits, train=tuple(replace(r, camera_id=-1) for r in splits.train))

    with pytest.raises(ValueError, match=r"camera_style=0\.5 needs the cameras .* tiny does not"):
        make_data(root, unknown, transform=ImageTransform(camera_style=0.5)).setup("fit")


def held_out(root: Path) -> ImageSplits:
    """Return splits with a val split of their own."""
    splits = read(root)
    return replace(splits, val_query=splits.query[:1], val_gallery=splits.gallery)


@pytest.mark.parametrize(
    ("protocol", "reader", "stage", "splits"),
    [
        ("last", read, "validate", []),
        ("last", read, "test", ["test"]),
        ("official", read, "validate", ["test"]),
        ("official", read, "test", ["test"]),
        ("val", read, "validate", ["val"]),
        ("val", read, "fit", ["val"]),
        ("val", read, "test", ["val", "test"]),
        ("last", held_out, "validate", []),
        ("val", held_out, "validate", ["val"]),
        ("official", held_out, "validate", ["val", "test"]),
    ],
)
def test_the_protocol_says_what_is_evaluated(
    root: Path, protocol: str, reader: Callable[[Path], ImageSplits], stage: str, splits: list[str]
) -> None:
    data = make_data(root, reader, protocol=protocol, eval_batch_size=2)
    evaluation = data.test_dataloader() if stage == "test" else data.val_dataloader()

    roles = data.evaluation_roles(stage)

    assert roles == [(split, role) for split in splits for role in ("query", "gallery")]
    for loader, (split, role) in zip(evaluation, roles, strict=True):
        index = torch.cat([batch.sample_index for batch in loader])
        assert index.tolist() == list(range(data.num_evaluation_samples(split, role)))
    assert data.directions == ("image_to_image",)


def test_queries_and_gallery_keep_the_ids_of_the_file(root: Path) -> None:
    data = make_data(root, camera_rule=False, extra_map=["trapezoidal"])

    for loader, split in zip(data.test_dataloader(), ("query", "gallery"), strict=True):
        (batch,) = loader
        expected = numbered(split)
        assert batch.image[:, 1, 0, 0].tolist() == [number for number, _, _ in expected]
        assert batch.person_id.tolist() == [person for _, person, _ in expected]
        assert batch.camera_id.tolist() == [camera for _, _, camera in expected]
        assert batch.key is None
    assert data.evaluation_queries("test") == [r.image_path for r in read(root).query]
    assert data.evaluation_images("test") == [r.image_path for r in read(root).gallery]
    assert (data.camera_rule, data.extra_map) == (False, ("trapezoidal",))


def test_held_out_people_are_not_trained_on(root: Path) -> None:
    data = make_data(root, protocol="val", val_person_ids=2)
    (batch,) = make_data(root, protocol="val", val_person_ids=2, batch_size=15).train_dataloader()
    query, gallery = (next(iter(loader)) for loader in data.val_dataloader())

    assert data.spec.num_person_ids == 3
    assert sorted(batch.person_id.unique().tolist()) == [0, 1, 2]
    images = [*numbers(batch.image), *numbers(query.image), *numbers(gallery.image)]
    assert sorted(images) == list(range(NUM_TRAIN))
    moved = set(query.person_id.tolist())
    assert len(moved) == 2
    assert moved == set(gallery.person_id.tolist())
    assert moved.isdisjoint(batch.image[:, 0, 0, 0].tolist())
    assert data.num_evaluation_samples("val", "query") == len(query.person_id)


@pytest.mark.parametrize("seed", [3, 4])
def test_the_same_people_are_held_out_whatever_the_runs_seed(root: Path, seed: int) -> None:
    data = make_data(root, protocol="val", seed=seed)

    assert data.fingerprint == make_data(root, protocol="val").fingerprint


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_evaluation_is_cut_without_padding(
    root: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        monkeypatch.setattr(loaders, "rank_and_world_size", lambda r=rank: (r, world_size))
        for batch in make_data(root, eval_batch_size=4).test_dataloader()[1]:
            seen += batch.sample_index.tolist()

    assert sorted(seen) == list(range(6))


def test_more_processes_than_images_in_a_batch_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "rank_and_world_size", lambda: (0, 5))

    with pytest.raises(ValueError, match=r"data\.batch_size=4 does not split over 5 processes"):
        make_data(root).train_dataloader()


def test_a_sweep_sees_every_sample_once_in_an_order_of_its_own(root: Path) -> None:
    plan = partial(shuffled_plan, drop_last=True)
    data = make_data(root, seed=2, plan=plan)

    for epoch in (0, 1):
        batches = list(data.sweep_dataloader(epoch))
        index = torch.cat([batch.sample_index for batch in batches])
        expected = ShuffledBatches(NUM_TRAIN, 4, seed=2)
        expected.set_epoch(epoch, 1)
        assert index.tolist() == np.concatenate(list(expected)).tolist()
        assert torch.equal(batches[0].key, sample_key(2, epoch, 1, batches[0].sample_index))


def test_a_clean_sweep_is_in_order_and_without_keys(root: Path) -> None:
    batches = list(make_data(root, sweep="clean", eval_batch_size=7).sweep_dataloader(0))

    assert torch.cat([batch.sample_index for batch in batches]).tolist() == list(range(NUM_TRAIN))
    assert [batch.key for batch in batches] == [None] * 3


def test_another_plan_may_make_the_batches(root: Path) -> None:
    plan = partial(identity_plan, samples_per_person=2)
    batches = list(make_data(root, plan=plan).train_dataloader())

    assert len(batches) == 3
    for batch in batches:
        assert batch.person_id.unique(return_counts=True)[1].tolist() == [2, 2]


def test_a_plan_that_asks_for_the_cameras_is_told_them(root: Path) -> None:
    told: list[list[int]] = []

    def plan(
        person_id: NDArray[np.int64], *, camera_id: NDArray[np.int64], batch_size: int, seed: int
    ) -> ShuffledBatches:
        told.append(camera_id.tolist())
        return ShuffledBatches(len(person_id), batch_size, seed)

    make_data(root, plan=plan, identities=False).train_dataloader()

    assert told == [[record.camera_id for record in read(root).train]]


def test_batches_are_augmented_with_keys_and_normalised_without(root: Path) -> None:
    noise(root, list(range(NUM_TRAIN)))
    transform = ImageTransform(flip_probability=0.5, padding=1)
    data = make_data(root, transform=transform)
    batch = next(iter(data.train_dataloader()))
    query = next(iter(data.test_dataloader()[0]))

    assert torch.equal(data.transform_batch(batch).image, transform(batch).image)
    assert not torch.equal(data.transform_batch(batch).image, ImageTransform()(batch).image)
    assert torch.equal(data.transform_batch(query).image, ImageTransform()(query).image)


def test_broken_images_stop_before_the_first_step(root: Path) -> None:
    (root / "3.jpg").unlink()
    with pytest.raises(BrokenImagesError, match=r"1 of 15 images cannot be read:\n.*3\.jpg: miss"):
        make_data(root).setup("fit")

    write(root / "3.jpg", np.zeros((5, 5, 3), dtype=np.uint8))
    (root / "202.jpg").write_bytes(b"")
    with pytest.raises(BrokenImagesError, match=r"1 of 6 images .*\n.*202\.jpg: empty"):
        make_data(root).setup("fit")


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("crop", [None, RectangularCrop()])
def test_broken_images_may_be_left_out(
    root: Path, cache: bool, crop: RectangularCrop | None
) -> None:
    lost = [6, 7, 8, 1, 101]  # every image of person 12, one of person 30, a query
    for number in lost:
        (root / f"{number}.jpg").write_bytes(b"")
    data = make_data(root, allow_missing=True, cache=cache, crop=crop, batch_size=15)

    assert data.spec == DataSpec(num_samples=11, num_images=11, num_person_ids=4, num_cameras=4)
    assert data.num_evaluation_samples("test", "query") == 2
    data.setup("fit")
    (batch,) = data.train_dataloader()
    kept = [each for each in numbered("train") if each[0] not in lost]
    labels = {person: n for n, person in enumerate([7, 9, 30, 41])}
    for row, index in enumerate(batch.sample_index.tolist()):
        number, person, camera = kept[index]
        assert batch.image[row, :, 5, 2].tolist() == [person, number, camera]
        assert batch.person_id[row].item() == labels[person]
    assert data.train_person_id.tolist() == [labels[person] for _, person, _ in kept]
    (query,) = data.test_dataloader()[0]
    assert query.person_id.tolist() == [5, 2]
    assert data.evaluation_queries("test") == [root / "100.jpg", root / "102.jpg"]
    assert data.describe()["counts"] == {
        "train": {"person_ids": 4, "images": 11, "cameras": 3},
        "query": {"person_ids": 2, "images": 2, "cameras": 2},
        "gallery": {"person_ids": 3, "images": 6, "cameras": 2},
    }
    assert data.notices[1:] == [
        "train: 4 of 15 images cannot be read; they are left out (data.allow_missing=true).",
        "query: 1 of 3 images cannot be read; it is left out (data.allow_missing=true).",
    ]


def test_a_row_of_own_images_without_its_image_may_be_left_out(root: Path) -> None:
    rows = ["path,person_id,camera_id,split", "0.jpg,a,1,train", "1.jpg,b,1,train"]
    (root / "own.csv").write_text("\n".join([*rows, "gone.jpg,a,2,train"]))
    words = ["method=mmcl", "data=own_images", "data.batch_size=2", f"data.root={root}/own.csv"]

    with pytest.raises(BrokenImagesError, match=r"gone\.jpg: missing[\s\S]*allow_missing=true"):
        instantiate(compose(words)["data"]).setup("fit")
    data = instantiate(compose([*words, "data.allow_missing=true"])["data"])

    assert data.spec.num_images == 2
    assert any(notice.startswith("train: 1 of 3 images") for notice in data.notices)


def test_a_split_without_a_readable_image_is_named(root: Path) -> None:
    for number in (100, 101, 102):
        (root / f"{number}.jpg").unlink()

    with pytest.raises(ValueError, match=r"tiny \(tiny/\*\.jpg\) in .* has no query images"):
        make_data(root, allow_missing=True).setup("test")


@pytest.mark.parametrize("crop", [None, RectangularCrop()])
@pytest.mark.parametrize("cache", [True, False])
def test_nothing_is_written_into_the_data_sets_folder(
    styled: Path, crop: RectangularCrop | None, cache: bool
) -> None:
    def state() -> list[tuple[Path, int]]:
        return sorted((path, path.stat().st_mtime_ns) for path in styled.rglob("*"))

    before = state()
    data = make_data(styled, camstyle="on", crop=crop, cache=cache, normalization="dataset")
    data.setup("fit")
    list(data.train_dataloader())

    assert state() == before


def test_a_cache_inside_the_data_set_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(root / "cache"))

    with pytest.raises(ValueError, match="lies inside the data set's folder"):
        make_data(root)


def test_the_description_is_plain(root: Path) -> None:
    description = make_data(root).describe()

    assert json.loads(json.dumps(description)) == description
    assert description == {
        "dataset": "tiny",
        "root": str(root),
        "layout": "tiny/*.jpg",
        "fingerprint": make_data(root).fingerprint,
        "counts": {
            "train": {"person_ids": 5, "images": 15, "cameras": 3},
            "query": {"person_ids": 2, "images": 3, "cameras": 3},
            "gallery": {"person_ids": 3, "images": 6, "cameras": 2},
        },
        "labelled": True,
        "junk": {"gallery": 3},
        "camstyle": False,
        "normalization": "given",
        "protocol": "last",
        "notices": ["Hm."],
    }


def test_the_fingerprint_follows_names_identities_and_cameras(root: Path) -> None:
    def changed(**new: object) -> Callable[[Path], ImageSplits]:
        def reader(root: Path) -> ImageSplits:
            splits = read(root)
            return replace(splits, query=(replace(splits.query[0], **new), *splits.query[1:]))

        return reader

    changes = [{}, {"person_id": 2}, {"camera_id": 2}, {"image_path": root / "0.jpg"}]
    prints = [make_data(root, changed(**new), seed=9).fingerprint for new in changes]

    assert prints[0] == make_data(root).fingerprint
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (256,)}, r"data\.image_size=\[256\] should be \[height, width\]"),
        ({"seed": -1}, r"seed=-1 should not be negative"),
        ({"root": None}, r"data\.root is missing"),
        ({"protocol": "val", "val_person_ids": 4}, r"data\.val_person_ids=4 does not fit"),
    ],
)
def test_wrong_settings_are_named(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(**{"root": root, **options})


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_queries_and_gallery_belong_together(root: Path, split: str) -> None:
    with pytest.raises(ValueError, match=rf"tiny \(tiny/\*\.jpg\) in .* has no {split} images"):
        make_data(root, lambda root: replace(read(root), **{split: ()}))


@pytest.mark.parametrize("protocol", ["last", "official"])
def test_a_set_without_evaluation_is_trained_on_unless_test_is_to_choose(
    root: Path, protocol: str
) -> None:
    data = make_data(
        root, lambda root: replace(read(root), query=(), gallery=()), protocol=protocol
    )

    if protocol == "official":
        with pytest.raises(ValueError, match=r"has no test split\. .*protocol=last"):
            data.setup("fit")
    else:
        data.setup("fit")
    assert data.evaluation_roles("test") == []
    assert len(data.train_dataloader()) == 4


def test_a_set_without_training_images_can_be_evaluated_but_not_trained_on(root: Path) -> None:
    data = make_data(root, lambda root: replace(read(root), train=()))

    assert data.spec.num_samples == 0
    data.setup("test")
    with pytest.raises(ValueError, match="has no train images"):
        data.setup("fit")


def test_people_are_generated_where_there_is_no_folder(
    monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    import crosswalk.synthetic.images as images

    asked: list[dict[str, Any]] = []

    def synthesize(folder: Path, **settings: object) -> None:
        asked.append(settings)
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            (folder / part).mkdir()
            for camera in (1, 2):
                colour = np.full((9, 5, 3), camera, dtype=np.uint8)
                write(folder / part / f"0002_c{camera}s1_000451_01.jpg", colour)

    monkeypatch.setattr(images, "synthesize_images", synthesize)

    data = [
        make_data(None, read_market1501, synthetic={"size": "toy", "seed": seed})  # type: ignore[arg-type]
        for seed in (4, 4, 5)
    ]

    assert asked == [{"layout": "market1501", "size": "toy", "seed": seed} for seed in (4, 5)]
    assert [d.splits.root.parent for d in data] == [cache_folder / "synthetic"] * 3
    name = f"images-market1501-toy-4-v{images.IMAGE_GENERATOR_VERSION}"
    assert data[0].splits.root.name == name
    assert data[0].spec.num_samples == 2


class Recorder(L.LightningModule):
    """Takes down what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.images: list[Tensor] = []
        self.evaluated: list[tuple[int, int]] = []

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        self.images.append(batch.image)
        return self.weight * 0

    def validation_step(self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluated.append((dataloader_idx, len(batch.image)))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options: object) -> L.Trainer:
    return L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def test_a_trainer_transforms_batches_on_their_way(root: Path) -> None:
    method, data = Recorder(), make_data(root, protocol="official")
    trainer(num_sanity_val_steps=0).fit(method, datamodule=data)

    expected = []
    loader = make_data(root).train_dataloader()
    for epoch in range(2):
        loader.set_epoch(epoch)
        expected += [ImageTransform()(batch).image for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(method.images, expected, strict=True))
    assert method.evaluated == [(0, 3), (1, 6)] * 2


@pytest.mark.parametrize("num_sanity_val_steps", [0, 2])
def test_a_trainer_validates_nothing_where_the_last_epoch_counts(
    root: Path, num_sanity_val_steps: int
) -> None:
    method, data = Recorder(), make_data(root, protocol="last")
    run = trainer(num_sanity_val_steps=num_sanity_val_steps)

    run.fit(method, datamodule=data)

    assert len(method.images) == 8
    assert method.evaluated == []
    run.test(method, datamodule=data, verbose=False)
    assert method.evaluated == [(0, 3), (1, 6)]


def own_images(root: Path, rows: str) -> ImageToImageData:
    root.mkdir()
    for number, name in enumerate("abcd"):
        write(root / f"{name}.png", np.full((8, 4, 3), number % 3, np.uint8))  # d is a copy of a
    (root / "own.csv").write_text("path,person_id,camera_id,split\nc.png,9,,train\n" + rows)
    return make_data(root / "own.csv", read_own_images)


@pytest.mark.parametrize(
    ("rows", "query", "gallery"),
    [
        ("a.png,1,,query\na.png,1,,gallery\nb.png,1,,gallery\n", [0], [0, -1]),
        ("a.png,1,,query\nb.png,1,,gallery\nd.png,1,,gallery\n", [0], [-1, 0]),
        ("a.png,1,,query\nb.png,1,,query\nb.png,1,,gallery\nd.png,1,,gallery\n", [0, 1], [1, 0]),
    ],
)
def test_a_picture_of_ones_own_is_not_looked_for_in_itself(
    tmp_path: Path, rows: str, query: list[int], gallery: list[int]
) -> None:
    data = own_images(tmp_path / "own", rows)

    data.setup("test")

    pictures = data.same_pictures("test")
    assert pictures is not None
    assert [each.tolist() for each in pictures] == [query, gallery]
    assert (
        f"{len(query)} of {len(query)} queries of test are in the gallery too" in data.notices[-1]
    )


def test_pictures_are_compared_once_and_again_when_a_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "a.png,1,,query\nb.png,1,,gallery\nd.png,1,,gallery\n"
    table, compared = tmp_path / "own" / "own.csv", []

    def count(*sides: Any) -> Any:  # noqa: ANN401
        compared.append(sides)
        return shared_pictures(*sides)

    monkeypatch.setattr("crosswalk.data.images.shared_pictures", count)
    first = own_images(tmp_path / "own", rows).same_pictures("test")
    again = make_data(table, read_own_images).same_pictures("test")
    write(table.parent / "d.png", np.full((16, 4, 3), 7, np.uint8))

    assert first is not None
    assert again is not None
    assert [side.tolist() for side in again] == [side.tolist() for side in first] == [[0], [-1, 0]]
    assert make_data(table, read_own_images).same_pictures("test") is None
    assert len(compared) == 2


def test_published_sets_are_ranked_as_their_protocols_say(root: Path) -> None:
    assert make_data(root).same_pictures("test") is None


@pytest.mark.parametrize(
    ("rows", "camera_rule", "advice"),
    [
        ("a.png,1,,query\nb.png,2,,gallery\n", True, "Check the person ids"),
        ("a.png,1,3,query\nb.png,1,3,gallery\n", True, "data.camera_rule=false"),
        ("a.png,1,,query\nd.png,1,,gallery\n", True, "Check the person ids"),
        ("a.png,1,3,query\nb.png,1,3,gallery\n", False, None),
    ],
)
def test_queries_without_any_match_stop_before_the_first_step(
    tmp_path: Path, rows: str, camera_rule: bool, advice: str | None
) -> None:
    data = own_images(tmp_path / "own", rows)
    data.camera_rule = camera_rule

    if advice is None:
        data.setup("fit")
    else:
        with pytest.raises(ValueError, match=rf"no query of test .* \(1 query\).*{advice}"):
            data.setup("fit")


def test_batches_for_a_method_that_looks_at_no_image_are_the_same_without_pixels(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeing, blind = (make_data(root, sweep="clean") for _ in range(2))
    blind.reads_images = False
    for data in (seeing, blind):
        data.setup("fit")

    expected, found = (list(data.train_dataloader()) for data in (seeing, blind))
    seen = list(blind.sweep_dataloader(0))

    for one, other in zip(expected, found, strict=True):
        transformed = blind.transform_batch(other)
        assert transformed.image.shape == (len(one.image), 3, 0, 0)
        assert transformed.key is None
        for name in ("person_id", "camera_id", "sample_index"):
            assert torch.equal(getattr(one, name), getattr(transformed, name))
    assert all(batch.image.numel() for batch in seen)

    def read(*arguments: object) -> Tensor:
        raise AssertionError("an image is read")

    monkeypatch.setattr(type(blind._opened("train").images), "read", read)
    assert len(list(blind.train_dataloader())) == len(found)
