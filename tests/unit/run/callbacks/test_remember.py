from pathlib import Path

import pytest
import torch

from tests.end_to_end.toy_run import StopAt, Stopped, train_toy


def test_a_checkpoint_contains_the_write_of_its_own_step(tmp_path: Path) -> None:
    # The second step begins, and only then does the first step's file take its place.
    with pytest.raises(Stopped):
        train_toy(tmp_path, StopAt("step", 2), every_n_steps=1)

    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1
    assert int((checkpoint["state_dict"]["memory"] != 0).sum()) == 4  # the samples of one batch
