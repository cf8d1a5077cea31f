from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.encoders.momentum import MomentumEncoder
from crosswalk.losses.alignment import alignment_loss
from crosswalk.losses.queue_contrast import queue_contrast_loss
from crosswalk.memory.feature_queue import FeatureQueue

PUBLISHED_ALIGNMENT = partial(alignment_loss, alpha=0.6, beta=0.4, scale_pos=10.0, scale_neg=40.0)


def alignment(image: Tensor, text: Tensor, person_id: Tensor) -> Tensor:
    similarity = normalize(image) @ normalize(text).T
    return PUBLISHED_ALIGNMENT(similarity, person_id[:, None] == person_id)


def contrast(image: Tensor, text: Tensor, person_id: Tensor) -> Tensor:
    torch.manual_seed(0)
    queue = FeatureQueue(6, image.shape[1]).double()
    earlier = torch.arange(4.0 * image.shape[1]).cos().view(4, -1)
    queue.enqueue(normalize(earlier), normalize(-earlier), torch.tensor([0, 1, 2, 1]))
    return queue_contrast_loss(
        normalize(image),
        normalize(text),
        queue.text,
        queue.negatives_of(person_id),
        temperature=0.07,
    )


LOSSES = {"alignment": alignment, "contrast": contrast}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """1 to 12 pairs of up to 5 persons."""
    num_pairs, size = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    image, text = torch.randn(2, num_pairs, size, generator=generator, dtype=torch.float64)
    return image, text, torch.randint(0, 5, (num_pairs,), generator=generator)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    batch_sizes=st.lists(st.integers(0, 20), max_size=8),
)
def test_a_queue_holds_the_last_keys_whatever_the_batches(
    size: int, batch_sizes: list[int]
) -> None:
    queue = FeatureQueue(size, 2)
    keys = torch.arange(sum(batch_sizes))
    image = torch.stack([keys, -keys], dim=1).float()

    for persons, rows in zip(keys.split(batch_sizes), image.split(batch_sizes), strict=True):
        queue.enqueue(rows, rows + 0.5, persons)

    num_seen = len(keys)
    newest_first = (int(queue.pointer) - 1 - torch.arange(size)) % size
    expected = [num_seen - 1 - age if age < num_seen else -1 for age in range(size)]
    assert queue.person_id[newest_first].tolist() == expected
    filled = queue.person_id >= 0
    assert_close(queue.image[filled], image[queue.person_id[filled]])
    assert_close(queue.text[filled], image[queue.person_id[filled]] + 0.5)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 9),
    num_keys=st.integers(0, 25),
    cuts=st.lists(st.integers(0, 25), max_size=5),
)
def test_how_keys_are_cut_into_batches_leaves_no_trace(
    size: int, num_keys: int, cuts: list[int]
) -> None:
    generator = torch.Generator().manual_seed(num_keys)
    image, text = torch.randn(2, num_keys, 3, generator=generator)
    person_id = torch.randint(0, 5, (num_keys,), generator=generator)
    torch.manual_seed(0)
    whole, parts = FeatureQueue(size, 3), FeatureQueue(size, 3)
    parts.load_state_dict(whole.state_dict())

    whole.enqueue(image, text, person_id)
    ends = sorted(min(cut, num_keys) for cut in cuts)
    for start, end in zip([0, *ends], [*ends, num_keys], strict=True):
        parts.enqueue(image[start:end], text[start:end], person_id[start:end])

    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=40, deadline=None)
@given(batch=pairs(), seed=st.integers(0, 10_000))
def test_losses_of_a_permuted_batch_are_the_permuted_losses(
    loss: Callable[..., Tensor], batch: tuple[Tensor, Tensor, Tensor], seed: int
) -> None:
    order = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(seed))

    permuted = loss(*(column[order] for column in batch))

    assert_close(permuted, loss(*batch)[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(max_examples=40, deadline=None)
@given(batch=pairs())
def test_losses_are_finite_and_not_negative(
    loss: Callable[..., Tensor], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    losses = loss(*batch)

    assert losses.shape == (len(batch[0]),)
    assert bool(losses.isfinite().all())
    assert bool((losses >= 0).all())


@settings(max_examples=40, deadline=None)
@given(batch=pairs(), shift=st.floats(0.01, 0.5))
def test_moving_a_positive_pair_nearer_never_raises_the_alignment_loss(
    batch: tuple[Tensor, Tensor, Tensor], shift: float
) -> None:
    image, text, person_id = batch
    similarity, positive = normalize(image) @ normalize(text).T, person_id[:, None] == person_id

    before = PUBLISHED_ALIGNMENT(similarity, positive)
    nearer = PUBLISHED_ALIGNMENT(similarity + shift * positive, positive)

    assert bool((nearer < before).all())


@settings(max_examples=40, deadline=None)
@given(momentum=st.floats(0, 1), seed=st.integers(0, 10_000))
def test_the_momentum_encoder_stays_between_itself_and_the_encoder(
    momentum: float, seed: int
) -> None:
    torch.manual_seed(seed)
    online, slow = nn.Linear(5, 3).double(), MomentumEncoder(nn.Linear(5, 3).double())
    before = slow.module.weight.clone()

    slow.update_from(online, momentum=momentum)

    after, theirs = slow.module.weight, online.weight
    assert bool((after >= torch.minimum(before, theirs) - 1e-12).all())
    assert bool((after <= torch.maximum(before, theirs) + 1e-12).all())
    assert_close(after, momentum * before + (1 - momentum) * theirs)
