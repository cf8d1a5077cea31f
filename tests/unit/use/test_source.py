"""What a model is loaded from is told apart by names, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from crosswalk.run.run_folder import no_run
from crosswalk.use import source
from crosswalk.use.source import ADVICE, source_of


def a_run(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.yaml", *files):
        (folder / name).write_text("{}")
    return folder


def test_of_a_run_the_best_checkpoint_is_taken_unless_another_is_named(tmp_path: Path) -> None:
    run = a_run(tmp_path / "rde", "best.ckpt", "last.ckpt")

    assert source_of(run).weights == run / "best.ckpt"
    assert source_of(str(run), "last").weights == run / "last.ckpt"
    assert source_of(run / "last.ckpt").kind == "checkpoint"
    assert source_of(run).name == "rde/best"


def test_a_run_whose_best_checkpoint_is_gone_says_which_is_taken(tmp_path: Path) -> None:
    run = a_run(tmp_path / "rde", "last.ckpt")
    (run / "results.json").write_text('{"best": {"epoch": 2}, "last": {"epoch": 3}}')

    with pytest.warns(UserWarning, match=r"best.ckpt is missing; last.ckpt, of another epoch"):
        assert source_of(run).weights == run / "last.ckpt"


@pytest.mark.parametrize(
    ("files", "which", "words"),
    [
        (("last.ckpt",), "best", "has no best.ckpt. It has last."),
        ((), None, "has no checkpoint. Train it further: its command plus resume=true."),
    ],
)
def test_a_checkpoint_that_a_run_lacks_is_named(
    tmp_path: Path, files: tuple[str, ...], which: str | None, words: str
) -> None:
    run = a_run(tmp_path / "rde", *files)

    with pytest.raises(FileNotFoundError) as error:
        source_of(run, which)

    assert str(error.value) == f"{run} {words}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: None, "does not exist."),
        (lambda place: place.mkdir(), "is no model: it is empty."),
        (
            lambda place: a_run(place / "mmcl-toy", "last.ckpt"),
            "is no model: it holds runs, such as {place}/mmcl-toy.",
        ),
        (
            lambda place: (place.mkdir(), Image.new("RGB", (2, 4)).save(place / "a.jpg")),
            "is no model: it holds images, such as a.jpg.",
        ),
        (
            lambda place: (place.mkdir(), (place / "reid_raw.json").write_text("[]")),
            "is no model: it has no config.yaml, but reid_raw.json.",
        ),
    ],
)
def test_a_folder_that_is_no_run_is_described(tmp_path: Path, make: object, words: str) -> None:
    place = tmp_path / "given"
    make(place)  # type: ignore[operator]

    with pytest.raises((FileNotFoundError, ValueError)) as error:
        source_of(place)

    assert str(error.value) == f"{place} {words.format(place=place)} {ADVICE}"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.jpg", "an image"),
        ("pairs.csv", "a table"),
        ("model.onnx", "a model of ONNX, which onnxruntime runs"),
        ("model.pt2", "a model of PT2, which torch.export runs"),
        ("w.pth", "a file of weights that does not say which model they are of"),
        ("notes.txt", "a file that ends in '.txt'"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / name
    path.write_text("x")

    with pytest.raises(ValueError, match=f"is {what}, no model of crosswalk. Name a run folder"):
        source_of(path)


def test_an_evaluation_names_its_run(tmp_path: Path) -> None:
    a_run(tmp_path / "rde", "last.ckpt")
    evaluation = a_run(tmp_path / "rde" / "evaluations" / "own_images-last-0a")

    with pytest.raises(ValueError, match=f"is an evaluation.* Name its run: {tmp_path / 'rde'}"):
        source_of(evaluation)


def test_a_finished_run_without_checkpoints_is_not_to_be_trained_further(tmp_path: Path) -> None:
    run = a_run(tmp_path / "rde")
    (run / "run.json").write_text('{"status": "finished"}')

    with pytest.raises(FileNotFoundError, match="Its checkpoints are gone"):
        source_of(run)


def test_a_checkpoint_is_not_chosen_of_a_file(tmp_path: Path) -> None:
    run = a_run(tmp_path / "rde", "best.ckpt", "last.ckpt")

    with pytest.raises(ValueError, match=r"best\.ckpt is a file, and which=last names"):
        source_of(run / "best.ckpt", "last")


def test_a_checkpoint_is_not_chosen_of_an_export(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")

    with pytest.raises(ValueError, match="is an export of one checkpoint, and which=last names"):
        source_of(tmp_path, "last")


@pytest.mark.parametrize("name", ["fifo.safetensors", "fifo.ckpt", "fifo"])
def test_what_is_neither_a_file_nor_a_folder_is_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)

    with pytest.raises(ValueError, match="is neither a file nor a folder"):
        source_of(tmp_path / name)


def test_a_mistyped_folder_is_not_looked_up_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(source, "named_folder", None)

    with pytest.raises(FileNotFoundError, match=r"hub is called hf:models/rde\. Name a run folder"):
        source_of("models/rde")


def test_an_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which='first' is no checkpoint of a run: choose best,"):
        source_of(tmp_path, "first")


def test_the_end_of_a_name_finds_the_run_that_is_meant(tmp_path: Path) -> None:
    run = a_run(tmp_path / "supervised-own_images-mine", "last.ckpt")

    with pytest.raises(FileNotFoundError, match=f"mine does not exist. Did you mean {run}"):
        source_of(tmp_path / "mine")
    assert no_run(tmp_path / "mine").endswith(f" Did you mean {run}?")


def test_what_is_no_run_is_told_the_run_in_it_or_above_it(tmp_path: Path) -> None:
    assert no_run(tmp_path).startswith(f"{tmp_path / 'config.yaml'} is missing")
    run = a_run(tmp_path / "rde-first", "last.ckpt")

    assert no_run(tmp_path).endswith(f"but holds 1 run: name one, such as {run}.")
    assert no_run(run / "last.ckpt").endswith(f"is a file of a run. Name its folder: {run}.")
