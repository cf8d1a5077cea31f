from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor
from torch.utils.data import DataLoader

from crosswalk.files import read_arrays
from crosswalk.metrics.reranking import cross_modal
from crosswalk.metrics.samples import DrawnSamples
from crosswalk.run.callbacks.retrieval import RetrievalMetrics
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import ImageBatch, TextBatch

PERSON_ID = torch.arange(5)


class Improving(L.LightningModule):
    """Ranks one image more right in every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.num_evaluations = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight * batch.sum()

    def validation_step(
        self, batch: TextBatch | ImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        if isinstance(batch, TextBatch):
            return {"global": torch.eye(5)[batch.person_id]}
        right = (self.current_epoch % 4) + 1 if self.trainer.state.fn == "fit" else 3
        wrong = torch.where(batch.person_id < right, batch.person_id, (batch.person_id + 1) % 5)
        return {"global": torch.eye(5)[wrong]}

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(L.LightningDataModule):
    directions: tuple[str, ...] = ("text_to_image", "image_to_text")
    camera_rule = False
    extra_map: tuple[str, ...] = ()

    def same_pictures(self, split: str) -> None:
        return None

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        splits = {"validate": ["val"], "test": ["val", "test"]}[stage]
        return [(split, role) for split in splits for role in ("query", "gallery")]

    def num_evaluation_samples(self, split: str, role: str) -> int:
        return 5

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([torch.ones(1)])

    def val_dataloader(self) -> list[DataLoader[Any]]:
        camera_id = torch.zeros_like(PERSON_ID)
        queries, gallery = [], []
        for part in (slice(0, 3), slice(3, 5)):
            ids = (PERSON_ID[part], camera_id[part], PERSON_ID[part])
            queries.append(TextBatch(PERSON_ID[part], PERSON_ID[part], *ids))
            gallery.append(ImageBatch(PERSON_ID[part], *ids, None))
        return [DataLoader(batches, batch_size=None) for batches in (queries, gallery)]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        return [*self.val_dataloader(), *self.val_dataloader()]


class ImageData(Data):
    """Queries by cameras 0 and 1, all gallery images by camera 0; nothing to validate."""

    directions = ("image_to_image",)
    camera_rule = True
    extra_map = ("trapezoidal", "first_hit_bonus")

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return []

    def test_dataloader(self) -> list[DataLoader[Any]]:
        query_camera_id = torch.tensor([0, 1, 1, 1, 1])
        batches = [
            ImageBatch(PERSON_ID, PERSON_ID, camera_id, PERSON_ID, None)
            for camera_id in (query_camera_id, torch.zeros_like(PERSON_ID))
        ]
        return [DataLoader([batch], batch_size=None) for batch in batches]

    def same_pictures(self, split: str) -> None:
        return None

    def evaluation_roles(self, stage: str) -> list[tuple[str, str]]:
        return [("test", "query"), ("test", "gallery")] if stage == "test" else []


class Shifted(Improving):
    """Takes persons 3 and 4 for each other in the gallery."""

    def test_step(
        self, batch: ImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        shown = torch.tensor([0, 1, 2, 4, 3]) if dataloader_idx else PERSON_ID
        return {"global": torch.eye(5)[shown[batch.person_id]]}


def make_trainer(folder: Path, *callbacks: L.Callback, **settings: object) -> L.Trainer:
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 3,
            "logger": False,
            "enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
            "callbacks": list(callbacks),
            **settings,
        }
    )


class Logged(DummyLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((step, dict(metrics)))


def test_what_is_measured_reaches_loggers_and_results_unrounded(tmp_path: Path) -> None:
    callback, logger = RetrievalMetrics(), Logged()
    trainer = make_trainer(tmp_path, callback, logger=logger, max_epochs=1)

    trainer.fit(Improving(), datamodule=Data())

    (line,) = [line for line in logger.lines if "val/rank1" in line[1]]
    rounded = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert line == (0, {**callback.measured(), "epoch": 0})
    assert line[1]["val/rank1"] == 1 / 5 != rounded["val/rank1"]
    assert {name: float(np.float32(line[1][name])) for name in rounded} == rounded


def test_metrics_are_logged_and_a_checkpoint_can_be_chosen_by_them(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, monitor="val/rank1", mode="max", filename="{epoch}")
    trainer = make_trainer(tmp_path, RetrievalMetrics(), checkpoint, max_epochs=6)

    trainer.fit(Improving(), datamodule=Data())

    assert Path(checkpoint.best_model_path).name == "epoch=3.ckpt"  # then it starts again at 1/5
    assert float(checkpoint.best_model_score) == pytest.approx(4 / 5)
    assert float(trainer.callback_metrics["val/rank1"]) == pytest.approx(2 / 5)
    assert float(trainer.callback_metrics["val/image_to_text/rank1"]) == pytest.approx(2 / 5)
    assert float(trainer.callback_metrics["val/queries_without_match"]) == 0


def test_files_hold_the_last_and_the_best_validation(tmp_path: Path) -> None:
    make_trainer(tmp_path, RetrievalMetrics(), max_epochs=5).fit(Improving(), datamodule=Data())

    hits = {
        tag: (RunFolder(tmp_path).queries("val", tag)["text_to_image"].first_hit == 1)
        for tag in ("best", "last")
    }
    assert hits["best"].tolist() == [True, True, True, True, False]
    assert hits["last"].tolist() == [True, False, False, False, False]
    assert {path.name for path in (tmp_path / "queries").iterdir()} == {
        "val-best.npz",
        "val-last.npz",
    }


def test_the_best_value_is_remembered_by_a_resumed_run() -> None:
    metrics, resumed = RetrievalMetrics(), RetrievalMetrics()
    metrics._best = {"val": 0.75}

    resumed.load_state_dict(metrics.state_dict())

    assert resumed._best == {"val": 0.75}


def test_tests_write_one_file_per_split_named_after_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="best")
    trainer = make_trainer(tmp_path, checkpoint, RetrievalMetrics(folder=tmp_path / "run"))
    trainer.fit(Improving(), datamodule=Data())

    trainer.test(Improving(), Data(), ckpt_path=checkpoint.best_model_path, verbose=False)

    names = {path.name for path in (tmp_path / "run" / "queries").iterdir()}
    assert names >= {"val-best.npz", "test-best.npz"}
    queries = RunFolder(tmp_path / "run").queries("test", "best")
    assert queries.keys() == {"text_to_image", "image_to_text"}
    assert (queries["text_to_image"].first_hit == 1).tolist() == [True, True, True, False, False]
    assert float(trainer.callback_metrics["test/rank1"]) == pytest.approx(3 / 5)


def test_a_test_keeps_embeddings_of_a_few_persons_of_the_test_split(tmp_path: Path) -> None:
    metrics = RetrievalMetrics(folder=tmp_path / "run", num_drawn_persons=3)
    trainer = make_trainer(tmp_path, metrics, max_epochs=1)
    trainer.fit(Improving(), datamodule=Data())
    assert not (tmp_path / "run" / "diagnostics").exists()

    trainer.test(Improving(), Data(), verbose=False)

    (file,) = (tmp_path / "run" / "diagnostics").iterdir()
    assert file.name == "embeddings-current.npz"
    drawn = DrawnSamples(**read_arrays(file))
    assert drawn.embedding.dtype == np.float16
    assert drawn.is_query.tolist() == [True] * 3 + [False] * 3
    assert drawn.person_id[:3].tolist() == drawn.person_id[3:].tolist()
    np.testing.assert_array_equal(drawn.embedding[:3], np.eye(5)[drawn.person_id[:3]])


def test_sanity_check_and_fast_dev_run_measure_nothing(tmp_path: Path) -> None:
    metrics = RetrievalMetrics()
    trainer = make_trainer(tmp_path, metrics, max_epochs=0, num_sanity_val_steps=1)
    trainer.fit(Improving(), datamodule=Data())
    make_trainer(tmp_path, metrics, fast_dev_run=True).fit(Improving(), datamodule=Data())

    assert metrics.results == {}
    assert not (tmp_path / "queries").exists()


def test_a_part_of_the_split_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, RetrievalMetrics(), limit_val_batches=1)

    with pytest.raises(RuntimeError, match=r"saw 3 different query samples.*limit_val_batches"):
        trainer.validate(Improving(), datamodule=Data(), verbose=False)


def test_single_loaders_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, RetrievalMetrics())

    with pytest.raises(RuntimeError, match="datamodule="):
        trainer.validate(Improving(), dataloaders=Data().val_dataloader(), verbose=False)


def test_an_unknown_monitor_is_refused_with_the_choice(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, RetrievalMetrics(monitor="rank2"))

    with pytest.raises(ValueError, match=r"monitor='rank2'.*'map', 'minp', .*'rank1'"):
        trainer.fit(Improving(), datamodule=Data())


def test_the_data_say_what_is_looked_for_in_what_and_by_which_rules(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, RetrievalMetrics(monitor=None), max_epochs=1)

    trainer.test(Shifted(), ImageData(), verbose=False)

    # Query 0 has the camera of its match, 1 and 2 find theirs first. Queries 3 and 4 find each
    # other's first; theirs is one of four equally unlike images, the last in the gallery.
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert values["test/queries_without_match"] == 1
    assert values["test/rank1"] == pytest.approx(2 / 4)
    assert values["test/map"] == pytest.approx((1 + 1 + 1 / 5 + 1 / 5) / 4)
    assert values["test/map_first_hit_bonus"] == pytest.approx((1 + 1 + 2 * (1 + 1 / 5) / 2) / 4)
    assert values["test/map_trapezoidal"] == pytest.approx((1 + 1 + 2 * (0 + 1 / 5) / 2) / 4)
    assert not any("image_to_text" in name for name in values)
    assert RunFolder(tmp_path).queries("test", "current").keys() == {"image_to_image"}


def test_without_validation_nothing_is_measured_until_the_test(tmp_path: Path) -> None:
    metrics = RetrievalMetrics(monitor=None)
    trainer = make_trainer(tmp_path, metrics, max_epochs=2)

    trainer.fit(Shifted(), datamodule=ImageData())

    assert metrics.results == {}
    assert not (tmp_path / "queries").exists()
    trainer.test(Shifted(), ImageData(), verbose=False)
    assert float(trainer.callback_metrics["test/rank1"]) == pytest.approx(2 / 4)


def test_without_a_monitor_no_validation_is_the_best(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, RetrievalMetrics(monitor=None), max_epochs=2)

    trainer.fit(Improving(), datamodule=Data())

    assert [path.name for path in (tmp_path / "queries").iterdir()] == ["val-last.npz"]


def test_a_re_ranking_is_measured_in_tests_only(tmp_path: Path) -> None:
    rerank = partial(cross_modal, num_neighbours=1, weight=0.5)
    trainer = make_trainer(tmp_path, RetrievalMetrics(reranking=rerank), max_epochs=1)

    trainer.fit(Improving(), datamodule=Data())
    assert not any("reranked" in name for name in trainer.callback_metrics)
    trainer.test(Improving(), Data(), verbose=False)

    # The image found first is its own neighbour and the caption's: what is right stays right.
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("val/reranked/rank1", "test/reranked/rank1"):
        assert values[name] == values[name.replace("reranked/", "")] == pytest.approx(3 / 5)
    assert values["test/image_to_text/reranked/rank1"] == pytest.approx(3 / 5)


def test_missing_results_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"val-last\.npz is missing.*crosswalk evaluate"):
        RunFolder(tmp_path).queries("val", "last")


def test_saved_lists_hold_sample_indices_and_scores(tmp_path: Path) -> None:
    make_trainer(tmp_path, RetrievalMetrics(topk=2), max_epochs=1).fit(
        Improving(), None, None, Data()
    )

    results = RunFolder(tmp_path).queries("val", "last")["text_to_image"]
    assert results.top_index.tolist() == [[0, 4], [0, 1], [1, 0], [2, 0], [3, 0]]
    np.testing.assert_array_equal(results.top_score[1:], [[0, 0], [1, 0], [1, 0], [1, 0]])
