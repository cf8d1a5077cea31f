"""CUHK-PEDES: 13,003 people, two captions per image; identities of train, val and test disjoint.

Accepted below ``data.root``, first match: ``CUHK-PEDES/``, ``cuhkpedes/`` or the folder itself,
with images in ``imgs/`` and one of these annotations:

``reid_raw.json``
    One list with ``split``, ``captions``, ``file_path``, ``id``. The published protocol.
``caption_all.json``
    One list without ``split``: the split follows from the id.
``processed_data/{train,val,test}.json``, ``{train,val,test}_reid.json``
    One list per split, entries as in ``reid_raw.json``.
``annotations/{train,val,test}.json``
    One object per split with a list ``annotations``, one entry per caption (``sentence``).
``{train,val,test}.pkl``
    Recognised and refused: reading a pickle can run code.
"""

from __future__ import annotations

from pathlib import Path

from crosswalk.data.readers.annotations import (
    Entry,
    Layout,
    find_layout,
    merge_captions,
    parse_entries,
    raise_problems,
    read_entries,
    split_by_name,
    to_splits,
)
from crosswalk.data.readers.records import SPLITS, Splits

PUBLISHED_COUNTS = {
    "train": {"person_ids": 11_003, "images": 34_054, "captions": 68_126},
    "val": {"person_ids": 1_000, "images": 3_078, "captions": 6_158},
    "test": {"person_ids": 1_000, "images": 3_074, "captions": 6_156},
}

SPLIT_OF_IDS = {
    "train": range(1, 11_004),
    "val": range(11_004, 12_004),
    "test": range(12_004, 13_004),
}

FOLDERS = ("CUHK-PEDES", "cuhkpedes", ".")

FORMS = {
    "reid_raw.json": ("reid_raw.json",),
    "caption_all.json": ("caption_all.json",),
    "processed_data/*.json": tuple(f"processed_data/{name}.json" for name in SPLITS),
    "annotations/*.json": tuple(f"annotations/{name}.json" for name in SPLITS),
    "{split}_reid.json": tuple(f"{name}_reid.json" for name in SPLITS),
    "{split}.pkl": tuple(f"{name}.pkl" for name in SPLITS),
}

ADVICE = (
    "CUHK-PEDES cannot be downloaded automatically: ask its authors for it, unpack it so that "
    "reid_raw.json and imgs/ lie in one folder, and pass data.root=<that folder, or the one above>."
)


def read_cuhk_pedes(root: Path) -> Splits:
    """Return the splits of CUHK-PEDES, or of a set of your own in the same layout.

    Raises:
        FileNotFoundError: If no annotation is found below ``root``.
        ValueError: If the annotation is damaged, with the file and entry.

    Example:
        >>> import json, tempfile
        >>> entry = {"split": "test", "id": 12004, "file_path": "a/1.jpg", "captions": ["A man."]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "reid_raw.json").write_text(json.dumps([entry]))
        ...     splits = read_cuhk_pedes(Path(folder))
        >>> splits.layout, splits.test[0].captions, splits.test[0].origin
        ('reid_raw.json', ('A man.',), 'reid_raw.json, entry 0')
    """
    root = Path(root)
    layout = find_layout(root, "CUHK-PEDES", FOLDERS, FORMS, ADVICE)
    entries = _read_form(layout)
    notices = []
    if layout.form != "reid_raw.json":
        by_id = (
            "The splits follow from the person ids. " if layout.form == "caption_all.json" else ""
        )
        notices.append(
            f"Read {layout.name}, not reid_raw.json. {by_id}The order of its pairs is not known to "
            "be the published one, so published noise-index files (data.noise_index) are refused."
        )
    return to_splits(
        "CUHK-PEDES",
        layout,
        entries,
        PUBLISHED_COUNTS,
        notices=notices,
        pair_order_is_published=layout.form == "reid_raw.json",
    )


def _read_form(layout: Layout) -> dict[str, list[Entry]]:
    if layout.form == "{split}.pkl":
        raise ValueError(
            f"{layout.files[0]} is a pickle of the CMPM layout. It is not read, because a "
            "pickle can run any code when it is opened, and it holds token numbers instead of "
            "sentences. Put the reid_raw.json or caption_all.json that it was made from beside it."
        )
    if layout.form in ("reid_raw.json", "caption_all.json"):
        path = layout.files[0]
        entries = parse_entries(path, read_entries(path), image_keys=("file_path", "img_path"))
        of_split = _split_by_id if layout.form == "caption_all.json" else split_by_name
        return of_split(path, entries)
    expected = [layout.folder / name for name in FORMS[layout.form]]
    missing = [path for path in expected if path not in layout.files]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(map(str, missing))} is missing beside {layout.files[0].name}. Add it, or "
            "put reid_raw.json or caption_all.json, which hold all splits, into "
            f"{layout.folder}."
        )
    by_split = {}
    for name, path in zip(SPLITS, layout.files, strict=True):
        content = read_entries(path)
        keys = {key for entry in content if isinstance(entry, dict) for key in entry}
        if "onehot" in keys and not keys & {"sentence", "captions"}:
            raise ValueError(
                f"{path} holds only token numbers (`onehot`), no sentences. Put reid_raw.json or "
                f"caption_all.json into {layout.folder}."
            )
        entries = parse_entries(path, content, image_keys=("file_path", "img_path"))
        problems = [
            f"entry {index}: `split` is {entry.split}, but the file is of {name}"
            for index, entry in enumerate(entries)
            if entry.split not in (None, name)
        ]
        raise_problems(path, problems, "Files were mixed up: make them again from reid_raw.json.")
        by_split[name] = merge_captions(entries) if layout.form == "annotations/*.json" else entries
    return by_split


def _split_by_id(path: Path, entries: list[Entry]) -> dict[str, list[Entry]]:
    problems = [
        f"entry {index}: `id` {entry.person_id} is not one of 1 to 13003"
        for index, entry in enumerate(entries)
        if not 1 <= entry.person_id <= 13_003
    ]
    raise_problems(
        path,
        problems,
        "caption_all.json has no splits; they follow from the ids of the published file. For data "
        "of your own, write reid_raw.json with `split`.",
    )
    return {
        name: [entry for entry in entries if entry.person_id in ids]
        for name, ids in SPLIT_OF_IDS.items()
    }
