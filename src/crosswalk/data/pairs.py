"""Data of text-based person search: training pairs, and queries and galleries to evaluate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from crosswalk.data.base import PlanFactory, RecordedData, Switch
from crosswalk.data.contents import PairContents, texts_of
from crosswalk.data.pipeline.cache import cached_tokens
from crosswalk.data.pipeline.datasets import CaptionDataset, ImageDataset, PairDataset, ids_of
from crosswalk.data.pipeline.decoding import Interpolation
from crosswalk.data.pipeline.plans import Index, shuffled_plan
from crosswalk.data.pipeline.preprocessing import Preprocessing, preprocessing_by
from crosswalk.data.pipeline.transforms import AnyBatch, PairTransform
from crosswalk.data.readers.records import SPLITS, Record, Splits, count
from crosswalk.ranges import Count, ImageSize, Seed, Share, TokenCount, Workers
from crosswalk.types import DataSpec, PairBatch
from crosswalk.words import counted

Transform = Callable[[Any], Any]
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


class _Captions(NamedTuple):
    """The captions of one split, and which image each describes."""

    texts: list[str]
    image: Index


class TextToImageData(RecordedData[Splits]):
    """A text-based person search data set, from its annotation to batches.

    A training sample is an image with one of its captions, in annotation order; `sample_index`
    counts these. To evaluate, all images of a split are the gallery and all its captions the
    queries. Arguments that are not listed here are those of `RecordedData`.

    Args:
        reader: Reads the annotation below a folder.
        tokenizer: Makes the tokenizer, given ``context_length``. One that learns its words is
            shown the captions of all splits.
        root: The data set's folder, or the one above; nothing is written there. None generates
            synthetic people below the cache folder.
        context_length: Ids per caption.
        phrases: Makes what finds the noun phrases of the training captions, for methods that
            compare them; None where none does.
        transform: Augments and normalises a batch.
        protocol: ``val`` evaluates on val while training, ``official`` on test.
        val_person_ids: Where there is no val split and ``protocol`` is ``val``: how many train
            identities make one. None is a tenth.
        noise_rate: Share of the training captions that are exchanged, in [0, 1].
        noise_seed: Of the exchange; 1 gives the published ones.
        noise_index: File of an exchange to use instead, ``.npy``.
        synthetic: ``size``, ``domain`` and ``seed`` of the synthetic people for ``root=None``.
    """

    batch_types = (PairBatch,)
    gives: ClassVar = {"tokenizer": ("context_length",)}
    """What the tokenizer is given, and cannot have of its own."""
    contents: PairContents
    directions = PairContents.directions
    without_test = "val"
    camera_rule = False  # a caption has no camera
    extra_map = ()
    names = SPLITS
    keeps_sweep_loader = True  # RDE sweeps in every epoch

    def __init__(
        self,
        reader: Reader,
        tokenizer: Callable[..., Tokenizer],
        *,
        root: str | Path | None = None,
        image_size: ImageSize = (384, 128),
        interpolation: Interpolation = "bilinear",
        context_length: TokenCount = 77,
        phrases: Callable[[], PhraseExtractor] | None = None,
        transform: Transform | None = None,
        plan: PlanFactory = shuffled_plan,
        batch_size: Count = 64,
        eval_batch_size: Count = 256,
        num_workers: Workers = 0,
        seed: Seed = 1,
        cache: Switch = True,
        allow_missing: bool = False,
        allow_outside: bool = False,
        protocol: Literal["val", "official"] = "val",
        val_person_ids: Count | None = None,
        noise_rate: Share = 0.0,
        noise_seed: Seed = 1,
        noise_index: str | Path | None = None,
        sweep: Literal["training", "clean"] = "training",
        synthetic: Mapping[str, Any] | None = None,
        identities: bool = True,
    ) -> None:
        contents = PairContents(
            reader,
            root=root,
            allow_outside=allow_outside,
            protocol=protocol,
            val_person_ids=val_person_ids,
            noise_rate=noise_rate,
            noise_seed=noise_seed,
            noise_index=noise_index,
            synthetic=synthetic,
        )
        super().__init__(
            contents,
            image_size=image_size,
            interpolation=interpolation,
            plan=plan,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            cache=cache,
            allow_missing=allow_missing,
            protocol=protocol,
            sweep=sweep,
            identities=identities,
        )
        self.tokenizer = tokenizer(context_length=context_length)
        self.phrases = None if phrases is None else phrases()
        self.transform: Transform = PairTransform() if transform is None else transform
        _check_mask_token(self.tokenizer, self.transform)
        if isinstance(self.tokenizer, LearningTokenizer):
            # of all images, also those that cannot be read: the ids are the same everywhere
            self.tokenizer.learn({name: contents.evaluation_captions(name) for name in SPLITS})
        self._captions_of: dict[str, _Captions] = {}

    @cached_property
    def spec(self) -> DataSpec:
        """Sizes of the training set."""
        return replace(
            super().spec,
            num_samples=len(self._captions("train").texts),
            vocabulary_size=self.tokenizer.vocabulary_size,
        )

    @cached_property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true labels of the training pairs' images, for analysis only.

        None where nobody knows them.
        """
        person_id = self.train_image_person_id
        return None if person_id is None else person_id[self._captions("train").image]

    @cached_property
    def caption_of_sample(self) -> Index:
        """Which caption each training sample has: its own, or another one as injected noise."""
        return self.contents.exchanged(self.spec.num_samples)

    @cached_property
    def true_pairs(self) -> Tensor | None:
        """``[num_samples]`` bool, False where noise was injected; None if none was."""
        if not self.contents.has_noise:
            return None
        return torch.from_numpy(self.caption_of_sample == np.arange(self.spec.num_samples))

    def num_evaluation_samples(self, split: str, role: str) -> int:
        """Return the number of captions (role "query") or images ("gallery") of a split."""
        if role == "query":
            return len(self.evaluation_captions(split))
        return super().num_evaluation_samples(split, role)

    def evaluation_captions(self, split: str) -> list[str]:
        """Return the caption of every query, by `sample_index`."""
        return self._captions(split).texts

    def prepare_training(self) -> None:
        """Decode, or look for, the training images, and tokenise their captions."""
        super().prepare_training()
        _ = self._samples

    def prepare_evaluation(self) -> None:
        """Decode, or look for, all images that are evaluated, and tokenise their captions."""
        super().prepare_evaluation()
        for split, role in self.evaluation_roles("test"):
            if role == "query":
                self._tokens(split)

    def transform_batch(self, batch: AnyBatch) -> AnyBatch:
        """Return the batch as methods want it: augmented if it has keys, and normalised."""
        transformed: AnyBatch = self.transform(batch)
        return transformed

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to images before a model sees them, augmentation aside."""
        return preprocessing_by(self.transform, self.image_size, self.interpolation)

    def _counts(self, records: Sequence[Record]) -> dict[str, int]:
        return count(records)

    def _description(self) -> dict[str, Any]:
        changed = self.caption_of_sample != np.arange(self.spec.num_samples)
        return {"changed_captions": int(changed.sum())}

    def _captions(self, split: str) -> _Captions:
        if split not in self._captions_of:
            records = self._records(split)
            numbers = [len(record.captions) for record in records]
            image = np.repeat(np.arange(len(records)), numbers)
            self._captions_of[split] = _Captions(texts_of(records), image)
        return self._captions_of[split]

    def _tokens(self, split: str) -> Tensor:
        captions = self._captions(split)
        tokens = cached_tokens(
            captions.texts,
            self.tokenizer,
            settings=_settings_of(self.tokenizer),
            name=f"{self.splits.dataset} {split}",
        )
        empty = (tokens == 0).all(dim=1).nonzero().flatten().tolist()
        if empty:
            image = self.evaluation_images(split)[captions.image[empty[0]]]
            raise ValueError(
                f"{counted(len(empty), 'caption')} of the {split} split without words, the first "
                f"is {captions.texts[empty[0]]!r} of {image}. Remove them from the annotation, or "
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
            self._captions("train").texts,
            learn_and_extract,
            settings=_settings_of(extractor),
            name=f"{self.splits.dataset} train",
            kind="phrases",
        )

    @cached_property
    def _samples(self) -> PairDataset:
        images = self._opened("train")
        caption = torch.from_numpy(self.caption_of_sample)
        phrases = self._caption_phrases()
        return PairDataset(
            images,
            self._tokens("train")[caption],
            image_of_sample=self._captions("train").image,
            phrases=None if phrases is None else phrases[caption],
        )

    def _evaluation_dataset(self, split: str, role: str) -> CaptionDataset | ImageDataset:
        if role == "gallery":
            return super()._evaluation_dataset(split, role)
        person_id, _ = ids_of(self._opened(split).records)
        return CaptionDataset(self._tokens(split), person_id[self._captions(split).image])


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
