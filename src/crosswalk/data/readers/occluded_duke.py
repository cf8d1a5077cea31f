"""Occluded-Duke: images of DukeMTMC-reID sorted anew, so that every query is partly hidden.

Accepted below ``data.root``, first match: ``Occluded_Duke/``, ``Occluded-DukeMTMC/``,
``occluded_duke/`` or the folder itself, with ``bounding_box_train/``, ``query/`` and
``bounding_box_test/`` (the gallery) in it. Names are ``<person>_c<camera>_f<frame>.jpg``, of eight
cameras.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crosswalk.data.readers.annotations import EXPECTED_COUNTS_FILE, find_layout
from crosswalk.data.readers.dukemtmc import WITHDRAWN
from crosswalk.data.readers.image_folders import (
    MARKET_FORM,
    MARKET_MARKERS,
    read_market_folders,
    with_image_notices,
)
from crosswalk.data.readers.records import ImageSplits

PUBLISHED_COUNTS = {
    "train": {"person_ids": 702, "images": 15_618},
    "query": {"images": 2_210},
    "gallery": {"images": 17_661},
}

NUM_CAMERAS = 8

FOLDERS = ("Occluded_Duke", "Occluded-DukeMTMC", "occluded_duke", ".")

FORMS = {MARKET_FORM: MARKET_MARKERS}

OF_DUKE = f"Occluded-Duke consists of images of DukeMTMC-reID. {WITHDRAWN}"

ADVICE = (
    f"{OF_DUKE} A copy that you may use should have bounding_box_train/, query/ and "
    "bounding_box_test/ in one folder: pass data.root=<that folder, or the one above>."
)


def read_occluded_duke(root: Path) -> ImageSplits:
    """Return the splits of Occluded-Duke, with a notice that DukeMTMC-reID was withdrawn.

    Raises:
        FileNotFoundError: If no layout is found below ``root``, or one of its folders is missing.
        ValueError: If file names do not follow the grammar.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for folder in ("bounding_box_train", "query", "bounding_box_test"):
        ...         path = Path(name) / "Occluded_Duke" / folder / "0005_c2_f0046985.jpg"
        ...         path.parent.mkdir(parents=True)
        ...         path.touch()
        ...     splits = read_occluded_duke(Path(name))
        >>> splits.layout, splits.query[0].person_id, splits.query[0].camera_id
        ('Occluded_Duke/bounding_box_*', 5, 2)
    """
    layout = find_layout(Path(root), "Occluded-Duke", FOLDERS, FORMS, ADVICE, what="images")
    splits = read_market_folders(layout, "Occluded-Duke", PUBLISHED_COUNTS, ADVICE)
    if not (layout.folder / EXPECTED_COUNTS_FILE).is_file():  # a generated set
        splits = replace(splits, notices=(OF_DUKE, *splits.notices))
    return with_image_notices(splits)
