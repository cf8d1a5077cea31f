"""Mutual refinement of pseudo labels."""

import torch.nn.functional as F

from crosswalk.labels.mutual_refinement import outliers_as_singletons, refine_mutually
from tests.golden.harness import Case, golden


@golden("cmmt", "mplr")
def mplr(case: Case) -> None:
    given = [case.tensor(f"labels_{modality}") for modality in ("image", "text")]
    given += [F.normalize(case.tensor(f"{modality}_features")) for modality in ("image", "text")]

    refined = dict(zip(("image", "text"), refine_mutually(*given), strict=True))
    first = dict(zip(("image", "text"), refine_mutually(*given, search="first"), strict=True))

    for modality in ("image", "text"):
        case.equal(f"out_labels_{modality}", refined[modality])
        case.equal(f"out_first_labels_{modality}", first[modality])
        case.equal(f"out_full_{modality}", outliers_as_singletons(refined[modality]))


@golden("cmmt", "mplr_captions")
def mplr_captions(case: Case) -> None:
    image, text = refine_mutually(
        case.tensor("labels_image"),
        case.tensor("labels_text"),
        F.normalize(case.tensor("image_features")),
        F.normalize(case.tensor("text_features")),
        case.tensor("caption_to_image"),
    )

    case.equal("out_labels_image", image)
    case.equal("out_labels_text", text)
