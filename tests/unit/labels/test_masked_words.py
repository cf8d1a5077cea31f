import pytest
import torch
from torch import Tensor

from crosswalk.draws import sample_key
from crosswalk.labels.masked_words import WordMasking, mask_words

MASK, START, END = 90, 98, 99


def captions(*words: list[int], length: int = 9) -> Tensor:
    tokens = torch.zeros(len(words), length, dtype=torch.int64)
    for row, each in zip(tokens, words, strict=True):
        row[: len(each) + 2] = torch.tensor([START, *each, END])
    return tokens


def by_hand(
    tokens: list[int], draws: list[float], replacements: list[int]
) -> tuple[list[int], list[int]]:
    """Mask one caption, place by place, as the specification words it."""
    masked, label, drawn, taken = list(tokens), [0] * len(tokens), 0, 0
    for place, number in enumerate(tokens):
        if not 0 < number < MASK:
            continue
        share = draws[drawn] / 0.15
        drawn += 1
        if share >= 1:
            continue
        label[place] = number
        if share < 0.8:
            masked[place] = MASK
        elif share < 0.9:
            masked[place] = replacements[taken]
            taken += 1
    if not any(label):
        label[1], masked[1] = tokens[1], MASK
    return masked, label


@pytest.mark.parametrize("seed", range(7))
def test_words_are_masked_replaced_and_kept_as_drawn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = captions([5, 0, 7, MASK, 3], [1], [], [8, 9, 4, 2, 6, 7, 5])
    draws = 0.25 * torch.rand(4, 7, generator=generator, dtype=torch.float64)
    replacements = torch.randint(1, MASK, (4, 7), generator=generator)

    masked, label = mask_words(tokens, draws, replacements, mask_id=MASK)

    for row in range(4):
        expected = by_hand(tokens[row].tolist(), draws[row].tolist(), replacements[row].tolist())
        assert (masked[row].tolist(), label[row].tolist()) == expected


def test_a_caption_of_which_nothing_is_chosen_loses_its_first_word_and_an_empty_one_its_end() -> (
    None
):
    tokens = captions([5, 6], [])
    nothing = torch.ones(2, 3, dtype=torch.float64)

    masked, label = mask_words(tokens, nothing, tokens, mask_id=MASK)

    assert masked[:, :3].tolist() == [[START, MASK, 6], [START, MASK, 0]]
    assert label.sum(dim=1).tolist() == [5, END]
    assert tokens[0, 1] == 5  # the caption itself stays


def test_what_is_masked_depends_on_seed_epoch_and_sample_alone() -> None:
    masking = WordMasking()
    tokens = torch.randint(1, 49405, (7, 20), generator=torch.Generator().manual_seed(1))
    index = torch.arange(7)
    found = masking(tokens, sample_key(3, 2, 0, index))

    rows = torch.tensor([4, 1])
    again = masking(tokens[rows], sample_key(3, 2, 0, index[rows]))

    assert torch.equal(again.masked, found.masked[rows])
    assert torch.equal(again.label, found.label[rows])
    for seed, epoch, pass_ in ((4, 2, 0), (3, 1, 0), (3, 2, 1)):
        other = masking(tokens, sample_key(seed, epoch, pass_, index))
        assert not torch.equal(other.label, found.label)


def test_shares_are_those_of_the_settings() -> None:
    masking = WordMasking(probability=0.5, mask_share=0.5, replace_share=0.25)
    tokens = torch.full((400, 50), 7)

    captions = masking(tokens, torch.arange(400))

    chosen = captions.label != 0
    masked = captions.masked == masking.mask_id
    replaced = chosen & ~masked & (captions.masked != 7)
    share = [each.double().mean().item() for each in (chosen, masked, replaced)]
    assert share == pytest.approx([0.5, 0.25, 0.125], abs=0.012)  # about three deviations
    assert captions.masked.min() >= 1


@pytest.mark.parametrize("shown", ["shared", "separate"])
def test_the_other_losses_see_masked_or_whole_captions(shown: str) -> None:
    tokens = torch.tensor([[49406, 320, 786, 49407]])

    captions = WordMasking(captions=shown)(tokens, torch.tensor([5]))  # type: ignore[arg-type]

    assert captions.tokens is (captions.masked if shown == "shared" else tokens)
    assert tokens.tolist() == [[49406, 320, 786, 49407]]


def test_captions_without_keys_stay_whole() -> None:
    tokens = torch.tensor([[49406, 320, 786, 49407]])

    captions = WordMasking()(tokens, None)

    assert captions.tokens is captions.masked is tokens
    assert not captions.label.any()


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask_share=0.8 and .*replace_share=0.3"):
        WordMasking(replace_share=0.3)
