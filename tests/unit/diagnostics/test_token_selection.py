from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from crosswalk.diagnostics.token_selection import (
    LARGEST,
    SelectedCaption,
    SelectedImage,
    TokenSelection,
    TokenSelectionRecord,
    choose_examples,
    dimmed,
    read_token_selection,
    token_selection_file,
    write_token_selection,
)
from crosswalk.metrics.queries import QueryResults
from crosswalk.metrics.retrieval import RetrievalResult
from crosswalk.run.callbacks.retrieval import RetrievalMetrics
from crosswalk.types import ImageBatch, TextBatch
from tests.unit.diagnostics.pages import folder_with, section_of

START, END = 98, 99
CAPTIONS = [[5, 6, 7], [4], [], [1, 2], [3, 8, 9]]


class Selecting(nn.Module):
    """Selects the brightest patches of a 3 x 2 grid, and the two largest ids of a caption."""

    patch_grid = (3, 2)

    def selected_patches(self, image: Tensor) -> Tensor:
        cells = image.mean(dim=1).reshape(-1, 3, image.shape[2] // 3, 2, image.shape[3] // 2)
        return cells.mean(dim=(2, 4)).flatten(1).argsort(dim=1, descending=True)[:, :2]

    def selected_words(self, tokens: Tensor) -> Tensor:
        words = tokens * (tokens < START)
        places = words.argsort(dim=1, descending=True, stable=True)[:, :2]
        return torch.where(words.gather(1, places) > 0, places, -1)


class Loader:
    def __init__(self, batch: Any) -> None:  # noqa: ANN401
        self.batch = batch

    def batch_of(self, index: NDArray[np.int64]) -> Any:  # noqa: ANN401
        rows = torch.from_numpy(index)
        return type(self.batch)(*(None if each is None else each[rows] for each in self.batch))


class Letters:
    def decode(self, ids: list[int]) -> str:
        return "".join(f"w{number} " for number in ids)


def text_batch() -> TextBatch:
    tokens = torch.zeros(len(CAPTIONS), 6, dtype=torch.int64)
    for row, words in zip(tokens, CAPTIONS, strict=True):
        row[: len(words) + 2] = torch.tensor([START, *words, END])
    none = torch.zeros(len(CAPTIONS), dtype=torch.int64)
    return TextBatch(tokens, none, none, none, none)


def image_batch() -> ImageBatch:
    """Image i is black but for patch i."""
    image = torch.zeros(4, 3, 9, 4, dtype=torch.uint8)
    for number in range(4):
        row, column = divmod(number, 2)
        image[number, :, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2] = 200
    none = torch.zeros(4, dtype=torch.int64)
    return ImageBatch(image, none, none, none, None)


def results() -> QueryResults:
    queries = np.arange(5)
    return QueryResults(
        sample_index=queries,
        person_id=queries,
        num_matches=np.array([1, 1, 1, 1, 0]),
        first_hit=np.array([1, 2, 3, 1, 0]),
        average_precision=np.array([0.9, 0.5, 0.1, 0.7, np.nan]),
        inverse_negative_penalty=np.zeros(5),
        top_index=np.array([[0, 3, 1], [2, 1, 0], [3, 0, -1], [1, 3, 2], [0, 1, 2]]),
        top_person_id=np.array([[0, 3, 1], [2, 1, 0], [3, 0, -1], [1, 3, 2], [0, 1, 2]]),
        top_score=np.zeros((5, 3)),
    )


def let_test(
    folder: Path, encoder: nn.Module, tokenizer: object, *, rank: int = 0, num_drawn: int = 0
) -> None:
    """Let a callback hear that the checkpoint "best" was tested."""
    metrics = RetrievalMetrics()
    metrics.tag = "best"
    metrics.results = {"test": RetrievalResult({}, {"text_to_image": results()})}
    roles = [(split, role) for split in ("val", "test") for role in ("query", "gallery")]
    data = SimpleNamespace(tokenizer=tokenizer, evaluation_roles=lambda stage: roles)
    trainer: Any = SimpleNamespace(
        is_global_zero=rank == 0,
        callbacks=[metrics],
        test_dataloaders=[None, None, Loader(text_batch()), Loader(image_batch())],
        strategy=SimpleNamespace(
            batch_to_device=lambda batch: (
                batch._replace(image=batch.image.float()) if hasattr(batch, "image") else batch
            )
        ),
        precision_plugin=SimpleNamespace(test_step_context=nullcontext),
    )
    module: Any = nn.Module()
    module.encoder = encoder
    diagnostic = TokenSelection(num_drawn=num_drawn, num_found=2)
    diagnostic.watch(folder, data)
    diagnostic.on_test_epoch_end(trainer, module)


def record_of(folder: Path) -> TokenSelectionRecord:
    let_test(folder, Selecting(), Letters())
    return read_token_selection(token_selection_file(folder, "best"))


def test_best_median_and_worst_queries_come_with_what_was_found_for_them(tmp_path: Path) -> None:
    best, median, worst = record_of(tmp_path).captions

    assert [each.choice for each in (best, median, worst)] == ["best", "median", "worst"]
    assert [each.sample_index for each in (best, median, worst)] == [0, 1, 2]
    assert best == SelectedCaption(
        0, "best", ("w5 ", "w6 ", "w7 "), (2, 1), 0.9, (0, 3), (True, False)
    )
    assert median.found == (2, 1)
    assert median.is_match == (False, True)
    assert worst.pieces == worst.selected == ()


def test_images_come_with_their_selected_patches_and_as_the_model_sees_them(tmp_path: Path) -> None:
    record = record_of(tmp_path)

    assert record.grid == (3, 2)
    assert sorted(record.images) == [0, 1, 2, 3]
    for number, image in record.images.items():
        assert image.selected[0] == number
        assert image.picture.size == (4, 9)
        row, column = divmod(number, 2)
        assert max(image.picture.getpixel((2 * column, 3 * row + 1))) > 120


def test_drawn_queries_are_the_same_whatever_was_found() -> None:
    before = results()
    after = before._replace(average_precision=before.average_precision[::-1].copy())
    after.average_precision[[0, 4]] = 0.3, np.nan

    drawn = [
        [
            row
            for row, choice in choose_examples(each, num_drawn=2, seed=3).items()
            if choice == "drawn"
        ]
        for each in (before, after)
    ]

    assert len(drawn[0]) == 2
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("num_drawn", [0, 1, 2, 3, 4, 9])
def test_no_query_is_shown_twice_and_none_without_a_match(num_drawn: int) -> None:
    chosen = choose_examples(results(), num_drawn=num_drawn, seed=0)

    assert 4 not in chosen
    assert len(chosen) == min(4, num_drawn + 3)


@pytest.mark.parametrize("case", ["other encoder", "other tokenizer", "other process"])
def test_others_are_left_alone(case: str, tmp_path: Path) -> None:
    let_test(
        tmp_path,
        nn.Linear(1, 1) if case == "other encoder" else Selecting(),
        object() if case == "other tokenizer" else Letters(),
        rank=int(case == "other process"),
    )

    assert list(tmp_path.iterdir()) == []


def test_records_of_ragged_captions_come_back_as_they_were(tmp_path: Path) -> None:
    captions = (
        SelectedCaption(3, "drawn", ("a ", "coat"), (1,), 0.25, (5, 8), (False, True)),
        SelectedCaption(4, "worst", ("hat ",), (0,), 0.0, (8,), (False,)),
    )
    images = {
        index: SelectedImage(Image.new("RGB", LARGEST, (index, 0, 0)), (0, 3)) for index in (5, 8)
    }

    write_token_selection(tmp_path / "some.npz", TokenSelectionRecord((2, 2), captions, images))
    found = read_token_selection(tmp_path / "some.npz")

    assert found.captions == captions
    assert {index: image.selected for index, image in found.images.items()} == {
        5: (0, 3),
        8: (0, 3),
    }


@pytest.mark.parametrize("size", [(6, 9), (7, 10), (64, 128)])
def test_patches_that_were_not_selected_are_dark(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (200, 100, 40))

    found = np.asarray(dimmed(SelectedImage(picture, (0, 5)), (3, 2)))

    for y in range(size[1]):
        for x in range(size[0]):
            patch = (y * 3 // size[1]) * 2 + x * 2 // size[0]
            expected = (200, 100, 40) if patch in (0, 5) else (50, 25, 10)
            assert tuple(found[y, x]) == expected


def test_captions_are_marked_and_images_framed(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [])
    captions = (
        SelectedCaption(
            3, "best", ("a ", "<b> ", "red ", "hat "), (3, 2), 0.5, (5, 8), (False, True)
        ),
    )
    pictures = {
        index: SelectedImage(Image.new("RGB", (8, 16), (index, 200, 0)), (0,)) for index in (5, 8)
    }
    record = TokenSelectionRecord((2, 1), captions, pictures)
    for tag in ("last", "best"):
        write_token_selection(token_selection_file(tmp_path, tag), record)

    section = section_of(TokenSelection(), folder)

    assert "a &lt;b&gt; <mark>red hat</mark>" in section.body
    assert "<b>best: query 3</b>, AP 50.0 %, 2 of\n4 pieces selected" in section.body
    assert "the best epoch finds" in section.body
    frames = re.findall(r'<img class="(\w+)" alt="([^"]*)" width="(\d+)"', section.body)
    assert [frame for frame, _, _ in frames] == ["wrong", "wrong", "right", "right"]
    assert frames[1][1] == "selected patches of image 5"
    assert frames[0][2] == "96"  # 12 times as large
