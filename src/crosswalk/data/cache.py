"""Decoded images and tokenised captions, kept so that each is made once.

Everything lies under one cache folder, never inside a data set: ``$CROSSWALK_CACHE``, or
``~/.cache/crosswalk``. Entries are named by a fingerprint of what they were made from, written
whole or not at all, and built by one process while the others wait. Any entry may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]

from crosswalk.data.plans import Index

TRANSFORM_VERSION = 1  # raise it when the pixels of `decode_image` change
_JPEG_START = b"\xff\xd8"
_CHUNK = 32  # images per task of a thread

Size = tuple[int, int]


def cache_root() -> Path:
    """Return the folder of all caches: ``$CROSSWALK_CACHE``, or ``~/.cache/crosswalk``.

    Example:
        >>> os.environ["CROSSWALK_CACHE"] = "/tmp/cache"
        >>> cache_root()
        PosixPath('/tmp/cache')
        >>> del os.environ["CROSSWALK_CACHE"]
    """
    chosen = os.environ.get("CROSSWALK_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "crosswalk"


class BrokenImagesError(ValueError):
    """Some images of a data set cannot be read.

    Attributes:
        problems: What is wrong with each file.
    """

    def __init__(self, problems: Mapping[Path, str], total: int, root: Path | None = None) -> None:
        self.problems = dict(problems)
        shown = list(self.problems.items())[:10]
        listed = "".join(f"\n  {path}: {problem}" for path, problem in shown)
        more = len(self.problems) - len(shown)
        rest = f"\n  ... and {more:,} more" if more else ""
        super().__init__(
            f"{len(self.problems):,} of {total:,} images cannot be read:{listed}{rest}\n"
            f"`crosswalk data check {root or 'ROOT'}` lists them all. Fetch these files again, or "
            "pass data.allow_missing=true to train without them."
        )


def decode_image(path: Path, size: Size | None) -> Tensor:
    """Return an image file as ``[3, H, W]`` uint8 RGB, resized if a size is given.

    The pixels are those of Pillow, ``Image.open(path).convert("RGB").resize(...)``, bilinear with
    antialiasing, as in the published pipelines: JPEG is decoded by torchvision, which gives the
    same values in less time; other formats and the resizing are Pillow's, because torchvision's
    own resizing of uint8 is off by one in some pixels. EXIF orientation is ignored.

    Args:
        path: The file.
        size: Height and width; None keeps the original size.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty, cut off, or not an image.

    Example:
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (2, 4), (255, 0, 7)).save(file.name)
        ...     decode_image(Path(file.name), size=(2, 1)).flatten()
        tensor([255, 255,   0,   0,   7,   7], dtype=torch.uint8)
    """
    return torch.from_numpy(_pixels(path, size).transpose(2, 0, 1).copy())


def _pixels(path: Path, size: Size | None) -> NDArray[np.uint8]:
    """Return ``[H, W, 3]`` uint8."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror or error}") from error
    if not data:
        raise ValueError(f"{path} is empty (0 bytes)")
    try:
        pixels = _jpeg_pixels(data) if data.startswith(_JPEG_START) else None
        if pixels is not None and (size is None or pixels.shape[:2] == size):
            return pixels
        with _open_by_pillow(path) if pixels is None else Image.fromarray(pixels) as image:
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(image)
    except Exception as error:  # damaged files raise almost anything in decoders
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"{path} is cut off or not an image: {reason[0]}") from error


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


def _open_by_pillow(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


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
        index = json.loads((folder / "index.json").read_text())
        self.broken: Mapping[int, str] = {int(k): why for k, why in index["broken"].items()}
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
    """

    def __init__(self, paths: Sequence[Path], size: Size, broken: Mapping[int, str]) -> None:
        self.paths = list(paths)
        self.size = size
        self.broken = broken

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: Index) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images."""
        images = torch.zeros((len(index), 3, *self.size), dtype=torch.uint8)
        for image, place in zip(images, index.tolist(), strict=True):
            if place not in self.broken:
                image.copy_(decode_image(self.paths[place], self.size))
        return images


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
    paths: Sequence[Path], size: Size, *, name: str, folder: Path | None = None
) -> CachedImages:
    """Return the images from the cache, which is built first where it is missing or outdated.

    Args:
        paths: The image files, each once.
        size: Height and width in the cache.
        name: Beginning of the entry's name, and what progress is called: ``CUHK-PEDES train``.
        folder: The cache folder; default `cache_root`.

    Raises:
        OSError: If the disk has no room for it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "red.png")
        ...     Image.new("RGB", (2, 4), (255, 0, 0)).save(path)
        ...     images = cached_images([path], (4, 2), name="doc", folder=Path(folder, "cache"))
        ...     images.read(np.array([0, 0])).shape
        torch.Size([2, 3, 4, 2])
    """
    return CachedImages(
        _entry(
            paths,
            {"size": list(size), "version": TRANSFORM_VERSION, "kind": "images"},
            f"{_slug(name)}-{size[0]}x{size[1]}",
            folder,
            lambda entry: _write_images(entry, paths, size, name),
        )
    )


def decoded_images(
    paths: Sequence[Path], size: Size, *, name: str, folder: Path | None = None
) -> DecodedImages:
    """Return the images, decoded anew at each reading; all files are verified once.

    What the verification found is remembered in the cache folder until a file changes.

    Args:
        paths: The image files, each once.
        size: Height and width.
        name: Beginning of the entry's name.
        folder: The cache folder; default `cache_root`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
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
    broken = json.loads((entry / "index.json").read_text())["broken"]
    return DecodedImages(paths, size, {int(place): why for place, why in broken.items()})


def cached_tokens(
    captions: Sequence[str],
    tokenize: Callable[[Sequence[str]], Tensor],
    *,
    settings: Mapping[str, Any],
    name: str,
    folder: Path | None = None,
) -> Tensor:
    """Return ``[captions, L]`` int64 tokens, from the cache where they are there already.

    Args:
        captions: Sentences.
        tokenize: Makes ``[n, L]`` int64 of n sentences.
        settings: What else the tokens depend on: the tokenizer's name, the context length.
        name: Beginning of the entry's name.
        folder: The cache folder; default `cache_root`.

    Example:
        >>> def count_letters(captions): return torch.tensor([[len(text)] for text in captions])
        >>> with tempfile.TemporaryDirectory() as folder:
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
    entry = folder / f"{_slug(name)}-tokens-{digest.hexdigest()[:24]}"

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


def build_once(entry: Path, write: Callable[[Path], object]) -> bool:
    """Make a folder by ``write`` unless it is there; return whether this process made it.

    Of several processes one builds, the others wait. ``write`` gets an empty folder that takes
    the name ``entry`` when it is complete.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write = lambda unfinished: (unfinished / "answer").write_text("42")
        ...     build_once(Path(folder, "entry"), write), build_once(Path(folder, "entry"), write)
        (True, False)
    """
    if entry.is_dir():
        return False
    entry.parent.mkdir(parents=True, exist_ok=True)
    with _locked(entry.with_name(f".{entry.name}.lock"), entry.name):
        if entry.is_dir():
            return False
        for killed in entry.parent.glob(f".{entry.name}.*/"):
            shutil.rmtree(killed, ignore_errors=True)  # of a process that was killed while building
        unfinished = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
        try:
            write(unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(entry)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return True


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            f"{what} is being built by the processes of a script that they run anew. Put the "
            'script\'s own code under `if __name__ == "__main__":`.'
        )
    lock = FileLock(path)
    try:
        lock.acquire(timeout=2)
    except Timeout:
        Console(stderr=True).print(f"Waiting for another process that builds {what}.", style="dim")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_images(entry: Path, paths: Sequence[Path], size: Size, name: str) -> None:
    needed = len(paths) * 3 * size[0] * size[1]
    free = shutil.disk_usage(entry).free
    if needed > free:
        raise OSError(
            f"the image cache of {name} needs {needed / 1e9:.1f} GB below {entry.parent}, where "
            f"{free / 1e9:.1f} GB are free. Set the environment variable CROSSWALK_CACHE to a "
            "folder on another disk, or pass data.cache=off."
        )
    images = np.lib.format.open_memmap(
        entry / "images.npy", mode="w+", dtype=np.uint8, shape=(len(paths), 3, *size)
    )

    def store(place: int) -> None:
        images[place] = _pixels(paths[place], size).transpose(2, 0, 1)

    broken = _on_all_cores(store, paths, f"Decoding images of {name}")
    images.flush()
    index = {
        "files": [str(path) for path in paths],
        "size": list(size),
        "version": TRANSFORM_VERSION,
        "broken": broken,
    }
    (entry / "index.json").write_text(json.dumps(index))


def _write_verification(entry: Path, paths: Sequence[Path], name: str) -> None:
    def verify(place: int) -> None:
        _pixels(paths[place], None)

    broken = _on_all_cores(verify, paths, f"Verifying images of {name}")
    (entry / "index.json").write_text(json.dumps({"broken": broken}))


def _on_all_cores(work: Callable[[int], None], paths: Sequence[Path], title: str) -> dict[int, str]:
    """Call ``work`` for every place; return what went wrong with which.

    Threads suffice: decoding, resizing and copying release Python's lock.
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
        with _Announced(title, len(paths)) as progress:
            tasks = [executor.submit(work_on, start) for start in range(0, len(paths), _CHUNK)]
            for task in as_completed(tasks):
                broken.update(task.result())
                progress.advance(_CHUNK)
    finally:
        executor.shutdown(cancel_futures=True)
    return dict(sorted(broken.items()))


class _Announced:
    """Progress of something long: a bar on a terminal, plain lines elsewhere, both after 2 s."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.console = Console(stderr=True)
        self.done = 0
        self.started = time.monotonic()
        self.next_line = self.started + 2
        self.bar: Progress | None = None

    def __enter__(self) -> _Announced:
        return self

    def advance(self, count: int) -> None:
        """Count what is done, and show it if it is time."""
        self.done = min(self.done + count, self.total)
        now = time.monotonic()
        if self.console.is_terminal:
            if self.bar is None and now > self.next_line:
                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
                self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
                self.bar.start()
                self.bar.add_task(self.title, total=self.total)
            if self.bar is not None:
                self.bar.update(self.bar.task_ids[0], completed=self.done)
        elif now > self.next_line:
            left = (now - self.started) / self.done * (self.total - self.done)
            self.console.print(f"{self.title}: {self.done:,} of {self.total:,}, {left:.0f} s left")
            self.next_line = now + 10

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
