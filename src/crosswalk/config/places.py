"""Where nothing is written: in the folders of configured data sets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswalk.config.construct import construct
from crosswalk.config.plain import nested
from crosswalk.config.stored import check_stored
from crosswalk.files import refuse_inside


def refuse_inside_data(
    config: Mapping[str, Any], target: Path, key: str, *, stored: Path | None = None
) -> None:
    """Raise an error if something to write lies in the folder of a configured data set.

    Args:
        config: The plain configuration; an annotation is read only where ``target`` may lie inside.
        target: The file or folder to write.
        key: What named it, for the message.
        stored: The file of a stored configuration that nobody has checked for foreign code yet.

    Raises:
        ValueError: If it does, or if only code that is not known could tell.
    """
    data = config.get("data") or {}
    for _, node in [("data", data), *nested(data)]:
        if not isinstance(node, Mapping) or "reader" not in node:
            continue
        given = node.get("root") or data.get("root")  # None: generated, below the cache folder
        root = Path(given or os.devnull).expanduser()
        folder = root if root.is_dir() else root.parent
        if given and root.exists() and target.resolve().is_relative_to(folder.resolve()):
            if stored is not None:
                check_stored({"data": {"reader": node["reader"]}}, stored)
            splits = construct(node["reader"], {})(root)
            images = (record.image_path for _, record in splits)
            refuse_inside(target, splits.root, images, key, given=root)
