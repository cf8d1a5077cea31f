from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crosswalk.data.pipeline.decoding import (
    BrokenImagesError,
    decode_image,
    decode_pixels,
    on_all_cores,
    resize,
    stated_size,
)
from tests.unit.data.pictures import picture, pillow_pixels

SIZE = (24, 8)


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


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_interpolation_is_pillows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    picture(41, 13).save(path)

    pixels = decode_image(path, SIZE, "bicubic").numpy()

    assert np.array_equal(pixels, pillow_pixels(path, SIZE, Image.Resampling.BICUBIC))
    assert not np.array_equal(pixels, pillow_pixels(path, SIZE, Image.Resampling.BILINEAR))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (28, 19), (61, 19), (64, 32), (32, 16), (96, 64)])
def test_pixels_are_resized_as_a_picture_is(interpolation: str, size: tuple[int, int]) -> None:
    image = picture(30, 20)
    resampling = Image.Resampling[interpolation.upper()]

    pixels = resize(np.array(image)[2:, 1:], size, interpolation)

    expected = np.asarray(image.crop((1, 2, 20, 30)).resize((size[1], size[0]), resampling))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("size", [(256, 128), (64, 64), (128, 4096), (4096, 16)])
def test_images_enlarged_to_powers_of_two_are_pillows_to_the_last_bit(
    size: tuple[int, int],
) -> None:
    random = np.random.default_rng(size[0])
    for _ in range(40):
        height, width = random.integers(1, size[0] + 1), random.integers(1, size[1] + 1)
        pixels = random.integers(0, 256, (min(height, 300), min(width, 300), 3), dtype=np.uint8)

        enlarged = resize(pixels, size, "bilinear")

        expected = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        assert np.array_equal(enlarged.permute(1, 2, 0).numpy(), np.asarray(expected))


@pytest.mark.parametrize("size", [(4096, 64), (64, 4096)])
@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_stay_so_at_the_largest_power_of_two(
    size: tuple[int, int], value: int
) -> None:
    pixels = np.full((5, 7, 3), value, dtype=np.uint8)
    pixels.flags.writeable = False

    assert (resize(pixels, size, "bilinear") == value).all()


def test_pixels_and_images_differ_in_their_layout_only(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    picture(41, 13).save(path)

    pixels = decode_pixels(path)

    assert pixels.shape == (41, 13, 3)
    assert np.array_equal(pixels.transpose(2, 0, 1), decode_image(path, None).numpy())


def test_a_header_states_the_size_or_nothing(tmp_path: Path) -> None:
    whole, cut_off, empty = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg"))
    picture(41, 13).save(whole)
    cut_off.write_bytes(whole.read_bytes()[:-40])
    empty.touch()

    sizes = [stated_size(path) for path in (whole, cut_off, empty, tmp_path / "none.jpg")]

    assert sizes == [(41, 13), (41, 13), (0, 0), (0, 0)]


@pytest.mark.parametrize("number", [0, 1, 32, 33, 70])
def test_every_place_is_worked_on_once_and_errors_are_kept_by_place(number: int) -> None:
    paths = [Path(f"{place}.jpg") for place in range(number)]
    seen: list[int] = []

    def work(place: int) -> None:
        seen.append(place)
        if place % 10 == 3:
            raise ValueError(f"{paths[place]} is {place} times wrong")

    broken = on_all_cores(work, paths, "Working")

    assert sorted(seen) == list(range(number))
    assert broken == {place: f"{place} times wrong" for place in range(3, number, 10)}


def test_other_errors_stop_the_work() -> None:
    def work(place: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        on_all_cores(work, [Path("a.jpg")], "Working")


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


@pytest.mark.parametrize(
    ("there", "named"), [("i/1.png", "i\\1.png"), ("cafe\u0301.png", "caf\u00e9.png")]
)
def test_a_name_of_another_system_is_told_with_the_one_that_is_there(
    tmp_path: Path, there: str, named: str
) -> None:
    (tmp_path / "i").mkdir()
    picture(4, 3).save(tmp_path / there)

    error = BrokenImagesError({tmp_path / named: "missing"}, total=1)

    assert f"{named}: missing; did you mean {there}?" in str(error)
    assert "unpack" not in str(error)


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
