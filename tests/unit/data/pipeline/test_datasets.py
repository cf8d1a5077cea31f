from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crosswalk.data.contents import synthetic_root
from crosswalk.data.pipeline.datasets import (
    CaptionDataset,
    ImageDataset,
    OpenImages,
    PairDataset,
    ids_of,
    labelled,
    open_records,
)
from crosswalk.data.pipeline.loaders import BatchRequest
from crosswalk.data.pipeline.plans import Index
from crosswalk.data.readers.records import Record, records_fingerprint
from crosswalk.draws import sample_key


class NumberedImages:
    """Images whose every pixel is their place."""

    def __init__(self, number: int, broken: dict[int, str] | None = None) -> None:
        self.number = number
        self.broken = broken or {}

    def __len__(self) -> int:
        return self.number

    def read(self, index: Index, key: Tensor | None = None) -> Tensor:
        return torch.from_numpy(index.astype(np.uint8))[:, None, None, None].expand(-1, 3, 2, 1)


def images_of(*ids: tuple[int, int]) -> OpenImages:
    """Return as many images as there are pairs of a person and a camera."""
    records = [Record(Path(f"{n}.jpg"), *pair) for n, pair in enumerate(ids)]
    return OpenImages(records, NumberedImages(len(ids)), np.arange(len(ids)))


def request(*samples: int, seed: int | None = None) -> BatchRequest:
    return BatchRequest(np.array(samples, dtype=np.int64), seed, epoch=2, pass_=1)


def values(image: Tensor) -> list[int]:
    return image[:, 0, 0, 0].tolist()


TOKENS = torch.tensor([[9, 7, 0], [9, 5, 7], [9, 0, 0], [9, 4, 0]])
PHRASES = torch.tensor([[1, 2], [0, 0], [2, 0], [3, 1]])


@pytest.mark.parametrize("samples", [(3, 0, 3), (1,), ()])
def test_a_pair_batch_holds_the_image_caption_and_ids_of_each_sample(
    samples: tuple[int, ...],
) -> None:
    dataset = PairDataset(
        images_of((12, 2), (14, 4), (11, 1)), TOKENS, image_of_sample=np.array([2, 0, 0, 1])
    )

    batch = dataset.__getitems__(request(*samples, seed=6))

    assert values(batch.image) == [[2, 0, 0, 1][n] for n in samples]
    assert batch.image_index.tolist() == [[2, 0, 0, 1][n] for n in samples]
    assert batch.phrases is None
    assert batch.tokens.tolist() == [TOKENS[n].tolist() for n in samples]
    assert batch.length.tolist() == [[2, 3, 1, 2][n] for n in samples]
    assert batch.person_id.tolist() == [[11, 12, 12, 14][n] for n in samples]
    assert batch.camera_id.tolist() == [[1, 2, 2, 4][n] for n in samples]
    assert batch.sample_index.tolist() == list(samples)
    assert torch.equal(batch.key, sample_key(6, 2, 1, batch.sample_index))
    assert len(dataset) == 4


def test_a_batch_knows_the_global_batch_that_it_is_a_part_of() -> None:
    pairs = PairDataset(
        images_of((12, 2), (14, 4), (11, 1)),
        TOKENS,
        image_of_sample=np.array([2, 0, 0, 1]),
        phrases=PHRASES,
    )
    images = ImageDataset(images_of((7, 2), (5, 2), (7, 1)))
    captions = CaptionDataset(TOKENS, person_id=np.array([5, 6, 7, 8]))
    part = request(2, 0)._replace(whole=np.array([1, 2, 0, 1]), start=1)

    of_pairs, of_images, of_captions = (
        dataset.__getitems__(part).whole for dataset in (pairs, images, captions)
    )

    assert {name: np.array(column).tolist() for name, column in of_pairs._asdict().items()} == {
        "start": 1,
        "sample_index": [1, 2, 0, 1],
        "image_index": [0, 0, 2, 0],
        "person_id": [12, 12, 11, 12],
        "camera_id": [2, 2, 1, 2],
        "length": [3, 1, 2, 3],
        "phrases": [[0, 0], [2, 0], [1, 2], [0, 0]],
    }
    assert of_images.image_index.tolist() == [1, 2, 0, 1]
    assert of_images.camera_id.tolist() == [2, 1, 2, 2]
    assert of_images.length is None
    assert of_captions.length.tolist() == [3, 1, 2, 3]
    assert of_captions.person_id.tolist() == [6, 7, 5, 6]


@pytest.mark.parametrize("samples", [(3, 0, 3), (1,), ()])
def test_a_pair_batch_holds_the_phrases_of_each_caption(samples: tuple[int, ...]) -> None:
    dataset = PairDataset(
        images_of((0, 1), (1, 1), (2, 1)),
        TOKENS,
        image_of_sample=np.array([2, 0, 0, 1]),
        phrases=PHRASES,
    )

    batch = dataset.__getitems__(request(*samples, seed=6))

    assert batch.phrases.tolist() == [PHRASES[n].tolist() for n in samples]


@pytest.mark.parametrize("samples", [(2, 0), ()])
def test_a_gallery_batch_holds_the_image_and_ids_of_each_sample(samples: tuple[int, ...]) -> None:
    dataset = ImageDataset(images_of((7, 2), (5, 2), (7, 1)))

    batch = dataset.__getitems__(request(*samples))

    assert values(batch.image) == list(samples)
    assert batch.person_id.tolist() == [[7, 5, 7][n] for n in samples]
    assert batch.camera_id.tolist() == [[2, 2, 1][n] for n in samples]
    assert batch.sample_index.tolist() == list(samples)
    assert batch.key is None
    assert len(dataset) == 3


def test_a_caption_batch_has_no_camera() -> None:
    batch = CaptionDataset(TOKENS, person_id=np.array([5, 6, 7, 8])).__getitems__(request(3, 1))

    assert batch.tokens.tolist() == [[9, 4, 0], [9, 5, 7]]
    assert batch.length.tolist() == [2, 3]
    assert batch.person_id.tolist() == [8, 6]
    assert batch.camera_id.tolist() == [-1, -1]
    assert batch.sample_index.tolist() == [3, 1]


def test_images_that_cannot_be_read_are_left_out_with_their_records() -> None:
    records = [Record(Path(f"{n}.jpg"), n, 1, ("one", "two")) for n in range(5)]
    numbered = NumberedImages(5, {0: "missing", 3: "empty"})

    images = open_records("test", records, lambda _: numbered, allow_missing=True, root=Path())

    assert [record.person_id for record in images.records] == [1, 2, 4]
    dataset = ImageDataset(images)
    assert values(dataset.__getitems__(request(2, 0, 2)).image) == [4, 1, 4]
    assert len(dataset) == 3
    assert images.notices == (
        "test: 2 of 5 images cannot be read; they and their 4 captions are left out "
        "(data.allow_missing=true).",
    )


def test_all_images_may_be_left_out() -> None:
    numbered = NumberedImages(1, {0: "missing"})

    images = open_records(
        "query", [Record(Path("0.jpg"), 0)], lambda _: numbered, allow_missing=True, root=Path()
    )

    assert len(ImageDataset(images)) == 0


def test_only_training_records_are_labelled_from_zero() -> None:
    records = [Record(Path(f"{n}.jpg"), n, n) for n in (30, 7, 30, 12)]

    assert ids_of(labelled("train", records))[0].tolist() == [2, 0, 2, 1]
    assert ids_of(labelled("gallery", records))[0].tolist() == [30, 7, 30, 12]
    assert ids_of(labelled("train", records))[1].tolist() == [30, 7, 30, 12]
    assert ids_of([])[0].dtype == np.int64


def test_the_fingerprint_follows_names_splits_facts_and_order() -> None:
    def fingerprint(*names: str, split: str = "train", camera: int = 1, root: str = "a") -> str:
        records = [(split, Record(Path(root, name), 3, camera)) for name in names]
        return records_fingerprint(records, Path(root), lambda r: (r.person_id, r.camera_id))

    same = {fingerprint("x.jpg", "y.jpg"), fingerprint("x.jpg", "y.jpg", root="b/c")}
    others = {
        fingerprint("y.jpg", "x.jpg"),
        fingerprint("x.jpg"),
        fingerprint("x.jpg", "y.jpg", split="query"),
        fingerprint("x.jpg", "y.jpg", camera=2),
    }

    assert len(same) == 1
    assert len(same | others) == 5
    assert len(same.pop()) == 16


def test_synthetic_people_are_made_once_below_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path))
    made: list[dict[str, Any]] = []

    def synthesize(folder: Path, **settings: object) -> None:
        made.append(settings)
        (folder / "image.jpg").touch()

    folders = [
        synthetic_root("images", {"size": size, "seed": 3}, synthesize, version)
        for size, version in (("toy", 2), ("toy", 2), ("full", 2), ("toy", 3))
    ]

    assert [folder.relative_to(tmp_path / "synthetic").as_posix() for folder in folders] == [
        "images-market1501-toy-3-v2",
        "images-market1501-toy-3-v2",
        "images-market1501-full-3-v2",
        "images-market1501-toy-3-v3",
    ]
    layout = {"layout": "market1501"}
    assert made == [{**layout, "size": size, "seed": 3} for size in ("toy", "full", "toy")]
    assert all((folder / "image.jpg").exists() for folder in folders)


def test_settings_of_synthetic_people_have_defaults_and_known_names() -> None:
    with pytest.raises(ValueError, match=r"no \['sed'\]; its keys are layout, size and seed"):
        synthetic_root("images", {"sed": 5}, print, 1)
    with pytest.raises(ValueError, match=r"data\.root is missing.*data=synthetic_images"):
        synthetic_root("images", None, print, 1)
