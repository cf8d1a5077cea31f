import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from crosswalk.data.pipeline.decoding import decode_pixels
from crosswalk.data.pipeline.stores import open_images
from crosswalk.data.readers.records import ImageSplits, Record
from crosswalk.doctor.integrity import ImageProblem, check_image, damaged_images, missing_images
from crosswalk.image_files import MAX_BYTES, MAX_PIXELS, TRAITS, as_seen, jpeg_size
from crosswalk.pages import small_picture
from tests.unit.data.pictures import picture


def claiming_jpeg(width: int, height: int) -> Callable[[Path], None]:
    """Write a small JPEG whose header states another size."""

    def write(path: Path) -> None:
        Image.new("L", (8, 8)).save(path)
        data = bytearray(path.read_bytes())
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", height, width)
        path.write_bytes(data)

    return write


def claiming_png(path: Path) -> None:
    stated = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", stated), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(MAX_BYTES + 1)


def bind(path: Path) -> None:
    os.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


UNFIT = {
    "jpeg of 400 million pixels": (claiming_jpeg(20_000, 20_000), "too large: it states more"),
    "jpeg of 100 million pixels": (
        claiming_jpeg(10_000, 10_000),
        "10,000 x 10,000 pixels",
    ),
    "flat jpeg": (claiming_jpeg(65_000, 1_400), "too large: it states 65,000 x 1,400 pixels"),
    "png of 400 million pixels": (claiming_png, "too large: it states more"),
    "more bytes than anybody has": (sparse, "too large: it has 1,073,741,825 bytes"),
    "pipe": (lambda path: os.mkfifo(path), "cannot be opened: it is a pipe, not a file"),
    "socket": (bind, "cannot be opened: it is a socket, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic"),
    "link to a pipe": (
        lambda path: (os.mkfifo(path.with_suffix(".p")), path.symlink_to(path.with_suffix(".p"))),
        "cannot be opened: it is a pipe, not a file",
    ),
    "PostScript": (
        lambda path: Image.new("L", (8, 8)).save(path, "EPS"),
        "PostScript program, not an image",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_no_image_of_a_person_is_refused_alike_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make, told = UNFIT[kind]
    path = tmp_path / "x.jpg"
    make(path)
    splits = ImageSplits("own", tmp_path, ".", (Record(path, 3),), (), ())

    with pytest.raises(ValueError, match=r"x\.jpg") as training:
        decode_pixels(path)
    with pytest.raises(ValueError, match=r"x\.jpg"):
        small_picture(path, (8, 8))
    images = [
        open_images([path], (8, 4), name="set", folder=tmp_path / "cache", cached=cached)
        for cached in (True, False)
    ]
    [problem] = missing_images(splits) or damaged_images(splits.train)

    assert told in str(training.value)
    assert str(training.value) == f"{path} {problem.detail}"
    assert problem.kind == "refused"
    assert [told in broken.broken[0] for broken in images] == [True, True]


def test_an_image_at_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (9_400, MAX_PIXELS // 9_400)).save(path)

    assert check_image(path) is None


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("cached", [True, False])
def test_own_images_stand_upright(
    tmp_path: Path, suffix: str, orientation: int, cached: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    picture(30, 20).save(path, exif=exif)
    with Image.open(path) as image:
        image.load()
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    pixels = decode_pixels(path, own=True)
    crops = open_images(
        [path],
        upright.shape[:2],
        name="set",
        folder=tmp_path / "cache",
        cached=cached,
        own=True,
        crop=All(),
    )

    assert np.array_equal(pixels, upright)
    assert crops.sizes.tolist() == [list(upright.shape[:2])]
    assert np.array_equal(crops.read(np.array([0]))[0].permute(1, 2, 0).numpy(), upright)


class All:
    def boxes(self, key, heights, widths):  # noqa: ANN001, ANN201 - not called without keys
        raise NotImplementedError


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_white_shows_through_own_images(tmp_path: Path, mode: str) -> None:
    alpha = np.array([[0, 128, 255]], dtype=np.uint8)
    colour = np.full((1, 3), 200, np.uint8)
    path = tmp_path / "x.png"
    if mode in ("RGBA", "LA"):
        Image.fromarray(np.dstack([colour, colour, colour, alpha])).convert(mode).save(path)
        expected = [255, 227, 200]
    else:  # one colour is transparent
        image = Image.fromarray(np.array([[10, 20, 30]], dtype=np.uint8)).convert(mode)
        image.save(path, transparency=20 if mode == "P" else (20, 20, 20))
        expected = [10, 255, 30]

    pixels = decode_pixels(path, own=True)

    assert pixels[0, :, 0].tolist() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_in_own_images(tmp_path: Path, suffix: str) -> None:
    ramp = np.arange(256, dtype=np.uint16)[None].repeat(2, axis=0)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(ramp * 257).save(path)

    pixels = decode_pixels(path, own=True)

    assert np.array_equal(pixels, ramp.astype(np.uint8)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_own_images_without_a_range_are_refused_by_name(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(np.ones((3, 2), dtype)).save(path)

    with pytest.raises(ValueError, match=r"x\.tif .*32 bits.*save it with 8 or 16 bits"):
        decode_pixels(path, own=True)
    problem = check_image(path, own=True)

    assert problem is not None
    assert "save it with 8 or 16 bits" in problem.detail
    assert check_image(path) is None


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_images_have_the_same_pixels_in_every_data_set(
    tmp_path: Path, suffix: str, mode: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    picture(37, 23, mode=mode).save(path)

    published, own = decode_pixels(path), decode_pixels(path, own=True)

    assert np.array_equal(published, own)
    with Image.open(path) as image:
        assert np.array_equal(published, np.asarray(image.convert("RGB")))


def test_own_images_have_cache_entries_of_their_own(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / "x.png"
    picture(6, 4).save(path, exif=exif)
    options = {"name": "set", "folder": tmp_path / "cache"}
    published = open_images([path], (6, 4), **options).read(np.array([0]))

    own = open_images([path], (6, 4), **options, own=True).read(np.array([0]))

    assert np.array_equal(own.numpy(), published.numpy()[..., ::-1, ::-1])


def test_the_doctor_tells_what_is_unusual_about_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    frames = [Image.new("RGB", (4, 6), colour) for colour in ("red", "blue")]
    picture(6, 4).save(tmp_path / "plain.jpg")
    picture(6, 4).save(tmp_path / "turned.jpg", exif=exif)
    picture(6, 4, mode="RGBA").save(tmp_path / "transparent.png")
    Image.new("I;16", (4, 6)).save(tmp_path / "deep.png")
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    records = [Record(path, 1) for path in sorted(tmp_path.iterdir())]
    seen: dict[Path, tuple[str, ...]] = {}

    problems: list[ImageProblem] = damaged_images(records, own=True, traits_of=seen)

    assert not problems
    assert {path.stem: traits for path, traits in seen.items()} == {
        name: (name,) for name in TRAITS
    }


def test_damaged_exif_spoils_no_image(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    picture(6, 4).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")

    assert decode_pixels(path, own=True).shape == (6, 4, 3)
    with Image.open(path) as image:
        assert as_seen(image).size == (4, 6)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0MM" + b"\xff\xc0" * 99])
def test_jpeg_says_its_size(tmp_path: Path, mode: str, progressive: bool, exif: bytes) -> None:
    path = tmp_path / "x.jpg"
    picture(37, 23, mode=mode).save(path, progressive=progressive, exif=exif)
    data = path.read_bytes()

    assert jpeg_size(data) == (37, 23)
    assert jpeg_size(b"x" + data) is None
    for length in range(len(data)):
        assert jpeg_size(data[:length]) in (None, (37, 23))
