"""File names and order of images, with the person and the camera that they say."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from crosswalk.data.readers import dukemtmc, market1501, msmt17
from crosswalk.data.readers.camera_names import parse_name
from crosswalk.data.readers.records import ImageSplits, relabel
from tests.golden.harness import Case, golden

SPLITS = ("train", "query", "gallery")
READERS: dict[str, Callable[[Path], ImageSplits]] = {
    "market1501": market1501.read_market1501,
    "dukemtmc": dukemtmc.read_dukemtmc,
    "dukemtmcreid": dukemtmc.read_dukemtmc,
    "msmt17": msmt17.read_msmt17,
}
PERSONX_CAMERAS = (3, 4, 8, 10, 11, 12)

Row = tuple[str, int, int]


def by_reader(case: Case, root: Path) -> dict[str, list[Row]]:
    """Return file, person and camera, counted from 0, of every image, by split."""
    splits = READERS[case.item("dataset")](root)
    return {
        split: [
            (record.image_path.name, record.person_id, record.camera_id - 1)
            for record in splits.split(split)
        ]
        for split in SPLITS
    }


def by_names(case: Case, root: Path) -> dict[str, list[Row]]:
    """Return the same for a set that this package does not read: its names follow the grammar."""
    numbers = {camera: number for number, camera in enumerate(PERSONX_CAMERAS)}
    of_personx = case.item("dataset") == "personx"
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        rows[split] = []
        for path in sorted((root / case.item(f"folder_{split}")).glob("*.jpg")):
            name = parse_name(path.name)
            camera = numbers[name.camera_id] if of_personx else name.camera_id - 1
            rows[split].append((path.name, name.person_id, camera))
    return rows


@golden("cluster_contrast", "dataset_index")
def dataset_index(case: Case) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / case.item("out_root")
        for split in SPLITS:
            (root / case.item(f"folder_{split}")).mkdir(parents=True)
            for name in case[f"files_{split}"].tolist():
                (root / case.item(f"folder_{split}") / name).touch()
        known = case.item("dataset") in READERS
        rows = by_reader(case, Path(folder)) if known else by_names(case, root)

    for split in SPLITS:
        files, people, cameras = (list(column) for column in zip(*rows[split], strict=True))
        case.equal(f"out_{split}_file", files)
        case.equal(f"out_{split}_camera", cameras)
        if split == "train":
            first = relabel_by_first(people)
            case.equal("out_train_identity_partition", first)
        else:
            case.equal(f"out_{split}_id", people)
    case.documented("out_root", "the folder that the files were put into")


def relabel_by_first(people: list[int]) -> list[int]:
    """Return identities numbered by first appearance."""
    numbers = {person: number for number, person in enumerate(dict.fromkeys(people))}
    assert len(numbers) == len(relabel(people))
    return [numbers[person] for person in people]
