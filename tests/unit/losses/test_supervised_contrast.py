import math

import pytest
import torch

from crosswalk.losses.supervised_contrast import supervised_contrastive_loss


@pytest.mark.parametrize(
    "person_id", [[0, 0, 1], [0, 1, 2, 3, 4], [5], [2, 2, 2], [1, 0, 1, 0, 1, 2, 7]]
)
def test_every_positive_is_one_right_answer_among_all_candidates(person_id: list[int]) -> None:
    generator = torch.Generator().manual_seed(len(person_id))
    scores = 5 * torch.randn(len(person_id), len(person_id), generator=generator).double()
    ids = torch.tensor(person_id)

    losses = supervised_contrastive_loss(scores, ids[:, None] == ids)

    for anchor, row in enumerate(scores.tolist()):
        total = sum(math.exp(score) for score in row)
        own = [
            math.log(math.exp(row[c]) / total)
            for c, p in enumerate(person_id)
            if p == person_id[anchor]
        ]
        assert losses[anchor].item() == pytest.approx(-sum(own) / len(own), rel=1e-12)


def test_the_hand_check_of_three_images_and_two_people() -> None:
    images = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-1.0, 0.5]]).double()
    texts = torch.tensor([[1.0, 0.2], [1.0, 0.2], [-0.5, 1.0]]).double()
    ids = torch.tensor([1, 1, 2])
    scores, same = images @ texts.T, ids[:, None] == ids

    there, back = (supervised_contrastive_loss(each, same) for each in (scores, scores.T))

    assert there.tolist() == pytest.approx([0.798916, 1.115558, 0.261700], abs=1e-6)
    assert there.mean().item() == pytest.approx(0.725392, abs=1e-6)
    assert back.mean().item() == pytest.approx(0.755892, abs=1e-6)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    scores = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)

    losses = supervised_contrastive_loss(scores, torch.eye(2, dtype=torch.bool))
    losses.sum().backward()

    assert losses.tolist() == [0.0, 0.0]
    assert scores.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_an_anchor_without_a_positive_is_named() -> None:
    with pytest.raises(ValueError, match=r"anchors \[1\] have no positive"):
        supervised_contrastive_loss(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]))
