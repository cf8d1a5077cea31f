"""Models of every method, loaded and used, against the evaluation of the same checkpoint."""

from __future__ import annotations

import json
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import crosswalk
from crosswalk import Gallery
from crosswalk.cli import main
from crosswalk.config.search import small_overrides
from crosswalk.data.base import RecordedData
from crosswalk.metrics.retrieval import RetrievalScores
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import evaluate
from crosswalk.use.model import Model, joined_views
from crosswalk.use.source import source_of
from crosswalk.use.thresholds import read_thresholds
from tests.end_to_end.small_runs import METHODS, WholeRuns


class Evaluated(NamedTuple):
    """A run, what its last epoch's evaluation ranked, and what that was made of."""

    run: RunFolder
    query: Tensor
    gallery: Tensor
    images: list[Path]
    captions: list[str] | None
    model: Model
    labels: dict[str, Tensor]
    """By role person and camera of each, ``[N, 2]``."""
    queries: list[Path]
    """The files of queries that are images."""


@pytest.fixture(scope="module", params=METHODS)
def evaluated(
    request: pytest.FixtureRequest,
    whole: WholeRuns,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Evaluated:
    run = whole[request.param]
    ranked: list[tuple[Any, str, Tensor, Tensor, Tensor]] = []
    update = RetrievalScores.update

    def listening(self: Any, role: str, views: Any, *ids: Tensor, **named: Tensor) -> None:  # noqa: ANN401
        index = named["sample_index"] if named else ids[2]
        told = torch.stack([named["person_id"], named["camera_id"]] if named else ids[:2], dim=1)
        ranked.append((self, role, index, joined_views(views), told))
        update(self, role, views, *ids, **named)

    copy = shutil.copytree(run.path, tmp_path_factory.mktemp("evaluated") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RetrievalScores, "update", listening)
        patch.setenv("CROSSWALK_CACHE", str(cache))
        done = evaluate(copy)
    assert done is not None
    latest = ranked[-1][0]  # the last epoch's on test
    rows, labels = {}, {}
    for role in ("query", "gallery"):
        batches = [each for each in ranked if each[0] is latest and each[1] == role]
        order = torch.cat([each[2] for each in batches]).argsort()
        rows[role] = torch.cat([each[3] for each in batches])[order]
        labels[role] = torch.cat([each[4] for each in batches])[order]
    data = done.data
    captions = data.evaluation_captions("test") if hasattr(data, "evaluation_captions") else None
    images = data.evaluation_images("test")
    model = crosswalk.load(run.path, which="last")
    queries = [] if captions is not None else data.evaluation_queries("test")
    return Evaluated(run, rows["query"], rows["gallery"], images, captions, model, labels, queries)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_images_get_the_embeddings_that_the_evaluation_compares(
    evaluated: Evaluated, batch_size: int
) -> None:
    model, images = evaluated.model, evaluated.images[:12]

    found = model.embed_images(images, batch_size=batch_size)

    torch.testing.assert_close(found, evaluated.gallery[:12], atol=1e-6, rtol=0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12))
    assert model.embedding_size == found.shape[1]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_captions_get_the_embeddings_that_the_evaluation_compares(
    evaluated: Evaluated, batch_size: int
) -> None:
    model, captions = evaluated.model, evaluated.captions
    if captions is None:
        with pytest.raises(ValueError, match=r"is a model of images alone and reads no sentences"):
            model.embed_texts(["a man"])
        return

    found = model.embed_texts(captions, batch_size=batch_size)

    # where features depend on the longest caption of a batch, one is the longest in few batches
    assert model.tokenizer is not None
    length = (model.tokenizer(captions) != 0).sum(dim=1)
    size = evaluated.run.config()["data"]["eval_batch_size"]
    longest = torch.cat([(some == some.max()) for some in length.split(size)])
    alone = longest if model._by_longest else torch.zeros_like(longest)
    assert len(found) == len(captions)
    assert alone.float().mean() < 0.4
    expected = evaluated.query[~alone]
    torch.testing.assert_close(found[~alone], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kept_in", ["folder", "qdrant"])
def test_a_gallery_finds_what_the_evaluation_finds(
    evaluated: Evaluated, tmp_path: Path, kept_in: str
) -> None:
    store = None if kept_in == "folder" else f"qdrant://:memory:/{tmp_path.name}"
    model, images = evaluated.model, evaluated.images
    person, camera = evaluated.labels["gallery"].T.tolist()
    table = tmp_path / "images.csv"
    lines = [f"{image.absolute()},{place}" for place, image in enumerate(images)]
    table.write_text("\n".join(["path,own_id", *lines]))
    texts = evaluated.captions or []
    queries = texts or evaluated.queries
    rows = next(iter(evaluated.run.queries("test", "last").values()))
    right = []

    with Gallery.build(tmp_path / "g", model, table, store=store, allow_outside=True) as gallery:
        for number, (query, (who, where)) in enumerate(
            zip(queries, evaluated.labels["query"].tolist(), strict=True)
        ):
            hits = [int(hit.own_id or -1) for hit in gallery.search(query, len(images))]
            if not texts:  # of the query's person and camera: an evaluation leaves it out
                hits = [each for each in hits if (person[each], camera[each]) != (who, where)]
            right.append(person[hits[0]] == who)
            assert hits[0] == rows.top_index[number, 0]

    valid = rows.num_matches > 0
    expected = evaluated.run.results()["last"]["test/rank1"]
    assert float(np.mean(np.array(right)[valid])) == pytest.approx(expected, abs=1e-12)


def test_a_checkpoint_is_enough(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the folder of its run, its data, the cache and a network."""

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("something was fetched")

    alone = shutil.copy(evaluated.run.last_checkpoint, tmp_path / "model.ckpt")
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(socket.socket, "connect", no_network)

    model = crosswalk.load(alone)

    found = model.embed_images(evaluated.images[0])
    torch.testing.assert_close(found, evaluated.gallery[:1], atol=1e-6, rtol=0)
    if evaluated.captions is not None:
        expected = evaluated.model.embed_texts(evaluated.captions[:3])
        torch.testing.assert_close(model.embed_texts(evaluated.captions[:3]), expected)
    assert not (tmp_path / "empty").exists()


def test_several_threads_get_what_one_gets(evaluated: Evaluated) -> None:
    model, images = evaluated.model, evaluated.images[:12]
    alone = model.embed_images(images)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model.embed_images(images, batch_size=5), range(8)))

    for each in found:
        torch.testing.assert_close(each, alone, atol=1e-6, rtol=0)


def test_bfloat16_is_near_and_its_rows_are_of_unit_length(evaluated: Evaluated) -> None:
    model = crosswalk.load(evaluated.run.path, which="last", precision="bf16")

    found = model.embed_images(evaluated.images[:12])

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12))
    assert (found * evaluated.gallery[:12]).sum(dim=1).min() > 0.99


def test_loading_leaves_the_random_numbers_of_the_caller_alone(evaluated: Evaluated) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    crosswalk.load(evaluated.run.path)

    assert torch.equal(torch.rand(2), expected)


def test_a_folder_is_embedded_by_the_command_and_broken_images_are_listed(
    evaluated: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in evaluated.images[:9]:
        (tmp_path / "photos" / image.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "photos" / image.parent.name / image.name)
    (tmp_path / "photos" / "0.jpg").write_bytes(b"\xff\xd8 cut")
    target = tmp_path / "features.npz"

    status = main(
        ["embed", str(evaluated.run.path), str(tmp_path / "photos"), "--out", str(target)]
    )

    with np.load(target) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    place = {str(path): row for row, path in enumerate(found["path"])}
    rows = [
        place[str(tmp_path / "photos" / image.parent.name / image.name)]
        for image in evaluated.images[:9]
    ]
    best = crosswalk.load(evaluated.run.path)
    expected = best.embed_images(evaluated.images[:9])
    assert status == 0
    np.testing.assert_allclose(found["embedding"][rows], expected, atol=1e-6)
    assert found["broken"].tolist() == [str(tmp_path / "photos" / "0.jpg")]
    assert str(found["fingerprint"]) == best.fingerprint != ""
    told = capsys.readouterr().out
    assert f"In {target}: 9 images, {expected.shape[1]} numbers each." in told
    assert f"left out: {tmp_path / 'photos' / '0.jpg'} is cut off or not an image" in told


def test_sentences_of_a_table_are_embedded_by_models_that_read_them(
    evaluated: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(evaluated.images[0], tmp_path / "1.jpg")
    (tmp_path / "pairs.csv").write_text("image,caption\n1.jpg,a man in a red coat\n")
    words = ["embed", str(evaluated.run.path), str(tmp_path / "pairs.csv"), "--which", "last"]

    status = main([*words, "--out", str(tmp_path / "features.npz")])

    if evaluated.captions is None:
        assert status == 2
        assert "is a model of images alone that reads no sentences" in capsys.readouterr().err
        return
    with np.load(tmp_path / "features.npz") as arrays:
        sentence, path = arrays["caption_embedding"], arrays["caption_path"]
    expected = evaluated.model.embed_texts(["a man in a red coat"])
    assert status == 0
    assert path.tolist() == [str(tmp_path / "1.jpg")]
    np.testing.assert_allclose(sentence, expected, atol=1e-6)


def test_files_that_the_training_started_from_are_not_needed(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    copy = RunFolder(tmp_path / "copy")
    copy.path.mkdir()
    shutil.copy(evaluated.run.last_checkpoint, copy.last_checkpoint)
    config = evaluated.run.config()
    changed = set_everywhere(config["encoder"], "pretrained", "gone.pt")
    copy.save_config(config)

    found = crosswalk.load(copy.path).embed_images(evaluated.images[:2])

    assert changed > 0
    torch.testing.assert_close(found, evaluated.gallery[:2], atol=1e-6, rtol=0)


def set_everywhere(node: Any, name: str, value: object) -> int:  # noqa: ANN401
    """Set ``name`` in all mappings that have it; return how many."""
    if not isinstance(node, dict):
        return 0
    inner = sum(set_everywhere(each, name, value) for each in node.values())
    if name in node:
        node[name] = value
    return inner + (name in node)


@pytest.mark.parametrize(("half", "atol"), [(False, 1e-6), (True, 2e-2)])
def test_an_exported_folder_is_enough(
    evaluated: Evaluated, tmp_path: Path, half: bool, atol: float
) -> None:
    words = ["export", str(evaluated.run.path), "--out", str(tmp_path / "model"), "--which", "last"]

    status = main([*words, *(["--half"] if half else [])])

    model = crosswalk.load(tmp_path / "model")
    found = model.embed_images(evaluated.images[:12])
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "thresholds.json"),
    ]
    thresholds = read_thresholds(tmp_path / "model" / "thresholds.json")
    assert thresholds.fingerprint == model.fingerprint
    queries = evaluated.run.queries("test", "last")
    assert set(thresholds.directions) == {name for name in queries if "/" not in name}
    torch.testing.assert_close(found, evaluated.gallery[:12], atol=atol, rtol=0)
    assert (model.fingerprint == evaluated.model.fingerprint) is not half
    if evaluated.captions is not None:
        sentence = ["a man in a red coat"]
        expected = evaluated.model.embed_texts(sentence)
        torch.testing.assert_close(model.embed_texts(sentence), expected, atol=atol, rtol=0)


def test_an_exported_folder_is_evaluated_as_its_run_was_without_its_training_images(
    evaluated: Evaluated,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By its weights alone, to the last digit, into a folder that is reported and compared."""
    run, opened = evaluated.run, list[str]()
    main(["export", str(run.path), "--out", str(tmp_path / "model"), "--which", "last"])
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    opened_by = RecordedData._open_images

    def listening(self: Any, name: str, paths: Any) -> Any:  # noqa: ANN401
        opened.append(name)
        return opened_by(self, name, paths)

    monkeypatch.setattr(RecordedData, "_open_images", listening)
    config = run.config()
    generated = [each for each in small_overrides(config["choices"]["method"]) if "thetic" in each]
    on = [f"data={config['choices']['data']}", *generated, "trainer=cpu", f"output_dir={tmp_path}"]

    status = main(["evaluate", str(tmp_path / "model" / "model.safetensors"), *on])

    told = capsys.readouterr().out
    (folder,) = map(RunFolder, tmp_path.glob("zero-shot-model-*"))
    found, expected = folder.results()["start"], run.results()["last"]
    tested = {name for name in expected if name.startswith("test/")}
    assert status == 0
    assert {name: found[name] for name in tested} == {name: expected[name] for name in tested}
    assert "train" not in opened
    assert "zero-shot:" in told
    assert folder.record()["zero_shot"] is True
    assert (folder.path / "report.html").is_file()
    assert main(["report", str(folder.path)]) == 0
    page = tmp_path / "compared.html"
    assert main(["compare", str(folder.path), str(run.path), "--out", str(page)]) == 0


def test_a_card_says_what_was_measured(
    evaluated: Evaluated, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["card", str(evaluated.run.path), "--which", "last"])

    card = capsys.readouterr().out
    results, record = evaluated.run.results()["last"], evaluated.run.record()
    assert status == 0
    assert re.search(rf"\| {100 * results['test/rank1']:.1f} \(\d+\.\d to \d+\.\d\) \|", card)
    assert re.search(rf"\| {100 * results['test/map']:.1f} \(\d+\.\d to \d+\.\d\) \|", card)
    assert record["command"] in card
    assert f"Fingerprint `{record['data']['fingerprint']}`." in card
    assert ("embed_texts" in card) is (evaluated.captions is not None)
    assert card.count("the scores can tell who is in the gallery is not known") == sum(
        "/" not in name for name in evaluated.run.queries("test", "last")
    )


def test_a_model_is_timed_by_the_command(
    evaluated: Evaluated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crosswalk.use.benchmark._timed", lambda call: (call(), 0.004, 0.001)[1:])
    target = tmp_path / "speed.json"

    status = main(["benchmark", str(evaluated.run.path), "--batch-size", "2", "--out", str(target)])

    found, out = json.loads(target.read_text()), capsys.readouterr().out
    kinds = ["images", "image files", *(["captions"] if evaluated.captions is not None else [])]
    assert status == 0
    assert [(row["what"], row["batch"], row["per_second"]) for row in found["speeds"]] == [
        (what, batch, 250 * batch) for what in kinds for batch in (1, 2)
    ]
    encoder = evaluated.model.method.get_submodule("encoder")
    assert found["parameters"] == sum(each.numel() for each in encoder.parameters())
    assert found["bytes_of_file"] == source_of(evaluated.run.path).weights.stat().st_size
    assert found["embedding_size"] == evaluated.gallery.shape[1]
    assert re.search(rf"{kinds[-1]} +│ +2 │ +4 │ +1 │ +500 │", out)
