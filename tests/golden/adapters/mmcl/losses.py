"""The multi-label classification loss."""

import torch

from crosswalk.losses.multilabel import mmcl_loss
from tests.golden.harness import GRADIENT, LOSS, Case, golden


@golden("mmcl", "mmcl_loss")
def loss_and_gradient(case: Case) -> None:
    logits = case.tensor("logits", requires_grad=True)
    if case.item("is_vec"):
        labels = case.tensor("multilabel").bool()
    else:
        labels = case.tensor("targets")[:, None] == torch.arange(logits.shape[1])

    loss = mmcl_loss(logits, labels, delta=case.item("delta"), ratio=case.item("r")).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    if "out_grad_logits" in case:
        case.close("out_grad_logits", logits.grad, **GRADIENT)
