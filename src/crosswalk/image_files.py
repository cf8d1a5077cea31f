"""Image files that may come from anybody: opened if they are files of a size that people have.

Training, the doctor and the pages of reports open images here, so that their limits are the same.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

MAX_PIXELS = 89_478_485  # Pillow's: it warns of "decompression bombs" from here on
MAX_BYTES = 1 << 30  # ours: more than so many pixels of three bytes take

SENT = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats, as Pillow calls them, of images that strangers send: a decoder less is a hole less."""

ORIENTATION = 0x0112  # the tag of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its orientation as EXIF numbers them."""

TRAITS = {
    "turned": "stored turned (EXIF orientation)",
    "transparent": "transparent",
    "deep": "stored with 16 or more bits per channel",
    "animated": "animated; the first frame is read",
}
"""What an image may have that is read differently by different programs."""

# stated above; without this, Pillow would print it besides
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class RefusedImageError(ValueError):
    """An image that is not opened: not a plain file, empty or too large."""


def check_plain_file(path: Path) -> None:
    """Raise an error unless ``path`` is a file, or leads to one, that can be read at once.

    Raises:
        FileNotFoundError: If there is nothing.
        RefusedImageError: If it is something else (a folder, a pipe, a device, an endless link),
            empty or of more than `MAX_BYTES`.

    Example:
        >>> check_plain_file(Path("/dev/null"))
        Traceback (most recent call last):
        crosswalk.image_files.RefusedImageError: /dev/null cannot be opened: it is a device, not a file
    """  # noqa: E501 - the message is the example
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} is missing") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise RefusedImageError(f"{path} cannot be opened: {reason}") from error
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise RefusedImageError(f"{path} cannot be opened: it is {kind}, not a file")
    if status.st_size == 0:
        raise RefusedImageError(f"{path} is empty (0 bytes)")
    if status.st_size > MAX_BYTES:
        raise RefusedImageError(
            f"{path} is too large: it has {status.st_size:,} bytes; at most {MAX_BYTES:,} are read"
        )


@contextmanager
def open_image(path: Path, content: BinaryIO | None = None) -> Iterator[Image.Image]:
    """Hand out an image of which only the header has been read.

    Args:
        path: The file.
        content: What was sent instead of a file, in one of `SENT`; ``path`` is its name then.

    Raises:
        FileNotFoundError: If there is no such file.
        RefusedImageError: See `check_plain_file`; and if it states more than `MAX_PIXELS`.
        OSError: If it is not an image; damaged ones raise almost anything, here or when decoded.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (2, 4)).save(file.name)
        ...     with open_image(Path(file.name)) as image:
        ...         image.size
        (2, 4)
    """
    if content is None:
        check_plain_file(path)
    limit = f"at most {MAX_PIXELS:,} pixels are read"
    try:
        image = Image.open(path) if content is None else Image.open(content, formats=SENT)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RefusedImageError(
            f"{path} is too large: it states more than {2 * MAX_PIXELS:,} pixels; {limit}"
        ) from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            stated = f"it states {image.width:,} x {image.height:,} pixels"
            raise RefusedImageError(f"{path} is too large: {stated}; {limit}")
        if image.format == "EPS":  # decoding it would run Ghostscript on it
            raise RefusedImageError(f"{path} is a PostScript program, not an image")
        yield image


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return the height and width that a plain JPEG states; None if it is something else.

    Pillow knows more, in as much time as decoding a small image takes.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (2, 4)).save(file, "JPEG")
        >>> jpeg_size(file.getvalue()), jpeg_size(b"")
        ((4, 2), None)
    """
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # the frames that libjpeg decodes
            height, width = data[place + 5 : place + 7], data[place + 7 : place + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        if not 0xC4 <= marker <= 0xFE or 0xD0 <= marker <= 0xDA:  # no segment with a length
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


class MissingHints:
    """Says what may have been meant by a missing file; remembers the folders it has listed."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, str]] = {}

    def of(self, path: Path) -> str:
        """Return what is there instead, for people.

        Example:
            >>> MissingHints().of(Path("/nowhere/a.jpg"))
            'there is no folder /nowhere'
        """
        folder = path.parent
        slashed = folder / path.name.replace("\\", "/")
        if slashed != path and slashed.exists():
            return f"did you mean {slashed.relative_to(folder)}? Folders are separated by /"
        if not folder.is_dir():
            while not folder.parent.is_dir():
                folder = folder.parent
            other = self._names_in(folder.parent).get(_plain(folder.name))
            if not other:
                return f"there is no folder {folder}"
            meant = f"there is no folder {folder}, but {folder.parent / other}; did you mean it?"
            return meant + _other_form(folder.name, other)
        names = self._names_in(folder)
        other = names.get(_plain(path.name)) or names.get(_plain(path.stem) + ".*")
        if other == path.name:
            return "is a folder, or a link to something that is gone"
        if not other:
            return "no such file in its folder"
        return f"did you mean {other}?" + _other_form(path.name, other)

    def _names_in(self, folder: Path) -> dict[str, str]:
        if folder not in self._names:
            try:
                found = sorted(child.name for child in os.scandir(folder))
            except OSError:  # may not be listed
                found = []
            self._names[folder] = {_plain(Path(name).stem) + ".*": name for name in found}
            self._names[folder] |= {_plain(name): name for name in found}
        return self._names[folder]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def _other_form(name: str, other: str) -> str:
    same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
    return " The letters are the same in another Unicode form (NFC, NFD)" if same else ""


def orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF states, 1..8; 1 is upright.

    Decode all but JPEG before: looking into a PNG decodes it, and damage would go unnoticed here.

    Example:
        >>> orientation(Image.new("RGB", (2, 4)))
        1
    """
    try:
        stated = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises almost anything, and spoils no pixel
        return 1
    return stated if stated in UPRIGHT else 1


def traits(image: Image.Image) -> tuple[str, ...]:
    """Return which of `TRAITS` a decoded image has.

    Example:
        >>> traits(Image.new("RGBA", (2, 4))), traits(Image.new("I;16", (2, 4)))
        (('transparent',), ('deep',))
    """
    has = {
        "turned": orientation(image) != 1,
        "transparent": image.has_transparency_data,
        "deep": image.mode.startswith(("I", "F")),
        "animated": bool(getattr(image, "is_animated", False)),
    }
    return tuple(name for name in TRAITS if has[name])


def as_seen(image: Image.Image) -> Image.Image:
    """Return what people see: upright, what shows through white, 16 bits scaled to 8.

    Published data sets are read as the published codes read them instead, by ``convert("RGB")``.

    Raises:
        ValueError: If a pixel is a number of 32 bits, of which nobody knows what white is.

    Example:
        >>> clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
        >>> as_seen(clear).getpixel((0, 0))
        (255, 255, 255)
        >>> import numpy as np
        >>> grey = Image.fromarray(np.array([[128 * 257]], dtype=np.uint16))
        >>> as_seen(grey).getpixel((0, 0))
        (128, 128, 128)
    """
    image.load()
    turn = UPRIGHT.get(orientation(image))  # after decoding: Pillow turns TIFF by itself
    if image.mode in ("I", "F"):
        raise ValueError(
            "has pixels of 32 bits, of which black and white are unknown; save it with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        import numpy as np  # late: mistakes are answered without

        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def file_sizes(paths: Iterable[Path]) -> dict[Path, int]:
    """Return the size in bytes of each file that exists.

    Lists each folder once instead of asking for each file, which network drives answer slowly.

    Example:
        >>> file_sizes([Path("/nowhere/1.jpg")])
        {}
    """
    wanted: dict[Path, list[Path]] = {}
    for path in paths:
        wanted.setdefault(path.parent, []).append(path)
    sizes = {}
    for folder, files in wanted.items():
        listed = _list_folder(folder)
        sizes.update({path: listed[path.name] for path in files if path.name in listed})
    return sizes


def same_pictures(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Return groups of files whose contents are the same byte by byte, in the given order.

    Only files that share their size are read.

    Args:
        paths: Files; those that are missing or empty are left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for stem, content in (("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", b"12")):
        ...         _ = (Path(name) / stem).write_bytes(content)
        ...     groups = same_pictures(sorted(Path(name).iterdir()))
        >>> [[path.name for path in group] for group in groups]
        [['a', 'c']]
    """
    paths = list(dict.fromkeys(paths))
    sizes = file_sizes(paths)
    number = Counter(sizes.values())
    groups: dict[bytes, list[Path]] = {}
    for path in paths:
        if sizes.get(path, 0) > 0 and number[sizes[path]] > 1:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
            groups.setdefault(digest, []).append(path)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _list_folder(folder: Path) -> dict[str, int]:
    sizes = {}
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                try:
                    if entry.is_file():
                        sizes[entry.name] = entry.stat().st_size
                except OSError:  # a link whose target is gone, or itself
                    continue
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return {}
    return sizes
