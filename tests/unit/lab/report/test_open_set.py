from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.lab.report.open_set import open_set_section
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.run_folder import RunFolder


def make_run(folder: Path, results: QueryResults | None, direction: str) -> RunFolder:
    run = RunFolder(folder)
    run.save_config(to_plain(compose()))
    if results is not None:
        run.save_queries("test", "best", {direction: results, "view/global": results})
    return run


def make_results(number: int, lead: float) -> QueryResults:
    """Every third query finds somebody else."""
    absent = np.linspace(0.1, 0.4, number)
    hit = np.where(np.arange(number) % 3, 1, 2)
    best = np.where(hit == 1, absent + lead, absent)
    ids, nothing = np.arange(number), np.zeros(number)
    lists = np.zeros((number, 1))
    return QueryResults(
        *[ids] * 2, hit, hit, nothing, nothing, *[lists] * 3, best, absent, np.full(number, 77)
    )


@pytest.mark.parametrize(("lead", "tells"), [(0.5, "can tell"), (0.01, "cannot tell")])
def test_the_verdict_stands_above_the_heaps_and_their_threshold(
    lead: float, tells: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, make_results(300, lead), "text_to_image")

    body = open_set_section(run).body

    assert body.index(f"The scores {tells} whether a person is in the gallery") < body.index("<svg")
    assert body.count("<svg") == 1
    for name in ("absent (300)", "wrong (100)", "right (200)"):
        assert name in body
    assert "The best epoch on test" in body
    # three of 300 may pass, so the fourth highest of the absent scores is just below it
    results = make_results(300, lead)
    assert results.best_score is not None
    refused = np.linspace(0.1, 0.4, 300)[-4]
    assert f"{refused:.3f} (" in body
    assert f"{100 * np.mean(results.best_score > refused):.1f} % (" in body
    assert "needs 1,000 absent queries, not 300" in body


def test_a_run_of_an_earlier_release_is_told_how_to_get_the_scores(tmp_path: Path) -> None:
    old = make_results(5, 0.1)._replace(best_score=None, best_other_score=None)
    run = make_run(tmp_path, old, "image_to_image")

    body = open_set_section(run).body

    assert f"<code>crosswalk evaluate {tmp_path}</code> writes them" in body
    assert f"<code>crosswalk report {tmp_path}</code>" in body


def test_too_few_queries_are_shown_without_a_threshold(tmp_path: Path) -> None:
    run = make_run(tmp_path, make_results(6, 0.1), "image_to_image")

    body = open_set_section(run).body

    assert "needs 100 queries without their person, and there are 6" in body
    assert body.count("<svg") == 1


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    alone = make_results(6, 0.1)._replace(best_other_score=np.full(6, -np.inf))

    assert "0 have not" in open_set_section(make_run(tmp_path, alone, "image_to_image")).body
    nothing = make_run(tmp_path / "other", None, "")
    assert "Nothing was ranked yet" in open_set_section(nothing).body
