import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crosswalk.data import cache
from crosswalk.data.cache import (
    BrokenImagesError,
    build_once,
    cache_root,
    cached_images,
    cached_tokens,
    decode_image,
    decoded_images,
    fingerprint,
    raise_if_broken,
    refuse_folder_inside,
)

SIZE = (24, 8)


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Return a picture with edges and smooth parts."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(1, height // 3), max(1, width // 3), 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def pillow_pixels(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "data").mkdir()
    files = []
    for number in range(70):  # more than two tasks of a thread
        path = tmp_path / "data" / f"{number}.jpg"
        picture(20 + number, 10 + number % 7, seed=number).save(path, quality=90)
        files.append(path)
    return files


@pytest.mark.parametrize("seed", range(40))
def test_resized_pixels_are_pillows(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(number) for number in random.integers(2, 420, 2))
    size = (int(random.integers(2, 390)), int(random.integers(2, 140)))
    path = tmp_path / f"image.{('jpg', 'png', 'bmp')[seed % 3]}"
    picture(height, width, seed).save(path)

    pixels = decode_image(path, size)

    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels.numpy(), pillow_pixels(path, size))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_decoded_as_by_pillow(
    tmp_path: Path, mode: str, subsampling: int, progressive: bool
) -> None:
    path = tmp_path / "image.jpg"
    picture(37, 23, mode=mode).save(path, subsampling=subsampling, progressive=progressive)

    assert np.array_equal(decode_image(path, None).numpy(), pillow_pixels(path, None))
    assert np.array_equal(decode_image(path, SIZE).numpy(), pillow_pixels(path, SIZE))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"])
def test_every_kind_of_png_is_decoded_as_by_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(np.arange(30 * 20, dtype=np.uint16).reshape(30, 20) * 99).save(path)
    else:
        picture(30, 20, mode=mode).save(path)

    assert np.array_equal(decode_image(path, SIZE).numpy(), pillow_pixels(path, SIZE))


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    picture(30, 20).save(path, exif=exif)

    assert decode_image(path, None).shape == (3, 30, 20)


def test_a_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    picture(30, 20).save(path, format="PNG")

    assert np.array_equal(decode_image(path, SIZE).numpy(), pillow_pixels(path, SIZE))


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("damage", [cut(0.1), cut(0.5), cut(0.97), lambda data: b"text" + data])
def test_damaged_files_are_errors(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"image.{suffix}"
    picture(120, 60).save(path)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ValueError, match=rf"image\.{suffix} is cut off or not an image: "):
        decode_image(path, SIZE)


def test_missing_and_empty_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jpg is missing"):
        decode_image(tmp_path / "none.jpg", SIZE)
    (tmp_path / "zero.jpg").touch()
    with pytest.raises(ValueError, match=r"zero\.jpg is empty \(0 bytes\)"):
        decode_image(tmp_path / "zero.jpg", SIZE)
    with pytest.raises(ValueError, match="cannot be opened"):
        decode_image(tmp_path, SIZE)


def test_cached_and_uncached_pixels_are_pillows(tmp_path: Path, paths: list[Path]) -> None:
    cached = cached_images(paths, SIZE, name="set train", folder=tmp_path / "cache")
    uncached = decoded_images(paths, SIZE, name="set train", folder=tmp_path / "cache")
    index = np.array([69, 0, 33, 33, 5])

    expected = np.stack([pillow_pixels(paths[place], SIZE) for place in index])

    assert np.array_equal(cached.read(index).numpy(), expected)
    assert np.array_equal(uncached.read(index).numpy(), expected)
    assert len(cached) == len(uncached) == 70


@pytest.mark.parametrize("open_images", [cached_images, decoded_images])
def test_no_images_may_be_asked_for(
    tmp_path: Path, paths: list[Path], open_images: Callable[..., cache.ImageStore]
) -> None:
    images = open_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    assert images.read(np.array([], dtype=np.int64)).shape == (0, 3, *SIZE)


def test_every_file_is_decoded_once(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    pixels = cache._pixels

    def counted(path: Path, size: tuple[int, int] | None) -> np.ndarray:
        decoded.append(path)
        return pixels(path, size)

    monkeypatch.setattr(cache, "_pixels", counted)
    for _ in range(2):
        cached_images(paths, SIZE, name="set", folder=tmp_path / "cache").read(np.arange(70))

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
    monkeypatch.setattr(cache, "_pixels", None)

    images = decoded_images(paths, (48, 16), name="set", folder=tmp_path / "cache")

    assert not images.broken


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def fail(unfinished: Path) -> None:
        (unfinished / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once(tmp_path / "entry", fail)

    assert [path.name for path in tmp_path.iterdir()] == [".entry.lock"]
    assert build_once(tmp_path / "entry", lambda unfinished: (unfinished / "whole").touch())
    assert [path.name for path in (tmp_path / "entry").iterdir()] == ["whole"]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".entry.abc123"
    left.mkdir()
    (left / "half").touch()

    build_once(tmp_path / "entry", lambda unfinished: (unfinished / "whole").touch())

    assert sorted(path.name for path in tmp_path.iterdir()) == [".entry.lock", "entry"]


def build_slowly(entry: Path) -> None:
    def write(unfinished: Path) -> None:
        time.sleep(0.2)
        with (entry.parent / "log").open("a") as log:
            log.write("built\n")

    build_once(entry, write)
    assert entry.is_dir()


def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_slowly, args=(tmp_path / "entry",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_full_disk_is_noticed_before_the_build(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(OSError, match=r"needs 0\.0 GB below .*CROSSWALK_CACHE.*data\.cache=off"):
        cached_images(paths, SIZE, name="set", folder=tmp_path / "cache")


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


def test_the_cache_folder_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", "~/somewhere")
    assert cache_root() == Path.home() / "somewhere"
    monkeypatch.delenv("CROSSWALK_CACHE")
    assert cache_root() == Path.home() / ".cache" / "crosswalk"


def test_a_cache_inside_the_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies inside the data set's folder"):
        refuse_folder_inside(tmp_path / "data" / "cache", tmp_path / "data")


def test_the_index_lists_the_files(tmp_path: Path, paths: list[Path]) -> None:
    images = cached_images(paths, SIZE, name="set", folder=tmp_path / "cache")

    index = json.loads((images.folder / "index.json").read_text())

    assert index["files"] == [str(path) for path in paths]
    assert index["size"] == list(SIZE)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_appears_when_a_build_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    clock = iter(range(0, 100))
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(clock))

    with cache._Announced("Decoding", 100) as progress:
        progress.console = cache.Console(stderr=True, force_terminal=terminal)
        for _ in range(5):
            progress.advance(20)

    assert "Decoding" in capsys.readouterr().err
