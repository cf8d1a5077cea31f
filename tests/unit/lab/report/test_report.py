from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.files import write_arrays
from crosswalk.lab.report.configuration import configuration_section
from crosswalk.lab.report.curves import wanted_curves
from crosswalk.lab.report.embedding_map import embedding_map_section, map_positions
from crosswalk.lab.report.evaluation_data import evaluation_data
from crosswalk.lab.report.outcome import results_section, summary_section
from crosswalk.lab.report.provenance import provenance_section
from crosswalk.lab.report.ranking_lists import (
    PICTURE,
    choose_by_precision,
    ranking_list_html,
    ranking_lists_section,
)
from crosswalk.lab.report.report import (
    diagnostic_sections,
    diagnostics_in,
    report_sections,
    run_report,
    write_report,
)
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.ranking_lists import RankedItem, RankingList
from crosswalk.run.run_folder import RunFolder


def make_results(precision: list[float], person_id: list[int] | None = None) -> QueryResults:
    """Query i of person i finds image i, then the next one."""
    number = len(precision)
    queries = np.arange(number)
    persons = queries if person_id is None else np.array(person_id)
    top = (queries[:, None] + np.arange(2)) % number
    return QueryResults(
        sample_index=queries,
        person_id=persons,
        num_matches=(~np.isnan(precision)).astype(np.int64),
        first_hit=np.ones(number, np.int64),
        average_precision=np.array(precision),
        inverse_negative_penalty=np.array(precision),
        top_index=top,
        top_person_id=persons[top],
        top_score=np.array([[0.75, 0.5]] * number),
    )


def make_run(folder: Path, *overrides: str, **record: Any) -> RunFolder:  # noqa: ANN401
    run = RunFolder(folder / "rde-synthetic_pairs-it")
    run.path.mkdir()
    run.save_config(to_plain(compose(overrides)))
    if record:
        run.record_file.write_text(json.dumps(record))
    return run


@pytest.mark.parametrize("each", [1, 2, 5])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 31])
def test_best_median_and_worst_queries_are_ordered_and_different(number: int, each: int) -> None:
    precision = np.random.default_rng(number).permutation(number) / number
    results = make_results([*precision.tolist(), np.nan])

    chosen = choose_by_precision(results, each=each, seed=0)

    rows = [row for kind in chosen.values() for row in kind.tolist()]
    assert len(rows) == len(set(rows))
    assert number not in rows  # has no match
    best, median, worst = (np.sort(precision[chosen[kind]]) for kind in chosen)
    ordered = np.sort(precision)
    np.testing.assert_array_equal(best, ordered[number - len(best) :])
    np.testing.assert_array_equal(worst, ordered[: len(worst)])
    if number >= 3 * each:
        assert len(best) == len(median) == len(worst) == each
    if len(median):
        assert worst[-1] < median[0] <= median[-1] < best[0]
        assert abs(np.median(median) - np.median(precision)) <= 1 / number


def test_queries_of_equal_precision_are_drawn_by_the_seed() -> None:
    results = make_results([0.5] * 30)

    drawn = [
        {kind: rows.tolist() for kind, rows in choose_by_precision(results, each=3, seed=s).items()}
        for s in (0, 0, 1)
    ]

    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_other_persons_are_shown_before_one_is_shown_twice() -> None:
    precision = [0.99, 0.98, 0.97, 0.96, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1]
    results = make_results(precision, [1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7])

    chosen = choose_by_precision(results, each=3, seed=0)

    assert chosen["best"].tolist() == [0, 1, 3]


def test_a_picture_that_cannot_be_read_any_more_leaves_the_rest_of_its_list(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("I", (3, 5)).save(tmp_path / "bits32.tif")
    found = tuple(RankedItem(tmp_path / name, 0.5, True) for name in ("broken.png", "bits32.tif"))

    page = ranking_list_html(RankingList(3, "a coat", 17, 2, 0.5, found))

    assert '<p class="caption right">broken.png cannot be shown</p>' in page
    assert '<p class="caption right">bits32.tif cannot be shown</p>' in page


def test_a_ranking_list_shows_frames_ranks_and_scores(tmp_path: Path) -> None:
    for name in ("query", "first"):
        Image.effect_noise((300, 900), 40).save(tmp_path / f"{name}.png")
    found = (
        RankedItem(tmp_path / "first.png", 0.875, False, "anna <b>"),
        RankedItem(tmp_path / "gone.png", 0.5, True),
        RankedItem(tmp_path / "first.png", 0.25, True),
    )
    one = RankingList(3, tmp_path / "query.png", 17, 2, 0.5, found)

    page = ranking_list_html(one, title="a <b>", length=2)

    width, height = PICTURE[1] // 3, PICTURE[1]
    size = f'width="{width + (PICTURE[1] % 3 > 1)}" height="{height}"'
    assert page.count(size) == 2
    assert page.count('<img class="query"') == page.count('<img class="wrong"') == 1
    assert '<p class="caption right">gone.png is gone</p>' in page
    assert "1: 0.875<br>first.png<br>person anna &lt;b&gt;<" in page
    assert f'title="{tmp_path / "first.png"}, person anna &lt;b&gt;"' in page
    assert "<span>query<br>query.png<br>person 17<" in page
    assert "2: 0.500" in page
    assert "3: 0.250" not in page
    assert "person 17, query 3, first hit at rank 2, AP 50.0 %" in page
    assert "a &lt;b&gt;" in page


def test_queries_without_a_match_and_captions_with_markup_are_shown() -> None:
    found = (RankedItem("<script>", 0.5, False),)

    page = ranking_list_html(RankingList(0, "a & b", 1, 0, float("nan"), found))

    assert "no match in the gallery" in page
    assert "AP" not in page
    assert "&lt;script&gt;" in page
    # cut off by the page; whole under the pointer, or once it has the focus
    whole = '<p class="caption query" tabindex="0" title="a &amp; b">a &amp; b</p>'
    assert whole in page


def test_ranking_lists_show_every_direction_but_no_single_view(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    images = [tmp_path / f"{number}.png" for number in range(6)]
    for path in images:
        Image.effect_noise((12, 30), 40).save(path)
    results = make_results([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    run.save_queries(
        "test",
        "last",
        {"text_to_image": results, "image_to_text": results, "view/global": results},
    )
    data = SimpleNamespace(
        directions=("text_to_image", "image_to_text"),
        evaluation_images=lambda split: images,
        evaluation_captions=lambda split: [f"caption {number}" for number in range(6)],
    )

    body = ranking_lists_section(run, data).body

    assert body.count('<div class="ranking">') == 2 * 6  # two of each kind
    assert "the last epoch on test" in body
    assert [body.count(f"<h3>{name}</h3>") for name in ("text → image", "image → text")] == [1, 1]
    assert body.count('<p class="caption query"') == 6
    assert body.count('<p class="caption right"') == 6
    assert body.count('<img class="query"') == 6
    assert body.count('<img class="right"') == 6


def test_ranking_lists_without_data_say_what_is_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path, f"data.root={tmp_path / 'nowhere'}")
    assert "did not reach an evaluation" in ranking_lists_section(run, lambda: None).body
    run.save_queries("val", "last", {"text_to_image": make_results([0.5])})

    body = ranking_lists_section(run, lambda: evaluation_data(run)).body

    assert "need the data of the run" in body
    assert "nowhere" in body


def test_data_that_have_changed_are_refused(tmp_path: Path, tiny_root: Path) -> None:
    run = make_run(tmp_path, f"data.root={tiny_root}", data={"fingerprint": "0123"})

    with pytest.raises(ValueError, match="have changed since it ran"):
        evaluation_data(run)


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "CUHK-PEDES"
    (folder / "imgs").mkdir(parents=True)
    entries = []
    for number, split in enumerate(["train", "train", "val", "test"]):
        Image.new("RGB", (8, 16)).save(folder / "imgs" / f"{number}.png")
        captions = ["a man in a coat.", "a red bag."]
        entry = {"split": split, "file_path": f"{number}.png", "id": number + 1}
        entries.append({**entry, "captions": captions, "processed_tokens": []})
    (folder / "reid_raw.json").write_text(json.dumps(entries))
    return folder.parent


def test_the_data_of_a_run_are_made_again(tmp_path: Path, tiny_root: Path) -> None:
    run = make_run(tmp_path, f"data.root={tiny_root}")

    data = evaluation_data(run)

    assert data.evaluation_captions("test") == ["a man in a coat.", "a red bag."]
    assert [path.name for path in data.evaluation_images("test")] == ["3.png"]


def test_everything_logged_by_epoch_is_in_one_panel() -> None:
    measures = ("rank1", "rank5", "rank10", "map", "minp")
    places = ("val", "val/image_to_text", "val/view/global", "test")
    line = {f"{place}/{name}": 0.5 for place in places for name in measures}
    line |= {f"train/loss_{number}": float(number) for number in range(9)}
    line |= {"train/agreement": 0.5, "train/clusters": 12.0, "lr-SGD/pg1": 0.1, "lr-SGD/pg2": 1.0}
    history = [
        {"step": 3, "epoch": 0, "time": 1.0, **line},
        {"step": 4, "epoch": None, "best/test/rank1": 0.5},
    ]

    panels = {panel.title: panel.lines for panel in wanted_curves(history)}

    shown = [name for lines in panels.values() for name in lines]
    assert sorted(shown) == sorted(line)
    assert list(panels) == [
        *("Training loss 1", "Training loss 2: loss_0"),
        *("Retrieval on test", "Retrieval on val", "Retrieval on val, image → text"),
        *("Retrieval on val, view global", "Learning rate"),
        *("Other measures of training: agreement", "Other numbers of training: clusters"),
    ]


def test_losses_that_cannot_be_seen_beside_others_have_a_panel_of_their_own() -> None:
    names = ("loss", "loss_only", "loss_small", "loss_waits")
    history = [
        {"epoch": epoch, **{f"train/{name}": value for name, value in zip(names, row, strict=True)}}
        for epoch, row in enumerate([(276.0, 276.0, 0.2, 0.0), (90.0, 90.0, 0.1, 60.0)], 1)
    ]

    panels = wanted_curves(history)

    assert [(panel.title, list(panel.lines.values())) for panel in panels] == [
        ("Training loss 1", ["loss = loss_only", "loss_waits"]),
        ("Training loss 2: loss_small", ["loss_small"]),
    ]


@pytest.mark.parametrize(
    ("method", "metric"),
    [
        ("rde", "train/clean_fraction"),
        ("mmcl", "train/label_recall"),
        ("mar", "train/agreement_threshold"),
        ("cmmt", "train/image_purity"),
        ("cm_moco", "train/positive_similarity"),
    ],
)
def test_a_curve_is_drawn_once(tmp_path: Path, method: str, metric: str) -> None:
    run = make_run(tmp_path, f"method={method}")
    lines = [{"global_step": 1, "epoch": 1, metric: 0.5, "train/image_clusters": 3.0}]
    run.save_metrics(lines)
    images = {each.anchor: each.body for each in report_sections(run)}

    shown = sum(body.count("<svg") for body in images.values())

    alone = 1 if method != "cmmt" else 2
    others = 0 if method == "cmmt" else 1  # image_clusters is no measure of the other methods
    assert shown == alone + others
    assert metric.removeprefix("train/") not in images["curves"]


@pytest.mark.parametrize("num_groups", [2, 5])
def test_neighbours_in_the_map_are_neighbours_in_the_embedding(num_groups: int) -> None:
    random = np.random.default_rng(num_groups)
    group = np.repeat(np.arange(num_groups), 7)
    centres = random.standard_normal((num_groups, 40))
    rows = (centres[group] + 0.05 * random.standard_normal((len(group), 40))).astype(np.float16)

    position = map_positions(rows)

    assert position.shape == (len(group), 2)
    np.testing.assert_array_equal(position, map_positions(rows))
    distance = np.linalg.norm(position[:, None] - position[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert np.mean(group[distance.argmin(axis=1)] == group) > 0.9  # by chance: 6 of 13 or 34


@pytest.mark.parametrize("number", [1, 3, 9])
def test_a_map_of_few_or_equal_embeddings_is_finite(number: int) -> None:
    assert np.isfinite(map_positions(np.ones((number, 5)))).all()
    assert map_positions(np.eye(number)).shape == (number, 2)


def test_maps_are_those_of_the_starting_weights_and_the_best_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "crosswalk evaluate" in embedding_map_section(run, texts_are_queries=True).body
    arrays = {
        "embedding": np.eye(4, dtype=np.float16),
        "is_query": np.array([True, True, False, False]),
        **dict.fromkeys(("person_id", "camera_id", "sample_index"), np.array([5, 6, 5, 6])),
    }
    for tag in ("start", "best", "last"):
        write_arrays(run.path / "diagnostics" / f"embeddings-{tag}.npz", arrays)

    body = embedding_map_section(run, texts_are_queries=True).body

    assert body.count("<svg") == 2
    assert "before training" in body
    assert "best epoch" in body
    assert "2 persons" in body
    assert "● captions, ▲ images" in body


def test_the_configuration_names_what_is_not_default(tmp_path: Path) -> None:
    run = make_run(tmp_path, "seed=7", "data.noise_rate=0.5", "name=it", "division=off")

    body = configuration_section(run).body

    assert "<td>0.0</td><td>0.5</td>" in body
    assert "<code>seed</code></td><td>1</td><td>7</td>" in body
    assert "<code>name</code>" not in body
    assert "noise_rate: 0.5" in body.partition("<pre>")[2]


def test_an_unknown_method_has_a_configuration_but_no_default(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    config = run.config()
    config["choices"]["method"] = "retired"
    run.save_config(config)

    body = configuration_section(run).body

    assert "No default to compare with: " in body
    assert "retired" in body
    assert "<pre>" in body


def test_the_summary_tells_state_duration_and_headline_numbers(tmp_path: Path) -> None:
    start, later = "2026-01-01T23:59:00+00:00", "2026-01-03T01:00:07+00:00"
    run = make_run(
        tmp_path,
        status="failed",
        error="ValueError: too <hot>",
        sessions=[
            {"started": start, "ended": later, "status": "interrupted"},
            {"started": later, "ended": None},
        ],
        data={"dataset": "toy", "counts": {"train": {"images": 61}}, "notices": ["odd names"]},
    )
    run.results_file.write_text(
        json.dumps({"best": {"epoch": 3, "test/rank1": 0.12345, "test/map": 0.5}})
    )

    body = summary_section(run).body

    assert "<dd>failed</dd>" in body
    assert "too &lt;hot&gt;" in body
    assert "25 h 1 min 7 s" in body
    assert "12.35 %" in body
    assert "R@1, test, image → image, best (3)" in body
    assert "61 training images" in body
    assert "odd names" in body


def test_an_evaluation_by_other_rules_says_what_has_chosen_the_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path, "protocol=val")
    elsewhere = RunFolder(run.path / "evaluations" / "synthetic_pairs-official-01234567")
    elsewhere.save_config({**run.config(), "protocol": "official"})
    elsewhere.save_record({"status": "finished"})
    elsewhere.save_results({"best": {"epoch": 3, "test/rank1": 0.5}})

    for section in (summary_section(elsewhere), results_section(elsewhere)):
        assert "best epoch by val/rank1 of the training" in section.body


@pytest.mark.parametrize(
    ("choice", "dataset", "said"),
    [
        ("synthetic_pairs", "synthetic-pairs", "<dd>synthetic_pairs</dd>"),
        ("market1501", "Market-1501", "<dd>market1501</dd>"),
        ("own_pairs", "shop", "<dd>own_pairs, shop</dd>"),
    ],
)
def test_a_data_set_is_named_once(tmp_path: Path, choice: str, dataset: str, said: str) -> None:
    run = make_run(tmp_path, data={"dataset": dataset})
    config = run.config()
    config["choices"]["data"] = choice
    run.save_config(config)

    assert said in summary_section(run).body


def test_results_have_a_row_for_every_split_direction_and_view(tmp_path: Path) -> None:
    run = make_run(tmp_path, "protocol=val")
    assert "was not evaluated" in results_section(run).body
    measures = ("rank1", "rank5", "rank10", "map", "minp")
    places = ("val", "test", "test/image_to_text", "test/view/global")
    metrics = {
        f"{place}/{name}": (10 * i + j) / 1000
        for i, place in enumerate(places)
        for j, name in enumerate(measures)
    }
    run.results_file.write_text(json.dumps({"last": {"epoch": 2, **metrics}}))

    body = results_section(run).body

    assert "best epoch by val/rank1" in body
    assert body.count("<tr>") == 2 + 4
    for i in range(4):
        for j in range(5):
            assert f'<div class="number">{i}.{j}0</div>' in body
    for name in ("text → image", "image → text", "global"):
        assert f'<span class="together">{name}</span>' in body


@pytest.mark.parametrize("kept", [(), ("queries",), ("queries", "diagnostics")])
def test_what_is_missing_of_a_finished_run_is_said(
    kept: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, status="finished", data={"counts": {"train": {}, "test": {}}})
    for name in kept:
        (run.path / name).mkdir()
    parts = [
        "results.json",
        *(f"{name}/" for name in ("queries", "diagnostics") if name not in kept),
    ]

    assert run_report(run.path, None) == 0

    said = f"{' and '.join(parts)} {'is' if len(parts) == 1 else 'are'} missing in {run.path}"
    assert f"note: {said}" in capsys.readouterr().err
    assert said in results_section(run).body
    assert f"`crosswalk evaluate {run.path}`" in results_section(run).body
    assert (said in ranking_lists_section(run, lambda: None).body) == ("queries/" in parts)


def test_a_finished_run_without_anything_to_evaluate_lacks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, status="finished", data={"counts": {"train": {}}})

    assert run_report(run.path, None) == 0

    assert "missing" not in capsys.readouterr().err
    assert "have neither queries nor a gallery" in results_section(run).body
    assert "the run was not evaluated" in ranking_lists_section(run, lambda: None).body


def test_provenance_names_code_data_and_sessions(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        command="crosswalk train method=rde",
        commit="abc123",
        dirty=True,
        code="0123456789ab",
        seeds={"seed": 3},
        sessions=[{"started": "2026-01-01T12:00:00+00:00", "ended": None}],
        versions={"torch": "2.15.0"},
        data={"fingerprint": "f00", "counts": {"train": {"images": 5}}, "notices": []},
    )

    body = provenance_section(run).body

    for text in (
        *("<code>crosswalk train method=rde</code>", "abc123, with uncommitted changes"),
        *("0123456789ab", "running, or killed", "2.15.0", "f00", "counts.train.images"),
    ):
        assert text in body, text


def test_a_run_without_a_record_says_so(tmp_path: Path) -> None:
    assert "run.json is missing" in provenance_section(make_run(tmp_path)).body


def test_a_report_removes_a_killed_one_and_nothing_that_an_evaluation_writes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    killed = run.path / "report.html.7.unfinished"
    written = run.path / "queries/test-best.npz.8.unfinished"
    written.parent.mkdir()
    for path in (killed, written):
        path.touch()
    monkeypatch.setattr("crosswalk.lab.report.report.report_sections", lambda *_: [])

    write_report(run)

    assert not killed.exists()
    assert written.exists()


@pytest.mark.parametrize("name", ["embeddings-last", "division-last", "token_selection-last"])
@pytest.mark.parametrize("content", [b"text", None])
def test_a_damaged_file_of_a_diagnostic_is_named_with_what_helps(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    run = make_run(tmp_path)
    path = run.path / "diagnostics" / f"{name}.npz"
    if content is None:
        write_arrays(path, {"other": np.ones(1)})
    else:
        path.parent.mkdir()
        path.write_bytes(content)

    with pytest.raises(ValueError, match=rf"{path} is damaged.*crosswalk evaluate {run.path}`"):
        write_report(run)
    path.unlink()
    write_report(run)


def clustered(folder: Path, **config: Any) -> RunFolder:  # noqa: ANN401
    run = make_run(folder)
    run.save_config({key: value for key, value in config.items() if value is not None})
    run.metrics_file.write_text('{"step": 1, "epoch": 0, "train/image_clusters": 4.0}\n')
    return run


CLUSTERS = {"_target_": "crosswalk.diagnostics.clusters.Clusters"}


@pytest.mark.parametrize(
    ("method", "listed", "expected"),
    [
        ("rde", [CLUSTERS], ["clusters"]),
        ("cmmt", [], []),
        ("cmmt", None, ["clusters"]),  # a run of the release before they were listed
        ("gone", None, []),
    ],
)
def test_a_report_has_the_sections_that_its_run_lists(
    tmp_path: Path, method: str, listed: list[Any] | None, expected: list[str]
) -> None:
    run = clustered(tmp_path, choices={"method": method}, diagnostics=listed)

    assert [section.anchor for section in diagnostic_sections(run, diagnostics_in(run))] == expected
