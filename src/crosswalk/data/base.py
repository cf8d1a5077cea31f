"""What the data modules share: from a reader's records to loaders of whole batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from crosswalk.data.contents import Contents, SplitsT, check_not_empty
from crosswalk.data.pipeline.datasets import (
    CaptionDataset,
    ImageDataset,
    OpenImages,
    PairDataset,
    WithoutImages,
    ids_of,
    labelled,
    open_records,
)
from crosswalk.data.pipeline.decoding import Interpolation
from crosswalk.data.pipeline.loaders import EpochLoader, check_shared_memory
from crosswalk.data.pipeline.plans import BatchPlan, Index, SequentialBatches, shuffled_plan
from crosswalk.data.pipeline.stores import ImageStore, open_images
from crosswalk.data.readers.camstyle import CamStyleFiles
from crosswalk.data.readers.records import Record, of_one_person, place_to_check
from crosswalk.distributed import rank_and_world_size
from crosswalk.image_files import file_sizes
from crosswalk.types import DataSpec

ROLES = ("query", "gallery")
Switch = bool | Literal["on", "off"]  # words on the command line, booleans in YAML
PlanLabels = Callable[[], Tensor | None]


class PlanFactory(Protocol):
    """Makes the batches of training samples with the given identities, -1 where unknown.

    One with an argument ``camera_id`` gets the camera of every sample too, -1 where unknown.
    """

    def __call__(self, person_id: Index, *, batch_size: int, seed: int) -> BatchPlan:
        """Return the plan."""


class RecordedData(L.LightningDataModule, Generic[SplitsT]):
    """A data set of images that a reader found, from its files to batches.

    Works without a Trainer too: ``transform_batch`` does what a Trainer's transfer does.

    Args:
        contents: What the data set holds.
        image_size: Height and width that images are resized to.
        interpolation: Of the resizing.
        plan: Makes the training batches, given the identity of every sample; -1 if unknown.
        batch_size: Training samples of a step, over all processes together.
        eval_batch_size: Queries or gallery images of an evaluation step, likewise.
        num_workers: Processes that load batches, per training process; 0 is none besides it.
        seed: Of the order of samples and of augmentation; not negative.
        cache: True keeps decoded images in the cache folder; False decodes them every time.
        allow_missing: True leaves out images that cannot be read; False stops with their names.
        protocol: What is evaluated while training.
        sweep: What a sweep over the training set sees: ``training`` batches, shuffled and
            augmented, or ``clean`` samples in order.
        identities: Whether ``plan`` is told the identities; else it gets -1 for everybody.
    """

    batch_types: tuple[type, ...]
    directions: tuple[str, ...]
    without_test: str
    """The protocol that does not look at the test split."""
    names: tuple[str, ...]
    """Of the parts of ``splits``, training images first."""
    keeps_sweep_loader = False
    """Whether the processes that load sweeps stay for the next one."""
    camstyle: CamStyleFiles | None = None
    plan_labels: PlanLabels | None = None
    """Gives the pseudo labels of an epoch's batches: that of the method, where it has them."""
    reads_images = True
    """Whether training batches hold images: the method says whether it looks at them."""

    def __init__(
        self,
        contents: Contents[SplitsT],
        *,
        image_size: Sequence[int],
        interpolation: Interpolation,
        plan: PlanFactory,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        cache: Switch,
        allow_missing: bool,
        protocol: str,
        sweep: Literal["training", "clean"],
        identities: bool,
    ) -> None:
        super().__init__()
        if seed < 0:
            raise ValueError(f"seed={seed} should not be negative.")
        if len(image_size) != 2 or min(image_size) < 1:
            raise ValueError(
                f"data.image_size={list(image_size)} should be [height, width], for instance "
                "[256, 128]."
            )
        self.contents: Contents[SplitsT] = contents
        self.splits: SplitsT = contents.splits
        self.image_size = int(image_size[0]), int(image_size[1])
        self.interpolation = interpolation
        self.make_plan = plan
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.cache = cache in (True, "on")
        self.allow_missing = allow_missing
        self.protocol = protocol
        self.sweep = sweep
        self.identities = identities
        self.notices = [*self.splits.notices, *of_one_person(self.splits)]
        self._open: dict[str, OpenImages] = {}
        self._sweep_loader: EpochLoader | None = None

    # What the data are.

    @cached_property
    def spec(self) -> DataSpec:
        """Sizes of the training set."""
        person_id, camera_id = ids_of(self._records("train"))
        return DataSpec(
            num_samples=len(person_id),
            num_images=len(person_id),
            num_person_ids=len(np.unique(person_id)),
            num_cameras=max(0, int(camera_id.max(initial=0))) + 1,
        )

    @property
    def is_labelled(self) -> bool:
        """Whether the identities of the training images are known; else each has its own."""
        return self.splits.train_is_labelled

    @cached_property
    def train_image_person_id(self) -> Tensor | None:
        """``[num_images]`` true labels of the training images, for analysis only.

        None where nobody knows them.
        """
        if not self.is_labelled:
            return None
        return torch.from_numpy(ids_of(self._records("train"))[0])

    @property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true labels of the training samples, for analysis only.

        None where nobody knows them.
        """
        return self.train_image_person_id

    @property
    def people(self) -> Mapping[int, str]:
        """What the data call the people of `splits`, by number; none where it is the number."""
        return self.contents.people

    @property
    def fingerprint(self) -> str:
        """Of annotation and files, before people were held out; the doctor prints the same."""
        return self.contents.fingerprint

    def is_fingerprint(self, stored: str) -> bool:
        """Return whether a run's fingerprint is that of these data."""
        return self.contents.is_fingerprint(stored)

    def describe(self) -> dict[str, Any]:
        """Return what the run record says about the data, as plain values."""
        counts = {
            name: self._counts(self._records(name)) for name in self.names if self._holds(name)
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
            **self._description(),
            "protocol": self.protocol,
            "notices": list(self.notices),
        }

    # What a Trainer asks for.

    def setup(self, stage: str) -> None:
        """Decode, or look for, everything that a run will read; broken images stop here.

        A fit opens the test images too: they are evaluated after it, too late to find one broken.
        """
        self.check_memory(stage)
        if stage == "fit":
            self.check_protocol()
            self.prepare_training()
        self.prepare_evaluation()

    def lacks_files(self) -> bool:
        """Return whether an image that has to be there is not. Lists folders, opens no image."""
        paths = {record.image_path for name in self.names for record in self.splits.split(name)}
        return not self.allow_missing and len(file_sizes(paths)) < len(paths)

    def check_memory(self, stage: str) -> None:
        """Raise an error if the batches of worker processes do not fit between them and us."""
        sizes = [self.batch_size] if stage == "fit" else []
        for split, role in self.evaluation_roles("test"):
            sizes.append(min(self.eval_batch_size, self.num_evaluation_samples(split, role)))
        height, width = self.image_size
        check_shared_memory(self.num_workers, max(sizes, default=0) * 3 * height * width)

    def check_protocol(self) -> None:
        """Raise an error if the best epoch is to be chosen on a split that is not there.

        Raises:
            ValueError: If it is.
        """
        split = {"last": None, "val": "val", "official": "test"}[self.protocol]
        if split in (None, *(split for split, _ in self.evaluation_roles("fit"))):
            return
        raise ValueError(
            f"protocol={self.protocol} chooses the best epoch on {split}, and "
            f"{self.splits.dataset} ({self.splits.layout}) in {self.splits.root} has no {split} "
            f"split. Add one, or pass protocol={self.without_test}."
        )

    def prepare_training(self) -> None:
        """Decode, or look for, the training images."""
        self._opened("train")

    def prepare_evaluation(self) -> None:
        """Decode, or look for, all images that are evaluated."""
        for split, role in self.evaluation_roles("test"):
            self._opened(self._part(split, role))

    def train_dataloader(self) -> EpochLoader:
        """Return the training batches; their plan takes the labels that `plan_labels` gives."""
        samples = self._samples if self.reads_images else WithoutImages(self._samples)
        return self._training_loader(samples, self.make_plan, first_pass=0, labels=self.plan_labels)

    def sweep_dataloader(self, epoch: int) -> EpochLoader:
        """Return one pass over every training sample, for the sweep of ``epoch``.

        Its order and its augmentations are other ones than those of the epoch's training.
        """
        loader = self._sweep_loader
        if loader is None and self.sweep == "training":
            # whatever makes the training batches: a sweep takes every sample once
            loader = self._training_loader(self._samples, shuffled_plan, first_pass=1)
        elif loader is None:
            loader = self._loader_in_order(self._samples, first_pass=1)
        if self.keeps_sweep_loader:
            self._sweep_loader = loader
        loader.set_epoch(epoch)
        return loader

    def val_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self._evaluation_loaders("validate")

    def test_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self._evaluation_loaders("test")

    def teardown(self, stage: str) -> None:
        """End the workers of the sweep, which Lightning knows nothing of."""
        if self._sweep_loader is not None:
            self._sweep_loader.end_workers()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Transform a batch on the device it has come to."""
        return self.transform_batch(batch)

    @abstractmethod
    def transform_batch(self, batch: Any) -> Any:  # noqa: ANN401
        """Return the batch as methods want it: augmented if it has keys, and normalised."""

    # What is evaluated.

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        """Return (split, "query" or "gallery") of each loader of ``stage``.

        Args:
            stage: ``fit`` and ``validate`` evaluate what ``protocol`` says, ``test`` everything.

        Returns:
            None at all where there is nothing to evaluate, such as images to train on alone.
        """
        while_training = {"last": (), "val": ("val",), "official": ("val", "test")}
        found = [
            split
            for split in (("val", "test") if stage == "test" else while_training[self.protocol])
            if any(self._holds(self._part(split, role)) for role in ROLES)
        ]
        return [(split, role) for split in found for role in ROLES]

    def same_pictures(self, split: str) -> tuple[Index, Index] | None:
        """Return the picture that each query and each gallery image of a split is, by number.

        A query is not ranked against itself. -1 is a picture that is in one of them alone; None
        says that nothing is left out: the protocols of published sets say what counts.
        """
        return None

    def num_evaluation_samples(self, split: str, role: str) -> int:
        """Return the number of samples of a split with role "query" or "gallery"."""
        return len(self._records(self._part(split, role)))

    def evaluation_images(self, split: str) -> list[Path]:
        """Return the file of every gallery image, by `sample_index`."""
        return [record.image_path for record in self._records(self._part(split, "gallery"))]

    # What the kinds of data differ in.

    def _part(self, split: str, role: str) -> str:
        """Return which of `names` has the images of a split with role "query" or "gallery"."""
        return self.contents.part(split, role)

    @property
    @abstractmethod
    def _samples(self) -> PairDataset | ImageDataset:
        """The training samples."""

    @abstractmethod
    def _counts(self, records: Sequence[Record]) -> dict[str, int]:
        """Return what ``records`` hold, for the description."""

    @abstractmethod
    def _description(self) -> dict[str, Any]:
        """Return what else the description says."""

    def _evaluation_dataset(self, split: str, role: str) -> CaptionDataset | ImageDataset:
        return ImageDataset(self._opened(self._part(split, role)))

    def _open_images(self, name: str, paths: Sequence[Path]) -> ImageStore:
        return open_images(
            paths,
            self.image_size,
            name=f"{self.splits.dataset} {name}",
            interpolation=self.interpolation,
            cached=self.cache,
            own=self.splits.own,
        )

    # Records, images, loaders.

    def _holds(self, name: str) -> bool:
        return bool(self.splits.split(name))

    @cached_property
    def _labelled(self) -> Sequence[Record]:
        return labelled("train", self.splits.train)

    def _records(self, name: str) -> Sequence[Record]:
        """Return the records of a split; its images are looked at if that can change them."""
        if not self._holds(name):
            return ()
        if self.allow_missing:
            return self._opened(name).records
        return self._labelled if name == "train" else self.splits.split(name)

    def _opened(self, name: str) -> OpenImages:
        """Return the images of a split, from the cache or the files."""
        if name not in self._open:
            records = self.splits.split(name)
            check_not_empty(self.splits, name, records)
            opened = open_records(
                name,
                records,
                lambda paths: self._open_images(name, paths),
                allow_missing=self.allow_missing,
                root=place_to_check(self.splits),
                camstyle=self.camstyle if name == "train" else None,
            )
            check_not_empty(self.splits, name, opened.records)
            self.notices += opened.notices
            self._open[name] = opened
        return self._open[name]

    def _training_loader(
        self,
        samples: PairDataset | ImageDataset | WithoutImages,
        make_plan: PlanFactory,
        *,
        first_pass: int,
        labels: PlanLabels | None = None,
    ) -> EpochLoader:
        _, world_size = rank_and_world_size()
        if self.batch_size < world_size:
            raise ValueError(
                f"data.batch_size={self.batch_size} does not split over {world_size} processes: "
                f"it counts the samples of all of them. Use at least {world_size}, or fewer "
                "processes (trainer.devices)."
            )
        person_id = self._samples.person_id.numpy()
        if not (self.identities and self.is_labelled):
            person_id = np.full_like(person_id, -1)
        cameras: dict[str, Any] = {}
        if "camera_id" in signature(make_plan).parameters:
            cameras["camera_id"] = self._samples.camera_id.numpy()
        plan = make_plan(person_id, batch_size=self.batch_size, seed=self.seed, **cameras)
        return self._loader(samples, plan, self.seed, first_pass=first_pass, labels=labels)

    def _evaluation_loaders(self, stage: str) -> list[EpochLoader]:
        return [
            self._loader_in_order(self._evaluation_dataset(split, role))
            for split, role in self.evaluation_roles(stage)
        ]

    def _loader_in_order(
        self, dataset: PairDataset | ImageDataset | CaptionDataset, *, first_pass: int = 0
    ) -> EpochLoader:
        plan = SequentialBatches(len(dataset), self.eval_batch_size)
        return self._loader(dataset, plan, None, first_pass=first_pass)

    def _loader(
        self,
        dataset: PairDataset | ImageDataset | CaptionDataset | WithoutImages,
        plan: BatchPlan,
        seed: int | None,
        *,
        first_pass: int,
        labels: PlanLabels | None = None,
    ) -> EpochLoader:
        return EpochLoader(
            dataset,
            plan,
            seed=seed,
            first_pass=first_pass,
            # captions are ready in memory: a worker would only pass them on
            num_workers=0 if isinstance(dataset, CaptionDataset) else self.num_workers,
            pin_memory=torch.cuda.is_available(),
            labels=labels,
        )
