"""Retrieval metrics of a real Trainer on one process equal those on two and three."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from crosswalk.distributed import rank_and_world_size, rank_slice
from crosswalk.files import read_arrays
from crosswalk.metrics.reranking import k_reciprocal
from crosswalk.run.callbacks.retrieval import RetrievalMetrics
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import ImageBatch, TextBatch
from tests.ddp.processes import run_on_processes


def draw(num_queries: int, num_gallery: int) -> dict[str, Any]:
    """Vectors of two views for persons of two or three captions and images each."""
    random = torch.Generator().manual_seed(17)
    person_id = torch.arange(max(num_queries, num_gallery)) // 2 % 5
    centre = torch.randn(5, 8, generator=random)
    samples = {}
    for role, number in (("query", num_queries), ("gallery", num_gallery)):
        person = person_id[:number]
        vectors = centre[person] + 0.8 * torch.randn(number, 8, generator=random)
        samples[role] = (vectors, person, torch.full_like(person, -1), torch.arange(number))
    return samples


class ToyModule(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(8))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.scale * batch).square().mean()

    def validation_step(
        self, batch: TextBatch | ImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        vectors = self.scale * (batch.tokens if isinstance(batch, TextBatch) else batch.image)
        return {"global": normalize(vectors[:, :5]), "token_selection": normalize(vectors[:, 5:])}

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class ToyData(L.LightningDataModule):
    """Each process loads its own slice; ``surplus`` samples are given to both neighbours."""

    directions = ("text_to_image", "image_to_text")
    camera_rule = False
    extra_map = ("trapezoidal", "first_hit_bonus")

    def __init__(self, samples: dict[str, Any], surplus: int = 0) -> None:
        super().__init__()
        self.samples = samples
        self.surplus = surplus
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def same_pictures(self, split: str) -> None:
        return None

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        split = {"validate": "val", "test": "test"}[stage]
        return [(split, "query"), (split, "gallery")]

    def num_evaluation_samples(self, split: str, role: str) -> int:
        return len(self.samples[role][0])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([torch.arange(1.0, 9.0)] * 4, batch_size=2)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [self._loader("query"), self._loader("gallery")]

    test_dataloader = val_dataloader

    def _loader(self, role: str) -> DataLoader[Any]:
        vectors, person_id, camera_id, sample_index = self.samples[role]
        start, stop = rank_slice(len(vectors), *rank_and_world_size())
        batches: list[Any] = []
        for first in range(start, min(stop + self.surplus, len(vectors)), 4):
            part = slice(first, min(first + 4, stop + self.surplus))
            ids = (person_id[part], camera_id[part], sample_index[part])
            length = torch.ones(len(ids[0]))
            if role == "query":
                batches.append(TextBatch(vectors[part], length, *ids))
            else:
                batches.append(ImageBatch(vectors[part], *ids, None))
        return DataLoader(batches, batch_size=None)


def evaluate(samples: dict[str, Any], surplus: int, folder: str) -> dict[str, Any]:
    """Train two epochs with validation, then test; return the metrics of both."""
    _, world_size = rank_and_world_size()
    rerank = partial(k_reciprocal, k1=4, k2=2, distance_weight=0.3)
    metrics = RetrievalMetrics(topk=3, reranking=rerank)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        max_epochs=2,
        num_sanity_val_steps=2,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[metrics],
        enable_checkpointing=False,
    )
    data = ToyData(samples, surplus)
    trainer.fit(ToyModule(), datamodule=data)
    validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.test(ToyModule(), datamodule=data, verbose=False)
    tested = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"validated": validated, "tested": tested}


@pytest.mark.parametrize(
    ("num_queries", "num_gallery", "world_size", "surplus"),
    [(11, 7, 2, 0), (7, 11, 3, 0), (11, 2, 3, 0), (11, 7, 2, 1)],
    ids=["two", "three", "a process without images", "samples seen twice"],
)
def test_metrics_are_the_same_on_any_number_of_processes(
    num_queries: int, num_gallery: int, world_size: int, surplus: int, tmp_path: Path
) -> None:
    samples = draw(num_queries, num_gallery)

    several = run_on_processes(evaluate, world_size, samples, surplus, str(tmp_path / "several"))

    alone = evaluate(samples, 0, str(tmp_path / "alone"))
    assert 0 < alone["tested"]["test/image_to_text/reranked/map"] <= 1
    for other in several:
        np.testing.assert_equal(other, alone)
    files = {path.stem for path in (tmp_path / "several" / "queries").iterdir()}
    assert files == {"val-last", "val-best", "test-current"}
    for name in files:
        ours, expected = (
            RunFolder(tmp_path / run).queries(*name.split("-")) for run in ("several", "alone")
        )
        assert ours.keys() == expected.keys()
        directions = {name for name in ours if not name.startswith("view/")}
        assert directions == {"text_to_image", "image_to_text"}
        for direction, results in ours.items():
            for field, array in results._asdict().items():
                # Scores come from weights that were averaged over processes in float32.
                atol = 1e-6 if field.endswith("_score") else 0
                np.testing.assert_allclose(
                    array, getattr(expected[direction], field), rtol=0, atol=atol, err_msg=field
                )
    ours, expected = (
        read_arrays(tmp_path / run / "diagnostics" / "embeddings-current.npz")
        for run in ("several", "alone")
    )
    assert ours.keys() == expected.keys()
    for name, array in ours.items():
        atol = 2e-3 if name == "embedding" else 0  # half precision
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=atol, err_msg=name)
