"""How training images, their captions and the gallery are numbered."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crosswalk.data.pairs import TextToImageData
from crosswalk.data.readers.own_pairs import read_own_pairs
from tests.golden.harness import Case, golden


class RowNumbers:
    """A tokenizer of captions that are numbers: the number itself, from 1."""

    vocabulary_size = 1 << 15

    def __init__(self, context_length: int) -> None:
        pass

    def __call__(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([[1 + int(caption)] for caption in captions])


@golden("cmmt", "dataset_index")
def dataset_index(case: Case) -> None:
    paths = case["paths"].tolist()
    with TemporaryDirectory() as root:
        folder = Path(root, "data")
        with mock.patch.dict(os.environ, CROSSWALK_CACHE=str(Path(root, "cache"))):
            data = _pairs(folder, paths)
            (batch,) = data.train_dataloader()

    # our samples are grouped by image: back to the order of the rows
    row = batch.tokens[:, 0] - 1
    image_index = torch.full((len(paths),), -1)
    image_index[row] = batch.image_index
    case.equal("out_image_index", image_index)
    case.equal("out_pair_index", row.sort().values)
    case.check(batch.sample_index.sort().values.tolist() == list(range(len(paths))), "each once")
    labels = torch.from_numpy(case["pseudo_labels_per_image"])
    case.equal("out_train_labels", labels[image_index])
    gallery = [
        path.relative_to(folder / "test").as_posix() for path in data.evaluation_images("test")
    ]
    unique = np.zeros(len(paths), dtype=np.int64)
    unique[[paths.index(path) for path in gallery]] = 1
    case.equal("out_unique", unique)


def _pairs(folder: Path, paths: Sequence[str]) -> TextToImageData:
    """Return data with a row per path, to train on and, with other images, to test on."""
    folder.mkdir()
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", "person_id", "split"])
        for split in ("train", "test"):
            for number, path in enumerate(paths):
                rows.writerow([f"{split}/{path}", number, 1, split])
                image = folder / split / path
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (2, 4)).save(image)
    return TextToImageData(
        read_own_pairs,
        RowNumbers,
        root=folder / "pairs.csv",
        image_size=(4, 2),
        protocol="official",
        batch_size=len(paths),
    )
