"""The mixture of two Gaussians that the losses of right and of wrong pairs are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]


def fitted_mixture(
    losses: NDArray[np.float64], *, max_iter: int, tol: float, reg_covar: float, seed: int
) -> Any:  # noqa: ANN401 - sklearn's GaussianMixture
    """Return the mixture that `crosswalk.labels.consensus_division.clean_probability` asks.

    By itself, as the report of a finished run fits it once more, and imports no torch.

    Args:
        losses: ``[N]`` losses in [0, 1], not all equal; N >= 2.
        max_iter: Most iterations of expectation and maximisation.
        tol: Least gain of the mean log-likelihood per iteration.
        reg_covar: Added to each variance, in squared units of ``losses``.
        seed: Seed of the k-means start.

    Example:
        >>> losses = np.array([0.0, 0.02, 0.04, 0.96, 1.0])
        >>> mixture = fitted_mixture(losses, max_iter=10, tol=1e-2, reg_covar=5e-4, seed=1)
        >>> [round(float(mean), 2) for mean in sorted(mixture.means_.ravel())]
        [0.02, 0.98]
    """
    # late: a model in use divides nothing, and waits for its imports
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        n_components=2, max_iter=max_iter, tol=tol, reg_covar=reg_covar, random_state=seed
    )
    # One thread: with more, k-means adds in whatever order they finish, and a resumed run would
    # differ in the last bit. Ten iterations are the published setting, converged or not.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(losses[:, None])
