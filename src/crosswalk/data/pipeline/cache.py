"""Decoded images and tokenised captions, kept so that each is made once.

Entries of the cache folder (`crosswalk.cache_folder`), named by a fingerprint of what they were
made from. Any entry may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosswalk.cache_folder import build_once, cache_root
from crosswalk.data.pipeline.decoding import (
    TRANSFORM_VERSION,
    BrokenImagesError,
    Interpolation,
    Size,
    decode_image,
    decode_pixels,
    on_all_cores,
    resize,
    stated_size,
)
from crosswalk.data.pipeline.plans import Index


class ImageStore(Protocol):
    """Images of a list of files by their place in it."""

    broken: Mapping[int, str]
    """What is wrong with each image that cannot be read, by place; reading it gives black."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, index: Index) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images."""


class CachedImages:
    """Images in one memory-mapped array, shared by all processes through the page cache.

    Args:
        folder: The cache entry that `cached_images` built.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken = _read_broken(folder)
        self._images = np.load(folder / "images.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[Callable[..., CachedImages], tuple[Path]]:
        return CachedImages, (self.folder,)  # a copy of the map would be a copy of the pixels

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: Index) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images."""
        return torch.from_numpy(np.asarray(self._images[index]))


class DecodedImages:
    """Images decoded from their files each time: ``data.cache=off``. Same pixels as the cache.

    Args:
        paths: The files.
        size: Height and width.
        broken: Places of images that cannot be read.
        interpolation: Of the resizing.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: Size,
        broken: Mapping[int, str],
        interpolation: Interpolation = "bilinear",
    ) -> None:
        self.paths = list(paths)
        self.size = size
        self.broken = broken
        self.interpolation: Interpolation = interpolation

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: Index) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images."""
        images = torch.zeros((len(index), 3, *self.size), dtype=torch.uint8)
        for image, place in zip(images, index.tolist(), strict=True):
            if place not in self.broken:
                image.copy_(decode_image(self.paths[place], self.size, self.interpolation))
        return images


class CachedOriginals:
    """Images at their own sizes in one memory-mapped file, one behind the other.

    Args:
        folder: The cache entry that `original_images` built.

    Attributes:
        broken: What is wrong with each image that cannot be read, by place; it reads as black.
        sizes: ``[images, 2]`` int64 heights and widths; 0 where an image cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken = _read_broken(folder)
        self.sizes: Index = np.load(folder / "sizes.npy")
        self._ends = np.load(folder / "ends.npy")
        # "c": torch warns of what cannot be written to; nothing is
        self._pixels = np.asarray(np.load(folder / "pixels.npy", mmap_mode="c"))

    def __reduce__(self) -> tuple[Callable[..., CachedOriginals], tuple[Path]]:
        return CachedOriginals, (self.folder,)  # a copy of the map would be a copy of the pixels

    def __len__(self) -> int:
        return len(self.sizes)

    def pixels(self, place: int) -> NDArray[np.uint8]:
        """Return the ``[H, W, 3]`` pixels of an image that can be read."""
        height, width = self.sizes[place]
        end = self._ends[place]
        return self._pixels[end - 3 * height * width : end].reshape(height, width, 3)

    def read_crops(
        self, index: Index, boxes: Index, size: Size, interpolation: Interpolation
    ) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8: ``[B, 4]`` boxes (top, left, height, width), resized."""
        return _read_crops(self, index, boxes, size, interpolation)


class DecodedOriginals:
    """Images at their own sizes, decoded each time: ``data.cache=off``. Same pixels as the cache.

    Args:
        paths: The files.
        sizes: ``[images, 2]`` int64 heights and widths; 0 where an image cannot be read.
        broken: Places of images that cannot be read.
    """

    def __init__(self, paths: Sequence[Path], sizes: Index, broken: Mapping[int, str]) -> None:
        self.paths = list(paths)
        self.sizes = sizes
        self.broken = broken

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, place: int) -> NDArray[np.uint8]:
        """Return the ``[H, W, 3]`` pixels of an image that can be read."""
        return decode_pixels(self.paths[place])

    def read_crops(
        self, index: Index, boxes: Index, size: Size, interpolation: Interpolation
    ) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8: ``[B, 4]`` boxes (top, left, height, width), resized."""
        return _read_crops(self, index, boxes, size, interpolation)


def _read_crops(
    images: CachedOriginals | DecodedOriginals,
    index: Index,
    boxes: Index,
    size: Size,
    interpolation: Interpolation,
) -> Tensor:
    crops = torch.zeros((len(index), 3, *size), dtype=torch.uint8)
    for crop, place, box in zip(crops, index.tolist(), boxes.tolist(), strict=True):
        if place not in images.broken:
            top, left, height, width = box
            pixels = images.pixels(place)[top : top + height, left : left + width]
            crop.copy_(resize(pixels, size, interpolation))
    return crops


def fingerprint(paths: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Return a hash of the files' names, sizes and times of change, and of ``settings``.

    Example:
        >>> fingerprint([Path("no.jpg")], {"size": 3}) == fingerprint([Path("no.jpg")], {"size": 3})
        True
        >>> fingerprint([Path("no.jpg")], {"size": 3}) == fingerprint([Path("no.jpg")], {"size": 4})
        False
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        try:
            status = os.stat(path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return digest.hexdigest()


def cached_images(
    paths: Sequence[Path],
    size: Size,
    *,
    name: str,
    folder: Path | None = None,
    interpolation: Interpolation = "bilinear",
) -> CachedImages:
    """Return the images from the cache, which is built first where it is missing or outdated.

    Args:
        paths: The image files, each once.
        size: Height and width in the cache.
        name: Beginning of the entry's name, and what progress is called: ``CUHK-PEDES train``.
        folder: The cache folder; default `cache_root`.
        interpolation: Of the resizing.

    Raises:
        OSError: If the disk has no room for it.

    Example:
        >>> from PIL import Image
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "red.png")
        ...     Image.new("RGB", (2, 4), (255, 0, 0)).save(path)
        ...     images = cached_images([path], (4, 2), name="doc", folder=Path(folder, "cache"))
        ...     images.read(np.array([0, 0])).shape
        torch.Size([2, 3, 4, 2])
    """
    prefix = f"{_slug(name)}-{size[0]}x{size[1]}"
    settings = {"size": list(size), "version": TRANSFORM_VERSION, "kind": "images"}
    if interpolation != "bilinear":  # entries from before there was a choice stay valid
        prefix, settings = f"{prefix}-{interpolation}", {**settings, "resize": interpolation}
    return CachedImages(
        _entry(
            paths,
            settings,
            prefix,
            folder,
            lambda entry: _write_images(entry, paths, size, interpolation, name),
        )
    )


def decoded_images(
    paths: Sequence[Path],
    size: Size,
    *,
    name: str,
    folder: Path | None = None,
    interpolation: Interpolation = "bilinear",
) -> DecodedImages:
    """Return the images, decoded anew at each reading; all files are verified once.

    What the verification found is remembered in the cache folder until a file changes.

    Args:
        paths: The image files, each once.
        size: Height and width.
        name: Beginning of the entry's name.
        folder: The cache folder; default `cache_root`.
        interpolation: Of the resizing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "broken.png")
        ...     _ = path.write_bytes(b"")
        ...     decoded_images([path], (4, 2), name="doc", folder=Path(folder, "cache")).broken
        {0: 'empty (0 bytes)'}
    """
    entry = _entry(
        paths,
        {"version": TRANSFORM_VERSION, "kind": "verified"},
        f"{_slug(name)}-verified",
        folder,
        lambda entry: _write_verification(entry, paths, name),
    )
    return DecodedImages(paths, size, _read_broken(entry), interpolation)


def original_images(
    paths: Sequence[Path], *, name: str, folder: Path | None = None, cached: bool = True
) -> CachedOriginals | DecodedOriginals:
    """Return the images at their own sizes, of which boxes are cut before resizing.

    All files are decoded once, into the cache or to see that they can be; what was found is kept
    in the cache folder until a file changes.

    Args:
        paths: The image files, each once.
        name: Beginning of the entry's name, and what progress is called: ``Market-1501 train``.
        folder: The cache folder; default `cache_root`.
        cached: False decodes files anew at each reading and keeps their sizes only.

    Raises:
        OSError: If the disk has no room for it.

    Example:
        >>> from PIL import Image
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "red.png")
        ...     Image.new("RGB", (2, 4), (255, 0, 0)).save(path)
        ...     images = original_images([path], name="doc", folder=Path(folder, "cache"))
        ...     box = np.array([[1, 0, 2, 2]])
        ...     crops = images.read_crops(np.array([0]), box, (1, 1), "bicubic")
        >>> images.sizes.tolist(), crops.flatten().tolist()
        ([[4, 2]], [255, 0, 0])
    """
    kind, write = ("originals", _write_originals) if cached else ("sizes", _write_sizes)
    entry = _entry(
        paths,
        {"version": TRANSFORM_VERSION, "kind": kind},
        f"{_slug(name)}-{kind}",
        folder,
        lambda entry: write(entry, paths, name),
    )
    if cached:
        return CachedOriginals(entry)
    return DecodedOriginals(paths, np.load(entry / "sizes.npy"), _read_broken(entry))


def cached_tokens(
    captions: Sequence[str],
    tokenize: Callable[[Sequence[str]], Tensor],
    *,
    settings: Mapping[str, Any],
    name: str,
    kind: str = "tokens",
    folder: Path | None = None,
) -> Tensor:
    """Return ``[captions, L]`` int64 tokens, from the cache where they are there already.

    Noun phrases, numbers of units that a caption mentions, are kept likewise.

    Args:
        captions: Sentences.
        tokenize: Makes ``[n, L]`` int64 of n sentences.
        settings: What else the tokens depend on: the tokenizer's name, the context length, a hash
            of the words that it has learned.
        name: Beginning of the entry's name.
        kind: Word behind it: what the numbers are.
        folder: The cache folder; default `cache_root`.

    Example:
        >>> def count_letters(captions): return torch.tensor([[len(text)] for text in captions])
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     options = {"settings": {}, "name": "doc", "folder": Path(folder)}
        ...     _ = cached_tokens(["a", "man"], count_letters, **options)
        ...     cached_tokens(["a", "man"], print, **options)
        tensor([[1],
                [3]])
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for caption in captions:
        digest.update(caption.encode("utf-8", "surrogatepass") + b"\0")
    folder = folder or cache_root()
    entry = folder / f"{_slug(name)}-{kind}-{digest.hexdigest()[:24]}"

    def write(unfinished: Path) -> None:
        tokens = tokenize(captions).numpy()
        dtype = np.uint16 if tokens.max(initial=0) < 1 << 16 else np.int32
        np.save(unfinished / "tokens.npy", tokens.astype(dtype))

    build_once(entry, write)
    return torch.from_numpy(np.load(entry / "tokens.npy").astype(np.int64))


def raise_if_broken(images: ImageStore, paths: Sequence[Path], *, root: Path | None = None) -> None:
    """Raise an error that names the images which cannot be read, if there are any.

    Raises:
        BrokenImagesError: If there are.

    Example:
        >>> raise_if_broken(DecodedImages([Path("a.jpg")], (4, 2), {}), [Path("a.jpg")])
    """
    if images.broken:
        problems = {paths[place]: why for place, why in images.broken.items()}
        raise BrokenImagesError(problems, len(paths), root)


def refuse_folder_inside(folder: Path, data_folder: Path) -> None:
    """Raise an error if the cache folder lies inside a data set's folder.

    Raises:
        ValueError: If it does.

    Example:
        >>> refuse_folder_inside(Path("/home/me/.cache"), Path("/datasets/CUHK-PEDES"))
    """
    if folder.resolve().is_relative_to(data_folder.resolve()):
        raise ValueError(
            f"the cache folder {folder} lies inside the data set's folder {data_folder}, into "
            "which nothing is written. Set the environment variable CROSSWALK_CACHE to another one."
        )


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def _entry(
    paths: Sequence[Path],
    settings: Mapping[str, Any],
    prefix: str,
    folder: Path | None,
    write: Callable[[Path], object],
) -> Path:
    """Return the folder of an entry that depends on files, built if there is none yet."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    listed = hashlib.sha256("\0".join(map(str, absolute)).encode()).hexdigest()[:12]
    folder = folder or cache_root()
    entry = folder / f"{prefix}-{listed}-{fingerprint(absolute, settings)[:12]}"
    if build_once(entry, write):
        for outdated in folder.glob(f"{prefix}-{listed}-*"):
            # same files, changed since; a process that still reads it keeps its map
            if outdated != entry and outdated.is_dir():
                shutil.rmtree(outdated, ignore_errors=True)
    return entry


def _check_room(entry: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(entry).free
    if needed > free:
        raise OSError(
            f"the image cache of {name} needs {needed / 1e9:.1f} GB below {entry.parent}, where "
            f"{free / 1e9:.1f} GB are free. Set the environment variable CROSSWALK_CACHE to a "
            "folder on another disk, or pass data.cache=off."
        )


def _write_images(
    entry: Path, paths: Sequence[Path], size: Size, interpolation: Interpolation, name: str
) -> None:
    _check_room(entry, len(paths) * 3 * size[0] * size[1], name)
    images = np.lib.format.open_memmap(
        entry / "images.npy", mode="w+", dtype=np.uint8, shape=(len(paths), 3, *size)
    )

    def store(place: int) -> None:
        images[place] = decode_image(paths[place], size, interpolation).numpy()

    broken = on_all_cores(store, paths, f"Decoding images of {name}")
    images.flush()
    _write_index(entry, broken, files=[str(path) for path in paths], size=list(size))


def _write_originals(entry: Path, paths: Sequence[Path], name: str) -> None:
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
        decoded = decode_pixels(paths[place])
        if decoded.shape[:2] != tuple(sizes[place]):
            raise ValueError(f"{paths[place]} is not as large as its header states")
        pixels[ends[place] - decoded.size : ends[place]] = decoded.reshape(-1)

    broken = on_all_cores(store, paths, f"Decoding images of {name}")
    pixels.flush()
    sizes[list(broken)] = 0
    _write_index(entry, broken, files=[str(path) for path in paths])
    np.save(entry / "sizes.npy", sizes)
    np.save(entry / "ends.npy", ends)


def _write_sizes(entry: Path, paths: Sequence[Path], name: str) -> None:
    sizes = np.zeros((len(paths), 2), dtype=np.int64)

    def measure(place: int) -> None:
        sizes[place] = decode_pixels(paths[place]).shape[:2]

    _write_index(entry, on_all_cores(measure, paths, f"Verifying images of {name}"))
    np.save(entry / "sizes.npy", sizes)


def _write_verification(entry: Path, paths: Sequence[Path], name: str) -> None:
    def verify(place: int) -> None:
        decode_pixels(paths[place])

    _write_index(entry, on_all_cores(verify, paths, f"Verifying images of {name}"))


def _write_index(entry: Path, broken: Mapping[int, str], **more: object) -> None:
    index = {"version": TRANSFORM_VERSION, "broken": broken, **more}
    (entry / "index.json").write_text(json.dumps(index))


def _read_broken(entry: Path) -> Mapping[int, str]:
    broken = json.loads((entry / "index.json").read_text())["broken"]
    return {int(place): why for place, why in broken.items()}
