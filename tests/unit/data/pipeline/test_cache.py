import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crosswalk.data.pipeline import cache, decoding
from crosswalk.data.pipeline.cache import (
    CachedOriginals,
    DecodedOriginals,
    cached_images,
    cached_tokens,
    decoded_images,
    fingerprint,
    original_images,
    raise_if_broken,
    refuse_folder_inside,
)
from crosswalk.data.pipeline.decoding import BrokenImagesError
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
    cached = cached_images(paths, SIZE, name="set train", folder=tmp_path / "cache")
    uncached = decoded_images(paths, SIZE, name="set train", folder=tmp_path / "cache")
    index = np.array([69, 0, 33, 33, 5])

    expected = np.stack([pillow_pixels(paths[place], SIZE) for place in index])

    assert np.array_equal(cached.read(index).numpy(), expected)
    assert np.array_equal(uncached.read(index).numpy(), expected)
    assert len(cached) == len(uncached) == 70


@pytest.mark.parametrize("open_images", [cached_images, decoded_images])
def test_interpolations_have_pixels_and_entries_of_their_own(
    tmp_path: Path, paths: list[Path], open_images: Callable[..., cache.ImageStore]
) -> None:
    folder = tmp_path / "cache"
    bilinear = open_images(paths, SIZE, name="set", folder=folder)

    bicubic = open_images(paths, SIZE, name="set", folder=folder, interpolation="bicubic")

    expected = pillow_pixels(paths[9], SIZE, Image.Resampling.BICUBIC)
    assert np.array_equal(bicubic.read(np.array([9]))[0].numpy(), expected)
    assert np.array_equal(bilinear.read(np.array([9]))[0].numpy(), pillow_pixels(paths[9], SIZE))
    again = open_images(paths, SIZE, name="set", folder=folder)
    assert torch.equal(again.read(np.array([9])), bilinear.read(np.array([9])))


def whole(images: CachedOriginals | DecodedOriginals) -> np.ndarray:
    """Return the boxes (top, left, height, width) that are all of each image."""
    return np.concatenate([np.zeros_like(images.sizes), images.sizes], axis=1)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_are_pillows(
    tmp_path: Path, paths: list[Path], cached: bool, interpolation: str
) -> None:
    images = original_images(paths, name="set", folder=tmp_path / "cache", cached=cached)
    index = np.array([69, 0, 33, 33, 5])
    boxes = np.array([[0, 0, 89, 16], [3, 2, 1, 1], [10, 1, 40, 7], [52, 0, 1, 15], [1, 5, 24, 8]])

    crops = images.read_crops(index, boxes, SIZE, interpolation)

    assert crops.dtype == torch.uint8
    for crop, place, box in zip(crops, index, boxes.tolist(), strict=True):
        resampling = Image.Resampling[interpolation.upper()]
        assert np.array_equal(crop.numpy(), pillow_pixels(paths[place], SIZE, resampling, box))


@pytest.mark.parametrize("cached", [True, False])
def test_original_images_know_their_sizes(tmp_path: Path, paths: list[Path], cached: bool) -> None:
    images = original_images(paths, name="set", folder=tmp_path / "cache", cached=cached)

    assert images.sizes.tolist() == [[20 + number, 10 + number % 7] for number in range(70)]
    assert len(images) == 70


@pytest.mark.parametrize("cached", [True, False])
def test_no_crops_may_be_asked_for(tmp_path: Path, paths: list[Path], cached: bool) -> None:
    folder = tmp_path / "cache"
    nothing, no_boxes = np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.int64)

    some = original_images(paths, name="set", folder=folder, cached=cached)
    none = original_images([], name="empty", folder=folder, cached=cached)

    for images in (some, none):
        assert images.read_crops(nothing, no_boxes, SIZE, "bilinear").shape == (0, 3, *SIZE)


@pytest.mark.parametrize("cached", [True, False])
def test_broken_original_images_are_named_and_black(
    tmp_path: Path, paths: list[Path], cached: bool
) -> None:
    paths[1].unlink()
    paths[2].write_bytes(b"")
    paths[40].write_bytes(paths[40].read_bytes()[:-50])
    images = original_images(paths, name="set", folder=tmp_path / "cache", cached=cached)

    with pytest.raises(BrokenImagesError, match="3 of 70 images cannot be read") as caught:
        raise_if_broken(images, paths)
    crops = images.read_crops(
        np.array([1, 2, 40, 41]), whole(images)[[1, 2, 40, 41]], SIZE, "bilinear"
    )

    assert f"{paths[40]}: cut off or not an image: " in str(caught.value)
    assert images.broken[1] == "missing"
    assert not images.sizes[[1, 2, 40]].any()
    assert not crops[:3].any()
    assert np.array_equal(crops[3].numpy(), pillow_pixels(paths[41], SIZE))  # behind the gap


def test_an_image_that_is_not_as_its_header_states_is_broken(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "stated_size", lambda path: (20, 10))

    images = original_images(paths, name="set", folder=tmp_path / "cache")

    assert set(images.broken) == set(range(1, 70))
    assert images.broken[1] == "not as large as its header states"


def test_cached_originals_travel_to_workers_without_their_pixels(
    tmp_path: Path, paths: list[Path]
) -> None:
    images = original_images(paths, name="set", folder=tmp_path / "cache")

    packed = pickle.dumps(images)

    assert len(packed) < 1000
    index, boxes = np.arange(70), whole(images)
    crops = pickle.loads(packed).read_crops(index, boxes, SIZE, "bilinear")
    assert torch.equal(crops, images.read_crops(index, boxes, SIZE, "bilinear"))


def test_originals_are_built_anew_when_a_file_changes(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "cache"
    cached_images(paths, SIZE, name="set", folder=folder)
    original_images(paths, name="set", folder=folder)
    picture(50, 20, seed=999).save(paths[3])

    images = original_images(paths, name="set", folder=folder)

    assert images.sizes[3].tolist() == [50, 20]
    crop = images.read_crops(np.array([3]), np.array([[0, 0, 50, 20]]), (50, 20), "bilinear")[0]
    assert np.array_equal(crop.numpy(), pillow_pixels(paths[3], None))
    assert len(list(folder.glob("set-originals-*"))) == 1
    assert len(list(folder.glob("set-24x8-*"))) == 1  # another entry, left alone


@pytest.mark.parametrize("open_images", [cached_images, decoded_images])
def test_no_images_may_be_asked_for(
    tmp_path: Path, paths: list[Path], open_images: Callable[..., cache.ImageStore]
) -> None:
    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    assert images.read(np.array([], dtype=np.int64)).shape == (0, 3, *SIZE)


def open_cached(paths: list[Path], folder: Path) -> None:
    cached_images(paths, SIZE, name="set", folder=folder).read(np.arange(len(paths)))


def open_originals(paths: list[Path], folder: Path) -> None:
    images = original_images(paths, name="set", folder=folder)
    images.read_crops(np.arange(len(paths)), whole(images), SIZE, "bilinear")


@pytest.mark.parametrize("open_images", [open_cached, open_originals])
def test_every_file_is_decoded_once(
    tmp_path: Path,
    paths: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    open_images: Callable[..., None],
) -> None:
    decoded: list[Path] = []
    pixels = decoding.decode_pixels

    def counted(path: Path) -> np.ndarray:
        decoded.append(path)
        return pixels(path)

    for module in (cache, decoding):
        monkeypatch.setattr(module, "decode_pixels", counted)
    for _ in range(2):
        open_images(paths, folder=tmp_path / "cache")

    assert sorted(decoded) == sorted(paths)


def test_the_cache_is_built_anew_when_a_file_changes(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "cache"
    before = cached_images(paths, SIZE, name="set", folder=folder)
    old = before.read(np.array([3]))
    picture(50, 20, seed=999).save(paths[3])

    after = cached_images(paths, SIZE, name="set", folder=folder)

    assert np.array_equal(after.read(np.array([3]))[0].numpy(), pillow_pixels(paths[3], SIZE))
    assert torch.equal(before.read(np.array([3])), old)  # a running process keeps what it had
    assert [path.name for path in folder.glob("set-*")] == [after.folder.name]


def test_sizes_have_entries_of_their_own(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "cache"
    small = cached_images(paths, SIZE, name="set", folder=folder)
    large = cached_images(paths, (48, 16), name="set", folder=folder)

    assert small.folder != large.folder
    assert small.folder.is_dir()
    assert large.read(np.array([0])).shape == (1, 3, 48, 16)


def test_cached_images_travel_to_workers_without_their_pixels(
    tmp_path: Path, paths: list[Path]
) -> None:
    images = cached_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    packed = pickle.dumps(images)

    assert len(packed) < 1000
    assert torch.equal(pickle.loads(packed).read(np.arange(5)), images.read(np.arange(5)))


@pytest.mark.parametrize("open_images", [cached_images, decoded_images])
def test_all_broken_images_are_named_in_one_error(
    tmp_path: Path, paths: list[Path], open_images: Callable[..., cache.ImageStore]
) -> None:
    paths[1].unlink()
    paths[2].write_bytes(b"")
    for path in paths[40:52]:
        path.write_bytes(path.read_bytes()[:-50])

    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache")
    with pytest.raises(BrokenImagesError) as caught:
        raise_if_broken(images, paths, root=tmp_path / "data")

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
    whole = paths[5].read_bytes()
    paths[5].write_bytes(whole[:-50])
    assert set(decoded_images(paths, SIZE, name="set", folder=tmp_path / "cache").broken) == {5}

    paths[5].write_bytes(whole)

    assert not decoded_images(paths, SIZE, name="set", folder=tmp_path / "cache").broken


def test_verification_is_remembered(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded_images(paths, SIZE, name="set", folder=tmp_path / "cache")
    before = original_images(paths, name="set", folder=tmp_path / "cache", cached=False)
    monkeypatch.setattr(cache, "decode_pixels", None)

    images = decoded_images(paths, (48, 16), name="set", folder=tmp_path / "cache")
    originals = original_images(paths, name="set", folder=tmp_path / "cache", cached=False)

    assert not images.broken
    assert not originals.broken
    assert np.array_equal(originals.sizes, before.sizes)


def test_a_full_disk_is_noticed_before_the_build(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(OSError, match=r"needs 0\.0 GB below .*CROSSWALK_CACHE.*data\.cache=off"):
        cached_images(paths, SIZE, name="set", folder=tmp_path / "cache")
    with pytest.raises(OSError, match=r"needs 0\.0 GB below .*CROSSWALK_CACHE.*data\.cache=off"):
        original_images(paths, name="set", folder=tmp_path / "cache")


def test_tokens_are_made_once_per_settings_and_captions(tmp_path: Path) -> None:
    calls: list[int] = []

    def tokenize(captions: list[str]) -> torch.Tensor:
        calls.append(len(captions))
        return torch.tensor([[len(caption), 49407] for caption in captions])

    def tokens(captions: list[str], length: int) -> torch.Tensor:
        return cached_tokens(
            captions, tokenize, settings={"length": length}, name="set", folder=tmp_path
        )

    expected = torch.tensor([[1, 49407], [5, 49407]])
    for _ in range(2):
        assert torch.equal(tokens(["a", "woman"], 77), expected)
    assert torch.equal(tokens(["a", "woman"], 64), expected)
    tokens(["a", "man"], 77)
    tokens(["aw", "oman"], 77)

    assert calls == [2, 2, 2, 2]


@pytest.mark.parametrize("width", [0, 1, 3])
def test_other_numbers_of_captions_are_kept_beside_their_tokens(tmp_path: Path, width: int) -> None:
    def numbers(start: int, kind: str) -> torch.Tensor:
        rows = torch.arange(start, start + 2 * width).reshape(2, width)
        return cached_tokens(
            ["a", "b"], lambda _: rows, settings={}, name="set", kind=kind, folder=tmp_path
        )

    tokens, phrases = numbers(5, "tokens"), numbers(70000, "phrases")

    assert tokens.tolist() == [[5 + width * row + n for n in range(width)] for row in (0, 1)]
    assert phrases.tolist() == [[70000 + width * row + n for n in range(width)] for row in (0, 1)]
    assert torch.equal(numbers(9, "tokens"), tokens)
    assert len(list(tmp_path.glob("set-phrases-*"))) == 1


def test_fingerprints_follow_names_sizes_and_times(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("abc")
    first = fingerprint([one, two], {"size": 1})

    two.write_text("abc")
    second = fingerprint([one, two], {"size": 1})
    os.utime(one, ns=(1, 1))
    third = fingerprint([one, two], {"size": 1})

    assert len({first, second, third, fingerprint([two, one], {"size": 1})}) == 4
    assert fingerprint([one, two], {"size": 1}) == third


def test_a_cache_inside_the_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies inside the data set's folder"):
        refuse_folder_inside(tmp_path / "data" / "cache", tmp_path / "data")


def test_the_index_lists_the_files(tmp_path: Path, paths: list[Path]) -> None:
    images = cached_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    index = json.loads((images.folder / "index.json").read_text())

    assert index["files"] == [str(path) for path in paths]
    assert index["size"] == list(SIZE)
