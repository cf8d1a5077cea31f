"""Market-1501: 1,501 people, six cameras; identities of train and test disjoint.

Accepted below ``data.root``, first match: ``market1501/Market-1501-v15.09.15/``,
``Market-1501-v15.09.15/``, ``market1501/``, ``market/``, ``Market-1501/`` or the folder itself,
with ``bounding_box_train/``, ``query/`` and ``bounding_box_test/`` (the gallery) in it. Names are
``<person>_c<camera>s<sequence>_<frame>_<box>.jpg``. In the gallery, person -1 is junk and left
out, person 0 is a distractor and stays. Published rule: for each query, gallery images of the same
person by the same camera are ignored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crosswalk.data.readers.annotations import find_layout
from crosswalk.data.readers.camera_names import DISTRACTOR
from crosswalk.data.readers.image_folders import (
    MARKET_FORM,
    MARKET_MARKERS,
    read_market_folders,
    with_image_notices,
)
from crosswalk.data.readers.records import ImageSplits
from crosswalk.words import counted

# The gallery without its 3,819 junk images; distractors count as one identity.
PUBLISHED_COUNTS = {
    "train": {"person_ids": 751, "images": 12_936},
    "query": {"person_ids": 750, "images": 3_368},
    "gallery": {"person_ids": 751, "images": 15_913},
}

NUM_CAMERAS = 6

FOLDERS = (
    "market1501/Market-1501-v15.09.15",
    "Market-1501-v15.09.15",
    "market1501",
    "market",
    "Market-1501",
    ".",
)

FORMS = {MARKET_FORM: MARKET_MARKERS}

ADVICE = (
    "Market-1501 cannot be downloaded automatically: get it from its authors, unpack it so that "
    "bounding_box_train/, query/ and bounding_box_test/ lie in one folder, and pass "
    "data.root=<that folder, or the one above>."
)


def read_market1501(root: Path) -> ImageSplits:
    """Return the splits of Market-1501, or of a set of your own in the same layout.

    Raises:
        FileNotFoundError: If no layout is found below ``root``, or one of its folders is missing.
        ValueError: If file names do not follow the grammar.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for folder in ("bounding_box_train", "query", "bounding_box_test"):
        ...         path = Path(name) / "market" / folder / "0002_c1s1_000451_03.jpg"
        ...         path.parent.mkdir(parents=True)
        ...         path.touch()
        ...     splits = read_market1501(Path(name))
        >>> splits.layout, splits.query[0].person_id, splits.query[0].camera_id
        ('market/bounding_box_*', 2, 1)
    """
    layout = find_layout(Path(root), "Market-1501", FOLDERS, FORMS, ADVICE, what="images")
    splits = read_market_folders(layout, "Market-1501", PUBLISHED_COUNTS, ADVICE)
    distractors = sum(record.person_id == DISTRACTOR for record in splits.gallery)
    junk = sum(splits.junk.values())
    if distractors or junk:
        notice = (
            f"The gallery keeps {counted(distractors, 'distractor')} (person id 0); "
            f"{counted(junk, 'junk image')} (person id -1) {'is' if junk == 1 else 'are'} left out."
        )
        splits = replace(splits, notices=(*splits.notices, notice))
    return with_image_notices(splits)
