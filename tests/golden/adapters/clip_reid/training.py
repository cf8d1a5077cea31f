"""The loops of both trainings on a recorded model, and one step of the second."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.encoders.clip_layers import LayerFeatures
from crosswalk.importers.clip_reid import sentence_features
from crosswalk.methods.clip_reid import ClipReid
from crosswalk.metrics.ranking import mean_average_precision, rank_embeddings, rank_k
from crosswalk.optim import OptimBuilder, adam
from crosswalk.types import ImageBatch
from tests.golden.adapters.clip_reid.given import (
    images_of,
    make_prompts,
    make_second,
    model_of,
    official_name,
    state_of,
)
from tests.golden.adapters.clip_reid.schedules import bias_rule, prompt_schedule, step_schedule
from tests.golden.harness import Case, Tolerance

TRAJECTORY: Tolerance = {"rtol": 1e-6, "atol": 1e-9}
GRADIENTS: Tolerance = {"rtol": 1e-6, "atol": 1e-7}


def compare_groups(case: Case, method: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Compare the settings of every parameter; the released code has a group for each."""
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    ours = {official_name(n): found.get(id(p)) for n, p in method.named_parameters()}
    ours = {name: group for name, group in ours.items() if group is not None}
    names = case["param_names"].tolist()
    case.check(set(names) == set(ours), "the same parameters are trained")
    # recorded before the first epoch, at the beginning of the warm-up
    start = case.item("warmup_factor") if case.item("warmup_iters") else 1.0
    rates = [
        (rate / start, decay)
        for rate, decay in zip(
            case["param_lr"].tolist(), case["param_weight_decay"].tolist(), strict=True
        )
    ]
    near = all(
        abs(ours[name][place] - group[place]) <= 1e-12 + 1e-9 * abs(group[place])
        for name, group in zip(names, rates, strict=True)
        for place in (0, 1)
    )
    case.check(near, "their rates and weight decays")


def train_prompts(case: Case) -> None:
    model, state = model_of(case), state_of(case)
    state["prompt_learner.cls_ctx"] = case.tensor("start_context")
    case.unused("seed", reason="epoch_order is what was drawn with it")
    build = OptimBuilder(
        adam,
        lr=case.item("base_lr"),
        weight_decay=case.item("weight_decay"),
        schedule=prompt_schedule(case),
    )
    method = make_prompts(model, state, optim=build)
    order = case.tensor("cache_order")
    table = {
        "image_features": model.tensor("out_stage1_image_features")[order],
        "image_person_id": model.tensor("person_id")[order],
    }
    case.check(method.wants_sweep(0), "an untrained method wants the sweep")
    method.on_sweep_end(table)
    case.check(not method.wants_sweep(1), "there is one sweep")

    built = method.configure_optimizers()
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    # the recorded groups are those before the released scheduler starts from its warm-up
    case.check(case["param_names"].tolist() == ["prompt_learner.cls_ctx"], "words alone")
    trained = [name for name, row in method.named_parameters() if row.requires_grad]
    case.check(trained == ["prompts.context"], "words alone are trained")
    decay = optimizer.param_groups[0]["weight_decay"]
    case.check(decay == case["param_weight_decay"].item(), "their weight decay")
    case.unused("param_lr", reason="the rate before the first epoch, which trains nothing")
    terms: list[dict[str, float]] = []

    def record(prefix: str, losses: dict[str, Tensor]) -> Tensor:
        terms.append({name: loss.item() for name, loss in losses.items()})
        return sum(losses.values(), start=torch.zeros((), dtype=torch.float64))

    method.log_total = record
    rates = []
    for row in case.tensor("epoch_order"):
        rates.append(optimizer.param_groups[0]["lr"])
        for rows in row.split(case.item("batch_size")):
            person_id = table["image_person_id"][rows]
            nothing = torch.empty(len(rows), 3, 0, 0)
            optimizer.zero_grad()
            method.training_step(ImageBatch(nothing, person_id, rows, rows, None), 0).backward()
            optimizer.step()
        scheduler.step()
        method.on_train_epoch_end()

    case.check(len(rates) == case.item("num_epochs"), "all epochs")
    case.close("out_lr", torch.tensor(rates, dtype=torch.float64), rtol=1e-9, atol=1e-18)
    for name, term in (("out_i2t", "image_to_text"), ("out_t2i", "text_to_image")):
        case.close(name, torch.tensor([each[term] for each in terms]).double(), **TRAJECTORY)
    case.close("out_context", method.prompts.context, **TRAJECTORY)
    case.close("out_text_features", method.texts.rows, **TRAJECTORY)
    state["prompt_learner.cls_ctx"] = method.prompts.context.detach()
    imported = sentence_features(state, heads=model.item("text_heads"))
    case.close("out_text_features", imported, **TRAJECTORY)


def second_batch(images: Tensor, person_id: Tensor, camera_id: Tensor) -> ImageBatch:
    return ImageBatch(images, person_id, camera_id, torch.arange(len(images)), None)


def one_step(case: Case, method: ClipReid, images: Tensor, camera_id: Tensor) -> None:
    """Compare one forward and backward pass on the first images."""
    target = case.tensor("step_target")
    seen: list[Tensor] = []
    for part in (method.last_classifier, method.projected_classifier):
        part.register_forward_hook(lambda module, given, out: seen.append(out))
    losses = method.losses
    found: list[LayerFeatures] = []

    def watched(features: LayerFeatures, person_id: Tensor) -> dict[str, Tensor]:
        found.append(features)
        return losses(features, person_id)

    method.losses = watched
    method.train()
    batch = second_batch(images[: len(target)], target, camera_id[: len(target)])

    loss = method.training_step(batch, 0)
    loss.backward()

    (features,), (last_scores, projected_scores) = found, seen
    case.close("out_step_loss", loss, **TRAJECTORY)
    case.close("out_step_score", last_scores, **TRAJECTORY)
    case.close("out_step_score_proj", projected_scores, **TRAJECTORY)
    case.close("out_step_feature_last", features.earlier, **TRAJECTORY)
    case.close("out_step_feature", features.last, **TRAJECTORY)
    case.close("out_step_feature_proj", features.projected, **TRAJECTORY)
    scores = features.projected @ method.texts.rows.T
    case.close("out_step_i2t_logits", scores, **TRAJECTORY)
    gradients = {
        official_name(name): row.grad
        for name, row in method.named_parameters()
        if row.grad is not None
    }
    if "cv_embed" in gradients:
        case.check(not bool(gradients["cv_embed"][0].any()), "nothing reaches unknown cameras")
        gradients["cv_embed"] = gradients["cv_embed"][1:]
    names = case["out_step_grad_names"].tolist()
    case.equal("out_step_grad_names", sorted(gradients, key=names.index))
    case.close(
        "out_step_grad_norms", torch.stack([gradients[name].norm() for name in names]), **GRADIENTS
    )
    for output in case.outputs:
        name = output.removeprefix("out_step_grad_")
        if name in gradients:
            case.close(output, gradients[name], **GRADIENTS)
    neck = method.encoder.last_neck
    case.close("out_step_bottleneck_running_mean", neck.running_mean, **TRAJECTORY)
    case.close("out_step_bottleneck_running_var", neck.running_var, **TRAJECTORY)
    if "out_step_layer4_running_var" in case:
        norms = [m for n, m in method.encoder.visual.layer4.named_modules() if n.endswith("bn3")]
        case.close("out_step_layer4_running_var", norms[-1].running_var, **TRAJECTORY)


def train_second(case: Case) -> None:
    model, state = model_of(case), state_of(case)
    method = make_second(
        model,
        state,
        identity_weight=case.item("id_weight"),
        triplet_weight=case.item("triplet_weight"),
        text_weight=case.item("i2t_weight"),
        margin=case.item("margin"),
        label_smoothing=case.setting("label_smoothing", 0.1),
        optim=OptimBuilder(
            adam,
            lr=case.item("base_lr"),
            weight_decay=case.item("weight_decay"),
            rules=bias_rule(case),
            schedule=step_schedule(case),
        ),
    )
    method.texts.write(case.tensor("start_text_features"))
    images, person_id = images_of(model), model.tensor("person_id")
    camera_id = model.tensor("camera_id") + 1
    groups = OptimBuilder(
        adam, lr=case.item("base_lr"), weight_decay=case.item("weight_decay"), rules=bias_rule(case)
    )(method)
    compare_groups(case, method, groups["optimizer"])
    built = method.configure_optimizers()
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    base = next(g for g in optimizer.param_groups if g["name"] == "base")
    losses, rates = [], []
    method.train()
    for epoch in case.tensor("batches"):
        for rows in epoch:
            optimizer.zero_grad()
            batch = second_batch(images[rows], person_id[rows], camera_id[rows])
            loss = method.training_step(batch, 0)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            rates.append(base["lr"])
        scheduler.step()

    case.check(len(case["batches"]) == case.item("num_epochs"), "all epochs")
    case.close("out_lr", torch.tensor(rates, dtype=torch.float64), rtol=1e-9, atol=1e-18)
    case.close("out_loss", torch.tensor(losses, dtype=torch.float64), **TRAJECTORY)
    with torch.no_grad():
        tested = method.encoder.eval().layer_features(images, camera_id)
    features = torch.cat([tested.last, tested.projected], dim=1)
    case.close("out_test_feature", features, **TRAJECTORY)
    values = {official_name(name): row for name, row in method.state_dict().items()}
    for output in case.outputs:
        if output.removeprefix("out_") in values:
            case.close(output, values[output.removeprefix("out_")], **TRAJECTORY)
    number, camera = case.item("num_query"), case.tensor("metric_camera")
    unit = F.normalize(features)
    ranking = rank_embeddings(
        unit[:number],
        unit[number:],
        query_person_id=person_id[:number],
        gallery_person_id=person_id[number:],
        query_camera_id=camera[:number],
        gallery_camera_id=camera[number:],
    )
    cmc = [rank_k(ranking, rank) for rank in range(1, len(case["out_cmc"]) + 1)]
    case.close("out_cmc", torch.tensor(cmc, dtype=torch.float64), rtol=1e-6, atol=1e-7)
    case.close("out_map", mean_average_precision(ranking))
