"""Agent loss, joint embedding loss, and cross-view consistency."""

import torch.nn.functional as F

from crosswalk.encoders.image import norm_scale
from crosswalk.losses.reference_agents import agent_loss, hard_agents, joint_embedding_loss
from crosswalk.losses.soft_multilabel import initial_centers
from tests.golden.adapters.mar.given import mar_without_encoder
from tests.golden.harness import Case, Tolerance, golden

EXACT: Tolerance = {"rtol": 1e-9, "atol": 1e-12}
GRADIENT: Tolerance = {"rtol": 1e-8, "atol": 1e-11}


@golden("mar", "agent_loss")
def mean_agent_loss(case: Case) -> None:
    x, weight = case.tensor("x", requires_grad=True), case.tensor("weight", requires_grad=True)
    similarity = norm_scale(x) @ norm_scale(weight).T

    loss = agent_loss(similarity, case.tensor("labels"), scale=case.item("scale")).mean()
    loss.backward()

    case.close("out_loss", loss, **EXACT)
    case.close("out_grad_x", x.grad, **GRADIENT)
    case.close("out_grad_weight", weight.grad, **GRADIENT)


@golden("mar", "joint_loss")
def joint_loss(case: Case) -> None:
    source = case.tensor("features", requires_grad=True)
    target = case.tensor("features_target", requires_grad=True)
    agents, person_id = case.tensor("agents"), case.tensor("labels")
    margin = case.item("margin")

    terms = joint_embedding_loss(
        source,
        target,
        agents,
        person_id,
        source_similarity=source @ agents.T,
        target_similarity=target @ agents.T,
        margin=margin,
        source_negatives=True,
    )
    loss = terms.loss.sum() / terms.counted.sum()
    loss.backward()

    own = F.one_hot(person_id, len(agents)).bool()
    case.equal("out_hard_source", hard_agents(case.tensor("similarity"), margin=margin) & ~own)
    case.equal("out_hard_target", hard_agents(case.tensor("similarity_target"), margin=margin))
    case.equal("out_n_terms", terms.counted.sum())
    case.close("out_loss", loss, **EXACT)
    case.close("out_grad_features", source.grad, **GRADIENT)
    case.close("out_grad_features_target", target.grad, **GRADIENT)


@golden("mar", "ral")
def ral(case: Case) -> None:
    source = case.tensor("x_source", requires_grad=True)
    target = case.tensor("x_target", requires_grad=True)
    weight = case.tensor("weight")
    method = mar_without_encoder(
        num_samples=1,
        num_agents=len(weight),
        embedding_size=weight.shape[1],
        scale=case.item("scale"),
        margin=case.item("margin"),
    )
    method.agents.weight.data.copy_(weight)

    embedding = norm_scale(target)
    losses = method.reference_losses(
        norm_scale(source), embedding, case.tensor("labels"), method.similarity(embedding)
    )
    total = losses["agent"] + case.item("beta") * losses["joint"]
    total.backward()

    case.close("out_loss_al", losses["agent"], **EXACT)
    case.close("out_loss_rj", losses["joint"], **EXACT)
    case.close("out_loss", total, **EXACT)
    case.close("out_grad_x_source", source.grad, **GRADIENT)
    case.close("out_grad_x_target", target.grad, **GRADIENT)
    case.close("out_grad_weight", method.agents.weight.grad, **GRADIENT)


@golden("mar", "cml")
def consistency(case: Case) -> None:
    all_logs = case.tensor("init_log_multilabels")
    method = mar_without_encoder(
        num_samples=len(all_logs), num_agents=all_logs.shape[1], use_std=case.item("use_std")
    )
    mean, std = initial_centers(all_logs, case.tensor("init_views"))
    method.center_mean.copy_(mean)
    method.center_std.copy_(std)
    case.close("out_center_mean_init", mean, **EXACT)
    case.close("out_center_std_init", std, **EXACT)

    for step in range(case.item("n_steps")):
        log_multilabel = case.tensor(f"log_multilabels_s{step}", requires_grad=True)
        loss = method.consistency_loss(
            log_multilabel, case.tensor(f"views_s{step}"), batch_size=case.item("batch_size")
        )
        loss.backward()

        case.close(f"out_loss_s{step}", loss, **EXACT)
        case.close(f"out_grad_log_multilabels_s{step}", log_multilabel.grad, **GRADIENT)
        case.close(f"out_center_mean_s{step}", method.center_mean, **EXACT)
        case.close(f"out_center_std_s{step}", method.center_std, **EXACT)
