"""Datasets that build whole batches, and what the data modules share to make and load them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from crosswalk.cache_folder import build_once, cache_root
from crosswalk.data.pipeline.cache import ImageStore
from crosswalk.data.pipeline.decoding import Size
from crosswalk.data.pipeline.loaders import BatchDataset, BatchRequest, EpochLoader
from crosswalk.data.pipeline.plans import BatchPlan, Index
from crosswalk.data.pipeline.transforms import token_length
from crosswalk.data.readers.records import Record, relabel
from crosswalk.types import ImageBatch, PairBatch, TextBatch

Transform = Callable[[Any], Any]


class PlanFactory(Protocol):
    """Makes the batches of training samples with the given identities, -1 where unknown."""

    def __call__(self, person_id: Index, *, batch_size: int, seed: int) -> BatchPlan:
        """Return the plan."""


class _Captions:
    """Tokens with the number of ids of each caption."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.length = token_length(tokens)


class PairDataset:
    """Training pairs, built in whole batches."""

    def __init__(
        self,
        images: ImageStore,
        tokens: Tensor,
        *,
        image_of_sample: Index,
        person_id: Index,
        camera_id: Index,
        phrases: Tensor | None = None,
    ) -> None:
        self.images = images
        self.captions = _Captions(tokens)
        self.phrases = phrases
        self.image_of_sample = image_of_sample
        self.person_id = torch.from_numpy(person_id)
        self.camera_id = torch.from_numpy(camera_id)

    def __len__(self) -> int:
        return len(self.image_of_sample)

    def __getitems__(self, request: BatchRequest) -> PairBatch:
        index = torch.from_numpy(request.sample_index)
        image_index = self.image_of_sample[request.sample_index]
        return PairBatch(
            image=self.images.read(image_index),
            tokens=self.captions.tokens[index],
            length=self.captions.length[index],
            person_id=self.person_id[index],
            camera_id=self.camera_id[index],
            sample_index=index,
            image_index=torch.from_numpy(image_index),
            phrases=None if self.phrases is None else self.phrases[index],
            key=request.key(),
        )


class QueryDataset:
    """Captions of one split, built in whole batches. A caption has no camera: it is -1."""

    def __init__(self, tokens: Tensor, *, person_id: Index) -> None:
        self.captions = _Captions(tokens)
        self.person_id = torch.from_numpy(person_id)

    def __len__(self) -> int:
        return len(self.person_id)

    def __getitems__(self, request: BatchRequest) -> TextBatch:
        index = torch.from_numpy(request.sample_index)
        return TextBatch(
            tokens=self.captions.tokens[index],
            length=self.captions.length[index],
            person_id=self.person_id[index],
            camera_id=torch.full_like(index, -1),
            sample_index=index,
        )


class GalleryDataset:
    """Images of one split, built in whole batches; queries too where they are images."""

    def __init__(self, images: ImageStore, *, person_id: Index, camera_id: Index) -> None:
        self.images = images
        self.person_id = torch.from_numpy(person_id)
        self.camera_id = torch.from_numpy(camera_id)

    def __len__(self) -> int:
        return len(self.person_id)

    def _read(self, request: BatchRequest) -> Tensor:
        return self.images.read(request.sample_index)

    def __getitems__(self, request: BatchRequest) -> ImageBatch:
        index = torch.from_numpy(request.sample_index)
        return ImageBatch(
            image=self._read(request),
            person_id=self.person_id[index],
            camera_id=self.camera_id[index],
            sample_index=index,
            key=request.key(),
        )


class SomeImages:
    """The images of a store at given places, for instance those that can be read."""

    def __init__(self, images: ImageStore, places: Index) -> None:
        self.images = images
        self.places = places
        self.broken: Mapping[int, str] = {}

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: Index) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8 images."""
        return self.images.read(self.places[index])


def without_broken(
    images: ImageStore, records: Sequence[Record]
) -> tuple[SomeImages, tuple[Record, ...]]:
    """Return the images that can be read, with their records.

    Example:
        >>> from crosswalk.data.pipeline.cache import DecodedImages
        >>> paths = [Path("a.jpg"), Path("b.jpg")]
        >>> images = DecodedImages(paths, (4, 2), broken={0: "missing"})
        >>> images, records = without_broken(images, [Record(path, 3) for path in paths])
        >>> len(images), records[0].image_path
        (1, PosixPath('b.jpg'))
    """
    places = [place for place in range(len(records)) if place not in images.broken]
    kept = tuple(records[place] for place in places)
    return SomeImages(images, np.array(places, dtype=np.int64)), kept


def ids_of(records: Sequence[Record]) -> tuple[Index, Index]:
    """Return the person ids and the camera ids.

    Example:
        >>> ids_of([Record(Path("a.jpg"), 3, camera_id=1), Record(Path("b.jpg"), 5, camera_id=2)])
        (array([3, 5]), array([1, 2]))
    """
    return (
        np.array([record.person_id for record in records], dtype=np.int64),
        np.array([record.camera_id for record in records], dtype=np.int64),
    )


def labelled(split: str, records: Sequence[Record]) -> Sequence[Record]:
    """Return training records with person ids 0..C-1; others keep those of the file.

    Example:
        >>> [record.person_id for record in labelled("train", [Record(Path("a.jpg"), 7)])]
        [0]
    """
    if split != "train":
        return records
    labels = relabel(record.person_id for record in records)
    return [replace(record, person_id=labels[record.person_id]) for record in records]


def known_identities(person_id: Tensor, *, is_labelled: bool) -> Index:
    """Return the identities of training samples for a plan: -1 of all where nobody knows them.

    Example:
        >>> known_identities(torch.tensor([0, 1]), is_labelled=False).tolist()
        [-1, -1]
    """
    return person_id.numpy() if is_labelled else np.full(len(person_id), -1)


def records_fingerprint(
    splits: Iterable[tuple[str, Record]], root: Path, facts: Callable[[Record], Sequence[object]]
) -> str:
    """Return a hash of all image names and of ``facts`` of them, the same on every machine.

    Example:
        >>> splits = [("train", Record(Path("data/a.jpg"), 3))]
        >>> moved = [("train", Record(Path("elsewhere/a.jpg"), 3))]
        >>> facts = lambda record: [record.person_id]
        >>> one = records_fingerprint(splits, Path("data"), facts)
        >>> one == records_fingerprint(moved, Path("elsewhere"), facts)
        True
    """
    digest = hashlib.sha256()
    for name, record in splits:
        image = record.image_path
        if image.is_relative_to(root):
            image = image.relative_to(root)
        digest.update(json.dumps([name, image.as_posix(), *facts(record)]).encode())
    return digest.hexdigest()[:16]


def load_batches(
    dataset: BatchDataset[Any],
    plan: BatchPlan,
    *,
    seed: int | None,
    first_pass: int = 0,
    num_workers: int,
    labels: Callable[[], Tensor | None] | None = None,
) -> EpochLoader:
    """Return the loader of a data module; its batches are pinned where there is a GPU."""
    return EpochLoader(
        dataset,
        plan,
        seed=seed,
        first_pass=first_pass,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        labels=labels,
    )


def check_batch_size(batch_size: int, world_size: int) -> None:
    """Raise an error if a batch has fewer samples than there are processes.

    Example:
        >>> check_batch_size(64, world_size=4)
    """
    if batch_size < world_size:
        raise ValueError(
            f"data.batch_size={batch_size} does not split over {world_size} processes: it counts "
            f"the samples of all of them. Use at least {world_size}, or fewer processes "
            "(trainer.devices)."
        )


def synthetic_folder(
    kind: str,
    settings: Mapping[str, Any],
    synthesize: Callable[..., object],
    version: int,
) -> Path:
    """Return the folder of a generated set below the cache folder, made where it is missing.

    Args:
        kind: What it holds: ``pairs`` or ``images``.
        settings: What to generate, from `synthetic_settings`.
        synthesize: Writes the set; takes the folder and the settings.
        version: Of the generator; another one gives another folder.
    """
    name = "-".join([kind, *map(str, settings.values())])
    folder = cache_root() / "synthetic" / f"{name}-v{version}"
    build_once(folder, lambda unfinished: synthesize(unfinished, **settings))
    return folder


def synthetic_settings(
    given: Mapping[str, Any] | None, defaults: Mapping[str, Any], config: str
) -> dict[str, Any]:
    """Return ``data.synthetic`` with its defaults.

    Args:
        given: The configured values; None where nothing is to be generated.
        defaults: Every key with its default.
        config: A configuration that generates people, for the message.

    Raises:
        ValueError: If there is neither a folder nor anything to generate, or an unknown key.

    Example:
        >>> synthetic_settings({"size": "full"}, {"size": "toy", "seed": 0}, "synthetic_pairs")
        {'size': 'full', 'seed': 0}
    """
    if given is None:
        raise ValueError(
            "data.root is missing. Pass data.root=<folder of the data set>, or train on generated "
            f"people with data={config}."
        )
    if unknown := given.keys() - defaults.keys():
        *most, last = defaults
        raise ValueError(
            f"data.synthetic has no {sorted(unknown)}; its keys are {', '.join(most)} and {last}."
        )
    return {**defaults, **given}


def height_and_width(size: Sequence[int], example: str) -> Size:
    """Return ``data.image_size`` as a pair.

    Example:
        >>> height_and_width([384, 128], example="[384, 128]")
        (384, 128)
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(
            f"data.image_size={list(size)} should be [height, width], for instance {example}."
        )
    return int(size[0]), int(size[1])


def switch(key: str, value: bool | str) -> bool:
    """Return a switch; ``on`` and ``off`` are words on the command line, booleans in YAML.

    Example:
        >>> switch("data.cache", "on"), switch("data.cache", False)
        (True, False)
    """
    if isinstance(value, bool):
        return value
    if value in ("on", "off"):
        return value == "on"
    raise ValueError(f"{key}={value} should be on or off.")


def check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise an error if a value is none of those that there are.

    Example:
        >>> check_choice("data.sweep", "clean", ("training", "clean"))
    """
    if value not in choices:
        raise ValueError(f"{key}={value} does not exist. There are: {', '.join(choices)}.")
