"""The folder of what is made once and kept: decoded images, tokens, word tables.

It never lies inside a data set: ``$CROSSWALK_CACHE``, or ``~/.cache/crosswalk``. Entries are
written whole or not at all, and built by one process while the others wait. Any may be deleted.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout
from rich.console import Console

from crosswalk.files import lock


def cache_root() -> Path:
    """Return the folder of all caches: ``$CROSSWALK_CACHE``, or ``~/.cache/crosswalk``.

    Raises:
        ValueError: If something else lies there.

    Example:
        >>> os.environ["CROSSWALK_CACHE"] = "/tmp/cache"
        >>> cache_root()
        PosixPath('/tmp/cache')
        >>> del os.environ["CROSSWALK_CACHE"]
    """
    chosen = os.environ.get("CROSSWALK_CACHE")
    root = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "crosswalk"
    if root.exists() and not root.is_dir():
        raise ValueError(f"the cache {root} is no folder. Set CROSSWALK_CACHE=<folder>.")
    return root


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
    held = lock(path)
    try:
        held.acquire(timeout=2)
    except Timeout:
        Console(stderr=True).print(f"Waiting for another process that builds {what}.", style="dim")
        held.acquire()
    try:
        yield
    finally:
        held.release()
