"""Whole runs of CM-MoCo and CMMT: queues, clusters, re-ranking, official weights, comparison."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from crosswalk.cli import main
from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.data.text.word_tokenizer import split_words
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import evaluate
from crosswalk.run.weights import load_start, run_import
from tests.end_to_end.browser import measure
from tests.end_to_end.small_runs import WholeRuns, run_small, small_run, tiny_pairs
from tests.golden.harness import DATA

ROW = re.compile(r"│ (\w+) \((\d)\) │ (\w+) +│ (\w+ → \w+)(, re-ranked)? +│(.*)│")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairs(tmp_path_factory.mktemp("data"))


def state_of(folder: RunFolder) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder.last_checkpoint, weights_only=True)[
        "state_dict"
    ]
    return state


def test_the_queues_hold_the_newest_keys_of_a_run(whole: WholeRuns) -> None:
    state = state_of(whole["cm_moco"])

    # 12 steps of 20 keys, 33 places
    assert state["queue.pointer"] == 12 * 20 % 33
    assert state["queue.person_id"].shape == (33,)
    assert 0 <= state["queue.person_id"].min() < state["queue.person_id"].max() < 24
    for name in ("queue.image", "queue.text"):
        torch.testing.assert_close(state[name].norm(dim=1), torch.ones(33))


def test_every_epoch_of_cmmt_has_clusters_outliers_and_refined_labels(
    whole: WholeRuns,
) -> None:
    folder = whole["cmmt"]
    state = state_of(folder)
    epochs = [line for line in folder.metrics() if "train/image_clusters" in line]

    assert [line["epoch"] for line in epochs] == [1, 2]
    for modality in ("image", "text"):
        for line in epochs:
            assert line[f"train/{modality}_clusters"] > 1
            outliers = line[f"train/{modality}_outliers"]
            assert 0 < line[f"train/{modality}_refined_outliers"] < outliers < 1
        refined = state[f"{modality}_refined"]
        kept = state[f"{modality}_clusters"] >= 0
        assert torch.equal(refined[kept], state[f"{modality}_clusters"][kept])
        labels, is_outlier = state[f"memories.{modality}.labels"], refined < 0
        assert torch.equal(labels[~is_outlier], refined[~is_outlier])
        assert len(labels[is_outlier].unique()) == is_outlier.sum()  # clusters of one
        assert not set(labels[is_outlier].tolist()) & set(refined.tolist())
        assert int(is_outlier.sum()) == round(outliers_of(epochs[1], modality) * len(refined))


def outliers_of(line: dict[str, float], modality: str) -> float:
    return line[f"train/{modality}_refined_outliers"]


def table_of(text: str) -> dict[tuple[str, ...], list[str]]:
    """Return the measures of a printed table's rows, by checkpoint, split and ranking."""
    return {
        (checkpoint, split, direction, reranked): [cell.strip() for cell in cells.split("│")]
        for checkpoint, _, split, direction, reranked, cells in ROW.findall(text)
    }


@pytest.mark.parametrize(
    ("kind", "reranking", "changes"),
    [
        ("cm_moco", ["reranking=cross_modal", "reranking.weight=0.5"], True),
        ("cm_moco", ["reranking=cross_modal", "reranking.weight=0"], False),
        # the distances alone, without the neighbourhoods
        ("cm_moco", ["reranking=k_reciprocal", "reranking.distance_weight=1"], False),
        ("cmmt", ["reranking=cross_modal", "reranking.weight=0.5"], True),
        ("cmmt", ["reranking=k_reciprocal"], True),
    ],
)
def test_an_evaluation_measures_a_reranking_beside_the_plain_ranking(
    kind: str,
    reranking: list[str],
    changes: bool,
    whole: WholeRuns,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    folder = RunFolder(shutil.copytree(whole[kind].path, tmp_path / "copy"))
    results = folder.results()

    assert evaluate(folder.path, reranking) is not None

    table = table_of(capsys.readouterr().out)
    plain = {row[:3]: cells for row, cells in table.items() if not row[3]}
    reranked = {row[:3]: cells for row, cells in table.items() if row[3]}
    assert reranked.keys() == plain.keys()
    assert len(plain) == 8
    for (checkpoint, split, direction), cells in plain.items():
        prefix = split if direction == "text → image" else f"{split}/image_to_text"
        names = ("rank1", "rank5", "rank10", "map", "minp")
        expected = [f"{100 * results[checkpoint][f'{prefix}/{name}']:.2f}" for name in names]
        assert cells == expected
    assert (reranked != plain) == changes
    assert folder.results() == results


def official_files(root: Path, folder: Path) -> list[str]:
    """Write checkpoint, words and word table as the official code does; return overrides."""
    with np.load(DATA / "cm_moco" / "tiny_moco_model_0.npz") as case:
        arrays = {name: case[name] for name in case.files}
    state = {name[4:]: array for name, array in arrays.items() if name.startswith("sd__")}
    np.savez(folder / "best.npz", **state)
    captions = (
        caption
        for entry in json.loads((root / "CUHK-PEDES" / "reid_raw.json").read_text())
        for caption in entry["captions"]
    )
    words = dict.fromkeys(
        word for caption in captions for word in split_words(caption, lower_case=True)
    )
    num_words = len(arrays["vocab_table"]) - 2  # without padding and unknown words
    (folder / "words.txt").write_text("\n".join([*list(words)[:num_words], "UNK"]))
    np.save(folder / "table.npy", arrays["vocab_table"])
    height, width = arrays["input_resolution"]
    table = "crosswalk.encoders.word_table.file_word_table"
    return [
        f"data.image_size=[{height},{width}]",
        f"data.tokenizer.vocabulary={folder / 'words.txt'}",
        *("~encoder.image.name", "~encoder.image.pretrained"),
        "encoder.image._target_=crosswalk.encoders.clip_resnet.ClipResNet",
        f"+encoder.image.layers={arrays['layers'].tolist()}".replace(" ", ""),
        *(f"+encoder.image.{name}={arrays[name]}" for name in ("width", "output_dim", "heads")),
        "~encoder.text.vectors.table",
        f"+encoder.text.vectors.table={{_target_:{table},_partial_:true,file:'{folder}/table.npy'}}",
        f"encoder.text.hidden_size={arrays['gru_hidden']}",
        f"encoder.embedding_size={arrays['feature_size']}",
    ]


def test_a_run_starts_from_imported_official_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        *small_run("cm_moco", f"data.root={root}"),
        *official_files(root, tmp_path),
        f"checkpoint={tmp_path / 'ours.safetensors'}",
    ]
    assert run_import("cm_moco", tmp_path / "best.npz", tmp_path / "ours.safetensors") == 0
    method = build(check(compose(overrides))).method
    load_start(method, tmp_path / "ours.safetensors")
    loaded = method.encoder.state_dict()

    # the key encoder keeps what it starts from; statistics of its batch normalisation do not
    code, folder = run_small(
        [*overrides, "method.momentum=1.0", "trainer.max_epochs=1", "reranking=cross_modal"],
        tmp_path,
        root.parent / "cache",
    )

    assert code == 0
    state = state_of(folder)
    with np.load(DATA / "cm_moco" / "tiny_moco_model_0.npz") as case:
        weight = case["sd__embed_model.v_encoder_q.conv1.weight"]
    assert torch.equal(loaded["image.conv1.weight"], torch.from_numpy(weight).float())
    trained = dict(method.encoder.named_parameters())
    for name, expected in loaded.items():
        assert torch.equal(method.keys.module.state_dict()[name], expected), name
        if name in trained:
            assert torch.equal(state[f"keys.module.{name}"], expected), name
    assert not torch.equal(state["encoder.image.conv1.weight"], loaded["image.conv1.weight"])
    results = folder.results()
    assert set(results) == {"start", "best", "last"}
    assert results["start"]["epoch"] == 0
    assert results["start"]["val/map"] != results["last"]["val/map"]
    assert 0 < results["start"]["test/reranked/map"] <= 1


def test_two_methods_are_compared_query_by_query(
    whole: WholeRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [whole[kind] for kind in ("cm_moco", "cmmt")]
    results = [run.results()["best"] for run in runs]
    out = tmp_path / "compare.html"

    assert main(["compare", *(str(run.path) for run in runs), "--out", str(out)]) == 0

    printed, page = capsys.readouterr().out, out.read_text()
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["configuration"]["choices.method"] == "cm_moco → cmmt"
    for direction, prefix in (("text_to_image", ""), ("image_to_text", "image_to_text/")):
        for name, change in found["directions"][direction]["measures"].items():
            first, second = (each[f"test/{prefix}{name}"] for each in results)
            # results.json holds what Lightning logged, in float32
            assert (change["A"], change["B"]) == pytest.approx((first, second), abs=1e-6)
            assert change["difference"] == pytest.approx(second - first, abs=1e-6)
            low, high = change["interval"]
            assert low <= change["difference"] <= high
            numbers = [change[kind] for kind in ("better", "worse", "equal")]
            assert sum(numbers) == change["queries"] == (31 if prefix else 62)
    precision = {
        side: run.queries("test", "best")["text_to_image"].average_precision
        for side, run in zip("AB", runs, strict=True)
    }
    for kind, sign in (("better", 1), ("worse", -1)):
        shown = found["directions"]["text_to_image"][kind]
        gains = sign * (precision["B"] - precision["A"])
        assert [gains[query["sample_index"]] for query in shown] == pytest.approx(
            sorted(gains[gains > 0], reverse=True)[:6]
        )
        assert f'id="{kind}"' in page
    for breakdown in found["directions"]["text_to_image"]["breakdowns"].values():
        assert sum(group["queries"] for group in breakdown.values()) == 62
    assert "Queries that got better" in printed
    assert '<img class="wrong"' in page


def test_a_run_differs_from_one_with_its_results_by_nothing(
    whole: WholeRuns, tmp_path: Path
) -> None:
    run, same = whole["cmmt"].path, tmp_path / "same"
    shutil.copytree(run, same)
    out = tmp_path / "compare.html"

    assert main(["compare", str(run), str(same), "--checkpoint", "last", "--out", str(out)]) == 0

    found = json.loads(out.with_suffix(".json").read_text())
    assert found["configuration"] == {}
    for direction in found["directions"].values():
        for change in direction["measures"].values():
            assert change["difference"] == 0
            assert change["interval"] == [0, 0]
        assert direction["better"] == direction["worse"] == []


def test_the_page_of_a_comparison_fits_its_window(whole: WholeRuns, tmp_path: Path) -> None:
    runs = [str(whole[kind].path) for kind in ("cm_moco", "cmmt")]
    page = tmp_path / "compare.html"
    assert main(["compare", *runs, "--out", str(page)]) == 0

    for width in (1280, 390):
        found = measure(page, tmp_path, width=width)
        assert found["content_width"] <= width
        parts = ["verdict", "runs", "differences", "groups", "better", "worse"]
        assert found["sections"] == parts
        assert found["empty_sections"] == []
        assert all(min(picture["natural"]) > 0 for picture in found["pictures"])
        assert {picture["frame"] for picture in found["pictures"]} == {"right", "wrong"}
        # ten images of each of two lists
        right = [picture["place"][0] > 640 for picture in found["pictures"][:20]]
        assert right == ([False] * 10 + [True] * 10 if width == 1280 else [False] * 20)
