from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.data.pipeline.datasets import CAMERA_STREAM, ImageDataset, OpenImages, open_records
from crosswalk.data.pipeline.decoding import BrokenImagesError
from crosswalk.data.pipeline.loaders import BatchRequest
from crosswalk.data.pipeline.plans import Index
from crosswalk.data.pipeline.stores import ResizedImages
from crosswalk.data.readers.camstyle import CamStyleFiles
from crosswalk.data.readers.records import Record
from crosswalk.draws import keyed_uniform, sample_key

NUM_CAMERAS = 4
RECORDS = [
    Record(Path(f"{n}.jpg"), person, camera)
    for n, (person, camera) in enumerate([(0, 1), (1, 4), (1, 2), (2, 2), (0, 4)])
]
FILES = CamStyleFiles(Path("fake"), NUM_CAMERAS, "from_to")


class NamedImages:
    """Images whose pixels are the number of their name's place in a list."""

    def __init__(self, paths: Sequence[Path], broken: Sequence[str] = ()) -> None:
        self.paths = list(paths)
        self.broken = {n: "empty" for n, path in enumerate(paths) if path.name in broken}

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: Index, key: Tensor | None = None) -> Tensor:
        return torch.from_numpy(index.astype(np.uint8))[:, None, None, None].expand(-1, 3, 2, 1)

    def names(self, image: Tensor) -> list[str]:
        return [self.paths[place].name for place in image[:, 0, 0, 0].tolist()]


def opened(
    camstyle: CamStyleFiles | None = None, broken: Sequence[str] = (), allow_missing: bool = False
) -> OpenImages:
    return open_records(
        "train",
        RECORDS,
        lambda paths: NamedImages(paths, broken),
        camstyle=camstyle,
        allow_missing=allow_missing,
        root=Path("somewhere"),
    )


def request(samples: Sequence[int], epoch: int = 0, seed: int | None = 3) -> BatchRequest:
    return BatchRequest(np.array(samples, dtype=np.int64), seed, epoch, pass_=0)


def names_of(training: OpenImages, ask: BatchRequest) -> list[str]:
    image = ImageDataset(training).__getitems__(ask).image
    assert isinstance(training.images, NamedImages)
    return training.images.names(image)


def styled_name(record: Record, camera: int) -> str:
    if camera == record.camera_id:
        return record.image_path.name
    return f"{record.image_path.stem}_fake_{record.camera_id}to{camera}.jpg"


@pytest.mark.parametrize("samples", [(4, 0, 2), (1,), ()])
def test_without_camera_styles_every_sample_is_its_own_image(samples: tuple[int, ...]) -> None:
    batch = ImageDataset(opened()).__getitems__(request(samples))

    assert batch.image[:, 0, 0, 0].tolist() == list(samples)
    assert batch.person_id.tolist() == [RECORDS[n].person_id for n in samples]
    assert batch.camera_id.tolist() == [RECORDS[n].camera_id for n in samples]
    assert batch.sample_index.tolist() == list(samples)
    assert torch.equal(batch.key, sample_key(3, 0, 0, batch.sample_index))


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_the_key_of_a_sample_draws_the_camera_it_is_shown_by(epoch: int) -> None:
    samples = [3, 0, 1, 4, 2]
    ask = request(samples, epoch)

    names = names_of(opened(FILES), ask)

    for row, sample in enumerate(samples):
        draw = keyed_uniform(ask.key()[row : row + 1], 1, CAMERA_STREAM).item()
        assert names[row] == styled_name(RECORDS[sample], 1 + int(draw * NUM_CAMERAS))


def test_labels_and_cameras_stay_those_of_the_own_image() -> None:
    dataset = ImageDataset(opened(FILES))

    for epoch in range(5):
        batch = dataset.__getitems__(request([0, 1, 2, 3, 4], epoch))
        assert batch.person_id.tolist() == [record.person_id for record in RECORDS]
        assert batch.camera_id.tolist() == [record.camera_id for record in RECORDS]
        assert batch.sample_index.tolist() == [0, 1, 2, 3, 4]


def test_every_camera_is_drawn_equally_often() -> None:
    training = opened(FILES)
    counts: Counter[str] = Counter()
    for epoch in range(2000):
        counts.update(names_of(training, request([1], epoch)))

    # 500 expected, standard deviation sqrt(2000 * 1/4 * 3/4) = 19.4
    assert counts.keys() == {styled_name(RECORDS[1], camera) for camera in (1, 2, 3, 4)}
    assert max(abs(count - 500) for count in counts.values()) < 5 * 19.4


def test_without_a_key_own_images_are_read() -> None:
    assert names_of(opened(FILES), request([2, 0], seed=None)) == ["2.jpg", "0.jpg"]


def test_broken_images_are_named_with_the_camera_styles_among_them() -> None:
    with pytest.raises(BrokenImagesError, match=r"(?s)2 of 20 images .*1\.jpg.*3_fake_2to4\.jpg"):
        opened(FILES, broken=["3_fake_2to4.jpg", "1.jpg"])


def test_left_out_images_take_their_samples_with_them() -> None:
    training = opened(FILES, broken=["0.jpg", "4.jpg"], allow_missing=True)

    # persons 1 and 2 remain, relabelled
    assert [record.person_id for record in training.records] == [0, 0, 1]
    assert training.notices == (
        "train: 2 of 5 images cannot be read; they are left out (data.allow_missing=true).",
    )
    for epoch in range(20):
        names = names_of(training, request([0, 1, 2], epoch))
        assert [name[0] for name in names] == ["1", "2", "3"]
    assert names_of(training, request([0, 1, 2], seed=None)) == ["1.jpg", "2.jpg", "3.jpg"]


def test_the_own_image_stands_in_for_a_broken_camera_style() -> None:
    broken = ["3_fake_2to4.jpg", "3_fake_2to1.jpg", "0.jpg"]
    training = opened(FILES, broken=broken, allow_missing=True)
    seen: Counter[str] = Counter()
    for epoch in range(400):
        seen.update(names_of(training, request([2], epoch)))

    assert seen.keys() == {"3.jpg", "3_fake_2to3.jpg"}
    assert seen["3.jpg"] == pytest.approx(300, abs=5 * 8.7)
    assert training.notices[1] == (
        "train: 2 of 15 camera-style images cannot be read; the images themselves stand in for "
        "them (data.allow_missing=true)."
    )


def test_nothing_is_noted_where_nothing_is_broken() -> None:
    training = opened(FILES, allow_missing=True)

    assert training.notices == ()
    assert training.records == RECORDS


class Originals:
    """Images of their own sizes, whose pixels are 10 * row + column."""

    sizes = np.array([[10, 6], [9, 4], [21, 7]])

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: int) -> np.ndarray:
        rows, columns = np.indices(self.sizes[place])
        return np.repeat((10 * rows + columns)[:, :, None], 3, axis=2).astype(np.uint8)


class Corner:
    """Cuts off the left column and rows above one that the key decides; takes sizes down."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []

    def boxes(self, key: Tensor, heights: Index, widths: Index) -> Index:
        self.asked.append((heights.tolist(), widths.tolist()))
        top = key.numpy() % 5
        return np.stack([top, 0 * widths + 1, 0 * top + 2, 0 * top + 3], axis=1)


def corner_at(top: int) -> list[list[int]]:
    return [[10 * row + column for column in (1, 2, 3)] for row in (top, top + 1)]


def cut_images(crop: Corner) -> ResizedImages:
    return ResizedImages(Originals(), (2, 3), "bilinear", {}, crop, Originals.sizes)


def test_a_key_cuts_an_image_within_its_own_size() -> None:
    crop = Corner()

    image = cut_images(crop).read(np.array([2, 0]), torch.tensor([13, 6]))

    assert image.shape == (2, 3, 2, 3)
    assert image[:, 0].tolist() == [corner_at(3), corner_at(1)]
    assert crop.asked == [([21, 10], [7, 6])]


def test_without_a_key_the_whole_image_is_read() -> None:
    crop = Corner()
    images = ResizedImages(Originals(), (9, 4), "bicubic", {}, crop, Originals.sizes)

    image = images.read(np.array([1]))

    assert image[0, 0].tolist() == [[10 * row + column for column in range(4)] for row in range(9)]
    assert crop.asked == []


def test_training_images_are_cut_by_their_own_keys() -> None:
    training = OpenImages(RECORDS[:2], cut_images(Corner()), np.array([0, 2]))
    ask = request([1, 0])

    batch = ImageDataset(training).__getitems__(ask)

    assert batch.image[:, 0].tolist() == [corner_at(top) for top in (ask.key().numpy() % 5)]
    assert batch.sample_index.tolist() == [1, 0]
