from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crosswalk.cli import main
from crosswalk.config.compose import compose
from crosswalk.config.moved import today
from crosswalk.config.search import (
    PATH_VARIABLE,
    config_folder,
    config_folders,
    group_values,
    installed,
    small_overrides,
)


def own_folder(parent: Path) -> Path:
    folder = parent / "configs"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "station.yaml").write_text(
        "defaults: [own_pairs, _self_]\nroot: /station\nnum_workers: 7\n"
    )
    return folder


def test_a_folder_that_is_named_adds_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(own_folder(tmp_path)))

    assert "station" in group_values("data")
    assert "cuhk_pedes" in group_values("data")
    config = compose(["method=rde", "data=station"])
    assert (config.data.root, config.data.num_workers) == ("/station", 7)
    assert config.choices.data == "station"


def test_a_folder_configs_of_the_working_folder_adds_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path)
    assert "station" not in group_values("data")

    monkeypatch.chdir(tmp_path)

    assert config_folders() == (config_folder(), tmp_path / "configs")
    assert compose(["method=rde", "data=station"]).data.root == "/station"


def test_the_configs_of_another_program_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder(tmp_path) / "train.yaml").write_text("model: resnet\n")

    monkeypatch.chdir(tmp_path)

    assert config_folders() == (config_folder(),)


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder(tmp_path)
    (folder / "data" / "cuhk_pedes.yaml").write_text("root: /elsewhere\n")
    monkeypatch.setenv(PATH_VARIABLE, str(folder))

    with pytest.raises(ValueError, match=r"data=cuhk_pedes would mean either\. Rename"):
        compose(["method=rde"])


def test_a_folder_that_does_not_exist_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "nowhere"))

    assert main(["config", "show"]) == 2
    assert f"{tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err


def test_files_that_begin_with_an_underscore_are_parts_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_folder(tmp_path)
    (folder / "data" / "_stations.yaml").write_text("root: /all\n")
    monkeypatch.setenv(PATH_VARIABLE, str(folder))

    assert "_stations" not in group_values("data")


def test_small_overrides_are_of_no_run() -> None:
    assert "small" not in compose(["method=rde"])
    assert all("=" in override for override in small_overrides("rde"))


@pytest.mark.parametrize(
    ("stored", "present"),
    [
        ("crosswalk.data.cuhk_pedes.read_cuhk_pedes", "data.readers.cuhk_pedes.read_cuhk_pedes"),
        ("crosswalk.data.text_to_image.TextToImageData", "data.pairs.TextToImageData"),
        ("crosswalk.tracking.wandb_logger", "run.tracking.wandb_logger"),
        ("crosswalk.methods.rde.RDE", "methods.rde.RDE"),
        (
            "crosswalk.losses.pair_losses.TripletRanking",
            "losses.pair_losses.triplet_ranking_of_pairs",
        ),
    ],
)
def test_targets_of_an_earlier_release_are_known(stored: str, present: str) -> None:
    assert today(stored) == f"crosswalk.{present}"


def test_an_option_names_a_folder_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "")
    folder = own_folder(tmp_path)

    status = main(["config", "show", "--config-dir", str(folder), "method=rde", "data=station"])

    assert status == 0
    assert "root: /station" in capsys.readouterr().out


def test_installed_configurations_are_looked_for_anew_on_another_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = installed()
    folder = tmp_path / "plugin-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[crosswalk.configs]\nplugin = plugin.configs\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    more = [entry.value for entry in installed()]
    monkeypatch.undo()

    assert more == [*(entry.value for entry in before), "plugin.configs"]
    assert installed() is before
