"""Data of transfer: a labelled source and an unlabelled target, one batch of each per step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning.pytorch as L
from torch import Tensor

from crosswalk.data.base import PlanFactory, PlanLabels, Switch
from crosswalk.data.contents import check_source, missing
from crosswalk.data.images import ImageToImageData
from crosswalk.data.pipeline.crops import RectangularCrop
from crosswalk.data.pipeline.decoding import Interpolation
from crosswalk.data.pipeline.image_transform import ImageTransform
from crosswalk.data.pipeline.loaders import ENDS_WORKERS, EpochLoader
from crosswalk.data.pipeline.plans import Index, shuffled_plan
from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.ranges import Count, ImageSize, Seed, Workers
from crosswalk.types import DataSpec, ImageBatch, SourceTargetBatch

DataFactory = Callable[..., ImageToImageData]


class SourceTargetLoader:
    """Pairs every batch of a source with one of a target, which starts again when exhausted.

    An epoch is one pass over the source, as in MAR. The passes over the target are numbered 0,
    2, 3, ..., so each has an order and augmentations of its own; the epoch's end cuts the last
    one. The state is that of both loaders, so a run resumed in mid-epoch goes on in the middle
    of both passes.

    Args:
        source: Decides how long an epoch is.
        target: Of at least one batch, as the source.

    Example:
        >>> from crosswalk.data.pipeline.plans import SequentialBatches
        >>> class Numbers:
        ...     def __init__(self, count): self.count = count
        ...     def __len__(self): return self.count
        ...     def __getitems__(self, request): return request.sample_index.tolist()
        >>> source, target = (
        ...     EpochLoader(Numbers(count), SequentialBatches(count, batch_size=2), seed=None)
        ...     for count in (6, 4)
        ... )
        >>> [(batch.source, batch.target) for batch in SourceTargetLoader(source, target)]
        [([0, 1], [0, 1]), ([2, 3], [2, 3]), ([4, 5], [0, 1])]
    """

    batch_sampler = None  # Lightning looks for both names; it calls ``sampler.set_epoch``.

    def __init__(self, source: EpochLoader, target: EpochLoader) -> None:
        for name, loader in (("source", source), ("target", target)):
            if len(loader) == 0:
                raise ValueError(f"the {name} has no batch. Use a smaller data.batch_size.")
        self.source = source
        self.target = target

    @property
    def sampler(self) -> SourceTargetLoader:
        """What Lightning calls ``set_epoch`` of."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` anew, or go on with it if a state of this epoch was just loaded."""
        self.source.set_epoch(epoch)
        self.target.set_epoch(epoch)

    def state_dict(self) -> dict[str, dict[str, int]]:
        """Return the place of the next batch in source and target."""
        return {"source": self.source.state_dict(), "target": self.target.state_dict()}

    def load_state_dict(self, state: Mapping[str, dict[str, int]]) -> None:
        """Go on from a place; the next iteration starts there."""
        self.source.load_state_dict(state["source"])
        self.target.load_state_dict(state["target"])

    def __len__(self) -> int:
        """Return the number of batches of an epoch, the same on every process."""
        return len(self.source)

    def __iter__(self) -> Iterator[SourceTargetBatch]:
        """Yield this process's batches; nothing is read before the first one is asked for."""
        target = _passes(self.target)
        for source in self.source:
            yield SourceTargetBatch(source, next(target))

    def end_workers(self) -> None:
        """End the worker processes of both loaders; another pass starts new ones."""
        self.source.end_workers()
        self.target.end_workers()

    _iterator = ENDS_WORKERS


def _passes(loader: EpochLoader) -> Iterator[Any]:
    while True:
        yield from loader


class SourceTargetData(L.LightningDataModule):
    """A labelled source and an unlabelled target set of image re-identification.

    An epoch is one pass over the source; sweeps, evaluation and sample indices are the target's.
    Incomplete last batches are dropped on both sides. Source and target draw random numbers of
    their own. What ``source`` or ``target`` says itself counts more than the common settings;
    those that are not listed here are arguments of `ImageToImageData`.

    Args:
        source: Makes the source's data, given the settings below.
        target: Makes the target's data.
        root: The folder that holds both data sets, for sets without a root of their own.
        normalization: ``dataset`` normalises each set by its own training images, as MAR does;
            ``given`` as ``transform`` says.
        plan: Makes the training batches of either set; None shuffles and drops the incomplete
            batch.
        protocol: What of the target is evaluated while training: ``last``, ``val``, ``official``.
        val_person_ids: With ``protocol=val``: how many train identities of the target are held
            out. None is a tenth.
        train_on: ``both``; or ``source``: batches of the source alone, as a single labelled set,
            evaluated on the target (direct transfer).
        identities: Whether the target's ``plan`` is told identities; the source's always is.

    Raises:
        ValueError: If the source has no labels, or shares images with the target.
    """

    batch_types: tuple[type, ...] = (SourceTargetBatch, ImageBatch)
    gives: ClassVar = {
        "source": ("seed", "protocol"),
        "target": ("seed", "protocol", "identities"),
    }
    """What the sets are given, and cannot have of their own."""
    directions = ImageToImageData.directions

    def __init__(
        self,
        source: DataFactory,
        target: DataFactory,
        *,
        root: str | Path | None = None,
        image_size: ImageSize = (256, 128),
        transform: ImageTransform | None = None,
        crop: RectangularCrop | None = None,
        interpolation: Interpolation = "bilinear",
        eval_interpolation: Interpolation | None = None,
        normalization: Literal["given", "dataset"] = "given",
        plan: PlanFactory | None = None,
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
        camstyle: Switch | Literal["auto"] = "off",
        sweep: Literal["training", "clean"] = "training",
        train_on: Literal["both", "source"] = "both",
        identities: bool = True,
    ) -> None:
        super().__init__()
        if seed < 0:
            raise ValueError(f"seed={seed} should not be negative.")
        self.train_on = train_on
        self.batch_types = (SourceTargetBatch,) if train_on == "both" else (ImageBatch,)
        common: dict[str, Any] = {
            "root": root,
            "image_size": image_size,
            "transform": transform,
            "crop": crop,
            "interpolation": interpolation,
            "eval_interpolation": eval_interpolation,
            "normalization": normalization,
            "plan": plan or functools.partial(shuffled_plan, drop_last=True),
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "num_workers": num_workers,
            "cache": cache,
            "allow_missing": allow_missing,
            "allow_outside": allow_outside,
            "camera_rule": camera_rule,
            "extra_map": extra_map,
            "camstyle": camstyle,
            "sweep": sweep,
        }
        # each set has draws of its own, which no other seed gives the other set
        self.source = source(**missing(source, common), seed=2 * seed, protocol="last")
        self.target = target(
            **missing(target, {**common, "val_person_ids": val_person_ids}),
            seed=2 * seed + 1,
            protocol=protocol,
            identities=identities,
        )
        check_source(self.source.splits, self.target.splits)
        self.camera_rule = self.target.camera_rule
        self.extra_map = self.target.extra_map

    @property
    def _trained(self) -> ImageToImageData:
        """The set whose samples are counted."""
        return self.target if self.train_on == "both" else self.source

    @property
    def spec(self) -> DataSpec:
        """Sizes of the target's training set, or of the source's if it alone is trained on."""
        return replace(self._trained.spec, num_source_person_ids=self.source.spec.num_person_ids)

    @property
    def is_labelled(self) -> bool:
        """Whether the identities of the samples that `spec` counts are known."""
        return self._trained.is_labelled

    @property
    def train_person_id(self) -> Tensor | None:
        """``[num_samples]`` true labels of the samples that `spec` counts, for analysis only.

        None where nobody knows them.
        """
        return self._trained.train_person_id

    @property
    def train_image_person_id(self) -> Tensor | None:
        """``[num_images]`` true labels: a training sample is an image."""
        return self.train_person_id

    @property
    def plan_labels(self) -> PlanLabels | None:
        """Gives the pseudo labels of an epoch's batches of the samples that `spec` counts."""
        return self._trained.plan_labels

    @plan_labels.setter
    def plan_labels(self, labels: PlanLabels | None) -> None:
        self._trained.plan_labels = labels

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to the target's queries and gallery before a model sees them."""
        return self.target.preprocessing

    @property
    def fingerprint(self) -> str:
        """Hashes of both sets."""
        return f"{self.source.fingerprint}-{self.target.fingerprint}"

    def is_fingerprint(self, stored: str) -> bool:
        """Return whether a run's fingerprint is that of both sets."""
        source, _, target = stored.partition("-")
        return self.source.is_fingerprint(source) and self.target.is_fingerprint(target)

    @property
    def notices(self) -> list[str]:
        """What the user should be told about either set."""
        return [
            f"{name}: {notice}"
            for name, data in (("source", self.source), ("target", self.target))
            for notice in data.notices
        ]

    def describe(self) -> dict[str, Any]:
        """Return what the run record says about the data, as plain values."""
        return {
            "dataset": f"{self.source.splits.dataset} to {self.target.splits.dataset}",
            "fingerprint": self.fingerprint,
            "train_on": self.train_on,
            "protocol": self.target.protocol,
            "source": self.source.describe(),
            "target": self.target.describe(),
            "notices": self.notices,
        }

    def lacks_files(self) -> bool:
        """Return whether an image of either set has no file, and has to."""
        return self.source.lacks_files() or self.target.lacks_files()

    def setup(self, stage: str) -> None:
        """Decode, or look for, everything that a run will read; broken images stop here."""
        for data in (self.source, self.target):
            data.check_memory(stage)
        if stage == "fit":
            self.target.check_protocol()
            self.source.prepare_training()
            if self.train_on == "both":
                self.target.prepare_training()
        self.target.prepare_evaluation()

    def train_dataloader(self) -> SourceTargetLoader | EpochLoader:
        """Return the training batches, `SourceTargetBatch`, or the source's `ImageBatch`."""
        if self.train_on == "source":
            return self.source.train_dataloader()
        return SourceTargetLoader(self.source.train_dataloader(), self.target.train_dataloader())

    def sweep_dataloader(self, epoch: int) -> EpochLoader:
        """Return one pass over every sample that `spec` counts, for the sweep of ``epoch``."""
        if self.train_on == "source" and self.source.sweep == "clean":
            raise ValueError(
                "data.sweep=clean with data.train_on=source: batches without augmentation are "
                "taken for the target's. Pass data.sweep=training."
            )
        return self._trained.sweep_dataloader(epoch)

    def val_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self.target.val_dataloader()

    def test_dataloader(self) -> list[EpochLoader]:
        """Return a query and a gallery loader per split, as `evaluation_roles` lists them."""
        return self.target.test_dataloader()

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        """Return (split, "query" or "gallery") of each loader of ``stage``."""
        return self.target.evaluation_roles(stage)

    def num_evaluation_samples(self, split: str, role: str) -> int:
        """Return the number of images of a split with role "query" or "gallery"."""
        return self.target.num_evaluation_samples(split, role)

    def same_pictures(self, split: str) -> tuple[Index, Index] | None:
        """Return the picture that each query and each gallery image of a split is, by number."""
        return self.target.same_pictures(split)

    def evaluation_queries(self, split: str) -> list[Path]:
        """Return the file of every query image, by `sample_index`."""
        return self.target.evaluation_queries(split)

    @property
    def people(self) -> Mapping[int, str]:
        """What the target calls its people, by number; none where it is the number."""
        return self.target.people

    def evaluation_images(self, split: str) -> list[Path]:
        """Return the file of every gallery image, by `sample_index`."""
        return self.target.evaluation_images(split)

    def transform_batch(
        self, batch: ImageBatch | SourceTargetBatch
    ) -> ImageBatch | SourceTargetBatch:
        """Return the batch as methods want it: augmented if it has keys, and normalised.

        Each set has its own normalisation.
        """
        if isinstance(batch, SourceTargetBatch):
            return SourceTargetBatch(
                self.source.transform_batch(batch.source),
                self.target.transform_batch(batch.target),
            )
        # with keys it is trained on, without it is evaluated
        trains_on_source = self.train_on == "source" and batch.key is not None
        return (self.source if trains_on_source else self.target).transform_batch(batch)

    def on_after_batch_transfer(
        self, batch: ImageBatch | SourceTargetBatch, dataloader_idx: int
    ) -> ImageBatch | SourceTargetBatch:
        """Transform a batch on the device it has come to."""
        return self.transform_batch(batch)
