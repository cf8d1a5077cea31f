"""Confident consensus division: which training pairs are clean, by the losses of several views."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from crosswalk.labels.loss_mixture import fitted_mixture
from crosswalk.ranges import Count, NotNegative, Positive, Seed, Share


class Division(NamedTuple):
    """Outcome of a division of ``N`` pairs by ``views`` loss vectors.

    Attributes:
        clean: ``[N]`` float32, 1 where a pair is kept, 0 where it is judged noisy.
        votes: ``[N]`` int64, how many views call the pair clean.
        prediction: ``[views, N]`` bool, true where a view calls the pair clean.
        probability: ``[views, N]`` float64, each view's probability that the pair is clean.
    """

    clean: Tensor
    votes: Tensor
    prediction: Tensor
    probability: Tensor


def min_max_normalised(losses: Tensor) -> Tensor:
    """Return ``[N]`` losses moved and scaled to [0, 1]; all 0 if they are all equal.

    Example:
        >>> min_max_normalised(torch.tensor([2.0, 6.0, 3.0]))
        tensor([0.0000, 1.0000, 0.2500])
    """
    low, high = losses.min(), losses.max()
    return (losses - low) / torch.where(high == low, 1.0, high - low)


def clean_probability(
    losses: Tensor, *, max_iter: int, tol: float, reg_covar: float, seed: int
) -> Tensor:
    """Return the probability that each pair is clean, from a mixture of two Gaussians.

    Networks learn clean pairs first, so the losses fall into a low and a high heap; the
    probability is the posterior of the heap with the lower mean.
    Source: Qin et al., RDE, CVPR 2024; the settings of the fit only in the official code.

    Args:
        losses: ``[N]`` losses in [0, 1], not all equal; N >= 2.
        max_iter: Most iterations of expectation and maximisation.
        tol: Least gain of the mean log-likelihood per iteration.
        reg_covar: Added to each variance, in squared units of ``losses``.
        seed: Seed of the k-means start.

    Returns:
        ``[N]`` float64 on the CPU.

    Example:
        >>> losses = torch.tensor([0.0, 0.02, 0.04, 0.96, 1.0])
        >>> clean_probability(losses, max_iter=10, tol=1e-2, reg_covar=5e-4, seed=1).round()
        tensor([1., 1., 1., 0., 0.], dtype=torch.float64)
    """
    values = losses.detach().cpu().double().numpy()
    mixture = fitted_mixture(values, max_iter=max_iter, tol=tol, reg_covar=reg_covar, seed=seed)
    with threadpool_limits(limits=1):
        posterior = mixture.predict_proba(values[:, None])
    return torch.from_numpy(posterior[:, int(np.argmin(mixture.means_))].copy())


def predict_clean(probability: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return which pairs a view calls clean, never all of them.

    If every probability is above the threshold, the lowest hundredth is called noisy.
    Source: RDE's official code; not in the paper.

    Args:
        probability: ``[N]`` probabilities that a pair is clean.
        threshold: Probability a clean pair exceeds, in (0, 1).

    Returns:
        ``[N]`` bool.

    Example:
        >>> predict_clean(torch.tensor([0.2, 0.5, 0.9]))
        tensor([False, False,  True])
        >>> predict_clean(torch.tensor([0.7, 0.8, 0.9]))
        tensor([False,  True,  True])
    """
    prediction = probability > threshold
    if bool(prediction.all()):
        prediction = probability > probability.sort().values[len(probability) // 100]
    return prediction


def coin_tosses(num_tosses: int, *, seed: int) -> Tensor:
    """Return ``[num_tosses]`` fair draws of 0 or 1, the same for a seed on every machine.

    Example:
        >>> coin_tosses(6, seed=1)
        tensor([1, 1, 0, 0, 1, 1])
    """
    return torch.randint(0, 2, (num_tosses,), generator=torch.Generator().manual_seed(seed))


def resolve_votes(votes: Tensor, toss: Tensor, *, num_views: int) -> Tensor:
    """Return which pairs are kept: all views say so, or they disagree and the coin says so.

    Args:
        votes: ``[N]`` int64, how many views call the pair clean.
        toss: One draw of 0 or 1 for each pair without consensus, in the order of the pairs.
        num_views: Number of views that voted.

    Returns:
        ``[N]`` float32, 0 or 1.

    Example:
        >>> resolve_votes(torch.tensor([2, 1, 0, 1]), torch.tensor([0, 1]), num_views=2)
        tensor([1., 0., 0., 1.])
    """
    clean = (votes == num_views).float()
    clean[(votes > 0) & (votes < num_views)] = toss.float()
    return clean


def divide(
    *losses: Tensor,
    max_iter: Count,
    tol: Positive,
    reg_covar: NotNegative,
    seed: Seed,
    threshold: Share = 0.5,
) -> Division:
    """Return which training pairs are kept by the consensus of all views, and why.

    One view alone confirms its own mistakes; a pair is kept if all views call it clean, dropped
    if none does, and decided by a coin, anew every epoch, if they disagree.
    Source: Qin et al., RDE, CVPR 2024, confident consensus division.

    Args:
        losses: ``[N]`` loss of every training pair, one tensor per view, at least one.
        max_iter: Most iterations of each mixture fit; 10 or 100 in RDE's official code.
        tol: Least gain of the mean log-likelihood per iteration; 1e-2 or 1e-4.
        reg_covar: Added to each variance of losses scaled to [0, 1]; 5e-4 or 1e-6.
        seed: Seed of the fits and the coins; a different one each epoch.
        threshold: Probability a clean pair exceeds, in (0, 1).

    Returns:
        The division, on the CPU.

    Raises:
        ValueError: If a loss is not finite.

    Example:
        >>> losses = torch.tensor([0.1, 3.0, 0.2, 0.3, 2.9])
        >>> divide(losses, losses, max_iter=10, tol=1e-2, reg_covar=5e-4, seed=1).clean
        tensor([1., 0., 1., 1., 0.])
    """
    probabilities, predictions = [], []
    for view, loss in enumerate(losses):
        loss = loss.detach().cpu()
        if not bool(loss.isfinite().all()):
            broken = (~loss.isfinite()).nonzero().flatten().tolist()
            raise ValueError(
                f"view {view} has losses that are not finite, first at training samples "
                f"{broken[:5]} ({len(broken)} in all). The model diverged or its weights are "
                "broken: lower optim.lr, or train with trainer.precision=32-true."
            )
        if bool((loss == loss[0]).all()):  # nothing to tell apart; the official code fails here
            probabilities.append(torch.ones(len(loss), dtype=torch.float64))
            predictions.append(torch.ones(len(loss), dtype=torch.bool))
            continue
        probability = clean_probability(
            min_max_normalised(loss), max_iter=max_iter, tol=tol, reg_covar=reg_covar, seed=seed
        )
        probabilities.append(probability)
        predictions.append(predict_clean(probability, threshold=threshold))
    prediction = torch.stack(predictions)
    votes = prediction.sum(dim=0)
    num_uncertain = int(((votes > 0) & (votes < len(losses))).sum())
    clean = resolve_votes(votes, coin_tosses(num_uncertain, seed=seed), num_views=len(losses))
    return Division(clean, votes, prediction, torch.stack(probabilities))
