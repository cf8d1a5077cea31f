"""RSTPReid: 4,101 people of MSMT17, five images each, two captions per image.

Accepted below ``data.root``, first match: ``RSTPReid/`` or the folder itself, with
``data_captions.json`` and the images in ``imgs/`` or beside the annotation.
"""

from __future__ import annotations

import re
from pathlib import Path

from crosswalk.data.readers.annotations import (
    find_layout,
    parse_entries,
    read_entries,
    split_by_name,
    to_splits,
)
from crosswalk.data.readers.records import Splits

PUBLISHED_COUNTS = {
    "train": {"person_ids": 3_701, "images": 18_505, "captions": 37_010},
    "val": {"person_ids": 200, "images": 1_000, "captions": 2_000},
    "test": {"person_ids": 200, "images": 1_000, "captions": 2_000},
}

FOLDERS = ("RSTPReid", ".")

FORMS = {"data_captions.json": ("data_captions.json",)}

# Names are person, camera 1-15 without zero padding, frame: 0001_c14_0033.jpg.
CAMERA = re.compile(r"^\d+_c(\d+)_")

ADVICE = (
    "RSTPReid cannot be downloaded automatically: get it from its authors, unpack it so that "
    "data_captions.json and imgs/ lie in one folder, and pass data.root=<that folder, or the one "
    "above>."
)


def read_rstp_reid(root: Path) -> Splits:
    """Return the splits of RSTPReid, with camera ids from the file names.

    Raises:
        FileNotFoundError: If no annotation is found below ``root``.
        ValueError: If the annotation is damaged, with the file and entry.

    Example:
        >>> import json, tempfile
        >>> entry = {"split": "val", "id": 1, "captions": ["A man."]}
        >>> entry["img_path"] = "0001_c14_0033.jpg"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "data_captions.json").write_text(json.dumps([entry]))
        ...     splits = read_rstp_reid(Path(folder))
        >>> splits.val[0].person_id, splits.val[0].camera_id
        (1, 14)
    """
    layout = find_layout(Path(root), "RSTPReid", FOLDERS, FORMS, ADVICE)
    path = layout.files[0]
    parsed = parse_entries(path, read_entries(path), image_keys=("img_path", "file_path"))
    entries = split_by_name(path, parsed)
    return to_splits("RSTPReid", layout, entries, PUBLISHED_COUNTS, camera=CAMERA)
