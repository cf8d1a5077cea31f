import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crosswalk.cli import main
from crosswalk.data import base
from crosswalk.data.pairs import TextToImageData
from crosswalk.data.pipeline import loaders
from crosswalk.data.pipeline.decoding import BrokenImagesError
from crosswalk.data.pipeline.noise import noisy_caption_index
from crosswalk.data.pipeline.plans import ShuffledBatches, identity_plan
from crosswalk.data.pipeline.transforms import PairTransform
from crosswalk.data.readers.own_pairs import read_own_pairs
from crosswalk.data.readers.records import Record, Splits, fingerprint, records_fingerprint
from crosswalk.draws import sample_key
from crosswalk.types import DataSpec, ImageBatch, PairBatch, TextBatch

PEOPLE = {"train": (30, 7, 12, 9, 41), "val": (3, 5), "test": (2, 8, 6)}
CAPTIONS = (2, 1, 3)  # of the images of each person


class LetterTokenizer:
    """Start, a number per letter, end."""

    vocabulary_size = 49408

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length

    def __call__(self, captions: Sequence[str]) -> Tensor:
        tokens = torch.zeros(len(captions), self.context_length, dtype=torch.int64)
        for row, caption in zip(tokens, captions, strict=True):
            ids = [49406, *(ord(letter) for letter in caption), 49407][: self.context_length]
            row[: len(ids)] = torch.tensor(ids)
        return tokens


class WordLearner:
    """A number per word, in the order in which `learn` saw them; counts what it is asked."""

    calls: ClassVar[list[str]] = []

    def __init__(self, context_length: int, vocabulary: Sequence[str] = ()) -> None:
        self.context_length = context_length
        self._words = ("", *vocabulary)
        self.learned: list[dict[str, list[str]]] = []

    @property
    def words(self) -> tuple[str, ...]:
        return self._words

    @property
    def vocabulary_size(self) -> int:
        return len(self._words)

    def learn(self, captions_by_split: Mapping[str, Sequence[str]]) -> None:
        self.learned.append({name: list(texts) for name, texts in captions_by_split.items()})
        if len(self._words) == 1:
            words = [
                w for texts in captions_by_split.values() for text in texts for w in text.split()
            ]
            self._words = ("", *dict.fromkeys(words))

    def save_vocabulary(self, path: Path) -> None:
        path.write_text(" ".join(self._words))

    def __call__(self, captions: Sequence[str]) -> Tensor:
        self.calls.append(f"{len(captions)} captions")
        tokens = torch.zeros(len(captions), self.context_length, dtype=torch.int64)
        for row, caption in zip(tokens, captions, strict=True):
            ids = [self._words.index(word) for word in caption.split()]
            row[: len(ids)] = torch.tensor(ids)
        return tokens


class FirstWord:
    """A phrase extractor: the first word of a caption, numbered from 1 as learned."""

    calls: ClassVar[list[str]] = []

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._numbers: dict[str, int] = {}

    def learn(self, captions: Sequence[str]) -> None:
        self.calls.append(f"learn {len(captions)} {self.prefix}".strip())
        for caption in captions:
            self._numbers.setdefault(caption.split()[0], len(self._numbers) + 1)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([[self._numbers[caption.split()[0]], 0] for caption in captions])


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    number = 0
    for people in PEOPLE.values():
        for person in people:
            for _ in CAPTIONS:
                pixels = np.full((40, 20, 3), (person, number, 7), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
                number += 1
    return folder


def read(root: Path) -> Splits:
    splits: dict[str, list[Record]] = {}
    number = 0
    for name, people in PEOPLE.items():
        splits[name] = []
        for person in people:
            for camera, captions in enumerate(CAPTIONS):
                text = tuple(f"{number} {place}" for place in range(captions))
                splits[name].append(Record(root / f"{number}.png", person, camera, text))
                number += 1
    parts = {name: tuple(records) for name, records in splits.items()}
    return Splits(dataset="tiny", root=root, layout="tiny.json", **parts)


def read_without_val(root: Path) -> Splits:
    return replace(read(root), val=())


def make_data(
    root: Path, reader: Callable[[Path], Splits] = read, **options: object
) -> TextToImageData:
    return TextToImageData(
        reader,
        **{
            "root": root,
            "tokenizer": LetterTokenizer,
            "image_size": (12, 4),
            "context_length": 9,
            "batch_size": 8,
            **options,
        },
    )


def test_sizes_count_samples_images_people_and_cameras(root: Path) -> None:
    data = make_data(root)

    assert data.spec == DataSpec(
        num_samples=30, num_images=15, num_person_ids=5, num_cameras=3, vocabulary_size=49408
    )


def expected_samples(root: Path) -> list[tuple[int, int, int, str]]:
    """Return image number, label, camera and caption of each training sample, in order."""
    samples = []
    for record in read(root).train:
        label = sorted(PEOPLE["train"]).index(record.person_id)
        for caption in record.captions:
            samples.append((int(record.image_path.stem), label, record.camera_id, caption))
    return samples


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cache", [True, "off"])
def test_training_batches_hold_image_caption_identity_and_key_of_each_sample(
    root: Path, num_workers: int, cache: bool | str
) -> None:
    data = make_data(root, num_workers=num_workers, cache=cache, seed=5)
    loader = data.train_dataloader()
    loader.set_epoch(3)
    samples = expected_samples(root)
    tokenizer = LetterTokenizer(9)

    batches = list(loader)

    plan = ShuffledBatches(30, 8, seed=5)
    plan.set_epoch(3)
    assert [b.sample_index.tolist() for b in batches] == [b.tolist() for b in plan]
    for batch in batches:
        assert isinstance(batch, PairBatch)
        assert torch.equal(batch.key, sample_key(5, 3, 0, batch.sample_index))
        for row, index in enumerate(batch.sample_index.tolist()):
            number, label, camera, caption = samples[index]
            assert batch.image[row, 1].eq(number).all()
            assert batch.image.shape[1:] == (3, 12, 4)
            assert torch.equal(batch.tokens[row], tokenizer([caption])[0])
            assert batch.length[row].item() == len(caption) + 2
            assert batch.person_id[row].item() == label
            assert batch.camera_id[row].item() == camera


def test_noise_moves_captions_and_nothing_else(root: Path) -> None:
    data = make_data(root, noise_rate=0.5)
    (batch,) = make_data(root, noise_rate=0.5, batch_size=30).train_dataloader()
    samples = expected_samples(root)
    index = noisy_caption_index(30, 0.5, seed=1)

    for row, sample in enumerate(batch.sample_index.tolist()):
        assert torch.equal(batch.tokens[row], LetterTokenizer(9)([samples[index[sample]][3]])[0])
        assert batch.image[row, 1].eq(samples[sample][0]).all()
        assert batch.person_id[row].item() == samples[sample][1]
    assert data.true_pairs is not None
    assert data.true_pairs.tolist() == [index[i] == i for i in range(30)]
    assert data.describe()["changed_captions"] == sum(index != np.arange(30))


def all_captions(splits: Splits, name: str) -> list[str]:
    return [caption for record in splits.split(name) for caption in record.captions]


def make_word_data(root: Path, **options: object) -> TextToImageData:
    """Return data whose tokenizer learns its words; captions stay as they are."""
    transform = PairTransform(text_augmentation=False)
    return make_data(root, **{"tokenizer": WordLearner, "transform": transform, **options})


def test_a_tokenizer_learns_the_captions_of_all_splits_once(root: Path) -> None:
    data = make_word_data(root)
    for split in ("fit", "test"):
        data.setup(split)

    assert data.tokenizer.learned == [
        {name: all_captions(read(root), name) for name in ("train", "val", "test")}
    ]
    assert data.tokenizer.words[:4] == ("", "0", "1", "2")
    assert data.spec.vocabulary_size == len(data.tokenizer.words)


def test_a_vocabulary_does_not_depend_on_images_that_cannot_be_read(root: Path) -> None:
    words = make_word_data(root).tokenizer.words
    (root / "0.png").write_bytes(b"")

    assert make_word_data(root, allow_missing=True).tokenizer.words == words


def test_tokens_of_another_vocabulary_are_made_anew(root: Path) -> None:
    WordLearner.calls.clear()
    known = [str(number) for number in range(99)]
    for vocabulary in ((), known, (), known[::-1]):
        data = make_word_data(root, tokenizer=partial(WordLearner, vocabulary=vocabulary))
        (queries, _) = data.val_dataloader()
        captions = all_captions(read(root), "val")
        (batch,) = queries
        assert torch.equal(batch.tokens, data.tokenizer(captions))

    # each time once for the comparison; the third vocabulary's are in the cache
    assert WordLearner.calls == ["12 captions"] * (4 + 3)


def test_masking_is_refused_where_the_vocabulary_has_no_mask(root: Path) -> None:
    with pytest.raises(ValueError, match=r"text_augmentation=true masks words.*WordLearner"):
        make_data(root, tokenizer=WordLearner)


@pytest.mark.parametrize("noise_rate", [0.0, 0.5])
def test_phrases_are_those_of_each_samples_caption(root: Path, noise_rate: float) -> None:
    data = make_data(root, noise_rate=noise_rate, batch_size=30, phrases=FirstWord)
    (batch,) = data.train_dataloader()
    samples = expected_samples(root)
    first_words = list(dict.fromkeys(caption.split()[0] for *_, caption in samples))
    index = noisy_caption_index(30, noise_rate, seed=1)

    for row, sample in enumerate(batch.sample_index.tolist()):
        word = samples[index[sample]][3].split()[0]
        assert batch.phrases[row].tolist() == [first_words.index(word) + 1, 0]
    assert (index != np.arange(30)).any() == (noise_rate > 0)


def test_phrases_are_found_once_per_settings_of_what_finds_them(root: Path) -> None:
    FirstWord.calls.clear()
    for prefix in ("a", "b", "a"):
        data = make_data(root, phrases=partial(FirstWord, prefix=prefix))
        for _ in range(2):
            next(iter(data.train_dataloader()))

    assert FirstWord.calls == ["learn 30 a", "learn 30 b"]


def test_without_an_extractor_there_are_no_phrases(root: Path) -> None:
    assert next(iter(make_data(root).train_dataloader())).phrases is None


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_resized_as_told(root: Path, cache: bool, interpolation: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "24.png")  # the first of the test split
    data = make_data(root, interpolation=interpolation, cache=cache)
    gallery = data.test_dataloader()[3]

    (batch,) = gallery

    resampling = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = Image.fromarray(pixels).resize((4, 12), resampling[interpolation])
    place = data.evaluation_images("test").index(root / "24.png")
    assert torch.equal(batch.image[place].permute(1, 2, 0), torch.from_numpy(np.array(expected)))


def test_every_training_image_has_the_label_of_its_samples(root: Path) -> None:
    data = make_data(root, batch_size=30)
    (batch,) = data.train_dataloader()

    labels = data.train_image_person_id

    assert labels.tolist() == [
        sorted(PEOPLE["train"]).index(record.person_id) for record in read(root).train
    ]
    assert torch.equal(labels[batch.image_index], batch.person_id)
    for row, sample in enumerate(batch.sample_index.tolist()):
        assert batch.image_index[row].item() == expected_samples(root)[sample][0]


def unlabelled(root: Path) -> Splits:
    splits = read(root)
    train = tuple(replace(record, person_id=50 + n) for n, record in enumerate(splits.train))
    return replace(splits, train=train, train_is_labelled=False)


def test_nobody_knows_the_people_of_unlabelled_pairs(root: Path) -> None:
    data = make_data(root, unlabelled)

    batch = next(iter(data.train_dataloader()))

    assert (make_data(root).is_labelled, data.is_labelled) == (True, False)
    assert data.train_person_id is None
    assert data.train_image_person_id is None
    assert torch.equal(batch.person_id, batch.image_index)  # captions of one image stay together
    assert data.spec == DataSpec(
        num_samples=30, num_images=15, num_person_ids=15, num_cameras=3, vocabulary_size=49408
    )
    description = data.describe()
    assert description["labelled"] is False
    assert description["counts"]["train"] == {"person_ids": 0, "images": 15, "captions": 30}
    assert description["counts"]["test"]["person_ids"] == 3


def test_unlabelled_pairs_are_not_batched_by_identity(root: Path) -> None:
    plan = partial(identity_plan, samples_per_person=2)
    data = make_data(root, unlabelled, plan=plan)

    with pytest.raises(ValueError, match=r"data\.plan=identity_plan .* has no person ids"):
        next(iter(data.train_dataloader()))
    assert len(make_data(root, plan=plan).train_dataloader()) == 30 // 8


@pytest.mark.parametrize("splits", [read, unlabelled])
def test_plans_see_no_identities_that_the_method_does_not_need(
    root: Path, splits: Callable[[Path], Splits]
) -> None:
    told: list[list[int]] = []

    def plan(person_id: NDArray[np.int64], *, batch_size: int, seed: int) -> ShuffledBatches:
        told.append(person_id.tolist())
        return ShuffledBatches(len(person_id), batch_size, seed)

    data = make_data(root, splits, plan=plan, identities=False)
    data.train_dataloader()

    assert told == [[-1] * 30]


@pytest.mark.parametrize("sweep", ["training", "clean"])
def test_batches_by_identity_follow_the_labels_of_the_method(root: Path, sweep: str) -> None:
    plan = partial(identity_plan, samples_per_person=2)
    data = make_data(root, plan=plan, batch_size=4, identities=False, sweep=sweep)
    labels = torch.arange(30) % 7 - 1  # every seventh pair is an outlier
    data.plan_labels = lambda: labels

    batches = [batch.sample_index for batch in data.train_dataloader()]
    swept = torch.cat([batch.sample_index for batch in data.sweep_dataloader(0)])

    assert len(batches) == 30 // 4
    for index in batches:
        assert labels[index].unique(return_counts=True)[1].tolist() == [2, 2]
        assert labels[index].min() >= 0
    assert sorted(swept.tolist()) == list(range(30))


def test_no_people_can_be_held_out_of_unlabelled_pairs(root: Path) -> None:
    def without_val(root: Path) -> Splits:
        return replace(unlabelled(root), val=())

    with pytest.raises(ValueError, match=r"pairs of tiny .* no person ids.*protocol=official"):
        make_data(root, without_val, protocol="val")
    assert make_data(root, without_val, protocol="official").evaluation_roles("fit")
    assert make_data(root, unlabelled, protocol="val").num_evaluation_samples("val", "query") == 12


def test_noise_may_come_from_a_file(root: Path, tmp_path: Path) -> None:
    index = np.roll(np.arange(30), 1)
    np.save(tmp_path / "noise.npy", index)

    data = make_data(root, noise_index=tmp_path / "noise.npy")

    assert np.array_equal(data.caption_of_sample, index)
    assert not data.true_pairs.any()


def test_a_noise_file_is_refused_where_pairs_have_another_order(root: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.arange(30))
    data = make_data(
        root,
        reader=lambda root: replace(read(root), pair_order_is_published=False),
        noise_index=tmp_path / "noise.npy",
    )

    with pytest.raises(ValueError, match=r"data\.noise_index.*tiny\.json"):
        data.train_dataloader()


def test_the_advice_beside_a_broken_image_names_the_table_where_a_folder_has_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "own pictures"
    folder.mkdir()
    rows = "".join(f"{number}.jpg,A man.,{number},train\n" for number in range(3))
    for name in ("first.csv", "second.csv"):
        (folder / name).write_text(f"image,caption,person_id,split\n{rows}")
    data = make_data(folder / "second.csv", reader=read_own_pairs, protocol="official")

    with pytest.raises(BrokenImagesError) as caught:
        data.prepare_training()
    (command,) = re.findall("`crosswalk (.*?)`", str(caught.value))

    assert main(shlex.split(command)) == 1
    assert "3 images are missing" in capsys.readouterr().out


def test_without_noise_nobody_knows_which_pairs_are_true(root: Path) -> None:
    assert make_data(root).true_pairs is None


@pytest.mark.parametrize(
    ("protocol", "stage", "splits"),
    [
        ("val", "validate", ["val"]),
        ("val", "test", ["val", "test"]),
        ("official", "validate", ["val", "test"]),
        ("official", "test", ["val", "test"]),
    ],
)
def test_evaluation_has_a_query_and_a_gallery_loader_per_split(
    root: Path, protocol: str, stage: str, splits: list[str]
) -> None:
    data = make_data(root, protocol=protocol, eval_batch_size=4)
    loaders = data.val_dataloader() if stage == "validate" else data.test_dataloader()

    roles = data.evaluation_roles(stage)

    assert roles == [(split, role) for split in splits for role in ("query", "gallery")]
    for loader, (split, role) in zip(loaders, roles, strict=True):
        batches = list(loader)
        kind = TextBatch if role == "query" else ImageBatch
        assert all(isinstance(batch, kind) for batch in batches)
        index = torch.cat([batch.sample_index for batch in batches])
        assert index.tolist() == list(range(data.num_evaluation_samples(split, role)))


def test_queries_and_gallery_keep_the_person_ids_of_the_file(root: Path) -> None:
    data = make_data(root)
    records = read(root).test

    query, gallery = (list(loader) for loader in data.test_dataloader()[2:])

    assert gallery[0].person_id.tolist() == [record.person_id for record in records]
    assert gallery[0].camera_id.tolist() == [record.camera_id for record in records]
    assert gallery[0].key is None
    assert gallery[0].image[:, 1, 0, 0].tolist() == [int(r.image_path.stem) for r in records]
    owners = [record.person_id for record in records for _ in record.captions]
    assert query[0].person_id.tolist() == owners
    assert query[0].camera_id.tolist() == [-1] * len(owners)
    captions = [caption for record in records for caption in record.captions]
    assert torch.equal(query[0].tokens, LetterTokenizer(9)(captions))
    assert data.evaluation_captions("test") == captions
    assert data.evaluation_images("test") == [record.image_path for record in records]


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_evaluation_is_cut_without_padding(
    root: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        monkeypatch.setattr(loaders, "rank_and_world_size", lambda r=rank: (r, world_size))
        gallery = make_data(root, eval_batch_size=4).test_dataloader()[3]
        for batch in gallery:
            seen += batch.sample_index.tolist()

    assert sorted(seen) == list(range(9))


def test_more_processes_than_pairs_in_a_batch_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "rank_and_world_size", lambda: (0, 9))

    with pytest.raises(ValueError, match=r"data\.batch_size=8 does not split over 9 processes"):
        make_data(root).train_dataloader()


def test_a_sweep_sees_every_sample_in_an_order_of_its_own(root: Path) -> None:
    data = make_data(root, seed=2)

    for epoch in (0, 1):
        batches = list(data.sweep_dataloader(epoch))
        index = torch.cat([batch.sample_index for batch in batches])
        plan = ShuffledBatches(30, 8, seed=2)
        plan.set_epoch(epoch, 1)
        assert index.tolist() == np.concatenate(list(plan)).tolist()
        assert torch.equal(batches[0].key, sample_key(2, epoch, 1, batches[0].sample_index))


def test_a_repeated_sweep_of_an_epoch_is_the_same(root: Path) -> None:
    data = make_data(root)

    first = [batch.sample_index.tolist() for batch in data.sweep_dataloader(4)]

    assert [batch.sample_index.tolist() for batch in data.sweep_dataloader(4)] == first


def test_a_clean_sweep_is_in_order_and_without_keys(root: Path) -> None:
    batches = list(make_data(root, sweep="clean", eval_batch_size=7).sweep_dataloader(0))

    assert torch.cat([batch.sample_index for batch in batches]).tolist() == list(range(30))
    assert [batch.key for batch in batches] == [None] * 5


def test_another_plan_may_make_the_batches(root: Path) -> None:
    plan = partial(identity_plan, samples_per_person=4)
    batches = list(make_data(root, plan=plan).train_dataloader())

    for batch in batches:
        assert batch.person_id.unique(return_counts=True)[1].tolist() == [4, 4]


def test_batches_are_augmented_with_keys_and_normalised_without(root: Path) -> None:
    data = make_data(root, transform=PairTransform(padding=1))
    batch = next(iter(data.train_dataloader()))
    gallery = next(iter(data.test_dataloader()[3]))

    assert torch.equal(data.transform_batch(batch).image, PairTransform(padding=1)(batch).image)
    assert torch.equal(data.transform_batch(gallery).image, PairTransform()(gallery).image)


def test_broken_images_stop_before_the_first_step(root: Path) -> None:
    (root / "3.png").unlink()
    (root / "20.png").write_bytes(b"")  # of the test split

    with pytest.raises(
        BrokenImagesError, match=r"1 of 15 images cannot be read:\n.*3\.png: missing"
    ):
        make_data(root).setup("fit")
    with pytest.raises(BrokenImagesError, match=r"1 of 9 images .*\n.*20\.png: missing|empty"):
        make_data(root).setup("test")


@pytest.mark.parametrize("cache", [True, False])
def test_broken_images_may_be_left_out(root: Path, cache: bool) -> None:
    for number in (0, 1, 2, 5):  # every image of person 30, and one with three captions
        (root / f"{number}.png").write_bytes(b"")
    data = make_data(root, allow_missing=True, cache=cache)

    assert data.spec == DataSpec(
        num_samples=21, num_images=11, num_person_ids=4, num_cameras=3, vocabulary_size=49408
    )
    data.setup("fit")
    samples = [s for s in expected_samples(root) if s[0] not in (0, 1, 2, 5)]
    labels = {7: 0, 9: 1, 12: 2, 41: 3}
    (batch,) = make_data(root, allow_missing=True, batch_size=30).train_dataloader()
    for row, index in enumerate(batch.sample_index.tolist()):
        number, _, camera, caption = samples[index]
        assert batch.image[row, 1].eq(number).all()
        assert torch.equal(batch.tokens[row], LetterTokenizer(9)([caption])[0])
        assert batch.person_id[row].item() == labels[PEOPLE["train"][number // 3]]
        assert batch.camera_id[row].item() == camera
    assert data.describe()["counts"]["train"] == {"person_ids": 4, "images": 11, "captions": 21}
    assert data.notices == [
        "train: 4 of 15 images cannot be read; they and their 9 captions are left out "
        "(data.allow_missing=true)."
    ]


def test_a_val_split_is_carved_from_train_where_there_is_none(root: Path) -> None:
    data = make_data(root, reader=read_without_val, val_person_ids=2)

    assert data.spec.num_person_ids == 3
    assert data.num_evaluation_samples("val", "gallery") == 6
    assert data.evaluation_roles("validate") == [("val", "query"), ("val", "gallery")]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "the data have a val split"),
        ({"reader": read_without_val, "protocol": "official"}, "protocol=official trains on all"),
    ],
)
def test_a_number_of_people_to_hold_out_that_is_not_used_is_said(
    root: Path, options: dict[str, Any], why: str
) -> None:
    with_number = make_data(root, val_person_ids=2, **options)

    assert with_number.spec == make_data(root, **options).spec
    assert with_number.notices == [f"data.val_person_ids=2 is not used: {why}."]


def test_the_official_protocol_carves_nothing(root: Path) -> None:
    data = make_data(root, reader=read_without_val, protocol="official")

    assert data.spec.num_person_ids == 5
    assert data.evaluation_roles("validate") == [("test", "query"), ("test", "gallery")]


def test_nothing_is_written_into_the_data_sets_folder(root: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in root.iterdir())
    data = make_data(root, noise_rate=0.5)
    data.setup("fit")
    list(data.train_dataloader())

    assert sorted((path.name, path.stat().st_mtime_ns) for path in root.iterdir()) == before


def test_a_cache_inside_the_data_set_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(root / "cache"))

    with pytest.raises(ValueError, match="lies inside the data set's folder"):
        make_data(root)


def test_the_description_is_plain_and_the_fingerprint_follows_the_annotation(root: Path) -> None:
    data = make_data(root)
    description = data.describe()

    assert json.loads(json.dumps(description)) == description
    assert description["counts"]["test"] == {"person_ids": 3, "images": 9, "captions": 18}
    assert data.fingerprint == make_data(root, seed=9, noise_rate=0.5).fingerprint
    assert data.fingerprint != make_data(root, reader=read_without_val).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (384,)}, r"data\.image_size=\[384\] should be \[height, width\]"),
        ({"seed": -1}, r"seed=-1 should not be negative"),
        ({"root": None}, r"data\.root is missing"),
    ],
)
def test_wrong_settings_are_named(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data(**{"root": root, **options})


def test_an_empty_split_is_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"tiny \(tiny\.json\) in .* has no test pairs"):
        make_data(root, reader=lambda root: replace(read(root), test=()))


@pytest.mark.parametrize("kept", ["train", "test"])
def test_own_pairs_may_be_for_training_or_for_evaluation_alone(root: Path, kept: str) -> None:
    splits = read(root)
    empty = {name: () for name in ("train", "val", "test") if name != kept}
    data = make_data(root, reader=lambda root: replace(splits, dataset="own pairs", **empty))

    data.setup("fit" if kept == "train" else "test")

    evaluated = "val" if kept == "train" else "test"  # people held out of training
    assert data.evaluation_roles("test") == [(evaluated, "query"), (evaluated, "gallery")]
    assert (data.spec.num_samples > 0) == (kept == "train")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_caption_without_words_stops_before_the_first_step(root: Path, split: str) -> None:
    data = make_data(root)
    last = len(data.evaluation_captions(split)) - 1

    def tokenize(captions: list[str]) -> Tensor:
        tokens = torch.ones((len(captions), 3), dtype=torch.int64)
        if list(captions) == data.evaluation_captions(split):
            tokens[last] = 0
        return tokens

    tokenize.vocabulary_size = 2  # type: ignore[attr-defined]
    data.tokenizer = tokenize  # type: ignore[assignment]

    with pytest.raises(ValueError, match=f"1 caption of the {split} split without words"):
        data.setup("fit")


def test_files_of_another_size_are_other_data_and_old_fingerprints_are_known(root: Path) -> None:
    data = make_data(root)
    assert data.fingerprint == fingerprint(data.contents.found)
    earlier = records_fingerprint(data.splits, data.splits.root, data.contents.facts)
    path = data.splits.train[0].image_path
    path.write_bytes(path.read_bytes() + b"\0")

    changed = make_data(root)

    assert data.is_fingerprint(data.fingerprint)
    assert not changed.is_fingerprint(data.fingerprint)
    assert (len(earlier), changed.is_fingerprint(earlier)) == (16, True)  # without sizes
    assert not changed.is_fingerprint("0" * 16)


def test_a_trainer_transforms_batches_on_their_way(root: Path) -> None:
    class Recorder(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.images: list[Tensor] = []
            self.evaluated: list[str] = []

        def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
            self.images.append(batch.image)
            return self.weight * 0

        def validation_step(
            self, batch: NamedTuple, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            self.evaluated.append(type(batch).__name__)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    method, data = Recorder(), make_data(root)
    L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(method, datamodule=data)

    loader = make_data(root).train_dataloader()
    expected = [PairTransform()(batch).image for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(method.images, expected, strict=True))
    assert method.evaluated == ["TextBatch", "ImageBatch"]


def test_a_caption_without_words_stops_the_run_before_it_starts(root: Path) -> None:
    def read_with_a_gap(folder: Path) -> Splits:
        splits = read(folder)
        first, *rest = splits.val
        return replace(splits, val=(replace(first, captions=(" ",)), *rest))

    data = make_data(
        root,
        read_with_a_gap,
        tokenizer=WordLearner,
        transform=PairTransform(text_augmentation=False),
    )

    with pytest.raises(ValueError, match=r"1 caption of the val split without words.*' ' of "):
        data.val_dataloader()


def test_images_outside_the_folder_are_refused_unless_allowed(root: Path, tmp_path: Path) -> None:
    def read_moved(folder: Path) -> Splits:
        return replace(read(folder), root=tmp_path / "elsewhere")

    with pytest.raises(ValueError, match=r"images outside its folder.*data\.allow_outside=true"):
        make_data(root, read_moved)

    assert make_data(root, read_moved, allow_outside=True).spec == make_data(root).spec
