"""Projection matching with hard and soft labels, and the triplet losses that nothing calls."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss, hardest_distances
from crosswalk.losses.projection_matching import soft_projection_matching_loss
from tests.golden.harness import GRADIENT, LOSS, Case, golden
from tests.golden.unused_losses import positive_pair_distances


def matching(case: Case, relation: Tensor, direction: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of one direction and its gradients by image and text."""
    image = case.tensor("image", requires_grad=True)
    text = case.tensor("text", requires_grad=True)
    anchor, candidate = (text, image) if direction == "t2i" else (image, text)
    losses = soft_projection_matching_loss(
        anchor @ F.normalize(candidate).T, relation, epsilon=case.item("eps")
    )
    loss = losses.mean()
    loss.backward()
    assert image.grad is not None
    assert text.grad is not None
    return loss, image.grad, text.grad


@golden("cmmt", "cmpm")
def cmpm(case: Case) -> None:
    case.unused("labels_ignored", reason="the released loss takes a pair's own image alone")
    relation = torch.eye(len(case["image"]))
    for direction, loss_name, prefix in (
        ("t2i", "out_loss", "out_grad"),
        ("i2t", "out_loss_i2t", "out_i2t_grad"),
    ):
        loss, of_image, of_text = matching(case, relation, direction)
        case.close(loss_name, loss, **LOSS)
        case.close(f"{prefix}_image", of_image, **GRADIENT)
        case.close(f"{prefix}_text", of_text, **GRADIENT)


@golden("cmmt", "tiou_cmpm")
def tiou_cmpm(case: Case) -> None:
    relation = case.tensor("iou")
    for direction, loss_name, prefix in (
        ("t2i", "out_loss_t2i", "out_grad"),
        ("i2t", "out_loss_i2t", "out_i2t_grad"),
    ):
        loss, of_image, of_text = matching(case, relation, direction)
        case.close(loss_name, loss, **LOSS)
        case.close(f"{prefix}_image", of_image, **GRADIENT)
        case.close(f"{prefix}_text", of_text, **GRADIENT)
    # at projections of 0 the loss is log(1 / B) minus the mean logarithm of the labels
    size = len(relation)
    uniform = soft_projection_matching_loss(
        torch.zeros_like(relation), relation, epsilon=case.item("eps")
    )
    label = case.tensor("out_q") + case.item("eps")
    case.close("out_q", relation / relation.sum(dim=1, keepdim=True), **LOSS)
    expected = -torch.tensor(float(size)).double().log() - label.log().mean(dim=1)
    case.check(torch.allclose(uniform, expected, rtol=1e-9), "the labels are the recorded ones")


@golden("cmmt", "triplet_batch_hard")
def triplet_batch_hard(case: Case) -> None:
    features = case.tensor("features", requires_grad=True)
    labels = case.tensor("labels")
    margin = case.item("margin")

    unit = F.normalize(features)
    distances = hardest_distances(unit, labels)
    losses = batch_hard_triplet_loss(unit, labels, margin=None if margin < 0 else margin)
    losses.mean().backward()

    case.close("out_dist_ap", distances.positive, **LOSS)
    case.close("out_dist_an", distances.negative, **LOSS)
    case.close("out_loss", losses.mean(), **LOSS)
    case.close("out_grad_features", features.grad, **GRADIENT)


@golden("cmmt", "triplet_allpos")
def triplet_allpos(case: Case) -> None:
    features = case.tensor("features", requires_grad=True)
    labels = case.tensor("labels")
    margin = case.item("margin")

    case.unused("num_instances", reason="the labels tell which samples are a person's")
    if case.item("semi"):
        distances = positive_pair_distances(features, labels)
        losses = (distances.positive - distances.negative + margin).clamp_min(0)
    else:
        distances = hardest_distances(features, labels)
        losses = batch_hard_triplet_loss(features, labels, margin=margin)
    losses.mean().backward()

    case.close("out_loss", losses.mean(), **LOSS)
    case.close("out_grad_features", features.grad, **GRADIENT)
    right = distances.negative > distances.positive
    case.close("out_precision", right.double().mean(), **LOSS)
