"""Losses of both trainings, from features and logits."""

import torch
from torch import Tensor

from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss, hardest_distances
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.supervised_contrast import supervised_contrastive_loss
from tests.golden.harness import Case, Tolerance, golden

EXACT: Tolerance = {"rtol": 1e-9, "atol": 1e-12}
SMOOTHED: Tolerance = {"rtol": 1e-6, "atol": 1e-7}  # targets are float32 in the released code
HALF: Tolerance = {"rtol": 2e-3, "atol": 0.0}


def contrast(
    anchors: Tensor, candidates: Tensor, anchor_id: Tensor, candidate_id: Tensor
) -> Tensor:
    same = anchor_id[:, None] == candidate_id
    return supervised_contrastive_loss(anchors @ candidates.T, same).mean()


@golden("clip_reid", "supcon")
def supcon(case: Case) -> None:
    if "anchor" in case:
        names = ("anchor", "candidate")
        ids = [case.tensor(f"{name}_id") for name in names]
    else:
        names = ("image_features", "text_features")
        ids = [case.tensor("target")] * 2
    half = case[names[0]].dtype == "float16"
    rows = [case.tensor(name) for name in names]
    one, other = ((row.float() if half else row).requires_grad_() for row in rows)
    tolerance = HALF if half else EXACT

    loss = contrast(one, other, *ids)
    if "out_i2t" in case:
        back = contrast(other, one, *reversed(ids))
        case.close("out_i2t", loss, **tolerance)
        case.close("out_t2i", back, **tolerance)
        loss = loss + back
    case.close("out_loss", loss, **tolerance)
    loss.backward()
    for name, row in zip(names, (one, other), strict=True):
        if f"out_grad_{name}" in case:
            case.close(f"out_grad_{name}", row.grad, **tolerance)


@golden("clip_reid", "smooth_ce")
def smooth_ce(case: Case) -> None:
    logits = case.tensor("logits", requires_grad=True)

    smoothing = case.item("epsilon")
    loss = identity_loss(logits, case.tensor("target"), label_smoothing=smoothing).mean()
    loss.backward()

    case.close("out_loss", loss, **SMOOTHED)
    if "out_grad_logits" in case:
        case.close("out_grad_logits", logits.grad, **SMOOTHED)


@golden("clip_reid", "triplet")
def triplet(case: Case) -> None:
    features = case.tensor("features", requires_grad=True)
    person_id = case.tensor("person_id")
    margin = case.item("margin")
    # equal vectors are at distance 1e-6 in the released code, at 0 here
    tolerance: Tolerance = {"rtol": 1e-6, "atol": 2e-6}

    distances = hardest_distances(features, person_id)
    loss = batch_hard_triplet_loss(
        features, person_id, margin=None if margin != margin else margin
    ).mean()
    loss.backward()

    case.close("out_dist_ap", distances.positive, **tolerance)
    case.close("out_dist_an", distances.negative, **tolerance)
    case.close("out_loss", loss, **tolerance)
    if "out_grad_features" in case:
        case.close("out_grad_features", features.grad, **SMOOTHED)


@golden("clip_reid", "stage2_loss")
def stage2_loss(case: Case) -> None:
    target, smoothing = case.tensor("target"), case.item("label_smoothing")
    margin = case.item("margin")
    names = ("score", "score_proj", "i2t_logits", "feat_last", "feat", "feat_proj")
    given = {name: case.tensor(name, requires_grad=True) for name in names if name in case}
    named = {
        name: identity_loss(given[name], target, label_smoothing=smoothing).mean()
        for name in names[:3]
        if name in given
    }
    triplets = torch.stack(
        [batch_hard_triplet_loss(given[name], target, margin=margin).mean() for name in names[3:]]
    )

    loss = case.item("id_weight") * (named["score"] + named["score_proj"])
    loss = loss + case.item("triplet_weight") * triplets.sum()
    if "i2t_logits" in named:
        loss = loss + case.item("i2t_weight") * named["i2t_logits"]
        case.close("out_i2t", named["i2t_logits"], **SMOOTHED)
    elif case.item("i2t_weight"):
        raise ValueError("a weight of texts and no scores of them")
    loss.backward()

    case.close("out_id", named["score"], **SMOOTHED)
    case.close("out_id_proj", named["score_proj"], **SMOOTHED)
    case.close("out_triplet", triplets, **SMOOTHED)
    case.close("out_loss", loss, **SMOOTHED)
    for name, row in given.items():
        case.close(f"out_grad_{name}", row.grad, **SMOOTHED)
