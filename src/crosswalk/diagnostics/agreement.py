"""Soft multilabels: the agreement that counts as such, and the pairs that reach it."""

from __future__ import annotations

from crosswalk.diagnostics.base import LoggedCurves
from crosswalk.diagnostics.figures import Curves


class Agreement(LoggedCurves):
    """Shows the threshold of agreement, and how many pairs reach it and how rightly."""

    anchor = "agreement"
    title = "Agreement of soft multilabels"
    curves = (
        Curves(
            "Agreement threshold",
            "agreement",
            {"train/agreement_threshold": "threshold"},
            "Similar pairs whose multilabels agree more than this are positive, the others hard "
            "negatives. It moves with the multilabels and should settle; a fall to 0 means that "
            "everything agrees or nothing does.",
        ),
        Curves(
            "Positive pairs",
            "pairs of a batch",
            {"train/positive_pairs": "positive pairs"},
            "Moving average of the pairs of a batch that are drawn together. Near 0 the "
            "discriminative loss has nothing to draw together; it is 0 before mining starts.",
        ),
        Curves(
            "True positive rate",
            "share",
            {"train/true_positive_rate": "right"},
            "Moving average of the share of positive pairs that show one person. Identities are "
            "only looked at here, never trained on. It should rise; a fall means that the "
            "multilabels confuse people.",
        ),
    )
