import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crosswalk.encoders.word_vectors import LearnedWords, ProjectedWords, WordTable

WORDS = ["", "a", "man", "in", "red"]
ROWS = torch.arange(15, dtype=torch.float64).view(5, 3)


def table(words: object) -> torch.Tensor:
    return ROWS.clone()


def test_a_table_gives_its_rows_and_is_no_parameter() -> None:
    vectors = WordTable(WORDS, table=table)

    rows = vectors(torch.tensor([[4, 0], [1, 1]]))

    assert rows.tolist() == [[[12, 13, 14], [0, 1, 2]], [[3, 4, 5], [3, 4, 5]]]
    assert rows.dtype == torch.float32
    assert vectors.num_features == 3
    assert not list(vectors.parameters())
    assert list(vectors.state_dict()) == ["table"]


def test_a_state_without_table_keeps_the_one_that_was_built() -> None:
    model = nn.Sequential(WordTable(WORDS, table=table), nn.Linear(3, 2))
    state = model.state_dict()
    state.pop("0.table")

    model.load_state_dict(state)

    assert_close(model[0].table, ROWS.float())


def test_a_state_with_a_table_replaces_the_one_that_was_built() -> None:
    other = WordTable(WORDS, table=lambda words: torch.zeros(5, 3))

    other.load_state_dict(WordTable(WORDS, table=table).state_dict())

    assert_close(other.table, ROWS.float())
    with pytest.raises(RuntimeError, match="size mismatch for table"):
        other.load_state_dict({"table": torch.zeros(6, 3)})


def test_a_table_that_waits_for_a_checkpoint_refuses_one_without() -> None:
    model = nn.Sequential(WordTable(WORDS, table=lambda words: torch.full((5, 3), torch.nan)))

    with pytest.raises(ValueError, match=r"holds no word table \(0\.table\).*vectors\.table"):
        model.load_state_dict({})
    model.load_state_dict({"0.table": ROWS})
    assert_close(model[0].table, ROWS.float())


@pytest.mark.parametrize("rows", [torch.zeros(4, 3), torch.zeros(5)])
def test_a_table_has_a_row_for_every_word(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="5 token ids: one row for each"):
        WordTable(WORDS, table=lambda words: rows)


@pytest.mark.parametrize("words", [None, []])
@pytest.mark.parametrize("make", [lambda words: WordTable(words, table=table), LearnedWords])
def test_without_words_the_tokenizer_is_named(
    words: list[str] | None, make: Callable[[object], nn.Module]
) -> None:
    with pytest.raises(ValueError, match=r"data\.tokenizer has no list of words"):
        make(words)


def test_projected_rows_match_an_explicit_loop_and_only_the_projection_is_trained() -> None:
    vectors = ProjectedWords(WORDS, table=table, size=2).double()

    rows = vectors(torch.tensor([4, 2]))
    rows.sum().backward()

    weight, bias = vectors.projection.weight.tolist(), vectors.projection.bias.tolist()
    for row, token in zip(rows.tolist(), (4, 2), strict=True):
        for value, w, b in zip(row, weight, bias, strict=True):
            assert value == pytest.approx(
                b + sum(x * y for x, y in zip(w, ROWS[token].tolist(), strict=True))
            )
    assert {name for name, _ in vectors.named_parameters()} == {
        "projection.weight",
        "projection.bias",
    }
    assert vectors.projection.bias.grad.tolist() == [2, 2]


def test_learned_rows_start_normal_and_the_one_of_padding_at_zero() -> None:
    torch.manual_seed(0)
    vectors = LearnedWords(WORDS, size=400, num_words=90)

    weight = vectors.embedding.weight
    assert weight.shape == (90, 400)
    assert not weight[0].any()
    assert weight[1:].std().item() == pytest.approx(1, rel=0.02)
    assert weight[1:].mean().item() == pytest.approx(0, abs=0.02)


def test_learned_rows_start_from_a_table() -> None:
    vectors = LearnedWords(WORDS, size=3, num_words=7, start=table)

    assert_close(vectors(torch.arange(5)), ROWS.float())
    assert vectors.embedding.weight.shape == (7, 3)


def test_the_number_of_rows_alone_is_enough() -> None:
    assert LearnedWords(size=3, num_words=7)(torch.tensor([6])).shape == (1, 3)


def test_rows_that_do_not_fit_the_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 token ids, more than .*num_words=4"):
        LearnedWords(WORDS, size=3, num_words=4)
    with pytest.raises(ValueError, match=r"start gives rows of the shape \[5, 3\], but 5 words"):
        LearnedWords(WORDS, size=4, start=table)


def test_copies_share_nothing() -> None:
    vectors = ProjectedWords(WORDS, table=table, size=2)
    copied = copy.deepcopy(vectors)

    vectors.frozen.table.zero_()
    nn.init.zeros_(vectors.projection.weight)

    assert_close(copied.frozen.table, ROWS.float())
    assert copied.projection.weight.any()
