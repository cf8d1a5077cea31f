from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from crosswalk.data.text.noun_phrases import NounPhrases
from crosswalk.labels.text_iou import text_iou

# zeros are padding, anywhere; units repeat
phrases_of_captions = st.integers(0, 7).flatmap(
    lambda longest: st.lists(
        st.lists(st.integers(0, 9), min_size=longest, max_size=longest), min_size=1, max_size=12
    )
)
captions = st.lists(
    st.text("aehrst '-/.,") | st.sampled_from(["a red coat", "THE MAN'S T-SHIRT", "blue jeans"]),
    min_size=1,
    max_size=6,
)


def tensor(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), -1)


@given(phrases_of_captions)
def test_text_iou_is_symmetric_in_the_unit_interval_and_one_on_its_diagonal(
    rows: list[list[int]],
) -> None:
    iou = text_iou(tensor(rows))

    assert torch.equal(iou, iou.T)
    assert torch.equal(iou.diagonal(), torch.ones(len(rows)))
    assert iou.min() >= 0
    assert iou.max() <= 1


@given(phrases_of_captions, st.randoms(use_true_random=False))
def test_text_iou_depends_on_no_order(rows: list[list[int]], random: Random) -> None:
    phrases = tensor(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    moved = [random.sample(rows[place], len(rows[place])) for place in order]

    assert torch.equal(text_iou(tensor(moved)), text_iou(phrases)[order][:, order])


@given(phrases_of_captions, st.integers(1, 1000))
def test_text_iou_depends_on_no_numbering(rows: list[list[int]], offset: int) -> None:
    phrases = tensor(rows)
    renumbered = torch.where(phrases > 0, offset + 7 * phrases, 0)

    assert torch.equal(text_iou(renumbered), text_iou(phrases))


@given(phrases_of_captions, st.integers(0, 5))
def test_more_padding_changes_nothing(rows: list[list[int]], extra: int) -> None:
    phrases = tensor(rows)

    padded = torch.cat([phrases, phrases.new_zeros(len(rows), extra)], dim=1)

    assert torch.equal(text_iou(padded), text_iou(phrases))


@given(phrases_of_captions)
def test_one_minus_text_iou_is_a_distance(rows: list[list[int]]) -> None:
    distance = 1 - text_iou(tensor(rows)).double()

    # the triangle inequality holds for sets; captions without phrases are at distance 1
    by_way = (distance[:, :, None] + distance[None, :, :]).amin(dim=1)
    assert bool((distance <= by_way + 1e-6).all())


@given(captions)
def test_units_of_captions_compare_as_their_sets_do(texts: list[str]) -> None:
    phrases = NounPhrases()
    phrases.learn(texts)
    sets = [set(units) for units in phrases.units(texts)]

    iou = text_iou(phrases(texts))

    expected = [
        [1.0 if i == j else len(a & b) / max(1, len(a | b)) for j, b in enumerate(sets)]
        for i, a in enumerate(sets)
    ]
    assert_close(iou, torch.tensor(expected))
