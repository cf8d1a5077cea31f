"""What is said of a gallery that is damaged, or is something else."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_GALLERY = (
    "there is no gallery in {0}. `crosswalk index MODEL FOLDER --out {0}` makes one, with the "
    "pictures of FOLDER."
)


def damaged(path: Path, why: str) -> ValueError:
    """Return the error of a file in the folder of a gallery.

    Example:
        >>> print(damaged(Path("photos.gallery/rows.sqlite"), "it is cut off"))
        photos.gallery/rows.sqlite cannot be used: it is cut off. Put back a copy of the folder, \
        or delete it and make it again: `crosswalk index MODEL FOLDER --out photos.gallery`.
    """
    return ValueError(
        f"{path} cannot be used: {why}. Put back a copy of the folder, or delete it and make it "
        f"again: `crosswalk index MODEL FOLDER --out {path.parent}`."
    )


def what_it_is(head: bytes) -> str:
    """Return what a file seems to be by its first bytes.

    Example:
        >>> what_it_is(b"<!DOCTYPE html><title>404</title>"), what_it_is(b"")
        ('a web page', 'empty')
    """
    if not head:
        return "empty"
    text = head[:200].decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    if text.startswith(("<!doctype html", "<html", "<head", "<!--")):
        return "a web page"
    if text.startswith("version https://git-lfs"):
        return "the pointer of Git LFS (`git lfs pull` fetches the file)"
    if not head.strip(b"\0"):
        return "empty space, as a full disk or a broken copy leaves it"
    return "something else"


@contextmanager
def of_database(path: Path) -> Iterator[None]:
    """Word the errors of SQLite: what they mean for this file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "disk is full" in text:
            raise OSError(errno.ENOSPC, text, str(path)) from error
        if "readonly" in text or "unable to open" in text:
            raise PermissionError(errno.EACCES, text, str(path)) from error
        if "locked" in text:
            raise RuntimeError(
                f"{path} is held by another program ({text}). End it, and repeat the command."
            ) from error
        raise damaged(path, f"SQLite says: {text}") from error
    except (sqlite3.DatabaseError, sqlite3.InterfaceError) as error:
        raise damaged(path, f"SQLite says: {error}") from error
