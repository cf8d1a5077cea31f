"""Where R@1 cannot be measured, it is counted how many samples keep their nearest one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crosswalk.run.run_folder import RunFolder
from crosswalk.use.graphs import Samples
from crosswalk.use.int8_loss import agreement, data_to_test_on
from crosswalk.use.source import Source

ANGLES = torch.arange(50) / 50


def on_a_circle(turned: float = 0.0) -> torch.Tensor:
    angle = ANGLES + turned
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_captions_agree_on_their_nearest_image() -> None:
    rows = torch.arange(50)[:, None]
    samples = {"image": Samples(rows, on_a_circle()), "text": Samples(rows, on_a_circle())}
    halves = torch.where(ANGLES[:, None] < 0.5, on_a_circle(), on_a_circle(0.02))

    found = agreement(
        samples,
        {
            "image": lambda some: on_a_circle()[some[:, 0]],
            "text": lambda some: halves[some[:, 0]],
        },
    )

    assert found == pytest.approx((25 + 1) / 50)  # the last has no further neighbour to turn to


def test_images_agree_on_another_image() -> None:
    rows = torch.arange(50)[:, None]
    draws = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator()))

    found = agreement({"image": Samples(rows, draws)}, {"image": lambda some: draws[some[:, 0]]})

    assert found == 1.0


def test_what_is_no_run_has_no_test_data(tmp_path: Path) -> None:
    source = Source("export", RunFolder(tmp_path), tmp_path / "model.safetensors")

    assert data_to_test_on(source) == (None, "it was exported from no run folder")
