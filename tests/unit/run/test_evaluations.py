"""Where an evaluation of a run on other data, or by other rules, lies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crosswalk.config.build import Run
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import evaluation_folder


def evaluated(
    run: Path, *overrides: str, fingerprint: str = "0123", weights: bytes = b"weights"
) -> Path:
    """Return the folder of an evaluation with some overrides, data and weights."""
    run.mkdir(exist_ok=True)
    for name in ("best.ckpt", "last.ckpt"):
        (run / name).write_bytes(weights)
    kind = [
        "method=mmcl",
        "data=own_images",
        "data.root=here",
        "+data.tokenizer.vocabulary=here.json",
    ]
    RunFolder(run).save_config(to_plain(compose(kind)))
    config = to_plain(compose([*kind, *overrides]))
    built = SimpleNamespace(
        config=config,
        trainer=config["trainer"],
        data=SimpleNamespace(fingerprint=fingerprint),
    )
    return evaluation_folder(RunFolder(run), cast(Run, built)).path


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("finished", r"last.ckpt is missing, and the run has finished.*plus resume=restart\."),
        ("interrupted", r"last.ckpt is missing: the run did not finish.*plus resume=true\."),
    ],
)
def test_a_checkpoint_that_is_missing_is_told_as_the_run_stands(
    tmp_path: Path, status: str, told: str
) -> None:
    run = RunFolder(tmp_path)
    run.save_record({"status": status})
    config = to_plain(compose(["method=mmcl", "data=own_images", "data.root=here"]))
    run.save_config(config)
    data = SimpleNamespace(fingerprint="0123")
    built = SimpleNamespace(config=config, trainer=config["trainer"], data=data)

    with pytest.raises(FileNotFoundError, match=told):
        evaluation_folder(run, cast(Run, built))


def test_where_one_checkpoint_is_gone_the_other_one_can_be_evaluated(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.save_record({"status": "finished"})
    run.last_checkpoint.write_bytes(b"weights")
    words = ["method=mmcl", "data=own_images", "data.root=here", "protocol=val"]
    config = to_plain(compose(words))
    run.save_config(config)
    data = SimpleNamespace(fingerprint="0123")
    built = SimpleNamespace(config=config, trainer=config["trainer"], data=data)

    with pytest.raises(FileNotFoundError) as refused:
        evaluation_folder(run, cast(Run, built))

    command = f"`crosswalk evaluate {tmp_path}/last.ckpt data=own_images data.root=here`"
    assert f"evaluate the one that is there ({command}), or train again" in str(refused.value)


@pytest.mark.parametrize(("trained", "evaluated"), [("last", "official"), ("last", "val")])
def test_a_run_that_chose_no_epoch_is_asked_for_none(
    tmp_path: Path, trained: str, evaluated: str
) -> None:
    words = ["method=mmcl", "data=own_images", "data.root=here"]
    run = RunFolder(tmp_path)
    run.save_config(to_plain(compose([*words, f"protocol={trained}"])))
    run.last_checkpoint.write_bytes(b"weights")
    config = to_plain(compose([*words, f"protocol={evaluated}"]))
    data = SimpleNamespace(fingerprint="0123")
    built = SimpleNamespace(config=config, trainer=config["trainer"], data=data)

    folder = evaluation_folder(run, cast(Run, built))

    assert folder.name.startswith(f"own_images-{evaluated}-")
    run.save_config(to_plain(compose([*words, "protocol=val"])))
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt is missing"):
        evaluation_folder(run, cast(Run, built))


@pytest.mark.parametrize(
    "changed",
    [
        {"overrides": ["method.test_feature=embedded"]},
        {"overrides": ["trainer.precision=bf16-mixed"]},
        {"overrides": ["data.eval_interpolation=bilinear"]},
        {"overrides": ["data.camera_rule=false"]},
        {"overrides": ["data.extra_map=[trapezoidal]"]},
        {"overrides": ["reranking=k_reciprocal"]},
        {"fingerprint": "4567"},
        {"weights": b"of a later epoch"},
    ],
    ids=str,
)
def test_whatever_can_change_a_number_makes_another_evaluation(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    overrides = changed.pop("overrides", [])

    assert evaluated(tmp_path / "run", *overrides, **changed) != evaluated(tmp_path / "run")


@pytest.mark.parametrize(
    "override",
    [
        *("data.root=elsewhere", "data.num_workers=0", "logger=csv", "tags=[a]"),
        "data.tokenizer.vocabulary=moved/vocabulary.json",
    ],
)
def test_the_same_evaluation_has_the_same_folder(tmp_path: Path, override: str) -> None:
    assert evaluated(tmp_path / "run", override) == evaluated(tmp_path / "run")
