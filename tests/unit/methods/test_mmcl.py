from functools import partial
from unittest.mock import PropertyMock, patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.labels.positive_labels import cycle_consistent_rows, own_row, same_person_rows
from crosswalk.losses.multilabel import mmcl_loss
from crosswalk.methods.mmcl import MMCL
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures, SourceTargetBatch

PERSON_ID = torch.tensor([0, 1, 0, 2, 1, 2, 2])


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


def mmcl(num_source_person_ids: int = 0, **settings: object) -> MMCL:
    method = MMCL(
        ToyEncoder(),
        DataSpec(7, 7, 3, num_source_person_ids=num_source_person_ids),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        loss=partial(mmcl_loss, delta=5.0, ratio=0.5),
        **{"labels": partial(same_person_rows, person_id=PERSON_ID), **settings},
    )
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def images(sample_index: list[int], seed: int = 5, person_id: Tensor = PERSON_ID) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor(sample_index)
    image = torch.randn(len(index), 3, 2, 2, generator=generator)
    return ImageBatch(image, person_id[index], torch.zeros_like(index), index, None)


def in_epoch(epoch: int) -> object:
    return patch.object(MMCL, "current_epoch", new_callable=PropertyMock, return_value=epoch)


def test_the_first_step_has_the_loss_of_a_memory_of_zeros_and_no_gradient() -> None:
    method = mmcl()

    outputs = method.training_step(images([0, 1, 2]), 0)
    outputs["loss"].backward()

    assert outputs["loss"].item() == 6.0
    assert all(not p.grad.any() for p in method.parameters() if p.grad is not None)


def test_the_loss_is_the_mean_over_scores_against_the_bank_of_the_features_behind_the_neck() -> (
    None
):
    method, batch = mmcl(), images([4, 0, 6])
    method.bank.rows.copy_(normalize(torch.randn(7, 5)))

    with in_epoch(9):
        outputs = method.training_step(batch, 0)

    embedding = normalize(method.encoder(batch.image).neck)
    labels = PERSON_ID[[4, 0, 6]][:, None] == PERSON_ID
    losses = mmcl_loss(embedding @ method.bank.rows.T, labels, delta=5.0, ratio=0.5)
    assert_close(outputs["loss"], losses.sum() / 3)
    assert_close(outputs["embedding"], embedding.detach())
    assert not outputs["embedding"].requires_grad
    assert outputs["sample_index"].tolist() == [4, 0, 6]
    assert torch.equal(outputs["labels"], labels)


@pytest.mark.parametrize(("epoch", "start"), [(0, 6), (5, 6), (6, 6), (7, 6), (0, 0), (2, 3)])
def test_an_image_is_a_class_of_its_own_until_the_predictor_is_asked(
    epoch: int, start: int
) -> None:
    method = mmcl(mplp_start_epoch=start)

    with in_epoch(epoch):
        labels = method.training_step(images([3, 0]), 0)["labels"]

    expected = own_row(method.bank.rows, torch.tensor([3, 0]))
    if epoch >= start:
        expected = PERSON_ID[[3, 0]][:, None] == PERSON_ID
    assert torch.equal(labels, expected)


def test_the_predictor_and_the_loss_see_the_bank_before_the_write_of_the_step() -> None:
    seen = []

    def record(rows: Tensor, index: Tensor) -> Tensor:
        seen.append(rows.clone())
        return own_row(rows, index)

    method = mmcl(labels=record, mplp_start_epoch=0)
    before = normalize(torch.randn(7, 5))
    method.bank.rows.copy_(before)

    with in_epoch(30):
        outputs = method.training_step(images([2, 5]), 0)
        outputs["loss"].backward()
        unwritten = method.bank.rows.clone()
        method.remember(outputs)

    assert torch.equal(seen[0], before)
    assert torch.equal(unwritten, before)
    moved = 0.25 * before[[2, 5]] + 0.75 * outputs["embedding"]  # 0.5 * 30 / 60
    assert_close(method.bank.rows[[2, 5]], normalize(moved))
    assert torch.equal(method.bank.rows[[0, 1, 3, 4, 6]], before[[0, 1, 3, 4, 6]])


@pytest.mark.parametrize(
    ("settings", "epoch", "momentum"),
    [
        ({}, 0, 0.0),
        ({}, 6, 0.05),
        ({}, 59, 0.5 * 59 / 60),
        ({}, 90, 0.75),
        ({}, 200, 1.0),
        ({"momentum_epochs": 10}, 5, 0.25),
        ({"momentum_growth": 0.2}, 60, 0.2),
    ],
)
def test_the_momentum_grows_by_the_epoch(
    settings: dict[str, object], epoch: int, momentum: float
) -> None:
    assert mmcl(**settings).momentum_at(epoch) == pytest.approx(momentum)


@pytest.mark.parametrize("feature", ["pooled", "neck"])
def test_unit_vectors_of_the_chosen_feature_are_compared_at_test(feature: str) -> None:
    method, batch = mmcl(test_feature=feature), images([0, 1])

    embedding = method.embed(batch)["global"]

    assert_close(embedding, normalize(getattr(method.encoder(batch.image), feature)))


def test_the_feature_before_the_neck_is_the_default() -> None:
    method, batch = mmcl(), images([0, 1])

    assert_close(method.embed(batch)["global"], normalize(method.encoder(batch.image).pooled))


def test_a_momentum_that_rises_over_no_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.momentum_epochs=0 must be at least 1"):
        mmcl(momentum_epochs=0)


def test_without_a_source_there_is_no_classifier() -> None:
    assert not any("classifier" in name for name in mmcl().state_dict())


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_labelled_source_adds_its_identity_loss_to_that_of_the_target(weight: float) -> None:
    source_person = torch.tensor([0, 3, 1, 2])
    method = mmcl(num_source_person_ids=4, source_weight=weight)
    method.bank.rows.copy_(normalize(torch.randn(7, 5)))
    source = images([3, 1, 0], seed=6, person_id=source_person)
    target = images([6, 0])

    outputs = method.training_step(SourceTargetBatch(source, target), 0)

    logits = method.classifier(method.encoder(source.image).neck)
    identity = -logits.log_softmax(dim=1)[torch.arange(3), source.person_id].mean()
    alone = method.training_step(target, 0)
    assert_close(outputs["loss"], weight * identity + alone["loss"])
    for name in ("embedding", "sample_index", "labels"):
        assert torch.equal(outputs[name], alone[name])


def test_the_classifier_starts_near_zero_with_a_bias_of_zero() -> None:
    classifier = mmcl(num_source_person_ids=400).classifier

    assert classifier.weight.shape == (400, 5)
    assert classifier.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert not classifier.bias.any()


def test_similarities_stay_float32_under_autocast() -> None:
    seen = []

    def record(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return logits.sum(dim=1)

    method = mmcl(num_source_person_ids=4)
    method.multilabel_loss = record
    batch = SourceTargetBatch(images([0, 1]), images([2, 3]))

    with torch.autocast("cpu", torch.bfloat16):
        outputs = method.training_step(batch, 0)

    assert seen == [torch.float32]
    assert outputs["embedding"].dtype == outputs["loss"].dtype == torch.float32


def test_the_bank_survives_a_checkpoint() -> None:
    method = mmcl()
    method.bank.rows.copy_(normalize(torch.randn(7, 5)))
    restored = mmcl()

    restored.load_state_dict(method.state_dict())

    assert torch.equal(restored.bank.rows, method.bank.rows)


def train(method: MMCL, batches: list[list[int]], epochs: list[int]) -> MMCL:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for epoch in epochs:
        for number, index in enumerate(batches):
            with in_epoch(epoch):
                outputs = method.training_step(images(index, seed=number), number)
                optimizer.zero_grad()
                outputs["loss"].backward()
                method.remember(outputs)
                optimizer.step()
    return method


def test_training_with_predicted_labels_is_the_same_in_two_runs() -> None:
    labels = partial(cycle_consistent_rows, threshold=0.3)
    batches = [[0, 1, 2], [3, 4], [5, 6]]

    first = train(mmcl(labels=labels, mplp_start_epoch=1), batches, [0, 1, 2]).state_dict()
    second = train(mmcl(labels=labels, mplp_start_epoch=1), batches, [0, 1, 2]).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = ToyEncoder().backbone.weight.detach()
    assert float((first["encoder.backbone.weight"] - untrained).abs().max()) > 1e-3
