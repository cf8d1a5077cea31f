"""Two classification losses that CMMT's released code ships without using them."""

from __future__ import annotations

from torch import Tensor

from crosswalk.losses.identity import identity_loss
from tests.golden.harness import GRADIENT, LOSS, Case, golden
from tests.golden.unused_losses import projection_classification_loss, projection_logits


@golden("cmmt", "cmpc")
def cmpc(case: Case) -> None:
    image = case.tensor("image", requires_grad=True)
    text = case.tensor("text", requires_grad=True)
    weight = case.tensor("W", requires_grad=True)
    person_id = case.tensor("labels")

    loss = (
        projection_classification_loss(image, text, weight, person_id)
        + projection_classification_loss(text, image, weight, person_id)
    ).mean()
    loss.backward()

    def precision(embedding: Tensor, partner: Tensor) -> Tensor:
        named = projection_logits(embedding, partner, weight).argmax(dim=1)
        return (named == person_id).double().mean()

    case.close("out_loss", loss, **LOSS)
    case.close("out_image_precision", precision(image, text), **LOSS)
    case.close("out_text_precision", precision(text, image), **LOSS)
    for name, value in {"image": image, "text": text, "W": weight}.items():
        case.close(f"out_grad_{name}", value.grad, **GRADIENT)


@golden("cmmt", "label_smooth_ce")
def label_smooth_ce(case: Case) -> None:
    logits = case.tensor("logits", requires_grad=True)

    loss = identity_loss(logits, case.tensor("labels"), label_smoothing=case.item("epsilon")).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    case.close("out_grad_logits", logits.grad, **GRADIENT)
