"""Records with their images, and datasets that build whole batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from crosswalk.data.pipeline.decoding import BrokenImagesError
from crosswalk.data.pipeline.loaders import BatchRequest
from crosswalk.data.pipeline.plans import Index
from crosswalk.data.pipeline.stores import ImageStore
from crosswalk.data.pipeline.transforms import token_length
from crosswalk.data.readers.camstyle import CamStyleFiles
from crosswalk.data.readers.records import Record, count, relabel
from crosswalk.draws import keyed_uniform
from crosswalk.types import ImageBatch, PairBatch, TextBatch, WholeBatch
from crosswalk.words import counted

CAMERA_STREAM = 9  # of the keyed draws; those of the augmentations have numbers of their own


class OpenImages(NamedTuple):
    """The images of a split as they are read.

    Attributes:
        records: Those that can be read; with labels 0..C-1 in training.
        images: All images and, behind them, all camera-style images.
        place: Where among them each record's own image is.
        styled: ``[records, cameras]`` where each record is in the style of each camera, its own
            image for its own camera; None without such images.
        notices: What was left out, whole sentences.
    """

    records: Sequence[Record]
    images: ImageStore
    place: Index
    styled: Index | None = None
    notices: tuple[str, ...] = ()


def open_records(
    name: str,
    records: Sequence[Record],
    open_images: Callable[[Sequence[Path]], ImageStore],
    *,
    allow_missing: bool,
    root: Path,
    camstyle: CamStyleFiles | None = None,
) -> OpenImages:
    """Return the records of a split with their images.

    Args:
        name: Of the split.
        records: As a reader gives them.
        open_images: Opens a list of files.
        allow_missing: Whether to leave out records whose image cannot be read; where only an
            image in another camera's style cannot, the own image stands in for it.
        root: The data set's folder, for messages.
        camstyle: Where the camera-style images are; None without them.

    Raises:
        BrokenImagesError: If images cannot be read and none may be missing.
    """
    paths = [record.image_path for record in records]
    styled = None
    if camstyle is not None:
        styled, style_paths = _styled_places(camstyle, records)
        paths += style_paths
    images = open_images(paths)
    if images.broken and not allow_missing:
        problems = {paths[place]: why for place, why in images.broken.items()}
        raise BrokenImagesError(problems, len(paths), root)
    broken = np.isin(np.arange(len(paths)), list(images.broken))
    place = np.flatnonzero(~broken[: len(records)])
    notices = []
    if len(place) < len(records):
        kept = [records[index] for index in place.tolist()]
        notices.append(_left_out(name, records, kept))
        records = kept
    if styled is not None:
        styled = np.where(broken[styled], np.arange(len(styled))[:, None], styled)[place]
        if number := broken[len(broken) - len(style_paths) :].sum():
            notices.append(
                f"{name}: {number:,} of {len(style_paths):,} camera-style images cannot be read; "
                "the images themselves stand in for them (data.allow_missing=true)."
            )
    return OpenImages(labelled(name, records), images, place, styled, tuple(notices))


def _left_out(name: str, before: Sequence[Record], after: Sequence[Record]) -> str:
    captions = count(before)["captions"] - count(after)["captions"]
    lost = len(before) - len(after)
    alone, owner = ("it is", "it and its") if lost == 1 else ("they are", "they and their")
    which = f"{owner} {counted(captions, 'caption')} are" if captions else alone
    return (
        f"{name}: {lost:,} of {len(before):,} images cannot be read; {which} left out "
        "(data.allow_missing=true)."
    )


def _styled_places(files: CamStyleFiles, records: Sequence[Record]) -> tuple[Index, list[Path]]:
    """Return ``[records, cameras]`` places and the files of the camera-style images.

    The files' places follow those of the records.
    """
    paths: list[Path] = []
    places = np.empty((len(records), files.num_cameras), dtype=np.int64)
    for row, record in enumerate(records):
        for camera_id in range(1, files.num_cameras + 1):
            if camera_id == record.camera_id:
                places[row, camera_id - 1] = row
            else:
                places[row, camera_id - 1] = len(records) + len(paths)
                paths.append(files.path(record, camera_id))
    return places, paths


class PairDataset:
    """Training pairs, built in whole batches.

    Args:
        images: The training images.
        tokens: ``[samples, L]`` of the caption of each pair.
        image_of_sample: ``[samples]`` record of the image of each pair.
        phrases: ``[samples, P]`` noun phrases of the caption, or None.
    """

    def __init__(
        self,
        images: OpenImages,
        tokens: Tensor,
        *,
        image_of_sample: Index,
        phrases: Tensor | None = None,
    ) -> None:
        self.images = images
        self.tokens, self.length = tokens, token_length(tokens)
        self.phrases = phrases
        self.image_of_sample = image_of_sample
        person_id, camera_id = ids_of(images.records)
        self.person_id = torch.from_numpy(person_id[image_of_sample])
        self.camera_id = torch.from_numpy(camera_id[image_of_sample])

    def __len__(self) -> int:
        return len(self.image_of_sample)

    def __getitems__(self, request: BatchRequest) -> PairBatch:
        index = torch.from_numpy(request.sample_index)
        image_index = self.image_of_sample[request.sample_index]
        return PairBatch(
            image=self.images.images.read(self.images.place[image_index]),
            tokens=self.tokens[index],
            length=self.length[index],
            person_id=self.person_id[index],
            camera_id=self.camera_id[index],
            sample_index=index,
            image_index=torch.from_numpy(image_index),
            phrases=None if self.phrases is None else self.phrases[index],
            key=request.key(),
            whole=WholeBatch(
                start=request.start,
                sample_index=request.of_all,
                image_index=self.image_of_sample[request.of_all],
                person_id=self.person_id.numpy()[request.of_all],
                camera_id=self.camera_id.numpy()[request.of_all],
                length=self.length.numpy()[request.of_all],
                phrases=None if self.phrases is None else self.phrases.numpy()[request.of_all],
            ),
        )


class CaptionDataset:
    """Captions of one split, built in whole batches. A caption has no camera: it is -1."""

    def __init__(self, tokens: Tensor, person_id: Index) -> None:
        self.tokens, self.length = tokens, token_length(tokens)
        self.person_id = torch.from_numpy(person_id)

    def __len__(self) -> int:
        return len(self.person_id)

    def __getitems__(self, request: BatchRequest) -> TextBatch:
        index = torch.from_numpy(request.sample_index)
        return TextBatch(
            tokens=self.tokens[index],
            length=self.length[index],
            person_id=self.person_id[index],
            camera_id=torch.full_like(index, -1),
            sample_index=index,
            whole=WholeBatch(
                start=request.start,
                sample_index=request.of_all,
                image_index=np.full_like(request.of_all, -1),
                person_id=self.person_id.numpy()[request.of_all],
                camera_id=np.full_like(request.of_all, -1),
                length=self.length.numpy()[request.of_all],
            ),
        )


class ImageDataset:
    """Images of one split, built in whole batches, each read as its key decides.

    Where there are camera-style images, every reading with a key draws one of all cameras: its
    own image for its own camera. Source: Zhong et al., Camera Style Adaptation, CVPR 2018, as
    MMCL reads them. Sample index and labels are those of the own image. Without keys own images
    are read, whole.
    """

    def __init__(self, images: OpenImages) -> None:
        self.images = images
        person_id, camera_id = ids_of(images.records)
        self.person_id = torch.from_numpy(person_id)
        self.camera_id = torch.from_numpy(camera_id)

    def __len__(self) -> int:
        return len(self.person_id)

    def __getitems__(self, request: BatchRequest) -> ImageBatch:
        index = torch.from_numpy(request.sample_index)
        key = request.key()
        place = self.images.place[request.sample_index]
        if self.images.styled is not None and key is not None:
            styled = self.images.styled[request.sample_index]
            draws = keyed_uniform(key, 1, CAMERA_STREAM)[:, 0].numpy()
            camera = (draws * styled.shape[1]).astype(np.int64)
            place = styled[np.arange(len(camera)), camera]
        return ImageBatch(
            image=self.images.images.read(place, key),
            person_id=self.person_id[index],
            camera_id=self.camera_id[index],
            sample_index=index,
            key=key,
            whole=WholeBatch(
                start=request.start,
                sample_index=request.of_all,
                image_index=request.of_all,
                person_id=self.person_id.numpy()[request.of_all],
                camera_id=self.camera_id.numpy()[request.of_all],
            ),
        )


class _NoPixels:
    """Images that are never read: each has no pixel."""

    def read(self, places: Index, key: Tensor | None = None) -> Tensor:
        return torch.empty(len(places), 3, 0, 0, dtype=torch.uint8)


class WithoutImages:
    """The batches of a dataset with everything but the pixels: images are ``[b, 3, 0, 0]``.

    They have no keys, as there is nothing to augment.

    Args:
        samples: The dataset.
    """

    def __init__(self, samples: PairDataset | ImageDataset) -> None:
        self.samples = copy(samples)
        self.samples.images = samples.images._replace(images=cast(ImageStore, _NoPixels()))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, request: BatchRequest) -> PairBatch | ImageBatch:
        return self.samples.__getitems__(request._replace(seed=None))


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
