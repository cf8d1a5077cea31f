"""Whose official checkpoints can be read: a module of this room for each method."""

from __future__ import annotations

from pathlib import Path


def importable_methods() -> list[str]:
    """Return the methods whose official checkpoints can be read.

    Example:
        >>> "rde" in importable_methods()
        True
    """
    folder = Path(__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def check_importable(method: str) -> None:
    """Refuse a method without an importer.

    Raises:
        ValueError: With those that there are.

    Example:
        >>> check_importable("cyclegan")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: there is no importer for 'cyclegan'; there are: c...mmcl, rde.
    """
    if method not in importable_methods():
        raise ValueError(
            f"there is no importer for {method!r}; there are: {', '.join(importable_methods())}."
        )
