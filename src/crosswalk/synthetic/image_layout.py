"""What tells the layout of one synthetic image set from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crosswalk.synthetic.sightings import SetSize, Sighting


class ImagePaths(Protocol):
    """A function that says where each image lies below the layout's folder."""

    def __call__(self, sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
        """Return relative paths, no two of them the same."""


@dataclass(frozen=True, slots=True)
class ImageLayout:
    """The files of an image set.

    Attributes:
        dataset: Name of its data configuration.
        folder: The folder that holds everything.
        look: Name of the look that its people and cameras come from.
        sizes: The sizes on offer.
        image_paths: Says where each image lies.
        write_lists: Writes the set's list files into the folder; called with all images and paths.
    """

    dataset: str
    folder: str
    look: str
    sizes: Mapping[str, SetSize]
    image_paths: ImagePaths
    write_lists: Callable[[Path, Sequence[Sighting], Sequence[str]], None]


def no_lists(folder: Path, sightings: Sequence[Sighting], paths: Sequence[str]) -> None:
    """Write nothing, where the file names say everything.

    Example:
        >>> no_lists(Path("anywhere"), [], [])
    """
