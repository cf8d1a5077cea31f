from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image

from crosswalk.metrics.queries import QueryResults
from crosswalk.metrics.retrieval import RetrievalResult
from crosswalk.run.callbacks.ranking_lists import (
    LARGEST,
    QUERY,
    RIGHT,
    WRONG,
    RankingLists,
    framed_picture,
)
from crosswalk.run.callbacks.retrieval import RetrievalMetrics
from crosswalk.run.ranking_lists import choose_queries, ranking_lists

NUM_QUERIES = 9


def draw_results(topk: int = 3) -> QueryResults:
    """Query i shows person i and has AP i / 10; query 4 has no match. Image j shows person j."""
    queries = np.arange(NUM_QUERIES)
    has_match = queries != 4
    top_index = (queries[:, None] + np.arange(topk)) % NUM_QUERIES
    return QueryResults(
        sample_index=queries,
        person_id=queries,
        num_matches=has_match.astype(np.int64),
        first_hit=has_match.astype(np.int64),
        average_precision=np.where(has_match, queries / 10, np.nan),
        inverse_negative_penalty=np.where(has_match, queries / 10, np.nan),
        top_index=top_index,
        top_person_id=top_index,
        top_score=1 - np.arange(topk) / 10 + 0 * queries[:, None],
    )


def draw_images(folder: Path) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(NUM_QUERIES)]
    for path in paths:
        Image.effect_noise((128, 384), 40).save(path)
    return paths


def test_random_queries_stay_the_same_when_the_results_change() -> None:
    before = draw_results()
    after = before._replace(average_precision=before.average_precision[::-1].copy())

    chosen = [
        choose_queries(each, num_random=3, num_hardest=2, seed=5).tolist()
        for each in (before, after)
    ]

    assert chosen[0][:3] == chosen[1][:3] == sorted(set(chosen[0][:3]))
    assert chosen[0][3:] != chosen[1][3:]


def test_hardest_queries_have_a_match_and_are_not_drawn_twice() -> None:
    chosen = choose_queries(draw_results(), num_random=2, num_hardest=100, seed=0).tolist()

    rest = [query for query in range(NUM_QUERIES) if query != 4 and query not in chosen[:2]]
    assert chosen[2:] == rest  # AP grows with the number of the query


def test_lists_are_cut_and_say_what_is_a_match(tmp_path: Path) -> None:
    results = draw_results()
    results.top_index[8, 1:] = -1
    captions = [f"caption {number}" for number in range(NUM_QUERIES)]

    two, eight = ranking_lists(results, [2, 8], captions, draw_images(tmp_path), length=2)

    assert (two.query, two.person_id, two.first_hit, two.average_precision) == (
        "caption 2",
        2,
        1,
        0.2,
    )
    assert [found.item.name for found in two.found] == ["2.png", "3.png"]
    assert [found.is_match for found in two.found] == [True, False]
    assert [found.item.name for found in eight.found] == ["8.png"]


@pytest.mark.parametrize("colour", [RIGHT, WRONG, QUERY])
@pytest.mark.parametrize("size", [(500, 400), (60, 700), (30, 70)])
def test_pictures_are_small_and_framed(
    size: tuple[int, int], colour: tuple[int, int, int], tmp_path: Path
) -> None:
    Image.new("L", size, 128).save(tmp_path / "grey.png")

    picture = framed_picture(tmp_path / "grey.png", colour)

    width, height = picture.size
    assert width <= LARGEST[0]
    assert height <= LARGEST[1]
    corners = [(0, 0), (width - 1, height - 1), (3, height // 2)]
    assert [picture.getpixel(corner) for corner in corners] == [colour] * 3
    assert picture.getpixel((width // 2, height // 2)) == (128, 128, 128)


def make_trainer(
    folder: Path, loggers: list[Any], direction: str = "text_to_image", **queries: object
) -> Any:  # noqa: ANN401
    """What the callback sees of a trainer that tests best.ckpt."""
    metrics = RetrievalMetrics()
    metrics.results = {"test": RetrievalResult({}, {direction: draw_results()})}
    images = draw_images(folder)
    captions = [f"test {number}" for number in range(NUM_QUERIES)]
    data = SimpleNamespace(
        directions=(direction, "image_to_text"),
        evaluation_images=lambda split: images,
        **(queries or {"evaluation_captions": lambda split: captions}),
    )
    return SimpleNamespace(
        loggers=loggers,
        is_global_zero=True,
        callbacks=[metrics],
        datamodule=data,
        ckpt_path=str(folder / "best.ckpt"),
    )


@pytest.fixture
def wandb_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WandbLogger:
    pytest.importorskip("wandb")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    # mode=, not offline=: W&B reads the environment once per process
    return WandbLogger(save_dir=tmp_path, mode="offline", project="crosswalk-test")


def test_a_table_with_pictures_goes_to_wandb_without_network(
    tmp_path: Path, wandb_logger: WandbLogger
) -> None:
    import wandb

    trainer = make_trainer(tmp_path, [CSVLogger(tmp_path), wandb_logger])

    RankingLists(num_random=2, num_hardest=3, length=2).on_test_epoch_end(trainer, None)  # type: ignore[arg-type]
    wandb.finish()

    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/ranking_lists/*.table.json")
    content = json.loads(table.read_text())
    assert table.name.startswith("test-best")
    assert content["columns"] == [
        *("sample", "choice", "caption", "person", "rank of first hit", "AP"),
        *("#1", "#2"),
    ]
    assert [row[1] for row in content["data"]] == ["random"] * 2 + ["hardest"] * 3
    assert all(row[2] == f"test {row[0]}" for row in content["data"])
    staged = [path.read_bytes() for path in tmp_path.glob("artifacts/staging/*")]
    pictures = [content for content in staged if content.startswith(b"\xff\xd8")]  # JPEG
    assert len(pictures) == 5 * 2
    assert max(map(len, pictures)) < 20_000


def test_queries_that_are_images_are_shown_ahead_of_what_was_found(
    tmp_path: Path, wandb_logger: WandbLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: dict[str, Any] = {}
    monkeypatch.setattr(wandb_logger, "log_table", lambda key, **table: tables.update({key: table}))
    (tmp_path / "queries").mkdir()
    files = draw_images(tmp_path / "queries")
    trainer = make_trainer(
        tmp_path, [wandb_logger], "image_to_image", evaluation_queries=lambda split: files
    )
    trainer.callbacks[0].tag = "start"

    RankingLists(num_random=1, num_hardest=1, length=2).on_test_epoch_end(trainer, None)  # type: ignore[arg-type]

    table = tables["ranking_lists/test-start"]
    assert table["columns"] == [
        *("sample", "choice", "person", "rank of first hit", "AP"),
        *("query", "#1", "#2"),
    ]
    assert len(table["data"]) == 2
    for row in table["data"]:
        assert [picture._caption for picture in row[5:]] == [f"{row[0]}.png", "1.000", "0.900"]
        frames = [picture.image.getpixel((0, 0)) for picture in row[5:]]  # JPEG: not exact
        assert [max(range(3), key=frame.__getitem__) for frame in frames] == [2, 1, 0]


def test_data_that_cannot_name_their_queries_are_refused(
    tmp_path: Path, wandb_logger: WandbLogger
) -> None:
    trainer = make_trainer(tmp_path, [wandb_logger], evaluation_captions=None)
    del trainer.datamodule.evaluation_captions

    with pytest.raises(RuntimeError, match=r"SimpleNamespace cannot name.*evaluation_queries"):
        RankingLists().on_test_epoch_end(trainer, None)  # type: ignore[arg-type]


def test_without_wandb_no_picture_is_opened(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, [CSVLogger(tmp_path)])
    for path in trainer.datamodule.evaluation_images("test"):
        path.unlink()

    RankingLists().on_test_epoch_end(trainer, None)  # type: ignore[arg-type]

    assert not list(tmp_path.glob("wandb*"))


def test_persons_are_called_what_the_data_call_them(tmp_path: Path) -> None:
    captions = [f"caption {number}" for number in range(NUM_QUERIES)]

    lists = ranking_lists(
        draw_results(), [2, 3], captions, draw_images(tmp_path), people={2: "0002"}
    )

    assert [each.person_id for each in lists] == ["0002", 3]
    assert [found.is_match for found in lists[0].found][:2] == [True, False]
