"""A data set of lines: ``people.txt`` has ``split person image caption`` of a picture in each."""

from __future__ import annotations

from pathlib import Path

from crosswalk.data.readers.records import SPLITS, Record, Splits

FILE = "people.txt"


def read_lines(root: Path) -> Splits:
    """Return the splits of a folder with ``people.txt``; images are named from that folder.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: If there is no ``people.txt`` in it.
        ValueError: If a line is not of the form, naming the first one.
    """
    file = Path(root) / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. Pass data.root=<folder with {FILE}>.")
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split(maxsplit=3)
        if len(words) != 4 or words[0] not in records or not words[1].isdecimal():
            raise ValueError(
                f"{file}, line {number}: {line!r} is not `split person image caption` with a split "
                f"of {', '.join(SPLITS)} and a number for the person."
            )
        split, person, image, caption = words
        records[split].append(
            Record(
                image_path=file.parent / image,
                person_id=int(person),
                captions=(caption,),
                origin=f"{FILE}, line {number}",
            )
        )
    return Splits(
        dataset="lines",
        root=file.parent,
        layout=FILE,
        **{split: tuple(found) for split, found in records.items()},
        image_folder=file.parent,
        annotation_files=(file,),
    )
