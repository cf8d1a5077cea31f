"""The folder of a synthetic data set: complete or absent, and what it was made with."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COUNTS_NAME = "expected_counts.json"
"""File that says what a set was made with and how much is in it."""


@contextmanager
def written_folder(
    folder: Path, inner: str, settings: Mapping[str, str | int]
) -> Iterator[Path | None]:
    """Give a folder to write a set into, which is moved to its place when the block is done.

    It lies beside, as ``.<name>.partial-<random>``, and is deleted if the block fails.

    Args:
        folder: Where the set will be.
        inner: The folder in it that will hold the record `COUNTS_NAME`.
        settings: What the set is a function of; part of the record.

    Yields:
        The folder to write into, or None where a complete set of these settings is there already.

    Raises:
        FileExistsError: If the folder holds anything else.

    Example:
        >>> with tempfile.TemporaryDirectory() as name:
        ...     with written_folder(Path(name) / "set", "people", {"seed": 3}) as partial:
        ...         (partial / "people").mkdir()
        ...         write_record(partial / "people", {"seed": 3}, {})
        ...     with written_folder(Path(name) / "set", "people", {"seed": 3}) as partial:
        ...         print(partial)
        None
    """
    if _is_complete(folder, inner, settings):
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes it private
        try:
            partial.rename(folder)
        except OSError:
            # another process may have completed the same set in the meantime
            if not _is_complete(folder, inner, settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_settings(choices: Mapping[str, tuple[str, Collection[str]]], seed: int) -> None:
    """Raise a ValueError unless every choice is one of its options and the seed is one.

    Args:
        choices: By name, what was chosen and what there is.
        seed: Should not be negative.

    Example:
        >>> check_settings({"size": ("huge", ["toy", "full"])}, seed=0)
        Traceback (most recent call last):
            ...
        ValueError: size is 'huge'. Set it to one of toy, full.
    """
    for name, (value, options) in choices.items():
        if value not in options:
            raise ValueError(f"{name} is {value!r}. Set it to one of {', '.join(options)}.")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed is {seed!r}. Set it to a whole number that is not negative.")


def recorded_counts(inner: Path) -> dict[str, dict[str, int]]:
    """Return the counts of every split that `write_record` wrote into ``inner``."""
    record = json.loads((inner / COUNTS_NAME).read_text(encoding="utf-8"))
    counts: dict[str, dict[str, int]] = record["splits"]
    return counts


def write_record(
    inner: Path, settings: Mapping[str, str | int], counts: Mapping[str, Mapping[str, int]]
) -> None:
    """Write ``expected_counts.json``: what the set was made with and how much is in it.

    Args:
        inner: The folder it is written to.
        settings: What the set is a function of.
        counts: Counts of every split.

    Example:
        >>> with tempfile.TemporaryDirectory() as name:
        ...     write_record(Path(name), {"seed": 3}, {"train": {"images": 5}})
        ...     recorded_counts(Path(name))
        {'train': {'images': 5}}
    """
    record = json.dumps({**settings, "splits": counts}, indent=2)
    (inner / COUNTS_NAME).write_text(record + "\n", encoding="utf-8")


def _is_complete(folder: Path, inner: str, settings: Mapping[str, str | int]) -> bool:
    """Return whether this very set is there; refuse a folder that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = folder / inner / COUNTS_NAME
    if not record.is_file():
        raise FileExistsError(
            f"{folder} holds something that is no synthetic data set. "
            "Name a folder that does not exist yet."
        )
    made = json.loads(record.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if made.get(name) != value:
            raise FileExistsError(
                f"{folder} holds a synthetic data set with {name} {made.get(name)!r}, not "
                f"{value!r}. Delete it or name another folder."
            )
    return True
