"""Clusters of images and captions over the epochs, before and after refinement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from crosswalk.diagnostics.base import Diagnostic
from crosswalk.diagnostics.figures import (
    BLUE,
    ORANGE,
    Curves,
    curve_figures,
    line_of,
    side_by_side,
)
from crosswalk.pages import Section, table_tag
from crosswalk.run.run_folder import RunFolder

if TYPE_CHECKING:
    import lightning.pytorch as L
    from torch import Tensor

MEASURES = {
    "purity": (
        "share",
        "Share of the clustered samples that belong to the commonest person of their cluster. "
        "Refinement adds samples to clusters; it should not lower this much.",
    ),
    "ari": (
        "adjusted Rand index",
        "Agreement of clusters and identities, 0 by chance, 1 at best. It should rise over the "
        "epochs, and lie higher after refinement than before.",
    ),
    "nmi": (
        "share",
        "Normalised mutual information of clusters and identities. It is high for many tiny "
        "clusters too, so read it beside the number of clusters.",
    ),
    "clusters": (
        "clusters",
        "Compare their number with that of the people: far more means that people are split, far "
        "fewer that people are mixed.",
    ),
    "outliers": (
        "share",
        "Samples in no cluster. Refinement gives an outlier the cluster that its partner is in, "
        "so fewer should be left after it.",
    ),
}
"""By measure: its unit, and what to look for."""


def cluster_counts(labels: Tensor) -> dict[str, float]:
    """Return the number of clusters and the share of outliers.

    Args:
        labels: ``[N]`` int64 clusters, -1 = outlier.

    Returns:
        ``clusters``, which outliers are none of, and ``outliers``, in [0, 1].

    Example:
        >>> import torch
        >>> cluster_counts(torch.tensor([0, 0, 7, -1]))
        {'clusters': 2.0, 'outliers': 0.25}
    """
    import torch

    clusters = torch.unique(labels)
    return {
        "clusters": float((clusters >= 0).sum()),
        "outliers": float((labels < 0).float().mean()),
    }


def cluster_agreement(labels: Tensor, person_id: Tensor) -> dict[str, float]:
    """Return how well clusters agree with identities.

    Args:
        labels: ``[N]`` int64 clusters, -1 = outlier.
        person_id: ``[N]`` int64 true person.

    Returns:
        ``purity``: share of the clustered instances that belong to the commonest person of their
        cluster, left out if there is none; ``ari`` and ``nmi``: adjusted Rand index and normalised
        mutual information (arithmetic mean) of all instances, every outlier a cluster of its own.

    Example:
        >>> import torch
        >>> person_id = torch.tensor([4, 4, 5, 5])
        >>> agreement = cluster_agreement(torch.tensor([0, 0, 0, -1]), person_id)
        >>> {name: round(value, 4) for name, value in agreement.items()}
        {'purity': 0.6667, 'ari': 0.0, 'nmi': 0.3437}
    """
    from sklearn.metrics import (  # type: ignore[import-untyped,unused-ignore]
        adjusted_rand_score,
        normalized_mutual_info_score,
    )
    from sklearn.metrics.cluster import (  # type: ignore[import-untyped,unused-ignore]
        contingency_matrix,
    )

    from crosswalk.labels.mutual_refinement import outliers_as_singletons

    person, clustered = person_id.numpy(force=True), labels.numpy(force=True) >= 0
    alone = outliers_as_singletons(labels).numpy(force=True)
    quality = {
        "ari": float(adjusted_rand_score(person, alone)),
        "nmi": float(normalized_mutual_info_score(person, alone)),
    }
    if not clustered.any():
        return quality
    counts = contingency_matrix(person[clustered], alone[clustered], sparse=True)
    return {"purity": float(counts.max(axis=0).sum() / clustered.sum()), **quality}


class Clusters(Diagnostic):
    """Logs the clusters of an epoch, and how well they agree with the true identities.

    Looks at `pseudo_labels` of the method, which come from its buffers, so a resumed run logs the
    same. Names are ``train/<labels>_<what>``. The truth is only logged, never trained on; where
    nobody knows it, the number of clusters and the share of outliers are logged alone.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Log the clusters this epoch was trained with."""
        for name, labels in pl_module.pseudo_labels().items():
            quality = cluster_counts(labels)
            person_id = self._truth(name, len(labels))
            if person_id is not None:
                quality |= cluster_agreement(labels, person_id)
            pl_module.log_dict({f"train/{name}_{what}": value for what, value in quality.items()})

    def _truth(self, name: str, num_labels: int) -> Tensor | None:
        """Return the persons of what was labelled: images, captions, or captions by image."""
        of_images: Tensor | None = self.data.train_image_person_id
        if of_images is None or name.startswith("image") or num_labels == len(of_images):
            return of_images
        of_samples: Tensor | None = self.data.train_person_id
        return of_samples

    def shows(self, metric: str) -> bool:
        """Return whether it is a measure of clusters."""
        return re.fullmatch(rf"train/.+_({'|'.join(MEASURES)})", metric) is not None

    def section(self, folder: RunFolder) -> Section | None:
        """Return every measure of the clusters over the epochs, and the latest as a table."""
        history = folder.metrics()
        found = [
            match.group(1)
            for line in history
            for key in line
            if (match := re.fullmatch(r"train/(.+)_clusters", key))
        ]
        if not found:
            return None
        refined = any(name.endswith("_refined") for name in found)
        names = {name: _in_words(name) if refined else name for name in found}
        wanted = [
            Curves(
                title=_heading(measure),
                unit=unit,
                lines={f"train/{name}_{measure}": text for name, text in names.items()},
                look_for=look_for,
                styles={f"train/{name}_{measure}": _style(name) for name in names},
            )
            for measure, (unit, look_for) in MEASURES.items()
        ]
        rows: list[list[object]] = []
        for name, text in names.items():
            lines = [line_of(history, f"train/{name}_{measure}").values for measure in MEASURES]
            rows.append([text, *(f"{values[-1]:.4g}" if values else "-" for values in lines)])
        table = table_tag(["last epoch", *map(_heading, MEASURES)], rows)
        body = table + side_by_side(curve_figures(history, wanted))
        title = "Clusters before and after refinement" if refined else "Clusters"
        return Section("clusters", title, body)


def _in_words(name: str) -> str:
    modality, _, refined = name.partition("_")
    return f"{modality}, {'after' if refined else 'before'} refinement"


def _heading(measure: str) -> str:
    return measure.upper() if measure in ("ari", "nmi") else measure.capitalize()


def _style(name: str) -> tuple[str, str]:
    """Return one colour for each modality, dashed before refinement."""
    return (
        BLUE if name.startswith("image") else ORANGE,
        "-" if name.endswith("_refined") else "--",
    )
