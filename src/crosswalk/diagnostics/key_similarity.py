"""Momentum contrast: how similar a query is to its own key and to those of the queue."""

from __future__ import annotations

from crosswalk.diagnostics.base import LoggedCurves
from crosswalk.diagnostics.figures import Curves


class KeySimilarity(LoggedCurves):
    """Shows the similarity to own keys and to those of others over the epochs."""

    anchor = "keys"
    title = "Positive and negative similarity"
    curves = (
        Curves(
            "Similarity to keys",
            "cosine",
            {
                "train/positive_similarity": "own partner's key",
                "train/negative_similarity": "keys of others in the queue",
            },
            "Mean cosine of images and captions with the key of their own partner, and with the "
            "keys of other people in the queue. The gap should open. Both near 1 means that "
            "everything collapses onto one point; a gap that never opens, that the contrast "
            "teaches nothing.",
        ),
    )
