from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.labels.positive_labels import (
    cycle_consistent_rows,
    nearest_rows,
    own_row,
    similar_rows,
    strictly_cycle_consistent_rows,
)
from crosswalk.losses.multilabel import (
    memory_cross_entropy,
    mmcl_loss,
    multilabel_classification_loss,
)
from crosswalk.memory.memory_bank import MemoryBank

PREDICTORS = {
    "own": own_row,
    "nearest": partial(nearest_rows, count=3),
    "similar": partial(similar_rows, threshold=0.5),
    "consistent": partial(cycle_consistent_rows, threshold=0.5),
    "strictly consistent": partial(strictly_cycle_consistent_rows, threshold=0.5),
}
LOSSES = {
    "mmcl": partial(mmcl_loss, delta=5.0, ratio=0.3),
    "mcl": partial(multilabel_classification_loss, temperature=0.2, class_reduction="balanced"),
    "cross-entropy": partial(memory_cross_entropy, temperature=0.05),
}
pytestmark = pytest.mark.filterwarnings("ignore:method.loss.ratio")


@st.composite
def banks(draw: st.DrawFn) -> Tensor:
    """Up to 40 unit rows around up to 5 centres, some of them never seen, none alike."""
    num_rows, num_people = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    person = torch.randint(0, num_people, (num_rows,), generator=generator)
    centres = torch.randn(num_people, 4, generator=generator, dtype=torch.float64)
    spread = draw(st.sampled_from([0.2, 0.5, 1.0]))
    noise = torch.randn(num_rows, 4, generator=generator, dtype=torch.float64)
    rows = normalize(centres[person] + spread * noise)
    if draw(st.booleans()):
        rows[torch.rand(num_rows, generator=generator) < 0.2] = 0.0
    return rows


@pytest.mark.parametrize("predict", PREDICTORS.values(), ids=PREDICTORS)
@settings(max_examples=40, deadline=None)
@given(rows=banks())
def test_a_sample_is_positive_to_itself(predict: Callable[..., Tensor], rows: Tensor) -> None:
    labels = predict(rows, torch.arange(len(rows)))

    assert labels.dtype == torch.bool
    assert bool(labels.diagonal().all())


@pytest.mark.parametrize("name", ["own", "similar", "consistent", "strictly consistent"])
@settings(max_examples=40, deadline=None)
@given(rows=banks(), seed=st.integers(0, 10_000))
def test_labels_of_a_permuted_bank_are_the_permuted_labels(
    name: str, rows: Tensor, seed: int
) -> None:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    everyone = torch.arange(len(rows))

    permuted = PREDICTORS[name](rows[order], everyone)

    assert torch.equal(permuted, PREDICTORS[name](rows, everyone)[order][:, order])


@pytest.mark.parametrize("predict", PREDICTORS.values(), ids=PREDICTORS)
@settings(max_examples=40, deadline=None)
@given(rows=banks(), picks=st.lists(st.integers(0, 39), min_size=1, max_size=9))
def test_labels_of_a_sample_do_not_depend_on_the_rest_of_its_batch(
    predict: Callable[..., Tensor], rows: Tensor, picks: list[int]
) -> None:
    index = torch.tensor(picks) % len(rows)

    labels = predict(rows, index)

    assert torch.equal(labels, predict(rows, torch.arange(len(rows)))[index])


@settings(max_examples=40, deadline=None)
@given(rows=banks())
def test_consistent_rows_are_similar_and_strictly_consistent_ones_are_consistent(
    rows: Tensor,
) -> None:
    everyone = torch.arange(len(rows))
    similar, consistent, strict = (
        PREDICTORS[name](rows, everyone)
        for name in ("similar", "consistent", "strictly consistent")
    )

    assert not bool((consistent & ~similar).any())
    assert not bool((strict & ~consistent).any())


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=40, deadline=None)
@given(rows=banks(), seed=st.integers(0, 10_000))
def test_losses_of_a_permuted_batch_are_the_permuted_losses(
    loss: Callable[..., Tensor], rows: Tensor, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_samples, num_rows = 7, len(rows)
    logits = torch.rand(num_samples, num_rows, generator=generator).double() * 2 - 1
    labels = torch.rand(num_samples, num_rows, generator=generator) < 0.3
    labels[:, 0] = True
    samples = torch.randperm(num_samples, generator=generator)
    classes = torch.randperm(num_rows, generator=generator)

    permuted = loss(logits[samples][:, classes], labels[samples][:, classes])

    assert_close(permuted, loss(logits, labels)[samples], rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows=banks(), momentum=st.floats(0, 1), seed=st.integers(0, 10_000))
def test_rows_written_with_unit_vectors_are_unit_vectors_in_any_order(
    rows: Tensor, momentum: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(rows), generator=generator)[: (len(rows) + 1) // 2]
    embedding = normalize(torch.randn(len(index), 4, generator=generator).double())
    order = torch.randperm(len(index), generator=generator)
    one, other = (MemoryBank(len(rows), 4).double() for _ in range(2))
    one.rows.copy_(rows)
    other.rows.copy_(rows)

    one.update(embedding, index, momentum=momentum)
    other.update(embedding[order], index[order], momentum=momentum)

    assert torch.equal(one.rows, other.rows)
    length = one.rows[index].norm(dim=1)
    assert bool(((length - 1).abs() < 1e-9).logical_or(length == 0).all())
