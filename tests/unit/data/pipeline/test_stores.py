import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crosswalk.data.pipeline import decoding, stores
from crosswalk.data.pipeline.datasets import open_records
from crosswalk.data.pipeline.decoding import BrokenImagesError
from crosswalk.data.pipeline.plans import Index
from crosswalk.data.pipeline.stores import ImageStore, ResizedImages, open_images
from crosswalk.data.readers.records import Record
from tests.unit.data.pictures import picture, pillow_pixels

SIZE = (24, 8)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "data").mkdir()
    files = []
    for number in range(70):  # more than two tasks of a thread
        path = tmp_path / "data" / f"{number}.jpg"
        picture(20 + number, 10 + number % 7, seed=number).save(path, quality=90)
        files.append(path)
    return files


def test_cached_and_uncached_pixels_are_pillows(tmp_path: Path, paths: list[Path]) -> None:
    cached = open_images(paths, SIZE, name="set train", folder=tmp_path / "cache")
    uncached = open_images(paths, SIZE, name="set", folder=tmp_path / "cache", cached=False)
    index = np.array([69, 0, 33, 33, 5])

    expected = np.stack([pillow_pixels(paths[place], SIZE) for place in index])

    assert np.array_equal(cached.read(index).numpy(), expected)
    assert np.array_equal(uncached.read(index).numpy(), expected)
    assert len(cached) == len(uncached) == 70


@pytest.mark.parametrize("cached", [True, False])
def test_interpolations_have_pixels_and_entries_of_their_own(
    tmp_path: Path, paths: list[Path], cached: bool
) -> None:
    options = {"name": "set", "folder": tmp_path / "cache", "cached": cached}
    bilinear = open_images(paths, SIZE, **options)

    bicubic = open_images(paths, SIZE, **options, interpolation="bicubic")

    expected = pillow_pixels(paths[9], SIZE, Image.Resampling.BICUBIC)
    assert np.array_equal(bicubic.read(np.array([9]))[0].numpy(), expected)
    assert np.array_equal(bilinear.read(np.array([9]))[0].numpy(), pillow_pixels(paths[9], SIZE))
    again = open_images(paths, SIZE, **options)
    assert torch.equal(again.read(np.array([9])), bilinear.read(np.array([9])))


class Boxes:
    """Cuts the same boxes (top, left, height, width) whatever the keys; None: all of each image."""

    def __init__(self, boxes: list[list[int]] | None = None) -> None:
        self.chosen = boxes

    def boxes(self, key: torch.Tensor, heights: Index, widths: Index) -> Index:
        if self.chosen is None:
            return np.stack([0 * heights, 0 * widths, heights, widths], axis=1)
        return np.array(self.chosen)


def open_originals(
    paths: list[Path],
    folder: Path,
    boxes: list[list[int]] | None = None,
    cached: bool = True,
    size: tuple[int, int] = SIZE,
) -> ResizedImages:
    images = open_images(paths, size, name="set", folder=folder, cached=cached, crop=Boxes(boxes))
    assert isinstance(images, ResizedImages)
    return images


def read_cut(images: ImageStore, *index: int) -> torch.Tensor:
    return images.read(np.array(index, dtype=np.int64), torch.zeros(len(index), dtype=torch.int64))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_pillows(
    tmp_path: Path, paths: list[Path], cached: bool, interpolation: str
) -> None:
    index = (69, 0, 33, 33, 5)
    boxes = [[0, 0, 89, 16], [3, 2, 1, 1], [10, 1, 40, 7], [52, 0, 1, 15], [1, 5, 24, 8]]
    images = open_images(
        paths,
        SIZE,
        name="set",
        folder=tmp_path / "cache",
        cached=cached,
        interpolation=interpolation,
        crop=Boxes(boxes),
    )

    crops = read_cut(images, *index)
    without_keys = images.read(np.array(index))

    assert crops.dtype == torch.uint8
    resampling = Image.Resampling[interpolation.upper()]
    for crop, all_of_it, place, box in zip(crops, without_keys, index, boxes, strict=True):
        assert np.array_equal(crop.numpy(), pillow_pixels(paths[place], SIZE, resampling, box))
        assert np.array_equal(all_of_it.numpy(), pillow_pixels(paths[place], SIZE, resampling))


@pytest.mark.parametrize("cached", [True, False])
def test_original_images_know_their_sizes(tmp_path: Path, paths: list[Path], cached: bool) -> None:
    images = open_originals(paths, tmp_path / "cache", cached=cached)

    assert images.sizes.tolist() == [[20 + number, 10 + number % 7] for number in range(70)]
    assert len(images) == 70


LOOPS = """
import sys
from pathlib import Path
import numpy as np
from crosswalk import compiled
from crosswalk.data.pipeline.stores import open_images
from crosswalk.data.pipeline.crops import RectangularCrop

images = open_images([Path(sys.argv[1])], (64, 32), name="set", folder=Path(sys.argv[2]),
                     crop=RectangularCrop())
compiled._compile = None
print(images.read(np.array([0])).shape)
"""


def test_workers_inherit_the_loops_that_enlarge(tmp_path: Path, paths: list[Path]) -> None:
    words = [sys.executable, "-c", LOOPS, str(paths[0]), str(tmp_path / "cache")]

    ran = subprocess.run(words, capture_output=True, text=True, check=False)

    assert (ran.stdout, ran.returncode) == ("torch.Size([1, 3, 64, 32])\n", 0), ran.stderr


@pytest.mark.parametrize("cached", [True, False])
def test_no_crops_may_be_asked_for(tmp_path: Path, paths: list[Path], cached: bool) -> None:
    some = open_originals(paths, tmp_path / "cache", cached=cached)
    none = open_originals([], tmp_path / "cache", cached=cached)

    for images in (some, none):
        assert read_cut(images).shape == (0, 3, *SIZE)


@pytest.mark.parametrize("cached", [True, False])
def test_broken_original_images_are_named_and_black(
    tmp_path: Path, paths: list[Path], cached: bool
) -> None:
    paths[1].unlink()
    paths[2].write_bytes(b"")
    paths[40].write_bytes(paths[40].read_bytes()[:-50])
    images = open_originals(paths, tmp_path / "cache", cached=cached)

    with pytest.raises(BrokenImagesError, match="3 of 70 images cannot be read") as caught:
        refuse_broken(images, paths, tmp_path)
    crops = read_cut(images, 1, 2, 40, 41)

    assert f"{paths[40]}: cut off or not an image: " in str(caught.value)
    assert images.broken[1] == "missing"
    assert not images.sizes[[1, 2, 40]].any()
    assert not crops[:3].any()
    assert np.array_equal(crops[3].numpy(), pillow_pixels(paths[41], SIZE))  # behind the gap


def refuse_broken(images: ImageStore, paths: list[Path], root: Path) -> None:
    records = [Record(path, person_id=0) for path in paths]
    open_records("query", records, lambda _: images, allow_missing=False, root=root)


def test_an_image_that_is_not_as_its_header_states_is_broken(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "stated_size", lambda path: (20, 10))

    images = open_originals(paths, tmp_path / "cache")

    assert set(images.broken) == set(range(1, 70))
    assert images.broken[1] == "not as large as its header states"


def test_cached_originals_travel_to_workers_without_their_pixels(
    tmp_path: Path, paths: list[Path]
) -> None:
    images = open_originals(paths, tmp_path / "cache")

    packed = pickle.dumps(images)

    assert len(packed) < 1000 + images.sizes.nbytes
    crops = read_cut(pickle.loads(packed), *range(70))
    assert torch.equal(crops, read_cut(images, *range(70)))


def test_originals_are_built_anew_when_a_file_changes(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "cache"
    open_images(paths, SIZE, name="set", folder=folder)
    open_originals(paths, folder)
    picture(50, 20, seed=999).save(paths[3])

    images = open_originals(paths, folder, size=(50, 20))

    assert images.sizes[3].tolist() == [50, 20]
    assert np.array_equal(read_cut(images, 3)[0].numpy(), pillow_pixels(paths[3], None))
    assert len(list(folder.glob("set-originals-*"))) == 1
    assert len(list(folder.glob("set-24x8-*"))) == 1  # another entry, left alone


@pytest.mark.parametrize("cached", [True, False])
def test_no_images_may_be_asked_for(tmp_path: Path, paths: list[Path], cached: bool) -> None:
    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache", cached=cached)

    assert images.read(np.array([], dtype=np.int64)).shape == (0, 3, *SIZE)


@pytest.mark.parametrize("crop", [None, Boxes()])
def test_every_file_is_decoded_once(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch, crop: Boxes | None
) -> None:
    decoded: list[Path] = []
    pixels = decoding.decode_pixels

    def counted(path: Path) -> np.ndarray:
        decoded.append(path)
        return pixels(path)

    for module in (stores, decoding):
        monkeypatch.setattr(module, "decode_pixels", counted)
    for _ in range(2):
        images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache", crop=crop)
        read_cut(images, *range(70))

    assert sorted(decoded) == sorted(paths)


def test_the_cache_is_built_anew_when_a_file_changes(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "cache"
    before = open_images(paths, SIZE, name="set", folder=folder)
    old = before.read(np.array([3]))
    picture(50, 20, seed=999).save(paths[3])

    after = open_images(paths, SIZE, name="set", folder=folder)

    assert np.array_equal(after.read(np.array([3]))[0].numpy(), pillow_pixels(paths[3], SIZE))
    assert torch.equal(before.read(np.array([3])), old)  # a running process keeps what it had
    assert [path.name for path in folder.glob("set-*")] == [after.folder.name]


def test_sizes_have_entries_of_their_own(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "cache"
    small = open_images(paths, SIZE, name="set", folder=folder)
    large = open_images(paths, (48, 16), name="set", folder=folder)

    assert small.folder != large.folder
    assert small.folder.is_dir()
    assert large.read(np.array([0])).shape == (1, 3, 48, 16)


def test_cached_images_travel_to_workers_without_their_pixels(
    tmp_path: Path, paths: list[Path]
) -> None:
    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    packed = pickle.dumps(images)

    assert len(packed) < 1000
    assert torch.equal(pickle.loads(packed).read(np.arange(5)), images.read(np.arange(5)))


@pytest.mark.parametrize("cached", [True, False])
def test_all_broken_images_are_named_in_one_error(
    tmp_path: Path, paths: list[Path], cached: bool
) -> None:
    paths[1].unlink()
    paths[2].write_bytes(b"")
    for path in paths[40:52]:
        path.write_bytes(path.read_bytes()[:-50])

    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache", cached=cached)
    with pytest.raises(BrokenImagesError) as caught:
        refuse_broken(images, paths, tmp_path / "data")

    message = str(caught.value)
    assert message.startswith("14 of 70 images cannot be read:\n")
    assert f"{paths[1]}: missing\n" in message
    assert f"{paths[2]}: empty (0 bytes)\n" in message
    assert f"{paths[40]}: cut off or not an image: " in message
    assert "... and 4 more\n" in message
    assert f"crosswalk data check {tmp_path / 'data'}" in message
    assert "data.allow_missing=true" in message
    assert set(images.broken) == {1, 2, *range(40, 52)}
    assert not images.read(np.array([1])).any()


def test_a_repaired_file_is_noticed(tmp_path: Path, paths: list[Path]) -> None:
    options = {"name": "set", "folder": tmp_path / "cache", "cached": False}
    whole = paths[5].read_bytes()
    paths[5].write_bytes(whole[:-50])
    assert set(open_images(paths, SIZE, **options).broken) == {5}

    paths[5].write_bytes(whole)

    assert not open_images(paths, SIZE, **options).broken


def test_verification_is_remembered(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    open_images(paths, SIZE, name="set", folder=folder, cached=False)
    before = open_originals(paths, folder, cached=False)
    monkeypatch.setattr(stores, "decode_pixels", None)

    images = open_images(paths, (48, 16), name="set", folder=folder, cached=False)
    originals = open_originals(paths, folder, cached=False)

    assert not images.broken
    assert not originals.broken
    assert np.array_equal(originals.sizes, before.sizes)


def test_a_full_disk_is_noticed_before_the_build(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(OSError, match=r"needs 0\.0 GB below .*CROSSWALK_CACHE.*data\.cache=off"):
        open_images(paths, SIZE, name="set", folder=tmp_path / "cache")
    with pytest.raises(OSError, match=r"needs 0\.0 GB below .*CROSSWALK_CACHE.*data\.cache=off"):
        open_originals(paths, tmp_path / "cache")


def test_the_index_lists_the_files(tmp_path: Path, paths: list[Path]) -> None:
    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    index = json.loads((images.folder / "index.json").read_text())

    assert index["files"] == [str(path) for path in paths]
    assert index["size"] == list(SIZE)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("name", [b"caf\xe9\n<1>.jpg", b"\xff\xfe.jpg"])
def test_names_need_not_be_utf_8(tmp_path: Path, cached: bool, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    picture(20, 10).save(tmp_path / "plain.jpg")
    (tmp_path / "plain.jpg").rename(path)

    for _ in range(2):
        images = open_images([path], SIZE, name="set", folder=tmp_path / "cache", cached=cached)

    assert not images.broken
    assert np.array_equal(images.read(np.array([0]))[0].numpy(), pillow_pixels(path, SIZE))
