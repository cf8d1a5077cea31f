from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.labels.clustering import dbscan_clusters
from crosswalk.memory.cluster_centers import move_by_hardest
from crosswalk.memory.memory_bank import move_rows
from crosswalk.methods.cluster_contrast import ClusterContrast
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures

LABELS = torch.tensor([0, 1, 0, -1, 1, 2, 0])


class ToyEncoder(nn.Module):
    """A linear map of flat images, and another one behind it as neck."""

    embedding_size = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(12, 5)
        self.neck = nn.Linear(5, 5)

    def forward(self, image: Tensor) -> ImageFeatures:
        pooled = self.backbone(image.flatten(1))
        return ImageFeatures(pooled, self.neck(pooled))


def method_with(**settings: object) -> ClusterContrast:
    method = ClusterContrast(
        ToyEncoder(),
        DataSpec(7, 7, 3),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        **{
            "clustering": lambda rows, threshold: (LABELS, threshold),
            "update": partial(move_rows, momentum=0.1),
            **settings,
        },
    ).double()
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def images(sample_index: list[int]) -> ImageBatch:
    generator = torch.Generator().manual_seed(5)
    every = torch.randn(7, 3, 2, 2, generator=generator, dtype=torch.float64)
    index = torch.tensor(sample_index)
    return ImageBatch(every[index], 0 * index, 0 * index, index, None)


def swept(**settings: object) -> ClusterContrast:
    """Return the method at the start of an epoch."""
    method = method_with(**settings)
    method.on_sweep_end(method.sweep_step(images(list(range(7)))))
    return method


def unit_features(method: ClusterContrast, sample_index: list[int]) -> Tensor:
    return normalize(method.encoder(images(sample_index).image).neck).detach()


def test_every_epoch_begins_with_the_features_behind_the_neck() -> None:
    method = method_with()

    rows = method.sweep_step(images([3, 5]))["features"]

    assert [method.wants_sweep(epoch) for epoch in (0, 1, 49)] == [True] * 3
    assert_close(rows, unit_features(method, [3, 5]))
    assert_close(method.embed(images([3, 5]))["global"], rows)


def test_the_memory_begins_as_the_means_of_the_clusters() -> None:
    method = swept()

    features = unit_features(method, list(range(7)))
    for number, members in enumerate(([0, 2, 6], [1, 4], [5])):
        total = features[members].sum(dim=0)
        assert_close(method.memory.centers[number], total / total.norm())
    assert method.plan_labels().tolist() == LABELS.tolist()
    assert method.pseudo_labels()["image"].tolist() == LABELS.tolist()


def test_the_loss_is_the_mean_cross_entropy_among_all_clusters() -> None:
    method = swept(temperature=0.2)
    batch = [4, 0, 5, 2]

    outputs = method.training_step(images(batch), 0)

    losses = []
    for row, label in zip(unit_features(method, batch), LABELS[batch].tolist(), strict=True):
        powers = [float(torch.exp(row @ center / 0.2)) for center in method.memory.centers]
        losses.append(-torch.log(torch.tensor(powers[label] / sum(powers))).item())
    assert outputs["loss"].item() == pytest.approx(sum(losses) / 4, rel=1e-6)
    assert outputs["cluster"].tolist() == [1, 0, 2, 0]


def test_one_cluster_has_no_loss_and_no_gradient_and_its_vector_moves() -> None:
    method = swept(clustering=lambda rows, threshold: (0 * LABELS, threshold))
    before = method.memory.centers.clone()

    outputs = method.training_step(images([1, 3]), 0)
    outputs["loss"].backward()
    method.remember(outputs)

    assert outputs["loss"].item() == 0
    assert all(not parameter.grad.any() for parameter in method.parameters())
    assert not torch.equal(method.memory.centers, before)


def test_the_memory_is_written_after_backward_image_by_image_in_the_order_of_the_batch() -> None:
    method = swept(update=partial(move_rows, momentum=0.3))
    batch = [2, 4, 0, 6, 2]
    before = method.memory.centers.clone()

    outputs = method.training_step(images(batch), 0)
    outputs["loss"].backward()
    assert torch.equal(method.memory.centers, before)
    method.remember(outputs)

    expected = before.clone()
    for row, label in zip(unit_features(method, batch), LABELS[batch].tolist(), strict=True):
        moved = 0.3 * expected[label] + 0.7 * row
        expected[label] = moved / moved.norm()
    assert_close(method.memory.centers, expected)


def test_the_hardest_image_of_each_cluster_may_be_the_one_that_is_followed() -> None:
    method = swept(update=partial(move_by_hardest, momentum=0.3))
    batch = [2, 4, 0, 6]
    before, features = method.memory.centers.clone(), unit_features(method, batch)

    outputs = method.training_step(images(batch), 0)
    method.remember(outputs)

    hardest = min((0, 2, 3), key=lambda place: float(features[place] @ before[0]))
    for number, place in ((0, hardest), (1, 1)):
        moved = 0.3 * before[number] + 0.7 * features[place]
        assert_close(method.memory.centers[number], moved / moved.norm())
    assert torch.equal(method.memory.centers[2], before[2])


def test_too_few_images_for_the_neighbours_are_an_error_that_names_the_key() -> None:
    with pytest.raises(ValueError, match=r"7 points have no 30 neighbours.*method\.clustering\.k1"):
        swept(clustering=dbscan_clusters)
