"""File names and order of training images, and the camera-style image of each."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from crosswalk.data.readers import dukemtmc, market1501, msmt17
from crosswalk.data.readers.camera_names import parse_name
from crosswalk.data.readers.camstyle import camstyle_files
from crosswalk.data.readers.image_folders import MARKET_FOLDERS
from crosswalk.data.readers.records import ImageSplits, Record, relabel
from tests.golden.harness import Case, golden

READERS = {
    "market": market1501.read_market1501,
    "duke": dukemtmc.read_dukemtmc,
    "msmt17": msmt17.read_msmt17,
}
NAMES = {"market": "Market-1501", "duke": "DukeMTMC-reID", "msmt17": "MSMT17"}
NUM_CAMERAS = {
    "market": market1501.NUM_CAMERAS,
    "duke": dukemtmc.NUM_CAMERAS,
    "msmt17": msmt17.NUM_CAMERAS,
}


@golden("mmcl", "dataset_index")
def dataset_index(case: Case) -> None:
    dataset = case.item("dataset")
    with TemporaryDirectory() as root:
        for split, folder in MARKET_FOLDERS.items():
            path = Path(root) / dataset / folder
            path.mkdir(parents=True)
            for name in case[f"files_{split}"].tolist():
                (path / name).touch()
        splits = READERS[dataset](Path(root))

    label = relabel(record.person_id for record in splits.train)
    for split in MARKET_FOLDERS:
        records = splits.split(split)
        numbers = [record.person_id for record in records]
        if split == "train":
            numbers = [label[number] for number in numbers]
        case.equal(f"out_{split}_fname", [record.image_path.name for record in records])
        case.equal(f"out_{split}_pid", numbers)
        case.equal(f"out_{split}_cam", [record.camera_id - 1 for record in records])
        case.equal(f"out_{split}_idx", np.arange(len(records)))
    case.equal("out_num_ids", [len({r.person_id for r in splits.split(s)}) for s in MARKET_FOLDERS])
    case.equal("out_num_cam", NUM_CAMERAS[dataset])


@golden("mmcl", "camstyle_paths")
def camstyle_paths(case: Case) -> None:
    dataset = case.item("dataset")
    root = Path(dataset)
    names, cameras, drawn = (case[key].tolist() for key in ("fname", "cam", "sel_cam"))
    train = tuple(
        Record(root / MARKET_FOLDERS["train"] / name, *parse_name(name)) for name in names
    )
    files = camstyle_files(
        ImageSplits(NAMES[dataset], root, ".", train, (), ()), case.item("num_cam")
    )

    case.check([record.camera_id - 1 for record in train] == cameras, "names tell the camera")
    paths = [files.path(record, 1 + camera) for record, camera in zip(train, drawn, strict=True)]
    case.equal("out_relpath", [path.as_posix() for path in paths])
    case.equal("out_idx", np.arange(len(paths)))
