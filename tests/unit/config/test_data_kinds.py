"""Which data a method trains on, and that others are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from crosswalk.cli import main
from crosswalk.config.build import build
from crosswalk.config.check import check, compose_training
from crosswalk.config.compose import compose, restore
from crosswalk.config.data_kinds import check_kind, methods_without_identities
from crosswalk.config.search import config_folder, group_values
from crosswalk.types import ImageBatch, PairBatch


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=mmcl", "data=cuhk_pedes"],
            "data=cuhk_pedes gives image-caption pairs; method=mmcl trains on images of people or "
            ".*Choose one of .*data=market1501",
        ),
        (
            ["method=rde", "data=market1501", "data.root=/nowhere"],
            "data=market1501 gives images of people; method=rde trains on image-caption pairs. "
            "Choose one of data=cuhk_pedes",
        ),
    ],
)
def test_data_that_a_method_cannot_train_on_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(check(compose(overrides)))


@pytest.mark.parametrize(("method", "key"), [("mmcl", "data.plan"), ("mar", "data.target.plan")])
def test_batches_by_person_are_refused_for_a_method_without_persons(method: str, key: str) -> None:
    node = "{_target_: crosswalk.data.pipeline.plans.identity_plan, _partial_: true}"

    with pytest.raises(ValueError, match=rf"{key}=.*method={method} does not look at identities"):
        check(compose([f"method={method}", f"++{key}={node}"]))


def test_data_for_a_method_that_no_run_is_published_of_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# @package _global_\ndefaults: [rde, _self_]\n")
    monkeypatch.setenv("CROSSWALK_CONFIG_PATH", str(tmp_path))

    with pytest.raises(ValueError, match=r"method=mine trains on .*Choose one of data=cuhk_pedes"):
        check(compose(["method=mine", "data=market1501"]))


def test_images_without_identities_are_refused_where_they_are_needed(tmp_path: Path) -> None:
    for split, names in {
        "train": ["a.jpg", "b.jpg"],
        "query": ["1_c1_0.jpg"],
        "gallery": ["1_c2_0.jpg", "2_c1_0.jpg"],
    }.items():
        (tmp_path / split).mkdir()
        for name in names:
            Image.new("RGB", (8, 16)).save(tmp_path / split / name)
    overrides = [
        "data=own_images",
        f"data.root={tmp_path}",
        "encoder=resnet_tiny",
        "data.cache=off",
    ]

    with pytest.raises(ValueError, match=r"method=supervised learns from identities.*method=mmcl"):
        build(check(compose(["method=supervised", *overrides])))
    assert build(check(compose(["method=mmcl", *overrides]))).data.spec.num_samples == 2


def write_unlabelled_pairs(folder: Path) -> Path:
    rows = ["image,caption,person_id,split"]
    for number, split in enumerate(["train"] * 4 + ["val", "val", "test", "test"]):
        name = "" if split == "train" else f"{split}{number}"
        rows.append(f"{number}.png,A man with a red coat {number}.,{name},{split}")
        Image.new("RGB", (8, 16)).save(folder / f"{number}.png")
    (folder / "pairs.csv").write_text("\n".join(rows))
    return folder / "pairs.csv"


def test_pairs_without_identities_are_refused_where_they_are_needed(tmp_path: Path) -> None:
    root = f"data.root={write_unlabelled_pairs(tmp_path)}"
    small = ["data=own_pairs", root, "data.cache=off", "text=lstm_learned_words_tiny"]
    cmmt = ["method=cmmt", "encoder=resnet_tiny_normed", *small]

    with pytest.raises(ValueError, match=r"method=cm_moco learns .* pairs of .*=cmmt"):
        build(check(compose(["method=cm_moco", *small])))
    with pytest.raises(ValueError, match=r"method=cmmt learns .*have none\. Leave method\.\*"):
        build(check(compose([*cmmt, "method.relation=identities"])))
    assert build(check(compose(cmmt))).data.spec.num_samples == 4


def test_a_method_made_of_another_file_or_of_a_package_that_is_not_here_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = methods_without_identities([PairBatch])
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "a_rde_of_mine.yaml").write_text("defaults: [rde]\n")
    (tmp_path / "method" / "b_elsewhere.yaml").write_text("method: {_target_: nowhere.Method}\n")
    monkeypatch.setenv("CROSSWALK_CONFIG_PATH", str(tmp_path))

    assert "b_elsewhere" in group_values("method")
    assert methods_without_identities([PairBatch]) == known == ["cmmt", "rde"]


def test_the_kind_of_the_data_is_said_before_a_key_that_they_lack() -> None:
    with pytest.raises(ValueError, match="data=market1501 gives images of people; method=rde"):
        compose_training(["data=market1501", "data.noise_rate=0.5"])


def of_another_kind() -> list[tuple[str, str]]:
    found = []
    for method in group_values("method"):
        for data in group_values("data"):
            try:
                check_kind(method, data)
            except ValueError:
                found.append((method, data))
    return found


@pytest.mark.parametrize(("method", "data"), of_another_kind())
def test_the_kind_of_the_data_is_said_before_a_value_that_is_taken_from_them(
    method: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "show", f"method={method}", f"data={data}"]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"crosswalk: data={data} gives ")
    assert f"; method={method} trains on " in said.err


@pytest.mark.parametrize("words", [["config", "diff"], ["sweep", "rde"], ["train"]])
def test_every_command_that_composes_says_the_kind_of_the_data(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "data=market1501"]) == 2

    said = capsys.readouterr().err
    assert "data=market1501 gives images of people; method=rde trains on " in said


def test_data_of_another_kind_are_told_all_that_fit() -> None:
    with pytest.raises(ValueError, match=r"Choose one of data=cuhk_pedes, .*data=own_pairs"):
        check(compose(["method=rde", "data=market1501"]))
    with pytest.raises(ValueError, match=r"Choose one of .*data=own_images.*data=synthetic_images"):
        check(compose(["method=mmcl", "data=own_pairs"]))


def test_the_method_without_identities_that_is_named_first_has_most_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = methods_without_identities([ImageBatch])
    (tmp_path / "method").mkdir()
    content = (config_folder() / "method" / "mmcl.yaml").read_text(encoding="utf-8")
    (tmp_path / "method" / "another.yaml").write_text(content, encoding="utf-8")
    monkeypatch.setenv("CROSSWALK_CONFIG_PATH", str(tmp_path))

    assert methods_without_identities([ImageBatch]) == [*known, "another"]
    assert known[0] == "mmcl"


def test_a_model_of_images_is_not_evaluated_on_captions() -> None:
    config = compose(["method=mmcl"])
    stored = OmegaConf.to_container(config, resolve=True)
    assert isinstance(stored, dict)

    restored = restore(stored, ["data=own_pairs", "data.root=/nowhere"])

    with pytest.raises(ValueError, match="data=own_pairs gives image-caption pairs, and a model"):
        check(restored, trains=False)
