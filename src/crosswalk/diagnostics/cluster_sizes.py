"""How large the clusters of an epoch are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crosswalk.diagnostics.base import LoggedCurves
from crosswalk.diagnostics.figures import Curves

if TYPE_CHECKING:
    import lightning.pytorch as L
    from torch import Tensor


def cluster_sizes(labels: Tensor) -> dict[str, float]:
    """Return the size of a middling and of the largest cluster; nothing where there is none.

    Args:
        labels: ``[N]`` int64 clusters, -1 = outlier.

    Returns:
        ``median_size`` and ``largest_size``, in samples.

    Example:
        >>> import torch
        >>> cluster_sizes(torch.tensor([0, 0, 7, 7, 7, -1, 3]))
        {'median_size': 2.0, 'largest_size': 3.0}
    """
    import torch

    counts = torch.unique(labels[labels >= 0], return_counts=True)[1].double()
    if not len(counts):
        return {}
    return {"median_size": float(counts.quantile(0.5)), "largest_size": float(counts.max())}


class ClusterSizes(LoggedCurves):
    """Logs the sizes of the clusters of images of an epoch as ``train/image_<which>_size``."""

    anchor = "sizes"
    title = "Sizes of the clusters"
    curves = (
        Curves(
            "Images of a cluster",
            "images",
            {
                "train/image_median_size": "of a middling cluster",
                "train/image_largest_size": "of the largest cluster",
            },
            "A largest cluster that holds many times the images of a person mixes people, and one "
            "that holds most images means that everything is near everything: lower "
            "method.clustering.eps. A middling one far below the images of a person means that "
            "people are split.",
        ),
    )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Log the sizes of the clusters that this epoch was trained with."""
        labels = pl_module.pseudo_labels().get("image")
        if labels is not None:
            sizes = cluster_sizes(labels)
            pl_module.log_dict({f"train/image_{which}": value for which, value in sizes.items()})
