"""Soft multilabels, their agreement, the threshold, and the discriminative loss."""

import torch

from crosswalk.encoders.image import norm_scale
from crosswalk.labels.soft_multilabel import (
    initial_threshold,
    kth_largest,
    log_soft_multilabel,
    mine_pairs,
    num_mined_pairs,
    num_pairs,
    pair_agreements,
    pair_members,
)
from tests.golden.adapters.mar.given import RecordedMining, mar_without_encoder
from tests.golden.harness import Case, Tolerance, golden

EXACT: Tolerance = {"rtol": 1e-9, "atol": 1e-12}
GRADIENT: Tolerance = {"rtol": 1e-8, "atol": 1e-11}


@golden("mar", "soft_multilabel")
def soft_multilabel(case: Case) -> None:
    x, weight = case.tensor("x", requires_grad=True), case.tensor("weight", requires_grad=True)
    method = mar_without_encoder(
        num_samples=1,
        num_agents=len(weight),
        embedding_size=weight.shape[1],
        scale=case.item("scale"),
    )
    method.agents.weight = torch.nn.Parameter(weight.detach())

    similarity = method.similarity(norm_scale(x))
    log_multilabel = log_soft_multilabel(similarity, scale=case.item("scale"))
    (case.tensor("cot_log_multilabel") * log_multilabel).sum().backward()

    case.close("out_multilabel", log_multilabel.exp(), **EXACT)
    case.close("out_log_multilabel", log_multilabel, **EXACT)
    case.close("out_grad_x", x.grad, **GRADIENT)
    case.check(method.agents.weight.grad is None, "the agents get no gradient")

    multilabel = log_multilabel.detach().exp()
    agreement = pair_agreements(multilabel)
    case.close("out_agreement_condensed", agreement, **EXACT)
    matrix = torch.eye(len(multilabel), dtype=torch.float64)
    first, second = pair_members(len(multilabel), torch.arange(len(agreement)))
    matrix[first, second] = matrix[second, first] = agreement
    case.close("out_agreement_matrix", matrix, **EXACT)


@golden("mar", "threshold_init")
def threshold_init(case: Case) -> None:
    multilabel, ratio = case.tensor("multilabels"), case.item("mining_ratio")

    case.close("out_agreement_condensed", pair_agreements(multilabel), **EXACT)
    case.equal("out_pos", num_mined_pairs(len(multilabel), mining_ratio=ratio))
    for tile in (2, 5, 512):
        threshold = initial_threshold(
            multilabel, mining_ratio=ratio, official_compat=True, tile=tile
        )
        case.close("out_threshold", threshold, **EXACT)


@golden("mar", "pair_index")
def pair_index(case: Case) -> None:
    size, number = case.item("n"), case.tensor("condensed")

    first, second = pair_members(size, number)
    number_of = torch.empty(size, size, dtype=torch.int64)
    every_first, every_second = pair_members(size, torch.arange(num_pairs(size)))
    number_of[every_first, every_second] = torch.arange(num_pairs(size))

    case.equal("out_i", first)
    case.equal("out_j", second)
    case.equal("out_condensed", number_of[first, second])


@golden("mar", "mdl")
def mdl(case: Case) -> None:
    agreement, ratio = case.tensor("init_agreement"), case.item("mining_ratio")
    mining = RecordedMining()
    method = mar_without_encoder(
        num_samples=1,
        num_agents=case["multilabels_s0"].shape[1],
        mining=mining,
        mining_ratio=ratio,
        official_compat=True,
    )
    rank = int(len(agreement) * ratio) or len(agreement)
    method.threshold.copy_(kth_largest(agreement, rank))
    case.close("out_threshold_init", method.threshold, **EXACT)
    if "threshold_override" in case:
        method.threshold.copy_(case.tensor("threshold_override"))

    for step in range(case.item("n_steps")):
        if f"threshold_override_s{step}" in case:
            method.threshold.copy_(case.tensor(f"threshold_override_s{step}"))
        embedding = case.tensor(f"features_s{step}", requires_grad=True)
        multilabel, person_id = case.tensor(f"multilabels_s{step}"), case.tensor(f"ids_s{step}")
        first, second, positive = mine_pairs(
            embedding,
            pair_agreements(multilabel),
            method.threshold,
            mining_ratio=ratio,
            mining=mining,
        )
        loss = method.discriminative_loss(embedding, multilabel, person_id)
        loss.backward()

        pairs = torch.stack([first, second])
        case.equal(f"out_pos_s{step}", pairs[:, positive])
        case.equal(f"out_neg_s{step}", pairs[:, ~positive])
        case.close(f"out_loss_s{step}", loss, **EXACT)
        case.close(f"out_grad_features_s{step}", embedding.grad, **GRADIENT)
        case.close(f"out_threshold_s{step}", method.threshold, **EXACT)
        case.close(f"out_n_pos_pairs_s{step}", method.num_positives, **EXACT)
        case.close(f"out_rate_tp_s{step}", method.true_positive_rate, **EXACT)
