"""Predicted positive labels."""

from crosswalk.labels.positive_labels import cycle_consistent_rows
from tests.golden.harness import Case, golden


@golden("mmcl", "mplp_predict")
def mplp_predict(case: Case) -> None:
    labels = cycle_consistent_rows(
        case.tensor("memory"), case.tensor("targets"), threshold=case.item("t")
    )

    case.equal("out_multilabel", labels)
    case.equal("out_num_positives", labels.sum(dim=1))
