from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.classifier import AgentClassifier
from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss
from crosswalk.methods.supervised import Supervised
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures

SPEC = DataSpec(num_samples=6, num_images=6, num_person_ids=3)


class Encoder(nn.Module):
    embedding_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(5, 4)
        self.neck = nn.Linear(4, 4)

    def forward(self, image: Tensor) -> ImageFeatures:
        pooled = self.backbone(image.flatten(1))
        return ImageFeatures(pooled, self.neck(pooled))


def method_with(**settings: object) -> Supervised:
    torch.manual_seed(0)
    linear = partial(nn.Linear, bias=False)
    method = Supervised(Encoder(), SPEC, lambda _: {}, **{"classifier": linear, **settings})
    logged: dict[str, float] = {}
    method.log = lambda name, value, **_: logged.update({name: float(value)})
    method.log_dict = lambda values, **_: logged.update(
        {name: float(value) for name, value in values.items()}
    )
    method.logged = logged
    return method.double()


def batch_of(person_id: list[int]) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(len(person_id), 5, 1, 1, generator=generator, dtype=torch.float64)
    ids = torch.tensor(person_id)
    return ImageBatch(image, ids, torch.zeros_like(ids), torch.arange(len(ids)), None)


@pytest.mark.parametrize("person_id", [[0, 0, 1, 1, 2, 2], [0, 1, 2], [1]])
def test_the_loss_names_the_person_and_holds_images_together(person_id: list[int]) -> None:
    method, batch = method_with(triplet_weight=0.5), batch_of(person_id)

    loss = method.training_step(batch, 0)

    pooled, neck = method.encoder(batch.image)
    smoothed = 0.1 / 3 + 0.9 * F.one_hot(batch.person_id, 3).double()
    named = -(smoothed * (neck @ method.classifier.weight.T).log_softmax(dim=1)).sum(dim=1).mean()
    triplet = batch_hard_triplet_loss(pooled, batch.person_id, margin=0.3).mean()
    assert loss.item() == pytest.approx((named + 0.5 * triplet).item(), rel=1e-12)
    assert method.logged["train/loss_identity"] == pytest.approx(named.item(), rel=1e-12)
    assert method.logged["train/loss_triplet"] == pytest.approx(0.5 * triplet.item(), rel=1e-12)


def test_without_weight_there_is_no_triplet_loss() -> None:
    method = method_with(triplet_weight=0.0)

    method.training_step(batch_of([0, 0, 1]), 0)

    assert set(method.logged) == {"train/loss", "train/loss_identity"}


@pytest.mark.parametrize(("feature", "place"), [("pooled", 0), ("neck", 1)])
def test_unit_vectors_of_the_chosen_feature_are_compared(feature: str, place: int) -> None:
    method, batch = method_with(test_feature=feature), batch_of([0, 1])

    embedding = method.embed(batch)["global"]

    expected = method.encoder(batch.image)[place]
    expected = expected / expected.square().sum(dim=1, keepdim=True).sqrt()
    assert torch.allclose(embedding, expected, rtol=1e-12)


def test_agents_may_take_the_place_of_the_linear_classifier() -> None:
    agents = partial(AgentClassifier, scale=30.0)
    method = method_with(classifier=agents, triplet_weight=0.0, label_smoothing=0.0)
    batch = batch_of([0, 2])

    loss = method.training_step(batch, 0)

    cosine = F.normalize(method.encoder(batch.image).neck) @ F.normalize(method.classifier.weight).T
    expected = F.cross_entropy(30 * cosine, batch.person_id)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
