"""Own images: training without anything to evaluate, evaluations on several sets, noise."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosswalk.cli import main
from crosswalk.files import UNFINISHED
from crosswalk.run.callbacks.run_record import commit_of_this_package, package_versions
from crosswalk.run.code_digest import code_digest
from crosswalk.run.run_folder import RunFolder

SMALL = (
    *("method=mmcl", "data=own_images", "encoder=resnet_tiny", "trainer=cpu", "logger=csv"),
    *("encoder.backbone.pretrained=null", "data.image_size=[64,32]", "data.batch_size=8"),
    *("data.num_workers=0", "trainer.max_epochs=1", "stage=null"),
)


def table(folder: Path, *splits: str, people: int = 8, seed: int = 0) -> Path:
    """Write two pictures of noise of each person, both in every one of ``splits``."""
    folder.mkdir()
    draw, rows = np.random.default_rng(seed), ["path,person_id,camera_id,split"]
    for name in (f"{person}_{number}.png" for person in range(people) for number in (0, 1)):
        Image.fromarray(draw.integers(0, 256, (64, 32, 3), dtype=np.uint8)).save(folder / name)
        rows += [f"{name},p{name.split('_')[0]},,{split}" for split in splits]
    (folder / "crops.csv").write_text("\n".join(rows))
    return folder / "crops.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSWALK_CACHE", str(folder / "cache"))
        root = f"data.root={table(folder / 'crops', 'train')}"
        with (folder / "said").open("w") as said, contextlib.redirect_stdout(said):
            assert main(["train", *SMALL, root, "name=a", f"output_dir={folder / 'runs'}"]) == 0
    return RunFolder(folder / "runs" / "mmcl-own_images-a")


def test_images_to_train_on_alone_are_trained_on(trained: RunFolder) -> None:
    assert trained.is_finished
    assert trained.last_checkpoint.exists()
    assert trained.results() == {}
    assert not list(trained.path.glob("queries/*"))
    said = (trained.path.parents[1] / "said").read_text()
    assert "Nothing was evaluated: data=own_images has neither queries nor a gallery" in said
    people = json.loads(trained.people_file.read_text())
    assert people == {str(number): f"p{number}" for number in range(8)}  # by their owner's names


def test_every_evaluation_has_results_and_a_report_of_its_own(
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    assert main(["evaluate", str(run.path)]) == 2
    assert "has neither queries nor a gallery" in capsys.readouterr().err
    of_training = {"commit": "0" * 40, "code": "0" * 12, "versions": {"torch": "1.0"}}
    run.save_record({**run.record(), **of_training})

    for people in (12, 30):
        root = table(tmp_path / str(people), "query", "gallery", people=people, seed=people)
        assert main(["evaluate", str(run.path), "data=own_images", f"data.root={root}"]) == 0

    printed = capsys.readouterr()
    assert "has not finished" not in printed.err
    assert "on own_images" in printed.out
    assert "test: 60 queries, 60 images in the gallery" in printed.out
    assert "60 of 60 queries of test are in the gallery too" in printed.err
    found = [RunFolder(path) for path in (run.path / "evaluations").iterdir()]
    assert len(found) == 2
    assert run.results() == {}
    for folder in found:
        assert (folder.path / "report.html").exists()
        assert set(folder.results()) == {"last"}
        queries = folder.queries("test", "last")["image_to_image"]
        # noise: a picture that found itself would be right every time
        assert not (queries.top_index == queries.sample_index[:, None]).any()
        assert folder.results()["last"]["test/rank1"] < 0.5
        record = json.loads(folder.record_file.read_text())
        assert record["data"]["dataset"] == "own images"
        [session] = record["sessions"]  # its own, not that of the training
        assert session["started"] == record["started"] >= run.record()["ended"]
        assert session["ended"] == record["ended"]
        assert record["commit"] == commit_of_this_package()["commit"]
        assert record["versions"] == package_versions()
        assert record["code"] == code_digest(folder.config())


def test_an_evaluation_that_was_killed_is_no_result_and_leaves_nothing_behind(
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    root = table(tmp_path / "people", "query", "gallery")
    data = ["data=own_images", f"data.root={root}", "data.num_workers=0"]
    words = ["evaluate", str(run.path), *data]

    def be_killed(folder: RunFolder, results: object) -> None:
        (folder.path / "queries" / f"test-last.npz.7{UNFINISHED}").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_results", be_killed)
        assert main(words) == 130
    (folder,) = [RunFolder(path) for path in (run.path / "evaluations").iterdir()]
    assert folder.record()["status"] == "interrupted"
    assert f"`crosswalk evaluate {run.path}` with the overrides of" in folder.record()["error"]
    assert folder.results() == {}
    assert main(["report", str(folder.path)]) == 0
    assert "interrupted" in (folder.path / "report.html").read_text()

    with folder.being_evaluated():  # by another process
        assert main(words) == 1
    assert f"another process evaluates into {folder.path}" in capsys.readouterr().err
    assert main(words) == 0

    assert (folder.record()["status"], list(folder.results())) == ("finished", ["last"])
    assert not list(run.path.rglob(f"*{UNFINISHED}"))


def test_a_run_does_not_go_on_with_changed_data(
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    crops = shutil.copytree(trained.path.parents[1] / "crops", tmp_path / "crops")
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "runs" / trained.name))
    config = run.config()
    config["data"]["root"] = str(crops / "crops.csv")
    run.save_config(config)
    run.save_record({**run.record(), "status": "interrupted"})
    Image.new("RGB", (32, 64)).save(crops / "3_1.png")  # the same name, another picture

    root, runs = f"data.root={crops / 'crops.csv'}", f"output_dir={tmp_path / 'runs'}"
    status = main(["train", *SMALL, root, runs, "name=a", "resume=true"])

    assert status == 2
    message = capsys.readouterr().err
    assert f"the data of {run.path} have changed since it began" in message
    assert run.record()["data"]["fingerprint"] in message
