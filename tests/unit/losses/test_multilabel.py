import math
import warnings

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.losses.multilabel import (
    _note_less_than_one,
    memory_cross_entropy,
    mmcl_loss,
    multilabel_classification_loss,
)


def random_scores(num_samples: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return scores in [-1, 1] and labels with 1, 2, 3, ... positives."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(num_samples, num_classes, generator=generator).double() * 2 - 1
    order = torch.rand(num_samples, num_classes, generator=generator).argsort(dim=1)
    return logits, order <= torch.arange(num_samples)[:, None]


def mmcl_by_hand(scores: list[float], labels: list[bool], delta: float, ratio: float) -> float:
    positives = [s for s, label in zip(scores, labels, strict=True) if label]
    negatives = sorted(
        (s for s, label in zip(scores, labels, strict=True) if not label), reverse=True
    )
    hard = negatives[: max(1, int(ratio * len(negatives)))]
    loss = delta * sum((1 - s) ** 2 for s in positives) / max(1, len(positives))
    return loss + sum((1 + s) ** 2 for s in hard) / max(1, len(hard))


@pytest.mark.parametrize("ratio", [0.01, 0.29, 0.5, 1.0])
@pytest.mark.parametrize(("num_samples", "num_classes"), [(1, 101), (3, 103), (7, 333)])
def test_mmcl_is_that_of_a_loop_with_its_own_share_for_every_sample(
    num_samples: int, num_classes: int, ratio: float
) -> None:
    logits, labels = random_scores(num_samples, num_classes, seed=num_classes)

    losses = mmcl_loss(logits, labels, delta=5.0, ratio=ratio)

    for sample, loss in enumerate(losses):
        expected = mmcl_by_hand(logits[sample].tolist(), labels[sample].tolist(), 5.0, ratio)
        assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_mmcl_and_its_gradient_of_the_example_worked_by_hand() -> None:
    logits = torch.tensor([[0.9, 0.2, -0.1, 0.5, 0.3]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[False, True, False, False, True]])

    loss = mmcl_loss(logits, labels, delta=2.0, ratio=0.7)  # hard: 0.9 and 0.5
    loss.mean().backward()

    assert loss.item() == pytest.approx((0.64 + 0.49) + (3.61 + 2.25) / 2, abs=1e-12)
    expected = torch.tensor([[1.9, -1.6, 0.0, 1.5, -1.4]], dtype=torch.float64)
    assert_close(logits.grad, expected, rtol=1e-12, atol=1e-12)


def test_the_share_of_hard_negatives_is_cut_in_double_precision() -> None:
    logits = torch.linspace(-1, 1, 101, dtype=torch.float64)[None].requires_grad_()
    labels = torch.zeros(1, 101, dtype=torch.bool)
    labels[0, 0] = True

    mmcl_loss(logits, labels, delta=5.0, ratio=0.29).sum().backward()

    assert int((logits.grad > 0).sum()) == 28  # 0.29 * 100 is 28.999...


def test_a_memory_of_zeros_has_the_loss_delta_plus_one() -> None:
    labels = torch.eye(128, dtype=torch.bool)[:3]

    losses = mmcl_loss(torch.zeros(3, 128), labels, delta=5.0, ratio=0.01)

    assert losses.tolist() == [6.0, 6.0, 6.0]


def test_a_share_below_one_class_takes_the_hardest_and_says_so_once() -> None:
    _note_less_than_one.cache_clear()
    logits = torch.tensor([[0.5, 0.25, -0.5]], requires_grad=True)
    labels = torch.tensor([[True, False, False]])

    with pytest.warns(UserWarning, match=r"method\.loss\.ratio=0\.01 of 2 negative classes"):
        loss = mmcl_loss(logits, labels, delta=2.0, ratio=0.01)
    loss.sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as if another library had touched the filters
        mmcl_loss(logits, labels, delta=2.0, ratio=0.01)

    assert loss.tolist() == [2 * 0.25 + 1.25**2]
    assert logits.grad.tolist() == [[-2.0, 2.5, 0.0]]


@pytest.mark.parametrize("num_classes", [1, 3])
def test_without_negatives_only_the_positive_term_is_left(num_classes: int) -> None:
    logits = torch.full((1, num_classes), 0.5, requires_grad=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = mmcl_loss(
            logits, torch.ones(1, num_classes, dtype=torch.bool), delta=4.0, ratio=0.01
        )
    loss.sum().backward()

    assert loss.tolist() == [1.0]
    assert_close(logits.grad, torch.full((1, num_classes), -4.0 / num_classes))


def test_without_positives_only_the_negative_term_is_left() -> None:
    loss = mmcl_loss(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool), delta=5.0, ratio=0.5)

    assert loss.tolist() == [1.0]


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"method\.loss\.ratio="):
        mmcl_loss(torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool), delta=5.0, ratio=ratio)


@pytest.mark.parametrize(
    ("temperature", "positive", "negative"),
    [
        (1.0, 0.474077, 0.854355),
        (0.1, 0.006715, 3.048587),
    ],
)
def test_the_logistic_loss_has_the_values_computed_by_hand(
    temperature: float, positive: float, negative: float
) -> None:
    logits = torch.tensor([[0.5, 0.3]], dtype=torch.float64)
    labels = torch.tensor([[True, False]])

    loss = multilabel_classification_loss(
        logits, labels, temperature=temperature, class_reduction="sum"
    )

    assert loss.item() == pytest.approx(positive + negative, abs=2e-6)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_reductions_of_the_logistic_loss_are_those_of_a_loop(temperature: float) -> None:
    logits, labels = random_scores(5, 17, seed=3)
    labels[4] = True

    def reduced(reduction: str) -> Tensor:
        return multilabel_classification_loss(
            logits, labels, temperature=temperature, class_reduction=reduction
        )

    for sample in range(5):
        terms = [
            (math.log1p(math.exp((-s if label else s) / temperature)), label)
            for s, label in zip(logits[sample].tolist(), labels[sample].tolist(), strict=True)
        ]
        right = [term for term, label in terms if label]
        wrong = [term for term, label in terms if not label]
        balanced = sum(right) / len(right) + sum(wrong) / max(1, len(wrong))
        assert reduced("sum")[sample].item() == pytest.approx(sum(right + wrong), abs=1e-10)
        assert reduced("mean")[sample].item() == pytest.approx(sum(right + wrong) / 17, abs=1e-10)
        assert reduced("balanced")[sample].item() == pytest.approx(balanced, abs=1e-10)


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(KeyError, match="max"):
        multilabel_classification_loss(
            torch.zeros(1, 2), torch.ones(1, 2).bool(), temperature=1.0, class_reduction="max"
        )


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_cross_entropy_is_the_mean_over_the_positive_classes(temperature: float) -> None:
    logits, labels = random_scores(3, 7, seed=4)

    losses = memory_cross_entropy(logits, labels, temperature=temperature)

    for sample, loss in enumerate(losses):
        scores = [s / temperature for s in logits[sample].tolist()]
        total = math.log(sum(math.exp(s) for s in scores))
        own = [total - s for s, label in zip(scores, labels[sample].tolist(), strict=True) if label]
        assert loss.item() == pytest.approx(sum(own) / len(own), abs=1e-10)
