"""Pair losses of RDE and the legacy losses of IRRA."""

from torch import Tensor

from crosswalk.losses.identity import identity_loss
from crosswalk.losses.pair_losses import (
    PairLoss,
    info_nce_of_pairs,
    similarity_distribution_of_pairs,
    triplet_alignment_of_pairs,
    triplet_ranking_of_pairs,
    triplet_ranking_sum_of_pairs,
)
from crosswalk.losses.similarity_distribution import label_divergence
from tests.golden.harness import GRADIENT, LOSS, Case, golden
from tests.golden.unused_losses import image_id_labels, projection_matching_loss


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=1, keepdim=True)


def pair_loss(name: str, case: Case) -> PairLoss:
    if name in ("TAL", "TRL"):
        case.unused("logit_scale", reason="of losses with a softmax over all pairs")
        triplet = {"TAL": triplet_alignment_of_pairs, "TRL": triplet_ranking_of_pairs}[name]
        return triplet(margin=case.item("margin"), temperature=case.item("tau"))
    case.unused("margin", "tau", reason="of triplet losses")
    softmax = {"InfoNCE": info_nce_of_pairs, "SDM": similarity_distribution_of_pairs}[name]
    return softmax(temperature=1 / case.item("logit_scale"))


def same_person(case: Case) -> Tensor:
    pid = case.tensor("pid")
    return pid[:, None] == pid


def from_features(name: str, case: Case) -> None:
    image = case.tensor("image_features", requires_grad=True)
    text = case.tensor("text_features", requires_grad=True)

    similarity = unit(text) @ unit(image).T
    losses = pair_loss(name, case).of_pairs(similarity, same_person(case))
    losses.sum().backward()

    case.close("out_scores", similarity, **LOSS)
    case.close("out_diag_similarity", similarity.diagonal(), **LOSS)
    case.close("out_per_sample", losses, **LOSS)
    case.close("out_sum", losses.sum(), **LOSS)
    case.close("out_mean", losses.mean(), **LOSS)
    # NaN: the official gradient of a batch without negatives; ours is 0 there.
    case.close("out_grad_image_features", image.grad, nan=0.0, **GRADIENT)
    case.close("out_grad_text_features", text.grad, nan=0.0, **GRADIENT)


@golden("rde", "loss_tal")
def loss_tal(case: Case) -> None:
    from_features("TAL", case)


@golden("rde", "loss_trl")
def loss_trl(case: Case) -> None:
    from_features("TRL", case)


@golden("rde", "loss_infonce")
def loss_infonce(case: Case) -> None:
    from_features("InfoNCE", case)


@golden("rde", "loss_sdm")
def loss_sdm(case: Case) -> None:
    from_features("SDM", case)


def from_scores(loss: PairLoss, positive: Tensor, case: Case) -> None:
    scores = case.tensor("scores", requires_grad=True)

    losses = loss.of_pairs(scores, positive)
    losses.sum().backward()

    case.close("out_per_sample", losses, **LOSS)
    case.close("out_grad_scores", scores.grad, nan=0.0, **GRADIENT)


@golden("rde", "tal_from_scores")
def tal_from_scores(case: Case) -> None:
    from_scores(pair_loss("TAL", case), same_person(case), case)


@golden("rde", "trl_from_scores")
def trl_from_scores(case: Case) -> None:
    from_scores(pair_loss("TRL", case), same_person(case), case)


@golden("rde", "paper_trls")
def paper_trls(case: Case) -> None:
    # The formula has one positive per anchor, so the temperature of several has no effect.
    own = case.tensor("scores").zero_().fill_diagonal_(1).bool()
    from_scores(
        triplet_ranking_sum_of_pairs(margin=case.item("margin"), temperature=0.015), own, case
    )


@golden("rde", "batch_loss")
def batch_loss(case: Case) -> None:
    loss = pair_loss(case.item("loss_type"), case)
    total = 0
    raw = {}
    for head in ("bge", "tse"):
        image = raw[f"{head}_image"] = case.tensor(f"{head}_image", requires_grad=True)
        text = raw[f"{head}_text"] = case.tensor(f"{head}_text", requires_grad=True)
        losses = loss.of_pairs(unit(text) @ unit(image).T, same_person(case))
        value = loss.reduce(losses, case.tensor("label_hat"))
        total = total + value
        # NaN: the official InfoNCE and SDM divide by 0 if no pair is kept; ours is 0 there.
        case.close(f"out_{head}_loss", value, nan=0.0, **LOSS)
    total.backward()
    case.close("out_total", total, nan=0.0, **LOSS)
    for name, features in raw.items():
        case.close(f"out_grad_{name}", features.grad, nan=0.0, **GRADIENT)


def irra_from_features(case: Case, loss: Tensor, image: Tensor, text: Tensor) -> None:
    loss.backward()
    case.close("out_loss", loss, **LOSS)
    case.close("out_grad_image_features", image.grad, **GRADIENT)
    case.close("out_grad_text_features", text.grad, **GRADIENT)


def features(case: Case) -> tuple[Tensor, Tensor]:
    return (
        case.tensor("image_features", requires_grad=True),
        case.tensor("text_features", requires_grad=True),
    )


@golden("rde", "irra_sdm")
def irra_sdm(case: Case) -> None:
    image, text = features(case)
    losses = pair_loss("SDM", case).of_pairs(unit(text) @ unit(image).T, same_person(case))
    irra_from_features(case, losses.mean(), image, text)


@golden("rde", "irra_itc")
def irra_itc(case: Case) -> None:
    image, text = features(case)
    losses = pair_loss("InfoNCE", case).of_pairs(unit(text) @ unit(image).T, same_person(case))
    irra_from_features(case, losses.mean(), image, text)


@golden("rde", "irra_sdm_imageid")
def irra_sdm_imageid(case: Case) -> None:
    image, text = features(case)
    label = image_id_labels(case.tensor("pid"), case.tensor("image_id"), factor=case.item("factor"))
    logits = case.item("logit_scale") * unit(text) @ unit(image).T
    losses = label_divergence(logits, label) + label_divergence(logits.T, label)
    irra_from_features(case, losses.mean(), image, text)


@golden("rde", "irra_cmpm")
def irra_cmpm(case: Case) -> None:
    image, text = features(case)
    positive = same_person(case)
    case.unused("logit_scale", reason="projections have no temperature")
    losses = projection_matching_loss(image @ unit(text).T, positive)
    losses = losses + projection_matching_loss(text @ unit(image).T, positive)
    irra_from_features(case, losses.mean(), image, text)


@golden("rde", "irra_id")
def irra_id(case: Case) -> None:
    image = case.tensor("image_logits", requires_grad=True)
    text = case.tensor("text_logits", requires_grad=True)
    pid = case.tensor("pid")

    loss = 0.5 * (identity_loss(image, pid) + identity_loss(text, pid)).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    case.close("out_grad_image_logits", image.grad, **GRADIENT)
    case.close("out_grad_text_logits", text.grad, **GRADIENT)
