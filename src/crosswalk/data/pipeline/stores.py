"""Images of a list of files at one size, from the cache or from the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.data.pipeline.cache import file_entry, read_broken, write_index
from crosswalk.data.pipeline.decoding import (
    OWN_VERSION,
    TRANSFORM_VERSION,
    Interpolation,
    Size,
    decode_pixels,
    on_all_cores,
    resize,
    stated_size,
)
from crosswalk.data.pipeline.plans import Index

Decode = Callable[[Path], NDArray[np.uint8]]


class ImageStore(Protocol):
    """Images of a list of files by their place in it."""

    @property
    def broken(self) -> Mapping[int, str]:
        """What is wrong with each image that cannot be read, by place; reading it gives black."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, index: Index, key: Tensor | None = None) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8: what the keys draw of each image, or all of it."""


class Crop(Protocol):
    """Draws which part of an image is read."""

    def boxes(self, key: Tensor, heights: Index, widths: Index) -> Index:
        """Return ``[B, 4]`` top, left, height and width within images of the given sizes."""


class Pixels(Protocol):
    """Images of a list of files at their own sizes."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        """Return the ``[H, W, 3]`` pixels of an image that can be read."""


class CachedImages:
    """Images at their size in one memory-mapped array, shared by all processes.

    Args:
        folder: The cache entry that `open_images` built.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken = read_broken(folder)
        self._images = np.load(folder / "images.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[Callable[..., CachedImages], tuple[Path]]:
        return CachedImages, (self.folder,)  # a copy of the map would be a copy of the pixels

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: Index, key: Tensor | None = None) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images."""
        return torch.from_numpy(np.asarray(self._images[index]))


class CachedPixels:
    """Pixels in one memory-mapped file, one image behind the other.

    Args:
        folder: The cache entry that `open_images` built.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sizes = np.load(folder / "sizes.npy")
        self._ends = np.load(folder / "ends.npy")
        # "c": torch warns of what cannot be written to; nothing is
        self._pixels = np.asarray(np.load(folder / "pixels.npy", mmap_mode="c"))

    def __reduce__(self) -> tuple[Callable[..., CachedPixels], tuple[Path]]:
        return CachedPixels, (self.folder,)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        height, width = self._sizes[place]
        end = self._ends[place]
        return self._pixels[end - 3 * height * width : end].reshape(height, width, 3)


@dataclass(frozen=True)
class FilePixels:
    """Pixels decoded from the files each time: ``data.cache=off``."""

    paths: Sequence[Path]
    decode: Decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        return self.decode(self.paths[place])


@dataclass(frozen=True)
class ResizedImages:
    """Images resized at each reading, cut before where a key draws a box.

    Attributes:
        pixels: The images at their own sizes.
        size: Height and width of what is read.
        interpolation: Of the resizing.
        broken: Places of images that cannot be read.
        crop: Draws the boxes; None reads whole images.
        sizes: ``[images, 2]`` int64 own heights and widths, for ``crop``.
    """

    pixels: Pixels
    size: Size
    interpolation: Interpolation
    broken: Mapping[int, str]
    crop: Crop | None = None
    sizes: Index | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: Index, key: Tensor | None = None) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8: what the keys draw of each image, or all of it."""
        images = torch.zeros((len(index), 3, *self.size), dtype=torch.uint8)
        boxes = None
        if self.crop is not None and self.sizes is not None and key is not None:
            boxes = self.crop.boxes(key, *self.sizes[index].T).tolist()
        for row, place in enumerate(index.tolist()):
            if place in self.broken:
                continue
            pixels = self.pixels[place]
            if boxes is not None:
                top, left, height, width = boxes[row]
                pixels = pixels[top : top + height, left : left + width]
            images[row].copy_(resize(pixels, self.size, self.interpolation))
        return images


def open_images(
    paths: Sequence[Path],
    size: Size,
    *,
    name: str,
    interpolation: Interpolation = "bilinear",
    crop: Crop | None = None,
    cached: bool = True,
    own: bool = False,
    folder: Path | None = None,
) -> CachedImages | ResizedImages:
    """Return the images, all of which are decoded once: into the cache, or to see that they can be.

    What was found is kept in the cache folder until a file changes. The cache has images that are
    cut at their own sizes, others as they are read.

    Args:
        paths: The image files, each once.
        size: Height and width of what is read.
        name: Beginning of the entry's name, and what progress is called: ``CUHK-PEDES train``.
        interpolation: Of the resizing.
        crop: Draws what is read of each image; None reads all of it.
        cached: False decodes the files anew at each reading. The pixels are the same.
        own: Whether they are read as people see them, see `decode_pixels`.
        folder: The cache folder; default `crosswalk.cache_folder.cache_root`.

    Raises:
        OSError: If the disk has no room for it.

    Example:
        >>> from PIL import Image
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path, broken = Path(folder, "red.png"), Path(folder, "broken.png")
        ...     Image.new("RGB", (2, 4), (255, 0, 0)).save(path)
        ...     _ = broken.write_bytes(b"")
        ...     images = open_images([path, broken], (4, 2), name="doc", folder=Path(folder))
        ...     images.read(np.array([0, 0, 1])).shape, images.broken
        (torch.Size([3, 3, 4, 2]), {1: 'empty (0 bytes)'})
    """
    settings: dict[str, Any] = {"version": TRANSFORM_VERSION}
    decode: Decode = decode_pixels
    if own:  # entries of published data sets stay valid
        decode, settings["own"] = partial(decode_pixels, own=True), OWN_VERSION
    if cached and crop is None:
        shape = f"{size[0]}x{size[1]}"
        settings |= {"size": list(size), "kind": "images"}
        if interpolation != "bilinear":  # entries from before there was a choice stay valid
            shape, settings = f"{shape}-{interpolation}", {**settings, "resize": interpolation}

        def write_resized(entry: Path) -> None:
            _write_images(entry, paths, size, interpolation, name, decode)

        return CachedImages(file_entry(paths, settings, name, shape, folder, write_resized))
    kind = "originals" if cached else "verified" if crop is None else "sizes"

    def write(entry: Path) -> None:
        (_write_originals if cached else _write_sizes)(entry, paths, name, decode)

    entry = file_entry(paths, {**settings, "kind": kind}, name, kind, folder, write)
    resize(np.zeros((1, 1, 3), np.uint8), size, interpolation)  # workers inherit loaded loops
    return ResizedImages(
        CachedPixels(entry) if cached else FilePixels(tuple(paths), decode),
        size,
        interpolation,
        read_broken(entry),
        crop,
        None if crop is None else np.load(entry / "sizes.npy"),
    )


def _check_room(entry: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(entry).free
    if needed > free:
        raise OSError(
            f"the image cache of {name} needs {needed / 1e9:.1f} GB below {entry.parent}, where "
            f"{free / 1e9:.1f} GB are free. Set the environment variable CROSSWALK_CACHE to a "
            "folder on another disk, or pass data.cache=off."
        )


def _write_images(
    entry: Path,
    paths: Sequence[Path],
    size: Size,
    interpolation: Interpolation,
    name: str,
    decode: Decode,
) -> None:
    _check_room(entry, len(paths) * 3 * size[0] * size[1], name)
    images = np.lib.format.open_memmap(
        entry / "images.npy", mode="w+", dtype=np.uint8, shape=(len(paths), 3, *size)
    )

    def store(place: int) -> None:
        images[place] = resize(decode(paths[place]), size, interpolation).numpy()

    broken = on_all_cores(store, paths, f"Decoding images of {name}")
    images.flush()
    write_index(entry, broken, files=[str(path) for path in paths], size=list(size))


def _write_originals(entry: Path, paths: Sequence[Path], name: str, decode: Decode) -> None:
    sizes = np.zeros((len(paths), 2), dtype=np.int64)

    def measure(place: int) -> None:
        sizes[place] = stated_size(paths[place])

    on_all_cores(measure, paths, f"Measuring images of {name}")
    ends = sizes.prod(axis=1).cumsum() * 3
    needed = int(ends[-1]) if len(paths) else 0
    _check_room(entry, needed, name)
    pixels = np.lib.format.open_memmap(
        entry / "pixels.npy", mode="w+", dtype=np.uint8, shape=(max(1, needed),)
    )

    def store(place: int) -> None:
        decoded = decode(paths[place])
        if decoded.size != 3 * sizes[place].prod():
            raise ValueError(f"{paths[place]} is not as large as its header states")
        sizes[place] = decoded.shape[:2]  # turned by EXIF: height and width change places
        pixels[ends[place] - decoded.size : ends[place]] = decoded.reshape(-1)

    broken = on_all_cores(store, paths, f"Decoding images of {name}")
    pixels.flush()
    sizes[list(broken)] = 0
    write_index(entry, broken, files=[str(path) for path in paths])
    np.save(entry / "sizes.npy", sizes)
    np.save(entry / "ends.npy", ends)


def _write_sizes(entry: Path, paths: Sequence[Path], name: str, decode: Decode) -> None:
    sizes = np.zeros((len(paths), 2), dtype=np.int64)

    def measure(place: int) -> None:
        sizes[place] = decode(paths[place]).shape[:2]

    write_index(entry, on_all_cores(measure, paths, f"Verifying images of {name}"))
    np.save(entry / "sizes.npy", sizes)
