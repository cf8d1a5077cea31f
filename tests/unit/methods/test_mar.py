from functools import partial
from unittest.mock import PropertyMock, patch

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.image import norm_scale
from crosswalk.labels.soft_multilabel import nearest_pairs
from crosswalk.losses.reference_agents import JointTerms, joint_embedding_loss
from crosswalk.methods.mar import MAR
from crosswalk.types import DataSpec, ImageBatch, ImageFeatures, SourceTargetBatch

NUM_SAMPLES, NUM_AGENTS = 11, 4
SPEC = DataSpec(NUM_SAMPLES, NUM_SAMPLES, 3, num_cameras=3, num_source_person_ids=NUM_AGENTS)


class ToyEncoder(nn.Module):
    """A linear map of flat images that remembers how many images each pass had."""

    embedding_size = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(12, 5)
        self.passes: list[int] = []

    def forward(self, image: Tensor) -> ImageFeatures:
        self.passes.append(len(image))
        pooled = self.backbone(image.flatten(1))
        return ImageFeatures(pooled, pooled)


def mar(**settings: object) -> MAR:
    method = MAR(
        ToyEncoder(),
        SPEC,
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        **{"mining_ratio": 0.3, "scale": 4.0, **settings},
    ).double()
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def images(person_id: list[int], camera_id: list[int], index: list[int], seed: int) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(len(index), 3, 2, 2, generator=generator, dtype=torch.float64)
    return ImageBatch(image, *map(torch.tensor, (person_id, camera_id, index)), None)


def batch(target_person_id: tuple[int, ...] = (0, 1, 0, 2, 1, 2, 2)) -> SourceTargetBatch:
    return SourceTargetBatch(
        source=images([3, 0, 3, 1, 2], [0] * 5, [7, 2, 4, 9, 0], seed=1),
        target=images(
            list(target_person_id), [0, 0, 1, 1, 0, 2, 1], [10, 3, 0, 8, 5, 1, 2], seed=2
        ),
    )


def in_epoch(epoch: int) -> object:
    return patch.object(MAR, "current_epoch", new_callable=PropertyMock, return_value=epoch)


def terms_of(method: MAR, data: SourceTargetBatch, epoch: int) -> dict[str, Tensor]:
    """Run a step, return its weighted terms and their sum under the name loss."""
    terms = {}

    def record(prefix: str, losses: dict[str, Tensor]) -> Tensor:
        terms.update(losses)
        return MAR.log_total(method, prefix, losses)

    with in_epoch(epoch), patch.object(method, "log_total", record):
        terms["loss"] = method.training_step(data, 0)
    return terms


def state_of(method: MAR) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def embeddings(method: MAR, data: SourceTargetBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit vectors of source and target, and of the agents."""
    source, target = (norm_scale(method.encoder(part.image).pooled) for part in data)
    return source, target, norm_scale(method.agents.weight)


def joint_terms(method: MAR, data: SourceTargetBatch, *, source_negatives: bool) -> JointTerms:
    source, target, agents = embeddings(method, data)
    return joint_embedding_loss(
        source,
        target,
        agents,
        data.source.person_id,
        source_similarity=source @ agents.T,
        target_similarity=target @ agents.T,
        margin=1.0,
        source_negatives=source_negatives,
    )


def test_in_the_first_epoch_the_agents_learn_and_nothing_is_mined() -> None:
    method = mar(joint_weight=0.3, reference_weight=7.0, consistency_weight=0.01)
    before = state_of(method)

    terms = terms_of(method, batch(), epoch=0)

    source, _, agents = embeddings(method, batch())
    person_id = batch().source.person_id
    logits = 4 * source @ agents.T
    own = torch.stack([row.logsumexp(0) - row[i] for row, i in zip(logits, person_id, strict=True)])
    assert_close(terms["agent"], 7 * own.mean(), rtol=1e-9, atol=0.0)
    joint = joint_terms(method, batch(), source_negatives=True)
    expected = 7 * 0.3 * joint.loss.sum() / joint.counted.sum()
    assert_close(terms["joint"], expected, rtol=1e-9, atol=0.0)
    assert set(terms) == {"agent", "joint", "consistency", "loss"}
    assert_close(terms["loss"], terms["agent"] + terms["joint"] + terms["consistency"])
    for name in ("threshold", "memory.rows", "memory.written", "num_positives"):
        assert torch.equal(method.state_dict()[name], before[name]), name


def test_the_consistency_loss_compares_cameras_with_centers_that_have_just_moved() -> None:
    method = mar(consistency_weight=1.0, center_images=40)
    method.center_mean.fill_(-1.0)
    method.center_std.fill_(0.5)

    terms = terms_of(method, batch(), epoch=0)

    _, target, agents = embeddings(method, batch())
    logs = (4 * target @ agents.T).log_softmax(dim=1)
    cameras = [logs[[0, 1, 4]], logs[[2, 3, 6]]]  # the third has one image
    means = torch.stack([rows.mean(dim=0) for rows in cameras])
    stds = torch.stack([rows.std(dim=0) for rows in cameras])
    center_mean = 0.7 * -1.0 + 0.3 * means.mean(dim=0)  # 12 images of 40
    center_std = 0.7 * 0.5 + 0.3 * stds.mean(dim=0)
    assert_close(method.center_mean, center_mean.detach(), rtol=1e-9, atol=0.0)
    assert_close(method.center_std, center_std.detach(), rtol=1e-9, atol=0.0)
    apart = [((row - center_mean) ** 2).sum() for row in means]
    apart += [((row - center_std) ** 2).sum() for row in stds]
    assert_close(terms["consistency"], torch.stack(apart).mean(), rtol=1e-9, atol=0.0)


def test_centers_move_at_most_the_whole_way() -> None:
    method = mar(center_images=5)

    method.consistency_loss(
        torch.tensor([[-1.0, -2.0, -3.0, -4.0]] * 2, dtype=torch.float64),
        torch.tensor([1, 1]),
        batch_size=12,
    )

    assert method.center_mean.tolist() == [-1.0, -2.0, -3.0, -4.0]


def test_without_two_images_of_a_camera_centers_stay_and_the_loss_is_zero() -> None:
    method = mar()
    method.center_mean.fill_(-1.0)
    log_multilabel = torch.full((3, NUM_AGENTS), -2.0, requires_grad=True)

    loss = method.consistency_loss(log_multilabel, torch.tensor([0, 1, 2]), batch_size=6)
    loss.backward()

    assert loss.item() == 0.0
    assert log_multilabel.grad is not None
    assert not log_multilabel.grad.any()
    assert method.center_mean.tolist() == [-1.0] * NUM_AGENTS


def test_from_the_second_epoch_on_pairs_are_divided_by_remembered_multilabels() -> None:
    method, data = mar(), batch()
    index = data.target.sample_index
    old = torch.rand(NUM_SAMPLES, NUM_AGENTS, dtype=torch.float64).softmax(dim=1)
    method.memory.rows.copy_(old)
    method.memory.written[index[:4]] = True
    method.threshold.fill_(0.8)

    terms = terms_of(method, data, epoch=1)

    _, target, agents = embeddings(method, data)
    seen = (4 * target @ agents.T).softmax(dim=1)
    rows = torch.cat([0.9 * old[index[:4]] + 0.1 * seen[:4], seen[4:]]).detach()
    assert_close(method.memory.rows[index], rows, rtol=1e-9, atol=0.0)
    pairs = [(i, j) for i in range(7) for j in range(i + 1, 7)]
    distance = {(i, j): ((target[i] - target[j]) ** 2).sum() for i, j in pairs}
    agreement = {(i, j): torch.minimum(rows[i], rows[j]).sum() for i, j in pairs}
    similar = sorted(pairs, key=lambda pair: distance[pair].item())[: int(21 * 0.3)]
    near = {True: [], False: []}
    for pair in similar:
        near[bool(agreement[pair] > 0.8)].append((-distance[pair]).exp())
    assert near[True], "the example has positives"
    assert near[False], "the example has hard negatives"
    positive, negative = (torch.stack(near[kind]).mean() for kind in (True, False))
    expected = -(positive / (positive + negative)).log()
    assert_close(terms["discriminative"], expected, rtol=1e-9, atol=0.0)
    at_rank = sorted(agreement.values())[-6]
    assert_close(method.threshold, 0.9 * 0.8 + 0.1 * at_rank, rtol=1e-9, atol=0.0)
    assert method.num_positives.item() == pytest.approx(0.1 * len(near[True]))


def test_a_target_sample_is_first_remembered_as_it_is_seen() -> None:
    method, data = mar(), batch()

    terms_of(method, data, epoch=1)

    _, target, agents = embeddings(method, data)
    seen = (4 * target @ agents.T).softmax(dim=1)
    assert_close(method.memory.read(data.target.sample_index), seen)
    assert method.memory.written.sum() == 7


@pytest.mark.parametrize("official_compat", [False, True])
def test_a_batch_with_too_few_pairs_leaves_the_threshold_alone(official_compat: bool) -> None:
    method = mar(mining_ratio=0.04, official_compat=official_compat)  # 0 of 21 pairs
    method.threshold.fill_(0.75)

    terms = terms_of(method, batch(), epoch=1)

    rows = method.memory.read(batch().target.sample_index)
    least = min(float(torch.minimum(a, b).sum()) for a in rows for b in rows)
    expected = 0.9 * 0.75 + 0.1 * least if official_compat else 0.75
    assert method.threshold.item() == pytest.approx(expected, rel=1e-12)
    assert terms["discriminative"].item() == pytest.approx(0.4054651, abs=1e-7)


def test_identities_of_the_target_change_only_a_logged_rate() -> None:
    outcomes = []
    for person_id in ((0, 1, 0, 2, 1, 2, 2), (9, -1, 77, 9, 9, 9, 9)):
        method = mar()
        method.threshold.fill_(-1.0)  # all similar pairs are positive
        loss = terms_of(method, batch(person_id), epoch=1)["loss"]
        loss.backward()
        gradients = {f"grad {name}": p.grad for name, p in method.named_parameters()}
        outcomes.append({"loss": loss, **gradients, **state_of(method)})

    rates = [outcome.pop("true_positive_rate") for outcome in outcomes]
    assert rates[0] != rates[1]
    for name, value in outcomes[0].items():
        assert torch.equal(value, outcomes[1][name]), name


def test_the_rate_of_true_positives_rests_while_there_are_no_positives() -> None:
    method = mar()
    one, both = torch.tensor([True, False, True]), torch.tensor([True, True, False])

    method.watch(one, both)
    method.watch(~one & ~both, both)

    assert method.true_positive_rate.item() == pytest.approx(0.05)
    assert method.num_positives.item() == pytest.approx(0.9 * 0.2)


def test_source_and_target_pass_the_encoder_one_after_the_other() -> None:
    method = mar()

    terms_of(method, batch(), epoch=0)

    assert method.encoder.passes == [5, 7]


@pytest.mark.parametrize("detach_agents", [True, False])
def test_only_the_agent_loss_moves_the_agents(detach_agents: bool) -> None:
    method = mar(detach_agents=detach_agents)

    terms = terms_of(method, batch(), epoch=1)

    def moved(name: str) -> bool:
        gradients = torch.autograd.grad(
            terms[name], method.agents.weight, retain_graph=True, allow_unused=True
        )
        return gradients[0] is not None and bool(gradients[0].any())

    names = ("agent", "joint", "consistency", "discriminative")
    assert [moved(name) for name in names] == [True, not detach_agents, False, False]


def test_weights_of_zero_leave_the_other_terms_as_they_are() -> None:
    full = terms_of(mar(), batch(), epoch=1)

    without = terms_of(mar(consistency_weight=0.0, reference_weight=0.0), batch(), epoch=1)

    assert [without[name].item() for name in ("agent", "joint", "consistency")] == [0.0, 0.0, 0.0]
    assert torch.equal(without["loss"], full["discriminative"])


def test_source_images_are_not_pushed_if_they_shall_not() -> None:
    method = mar(source_negatives=False, reference_weight=1.0, joint_weight=1.0)

    terms = terms_of(method, batch(), epoch=0)

    joint = joint_terms(method, batch(), source_negatives=False)
    assert_close(terms["joint"], joint.loss.sum() / joint.counted.sum(), rtol=1e-9, atol=0.0)


def test_mining_can_be_guided_by_features_alone() -> None:
    method = mar(mining=partial(nearest_pairs, positive_share=0.5))

    terms = terms_of(method, batch(), epoch=1)

    _, target, _ = embeddings(method, batch())
    distances = torch.pdist(target).square().sort().values[:6]
    near = (-distances).exp()
    expected = -(near[:3].mean() / (near[:3].mean() + near[3:].mean())).log()
    assert_close(terms["discriminative"], expected, rtol=1e-9, atol=0.0)


def test_the_sweep_sets_centers_and_threshold_once() -> None:
    method = mar()
    target = images([0] * 11, [0, 0, 1, 1, 0, 2, 1, 0, 1, 2, 0], list(range(11)), seed=3)
    assert [method.wants_sweep(epoch) for epoch in (0, 1)] == [True, True]

    with torch.no_grad():
        table = method.sweep_step(target)
    method.on_sweep_end(table)

    embedding = norm_scale(method.encoder(target.image).pooled)
    logs = (4 * embedding @ norm_scale(method.agents.weight).T).log_softmax(dim=1).detach()
    assert_close(table["log_multilabel"], logs, rtol=1e-9, atol=0.0)
    groups = [logs[target.camera_id == camera] for camera in range(3)]
    mean = torch.stack([rows.mean(dim=0) for rows in groups]).mean(dim=0)
    std = torch.stack([rows.std(dim=0) for rows in groups]).mean(dim=0)
    assert_close(method.center_mean, mean, rtol=1e-9, atol=0.0)
    assert_close(method.center_std, std, rtol=1e-9, atol=0.0)
    rows = logs.exp()
    agreements = [torch.minimum(rows[i], rows[j]).sum() for i in range(11) for j in range(i)]
    assert_close(method.threshold, sorted(agreements)[-int(55 * 0.3)], rtol=1e-9, atol=0.0)
    assert [method.wants_sweep(epoch) for epoch in (0, 1)] == [False, False]
    assert not method.memory.written.any()


def test_a_resumed_run_does_not_sweep_again() -> None:
    method, restored = mar(), mar()
    method.initialised.fill_(True)
    terms_of(method, batch(), epoch=1)

    restored.load_state_dict(method.state_dict())

    assert not restored.wants_sweep(0)
    for name, value in method.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value), name


def test_an_image_is_embedded_by_its_pooled_feature_at_length_one() -> None:
    method, data = mar(), batch()

    embedding = method.embed(data.target)["global"]

    assert_close(embedding, norm_scale(method.encoder(data.target.image).pooled))
    assert_close(embedding.norm(dim=1), torch.ones(7, dtype=torch.float64), rtol=0.0, atol=1e-6)


def test_data_without_a_source_are_refused() -> None:
    with pytest.raises(ValueError, match="labelled source"):
        MAR(ToyEncoder(), DataSpec(4, 4, 2), lambda module: None)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 5])
def test_a_mining_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"method\.mining_ratio"):
        mar(mining_ratio=ratio)
