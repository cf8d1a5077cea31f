"""Data of image re-identification: training images, and queries and galleries to evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from crosswalk.data.base import ROLES, PlanFactory, RecordedData, Switch
from crosswalk.data.contents import PARTS, ImageContents
from crosswalk.data.pipeline.cache import file_entry
from crosswalk.data.pipeline.crops import RectangularCrop
from crosswalk.data.pipeline.datasets import ImageDataset, ids_of
from crosswalk.data.pipeline.decoding import OWN_VERSION, TRANSFORM_VERSION, Interpolation
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.loaders import EpochLoader
from crosswalk.data.pipeline.plans import BatchPlan, Index, ShuffledBatches, shuffled_plan
from crosswalk.data.pipeline.preprocessing import Preprocessing, preprocessing_by
from crosswalk.data.pipeline.statistics import camera_statistics, channel_statistics
from crosswalk.data.pipeline.stores import ImageStore, open_images
from crosswalk.data.readers.camstyle import CamStyleFiles, camstyle_files, find_camstyle
from crosswalk.data.readers.records import ImageSplits, Record, count, shared_pictures
from crosswalk.ranges import Count, ImageSize, Seed, Workers
from crosswalk.types import ImageBatch
from crosswalk.words import counted

Reader = Callable[[Path], ImageSplits]


class ImageToImageData(RecordedData[ImageSplits]):
    """An image re-identification data set, from its files to batches.

    A training sample is an image, in the reader's order; `sample_index` counts these. To
    evaluate, a split is a set of query images and a set of gallery images. Arguments that are not
    listed here are those of `RecordedData`.

    Args:
        reader: Reads the files below a folder.
        root: The data set's folder, or the one above; nothing is written there. None generates
            synthetic people below the cache folder.
        transform: Augments and normalises a batch; None normalises.
        crop: Part of a training image that is read; None reads all of it.
        interpolation: Of the resizing of training images.
        eval_interpolation: Of the resizing of queries and gallery; None: as in training.
        protocol: What is evaluated while training: ``last`` nothing, so that the last epoch
            counts; ``val`` people held out of training; ``official`` the test images. The test
            images are evaluated at the end in any case.
        val_person_ids: With ``protocol=val``: how many train identities are held out, where the
            data set has no val split. None is a tenth.
        camera_rule: Whether gallery images of the same person by the same camera as the query
            are ignored.
        extra_map: Further definitions of average precision to measure.
        camstyle: ``on`` reads every training image in the style of a camera drawn anew each
            time, its own image for its own camera; ``off`` the own images only; ``auto`` is on
            where camera-style images lie beside the training images.
        normalization: ``dataset`` normalises by mean and deviation of the channels of the
            training images; ``given`` as ``transform`` says.
        synthetic: ``layout``, ``size`` and ``seed`` of the synthetic people for ``root=None``.
    """

    batch_types = (ImageBatch,)
    directions = ImageContents.directions
    without_test = "last"
    names = ("train", *PARTS.values())

    def __init__(
        self,
        reader: Reader,
        *,
        root: str | Path | None = None,
        image_size: ImageSize = (256, 128),
        transform: ImageTransform | None = None,
        crop: RectangularCrop | None = None,
        interpolation: Interpolation = "bilinear",
        eval_interpolation: Interpolation | None = None,
        plan: PlanFactory = shuffled_plan,
        batch_size: Count = 64,
        eval_batch_size: Count = 256,
        num_workers: Workers = 0,
        seed: Seed = 1,
        cache: Switch = True,
        allow_missing: bool = False,
        allow_outside: bool = False,
        protocol: Literal["last", "val", "official"] = "last",
        val_person_ids: Count | None = None,
        camera_rule: bool = True,
        extra_map: Sequence[str] = (),
        camstyle: Switch | Literal["auto"] = "auto",
        normalization: Literal["given", "dataset"] = "given",
        sweep: Literal["training", "clean"] = "training",
        synthetic: Mapping[str, Any] | None = None,
        identities: bool = True,
    ) -> None:
        contents = ImageContents(
            reader,
            root=root,
            allow_outside=allow_outside,
            protocol=protocol,
            val_person_ids=val_person_ids,
            camera_rule=camera_rule,
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
        self._pictures: dict[str, tuple[Index, ...]] = {}
        self.given_transform = ImageTransform() if transform is None else transform
        self.crop = crop
        self.eval_interpolation: Interpolation = eval_interpolation or interpolation
        self.camera_rule = camera_rule
        self.extra_map = tuple(extra_map)
        self.normalization = normalization
        self.camstyle = self._find_camstyle(camstyle)

    @cached_property
    def transform(self) -> ImageTransform:
        """What is done to training batches, with the statistics that it needs of the images."""
        if self.given_transform.camera_style == 0:
            return self._normalizing
        training = self._opened("train")
        _, camera_id = ids_of(training.records)
        if (camera_id < 0).all():
            raise ValueError(
                f"data.transform.camera_style={self.given_transform.camera_style} needs the "
                f"cameras of the training images, and {self.splits.dataset} does not tell them. "
                "Pass data.transform.camera_style=0."
            )
        statistics = self._of_colours(
            "camera-colours",
            lambda: camera_statistics(
                training.images, training.place, camera_id, self.spec.num_cameras
            ).numpy(),
            camera_id=camera_id.tolist(),
        )
        return replace(self._normalizing, camera_statistics=torch.from_numpy(statistics))

    def prepare_training(self) -> None:
        """Decode, or look for, the training images and measure what ``transform`` needs."""
        super().prepare_training()
        _ = self.transform

    def prepare_evaluation(self) -> None:
        """Decode, or look for, all queries and galleries, of which some must be matches.

        Raises:
            ValueError: If no query of a split has a match: nothing could be measured.
        """
        super().prepare_evaluation()
        _ = self._normalizing
        for split in dict.fromkeys(split for split, _ in self.evaluation_roles("test")):
            self._check_matches(split)
            pictures = self.same_pictures(split)
            if pictures is not None:
                notice = (
                    f"{(pictures[0] >= 0).sum():,} of {len(pictures[0]):,} queries of {split} are "
                    "in the gallery too, as the same file or a copy of it: each is left out of its "
                    "own ranking."
                )
                self.notices += [notice] * (notice not in self.notices)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to queries and gallery before a model sees them."""
        return preprocessing_by(self._normalizing, self.image_size, self.eval_interpolation)

    def same_pictures(self, split: str) -> tuple[Index, Index] | None:
        """Return the picture that each query and each gallery image of one's own is, by number."""
        if not self.splits.own:
            return None
        if split not in self._pictures:
            sides = [self._records(PARTS[split, role]) for role in ROLES]

            def write(entry: Path) -> None:
                np.save(entry / "numbers.npy", np.concatenate(shared_pictures(*sides)))

            entry = file_entry(  # to compare files is to read them
                [record.image_path for side in sides for record in side],
                {"version": 1, "queries": len(sides[0])},
                name=f"{self.splits.dataset} {split}",
                kind="shared",
                folder=None,
                write=write,
            )
            numbers = np.load(entry / "numbers.npy").astype(np.int64)
            self._pictures[split] = tuple(np.split(numbers, [len(sides[0])]))
        query, gallery = self._pictures[split]
        return (query, gallery) if (query >= 0).any() else None

    def _check_matches(self, split: str) -> None:
        query, gallery = (ids_of(self._records(PARTS[split, role])) for role in ROLES)
        pictures = self.same_pictures(split)
        places: dict[int, list[int]] = {}
        for place, person_id in enumerate(gallery[0].tolist()):
            places.setdefault(person_id, []).append(place)
        same_camera = 0
        for row, (person_id, camera_id) in enumerate(zip(*query, strict=True)):
            for place in places.get(int(person_id), ()):
                if pictures is not None and pictures[0][row] == pictures[1][place] >= 0:
                    continue
                if not (self.camera_rule and gallery[1][place] == camera_id >= 0):
                    return
                same_camera += 1
        advice = (
            "All images of their persons are by the query's own camera and so are ignored: pass "
            "data.camera_rule=false to count them, or check the cameras."
            if same_camera
            else "Check the person ids of query and gallery."
        )
        raise ValueError(
            f"no query of {split} of {self.splits.dataset} in {self.splits.root} has a match in "
            f"its gallery ({counted(len(query[0]), 'query')}), so nothing could be measured. "
            f"{advice}"
        )

    def train_dataloader(self) -> EpochLoader:
        """Return the training batches; their plan takes the labels that `plan_labels` gives.

        Raises:
            ValueError: If the last one would hold a single image.
        """
        loader = super().train_dataloader()
        _check_last_batch(loader.plan, len(self._samples), self.batch_size)
        return loader

    def evaluation_queries(self, split: str) -> list[Path]:
        """Return the file of every query image, by `sample_index`."""
        return [record.image_path for record in self._records(PARTS[split, "query"])]

    def transform_batch(self, batch: ImageBatch) -> ImageBatch:
        """Return the batch as methods want it: augmented if it has keys, and normalised."""
        transform = self._normalizing if batch.key is None else self.transform
        return transform(batch)

    def _find_camstyle(self, wanted: bool | str) -> CamStyleFiles | None:
        """Return where the camera-style images are, if they are to be used."""
        if wanted in (False, "off"):
            return None
        num_cameras = max((record.camera_id for _, record in self.splits), default=0)
        found = find_camstyle(self.splits, num_cameras)
        if found is None:
            folder = camstyle_files(self.splits, num_cameras).folder
            if wanted != "auto":
                raise FileNotFoundError(
                    f"{folder} is missing: data.camstyle=on reads the camera-style images of "
                    f"{self.splits.dataset} from it. Fetch them (docs/datasets.md), or pass "
                    "data.camstyle=off."
                )
            if self.splits.own:  # which nobody expects to have any
                return None
            self.notices.append(
                f"{folder} is missing, so only the images themselves are trained on "
                "(data.camstyle=auto). Published on Market-1501: 45.5 mAP with camera-style "
                "images, 35.3 without."
            )
        return found

    def _counts(self, records: Sequence[Record]) -> dict[str, int]:
        counts = count(records)
        return {
            "person_ids": counts["person_ids"],
            "images": counts["images"],
            "cameras": len({record.camera_id for record in records if record.camera_id >= 0}),
        }

    def _description(self) -> dict[str, Any]:
        return {
            "junk": dict(self.splits.junk),
            "camstyle": self.camstyle is not None,
            "normalization": self.normalization,
        }

    def _open_images(self, name: str, paths: Sequence[Path]) -> ImageStore:
        trains = name == "train"
        return open_images(
            paths,
            self.image_size,
            name=f"{self.splits.dataset} {name}",
            interpolation=self.interpolation if trains else self.eval_interpolation,
            crop=self.crop if trains else None,
            cached=self.cache,
            own=self.splits.own,
        )

    @cached_property
    def _normalizing(self) -> ImageTransform:
        """The transform with the right mean and deviation; enough where nothing is augmented."""
        if self.normalization == "given":
            return self.given_transform
        if not self._holds("train"):
            raise ValueError(
                f"{self.splits.dataset} in {self.splits.root} has no train images, by whose "
                "colours data.normalization=dataset normalises. Add them, or pass "
                "data.normalization=given, which takes the colours of the configuration, or of "
                "the model."
            )
        training = self._opened("train")
        mean, std = self._of_colours(
            "colours", lambda: np.array(channel_statistics(training.images, training.place))
        ).tolist()
        return replace(self.given_transform, mean=tuple(mean), std=tuple(std))

    def _of_colours(
        self, kind: str, measure: Callable[[], NDArray[Any]], **more: object
    ) -> NDArray[Any]:
        """Return what ``measure`` finds in all training images: it is done once for a data set.

        Args:
            kind: What is kept of it in the cache folder, until an image changes.
            measure: Reads them.
            more: What else it depends on.
        """
        height, width = self.image_size
        entry = file_entry(
            [record.image_path for record in self._opened("train").records],
            {"version": TRANSFORM_VERSION, "own": self.splits.own and OWN_VERSION, **more},
            name=f"{self.splits.dataset} train",
            kind=f"{kind}-{height}x{width}-{self.interpolation}",
            folder=None,
            write=lambda unfinished: np.save(unfinished / "colours.npy", measure()),
        )
        found: NDArray[Any] = np.load(entry / "colours.npy")
        return found

    @cached_property
    def _samples(self) -> ImageDataset:
        return ImageDataset(self._opened("train"))


def _check_last_batch(plan: BatchPlan, num_images: int, batch_size: int) -> None:
    """Refuse a plan whose rest is a single image: it has no variance to normalise by."""
    if num_images == 1 and len(plan):
        raise ValueError(
            "There is a single training image, which batch normalisation cannot be trained on. Add "
            "images to the data set's train."
        )
    has_rest = isinstance(plan, ShuffledBatches) and not plan.drop_last
    if has_rest and num_images % batch_size == 1:
        raise ValueError(
            f"data.batch_size={batch_size} leaves a last batch of a single one of the "
            f"{num_images:,} training images, which batch normalisation cannot be trained on. "
            "Pass +data.plan.drop_last=true, which leaves one image out of every epoch, or "
            "another data.batch_size."
        )
