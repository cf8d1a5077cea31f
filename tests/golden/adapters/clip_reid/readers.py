"""File names and lists of data sets to persons and cameras."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from crosswalk.data.readers.image_folders import MARKET_FOLDERS
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.data.readers.msmt17 import read_msmt17
from crosswalk.data.readers.occluded_duke import read_occluded_duke
from crosswalk.data.readers.records import ImageSplits, Record, relabel
from tests.golden.harness import Case, golden

READERS: dict[str, tuple[Callable[[Path], ImageSplits], int]] = {
    "market": (read_market1501, 0),
    "occluded_duke": (read_occluded_duke, 1),
}
"""Readers of folders like Market-1501's, and the view that the released code gives their images."""


def compare(case: Case, splits: ImageSplits, view: int) -> None:
    """Compare records by name: the order within a split is that of a list, or of names."""
    label = relabel(record.person_id for record in splits.train)
    for split in ("train", "query", "gallery"):
        records = {image_name(record, splits.root): record for record in splits.split(split)}
        names = [name for name in case[f"out_{split}_name"].tolist() if name in records]
        found = [records[name] for name in names]
        persons = [record.person_id for record in found]
        if split == "train":
            persons = [label[person] for person in persons]
            if "market" in case.name:  # any one-to-one numbering is right: that of a Python set
                theirs = dict(zip(persons, case["out_train_person"].tolist(), strict=True))
                case.check(len(set(theirs.values())) == len(theirs), "one number, one person")
                persons = [theirs[person] for person in persons]
        case.check(len(records) == len(names), f"{split} has no other image")
        case.equal(f"out_{split}_name", names)
        case.equal(f"out_{split}_person", persons)
        case.equal(f"out_{split}_camera", [record.camera_id - 1 for record in found])
        case.equal(f"out_{split}_view", [view] * len(found))
    case.equal("out_num_classes", len(label))
    case.equal("out_num_cameras", len({record.camera_id for record in splits.train}))


def image_name(record: Record, root: Path) -> str:
    """Return the name of a file, behind the folder of its split."""
    return record.image_path.relative_to(root).as_posix().split("/", 1)[1]


@golden("clip_reid", "dataset", named=True)
def dataset(case: Case) -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        if "list_train" in case:
            compare(case, read_lists(case, root), view=0)
            return
        kind = next(kind for kind in READERS if kind in case.name)
        reader, view = READERS[kind]
        for folder in MARKET_FOLDERS.values():
            (root / folder).mkdir()
            for file in case[f"files_{folder}"].tolist():
                (root / folder / file).touch()
        compare(case, reader(root), view)


def read_lists(case: Case, root: Path) -> ImageSplits:
    """Return the splits of MSMT17 by lists of its first version."""
    folder = root / "MSMT17_V1"
    folders = {"train": "train", "val": "train", "query": "test", "gallery": "test"}
    for name, images in folders.items():
        lines = case[f"list_{name}"].tolist()
        for line in lines:
            path = folder / images / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (folder / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    return read_msmt17(root)
