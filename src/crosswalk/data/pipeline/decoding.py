"""Image files as pixels: those of Pillow, read in less time, on all cores where there are many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]

from crosswalk.compiled import compiled
from crosswalk.image_files import (
    MAX_PIXELS,
    MissingHints,
    RefusedImageError,
    as_seen,
    check_plain_file,
    jpeg_size,
    open_image,
    orientation,
)
from crosswalk.progress import Progress

TRANSFORM_VERSION = 1  # raise it when the pixels of `decode_image` change
OWN_VERSION = 1  # raise it when those of one's own images change, see `decode_pixels`
_CHUNK = 32  # images per task of a thread

Size = tuple[int, int]
Interpolation = Literal["bilinear", "bicubic"]

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class BrokenImagesError(ValueError):
    """Some images of a data set cannot be read.

    Attributes:
        problems: What is wrong with each file.
    """

    def __init__(self, problems: Mapping[Path, str], total: int, root: Path | None = None) -> None:
        self.problems = dict(problems)
        shown, hints = list(self.problems.items())[:10], MissingHints()
        listed = "".join(
            f"\n  {path}: {hint if 'did you mean' in hint else problem}"
            for path, problem in shown
            for hint in [f"missing; {hints.of(path)}" if problem == "missing" else ""]
        )
        more = len(self.problems) - len(shown)
        rest = f"\n  ... and {more:,} more" if more else ""
        rest_is_there = len(self.problems) < total
        super().__init__(
            f"{len(self.problems):,} of {total:,} images cannot be read:{listed}{rest}\n"
            f"`crosswalk data check {quote(str(root or 'ROOT'))}` lists them all. Fetch these "
            "files again or correct their names"
            + (", or pass data.allow_missing=true to go on without them." if rest_is_there else ".")
        )


def decode_image(
    path: Path, size: Size | None, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Return an image file as ``[3, H, W]`` uint8 RGB, resized if a size is given.

    The pixels are those of Pillow, ``Image.open(path).convert("RGB").resize(...)`` with
    antialiasing, as in the published pipelines: JPEG is decoded by torchvision, which gives the
    same values in less time; other formats are Pillow's. See `decode_pixels` for one's own images.

    Args:
        path: The file.
        size: Height and width; None keeps the original size.
        interpolation: Of the resizing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty, cut off, or not an image.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (2, 4), (255, 0, 7)).save(file.name)
        ...     decode_image(Path(file.name), size=(2, 1)).flatten()
        tensor([255, 255,   0,   0,   7,   7], dtype=torch.uint8)
    """
    pixels = decode_pixels(path)
    return resize(pixels, pixels.shape[:2] if size is None else size, interpolation)


def decode_pixels(path: Path, *, own: bool = False) -> NDArray[np.uint8]:
    """Return what `decode_image` does as ``[H, W, 3]``, at the file's own size.

    Args:
        path: The file.
        own: Whether it is one's own and read as people see it (`crosswalk.image_files.as_seen`).
            Published data sets are read as the published codes do: EXIF orientation is ignored.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (1, 2), (255, 0, 7)).save(file.name)
        ...     decode_pixels(Path(file.name)).tolist()
        [[[255, 0, 7]], [[255, 0, 7]]]
    """
    check_plain_file(path)
    try:
        if not own:  # whose orientation counts
            data = path.read_bytes()
            height, width = jpeg_size(data) or (0, 0)
            if 0 < height * width <= MAX_PIXELS:
                plain = _jpeg_pixels(data)
                if plain is not None:
                    return plain
        with open_image(path) as image:
            pixels = None
            if image.format in ("JPEG", "MPO") and not (own and orientation(image) != 1):
                pixels = _jpeg_pixels(path.read_bytes())
            if pixels is None:  # an array of its own: torch wants to be able to write
                pixels = np.array(as_seen(image) if own else image.convert("RGB"))
            return pixels
    except (FileNotFoundError, RefusedImageError):
        raise
    except Exception as error:  # damaged files raise almost anything in decoders
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"{path} is cut off or not an image: {reason[0]}") from error


def resize(pixels: NDArray[np.uint8], size: Size, interpolation: Interpolation) -> Tensor:
    """Return ``[H, W, 3]`` pixels as ``[3, height, width]`` of another size: Pillow's pixels.

    Enlarging to 2**k pixels is done by compiled loops, in a third of the time: its bilinear weights
    are multiples of 1 / 2**(k + 1), which need no rounding. A process loads the loops when it
    enlarges its first image, which takes 0.4 s.

    Example:
        >>> pixels = np.array([[[0, 0, 0], [8, 80, 200]]], dtype=np.uint8)
        >>> resize(pixels, (1, 1), "bilinear").tolist()
        [[[4]], [[40]], [[100]]]
    """
    own = pixels.shape[:2]
    if own == size:
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    enlarged = own[0] <= size[0] and own[1] <= size[1]
    if interpolation == "bilinear" and enlarged and all(_is_power_of_two(side) for side in size):
        image = np.empty((3, *size), dtype=np.uint8)
        _enlarge(pixels if pixels.flags.writeable else pixels.copy(), image)
        return torch.from_numpy(image)
    resized = Image.fromarray(pixels).resize((size[1], size[0]), RESAMPLING[interpolation])
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


def _is_power_of_two(side: int) -> bool:
    return side & (side - 1) == 0 and side <= 1 << 12  # weights have 13 bits in `_enlarge`


@compiled("void(u1[:, :, :], u1[:, :, ::1])")
def _enlarge(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Fill ``[3, H, W]`` from ``[h, w, 3]``; H and W are powers of two up to 4096, h and w no more.

    Rows are enlarged first and rounded, as Pillow does. The three channels of a pixel share an
    integer there, 21 bits for each, so that they are multiplied together.
    """

    def found(index: int, own: int, side: int) -> tuple[int, int]:
        """Return the pixel before, and how far behind its middle, in parts of 1 / (2 * side)."""
        place = (2 * index + 1) * own - side
        before = min(max(place // (2 * side), 0), own - 1)
        return before, place - 2 * side * before if place >= 0 and before < own - 1 else 0

    def bits(side: int) -> int:
        count = 1
        while 1 << count < 2 * side:
            count += 1
        return count

    own_height, own_width, _ = pixels.shape
    _, height, width = out.shape
    rows = np.empty((3, own_height, width), np.uint8)
    before, part = np.empty(width, np.uint64), np.empty(width, np.int64)
    for column in range(width):
        before[column], part[column] = found(column, own_width, width)
    half = np.int64(width) | np.int64(width) << 21 | np.int64(width) << 42
    colour, step = np.zeros(own_width + 1, np.int64), np.empty(own_width, np.int64)
    shift = bits(width)
    for row in range(own_height):
        for column in range(own_width):
            red, green, blue = pixels[row, column]
            colour[column] = np.int64(red) | np.int64(green) << 21 | np.int64(blue) << 42
        for column in range(own_width):
            step[column] = colour[column + 1] - colour[column]
            colour[column] = colour[column] * 2 * width + half
        for column in range(width):
            total = colour[before[column]] + step[before[column]] * part[column]
            for channel in range(3):
                rows[channel, row, column] = total >> (shift + 21 * channel)
    shift = bits(height)
    for row in range(height):
        first, behind = found(row, own_height, height)
        # int32 throughout, which processors compute many of at once; Numba's own choice is int64
        upper, lower = np.int32(2 * height - behind), np.int32(behind)
        for channel in range(3):
            above, below = rows[channel, first], rows[channel, min(first + 1, own_height - 1)]
            for column in range(width):
                total = np.int32(above[column]) * upper + np.int32(below[column]) * lower
                out[channel, row, column] = np.int32(np.int32(total) + height) >> np.int32(shift)


def stated_size(path: Path) -> Size:
    """Return the height and width that a file's header states, (0, 0) if it cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (2, 4)).save(file.name)
        ...     stated_size(Path(file.name)), stated_size(Path("no.png"))
        ((4, 2), (0, 0))
    """
    try:
        with open_image(path) as image:
            return image.height, image.width
    except Exception:  # damaged files raise almost anything; decoding them says what is wrong
        return 0, 0


def _jpeg_pixels(data: bytes) -> NDArray[np.uint8] | None:
    """Return ``[H, W, 3]`` of a grey or colour JPEG; None if it wants Pillow (CMYK, damage)."""
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        decoded: Tensor = decode_jpeg(buffer, mode=ImageReadMode.UNCHANGED)
    except RuntimeError:
        return None  # Pillow is asked too, and says what is wrong in fewer words
    if decoded.shape[0] == 1:
        decoded = decoded.expand(3, -1, -1)
    if decoded.shape[0] != 3:
        return None
    pixels: NDArray[np.uint8] = decoded.permute(1, 2, 0).contiguous().numpy()
    return pixels


def on_all_cores(
    work: Callable[[int], object], paths: Sequence[Path], title: str
) -> dict[int, str]:
    """Call ``work`` for the place of every file; return what went wrong with which.

    Threads suffice: decoding, resizing and copying release Python's lock.

    Args:
        work: Gets a place; its FileNotFoundError and ValueError are what went wrong.
        paths: The files.
        title: What progress is called.

    Example:
        >>> paths = [Path("one.jpg"), Path("two.jpg")]
        >>> on_all_cores(lambda place: decode_pixels(paths[place]), paths, "Decoding")
        {0: 'missing', 1: 'missing'}
    """

    def work_on(start: int) -> dict[int, str]:
        broken = {}
        for place in range(start, min(start + _CHUNK, len(paths))):
            try:
                work(place)
            except (FileNotFoundError, ValueError) as error:
                broken[place] = (
                    str(error).removeprefix(f"{paths[place]} is ").removeprefix(f"{paths[place]} ")
                )
        return broken

    broken: dict[int, str] = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    executor = ThreadPoolExecutor(cores or 1)
    try:
        with Progress(title) as progress:
            tasks = [executor.submit(work_on, start) for start in range(0, len(paths), _CHUNK)]
            for number, task in enumerate(as_completed(tasks), start=1):
                broken.update(task.result())
                progress(min(number * _CHUNK, len(paths)), len(paths))
    finally:
        executor.shutdown(cancel_futures=True)
    return dict(sorted(broken.items()))
