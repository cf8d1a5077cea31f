"""Folders of synthetic sets: complete or absent."""

import json
from pathlib import Path

import pytest

from crosswalk.synthetic.set_folder import COUNTS_NAME, write_record, written_folder

SETTINGS: dict[str, str | int] = {"dataset": "people", "seed": 3}


def write(folder: Path, text: str) -> bool:
    """Write a set and return whether there was anything to do."""
    with written_folder(folder, "inner", SETTINGS) as partial:
        if partial is None:
            return False
        (partial / "inner").mkdir()
        (partial / "inner" / "image").write_text(text)
        write_record(partial / "inner", SETTINGS, {"train": {"images": 1}})
    return True


def test_a_set_appears_when_it_is_complete_and_is_left_as_it_is(tmp_path: Path) -> None:
    assert write(tmp_path / "deep/set", "first")
    assert not write(tmp_path / "deep/set", "second")

    inner = tmp_path / "deep/set/inner"
    assert (inner / "image").read_text() == "first"
    assert json.loads((inner / COUNTS_NAME).read_text()) == {
        **SETTINGS,
        "splits": {"train": {"images": 1}},
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set"]
    assert (tmp_path / "deep/set").stat().st_mode & 0o777 == 0o755


def fail(folder: Path) -> None:
    with written_folder(folder, "inner", SETTINGS) as partial:
        assert partial is not None
        assert partial.parent == folder.parent
        assert not folder.exists()
        raise RuntimeError("stopped")


def test_nothing_is_in_place_before_the_end_or_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        fail(tmp_path / "set")

    assert list(tmp_path.iterdir()) == []


def test_the_same_set_completed_by_somebody_else_meanwhile_is_kept(tmp_path: Path) -> None:
    with written_folder(tmp_path / "set", "inner", SETTINGS) as partial:
        assert partial is not None
        assert write(tmp_path / "set", "theirs")

    assert (tmp_path / "set/inner/image").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def be_overtaken(folder: Path) -> None:
    with written_folder(folder, "inner", SETTINGS):
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")


def test_something_else_put_there_meanwhile_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="no synthetic data set"):
        be_overtaken(tmp_path / "set")

    assert [path.name for path in tmp_path.iterdir()] == ["set"]
