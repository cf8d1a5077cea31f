"""Training images as they are read: whole or cut, their own or in another camera's style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from crosswalk.data.pipeline.cache import ImageStore, raise_if_broken
from crosswalk.data.pipeline.datasets import GalleryDataset, ids_of, labelled
from crosswalk.data.pipeline.decoding import Interpolation, Size
from crosswalk.data.pipeline.loaders import BatchRequest
from crosswalk.data.pipeline.plans import Index
from crosswalk.data.readers.camstyle import CamStyleFiles
from crosswalk.data.readers.records import Record
from crosswalk.draws import keyed_uniform

CAMERA_STREAM = 9  # of the keyed draws; those of the augmentations have numbers of their own


class CropStore(Protocol):
    """Images of a list of files, kept at their own sizes."""

    broken: Mapping[int, str]
    """What is wrong with each image that cannot be read, by place."""
    sizes: Index
    """``[images, 2]`` heights and widths."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read_crops(
        self, index: Index, boxes: Index, size: Size, interpolation: Interpolation
    ) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8: boxes (top, left, height, width), resized."""


class Crop(Protocol):
    """Draws which part of an image is read."""

    def boxes(self, key: Tensor, heights: Index, widths: Index) -> Index:
        """Return ``[B, 4]`` top, left, height and width within images of the given sizes."""


class CroppedImages:
    """Images at one size, cut before they are resized where a key draws a box.

    Args:
        images: The whole images.
        crop: Draws the boxes.
        size: Height and width of what is read.
        interpolation: Of the resizing.
    """

    def __init__(
        self, images: CropStore, crop: Crop, size: Size, interpolation: Interpolation
    ) -> None:
        self.images = images
        self.crop = crop
        self.size = size
        self.interpolation: Interpolation = interpolation
        self.broken = images.broken

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: Index, key: Tensor | None = None) -> Tensor:
        """Return ``[B, 3, H, W]`` uint8: what the keys draw of each image, or all of it."""
        heights, widths = self.images.sizes[index].T
        if key is None:
            zero = np.zeros_like(heights)
            boxes = np.stack([zero, zero, heights, widths], axis=1)
        else:
            boxes = self.crop.boxes(key, heights, widths)
        return self.images.read_crops(index, boxes, self.size, self.interpolation)


class TrainingImages(NamedTuple):
    """The training images as they are read.

    Attributes:
        records: Those that can be read, with labels 0..C-1.
        images: All own images and, behind them, all camera-style images.
        place: Where among them each record's own image is.
        styled: ``[records, cameras]`` where each record is in the style of each camera, its own
            image for its own camera; None without such images.
        notices: What was left out, whole sentences.
    """

    records: Sequence[Record]
    images: ImageStore | CroppedImages
    place: Index
    styled: Index | None
    notices: tuple[str, ...]


def open_training_images(
    records: Sequence[Record],
    open_images: Callable[[Sequence[Path]], ImageStore | CroppedImages],
    *,
    camstyle: CamStyleFiles | None,
    allow_missing: bool,
    root: Path,
) -> TrainingImages:
    """Return the training images, opened.

    Args:
        records: With labels 0..C-1.
        open_images: Opens a list of files.
        camstyle: Where the camera-style images are; None without them.
        allow_missing: Whether to leave out records whose image cannot be read; where only an
            image in another camera's style cannot, the own image stands in for it.
        root: The data set's folder, for messages.

    Raises:
        BrokenImagesError: If images cannot be read and none may be missing.
    """
    paths = [record.image_path for record in records]
    styled = None
    if camstyle is not None:
        styled, style_paths = _styled_places(camstyle, records)
        paths += style_paths
    images = open_images(paths)
    place = np.arange(len(records))
    notices = []
    if not allow_missing:
        raise_if_broken(images, paths, root=root)
    elif images.broken:
        broken = np.isin(np.arange(len(paths)), list(images.broken))
        broken_styles = broken[len(records) :]
        if styled is not None:
            styled = np.where(broken[styled], place[:, None], styled)
        place = np.flatnonzero(~broken[: len(records)])
        if len(place) < len(records):
            notices.append(left_out("train", len(records), len(place)))
            records = labelled("train", [records[index] for index in place.tolist()])
            styled = None if styled is None else styled[place]
        if broken_styles.any():
            notices.append(
                f"train: {broken_styles.sum():,} of {len(broken_styles):,} camera-style images "
                "cannot be read; the images themselves stand in for them "
                "(data.allow_missing=true)."
            )
    return TrainingImages(records, images, place, styled, tuple(notices))


def left_out(name: str, before: int, after: int) -> str:
    """Return the notice of images that cannot be read.

    Example:
        >>> left_out("query", before=1_200, after=1_197)
        'query: 3 of 1,200 images cannot be read; they are left out (data.allow_missing=true).'
    """
    return (
        f"{name}: {before - after:,} of {before:,} images cannot be read; they are left out "
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


class TrainingImageDataset(GalleryDataset):
    """Training images, built in whole batches, each read as its key decides.

    Where there are camera-style images, every reading draws one of all cameras: its own image
    for its own camera. Source: Zhong et al., Camera Style Adaptation, CVPR 2018, as MMCL reads
    them. Sample index and labels are those of the own image. Without keys own images are read,
    whole.
    """

    def __init__(self, training: TrainingImages) -> None:
        person_id, camera_id = ids_of(training.records)
        super().__init__(training.images, person_id=person_id, camera_id=camera_id)
        self.training = training

    def _read(self, request: BatchRequest) -> Tensor:
        key = request.key()
        _, images, place, styled, _ = self.training
        if styled is not None and key is not None:
            draws = keyed_uniform(key, 1, CAMERA_STREAM)[:, 0].numpy()
            camera = (draws * styled.shape[1]).astype(np.int64)
            index = styled[request.sample_index, camera]
        else:
            index = place[request.sample_index]
        if isinstance(images, CroppedImages):
            return images.read(index, key)
        return images.read(index)
