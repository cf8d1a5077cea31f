import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.encoders import word_table
from crosswalk.encoders.clip_text import open_clip_text
from crosswalk.encoders.word_table import (
    clip_word_table,
    file_word_table,
    joined_word_tables,
    missing_word_table,
)
from crosswalk.encoders.word_vectors import ProjectedWords, WordTable

WORDS = ["", "man", "tshirt", "UNK", "red", "ünïcödé", "man"]
TINY = {"name": "tiny", "pretrained": "tiny_clip.safetensors"}


@pytest.mark.parametrize("template", ["{}", "a photo of {}, a person"])
@pytest.mark.parametrize("normalize", [False, True])
def test_rows_are_words_encoded_one_by_one(tmp_path: Path, template: str, normalize: bool) -> None:
    rows = clip_word_table(WORDS, **TINY, template=template, normalize=normalize, folder=tmp_path)

    clip, tokenizer = open_clip_text(**TINY), ClipTokenizer(48)
    for word, row in zip(WORDS[1:], rows[1:], strict=True):
        tokens = tokenizer([template.replace("{}", word)])
        expected = clip(tokens, torch.tensor([48]), 48)[0]
        if normalize:
            expected = expected / sum(value**2 for value in expected.tolist()) ** 0.5
        assert_close(row, expected, rtol=1e-4, atol=1e-5)
    assert not rows[0].any()
    assert rows.shape == (7, 64)
    assert rows.dtype == torch.float32
    assert not torch.equal(rows[1], rows[4])


def test_a_vocabulary_whose_padding_is_a_word_has_a_row_for_it(tmp_path: Path) -> None:
    rows = clip_word_table(["a", "man"], **TINY, folder=tmp_path)

    assert rows[0].any()


def test_many_words_of_all_lengths_keep_their_places(tmp_path: Path) -> None:
    words = [chr(ord("a") + number % 26) * (1 + number % 7) for number in range(300)]  # two batches

    rows = clip_word_table(words, **TINY, folder=tmp_path)

    for place in (0, 6, 255, 256, 299):
        alone = clip_word_table([words[place]], **TINY, folder=tmp_path)[0]
        assert_close(rows[place], alone, rtol=1e-4, atol=1e-5)


def test_a_table_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path))
    first = clip_word_table(WORDS, **TINY)
    monkeypatch.setattr(word_table, "open_clip_text", None)  # a second building would fail

    assert torch.equal(clip_word_table(tuple(WORDS), **TINY), first)
    assert torch.equal(clip_word_table(WORDS, **TINY, folder=tmp_path), first)
    [entry] = tmp_path.glob("word-table-*")
    assert np.array_equal(np.load(entry / "rows.npy"), first.numpy())


@pytest.mark.parametrize(
    "change",
    [
        {"words": WORDS[1:]},
        {"words": [*WORDS[:5], "b", "c"]},
        {"template": "{}."},
        {"normalize": True},
    ],
)
def test_other_words_or_settings_have_tables_of_their_own(
    tmp_path: Path, change: dict[str, object]
) -> None:
    settings = {"words": WORDS, **TINY, "folder": tmp_path}
    clip_word_table(**settings)

    clip_word_table(**(settings | change))

    assert len(list(tmp_path.glob("word-table-*"))) == 2


def test_a_changed_weight_file_makes_another_table(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    sums = []
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(open_clip_text(name="tiny", pretrained=None).state_dict(), file)
        os.utime(file, ns=(seed, seed))
        rows = clip_word_table(WORDS, name="tiny", pretrained=str(file), folder=tmp_path / "cache")
        sums.append(rows.sum().item())

    assert sums[0] != sums[1]


def test_a_run_draws_the_same_numbers_with_and_without_a_cached_table(tmp_path: Path) -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(7)
        clip_word_table(WORDS, **TINY, folder=tmp_path)
        draws.append(torch.rand(3))

    assert torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}"])
def test_a_template_has_one_place_for_the_word(tmp_path: Path, template: str) -> None:
    with pytest.raises(ValueError, match=r"vectors\.table\.template=.* should have one \{\}"):
        clip_word_table(WORDS, **TINY, template=template, folder=tmp_path)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"encoder\.text\.vectors\.table\.pretrained=no\.pt"
    ):
        clip_word_table(WORDS, name="ViT-B-32", pretrained="no.pt", folder=tmp_path)

    assert not list(tmp_path.glob("word-table-*"))


def test_a_released_table_is_read_in_float32(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal((7, 5))
    np.save(tmp_path / "clip_vocab_vit.npy", numbers)

    rows = file_word_table(WORDS, file=str(tmp_path / "clip_vocab_vit.npy"))

    assert rows.dtype == torch.float32
    assert_close(rows, torch.tensor(numbers, dtype=torch.float32), rtol=0, atol=0)


def test_a_file_without_one_row_for_each_word_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((9409, 5)))
    np.save(tmp_path / "flat.npy", np.zeros(7))

    with pytest.raises(ValueError, match=r"shape \[9409, 5\], but data\.tokenizer has 7 token ids"):
        file_word_table(WORDS, file=str(tmp_path / "rows.npy"))
    with pytest.raises(ValueError, match=r"shape \[7\]"):
        file_word_table(WORDS, file=str(tmp_path / "flat.npy"))
    with pytest.raises(FileNotFoundError, match=r"vectors\.table\.file=none\.npy is missing"):
        file_word_table(WORDS, file="none.npy")


def test_joined_tables_stand_side_by_side(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.full((7, 5), 3.0))
    sources = [
        partial(clip_word_table, **TINY, folder=tmp_path),
        partial(file_word_table, file=str(tmp_path / "rows.npy")),
    ]

    vectors = ProjectedWords(WORDS, table=partial(joined_word_tables, tables=sources), size=4)

    assert vectors.frozen.table.shape == (7, 69)
    assert_close(vectors.frozen.table[:, :64], sources[0](WORDS))
    assert (vectors.frozen.table[:, 64:] == 3).all()


def test_a_missing_table_waits_for_a_checkpoint() -> None:
    vectors = WordTable(WORDS, table=partial(missing_word_table, size=5))
    assert vectors(torch.tensor([1])).isnan().all()

    vectors.load_state_dict({"table": torch.ones(7, 5)})

    assert vectors(torch.tensor([1])).tolist() == [[1] * 5]
