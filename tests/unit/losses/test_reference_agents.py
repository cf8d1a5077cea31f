import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.losses.reference_agents import (
    JointTerms,
    agent_loss,
    hard_agents,
    joint_embedding_loss,
)


def unit_rows(number: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(number, size, generator=generator, dtype=torch.float64))


def joint_terms(
    source: Tensor, target: Tensor, agents: Tensor, person_id: Tensor, **options: float
) -> JointTerms:
    return joint_embedding_loss(
        source,
        target,
        agents,
        person_id,
        source_similarity=source @ agents.T,
        target_similarity=target @ agents.T,
        **options,
    )


def hand_example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[0.8, 0.6]], dtype=torch.float64)
    agents = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    return source, target, agents, torch.tensor([0])


def listed_terms(
    source: Tensor,
    target: Tensor,
    agents: Tensor,
    person_id: Tensor,
    margin: float,
    source_negatives: bool = True,
) -> list[Tensor]:
    """The loss as the list of its terms, by loops over images and agents."""

    def distance(image: Tensor, agent: Tensor) -> Tensor:
        return ((image - agent) ** 2).sum()

    terms = [distance(image, agents[own]) for image, own in zip(source, person_id, strict=True)]
    strangers = [(image, None) for image in target]
    if source_negatives:
        strangers += list(zip(source, person_id.tolist(), strict=True))
    for image, own in strangers:
        pushes = [
            torch.clamp(margin - distance(image, agent), min=0)
            for number, agent in enumerate(agents)
            if number != own and float(image.detach() @ agent.detach()) > 1 - margin / 2
        ]
        if pushes:
            terms.append(torch.stack(pushes).mean())
    return terms


def test_the_agent_loss_is_minus_the_logarithm_of_the_own_agents_share() -> None:
    similarity = torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.3, 0.9]], dtype=torch.float64)

    losses = agent_loss(similarity, torch.tensor([0, 1]), scale=7.0)

    for loss, row, own in zip(losses.tolist(), similarity.tolist(), (0, 1), strict=True):
        share = math.exp(7 * row[own]) / sum(math.exp(7 * other) for other in row)
        assert loss == pytest.approx(-math.log(share), rel=1e-12)


def test_an_agent_at_the_limit_is_not_hard() -> None:
    hard = hard_agents(torch.tensor([[0.25, 0.75, 0.75 + 1e-6]]), margin=0.5)

    assert hard.tolist() == [[False, False, True]]


def test_the_hand_example_has_three_terms() -> None:
    terms = joint_terms(*hand_example(), margin=1.0, source_negatives=True)

    assert terms.loss.tolist() == pytest.approx([0.0, 0.2, (0.6 + 0.92 + 0.2) / 3], abs=1e-12)
    assert terms.counted.tolist() == [True, True, True]
    mean = terms.loss.sum() / terms.counted.sum()
    assert mean.item() == pytest.approx(0.257778, abs=1e-6)


def test_without_source_negatives_source_images_are_only_pulled() -> None:
    terms = joint_terms(*hand_example(), margin=1.0, source_negatives=False)

    assert terms.loss.tolist() == pytest.approx([0.0, (0.6 + 0.92 + 0.2) / 3], abs=1e-12)


@pytest.mark.parametrize("source_negatives", [True, False])
@pytest.mark.parametrize(
    ("num_source", "num_target", "num_agents", "size", "margin"),
    [(1, 1, 1, 3, 1.0), (3, 5, 4, 2, 1.0), (7, 3, 6, 5, 1.7), (4, 4, 5, 40, 0.2)],
)
def test_values_and_gradients_match_explicit_loops(
    num_source: int,
    num_target: int,
    num_agents: int,
    size: int,
    margin: float,
    source_negatives: bool,
) -> None:
    leaves = [
        unit_rows(number, size, seed=number + place).requires_grad_()
        for place, number in enumerate((num_source, num_target, num_agents))
    ]
    person_id = torch.arange(num_source) % num_agents

    terms = joint_terms(*leaves, person_id, margin=margin, source_negatives=source_negatives)
    mean = terms.loss.sum() / terms.counted.sum()
    listed = listed_terms(*leaves, person_id, margin, source_negatives)
    expected = torch.stack(listed).mean()

    assert int(terms.counted.sum()) == len(listed)
    torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-14)
    expected = expected + 0 * leaves[1].sum()  # where no target image is pushed
    for ours, wanted in zip(
        torch.autograd.grad(mean, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-13)


def test_where_no_agent_is_near_only_pulls_count() -> None:
    source, target, *agents = torch.eye(4, dtype=torch.float64)[:, None]

    terms = joint_terms(
        source, target, torch.cat(agents), torch.tensor([1]), margin=0.5, source_negatives=True
    )

    assert terms.counted.tolist() == [True, False, False]
    assert terms.loss.tolist() == [2.0, 0.0, 0.0]


def test_detached_agents_stay_where_they_are() -> None:
    source, target, agents, person_id = hand_example()
    source.requires_grad_(), agents.requires_grad_()

    terms = joint_terms(
        source, target, agents.detach(), person_id, margin=1.0, source_negatives=True
    )
    terms.loss.sum().backward()

    assert agents.grad is None
    assert source.grad is not None


def test_a_zero_feature_has_a_finite_loss_and_gradient() -> None:
    source, target, agents, person_id = hand_example()
    target = torch.zeros_like(target, requires_grad=True)

    terms = joint_terms(source, target, agents, person_id, margin=3.0, source_negatives=True)
    terms.loss.sum().backward()

    # every agent is hard (0 > 1 - 3/2) at squared distance 1
    assert terms.loss[-1].item() == pytest.approx(2.0)
    expected = 2 * agents.mean(dim=0)
    torch.testing.assert_close(target.grad, expected[None])
