import math

import pytest
import torch
from torch.testing import assert_close

from crosswalk.encoders.token_selection import (
    TokenMlp,
    TokenSelection,
    average_pool,
    best_positions,
    image_token_scores,
    max_pool,
    num_pooled,
    num_selected,
    text_token_scores,
    top10_pool,
)


@pytest.mark.parametrize(
    ("num_tokens", "ratio", "count"), [(192, 0.3, 57), (75, 0.3, 22), (48, 1.0, 48), (10, 0.1, 1)]
)
def test_the_ratio_is_rounded_down(num_tokens: int, ratio: float, count: int) -> None:
    assert num_selected(num_tokens, ratio) == count


@pytest.mark.parametrize("ratio", [0.0, 0.05, 1.2])
def test_a_ratio_that_selects_nothing_or_too_much_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="select_ratio"):
        num_selected(10, ratio)


def test_an_image_selects_the_patches_its_class_token_attends_to() -> None:
    attention = torch.tensor([[0.9, 0.01, 0.04, 0.05], [0.1, 0.6, 0.1, 0.2]])

    position = best_positions(image_token_scores(attention), 2)

    assert position.tolist() == [[3, 2], [1, 3]]


def test_a_caption_selects_words_then_padding_from_the_left_then_start_and_end() -> None:
    tokens = torch.tensor([[98, 4, 7, 99, 0, 0, 0]])
    attention = torch.tensor([[0.4, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0]])

    position = best_positions(text_token_scores(attention, tokens), 7)

    assert position.tolist() == [[2, 1, 4, 5, 6, 0, 3]]
    assert num_pooled(tokens, 5).tolist() == [2]


def test_an_exclamation_piece_counts_as_padding_like_in_the_published_code() -> None:
    tokens = torch.tensor([[98, 4, 0, 7, 99, 0]])
    attention = torch.tensor([[0.2, 0.1, 0.5, 0.1, 0.1, 0.0]])

    assert best_positions(text_token_scores(attention, tokens), 2).tolist() == [[1, 3]]
    assert num_pooled(tokens, 4).tolist() == [2]


def test_only_the_first_of_two_end_tokens_is_left_out() -> None:
    tokens = torch.tensor([[98, 4, 99, 5, 99, 0]])
    attention = torch.tensor([[0.3, 0.3, 0.4, 0.0, 0.0, 0.0]])

    assert best_positions(text_token_scores(attention, tokens), 3).tolist() == [[1, 3, 4]]


def test_a_caption_without_words_is_its_end_token_and_leaves_the_others_alone() -> None:
    tokens = torch.tensor([[98, 99, 0, 0], [98, 5, 6, 99]])
    attention = torch.tensor([[0.6, 0.4, 0.0, 0.0], [0.2, 0.3, 0.1, 0.4]])
    values = torch.arange(8.0).view(2, 4, 1)

    position = best_positions(text_token_scores(attention, tokens), 2)
    valid = num_pooled(tokens, 2)
    pooled = max_pool(values.gather(1, position[:, :, None]), valid)

    assert position[0, 0] == 1
    assert valid.tolist() == [1, 2]
    assert pooled.tolist() == [[1.0], [6.0]]  # end token; the larger of both words


@pytest.mark.parametrize("num_tokens", [1, 7, 13])
def test_pools_look_at_the_valid_tokens_alone(num_tokens: int) -> None:
    torch.manual_seed(num_tokens)
    values = torch.randn(3, num_tokens, 2, dtype=torch.float64)
    valid = torch.tensor([1, num_tokens, max(1, num_tokens - 1)])

    pooled = {pool: pool(values, valid) for pool in (max_pool, average_pool, top10_pool)}

    for sample in range(3):
        for channel in range(2):
            seen = sorted(values[sample, : valid[sample], channel].tolist(), reverse=True)
            assert pooled[max_pool][sample, channel].item() == seen[0]
            mean, best = math.fsum(seen) / len(seen), seen[:10]
            assert pooled[average_pool][sample, channel].item() == pytest.approx(mean, abs=1e-12)
            mean = math.fsum(best) / len(best)
            assert pooled[top10_pool][sample, channel].item() == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("pool", [max_pool, average_pool, top10_pool])
def test_all_tokens_are_pooled_without_a_count(pool: object) -> None:
    values = torch.randn(2, 12, 3)

    assert_close(pool(values, None), pool(values, torch.tensor([12, 12])))


def test_the_token_mlp_is_an_mlp_beside_a_line() -> None:
    torch.manual_seed(0)
    mlp = TokenMlp(3, 4).double()
    token = torch.randn(3, dtype=torch.float64)

    hidden = mlp.hidden(token) / math.sqrt(1 + 1e-5)  # frozen statistics: mean 0, variance 1
    expected = mlp.residual(token) + mlp.out(hidden.clamp_min(0))

    assert_close(mlp(token.view(1, 1, 3)).flatten(), expected)


def test_without_an_mlp_the_unit_tokens_are_pooled() -> None:
    tokens = torch.tensor([[[3.0, 4.0], [0.0, -2.0]]])

    embedding = TokenSelection(torch.nn.Identity())(tokens)

    assert_close(embedding, torch.tensor([[0.6, 0.8]]))
