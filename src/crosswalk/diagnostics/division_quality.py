"""How well a division into right and wrong pairs finds injected noise."""

from __future__ import annotations

import lightning.pytorch as L
from torch import Tensor

from crosswalk.types import DivisionData


def division_quality(clean: Tensor, true_pair: Tensor) -> dict[str, float]:
    """Return precision and recall of the pairs kept and of the pairs rejected.

    Args:
        clean: ``[N]``, 1 where a pair was kept.
        true_pair: ``[N]`` bool, False where noise was injected.

    Returns:
        ``clean_precision``: share of the kept pairs that are right; ``clean_recall``: share of
        the right pairs that were kept; ``noisy_precision`` and ``noisy_recall`` likewise for the
        pairs rejected. Shares of nothing are left out.

    Example:
        >>> import torch
        >>> division_quality(torch.tensor([1, 1, 0, 0]), torch.tensor([True, False, False, True]))
        {'clean_precision': 0.5, 'clean_recall': 0.5, 'noisy_precision': 0.5, 'noisy_recall': 0.5}
    """
    kept = clean.bool()
    true_pair = true_pair.to(kept.device)
    shares = {
        "clean_precision": (kept & true_pair, kept),
        "clean_recall": (kept & true_pair, true_pair),
        "noisy_precision": (~kept & ~true_pair, ~kept),
        "noisy_recall": (~kept & ~true_pair, ~true_pair),
    }
    return {
        name: float(part.sum() / whole.sum())
        for name, (part, whole) in shares.items()
        if bool(whole.any())
    }


class DivisionQuality(L.Callback):
    """Logs precision and recall of a method's division where the injected noise is known.

    Comes after `EpochSweep`, whose hook makes the division. The truth is only logged, never
    trained on.
    """

    def __init__(self, data: DivisionData) -> None:
        self.data = data

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the quality of this epoch's division."""
        if (
            isinstance(clean := getattr(pl_module, "clean", None), Tensor)
            and self.data.true_pairs is not None
        ):
            quality = division_quality(clean, self.data.true_pairs)
            pl_module.log_dict({f"train/{name}": value for name, value in quality.items()})
