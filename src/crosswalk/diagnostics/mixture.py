"""The mixture of two Gaussians behind a division, fitted again from the losses that were kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosswalk.diagnostics.division_record import DivisionRecord

SETTINGS = ("max_iter", "tol", "reg_covar")


class Heap(NamedTuple):
    """One Gaussian of a mixture, in units of the loss; ``weight`` in [0, 1]."""

    weight: float
    mean: float
    deviation: float

    def density(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the density at ``losses``, times the weight.

        Example:
            >>> float(Heap(0.5, 0.0, 1.0).density(np.zeros(1))[0].round(4))
            0.1995
        """
        standard = (losses - self.mean) / self.deviation
        scale = self.weight / (self.deviation * np.sqrt(2 * np.pi))
        result: NDArray[np.float64] = scale * np.exp(-(standard**2) / 2)
        return result


def heaps(
    record: DivisionRecord, view: int, *, division: Mapping[str, Any], seed: int
) -> tuple[Heap, Heap] | None:
    """Return the heap of right and that of wrong pairs as the run fitted them.

    Args:
        record: The division.
        view: Number of the view.
        division: The run's ``method.division``.
        seed: The run's ``method.seed``.

    Returns:
        None where the run did not fit this mixture: all losses equal, another division, or other
        probabilities than those it kept.

    Example:
        >>> from pathlib import Path
        >>> losses = np.array([[0.0, 0.2, 0.1, 4.0, 3.8]], dtype=np.float32)
        >>> judged = losses < 2
        >>> record = DivisionRecord(
        ...     0, ("global",), losses, judged * 1.0, judged, judged[0] * 1, judged[0], None
        ... )
        >>> settings = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
        >>> right, wrong = heaps(record, 0, division=settings, seed=1)
        >>> round(right.mean, 3), round(wrong.mean, 3), round(wrong.weight, 3)
        (0.1, 3.9, 0.4)
    """
    losses = record.losses[view]
    if not set(SETTINGS) <= division.keys() or np.ptp(losses) == 0:
        return None
    import torch

    from crosswalk.labels.consensus_division import fitted_mixture, min_max_normalised

    normalised = min_max_normalised(torch.from_numpy(losses))
    settings = {name: division[name] for name in SETTINGS}
    mixture = fitted_mixture(normalised, **settings, seed=seed + record.epoch)
    right = int(np.argmin(mixture.means_))
    posterior = mixture.predict_proba(normalised.double().numpy()[:, None])[:, right]
    if not np.allclose(posterior, record.probability[view], atol=1e-3):
        return None
    low, extent = float(losses.min()), float(np.ptp(losses))
    first, second = (
        Heap(
            weight=float(mixture.weights_[number]),
            mean=low + extent * float(mixture.means_[number, 0]),
            deviation=extent * float(np.sqrt(mixture.covariances_[number, 0, 0])),
        )
        for number in (right, 1 - right)
    )
    return first, second


def boundaries(losses: NDArray[np.floating[Any]], prediction: NDArray[np.bool_]) -> list[float]:
    """Return the losses at which the judgement changes, each midway between two pairs.

    Example:
        >>> boundaries(np.array([3.0, 1.0, 2.0]), np.array([False, True, True]))
        [2.5]
    """
    order = np.argsort(losses, kind="stable")
    change = np.flatnonzero(np.diff(prediction[order].astype(np.int8)))
    sorted_losses = losses[order].astype(np.float64)
    return [float(each) for each in (sorted_losses[change] + sorted_losses[change + 1]) / 2]
