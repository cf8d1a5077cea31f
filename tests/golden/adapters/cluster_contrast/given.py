"""The method without a trainer, with encoders and samplers of the cases."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crosswalk.data.pipeline.cluster_plans import ClusterBatches
from crosswalk.data.pipeline.plans import Index
from crosswalk.encoders.gem import GemPool
from crosswalk.encoders.ibn import with_ibn
from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.importers.cluster_contrast import architecture_of, import_cluster_contrast
from crosswalk.labels.clustering import dbscan_clusters
from crosswalk.memory.memory_bank import move_rows
from crosswalk.methods.cluster_contrast import ClusterContrast
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures
from tests.golden.harness import Case


class Given(nn.Module):
    """An encoder whose images are their own features."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    def forward(self, image: Tensor) -> ImageFeatures:
        return ImageFeatures(image, image)


given_features = Given


def method_of(encoder: Any, num_samples: int, **settings: Any) -> ClusterContrast:  # noqa: ANN401
    """Return the method for a training set of this size."""
    method = ClusterContrast(
        encoder,
        DataSpec(num_samples=num_samples, num_images=num_samples, num_person_ids=1),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.0),
        **{
            "clustering": dbscan_clusters,
            "update": partial(move_rows, momentum=0.1),
            **settings,
        },
    )
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def batch_of(image: Tensor, index: Tensor) -> ImageBatch:
    return ImageBatch(image, torch.zeros_like(index), torch.zeros_like(index), index, None)


def state_of(case: Case, prefix: str = "state.") -> dict[str, Tensor]:
    """Return the weights of a case by their official names."""
    return {
        name.removeprefix(prefix): case.tensor(name) for name in case if name.startswith(prefix)
    }


def empty_encoder(state: dict[str, Tensor], group_size: int | None = None) -> ImageEncoder:
    """Return an encoder of the sizes of official weights, which are not loaded."""
    architecture = architecture_of(state)
    backbone = ResNet(**architecture["backbone"], group_size=group_size)
    return ImageEncoder(
        with_ibn(backbone) if architecture["ibn"] else backbone,
        neck_bias=False,
        group_size=group_size,
        pooling=GemPool() if architecture["pooling"] == "gem" else None,
        running_statistics="first_group",
    ).double()


def encoder_of(case: Case, group_size: int | None = None) -> ImageEncoder:
    """Return the encoder of a case, with its weights."""
    state = state_of(case)
    encoder = empty_encoder(state, group_size)
    encoder.load_state_dict(import_cluster_contrast(state))
    return encoder


def official_name(name: str) -> str:
    """Return the official name of an entry of `ImageEncoder`."""
    parts = {
        "conv1": "0",
        "bn1": "1",
        **{f"layer{stage}": str(stage + 3) for stage in range(1, 5)},
    }
    head, _, rest = name.partition(".")
    if head == "backbone":
        part, _, rest = rest.partition(".")
        return f"base.{parts[part]}.{rest}"
    return f"{({'pooling': 'gap', 'neck': 'feat_bn'})[head]}.{rest}"


class OfficialDraws:
    """Draws of the three global generators, as the released sampler takes them."""

    def __init__(self) -> None:
        self.drawn_order: Index = np.empty(0, np.int64)
        self.anchors: list[int] = []
        self.drawn: list[list[int]] = []
        self.pools: list[list[int]] = []

    def order(self, num_clusters: int) -> Index:
        self.drawn_order = torch.randperm(num_clusters).numpy()
        return self.drawn_order

    def anchor(self, members: Index) -> int:
        self.anchors.append(random.choice(members.tolist()))
        self.drawn.append([])
        self.pools.append([])
        return self.anchors[-1]

    def others(self, pool: Index, count: int, *, replace: bool) -> Index:
        found = np.random.choice(pool, count, replace=replace)
        self.drawn[-1], self.pools[-1] = found.tolist(), pool.tolist()
        return found


class OfficialBatches(ClusterBatches):
    """Batches with the random numbers of the released code."""

    def draws(self, number: int) -> OfficialDraws:
        torch.empty((), dtype=torch.int64).random_()  # the base seed of a loader's workers
        self.pass_number = number
        return OfficialDraws()


def official_batches(
    labels: Index, camera_id: Index, case: Case, ended: Callable[[int], None] = lambda _: None
) -> list[list[int]]:
    """Return the batches of an epoch; ``ended`` is told the pass of each."""
    plan = OfficialBatches(
        labels,
        camera_id,
        case.item("batch_size"),
        seed=0,
        images_per_cluster=case.item("num_instances"),
        num_batches=case.item("num_iterations"),
        by_camera=bool(case.item("use_camera")),
    )
    batches = []
    for batch in plan:
        batches.append(batch.tolist())
        ended(plan.pass_number)
    return batches


def seed_generators(*, python: int, numpy: int, torch_: int) -> None:
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(torch_)


def check_generators(case: Case) -> None:
    """Compare what the generators give next."""
    case.equal("out_next_python", random.random())
    case.equal("out_next_numpy", np.random.random())
    case.equal("out_next_torch", torch.rand((), dtype=torch.float64))
