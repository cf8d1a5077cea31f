"""What data sets hold, as their annotations say it: people, images and captions by sample index.

No image is opened here, and neither torch nor what makes batches is imported, which takes seconds:
reports of finished runs want to know nothing else of their data.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosswalk.cache_folder import build_once, cache_root
from crosswalk.data.pipeline.noise import noisy_caption_index, read_noise_index
from crosswalk.data.readers.icfg_pedes import carve_val
from crosswalk.data.readers.records import (
    ImageSplits,
    Record,
    Splits,
    fingerprint,
    place_to_check,
    records_fingerprint,
    refuse_outside,
)
from crosswalk.data.readers.val_split import carve_val_images
from crosswalk.files import refuse_inside
from crosswalk.ranges import Count, Seed, Share
from crosswalk.synthetic.settings import (
    GENERATOR_VERSION,
    IMAGE_GENERATOR_VERSION,
    settings_of,
)
from crosswalk.words import no_root

SplitsT = TypeVar("SplitsT", Splits, ImageSplits)

PARTS = {
    ("test", "query"): "query",
    ("test", "gallery"): "gallery",
    ("val", "query"): "val_query",
    ("val", "gallery"): "val_gallery",
}
"""Where the records of a split and a role are."""


class Contents(Generic[SplitsT]):
    """The records of a data set, and what reports of runs show of them.

    Args:
        found: What the reader found.
        splits: What is trained on and evaluated: with people held out of training, if any are.
        allow_outside: Whether images may lie outside the data set's folder.
    """

    directions: tuple[str, ...]

    def __init__(self, found: SplitsT, splits: SplitsT, *, allow_outside: bool) -> None:
        if not allow_outside:
            refuse_outside(splits)
        self.found: SplitsT = found
        self.splits: SplitsT = splits

    @property
    def people(self) -> Mapping[int, str]:
        """What the data call the people of `splits`, by number; none where it is the number."""
        return self.splits.people

    @cached_property
    def fingerprint(self) -> str:
        """Of annotation and files, before people were held out; the doctor prints the same."""
        return fingerprint(self.found)

    def is_fingerprint(self, stored: str) -> bool:
        """Return whether a run's fingerprint is that of these data.

        Those of earlier releases, of 16 digits, knew names and ids, but no sizes of files.
        """
        if len(stored) == len(self.fingerprint):
            return stored == self.fingerprint
        return stored == records_fingerprint(self.splits, self.splits.root, self.facts)

    def evaluation_images(self, split: str) -> list[Path]:
        """Return the file of every gallery image, by `sample_index`."""
        return [record.image_path for record in self.splits.split(self.part(split, "gallery"))]

    @abstractmethod
    def part(self, split: str, role: str) -> str:
        """Return which part has the images of a split with role "query" or "gallery"."""

    @abstractmethod
    def facts(self, record: Record) -> Sequence[object]:
        """Return what of a record is in the earlier fingerprint, beside its name."""


class PairContents(Contents[Splits]):
    """What a text-based person search data set holds.

    Arguments are those of `crosswalk.data.pairs.TextToImageData`.
    """

    directions = ("text_to_image", "image_to_text")

    def __init__(
        self,
        reader: Callable[[Path], Splits],
        *,
        root: str | Path | None = None,
        allow_outside: bool = False,
        protocol: Literal["val", "official"] = "val",
        val_person_ids: Count | None = None,
        noise_rate: Share = 0.0,
        noise_seed: Seed = 1,
        noise_index: str | Path | None = None,
        synthetic: Mapping[str, Any] | None = None,
    ) -> None:
        folder = _synthetic_pairs(synthetic) if root is None else Path(root).expanduser()
        found = _read_pairs(reader, folder)
        splits = _with_val(found, protocol, val_person_ids)
        super().__init__(found, splits, allow_outside=allow_outside)
        self.noise_rate = noise_rate
        self.noise_seed = noise_seed
        self.noise_index = noise_index

    @property
    def caption_of_sample(self) -> NDArray[np.int64]:
        """Which caption each training sample has: its own, or another one as injected noise."""
        return self.exchanged(len(self.evaluation_captions("train")))

    @property
    def true_pairs(self) -> NDArray[np.bool_] | None:
        """``[num_samples]`` bool, False where noise was injected; None if none was."""
        index = self.caption_of_sample
        return index == np.arange(len(index)) if self.has_noise else None

    @property
    def has_noise(self) -> bool:
        """Whether captions are exchanged."""
        return self.noise_index is not None or self.noise_rate != 0

    def exchanged(self, num_pairs: int) -> NDArray[np.int64]:
        """Return which caption each of so many training pairs has."""
        if self.noise_index is not None:
            if not self.splits.pair_order_is_published:
                raise ValueError(
                    f"data.noise_index={self.noise_index} counts training pairs in the published "
                    f"order, which {self.splits.layout} does not have. Use data.noise_rate, or "
                    "the annotation file that the published code reads."
                )
            return read_noise_index(self.noise_index, num_pairs)
        return noisy_caption_index(num_pairs, self.noise_rate, seed=self.noise_seed)

    def evaluation_captions(self, split: str) -> list[str]:
        """Return the caption of every query, by `sample_index`."""
        return texts_of(self.splits.split(split))

    def part(self, split: str, role: str) -> str:
        """Return the split: each has images and captions."""
        return split

    def facts(self, record: Record) -> Sequence[object]:
        """Return the person and the captions."""
        return record.person_id, *record.captions


class ImageContents(Contents[ImageSplits]):
    """What an image re-identification data set holds.

    Arguments are those of `crosswalk.data.images.ImageToImageData`.
    """

    directions = ("image_to_image",)

    def __init__(
        self,
        reader: Callable[[Path], ImageSplits],
        *,
        root: str | Path | None = None,
        allow_outside: bool = False,
        protocol: Literal["last", "val", "official"] = "last",
        val_person_ids: Count | None = None,
        camera_rule: bool = True,
        synthetic: Mapping[str, Any] | None = None,
    ) -> None:
        folder = _synthetic_images(synthetic) if root is None else Path(root).expanduser()
        found = _read_images(reader, folder)
        splits = _with_val_images(found, protocol, val_person_ids, camera_rule)
        super().__init__(found, splits, allow_outside=allow_outside)

    def evaluation_queries(self, split: str) -> list[Path]:
        """Return the file of every query image, by `sample_index`."""
        return [record.image_path for record in self.splits.split(self.part(split, "query"))]

    def part(self, split: str, role: str) -> str:
        """Return the part of a split and a role."""
        return PARTS[split, role]

    def facts(self, record: Record) -> Sequence[object]:
        """Return the person and the camera."""
        return record.person_id, record.camera_id


class TransferContents:
    """What a labelled source and an unlabelled target hold; the target is evaluated.

    Arguments are those of `crosswalk.data.transfer.SourceTargetData`.
    """

    directions = ImageContents.directions

    def __init__(
        self,
        source: Callable[..., ImageContents],
        target: Callable[..., ImageContents],
        *,
        root: str | Path | None = None,
        allow_outside: bool = False,
        protocol: Literal["last", "val", "official"] = "last",
        val_person_ids: Count | None = None,
        camera_rule: bool = True,
    ) -> None:
        common = {"root": root, "allow_outside": allow_outside, "camera_rule": camera_rule}
        self.source = source(**missing(source, common), protocol="last")
        of_target = {**common, "val_person_ids": val_person_ids}
        self.target = target(**missing(target, of_target), protocol=protocol)
        check_source(self.source.splits, self.target.splits)
        self.people = self.target.people
        self.evaluation_images = self.target.evaluation_images
        self.evaluation_queries = self.target.evaluation_queries

    def is_fingerprint(self, stored: str) -> bool:
        """Return whether a run's fingerprint is that of both sets."""
        source, _, target = stored.partition("-")
        return self.source.is_fingerprint(source) and self.target.is_fingerprint(target)


def _read_pairs(reader: Callable[[Path], Splits], root: Path) -> Splits:
    splits = reader(root)
    refuse_cache_inside(splits, root)
    if splits.dataset == "own pairs":  # may be for training alone
        check_not_empty(splits, "train or test", (*splits.train, *splits.test))
    else:  # for evaluation alone; `config.data_kinds.check_data` looks at what is trained on
        check_not_empty(splits, "test", splits.test)
    return splits


def _with_val(splits: Splits, protocol: str, val_person_ids: int | None) -> Splits:
    """Return the splits with people held out of training where a val split is needed."""
    if protocol == "val" and splits.train and not splits.val:
        num_people = len({record.person_id for record in splits.train})
        wanted = max(1, num_people // 10) if val_person_ids is None else val_person_ids
        # the same people in every run, whatever its seed
        return carve_val(splits, wanted, seed=1)
    unused = _unused(protocol, val_person_ids, has_val=bool(splits.val))
    return replace(splits, notices=(*splits.notices, *unused))


def _unused(protocol: str, val_person_ids: int | None, *, has_val: bool) -> list[str]:
    """Return why a number of people that are to be held out is not used, if it is given."""
    why = "the data have a val split" if has_val else "there is no training set"
    if protocol != "val":
        why = f"protocol={protocol} trains on all"
    given = val_person_ids is not None
    return [f"data.val_person_ids={val_person_ids} is not used: {why}."] if given else []


def _synthetic_pairs(synthetic: Mapping[str, Any] | None) -> Path:
    def synthesize(folder: Path, **settings: Any) -> None:  # noqa: ANN401
        from crosswalk.synthetic.generate import synthesize_pairs

        synthesize_pairs(folder, **settings)

    return synthetic_root("pairs", synthetic, synthesize, GENERATOR_VERSION)


def _read_images(reader: Callable[[Path], ImageSplits], root: Path) -> ImageSplits:
    splits = reader(root)
    refuse_cache_inside(splits, root)
    for parts in (("query", "gallery"), ("val_query", "val_gallery")):
        if any(splits.split(name) for name in parts):
            for name in parts:
                check_not_empty(splits, name, splits.split(name))
    return splits


def _with_val_images(
    splits: ImageSplits, protocol: str, val_person_ids: int | None, camera_rule: bool
) -> ImageSplits:
    """Return the splits with people held out of training where a val split is needed."""
    if protocol == "val" and splits.train and not splits.val_query:
        # the same people in every run, whatever its seed
        return carve_val_images(splits, val_person_ids, seed=1, camera_rule=camera_rule)
    unused = _unused(protocol, val_person_ids, has_val=bool(splits.val_query))
    return replace(splits, notices=(*splits.notices, *unused))


def _synthetic_images(synthetic: Mapping[str, Any] | None) -> Path:
    def synthesize(folder: Path, **settings: Any) -> None:  # noqa: ANN401
        from crosswalk.synthetic.images import synthesize_images

        synthesize_images(folder, **settings)

    return synthetic_root("images", synthetic, synthesize, IMAGE_GENERATOR_VERSION)


def texts_of(records: Sequence[Record]) -> list[str]:
    """Return the captions of records, in order."""
    return [caption for record in records for caption in record.captions]


def refuse_cache_inside(splits: Splits | ImageSplits, given: Path) -> None:
    """Raise an error if the cache folder lies in that of the data set found at ``given``."""
    images = (record.image_path for _, record in splits)
    refuse_inside(cache_root(), splits.root, images, "CROSSWALK_CACHE", given=given)


def check_not_empty(splits: Splits | ImageSplits, name: str, records: Sequence[Record]) -> None:
    """Raise an error if a part of a data set has no images, or none with a caption."""
    pairs = isinstance(splits, Splits)
    if any(record.captions or not pairs for record in records):
        return
    raise ValueError(
        f"{splits.dataset} ({splits.layout}) in {splits.root} has no {name} "
        f"{'pairs' if pairs else 'images'}. Run `crosswalk data check "
        f"{quote(str(place_to_check(splits)))}`."
    )


def synthetic_root(
    kind: Literal["pairs", "images"],
    given: Mapping[str, Any] | None,
    synthesize: Callable[..., object],
    version: int,
) -> Path:
    """Return the folder of a generated set below the cache folder, made where it is missing.

    Args:
        kind: What it holds.
        given: ``data.synthetic``; None where nothing is to be generated.
        synthesize: Writes the set; takes the folder and the settings.
        version: Of the generator; another one gives another folder.

    Raises:
        ValueError: If there is neither a folder nor anything to generate, or as `settings_of`.
    """
    if given is None:
        raise ValueError(no_root(kind))
    settings = settings_of(kind, given)
    name = "-".join([kind, *map(str, settings.values())])
    folder = cache_root() / "synthetic" / f"{name}-v{version}"
    build_once(folder, lambda unfinished: synthesize(unfinished, **settings))
    return folder


def check_source(source: ImageSplits, target: ImageSplits) -> None:
    """Raise an error if a source has no labels, or shares images with the target."""
    if not source.train_is_labelled:
        raise ValueError(
            f"The source in {source.root} has training images without person ids, and what it "
            "teaches are its labels. Pass data.source.root=<a labelled set>; a set without labels "
            "can be the target."
        )
    if source.root.resolve() != target.root.resolve():
        return
    # two tables of one folder may name different images
    trained = {_below(source.root, record) for record in source.train}
    of_target = {_below(target.root, record) for _, record in target}
    if shared := len(trained & of_target):
        raise ValueError(
            f"data.source.root and data.target.root lead to one data set, {source.root} (source: "
            f"{source.dataset}, target: {target.dataset}): {shared:,} of {len(trained):,} images "
            "of the source are the target's too, so it would be trained with its own labels. "
            "Pass data.source.root=<folder of the source> and data.target.root=<folder of the "
            "target>."
        )


def _below(root: Path, record: Record) -> Path:
    """Return the image as it is named from ``root``, however that is written."""
    path = record.image_path
    return path.relative_to(root) if path.is_relative_to(root) else path


def missing(factory: Callable[..., object], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a set does not have of its own."""
    own = factory.keywords if isinstance(factory, functools.partial) else {}
    return {name: value for name, value in settings.items() if own.get(name) is None}
