"""ICFG-PEDES: 4,102 people of MSMT17, one caption per image, no validation split.

Accepted below ``data.root``, first match: ``ICFG-PEDES/`` or the folder itself, with
``ICFG-PEDES.json`` or ``ICFG_PEDES.json`` and the images in ``imgs/`` or beside the annotation.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

from crosswalk.data.readers.annotations import (
    find_layout,
    parse_entries,
    read_entries,
    split_by_name,
    to_splits,
)
from crosswalk.data.readers.records import Splits
from crosswalk.words import counted

PUBLISHED_COUNTS = {
    "train": {"person_ids": 3_102, "images": 34_674, "captions": 34_674},
    "test": {"person_ids": 1_000, "images": 19_848, "captions": 19_848},
}

FOLDERS = ("ICFG-PEDES", ".")

FORMS = {name: (name,) for name in ("ICFG-PEDES.json", "ICFG_PEDES.json")}

# Names of MSMT17: person, running number, camera. Other names leave the camera unknown.
CAMERA = re.compile(r"^\d{4}_\d{3}_(\d{2})_")

ADVICE = (
    "ICFG-PEDES cannot be downloaded automatically: ask its authors for it, unpack it so that "
    "ICFG-PEDES.json and imgs/ lie in one folder, and pass data.root=<that folder, or the one "
    "above>."
)

NO_VAL_SPLIT = (
    "ICFG-PEDES has no val split. A tenth of the train identities, or as many as "
    "data.val_person_ids says, are set aside for it; protocol=official trains on all and "
    "selects the best epoch on test, as the public code does."
)


def read_icfg_pedes(root: Path) -> Splits:
    """Return the splits of ICFG-PEDES; ``val`` is empty, see `carve_val`.

    Raises:
        FileNotFoundError: If no annotation is found below ``root``.
        ValueError: If the annotation is damaged, with the file and entry.

    Example:
        >>> import json, tempfile
        >>> entry = {"split": "train", "id": 0, "captions": ["A man."]}
        >>> entry["file_path"] = "train/0000/0000_000_01_0303morning_0008_0.jpg"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "ICFG_PEDES.json").write_text(json.dumps([entry]))
        ...     splits = read_icfg_pedes(Path(folder))
        >>> splits.layout, splits.train[0].camera_id, splits.val
        ('ICFG_PEDES.json', 1, ())
    """
    layout = find_layout(Path(root), "ICFG-PEDES", FOLDERS, FORMS, ADVICE)
    path = layout.files[0]
    parsed = parse_entries(path, read_entries(path), image_keys=("file_path", "img_path"))
    entries = split_by_name(path, parsed)
    notices = () if entries["val"] else (NO_VAL_SPLIT,)
    return to_splits(
        "ICFG-PEDES", layout, entries, PUBLISHED_COUNTS, camera=CAMERA, notices=notices
    )


def carve_val(splits: Splits, num_person_ids: int, seed: int) -> Splits:
    """Return ``splits`` with some train identities, all their images, moved to val.

    Whole identities move, so that val measures what test does: people never seen in training.
    The choice depends on the train ids, the number and the seed only.

    Args:
        splits: Splits whose val is empty.
        num_person_ids: How many identities to move; at least 1 stays in train.
        seed: Seed of the choice.

    Raises:
        ValueError: If there is a val split already, no labels, or too few identities.

    Example:
        >>> from crosswalk.data.readers.records import Record
        >>> train = tuple(Record(Path(f"{n}.jpg"), person_id=n // 2) for n in range(8))
        >>> carved = carve_val(Splits("own", Path(), "own", train, (), ()), 1, seed=0)
        >>> len(carved.train), len(carved.val), len({record.person_id for record in carved.val})
        (6, 2, 1)
    """
    if splits.val:
        raise ValueError(
            f"{splits.dataset} has a val split of {counted(len(splits.val), 'image')}; none can be "
            "carved from train. Remove data.val_person_ids."
        )
    if not splits.train_is_labelled:
        raise ValueError(
            f"The training pairs of {splits.dataset} in {splits.root} have no person ids, so no "
            "people can be held out of training (protocol=val). Add rows of split val with person "
            "ids, or pass protocol=official, which chooses the best epoch on test."
        )
    person_ids = sorted({record.person_id for record in splits.train})
    if not 1 <= num_person_ids < len(person_ids):
        raise ValueError(
            f"data.val_person_ids={num_person_ids} does not fit: train has {len(person_ids):,} "
            f"identities, so choose 1 to {len(person_ids) - 1}."
        )
    chosen = set(random.Random(seed).sample(person_ids, num_person_ids))
    notice = (
        f"val is {num_person_ids:,} of the {len(person_ids):,} train identities, chosen with "
        f"seed {seed}; a training is on the rest."
    )
    if not splits.own:
        notice += (
            " Published noise-index files (data.noise_index) do not fit and are refused; with "
            "protocol=official they do."
        )
    published = dict(splits.published or {})
    published.pop("train", None)
    return replace(
        splits,
        train=tuple(record for record in splits.train if record.person_id not in chosen),
        val=tuple(record for record in splits.train if record.person_id in chosen),
        notices=(*(text for text in splits.notices if text != NO_VAL_SPLIT), notice),
        published=published,
        pair_order_is_published=False,
    )
