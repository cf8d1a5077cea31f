from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from crosswalk.cli import main
from crosswalk.config.compose import compose
from crosswalk.config.model_names import SHIPPED
from crosswalk.config.plain import to_plain
from crosswalk.metrics.queries import QueryResults
from crosswalk.metrics.ranking import rank_embeddings
from crosswalk.run.run_folder import RunFolder
from crosswalk.use.calibrate import open_set_of, thresholds_of
from crosswalk.use.source import source_of
from crosswalk.use.thresholds import read_thresholds


def results_of(number: int, lead: float) -> QueryResults:
    absent = np.linspace(0.1, 0.3, number)
    ids, nothing, lists = np.arange(number), np.zeros(number), np.zeros((number, 1))
    hit = np.where(ids % 5, 1, 2)
    best = np.where(hit == 1, absent + lead, absent)
    return QueryResults(
        *[ids] * 2, hit, hit, nothing, nothing, *[lists] * 3, best, absent, np.full(number, 66)
    )


def make_run(path: Path, results: QueryResults, *places: str) -> RunFolder:
    run = RunFolder(path)
    run.save_config(to_plain(compose()))
    for place in places:
        queries = {"text_to_image": results, "view/global": results}
        run.save_queries(*place.split("-"), queries)
    return run


def test_a_run_is_calibrated_by_its_queries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "it", results_of(200, 0.4), "test-last", "val-best")
    out = tmp_path / "thresholds.json"

    assert main(["calibrate", str(run.path), "--out", str(out)]) == 0

    said = capsys.readouterr()
    assert "First scores of it (last) on synthetic_pairs, test" in said.out
    assert "text → image: The scores can tell" in said.out
    assert "80.0 % (" in said.out  # four of five stand out
    assert said.out.endswith(f"Thresholds: {out}\n")
    assert "does not say which weights it is of" in said.err  # there is no checkpoint
    found = read_thresholds(out)
    assert (found.data, found.split, found.fingerprint) == ("synthetic_pairs", "test", None)
    assert list(found.directions) == ["text_to_image"]
    assert found.directions["text_to_image"].gallery == 66
    refused = np.linspace(0.1, 0.3, 200)[-3]  # two may pass
    threshold = found.directions["text_to_image"].rates[0.01].threshold.value
    assert threshold == pytest.approx(refused, abs=1e-12)
    assert threshold > refused


@pytest.mark.parametrize(
    ("words", "place", "told"),
    [
        (["--split", "val"], "test-best", "queries/val-best.npz is missing"),
        (["--checkpoint", "last"], "test-best", "--checkpoint may be best. `crosswalk evaluate"),
        ([], "test-best", "did not keep. `crosswalk evaluate"),
    ],
)
def test_what_was_not_evaluated_names_the_command_that_does_it(
    words: list[str],
    place: str,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path, results_of(7, 0.4)._replace(best_score=None), place)

    assert main(["calibrate", str(run.path), *words]) == 2

    assert told in capsys.readouterr().err


def test_a_model_without_scores_is_asked_for_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "timm:resnet18"]) == 2

    said = capsys.readouterr().err
    assert "crosswalk calibrate timm:resnet18 data=<data set> data.root=<folder>" in said


def test_with_overrides_the_model_is_evaluated_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []
    elsewhere = make_run(tmp_path / "zero-shot", results_of(150, 0.4), "test-start")
    elsewhere.save_record({"zero_shot": True, "evaluates": "tiny:mmcl"})

    def evaluated(model: str, overrides: list[str]) -> SimpleNamespace:
        asked.extend([model, *overrides])
        return SimpleNamespace(folder=elsewhere)

    monkeypatch.setattr("crosswalk.commands.evaluate.evaluated", evaluated)
    out = tmp_path / "thresholds.json"

    assert main(["calibrate", "tiny:mmcl", "data=own_images", "--out", str(out)]) == 0

    assert asked == ["tiny:mmcl", "data=own_images"]
    assert "First scores of tiny:mmcl on" in capsys.readouterr().out
    shipped = read_thresholds(SHIPPED / "mmcl" / "thresholds.json")
    assert read_thresholds(out).fingerprint == shipped.fingerprint


def test_what_an_export_says_of_itself_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "tiny:mmcl"]) == 0
    assert "image → image: The scores cannot tell" in capsys.readouterr().out

    assert main(["calibrate", "tiny:mmcl", "--split", "val"]) == 2
    assert "nothing is known of its scores on val" in capsys.readouterr().err


def test_nothing_is_known_of_a_run_that_was_not_evaluated_with_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path, results_of(7, 0.4)._replace(best_score=None), "test-best")
    run.best_checkpoint.touch()
    run.last_checkpoint.touch()

    assert thresholds_of(source_of(run.path, "best")) is None
    assert thresholds_of(source_of(run.path, "last")) is None
    run.save_queries("test", "last", {"text_to_image": results_of(150, 0.4)})
    found = thresholds_of(source_of(run.path, "last"))
    assert found is not None
    assert found.model == f"{tmp_path.name} (last)"


def test_vectors_are_measured_as_an_evaluation_measures_them() -> None:
    random = torch.Generator().manual_seed(4)
    person_id = torch.arange(310) % 31
    person_id[5] = -1
    vectors = normalize(
        torch.randn(31, 8, generator=random)[person_id]
        + 0.3 * torch.randn(310, 8, generator=random),
        dim=1,
    )
    labels = {
        "query_person_id": person_id,
        "gallery_person_id": person_id,
        "query_picture": torch.arange(310),
        "gallery_picture": torch.arange(310),
    }

    found = open_set_of(vectors, vectors, **labels)

    scores = vectors @ vectors.T
    others = (person_id != person_id[:, None]) & (person_id != -1)
    absent = scores.masked_fill(~others, -1).max(dim=1).values[person_id != -1].sort().values
    assert (found.queries, found.absent, found.gallery) == (309, 309, 310)
    assert found.quantiles["absent"] == pytest.approx(
        np.quantile(absent.double().numpy(), [0.25, 0.5, 0.75]), abs=1e-6
    )
    assert found.rates[0.01].threshold.value == pytest.approx(absent[-4].item(), abs=1e-6)
    first_hit = rank_embeddings(vectors, vectors, **labels).first_hit
    assert found.rates[0.01].dir.value <= (first_hit[person_id != -1] == 1).mean()
    assert found.rates[0.01].tpr.value > 0.5


def test_a_file_of_thresholds_is_plain_json(tmp_path: Path) -> None:
    run = make_run(tmp_path / "it", results_of(120, 0.4), "test-best")
    out = tmp_path / "thresholds.json"
    main(["calibrate", str(run.path), "--out", str(out)])

    content = json.loads(out.read_text())

    assert content["format"] == 1
    assert content["measured_on"] == {"data": "synthetic_pairs", "split": "test"}
    assert content["text_to_image"]["tells"] is True
    assert set(content["text_to_image"]["rates"]) == {"0.01"}
