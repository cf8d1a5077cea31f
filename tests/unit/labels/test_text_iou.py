import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from crosswalk.labels.text_iou import text_iou


def random_phrases(num_captions: int, longest: int, num_units: int, seed: int) -> Tensor:
    """Return sets of units, zero padded; every third is empty."""
    generator = torch.Generator().manual_seed(seed)
    phrases = torch.zeros(num_captions, longest, dtype=torch.int64)
    for caption in range(num_captions):
        most = 0 if caption % 3 == 2 else min(longest, num_units)
        count = int(torch.randint(0, most + 1, (1,), generator=generator))
        phrases[caption, :count] = 1 + torch.randperm(num_units, generator=generator)[:count]
    return phrases


def looped_iou(phrases: Tensor) -> Tensor:
    sets = [{unit for unit in row if unit} for row in phrases.tolist()]
    return torch.tensor(
        [
            [1.0 if i == j else len(a & b) / max(1, len(a | b)) for j, b in enumerate(sets)]
            for i, a in enumerate(sets)
        ]
    ).reshape(len(sets), len(sets))


@pytest.mark.parametrize("num_captions", [0, 1, 2, 7, 33])
@pytest.mark.parametrize(("longest", "num_units"), [(0, 5), (1, 1), (6, 9), (19, 300)])
def test_text_iou_is_that_of_sets(num_captions: int, longest: int, num_units: int) -> None:
    phrases = random_phrases(num_captions, longest, num_units, seed=num_captions)

    assert_close(text_iou(phrases), looped_iou(phrases), rtol=1e-6, atol=0)


def test_empty_captions_have_nothing_in_common_but_are_one_with_themselves() -> None:
    assert text_iou(torch.zeros(3, 4, dtype=torch.int64)).tolist() == torch.eye(3).tolist()


def test_a_repeated_unit_counts_once_and_padding_may_be_anywhere() -> None:
    iou = text_iou(torch.tensor([[5, 5, 0, 7], [0, 7, 9, 0]]))

    assert_close(iou, torch.tensor([[1, 1 / 3], [1 / 3, 1]]))


def test_numbers_of_units_may_be_large() -> None:
    big = 2**40

    assert text_iou(torch.tensor([[big, big + 1], [big + 1, 3]]))[0, 1] == pytest.approx(1 / 3)


def test_counts_above_256_are_exact_under_autocast() -> None:
    phrases = torch.stack([torch.arange(1, 515), torch.arange(1, 515) + 255])

    with torch.autocast("cpu", torch.bfloat16):
        iou = text_iou(phrases)

    assert iou[0, 1].item() == pytest.approx(259 / 769)
    assert iou.dtype == torch.float32


def test_the_product_has_a_column_for_each_unit_of_the_batch_and_not_for_each_place() -> None:
    phrases = random_phrases(33, 19, 25, seed=0)

    with FlopCounterMode(display=False) as counter:
        text_iou(phrases)

    assert counter.get_total_flops() == 2 * 33 * 33 * len(phrases.unique())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_text_iou_is_the_same_on_a_gpu() -> None:
    phrases = random_phrases(33, 19, 300, seed=0)

    assert_close(text_iou(phrases, "cuda").cpu(), text_iou(phrases))
