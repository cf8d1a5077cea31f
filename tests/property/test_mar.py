"""What MAR's agreement, mining and losses keep to on any batch."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.labels.soft_multilabel import (
    agreeing_pairs,
    initial_threshold,
    mine_pairs,
    num_mined_pairs,
    num_pairs,
    pair_agreements,
    pair_members,
)
from crosswalk.losses.reference_agents import joint_embedding_loss
from crosswalk.losses.soft_multilabel import (
    camera_statistics,
    consistency_loss,
    discriminative_loss,
)


@st.composite
def multilabels(draw: st.DrawFn, least: int = 2) -> Tensor:
    """Rows that sum to 1, some of them alike."""
    number, agents = draw(st.integers(least, 9)), draw(st.integers(1, 6))
    row = st.lists(st.floats(-3, 3, width=32), min_size=agents, max_size=agents)
    rows = torch.tensor(draw(st.lists(row, min_size=number, max_size=number)))
    return rows.double().softmax(dim=1)


@st.composite
def unit_rows(draw: st.DrawFn, number: int, size: int) -> Tensor:
    row = st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size)
    rows = torch.tensor(draw(st.lists(row, min_size=number, max_size=number)))
    return normalize(rows.double())


@settings(max_examples=60, deadline=None)
@given(multilabel=multilabels())
def test_agreements_lie_between_none_and_full(multilabel: Tensor) -> None:
    agreement = pair_agreements(multilabel)

    assert bool((agreement > -1e-12).all())
    assert bool((agreement <= 1).all())
    full = pair_agreements(torch.cat([multilabel[:1], multilabel[:1]]))
    assert_close(full, torch.ones(1, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(multilabel=multilabels(), ratio=st.floats(0.01, 0.99), tile=st.integers(1, 12))
def test_as_many_pairs_reach_the_initial_threshold_as_were_asked_for(
    multilabel: Tensor, ratio: float, tile: int
) -> None:
    threshold = initial_threshold(multilabel, mining_ratio=ratio, official_compat=False, tile=tile)

    agreement = pair_agreements(multilabel)
    rank = max(1, num_mined_pairs(len(multilabel), mining_ratio=ratio))
    assert int((agreement >= threshold).sum()) >= rank
    assert int((agreement > threshold).sum()) < rank


@settings(max_examples=60, deadline=None)
@given(data=st.data(), number=st.integers(2, 9), ratio=st.floats(0.01, 0.99))
def test_mined_pairs_are_nearer_than_those_left_out(
    data: st.DataObject, number: int, ratio: float
) -> None:
    embedding = data.draw(unit_rows(number, 3))
    agreement = torch.zeros(num_pairs(number), dtype=torch.float64)

    first, second, positive = mine_pairs(
        embedding, agreement, torch.tensor(0.0), mining_ratio=ratio, mining=agreeing_pairs
    )

    assert len(first) == num_mined_pairs(number, mining_ratio=ratio)
    assert bool((first < second).all())
    assert not positive.any()
    distance = torch.cdist(embedding, embedding)
    mined = distance[first, second]
    assert bool((mined.diff() >= -1e-12).all())
    every = distance[pair_members(number, torch.arange(num_pairs(number)))]
    assert_close(mined, every.sort().values[: len(mined)], rtol=1e-9, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.floats(0, 4), st.booleans()), max_size=12),
    random=st.randoms(use_true_random=False),
)
def test_the_discriminative_loss_falls_with_positives_and_ignores_the_order(
    pairs: list[tuple[float, bool]], random: object
) -> None:
    distance = torch.tensor([d for d, _ in pairs], dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([kind for _, kind in pairs], dtype=torch.bool)
    order = list(range(len(pairs)))
    random.shuffle(order)

    loss = discriminative_loss(distance, positive)
    loss.backward()

    assert loss.item() > 0
    assert distance.grad is not None
    assert bool((distance.grad[positive] >= 0).all())
    assert bool((distance.grad[~positive] <= 0).all())
    assert_close(discriminative_loss(distance[order], positive[order]), loss)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_source=st.integers(1, 5), num_target=st.integers(1, 5))
def test_joint_terms_of_permuted_images_are_the_permuted_terms(
    data: st.DataObject, num_source: int, num_target: int
) -> None:
    source, target = data.draw(unit_rows(num_source, 3)), data.draw(unit_rows(num_target, 3))
    agents = data.draw(unit_rows(4, 3))
    # in another order of sums an agent at the limit may or may not be hard
    at_limit = (torch.cat([source, target]) @ agents.T - 0.5).abs() < 1e-6
    assume(not at_limit.any())
    persons = st.lists(st.integers(0, 3), min_size=num_source, max_size=num_source)
    person_id = torch.tensor(data.draw(persons))
    one, other = (
        torch.tensor(data.draw(st.permutations(range(size)))) for size in (num_source, num_target)
    )
    place = torch.cat([one, num_source + one, 2 * num_source + other])

    terms, permuted = (
        joint_embedding_loss(
            *images,
            agents,
            own,
            source_similarity=images[0] @ agents.T,
            target_similarity=images[1] @ agents.T,
            margin=1.0,
            source_negatives=True,
        )
        for images, own in (
            ((source, target), person_id),
            ((source[one], target[other]), person_id[one]),
        )
    )

    assert torch.equal(permuted.counted, terms.counted[place])
    assert_close(permuted.loss, terms.loss[place], rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(multilabel=multilabels(), data=st.data())
def test_the_consistency_loss_is_finite_with_its_gradient_and_zero_at_its_own_centers(
    multilabel: Tensor, data: st.DataObject
) -> None:
    number = len(multilabel)
    camera = st.lists(st.integers(0, 3), min_size=number, max_size=number)
    values = multilabel.log().float().requires_grad_()
    statistics = camera_statistics(values, torch.tensor(data.draw(camera)))

    terms = consistency_loss(
        statistics, values.detach().mean(dim=0), values.detach()[0], use_std=True
    )
    terms.sum().backward()

    assert bool(terms.isfinite().all())
    assert values.grad is not None
    assert bool(values.grad.isfinite().all())
    alone = camera_statistics(values.detach(), torch.zeros(number, dtype=torch.int64))
    own = consistency_loss(alone, alone.mean[0], alone.std[0], use_std=True)
    assert own.tolist() == [0.0, 0.0]
