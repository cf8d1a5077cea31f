from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from crosswalk.diagnostics.masked_words import (
    Example,
    Guess,
    MaskedWords,
    MaskedWordsRecord,
    blanked,
    images_of,
    masked_words_file,
    write_masked_words,
)
from tests.unit.diagnostics.pages import folder_with, section_of


def record() -> MaskedWordsRecord:
    guesses = (
        Guess("red", "<|mask|>", ("red", "blue", "<i>"), (0.5, 0.25, 0.125)),
        Guess("coat", "hat", ("shoes", "coat", "hat"), (0.75, 0.2, 0.05)),
    )
    example = Example(("a ", "red ", "coat"), (1, 2), guesses, Image.new("RGB", (8, 16)))
    return MaskedWordsRecord(1234, 0.5, 0.25, (example,))


def test_the_page_has_shares_and_the_guesses_of_each_word(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [{"epoch": 1, "train/mlm_accuracy": 0.1}])
    write_masked_words(masked_words_file(folder.path, "last"), record())

    body = section_of(MaskedWords(), folder).body

    assert "Of 1,234 masked words of test captions the last epoch" in body
    assert "<b>50.0 %</b>" in body
    assert "25.0 %" in body
    assert "a <mark>red</mark> <mark>coat</mark>" in body
    assert "<td>✓ red 50 %</td><td>blue 25 %</td><td>&lt;i&gt; 12 %</td>" in body
    assert "<b>coat</b></td><td>hat</td><td>shoes 75 %</td><td>✓ coat 20 %</td>" in body
    assert "Masked words guessed" in body


def test_a_run_that_guessed_nothing_has_no_section(tmp_path: Path) -> None:
    assert MaskedWords().section(folder_with(tmp_path, [{"epoch": 1, "train/loss": 1.0}])) is None


def test_words_within_a_sentence_are_escaped() -> None:
    example = Example(("<b> ", "x "), (0,), (), Image.new("RGB", (2, 2)))

    assert str(blanked(example)) == "<mark>&lt;b&gt;</mark> x"


@pytest.mark.parametrize(
    ("captions", "images", "own", "other"),
    [
        ([3, 3, 5], [5, 3, 3], [1, 1, 0], [0, 0, 1]),
        ([4], [4, 4], [0], [-1]),  # nobody else
        ([4, 2], [2], [-1, 0], [0, -1]),
    ],
)
def test_every_caption_has_an_image_of_its_person_and_one_of_another(
    captions: list[int], images: list[int], own: list[int], other: list[int]
) -> None:
    found = images_of(torch.tensor(captions), torch.tensor(images))

    assert [each.tolist() for each in found] == [own, other]
