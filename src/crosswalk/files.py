"""Files that are whole or not there, and locks that go with their process, however it ends."""

from __future__ import annotations

import csv
import difflib
import errno
import io
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_ARRAYS = 8 << 30
"""Bytes of arrays that a file may unpack to."""

_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError)

UNFINISHED = ".unfinished"
"""Ends the name of a file that is being written; after a kill it stays, and may be deleted."""

FORMULA = re.compile(r"(^|[;\t\r\n])(?=[\s\x00-\x1f]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""Before what a spreadsheet runs: at the start of a cell, or behind what some of them split at."""


FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Word errors of writing ``path``: the file, the room that is left, and what to do.

    Example:
        >>> with writing(Path("runs/it/last.ckpt")):
        ...     raise OSError(errno.EROFS, "Read-only file system")
        Traceback (most recent call last):
        OSError: [Errno 30] cannot be written: Read-only file system. ...: 'runs/it/last.ckpt'
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if "PytorchStreamWriter" in str(error):  # torch's word for whatever went wrong in writing
            number = errno.ENOSPC
        if number in FULL:
            there = next(each for each in (path, *path.absolute().parents) if each.exists())
            free = shutil.disk_usage(there).free / 1e6
            why = (
                f"cannot be written: the disk is full ({free:,.0f} MB free for all). Make room "
                "there and repeat the command, a run with resume=true"
            )
        elif number in READ_ONLY:
            why = (
                f"cannot be written: {os.strerror(number)}. Change its permissions, or choose "
                "another folder (output_dir=, --output-dir, --out; CROSSWALK_CACHE for the cache)"
            )
        else:
            raise
        raise OSError(number, why, str(path)) from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Hand out a path to write to; what is there at the end takes the place of ``path``.

    It is on the disk by then. After an exception, or a kill, ``path`` is as it was. The folder is
    made if it is missing.

    Raises:
        ValueError: If a device or a pipe is there, whose place no file may take.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "diagnostics" / "note.txt"
        >>> with whole(path) as unfinished:
        ...     _ = unfinished.write_text("whole")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('whole', 1)
    """
    path = Path(path)
    _check_plain(path, str(path))
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            sync_to_disk(unfinished)
            os.replace(unfinished, path)
            sync_to_disk(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    if os.name != "posix" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path, key: str) -> None:
    """Raise an error if a file cannot be written, before the work for it; folders may be made.

    Raises:
        IsADirectoryError: If it is a folder.
        ValueError: If it is a device or a pipe, whose place no file may take.
        PermissionError: If its folder, or the one to make it in, may not be written to.

    Example:
        >>> check_writable(Path("/dev/null/page.html"), "--out")
        Traceback (most recent call last):
            ...
        PermissionError: --out /dev/null/page.html: /dev/null is no folder that may be written to. \
        Name another file.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{key} {path} is a folder. Name a file in it.")
    _check_plain(path, f"{key} {path}")
    _check_parents(path, f"{key} {path}", "file")


def _check_plain(path: Path, given: str) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{given} is a device or a pipe. Name a file.")


def check_folder(path: Path, given: str) -> None:
    """Raise an error if nothing can be written into a folder that is there or is to be made.

    Args:
        path: The folder.
        given: What named it, for the message.

    Raises:
        PermissionError: If it, or the folder to make it in, may not be written to.

    Example:
        >>> check_folder(Path("/dev/null/runs"), "output_dir=/dev/null/runs")
        Traceback (most recent call last):
            ...
        PermissionError: output_dir=/dev/null/runs: /dev/null is no folder that may be written to. \
        Name another folder.
    """
    _check_parents(path / "run", given, "folder")


def _check_parents(path: Path, given: str, kind: str) -> None:
    folder = next(each for each in path.absolute().parents if each.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise PermissionError(
            f"{given}: {folder} is no folder that may be written to. Name another {kind}."
        )


def path_meant(path: Path) -> str:
    """Return the question whether a path is meant whose first missing name is alike; or nothing.

    Example:
        >>> path_meant(Path(__file__).with_name("flies.py")).endswith("files.py?")
        True
        >>> path_meant(Path("nowhere/at/all"))
        ''
    """
    missing = path
    while not missing.parent.is_dir():
        if missing.parent == missing:
            return ""
        missing = missing.parent
    try:
        names = sorted(os.listdir(missing.parent))
    except OSError:
        return ""
    for name in difflib.get_close_matches(missing.name, names, n=3, cutoff=0.75):
        meant = missing.with_name(name) / path.relative_to(missing)
        if meant.exists():
            return f" Did you mean {meant}?"
    return ""


def check_safetensors(path: Path) -> None:
    """Refuse a file of weights to write that is not called so.

    Raises:
        ValueError: If its name does not end in ``.safetensors``.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} should end in .safetensors, the format that is written.")


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.json"
        >>> write_text(path, "{}")
        >>> path.read_text()
        '{}'
    """
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def refuse_inside(
    target: Path, root: Path, images: Iterable[Path], key: str, *, given: Path
) -> None:
    """Raise an error if a file or folder to write lies in a data set's folder.

    That is the folder that holds it and those of its images. A table that was named as a file and
    lies in the folder one works in leaves that folder to the work.

    Args:
        target: What is to be written.
        root: The folder that holds the data set.
        images: Its image files.
        key: What named ``target``, for the message: ``output_dir``.
        given: Where the data set was looked for.

    Raises:
        ValueError: If it does.

    Example:
        >>> people = Path("/people")
        >>> refuse_inside(people / "runs", people, [], "output_dir", given=people)
        Traceback (most recent call last):
            ...
        ValueError: output_dir=/people/runs lies inside the data set's folder /people, into which \
        nothing is written. Choose a place elsewhere.
    """
    folders = {folder.resolve() for folder in {root, *(image.parent for image in images)}}
    if given.is_file() and root.resolve() == Path.cwd():
        folders.discard(Path.cwd())
    for folder in sorted(folders):
        if target.resolve().is_relative_to(folder):
            raise ValueError(
                f"{key}={target} lies inside the data set's folder {folder}, into which "
                "nothing is written. Choose a place elsewhere."
            )


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV that a spreadsheet shows and does not run.

    Captions and file names come from others: a text that begins like a formula gets an apostrophe,
    which spreadsheets take for "this is text". Numbers stay, those that are written as text too;
    None is an empty cell.

    Example:
        >>> print(csv_text(["image", "loss"], [["=1+1.jpg", -0.5], ["a, b.jpg", None]]), end="")
        image,loss
        '=1+1.jpg,-0.5
        "a, b.jpg",
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_inert(cell) for cell in row] for row in [header, *rows])
    # file names need not be UTF-8, tables are
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def _inert(cell: object) -> str:
    text = "" if cell is None else str(cell)
    try:
        float(text)
    except ValueError:
        return FORMULA.sub(r"\1'", text)
    return text


def read_text(path: Path, *, limit: int = 1 << 30) -> str:
    r"""Return the text of a file.

    Args:
        path: The file.
        limit: Most bytes that are read of any file of its kind.

    Raises:
        FileNotFoundError: If there is none; a folder, a pipe or a device counts as none.
        ValueError: If it is larger, or is no text.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> _ = path.write_bytes(b"one\xff")
        >>> read_text(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: .../note.txt is damaged: it is no text in UTF-8 (byte 4).
    """
    if not path.is_file():
        kind = "is no file" if path.exists() else "is missing"
        raise FileNotFoundError(f"{path} {kind}.")
    if path.stat().st_size > limit:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {limit}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is damaged: it is no text in UTF-8 (byte {error.start + 1})."
        ) from error


def load_yaml(text: str, before: Callable[[str, Any], None] | None = None) -> Any:  # noqa: ANN401
    """Return what YAML text holds: plain containers and values.

    libyaml reads ten times as fast; what it cannot read is read again for a better message.

    Args:
        text: A document.
        before: Called with the text and the loader first.

    Raises:
        yaml.YAMLError: If it is no YAML.

    Example:
        >>> load_yaml("{seed: 1, rows: [a, b]}")
        {'seed': 1, 'rows': ['a', 'b']}
    """
    try:
        return _load_yaml(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader), before)
    except (yaml.YAMLError, UnicodeEncodeError):  # the latter: parts of a path that is not UTF-8
        return _load_yaml(text, yaml.SafeLoader, before)


def _load_yaml(text: str, loader: Any, before: Callable[[str, Any], None] | None) -> Any:  # noqa: ANN401
    if before is not None:
        before(text, loader)
    return yaml.load(text, Loader=loader)


def safetensors_header(path: Path) -> dict[str, str]:
    """Return the notes in the header of a safetensors file; none for a file of another kind."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size < 1 << 26 else b""
    try:
        notes = json.loads(header)["__metadata__"]
        return {name: value for name, value in notes.items() if isinstance(value, str)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of numbers and text to a compressed ``.npz``, whole or not at all.

    Example:
        >>> import numpy as np, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "losses.npz"
        >>> write_arrays(path, {"losses": np.zeros(2)})
        >>> read_arrays(path)
        {'losses': array([0., 0.])}
    """
    import numpy as np

    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


class _Arrays(dict[str, Any]):
    """Arrays by name; a missing one is named with its file."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise ValueError(f"{self.path} is damaged: it has no array {name!r}. Put back a copy.")


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return what `write_arrays` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds objects instead of numbers and text.
    """
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        others = [entry.filename for entry in entries if not entry.filename.endswith(".npy")]
        if others:  # which numpy reads as bytes, or, up to 2.3.0, fails at
            raise ValueError(f"{others[0]} in it is no array")
        content = sum(entry.file_size for entry in entries)
        if content > LARGEST_ARRAYS:
            raise ValueError(f"it would unpack to {content} bytes")
        with np.load(path, allow_pickle=False) as file:
            return _Arrays(path, {name: file[name] for name in file})
    except (ValueError, OSError, EOFError, KeyError, MemoryError, *_BROKEN) as error:
        why = "objects in it" if "allow_pickle" in str(error) else str(error) or "cut off"
        raise ValueError(f"{path} is damaged or is no file of arrays ({why}).") from error


def lock(path: Path) -> FileLock:
    """Return a lock that one process at a time can take, and that goes when that process is gone.

    Loader workers and other forks of the process do not keep it. Two locks of one path exclude
    each other within a process, too.

    Raises:
        OSError: If it cannot be written; the message says what to do.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "")
    return FileLock(path)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the `lock` of ``path``; the file need not exist.

    Looking takes a free lock for a moment, so whoever takes a lock that others look at should try
    for longer than that. One that may not be taken, of another user, counts as held.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / ".lock"
        >>> with lock(path):
        ...     is_locked(path)
        True
        >>> is_locked(path)
        False
    """
    if not path.exists():
        return False
    look = FileLock(path)
    try:
        look.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    look.release()
    return False
