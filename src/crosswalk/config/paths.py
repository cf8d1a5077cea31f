"""Whether the files and folders that a configuration names are there, and can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswalk.config.construct import construct
from crosswalk.config.data_kinds import SYNTHETIC, data_sets
from crosswalk.config.keys import flatten, path_in
from crosswalk.config.sources import read_batches
from crosswalk.files import path_meant
from crosswalk.words import no_root

OWN = {
    "read_own_pairs": "your table, .csv or .jsonl, or its folder",
    "read_own_images": "your .csv, or a folder of train/, query/ and gallery/",
}
"""What holds data of one's own, by the function that reads them."""


def check_paths(config: Mapping[str, Any]) -> None:
    """Refuse files and folders that are not there, before anything is imported.

    Those of a stage are looked for once it is trained, and weights where none come from elsewhere.

    Args:
        config: A configuration, or the part of it whose files will be read.

    Raises:
        FileNotFoundError: With the key.
    """
    for key, value in flatten(config).items():
        path = path_in(key, value)
        unread = key.startswith("stage.") or (
            key.endswith(".pretrained") and config.get("checkpoint") is not None
        )
        if path is not None and not unread and not path.exists():
            place = "" if Path(value).expanduser().is_absolute() else f" in {Path.cwd()}"
            raise FileNotFoundError(
                f"{key}={value} does not exist{place}.{path_meant(path)} Correct the path, or copy "
                "or unpack there what it should hold."
            )
    _check_root(config.get("data") or {})


def _check_root(data: Mapping[str, Any]) -> None:
    """Refuse data of this package that are neither to be generated nor lie anywhere."""
    for node in data_sets(data):
        if not str(node.get("_target_")).startswith("crosswalk."):
            continue  # knows itself what it needs
        if "" in (node.get("root"), data.get("root")):
            raise FileNotFoundError(
                "data.root= is empty; a variable that was meant may not be set. Name the folder"
                f"{', or leave data.root out' if node.get('synthetic') else ''}."
            )
        given = (node.get("root"), node.get("synthetic"), data.get("root"))
        if all(each is None for each in given):
            gives = read_batches(str(data.get("_target_")))
            reader = str((node.get("reader") or {}).get("_target_")).rpartition(".")[2]
            kind = SYNTHETIC[gives[0]] if gives else "pairs"
            raise FileNotFoundError(no_root(kind, OWN.get(reader, "")))


def read_annotations(data: Mapping[str, Any]) -> None:
    """Refuse folders of another layout and damaged annotations, before anything slow is imported.

    Readers of this package alone are asked: they import no torch and open no image.

    Args:
        data: The ``data`` of a configuration, plain; nothing is generated.

    Raises:
        FileNotFoundError: As the reader.
        ValueError: As the reader.
    """
    for node in data_sets(data):
        root, reader = node.get("root") or data.get("root"), node["reader"]
        target = str(reader.get("_target_")) if isinstance(reader, Mapping) else ""
        if root and target.startswith("crosswalk.data.readers."):
            name = target.split(".")[-2] if node is data else ""
            _read(
                construct(reader, {}),
                str(root),
                name,
                generated=isinstance(node.get("synthetic"), Mapping),
            )


def _read(reader: Any, root: str, name: str, *, generated: bool) -> None:  # noqa: ANN401
    """Read annotations, and refuse others where generated people are to be.

    Args:
        reader: Of a data set.
        root: Its folder.
        name: The value of ``data=``; nothing where that has two sets.
        generated: Whether generated people are to be read.
    """
    try:
        found = reader(Path(root).expanduser())
    except FileNotFoundError as error:
        if generated:
            raise FileNotFoundError(
                f"data.root={root} is no set of generated people, which `crosswalk data "
                "synthesize` writes. Leave data.root out, and they are generated, or name the "
                "data set with data=."
            ) from error
        if name:
            raise
        # what one folder looks like may be the other set
        said = re.sub(r" That looks like [^.]*\.", "", str(error))
        apart = "Two sets may lie apart: data.source.root= and data.target.root=."
        raise FileNotFoundError(f"{said} {apart}") from error
    if generated and not found.dataset.startswith("synthetic"):
        raise ValueError(
            f"data.root={root} holds {found.dataset}, and data= is of generated people: results "
            f"would be called so. Name the data set: data={name or '<data set>'}."
        )
