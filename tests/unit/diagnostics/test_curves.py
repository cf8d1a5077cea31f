from __future__ import annotations

import math
from pathlib import Path

import pytest

from crosswalk.config.build import instantiate
from crosswalk.config.compose import diagnostics_of
from crosswalk.config.search import group_values
from crosswalk.diagnostics.agreement import Agreement
from crosswalk.diagnostics.figures import Line, line_of
from crosswalk.diagnostics.key_similarity import KeySimilarity
from tests.unit.diagnostics.pages import folder_with, section_of, titles


@pytest.mark.parametrize("method", group_values("method"))
def test_what_a_method_lists_shows_nothing_of_a_run_that_left_nothing(
    method: str, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path, [{"step": 1, "epoch": 0, "train/loss": 2.0}])

    for node in diagnostics_of({"choices": {"method": method}}):
        assert instantiate(node).section(folder) is None


def test_the_last_value_of_each_epoch_counts() -> None:
    history = [
        {"epoch": 1, "a": 1.0},
        {"epoch": 1, "a": 2.0},
        {"epoch": 2, "b": 5.0},
        {"epoch": 3, "a": "inf"},
        {"epoch": None, "a": 9.0},
    ]

    assert line_of(history, "a") == Line((1, 3), (2.0, math.inf))
    assert line_of(history, "c") == Line((), ())


def test_agreement_is_shown_with_its_pairs(tmp_path: Path) -> None:
    line = {
        "train/agreement_threshold": 0.5,
        "train/positive_pairs": 3.0,
        "train/true_positive_rate": 0.25,
    }
    folder = folder_with(tmp_path, [{"epoch": 0, **line}])

    assert titles(section_of(Agreement(), folder)) == [
        *("Agreement threshold by epoch", "Positive pairs by epoch", "True positive rate by epoch"),
    ]


def test_similarities_to_keys_share_a_panel(tmp_path: Path) -> None:
    line = {"train/positive_similarity": 0.75, "train/negative_similarity": 0.25}
    folder = folder_with(tmp_path, [{"epoch": 0, **line}])

    section = section_of(KeySimilarity(), folder)

    assert titles(section) == ["Similarity to keys by epoch"]
    assert "partner&#39;s key" in section.body or "partner's key" in section.body
