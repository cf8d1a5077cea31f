"""Hard samples of a batch, within the images and across the modalities."""

import torch.nn.functional as F
from torch import Tensor

from crosswalk.losses.hard_samples import (
    HardSamples,
    hard_sample_loss,
    hard_samples,
    nearest_in_batch,
)
from tests.golden.harness import GRADIENT, LOSS, Case, golden


def mined(case: Case, anchor: Tensor, pool: Tensor, relation: Tensor) -> tuple[Tensor, HardSamples]:
    """Return the summed loss, after its backward, and the hard samples."""
    loss = hard_sample_loss(
        anchor, pool, relation, num_nearest=case.item("k"), margin=case.item("margin")
    ).sum()
    loss.backward()
    similarity = F.normalize(anchor.detach()) @ F.normalize(pool.detach()).T
    candidate = nearest_in_batch(similarity, num_nearest=case.item("k"))
    return loss, hard_samples(candidate, relation)


@golden("cmmt", "hsm_image")
def hsm_image(case: Case) -> None:
    image = case.tensor("image", requires_grad=True)
    pair = case.tensor("pair_index")
    relation = case.tensor("iou_full")[pair][:, pair]

    loss, found = mined(case, image, image, relation)

    case.close("out_loss", loss, **LOSS)
    case.close("out_grad_image", image.grad, **GRADIENT)
    case.equal("out_pos_index", found.positive)
    case.equal("out_neg_index", found.negative)


@golden("cmmt", "hsm_cross")
def hsm_cross(case: Case) -> None:
    relation = case.tensor("iou")
    for prefix in ("out", "out_i2t"):
        text = case.tensor("text", requires_grad=True)
        image = case.tensor("image", requires_grad=True)
        anchor, pool = (text, image) if prefix == "out" else (image, text)

        loss, found = mined(case, anchor, pool, relation)

        case.close(f"{prefix}_loss", loss, **LOSS)
        case.close(f"{prefix}_grad_text", text.grad, **GRADIENT)
        case.close(f"{prefix}_grad_image", image.grad, **GRADIENT)
        case.equal(f"{prefix}_pos_index", found.positive)
        case.equal(f"{prefix}_neg_index", found.negative)
