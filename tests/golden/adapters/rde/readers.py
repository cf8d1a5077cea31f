"""Reading the annotation files of the three text-based data sets."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.data.readers.icfg_pedes import read_icfg_pedes
from crosswalk.data.readers.records import Record, Splits, relabel
from crosswalk.data.readers.rstp_reid import read_rstp_reid
from tests.golden.harness import Case, golden

READERS: dict[str, Callable[[Path], Splits]] = {
    "reid_raw.json": read_cuhk_pedes,
    "ICFG-PEDES.json": read_icfg_pedes,
    "data_captions.json": read_rstp_reid,
}


@golden("rde", "dataset_parse", named=True)
def dataset_parse(case: Case) -> None:
    annotation_file = case.item("annotation_file")
    with TemporaryDirectory() as root:
        folder = Path(root) / case.item("dataset_dir")
        images = folder / case.item("image_subdir")
        images.mkdir(parents=True)
        (folder / annotation_file).write_text(case.item("annotation_json"), encoding="utf-8")
        splits = READERS[annotation_file](Path(root))

    def name(record: Record) -> str:
        return record.image_path.relative_to(images).as_posix()

    def evaluation(records: tuple[Record, ...]) -> dict[str, list[object]]:
        pairs = [(record.person_id, caption) for record in records for caption in record.captions]
        return {
            "image_pids": [record.person_id for record in records],
            "img_paths": [name(record) for record in records],
            "caption_pids": [person_id for person_id, _ in pairs],
            "captions": [caption for _, caption in pairs],
        }

    label = relabel(record.person_id for record in splits.train)
    train = [
        (label[record.person_id], image_id, name(record), caption)
        for image_id, record in enumerate(splits.train)
        for caption in record.captions
    ]
    case.equal_json("out_train_json", train)
    case.equal("out_num_train_ids", len(label))
    case.equal_json("out_val_json", evaluation(splits.val))
    case.equal_json("out_test_json", evaluation(splits.test))
    case.check(splits.pair_order_is_published, "noise-index files fit the order of these pairs")
