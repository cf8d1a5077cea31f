"""Data of image re-identification: training images, and queries and galleries to evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from crosswalk.cache_folder import cache_root
from crosswalk.data.pipeline.cache import (
    ImageStore,
    cached_images,
    decoded_images,
    original_images,
    raise_if_broken,
    refuse_folder_inside,
)
from crosswalk.data.pipeline.crops import RectangularCrop
from crosswalk.data.pipeline.datasets import (
    GalleryDataset,
    PlanFactory,
    SomeImages,
    check_batch_size,
    check_choice,
    height_and_width,
    ids_of,
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
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.loaders import EpochLoader
from crosswalk.data.pipeline.plans import SequentialBatches, shuffled_plan
from crosswalk.data.pipeline.statistics import camera_statistics, channel_statistics
from crosswalk.data.pipeline.training_images import (
    CroppedImages,
    TrainingImageDataset,
    TrainingImages,
    left_out,
    open_training_images,
)
from crosswalk.data.readers.camstyle import CamStyleFiles, camstyle_files, find_camstyle
from crosswalk.data.readers.records import ImageSplits, Record, count
from crosswalk.data.readers.val_split import carve_val_images
from crosswalk.distributed import rank_and_world_size
from crosswalk.types import DataSpec, ImageBatch

Reader = Callable[[Path], ImageSplits]

ROLES = ("query", "gallery")
_RECORDS_OF = {
    ("test", "query"): "query",
    ("test", "gallery"): "gallery",
    ("val", "query"): "val_query",
    ("val", "gallery"): "val_gallery",
}


class _Images(NamedTuple):
    """Query or gallery images as they are read."""

    records: Sequence[Record]
    images: ImageStore


class ImageToImageData(L.LightningDataModule):
    """An image re-identification data set, from its files to batches.

    A training sample is an image, in the reader's order; `sample_index` counts these. To
    evaluate, a split is a set of query images and a set of gallery images. Works without a
    Trainer too: ``transform_batch`` does what a Trainer's transfer does.

    Args:
        reader: Reads the files below a folder.
        root: The data set's folder, or the one above; nothing is written there. None generates
            synthetic people below the cache folder.
        image_size: Height and width that images are resized to.
        transform: Augments and normalises a batch; None normalises.
        crop: Part of a training image that is read; None reads all of it.
        interpolation: Of the resizing of training images.
        eval_interpolation: Of the resizing of queries and gallery; None: as in training.
        plan: Makes the training batches, given the identity of every sample; -1 if unknown.
        batch_size: Training images of a step, over all processes together.
        eval_batch_size: Queries or gallery images of an evaluation step, likewise.
        num_workers: Processes that load batches, per training process; 0 is none besides it.
        seed: Of the order of samples and of augmentation; not negative.
        cache: True keeps decoded images in the cache folder; False decodes them every time.
        allow_missing: True leaves out images that cannot be read; False stops with their names.
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
        sweep: What a sweep over the training set sees: ``training`` batches, shuffled and
            augmented, or ``clean`` images in order.
        identities: Whether ``plan`` is told the identities; else it gets -1 for everybody.
        synthetic: ``layout``, ``size`` and ``seed`` of the synthetic people for ``root=None``.
    """

    batch_types = (ImageBatch,)
    plan_labels: Callable[[], Tensor | None] | None = None
    """Gives the pseudo labels of an epoch's batches: that of the method, where it has them."""
    directions = ("image_to_image",)

    def __init__(
        self,
        reader: Reader,
        *,
        root: str | Path | None = None,
        image_size: Sequence[int] = (256, 128),
        transform: ImageTransform | None = None,
        crop: RectangularCrop | None = None,
        interpolation: Interpolation = "bilinear",
        eval_interpolation: Interpolation | None = None,
        plan: PlanFactory = shuffled_plan,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 1,
        cache: bool | str = True,
        allow_missing: bool = False,
        protocol: Literal["last", "val", "official"] = "last",
        val_person_ids: int | None = None,
        camera_rule: bool = True,
        extra_map: Sequence[str] = (),
        camstyle: bool | str = "auto",
        normalization: Literal["given", "dataset"] = "given",
        sweep: Literal["training", "clean"] = "training",
        synthetic: Mapping[str, Any] | None = None,
        identities: bool = True,
    ) -> None:
        super().__init__()
        resizing = ("bilinear", "bicubic")
        check_choice("data.protocol", protocol, ("last", "val", "official"))
        check_choice("data.sweep", sweep, ("training", "clean"))
        check_choice("data.normalization", normalization, ("given", "dataset"))
        check_choice("data.interpolation", interpolation, resizing)
        check_choice("data.eval_interpolation", eval_interpolation or interpolation, resizing)
        if seed < 0:
            raise ValueError(f"seed={seed} should not be negative.")
        self.cache = switch("data.cache", cache)
        self.image_size = height_and_width(image_size, example="[256, 128]")
        self.given_transform = ImageTransform() if transform is None else transform
        self.crop = crop
        self.interpolation: Interpolation = interpolation
        self.eval_interpolation: Interpolation = eval_interpolation or interpolation
        self.make_plan = plan
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.allow_missing = allow_missing
        self.protocol = protocol
        self.camera_rule = camera_rule
        self.extra_map = tuple(extra_map)
        self.normalization = normalization
        self.sweep = sweep
        self.identities = identities
        folder = _synthetic_root(synthetic) if root is None else Path(root).expanduser()
        self.splits = _read(reader, folder, protocol, val_person_ids, camera_rule)
        refuse_folder_inside(cache_root(), self.splits.root)
        self.notices = list(self.splits.notices)
        self.camstyle = self._find_camstyle(camstyle)
        self._opened: dict[str, _Images] = {}

    @cached_property
    def spec(self) -> DataSpec:
        """Sizes of the training set."""
        records = self._records("train")
        person_id, camera_id = ids_of(records)
        return DataSpec(
            num_samples=len(records),
            num_images=len(records),
            num_person_ids=len(np.unique(person_id)),
            num_cameras=max(0, int(camera_id.max(initial=0))) + 1,
        )

    @property
    def is_labelled(self) -> bool:
        """Whether the identities of the training images are known; else each has its own."""
        return self.splits.train_is_labelled

    @cached_property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true labels of the training samples, for analysis only.

        None where nobody knows them.
        """
        if not self.is_labelled:
            return None
        return torch.from_numpy(ids_of(self._records("train"))[0])

    @property
    def train_image_person_id(self) -> Tensor | None:
        """``[num_images]`` true labels: a training sample is an image."""
        return self.train_person_id

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all image names, identities and cameras, the same on every machine."""
        return records_fingerprint(
            self.splits, self.splits.root, lambda record: (record.person_id, record.camera_id)
        )

    @cached_property
    def transform(self) -> ImageTransform:
        """What is done to training batches, with the statistics that it needs of the images."""
        if self.given_transform.camera_style == 0:
            return self._normalizing
        training = self._training
        _, camera_id = ids_of(training.records)
        if (camera_id < 0).all():
            raise ValueError(
                f"data.transform.camera_style={self.given_transform.camera_style} needs the "
                f"cameras of the training images, and {self.splits.dataset} does not tell them. "
                "Pass data.transform.camera_style=0."
            )
        statistics = camera_statistics(self._own_images, camera_id, self.spec.num_cameras)
        return replace(self._normalizing, camera_statistics=statistics)

    def describe(self) -> dict[str, Any]:
        """Return what the run record says about the data, as plain values."""
        names = ("train", "query", "gallery", "val_query", "val_gallery")
        return {
            "dataset": self.splits.dataset,
            "root": str(self.splits.root),
            "layout": self.splits.layout,
            "fingerprint": self.fingerprint,
            "counts": {
                name: _counts(self._records(name), known=name != "train" or self.is_labelled)
                for name in names
                if self._holds(name)
            },
            "labelled": self.is_labelled,
            "junk": dict(self.splits.junk),
            "camstyle": self.camstyle is not None,
            "normalization": self.normalization,
            "protocol": self.protocol,
            "notices": list(self.notices),
        }

    def setup(self, stage: str) -> None:
        """Decode, or look for, everything that a run will read; broken images stop here.

        A fit opens the test images too: they are evaluated after it, too late to find one broken.
        """
        if stage == "fit":
            self.prepare_training()
        self.prepare_evaluation()

    def prepare_training(self) -> None:
        """Decode, or look for, the training images and measure what ``transform`` needs."""
        _ = self._training, self.transform

    def prepare_evaluation(self) -> None:
        """Decode, or look for, all queries and galleries."""
        for split, role in self.evaluation_roles("test"):
            self._open(_RECORDS_OF[split, role])
        _ = self._normalizing

    def train_dataloader(self) -> EpochLoader:
        """Return the training batches; their plan takes the labels that `plan_labels` gives.

        Raises:
            ValueError: If the last one would hold a single image.
        """
        loader = self._training_loader(self.make_plan, first_pass=0, labels=self.plan_labels)
        _check_last_batch(len(loader), len(self._samples), self.batch_size)
        return loader

    def sweep_dataloader(self, epoch: int) -> EpochLoader:
        """Return one pass over every training sample, for the sweep of ``epoch``.

        Its order and its augmentations are other ones than those of the epoch's training. The
        loader is not kept: its processes end with it, since MAR sweeps once in a run.
        """
        if self.sweep == "training":
            # whatever makes the training batches: a sweep takes every sample once
            loader = self._training_loader(shuffled_plan, first_pass=1)
        else:
            loader = load_batches(
                self._samples,
                SequentialBatches(len(self._samples), self.eval_batch_size),
                seed=None,
                first_pass=1,
                num_workers=self.num_workers,
            )
        loader.set_epoch(epoch)
        return loader

    def val_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self._evaluation_loaders("validate")

    def test_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self._evaluation_loaders("test")

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        """Return (split, "query" or "gallery") of each loader of ``stage``.

        Args:
            stage: ``fit`` and ``validate`` evaluate what ``protocol`` says, ``test`` everything.

        Raises:
            ValueError: If there are no queries or no gallery.
        """
        both = ("val", "test")
        while_training = {"last": (), "val": ("val",), "official": both}
        splits = both if stage == "test" else while_training[self.protocol]
        found = [
            split for split in splits if any(self._holds(_RECORDS_OF[split, r]) for r in ROLES)
        ]
        if stage == "test" and "test" not in found:
            raise ValueError(
                f"{self.splits.dataset} ({self.splits.layout}) in {self.splits.root} has neither "
                "queries nor a gallery to evaluate. It can be the source of another set's "
                "training (data.source)."
            )
        return [(split, role) for split in found for role in ROLES]

    def num_evaluation_samples(self, split: str, role: str) -> int:
        """Return the number of images of a split with role "query" or "gallery"."""
        return len(self._records(_RECORDS_OF[split, role]))

    def evaluation_queries(self, split: str) -> list[Path]:
        """Return the file of every query image, by `sample_index`."""
        return [record.image_path for record in self._records(_RECORDS_OF[split, "query"])]

    def evaluation_images(self, split: str) -> list[Path]:
        """Return the file of every gallery image, by `sample_index`."""
        return [record.image_path for record in self._records(_RECORDS_OF[split, "gallery"])]

    def transform_batch(self, batch: ImageBatch) -> ImageBatch:
        """Return the batch as methods want it: augmented if it has keys, and normalised."""
        transform = self._normalizing if batch.key is None else self.transform
        return transform(batch)

    def on_after_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        """Transform a batch on the device it has come to."""
        return self.transform_batch(batch)

    def _find_camstyle(self, wanted: bool | str) -> CamStyleFiles | None:
        """Return where the camera-style images are, if they are to be used."""
        if wanted in (False, "off"):
            return None
        if wanted not in (True, "on", "auto"):
            raise ValueError(f"data.camstyle={wanted} should be auto, on or off.")
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
            self.notices.append(
                f"{folder} is missing, so only the images themselves are trained on "
                "(data.camstyle=auto). Published for MMCL on Market-1501: 45.5 mAP with "
                "camera-style images, 35.3 without."
            )
        return found

    def _holds(self, name: str) -> bool:
        return bool(self.splits.split(name))

    def _records(self, name: str) -> Sequence[Record]:
        """Return the records of a split; its images are looked at if that can change them."""
        if not self._holds(name):
            return ()
        if name == "train":
            return self._training.records if self.allow_missing else self._labelled
        return self._open(name).records if self.allow_missing else self.splits.split(name)

    @cached_property
    def _labelled(self) -> Sequence[Record]:
        return labelled("train", self.splits.train)

    def _open(self, name: str) -> _Images:
        """Return the images of queries or a gallery, from the cache or the files."""
        if name not in self._opened:
            records: Sequence[Record] = self.splits.split(name)
            _check_not_empty(self.splits, name, records)
            paths = [record.image_path for record in records]
            images = self._whole_images(paths, self.eval_interpolation, name)
            if not self.allow_missing:
                raise_if_broken(images, paths, root=self.splits.root)
            elif images.broken:
                images, records = without_broken(images, records)
                _check_not_empty(self.splits, name, records)
                self.notices.append(left_out(name, len(paths), len(records)))
            self._opened[name] = _Images(records, images)
        return self._opened[name]

    def _whole_images(
        self, paths: Sequence[Path], interpolation: Interpolation, name: str
    ) -> ImageStore:
        open_images: Callable[..., ImageStore] = cached_images if self.cache else decoded_images
        name = f"{self.splits.dataset} {name}"
        return open_images(paths, self.image_size, name=name, interpolation=interpolation)

    @cached_property
    def _training(self) -> TrainingImages:
        training = open_training_images(
            self._labelled,
            self._open_training,
            camstyle=self.camstyle,
            allow_missing=self.allow_missing,
            root=self.splits.root,
        )
        _check_not_empty(self.splits, "train", training.records)
        self.notices += training.notices
        return training

    def _open_training(self, paths: Sequence[Path]) -> ImageStore | CroppedImages:
        if self.crop is None:
            return self._whole_images(paths, self.interpolation, "train")
        name = f"{self.splits.dataset} train"
        originals = original_images(paths, name=name, cached=self.cache)
        return CroppedImages(originals, self.crop, self.image_size, self.interpolation)

    @property
    def _own_images(self) -> SomeImages:
        """The training images themselves, whole."""
        return SomeImages(self._training.images, self._training.place)

    @cached_property
    def _normalizing(self) -> ImageTransform:
        """The transform with the right mean and deviation; enough where nothing is augmented."""
        if self.normalization == "given":
            return self.given_transform
        mean, std = channel_statistics(self._own_images)
        return replace(self.given_transform, mean=mean, std=std)

    @cached_property
    def _samples(self) -> TrainingImageDataset:
        return TrainingImageDataset(self._training)

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
        person_id = known_identities(self._samples.person_id, is_labelled=told)
        plan = make_plan(person_id, batch_size=self.batch_size, seed=self.seed)
        return load_batches(
            self._samples,
            plan,
            seed=self.seed,
            first_pass=first_pass,
            num_workers=self.num_workers,
            labels=labels,
        )

    def _evaluation_loaders(self, stage: str) -> list[EpochLoader]:
        loaders = []
        for split, role in self.evaluation_roles(stage):
            records, images = self._open(_RECORDS_OF[split, role])
            person_id, camera_id = ids_of(records)
            dataset = GalleryDataset(images, person_id=person_id, camera_id=camera_id)
            plan = SequentialBatches(len(dataset), self.eval_batch_size)
            loaders.append(load_batches(dataset, plan, seed=None, num_workers=self.num_workers))
        return loaders


def _counts(records: Sequence[Record], *, known: bool) -> dict[str, int]:
    """Return what ``records`` hold; people who are not known are none."""
    counts = count(records)
    return {
        "person_ids": counts["person_ids"] if known else 0,
        "images": counts["images"],
        "cameras": len({record.camera_id for record in records if record.camera_id >= 0}),
    }


def _check_last_batch(num_batches: int, num_images: int, batch_size: int) -> None:
    """Refuse a plan whose rest is a single image: it has no variance to normalise by."""
    whole, rest = divmod(num_images, batch_size)
    if rest == 1 and num_batches == whole + 1:
        raise ValueError(
            f"data.batch_size={batch_size} leaves a last batch of a single one of the "
            f"{num_images:,} training images, which batch normalisation cannot be trained on. "
            "Pass +data.plan.drop_last=true, which leaves one image out of every epoch, or "
            "another data.batch_size."
        )


def _read(
    reader: Reader,
    root: Path,
    protocol: str,
    val_person_ids: int | None,
    camera_rule: bool,
) -> ImageSplits:
    splits = reader(root)
    for roles in (("query", "gallery"), ("val_query", "val_gallery")):
        if any(splits.split(name) for name in roles):
            for name in roles:
                _check_not_empty(splits, name, splits.split(name))
    if protocol == "val" and not splits.val_query:
        # the same people in every run, whatever its seed
        splits = carve_val_images(splits, val_person_ids, seed=1, camera_rule=camera_rule)
    return splits


def _check_not_empty(splits: ImageSplits, name: str, records: Sequence[Record]) -> None:
    if not records:
        raise ValueError(
            f"{splits.dataset} ({splits.layout}) in {splits.root} has no {name} images. Run "
            f"`crosswalk data check {splits.root}`."
        )


def _synthetic_root(synthetic: Mapping[str, Any] | None) -> Path:
    defaults = {"layout": "market1501", "size": "toy", "seed": 0}
    settings = synthetic_settings(synthetic, defaults, config="synthetic_images")
    from crosswalk.synthetic.images import IMAGE_GENERATOR_VERSION, synthesize_images

    return synthetic_folder("images", settings, synthesize_images, IMAGE_GENERATOR_VERSION)
