"""Adapters follow the settings of a case, also those that all committed cases share."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden.harness import DATA, Result, load_adapters, run_case

load_adapters(["rde", "cluster_contrast", "cm_moco", "cmmt", "mar", "mmcl"])


def run_with(case: str, folder: Path, *, of: str | None = None, **changed: object) -> Result:
    """Run ``<method>/<name>`` after other values were written into it, or into ``of`` beside it."""
    method, name = case.split("/")
    (folder / method).mkdir()
    for each in {name, of or name} | ({"tiny_checkpoint_0"} if method == "rde" else set()):
        shutil.copy(DATA / method / f"{each}.npz", folder / method)
    path = folder / method / f"{of or name}.npz"
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive}
    np.savez(path, **(arrays | changed))
    return run_case(folder / method / f"{name}.npz", method)


@pytest.mark.parametrize(
    ("case", "setting", "value"),
    [
        ("rde/tiny_model_0", "loss_type", "TRL"),
        ("rde/lr_schedule_0", "weight_decay", 1e-3),
        ("cm_moco/cmpm_loss_0", "epsilon", 1e-3),
        ("cm_moco/evaluation_0", "neighbor_num", 3),
        ("cm_moco/evaluation_0", "alpha", 0.5),
        ("cm_moco/tiny_simple_model_2", "scale_neg", 20.0),
        ("cm_moco/tiny_simple_model_2", "weight_decay", 1e-3),
        ("cmmt/image_transform_0", "size", [192, 128]),
        ("mar/mdl_5", "threshold_override_s1", 9.0),
        ("mar/train_epoch_0", "pixel_mean", 0.5),
        ("mar/train_epoch_0", "memory_momentum", 0.5),
        ("mar/train_epoch_0", "threshold_momentum", 0.5),
        ("mmcl/memory_steps_0", "momentum_epochs", 30),
        ("mmcl/trainer_trajectory_0", "momentum", 0.5),
        ("mmcl/trainer_trajectory_0", "weight_decay", 0.5),
        ("mmcl/trainer_trajectory_0", "step_size", 1),
        ("mmcl/trainer_trajectory_0", "backbone_lr_factor", 1.0),
        ("mmcl/random_erasing_0", "area", [0.3, 0.4]),
        ("mmcl/rect_crop_boxes_0", "aspect", [1.0, 1.5]),
        ("cluster_contrast/random_erasing_0", "area", [0.3, 0.4]),
        ("cluster_contrast/transform_train_0", "fill", [0.0, 0.0, 0.0]),
        ("cluster_contrast/tiny_train_2", "bn_chunks", 4),
        ("cluster_contrast/tiny_train_0", "use_hard", 1),
        ("cluster_contrast/mini_run_0", "momentum", 0.5),
        ("cluster_contrast/mini_run_0", "temp", 0.1),
        ("cluster_contrast/mini_run_1", "weight_decay", 0.1),
        ("cluster_contrast/lr_schedule_0", "gamma", 0.5),
    ],
)
def test_another_setting_gives_other_outputs(
    case: str, setting: str, value: object, tmp_path: Path
) -> None:
    result = run_with(case, tmp_path, **{setting: value})

    assert result.outcome == "failed"
    assert "out_" in result.reason
    assert "not read" not in result.reason


def test_training_has_the_loss_of_its_model(tmp_path: Path) -> None:
    result = run_with("rde/tiny_train_evalmode_0", tmp_path, of="tiny_model_0", loss_type="InfoNCE")

    assert "out_losses_bge_tse_per_step" in result.reason


@pytest.mark.parametrize("num_patches", [32, 7])
def test_a_checkpoint_may_be_of_images_of_any_shape(num_patches: int, tmp_path: Path) -> None:
    with np.load(DATA / "rde" / "tiny_checkpoint_0.npz") as archive:
        rows = archive["base_model.visual.positional_embedding"][: 1 + num_patches]

    result = run_with(
        "rde/tiny_checkpoint_0", tmp_path, **{"base_model.visual.positional_embedding": rows}
    )

    assert (result.outcome, result.reason) == ("passed", "")
