import random
from pathlib import Path

import numpy as np
import torch

from crosswalk.run.callbacks.process_state import random_state, restore_random_state


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def test_random_numbers_continue_after_a_way_through_a_file(tmp_path: Path) -> None:
    draw()  # leaves half of a pair of normal numbers waiting in Python and numpy
    torch.save(random_state(), tmp_path / "state.pt")
    expected = draw() + draw()
    draw()

    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))

    assert draw() + draw() == expected
