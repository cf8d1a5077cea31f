"""The whole procedure on a small network: initialisation, epochs, evaluation."""

from collections.abc import Iterator
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from crosswalk.encoders.image import ImageEncoder, norm_scale
from crosswalk.encoders.resnet import ResNet
from crosswalk.importers.mar import AGENTS, import_mar
from crosswalk.labels.soft_multilabel import pair_agreements
from crosswalk.metrics.ranking import mean_average_precision, rank_embeddings, rank_k
from crosswalk.optim import GroupRule, OptimBuilder, sgd
from crosswalk.run.callbacks.sweep import evaluating
from crosswalk.types import DataSpec, ImageBatch, SourceTargetBatch
from tests.golden.adapters.mar.given import EpochGiven, RecordedMining, make_mar
from tests.golden.harness import Case, Tolerance, golden

TRAJECTORY: Tolerance = {"rtol": 1e-6, "atol": 1e-9}


def images_of(case: Case, name: str) -> Tensor:
    mean, std = case.setting("pixel_mean", 0.45), case.setting("pixel_std", 0.25)
    return (case.tensor(name).double() / 255 - mean) / std


def batches(images: Tensor, person_id: Tensor, camera_id: Tensor, rows: Tensor) -> ImageBatch:
    return ImageBatch(images[rows], person_id[rows], camera_id[rows], rows, None)


def target_rows(order: Tensor, size: int) -> Iterator[Tensor]:
    """Yield slices of ``order`` without the incomplete last one, again and again."""
    for number in count():
        start = number % (len(order) // size) * size
        yield order[start : start + size]


def method_of(case: Case, mining: RecordedMining) -> EpochGiven:
    width = case.item("width")
    backbone = ResNet(
        case["layers"].tolist(),
        block="bottleneck",
        stem_width=width,
        planes=[width * 2**stage for stage in range(len(case["layers"]))],
        last_relu=False,
    )
    optim = OptimBuilder(
        partial(sgd, momentum=case.item("momentum")),
        lr=case.item("lr"),
        weight_decay=case.item("weight_decay"),
        rules=[GroupRule(contains=[".bn", "downsample.1"], weight_decay=0.0)],
    )
    num_images = len(case["target_images"])
    method = make_mar(
        ImageEncoder(backbone, neck="none"),
        DataSpec(
            num_samples=num_images,
            num_images=num_images,
            num_person_ids=int(case["target_labels"].max()) + 1,
            num_cameras=int(case["target_views"].max()) + 1,
            num_source_person_ids=case.item("num_classes"),
        ),
        optim,
        mining=mining,
        scale=case.item("scale"),
        margin=case.item("margin"),
        joint_weight=case.item("beta"),
        reference_weight=case.item("lambda_2"),
        consistency_weight=case.item("lambda_1"),
        mining_ratio=case.item("mining_ratio"),
        memory_momentum=case.setting("memory_momentum", 0.9),
        threshold_momentum=case.setting("threshold_momentum", 0.9),
        center_images=case.setting("center_images", 10_000),
    )
    state = import_mar({name[3:]: case.tensor(name) for name in case if name.startswith("sd.")})
    method.agents.weight.data.copy_(state.pop(AGENTS))
    method.encoder.load_state_dict(state)
    return method


def official_name(name: str) -> str:
    return name.replace("agents.", "fc.").removeprefix("encoder.backbone.")


@golden("mar", "train_epoch")
def train_epoch(case: Case) -> None:
    mining = RecordedMining()
    method = method_of(case, mining)
    half = case.item("half_batch")
    source_rows = torch.arange(len(case["source_images"])).split(half)
    source_rows = [rows for rows in source_rows if len(rows) == half]
    source_camera = torch.zeros(len(case["source_images"]), dtype=torch.int64)
    source = partial(
        batches, images_of(case, "source_images"), case.tensor("source_labels"), source_camera
    )
    target_person, target_camera = case.tensor("target_labels"), case.tensor("target_views")
    target_images, order = images_of(case, "target_images"), case.tensor("target_order")
    target = partial(batches, target_images, target_person, target_camera)

    # Our sweep sees every image once; the official pass drops the incomplete last batch.
    method.train()
    rows = target_rows(order[0], half)
    with evaluating(method), torch.no_grad():
        seen = [method.sweep_step(target(next(rows))) for _ in range(len(order[0]) // half)]
    table = {name: torch.cat([part[name] for part in seen]) for name in seen[0]}
    case.check(method.wants_sweep(0), "an untrained method wants the sweep")
    method.on_sweep_end(table)
    case.check(not method.wants_sweep(1), "there is one sweep")
    multilabel = table["log_multilabel"].exp()
    case.close("out_init_multilabels", multilabel, **TRAJECTORY)
    case.equal("out_init_views", table["camera_id"])
    case.close("out_init_agreement", pair_agreements(multilabel), **TRAJECTORY)
    case.close("out_init_threshold", method.threshold, **TRAJECTORY)
    case.close("out_init_center_mean", method.center_mean, **TRAJECTORY)
    case.close("out_init_center_std", method.center_std, **TRAJECTORY)

    optimizer = method.configure_optimizers()["optimizer"]
    no_decay = {
        id(parameter)
        for group in optimizer.param_groups
        if group["weight_decay"] == 0
        for parameter in group["params"]
    }
    names = {official_name(name): parameter for name, parameter in method.named_parameters()}
    found = [name for name, parameter in names.items() if id(parameter) in no_decay]
    for output, given in (("out_param_names", list(names)), ("out_no_decay_params", found)):
        case.equal(output, np.array(sorted(given, key=case[output].tolist().index)))

    steps: list[dict[str, float]] = []

    def record(prefix: str, losses: dict[str, Tensor]) -> Tensor:
        steps.append({name: loss.item() for name, loss in losses.items()})
        return sum(losses.values(), start=torch.zeros(()))

    method.log_total = record  # type: ignore[method-assign]
    stem = method.encoder.backbone.bn1
    totals = []
    for epoch in range(case.item("n_epochs_run")):
        method.current_epoch = epoch
        rows = target_rows(order[epoch], half)
        for number, chosen in enumerate(source_rows):
            batch = SourceTargetBatch(source(chosen), target(next(rows)))
            optimizer.zero_grad()
            loss = method.training_step(batch, number)
            loss.backward()
            optimizer.step()
            totals.append(loss.item())
        case.close(f"out_center_mean_e{epoch}", method.center_mean, **TRAJECTORY)
        case.close(f"out_center_std_e{epoch}", method.center_std, **TRAJECTORY)
        case.close(f"out_threshold_e{epoch}", method.threshold, **TRAJECTORY)
        case.close(f"out_memory_e{epoch}", method.memory.rows, **TRAJECTORY)
        case.equal(f"out_memory_initialized_e{epoch}", method.memory.written)
        case.close(f"out_fc_weight_e{epoch}", method.agents.weight, **TRAJECTORY)
        case.close(f"out_bn1_running_mean_e{epoch}", stem.running_mean, **TRAJECTORY)

    reference = case.item("lambda_2")
    weights = {
        "source": ("agent", reference),
        "st": ("joint", reference * case.item("beta")),
        "ml": ("consistency", case.item("lambda_1")),
        "target": ("discriminative", 1.0),
    }
    shape = (case.item("n_epochs_run"), len(source_rows))
    for name, (term, weight) in weights.items():
        values = np.array([step.get(term, 0.0) / weight for step in steps])
        case.close(f"out_loss_{name}", values.reshape(shape), **TRAJECTORY)
    case.close("out_loss_total", np.array(totals).reshape(shape), **TRAJECTORY)
    case.equal("out_n_pos", np.array([int(each.sum()) for each in mining.positive]))
    case.equal("out_n_neg", np.array([int((~each).sum()) for each in mining.positive]))

    norms = [names[name].detach().norm() for name in case["out_param_names"]]
    case.close("out_param_l2_norms", torch.stack(norms), **TRAJECTORY)
    case.close("out_conv1_weight", names["conv1.weight"], **TRAJECTORY)
    evaluate(case, method, target_images, target_person, target_camera)


def evaluate(
    case: Case, method: EpochGiven, images: Tensor, person_id: Tensor, camera_id: Tensor
) -> None:
    half, probe = case.item("half_batch"), case.tensor("probe_index")
    everything = batches(images, person_id, camera_id, torch.arange(len(images)))
    with evaluating(method), torch.no_grad():
        embedding = method.embed(everything)["global"]
        similarity = embedding[:half] @ norm_scale(method.agents.weight).T
    case.close("out_eval_feature_first_half_batch", embedding[:half], **TRAJECTORY)
    case.close("out_eval_similarity_first_half_batch", similarity, **TRAJECTORY)
    ranking = rank_embeddings(
        embedding[probe],
        embedding,
        query_person_id=person_id[probe],
        gallery_person_id=person_id,
        query_camera_id=camera_id[probe],
        gallery_camera_id=camera_id,
        extra_map=["first_hit_bonus"],
    )
    for rank in (1, 5, 10):
        case.close(f"out_eval_r{rank}", 100 * rank_k(ranking, rank))
    case.close("out_eval_MAP", 100 * mean_average_precision(ranking, "first_hit_bonus"))
