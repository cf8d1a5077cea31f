import pytest
import torch

from crosswalk.diagnostics.division_quality import division_quality


def test_the_shares_are_those_counted_by_hand() -> None:
    clean = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    true_pair = torch.tensor([True, True, False, True, False, False, False])

    quality = division_quality(clean, true_pair)

    assert quality == pytest.approx(
        {
            "clean_precision": 2 / 3,
            "clean_recall": 2 / 3,
            "noisy_precision": 3 / 4,
            "noisy_recall": 3 / 4,
        }
    )


def test_shares_of_nothing_are_left_out() -> None:
    quality = division_quality(torch.ones(3), torch.ones(3, dtype=torch.bool))

    assert quality == {"clean_precision": 1.0, "clean_recall": 1.0}
