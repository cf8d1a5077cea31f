"""Data of text-based person search: training pairs, and queries and galleries to evaluate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from crosswalk.cache_folder import cache_root
from crosswalk.data.pipeline.cache import (
    CachedImages,
    DecodedImages,
    ImageStore,
    cached_images,
    cached_tokens,
    decoded_images,
    raise_if_broken,
    refuse_folder_inside,
)
from crosswalk.data.pipeline.datasets import (
    GalleryDataset,
    PairDataset,
    PlanFactory,
    QueryDataset,
    Transform,
    check_batch_size,
    check_choice,
    height_and_width,
    known_identities,
    labelled,
    load_batches,
    records_fingerprint,
    switch,
    synthetic_folder,
    synthetic_settings,
    without_broken,
)
from crosswalk.data.pipeline.decoding import Interpolation
from crosswalk.data.pipeline.loaders import EpochLoader
from crosswalk.data.pipeline.noise import noisy_caption_index, read_noise_index
from crosswalk.data.pipeline.plans import BatchPlan, Index, SequentialBatches, shuffled_plan
from crosswalk.data.pipeline.transforms import AnyBatch, PairTransform
from crosswalk.data.readers.icfg_pedes import carve_val
from crosswalk.data.readers.records import SPLITS, Record, Splits, count
from crosswalk.distributed import rank_and_world_size
from crosswalk.types import DataSpec, PairBatch

Reader = Callable[[Path], Splits]


class Tokenizer(Protocol):
    """Turns captions into ids. One that learns its words is a `LearningTokenizer`."""

    vocabulary_size: int

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ``[captions, L]`` int64 ids, zero padded."""


@runtime_checkable
class LearningTokenizer(Protocol):
    """A tokenizer with a vocabulary made of a data set's captions.

    It has ``words`` besides: the word of each id, "" for padding.
    """

    def learn(self, captions_by_split: Mapping[str, Sequence[str]]) -> None:
        """Make the vocabulary, unless it was given one; called once."""

    def save_vocabulary(self, path: Path) -> None:
        """Write the words to a file from which such a tokenizer can be made again."""


class PhraseExtractor(Protocol):
    """Finds the noun phrases of captions."""

    def learn(self, captions: Sequence[str]) -> None:
        """Number the units that occur in ``captions``."""

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ``[captions, P]`` int64 units of each, every one once, from 1, zero padded."""


class _Table:
    """The captions and images of one split, as arrays."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.captions = _captions(records)
        numbers = [len(record.captions) for record in records]
        self.image_of_caption = np.repeat(np.arange(len(records)), numbers)
        self.person_id = np.array([record.person_id for record in records], dtype=np.int64)
        self.camera_id = np.array([record.camera_id for record in records], dtype=np.int64)


class TextToImageData(L.LightningDataModule):
    """A text-based person search data set, from its annotation to batches.

    A training sample is an image with one of its captions, in annotation order; `sample_index`
    counts these. To evaluate, all images of a split are the gallery and all its captions the
    queries. Works without a Trainer too: ``transform_batch`` does what a Trainer's transfer does.

    Args:
        reader: Reads the annotation below a folder.
        root: The data set's folder, or the one above; nothing is written there. None generates
            synthetic people below the cache folder.
        tokenizer: Makes the tokenizer, given ``context_length``. One that learns its words is
            shown the captions of all splits.
        image_size: Height and width that images are resized to.
        interpolation: Of the resizing.
        context_length: Ids per caption.
        phrases: Makes what finds the noun phrases of the training captions, for methods that
            compare them; None where none does.
        transform: Augments and normalises a batch.
        plan: Makes the training batches, given the identity of every sample; -1 if unknown.
        batch_size: Training pairs of a step, over all processes together.
        eval_batch_size: Queries or gallery images of an evaluation step, likewise.
        num_workers: Processes that load batches, per training process; 0 is none besides it.
        seed: Of the order of samples and of augmentation; not negative.
        cache: True keeps decoded images in the cache folder; False decodes them every time.
        allow_missing: True leaves out images that cannot be read; False stops with their names.
        protocol: ``val`` evaluates on val while training, ``official`` on test.
        val_person_ids: Where there is no val split and ``protocol`` is ``val``: how many train
            identities make one. None is a tenth.
        noise_rate: Share of the training captions that are exchanged, in [0, 1].
        noise_seed: Of the exchange; 1 gives the published ones.
        noise_index: File of an exchange to use instead, ``.npy``.
        sweep: What a sweep over the training set sees: ``training`` batches, shuffled and
            augmented, or ``clean`` samples in order.
        identities: Whether ``plan`` is told the identities; else it gets -1 for everybody.
        synthetic: ``size`` and ``seed`` of the synthetic people for ``root=None``.
    """

    batch_types = (PairBatch,)
    plan_labels: Callable[[], Tensor | None] | None = None
    """Gives the pseudo labels of an epoch's batches: that of the method, where it has them."""
    directions = ("text_to_image", "image_to_text")
    camera_rule = False  # a caption has no camera
    extra_map = ()

    def __init__(
        self,
        reader: Reader,
        tokenizer: Callable[..., Tokenizer],
        *,
        root: str | Path | None = None,
        image_size: Sequence[int] = (384, 128),
        interpolation: Interpolation = "bilinear",
        context_length: int = 77,
        phrases: Callable[[], PhraseExtractor] | None = None,
        transform: Transform | None = None,
        plan: PlanFactory = shuffled_plan,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 1,
        cache: bool | str = True,
        allow_missing: bool = False,
        protocol: Literal["val", "official"] = "val",
        val_person_ids: int | None = None,
        noise_rate: float = 0.0,
        noise_seed: int = 1,
        noise_index: str | Path | None = None,
        sweep: Literal["training", "clean"] = "training",
        synthetic: Mapping[str, Any] | None = None,
        identities: bool = True,
    ) -> None:
        super().__init__()
        check_choice("data.protocol", protocol, ("val", "official"))
        check_choice("data.sweep", sweep, ("training", "clean"))
        check_choice("data.interpolation", interpolation, ("bilinear", "bicubic"))
        if seed < 0:
            raise ValueError(f"seed={seed} should not be negative.")
        self.cache = switch("data.cache", cache)
        self.image_size = height_and_width(image_size, example="[384, 128]")
        self.interpolation: Interpolation = interpolation
        self.tokenizer = tokenizer(context_length=context_length)
        self.phrases = None if phrases is None else phrases()
        self.transform: Transform = PairTransform() if transform is None else transform
        _check_mask_token(self.tokenizer, self.transform)
        self.make_plan = plan
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.allow_missing = allow_missing
        self.protocol = protocol
        self.noise_rate = noise_rate
        self.noise_seed = noise_seed
        self.noise_index = noise_index
        self.sweep = sweep
        self.identities = identities
        if root is None:
            root = _synthetic_root(synthetic)
        self.splits = _read(reader, Path(root).expanduser(), protocol, val_person_ids, seed=1)
        refuse_folder_inside(cache_root(), self.splits.root)
        if isinstance(self.tokenizer, LearningTokenizer):
            # of all images, also those that cannot be read: the ids are the same everywhere
            self.tokenizer.learn({name: _captions(self.splits.split(name)) for name in SPLITS})
        self.notices = list(self.splits.notices)
        self._images: dict[str, ImageStore] = {}
        self._tables: dict[str, _Table] = {}
        self._sweep_loader: EpochLoader | None = None

    @cached_property
    def spec(self) -> DataSpec:
        """Sizes of the training set."""
        table = self._table("train")
        return DataSpec(
            num_samples=len(table.captions),
            num_images=len(table.records),
            num_person_ids=len(np.unique(table.person_id)),
            num_cameras=max(0, int(table.camera_id.max(initial=0))) + 1,
            vocabulary_size=self.tokenizer.vocabulary_size,
        )

    @property
    def is_labelled(self) -> bool:
        """Whether the identities of the training images are known; else each has its own."""
        return self.splits.train_is_labelled

    @cached_property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true labels of the training pairs' images, for analysis only.

        None where nobody knows them.
        """
        person_id = self.train_image_person_id
        return None if person_id is None else person_id[self._table("train").image_of_caption]

    @cached_property
    def train_image_person_id(self) -> Tensor | None:
        """``[num_images]`` true labels of the training images, for analysis only.

        None where nobody knows them.
        """
        if not self.is_labelled:
            return None
        return torch.from_numpy(self._table("train").person_id)

    @property
    def words(self) -> Sequence[str] | None:
        """The word of each token id, "" for padding; None where ids are pieces of words."""
        words: Sequence[str] | None = getattr(self.tokenizer, "words", None)
        return words

    @cached_property
    def caption_of_sample(self) -> Index:
        """Which caption each training sample has: its own, or another one as injected noise."""
        num_pairs = self.spec.num_samples
        if self.noise_index is not None:
            if not self.splits.pair_order_is_published:
                raise ValueError(
                    f"data.noise_index={self.noise_index} counts training pairs in the published "
                    f"order, which {self.splits.layout} does not have. Use data.noise_rate, or "
                    "the annotation file that the published code reads."
                )
            return read_noise_index(self.noise_index, num_pairs)
        return noisy_caption_index(num_pairs, self.noise_rate, seed=self.noise_seed)

    @cached_property
    def true_pairs(self) -> Tensor | None:
        """``[num_samples]`` bool, False where noise was injected; None if none was."""
        if self.noise_index is None and self.noise_rate == 0:
            return None
        return torch.from_numpy(self.caption_of_sample == np.arange(self.spec.num_samples))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all image names, identities and captions, the same on every machine."""
        return records_fingerprint(
            self.splits, self.splits.root, lambda record: (record.person_id, *record.captions)
        )

    def describe(self) -> dict[str, Any]:
        """Return what the run record says about the data, as plain values."""
        counts = {
            name: count(self._tables[name].records if name in self._tables else records)
            for name in SPLITS
            if (records := self.splits.split(name))
        }
        if not self.is_labelled:
            counts["train"]["person_ids"] = 0
        return {
            "dataset": self.splits.dataset,
            "root": str(self.splits.root),
            "layout": self.splits.layout,
            "fingerprint": self.fingerprint,
            "counts": counts,
            "labelled": self.is_labelled,
            "changed_captions": int(
                (self.caption_of_sample != np.arange(self.spec.num_samples)).sum()
            ),
            "protocol": self.protocol,
            "notices": list(self.notices),
        }

    def setup(self, stage: str) -> None:
        """Decode, or look for, everything that ``stage`` will read; broken images stop here."""
        if stage == "fit":
            self._table("train", opened=True)
        for split in self._evaluated(stage):
            self._table(split, opened=True)

    def train_dataloader(self) -> EpochLoader:
        """Return the training batches; their plan takes the labels that `plan_labels` gives."""
        return self._training_loader(self.make_plan, first_pass=0, labels=self.plan_labels)

    def sweep_dataloader(self, epoch: int) -> EpochLoader:
        """Return one pass over every training sample, for the sweep of ``epoch``.

        Its order and its augmentations are other ones than those of the epoch's training.
        """
        if self._sweep_loader is None:
            if self.sweep == "training":
                # whatever makes the training batches: a sweep takes every sample once
                self._sweep_loader = self._training_loader(shuffled_plan, first_pass=1)
            else:
                self._sweep_loader = self._clean_loader()
        self._sweep_loader.set_epoch(epoch)
        return self._sweep_loader

    def val_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self._evaluation_loaders("validate")

    def test_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self._evaluation_loaders("test")

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        """Return (split, "query" or "gallery") of each loader of ``stage``."""
        roles = ("query", "gallery")
        return [(split, role) for split in self._evaluated(stage) for role in roles]

    def num_evaluation_samples(self, split: str, role: str) -> int:
        """Return the number of captions (role "query") or images ("gallery") of a split."""
        table = self._table(split)
        return len(table.captions) if role == "query" else len(table.records)

    def evaluation_captions(self, split: str) -> list[str]:
        """Return the caption of every query, by `sample_index`."""
        return self._table(split).captions

    def evaluation_images(self, split: str) -> list[Path]:
        """Return the file of every gallery image, by `sample_index`."""
        return [record.image_path for record in self._table(split).records]

    def transform_batch(self, batch: AnyBatch) -> AnyBatch:
        """Return the batch as methods want it: augmented if it has keys, and normalised."""
        transformed: AnyBatch = self.transform(batch)
        return transformed

    def on_after_batch_transfer(self, batch: AnyBatch, dataloader_idx: int) -> AnyBatch:
        """Transform a batch on the device it has come to."""
        return self.transform_batch(batch)

    def _evaluated(self, stage: str) -> list[str]:
        """Return the splits that ``stage`` ("fit", "validate" or "test") evaluates."""
        wanted = ["val"] if stage != "test" and self.protocol == "val" else ["val", "test"]
        return [name for name in wanted if self.splits.split(name)]

    def _table(self, split: str, *, opened: bool = False) -> _Table:
        """Return the arrays of a split; its images are looked at if that can change them."""
        if opened or self.allow_missing:
            self._open(split)
        if split not in self._tables:
            self._tables[split] = _Table(labelled(split, self.splits.split(split)))
        return self._tables[split]

    def _open(self, split: str) -> ImageStore:
        """Return the images of a split, from the cache or the files."""
        if split not in self._images:
            records = self.splits.split(split)
            paths = [record.image_path for record in records]
            name = f"{self.splits.dataset} {split}"
            open_images: Callable[..., CachedImages | DecodedImages] = (
                cached_images if self.cache else decoded_images
            )
            images: ImageStore = open_images(
                paths, self.image_size, name=name, interpolation=self.interpolation
            )
            if not self.allow_missing:
                raise_if_broken(images, paths, root=self.splits.root)
            elif images.broken:
                images, records = without_broken(images, records)
                _check_not_empty(self.splits, split, records)
                self._tables[split] = _Table(labelled(split, records))
                self.notices.append(_left_out(split, self.splits.split(split), records))
            self._images[split] = images
        return self._images[split]

    def _tokens(self, split: str) -> Tensor:
        table = self._table(split)
        tokens = cached_tokens(
            table.captions,
            self.tokenizer,
            settings=_settings_of(self.tokenizer),
            name=f"{self.splits.dataset} {split}",
        )
        empty = (tokens == 0).all(dim=1).nonzero().flatten().tolist()
        if empty:
            image = table.records[table.image_of_caption[empty[0]]].image_path
            raise ValueError(
                f"{len(empty)} captions of the {split} split have no words, the first is "
                f"{table.captions[empty[0]]!r} of {image}. Remove them from the annotation, or "
                "write what is to be seen."
            )
        return tokens

    def _caption_phrases(self) -> Tensor | None:
        """Return ``[captions, P]`` noun phrases of the training captions; None without them."""
        extractor = self.phrases
        if extractor is None:
            return None

        def learn_and_extract(captions: Sequence[str]) -> Tensor:
            extractor.learn(captions)
            return extractor(captions)

        return cached_tokens(
            self._table("train").captions,
            learn_and_extract,
            settings=_settings_of(extractor),
            name=f"{self.splits.dataset} train",
            kind="phrases",
        )

    @cached_property
    def _pairs(self) -> PairDataset:
        images = self._open("train")
        table = self._table("train")
        caption = torch.from_numpy(self.caption_of_sample)
        phrases = self._caption_phrases()
        return PairDataset(
            images,
            self._tokens("train")[caption],
            image_of_sample=table.image_of_caption,
            person_id=table.person_id[table.image_of_caption],
            camera_id=table.camera_id[table.image_of_caption],
            phrases=None if phrases is None else phrases[caption],
        )

    def _training_loader(
        self,
        make_plan: PlanFactory,
        *,
        first_pass: int,
        labels: Callable[[], Tensor | None] | None = None,
    ) -> EpochLoader:
        _, world_size = rank_and_world_size()
        check_batch_size(self.batch_size, world_size)
        told = self.identities and self.is_labelled
        person_id = known_identities(self._pairs.person_id, is_labelled=told)
        plan = make_plan(person_id, batch_size=self.batch_size, seed=self.seed)
        return self._loader(self._pairs, plan, seed=self.seed, first_pass=first_pass, labels=labels)

    def _clean_loader(self) -> EpochLoader:
        plan = SequentialBatches(len(self._pairs), self.eval_batch_size)
        return self._loader(self._pairs, plan, seed=None, first_pass=1)

    def _evaluation_loaders(self, stage: str) -> list[EpochLoader]:
        loaders = []
        for split in self._evaluated(stage):
            images = self._open(split)
            table = self._table(split)
            query_person_id = table.person_id[table.image_of_caption]
            datasets = (
                QueryDataset(self._tokens(split), person_id=query_person_id),
                GalleryDataset(images, person_id=table.person_id, camera_id=table.camera_id),
            )
            for dataset in datasets:
                plan = SequentialBatches(len(dataset), self.eval_batch_size)
                # captions are ready in memory: a worker would only pass them on
                workers = self.num_workers if isinstance(dataset, GalleryDataset) else 0
                loaders.append(self._loader(dataset, plan, seed=None, num_workers=workers))
        return loaders

    def _loader(
        self,
        dataset: PairDataset | GalleryDataset | QueryDataset,
        plan: BatchPlan,
        *,
        seed: int | None,
        first_pass: int = 0,
        num_workers: int | None = None,
        labels: Callable[[], Tensor | None] | None = None,
    ) -> EpochLoader:
        return load_batches(
            dataset,
            plan,
            seed=seed,
            first_pass=first_pass,
            num_workers=self.num_workers if num_workers is None else num_workers,
            labels=labels,
        )


def _left_out(split: str, before: Sequence[Record], after: Sequence[Record]) -> str:
    images = len(before) - len(after)
    captions = count(before)["captions"] - count(after)["captions"]
    return (
        f"{split}: {images:,} of {len(before):,} images cannot be read; they and their "
        f"{captions:,} captions are left out (data.allow_missing=true)."
    )


def _read(
    reader: Reader, root: Path, protocol: str, val_person_ids: int | None, *, seed: int
) -> Splits:
    splits = reader(root)
    for name in ("train", "test"):
        _check_not_empty(splits, name, splits.split(name))
    if protocol == "val" and not splits.val:
        num_people = len({record.person_id for record in splits.train})
        wanted = max(1, num_people // 10) if val_person_ids is None else val_person_ids
        splits = carve_val(splits, wanted, seed=seed)
    return splits


def _check_not_empty(splits: Splits, name: str, records: Sequence[Record]) -> None:
    if not any(record.captions for record in records):
        raise ValueError(
            f"the {name} split of {splits.dataset} ({splits.layout}) in {splits.root} has no "
            f"pairs. Run `crosswalk data check {splits.root}`."
        )


def _synthetic_root(synthetic: Mapping[str, Any] | None) -> Path:
    defaults = {"size": "toy", "domain": "city", "seed": 0}
    settings = synthetic_settings(synthetic, defaults, config="synthetic_pairs")
    from crosswalk.synthetic.generate import GENERATOR_VERSION, synthesize_pairs

    return synthetic_folder("pairs", settings, synthesize_pairs, GENERATOR_VERSION)


def _captions(records: Sequence[Record]) -> list[str]:
    return [caption for record in records for caption in record.captions]


def _check_mask_token(tokenizer: Tokenizer, transform: Transform) -> None:
    masks = isinstance(transform, PairTransform) and transform.text_augmentation
    if masks and isinstance(tokenizer, LearningTokenizer) and not hasattr(tokenizer, "mask_id"):
        raise ValueError(
            f"data.transform.text_augmentation=true masks words, for which data.tokenizer="
            f"{type(tokenizer).__name__} has no id. Pass data.transform.text_augmentation=false."
        )


def _settings_of(numbering: Tokenizer | PhraseExtractor) -> dict[str, Any]:
    """Return what its numbers depend on: its class, its plain attributes, its words."""
    plain = {
        name: value
        for name, value in vars(numbering).items()
        if not name.startswith("_") and isinstance(value, (bool, int, float, str))
    }
    version = getattr(numbering, "version", 1)  # raised by a class that numbers otherwise
    settings = {"class": type(numbering).__qualname__, "version": version, **plain}
    words = getattr(numbering, "words", None)
    if words is not None:
        settings["words"] = hashlib.sha256("\0".join(words).encode()).hexdigest()
    return settings
