"""DukeMTMC-reID: 1,812 people, eight cameras. Withdrawn by its authors' university in 2019.

Accepted below ``data.root``, first match: ``dukemtmc-reid/DukeMTMC-reID/``,
``dukemtmcreid/DukeMTMC-reID/``, ``DukeMTMC-reID/``, ``duke/`` or the folder itself, with
``bounding_box_train/``, ``query/`` and ``bounding_box_test/`` (the gallery) in it. Names are
``<person>_c<camera>_f<frame>.jpg``. There is no junk; 408 people are in the gallery only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crosswalk.data.readers.annotations import EXPECTED_COUNTS_FILE, find_layout
from crosswalk.data.readers.image_folders import (
    MARKET_FORM,
    MARKET_MARKERS,
    read_market_folders,
    with_image_notices,
)
from crosswalk.data.readers.records import ImageSplits

PUBLISHED_COUNTS = {
    "train": {"person_ids": 702, "images": 16_522},
    "query": {"person_ids": 702, "images": 2_228},
    "gallery": {"person_ids": 1_110, "images": 17_661},
}

NUM_CAMERAS = 8

FOLDERS = (
    "dukemtmc-reid/DukeMTMC-reID",
    "dukemtmcreid/DukeMTMC-reID",
    "DukeMTMC-reID",
    "duke",
    ".",
)

FORMS = {MARKET_FORM: MARKET_MARKERS}

WITHDRAWN = (
    "DukeMTMC-reID was withdrawn by Duke University in 2019, because people were filmed and the "
    "videos published beyond what its ethics board had approved. Use a copy only to compare with "
    "earlier publications, and only where your institution permits it."
)

ADVICE = (
    f"{WITHDRAWN} It is not distributed any more; a copy that you may use should have "
    "bounding_box_train/, query/ and bounding_box_test/ in one folder: pass data.root=<that "
    "folder, or the one above>."
)


def read_dukemtmc(root: Path) -> ImageSplits:
    """Return the splits of DukeMTMC-reID, with a notice that it was withdrawn.

    Raises:
        FileNotFoundError: If no layout is found below ``root``, or one of its folders is missing.
        ValueError: If file names do not follow the grammar.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for folder in ("bounding_box_train", "query", "bounding_box_test"):
        ...         path = Path(name) / "duke" / folder / "0005_c2_f0046985.jpg"
        ...         path.parent.mkdir(parents=True)
        ...         path.touch()
        ...     splits = read_dukemtmc(Path(name))
        >>> splits.layout, splits.query[0].person_id, splits.query[0].camera_id
        ('duke/bounding_box_*', 5, 2)
    """
    layout = find_layout(Path(root), "DukeMTMC-reID", FOLDERS, FORMS, ADVICE, what="images")
    splits = read_market_folders(layout, "DukeMTMC-reID", PUBLISHED_COUNTS, ADVICE)
    # A generated set in this layout was never withdrawn.
    if not (layout.folder / EXPECTED_COUNTS_FILE).is_file():
        splits = replace(splits, notices=(WITHDRAWN, *splits.notices))
    return with_image_notices(splits)
