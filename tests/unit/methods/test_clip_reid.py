"""Both trainings of CLIP-ReID on toy encoders."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.clip_layers import LayerFeatures
from crosswalk.encoders.clip_text import ClipText
from crosswalk.encoders.prompts import LearnedPrompts
from crosswalk.losses.batch_hard_triplet import batch_hard_triplet_loss
from crosswalk.methods.clip_reid import ClipReid, PromptLearning
from crosswalk.types import DataSpec, ImageBatch

SPEC = DataSpec(num_samples=6, num_images=6, num_person_ids=4)


class Layers(nn.Module):
    """Three linear maps of five pixels; a camera adds its number to the first of the last."""

    last_size, projected_size = 7, 3

    def __init__(self) -> None:
        super().__init__()
        self.last_neck, self.projected_neck = GroupBatchNorm(7), GroupBatchNorm(3)
        for neck in (self.last_neck, self.projected_neck):
            neck.bias.requires_grad_(False)
        self.visual = nn.Linear(5, 4)
        self.second = nn.Linear(4, 7)
        self.projection = nn.Linear(7, 3)

    def layers(self, image: Tensor, camera_id: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        earlier = self.visual(image.flatten(1))
        last = self.second(earlier)
        if camera_id is not None:
            last = last + F.one_hot(camera_id.new_zeros(len(last)), 7) * camera_id[:, None]
        return earlier, last, self.projection(last)

    def layer_features(self, image: Tensor, camera_id: Tensor | None = None) -> LayerFeatures:
        earlier, last, projected = self.layers(image, camera_id)
        necks = self.last_neck(last), self.projected_neck(projected)
        return LayerFeatures(earlier, last, projected, *necks)


def quiet(method: nn.Module) -> nn.Module:
    logged: dict[str, float] = {}
    method.log = lambda name, value, **_: logged.update({name: float(value)})
    method.log_dict = lambda values, **_: logged.update(
        {name: float(value) for name, value in values.items()}
    )
    method.logged = logged
    return method.double()


def second(**settings: object) -> ClipReid:
    torch.manual_seed(0)
    return quiet(ClipReid(Layers(), SPEC, lambda _: {}, **settings))


def first() -> PromptLearning:
    torch.manual_seed(0)
    text = ClipText(
        width=8, layers=1, heads=2, embed_dim=3, context_length=12, vocabulary_size=49408
    )
    return quiet(
        PromptLearning(Layers(), SPEC, lambda _: {}, prompts=partial(LearnedPrompts, text))
    )


def batch_of(person_id: list[int], camera: int = 2) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(len(person_id), 5, 1, 1, generator=generator, dtype=torch.float64)
    ids = torch.tensor(person_id)
    return ImageBatch(image, ids, torch.full_like(ids, camera), torch.arange(len(ids)), None)


def smoothed(logits: Tensor, person_id: Tensor, share: float) -> Tensor:
    classes = logits.shape[1]
    target = share / classes + (1 - share) * F.one_hot(person_id, classes).double()
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


@pytest.mark.parametrize("person_id", [[0, 0, 1, 1, 3, 3], [0, 1, 2], [2, 2]])
def test_the_loss_sums_two_names_three_triplets_and_the_texts(person_id: list[int]) -> None:
    method = second(identity_weight=0.25, triplet_weight=0.5, text_weight=2.0)
    batch = batch_of(person_id)

    loss = method.training_step(batch, 0)

    encoder, ids = method.encoder, batch.person_id
    earlier, last, projected = encoder.layers(batch.image, batch.camera_id)
    names = [
        smoothed(F.batch_norm(rows, None, None, training=True) @ classifier.weight.T, ids, 0.1)
        for rows, classifier in (
            (last, method.last_classifier),
            (projected, method.projected_classifier),
        )
    ]
    triplets = [
        batch_hard_triplet_loss(rows, ids, margin=0.3).mean() for rows in (earlier, last, projected)
    ]
    text = smoothed(projected @ method.texts.rows.T, ids, 0.1)
    expected = 0.25 * sum(names) + 0.5 * sum(triplets) + 2.0 * text
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    assert method.logged["train/loss_text"] == pytest.approx(2 * text.item(), rel=1e-10)


def test_texts_are_no_classifier_that_learns() -> None:
    method = second()

    method.training_step(batch_of([0, 0, 1, 1]), 0).backward()

    untouched = {name for name, row in method.named_parameters() if row.grad is None}
    assert untouched == {"texts.rows", "encoder.last_neck.bias", "encoder.projected_neck.bias"}


def test_without_texts_no_checkpoint_need_hold_any() -> None:
    method = second(text_weight=0.0)

    method.training_step(batch_of([0, 0, 1, 1]), 0)

    assert "train/loss_text" not in method.logged
    assert "train/own_text" not in method.logged
    assert not method.starts_with
    assert set(ClipReid.starts_with) == set(second().starts_with) == {"texts.rows"}


def test_classifiers_start_small() -> None:
    torch.manual_seed(0)
    method = ClipReid(Layers(), DataSpec(9, 9, 5000), lambda _: {})

    for classifier in (method.last_classifier, method.projected_classifier):
        assert classifier.bias is None
        assert classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("feature", ["pooled", "neck"])
def test_the_last_features_are_side_by_side_in_one_unit_vector(feature: str) -> None:
    method, batch = second(test_feature=feature), batch_of([0, 1, 2])
    for norm in method.modules():
        if isinstance(norm, GroupBatchNorm):
            norm.running_mean.fill_(0.5)
    method.eval()

    embedding = method.embed(batch)["global"]

    _, last, projected = method.encoder.layers(batch.image, batch.camera_id)
    if feature == "neck":
        last, projected = ((rows - 0.5) / (1 + 1e-5) ** 0.5 for rows in (last, projected))
    whole = torch.cat([last, projected], dim=1)
    expected = whole / whole.square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(embedding, expected)


def filled(method: PromptLearning, person_id: list[int]) -> PromptLearning:
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(4)).double()
    method.on_sweep_end({"image_features": features, "image_person_id": torch.tensor(person_id)})
    return method


def test_the_table_is_filled_once_from_images_without_cameras() -> None:
    method, batch = first().eval(), batch_of([0, 1, 2, 3, 3, 3], camera=5)

    assert method.wants_sweep(0)
    table = method.sweep_step(batch)
    method.on_sweep_end(table)

    assert not method.wants_sweep(0)
    expected = method.encoder.layers(batch.image, None)[2]
    torch.testing.assert_close(method.image_features, expected)
    assert method.image_person_id.tolist() == [0, 1, 2, 3, 3, 3]
    state = method.state_dict()
    assert bool(state["filled"])
    torch.testing.assert_close(state["image_features"], expected)


@pytest.mark.parametrize("rows", [[0, 1, 4, 5], [3], [5, 0, 2]])
def test_a_step_contrasts_images_with_a_text_for_each_and_reads_no_image(rows: list[int]) -> None:
    person_id = [0, 0, 1, 2, 2, 2]
    method = filled(first(), person_id)
    ids = torch.tensor(person_id)[rows]
    batch = ImageBatch(torch.empty(len(rows), 3, 0, 0), ids, ids, torch.tensor(rows), None)

    loss = method.training_step(batch, 0)
    loss.backward()

    images = method.image_features[rows]
    texts = method.prompts(ids)  # one for each image
    scores = images @ texts.T
    same = (ids[:, None] == ids).double()
    expected = sum(
        -((each.log_softmax(dim=1) * same).sum(dim=1) / same.sum(dim=1)).mean()
        for each in (scores, scores.T)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    trained = [name for name, row in method.named_parameters() if row.grad is not None]
    assert trained == ["prompts.context"]


def test_texts_are_written_behind_every_epoch() -> None:
    method = filled(first(), [0, 0, 1, 2, 2, 3])

    method.on_train_epoch_end()

    torch.testing.assert_close(method.texts.rows, method.prompts.everybody())
    unit = F.normalize(method.texts.rows)
    pairs = [float(unit[a] @ unit[b]) for a in range(4) for b in range(4) if a != b]
    assert method.logged["train/between_texts"] == pytest.approx(sum(pairs) / 12)
    own = F.normalize(method.image_features) * unit[method.image_person_id]
    assert method.logged["train/own_text"] == pytest.approx(own.sum(dim=1).mean().item())


def test_texts_and_images_are_of_one_clip() -> None:
    text = ClipText(
        width=8, layers=1, heads=2, embed_dim=4, context_length=12, vocabulary_size=49408
    )

    with pytest.raises(ValueError, match=r"method.prompts.text have 4 channels.*encoder= 3"):
        PromptLearning(Layers(), SPEC, lambda _: {}, prompts=partial(LearnedPrompts, text))
