"""The memory of cluster vectors: scores, loss, gradients, both ways of writing, the start."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from crosswalk.memory.cluster_centers import ClusterCenters, move_by_hardest
from crosswalk.memory.hybrid_memory import class_means
from crosswalk.memory.memory_bank import move_rows
from tests.golden.adapters.cluster_contrast.given import batch_of, given_features, method_of
from tests.golden.harness import Case, Tolerance, golden

EXACT: Tolerance = {"rtol": 1e-9, "atol": 1e-9}
SINGLE: Tolerance = {"rtol": 2e-5, "atol": 2e-5}


def update_of(case: Case) -> Callable[[Tensor, Tensor, Tensor], None]:
    """Return what writes the memory."""
    move = move_by_hardest if case.item("use_hard") else move_rows
    return partial(move, momentum=case.setting("momentum", 0.1))


def tolerance(case: Case, name: str) -> Tolerance:
    return EXACT if case[name].dtype == np.float64 else SINGLE


def memory_of(case: Case, name: str) -> ClusterCenters:
    """Return a memory with the vectors of a case."""
    vectors = case.tensor(name)
    memory = ClusterCenters(*vectors.shape).to(vectors.dtype)
    memory.rows.copy_(vectors)
    memory.num_clusters.fill_(len(vectors))
    return memory


@golden("cluster_contrast", "cm_function")
def cm_function(case: Case) -> None:
    memory = memory_of(case, "memory")
    x = case.tensor("x", requires_grad=True)
    scores = memory.scores(x)
    scores.backward(case.tensor("grad_scores"))
    update_of(case)(memory.centers, x.detach(), case.tensor("target"))

    near = tolerance(case, "memory")
    case.close("out_scores", scores, **near)
    case.close("out_grad_x", x.grad, **near)
    case.close("out_memory", memory.centers, **near)


@golden("cluster_contrast", "cluster_memory")
def cluster_memory(case: Case) -> None:
    near = tolerance(case, "memory0")
    start = memory_of(case, "memory0")
    num_steps = case.item("num_steps")
    num_samples = max(len(start.rows), *(len(case[f"target_{step}"]) for step in range(num_steps)))
    method = method_of(
        given_features(start.rows.shape[1]),
        num_samples,
        update=update_of(case),
        temperature=case.item("temp"),
    ).to(start.rows.dtype)
    method.memory.num_clusters.copy_(start.num_clusters)
    method.memory.centers.copy_(start.centers)
    for step in range(num_steps):
        x, target = case.tensor(f"x_{step}", requires_grad=True), case.tensor(f"target_{step}")
        index = torch.arange(len(x))
        method.memory.labels[index] = target
        outputs = method.training_step(batch_of(x, index), step)
        outputs["loss"].backward()
        method.remember(outputs)

        case.close(f"out_loss_{step}", outputs["loss"], **near)
        largest = float(np.abs(case[f"out_grad_x_{step}"]).max())
        case.close(
            f"out_grad_x_{step}", x.grad, rtol=near["rtol"], atol=near["atol"] * max(largest, 1e-30)
        )
        case.close(f"out_memory_{step}", method.memory.centers, **near)


@golden("cluster_contrast", "memory_init")
def memory_init(case: Case) -> None:
    features, labels = case.tensor("features"), case.tensor("labels")
    memory = ClusterCenters(*features.shape).to(features.dtype)
    memory.fill(features, labels)
    kept = labels >= 0
    means, present = class_means(features[kept], labels[kept])

    near = tolerance(case, "features")
    case.close("out_centers", means[present], **near)
    case.close("out_memory", memory.centers, **near)
