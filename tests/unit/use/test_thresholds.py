from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from crosswalk.metrics.open_set import FirstScores, figures
from crosswalk.use.thresholds import FAR, Thresholds, read_thresholds


def measured(number: int = 150, lead: float = 0.4, gallery: int = 60) -> Thresholds:
    absent = np.linspace(0.1, 0.3, number)
    scores = FirstScores(absent + lead, np.arange(number) % 3 > 0, absent, gallery)
    found = figures(scores, draws=20)
    return Thresholds(
        "it (best)", "0123456789abcdef", "own_pairs", "test", {"text_to_image": found}
    )


@pytest.mark.parametrize("number", [7, 150, 1200])
@pytest.mark.parametrize("lead", [0.0, 0.4])
def test_what_was_written_is_read_again(number: int, lead: float, tmp_path: Path) -> None:
    expected = measured(number, lead)

    expected.write(tmp_path / "thresholds.json")

    assert read_thresholds(tmp_path / "thresholds.json") == expected


def test_the_probability_is_the_logistic_function_of_the_score() -> None:
    found = measured()
    slope, intercept = (
        found.directions["text_to_image"].slope,
        found.directions["text_to_image"].intercept,
    )

    for score in (-1.0, 0.2, 0.31, 0.5):
        expected = 1 / (1 + math.exp(-(slope * score + intercept)))
        assert found.probability(score, "text_to_image") == pytest.approx(expected, abs=1e-12)
    assert found.probability(1e6, "text_to_image") == 1
    assert found.probability(-1e6, "text_to_image") == 0
    assert found.probability(0.5, "image_to_image") is None


def test_a_score_below_the_threshold_is_told_of_and_one_above_is_not() -> None:
    found = measured()
    threshold = found.directions["text_to_image"].rates[0.01].threshold.value

    assert found.note(threshold, "text_to_image", 60) == ""
    told = found.note(0.2, "text_to_image", 60)
    assert told == (
        f"probably not in this gallery (score 0.200; 1 % of people who are not there reach "
        f"{threshold:.3f})"
    )
    assert found.note(0.2, "image_to_image", 60) == ""


def test_a_score_that_is_more_often_of_those_who_are_there_is_perhaps_not() -> None:
    # absent people score low, but for a few, so that between them and the threshold most are there
    absent = np.where(np.arange(200) < 4, 0.6, 0.1)
    scores = FirstScores(np.linspace(0.4, 0.9, 200), absent > 0, absent, 60)
    found = Thresholds("m", None, "d", "test", {"text_to_image": figures(scores, draws=20)})

    assert found.directions["text_to_image"].tells
    assert found.note(0.55, "text_to_image", 60).startswith("perhaps not in this gallery (score")
    assert found.note(0.15, "text_to_image", 60).startswith("probably not in this gallery (score")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (60, ""),
        (60 * FAR - 1, ""),
        (60 * FAR, "measured on a gallery of 60, and among 240 first scores are higher"),
        (60 // FAR, "measured on a gallery of 60, and among 15 first scores are lower"),
        (60 // FAR + 1, ""),
    ],
)
def test_a_gallery_of_another_size_is_told_of(size: int, words: str) -> None:
    found = measured()

    above, below = (found.note(score, "text_to_image", size) for score in (0.9, 0.2))

    assert above == (f"the threshold was {words}" if words else "")
    assert below.startswith("probably not in this gallery")
    assert words in below
    assert ("measured" in below) is bool(words)


def test_scores_that_cannot_tell_are_said_not_to() -> None:
    assert measured(lead=0).note(0.9, "text_to_image", 60) == (
        "the scores of this model cannot tell whether the person is in this gallery"
    )
    assert "too few to measure it" in measured(9).note(0.9, "text_to_image", 60)


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["format"], 2, "in a format (2) that this one does not know"),
        (["fingerprint"], "0123456789ABCDEF", "fingerprint is '0123456789ABCDEF', not 16"),
        (["model"], "a\x1b[2Jb", "model is 'a"),
        (["model"], "a" * 301, "no name"),
        (["measured_on"], None, "measured_on is None, not entries by name"),
        (["measured_on", "data"], 3, "data is 3, no name"),
        (["text_to_image"], [], "text_to_image is [], not entries by name"),
        (["text_to_image", "queries"], True, "text_to_image: queries is True, no number"),
        (["text_to_image", "gallery"], -1, "text_to_image: gallery is -1, no number"),
        (["text_to_image", "tells"], 1, "text_to_image: tells is 1,"),
        (["text_to_image", "rates"], {}, "tells is True, and the rates are []"),
        (["text_to_image", "rates", "0.01", "threshold"], [0.1, 0.2], "threshold is [0.1, 0.2], n"),
        (["text_to_image", "auc"], [0.5, math.nan, 0.5], "auc is nan, no number"),
        (["text_to_image", "logistic", "slope"], 10**400, "slope is 1000"),
        (["text_to_image", "logistic", "slope"], "1", "slope is '1', no number"),
        (["text_to_image", "quantiles", "right"], [1, 2, [3]], "right is [3], no number"),
    ],
    ids=str,
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    keys: list[str], value: object, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "thresholds.json"
    content = json.loads(measured().to_json())
    node = content
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match=re.escape(str(path))) as damaged:
        read_thresholds(path)
    assert told in str(damaged.value)
    assert len(str(damaged.value)) < 400


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000, '{"format": 1}', "\xff"])
def test_what_is_no_such_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(ValueError, match=r"is damaged .*crosswalk calibrate <run> --out"):
        read_thresholds(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json is missing"):
        read_thresholds(tmp_path / "nowhere.json")
