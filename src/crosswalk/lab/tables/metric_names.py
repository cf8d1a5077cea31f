"""Metrics as tables call them."""

from __future__ import annotations

from crosswalk.run.results import DIRECTIONS, EXTRA_MEASURES, MEASURES


def metric_label(metric: str) -> str:
    """Return the heading of a metric's column.

    Example:
        >>> [metric_label(name) for name in ("rank1", "image_to_text/map", "reranked/rank5")]
        ['R@1', 'mAP image → text', 'R@5 re-ranked']
        >>> metric_label("val/map")
        'mAP on val'
    """
    *groups, measure = metric.split("/")
    names = {**DIRECTIONS, "reranked": "re-ranked", "val": "on val"}
    label = (MEASURES | EXTRA_MEASURES).get(measure, measure)
    return " ".join([label, *(names.get(group, group) for group in groups)])
