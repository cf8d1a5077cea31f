import json
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from crosswalk.data.pipeline.transforms import token_length
from crosswalk.data.text.word_tokenizer import (
    END,
    START,
    WordTokenizer,
    frequent_words,
    pad,
    split_words,
)

CMMT: dict[str, Any] = {
    "lower_case": False,
    "count_splits": ["train"],
    "order": "count",
    "unknown": "always",
    "end_token": True,
}
SHARED: dict[str, Any] = {**CMMT, "padding": "first_word"}

CAPTIONS = ["A man, a red coat.", "a man", "A red t-shirt; red"]


def learned(context_length: int = 9, **options: Any) -> WordTokenizer:  # noqa: ANN401
    tokenizer = WordTokenizer(context_length, **options)
    tokenizer.learn({"train": CAPTIONS})
    return tokenizer


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A T-shirt, black shoes.She's!", ["a", "tshirt", "black", "shoesshes"]),
        ("  two\twords\n", ["two", "words"]),
        ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", []),
        ("", []),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s", ["it\N{RIGHT SINGLE QUOTATION MARK}s"]),  # not ASCII
    ],
)
def test_punctuation_is_deleted_without_a_space(caption: str, words: list[str]) -> None:
    assert split_words(caption, lower_case=True) == words


def test_case_may_be_kept() -> None:
    assert split_words("A man. THE man", lower_case=False) == ["A", "man", "THE", "man"]


@pytest.mark.parametrize("min_count", [1, 2, 3, 9])
def test_frequent_words_are_those_that_a_loop_counts(min_count: int) -> None:
    captions = [["b", "a", "a"], [], ["c", "a", "b"], ["d", "c", "e"]]  # a 3, b 2, c 2, d 1, e 1
    by_count = {1: "abcde", 2: "abc", 3: "a", 9: ""}[min_count]
    by_appearance = {1: "bacde", 2: "bac", 3: "a", 9: ""}[min_count]

    for order, kept in (("count", by_count), ("appearance", by_appearance)):
        words, dropped = frequent_words(captions, min_count=min_count, order=order)  # type: ignore[arg-type]
        assert words == list(kept)
        assert dropped == (min_count > 1)


@pytest.mark.parametrize("keep_last", [False, True])
def test_sequences_are_padded_with_zeros_and_cut(keep_last: bool) -> None:
    rows = pad([[], [7], [7, 8, 9], [1, 2, 3, 4, 5]], 3, keep_last=keep_last)

    assert rows.tolist() == [[0, 0, 0], [7, 0, 0], [7, 8, 9], [1, 2, 5 if keep_last else 3]]
    assert rows.dtype == torch.int64


def test_no_captions_make_no_rows() -> None:
    assert pad([], 4).shape == (0, 4)


def test_the_vocabulary_of_cm_moco_is_in_order_of_appearance_with_unk_last() -> None:
    tokenizer = learned(min_count=2)

    assert tokenizer.words == ("", "a", "man", "red", "UNK")
    assert tokenizer.vocabulary_size == 5
    assert tokenizer(CAPTIONS).tolist() == [
        [1, 2, 1, 3, 4, 0, 0, 0, 0],
        [1, 2, 0, 0, 0, 0, 0, 0, 0],
        [1, 3, 4, 3, 0, 0, 0, 0, 0],
    ]


def test_there_is_no_unknown_word_where_none_was_dropped() -> None:
    tokenizer = learned(min_count=1)

    assert tokenizer.words == ("", "a", "man", "red", "coat", "tshirt")
    with pytest.raises(ValueError, match=r"'hat' is not in the vocabulary.*unknown=always"):
        tokenizer(["a hat"])


def test_the_unknown_word_may_always_have_an_id() -> None:
    tokenizer = learned(min_count=1, unknown="always")

    assert tokenizer.words[-1] == "UNK"
    assert tokenizer.encode("a hat") == [1, tokenizer.vocabulary_size - 1]


def test_the_word_unk_of_a_caption_is_not_the_unknown_word() -> None:
    tokenizer = WordTokenizer(4, min_count=1, unknown="always", lower_case=False)
    tokenizer.learn({"train": ["UNK a"]})

    assert tokenizer.words == ("", "UNK", "a", "UNK")
    assert tokenizer.encode("UNK b") == [1, 3]


def test_all_splits_are_counted_or_those_that_are_named() -> None:
    splits = {"train": ["a man"], "val": ["a hat"], "test": ["the hat"]}
    every = WordTokenizer(4, min_count=1)
    one = WordTokenizer(4, min_count=1, count_splits=["val"])

    every.learn(splits)
    one.learn(splits)

    assert every.words == ("", "a", "man", "hat", "the")
    assert one.words == ("", "a", "hat")


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"count_splits names dev, but .* has train, test"):
        WordTokenizer(4, count_splits=["dev"]).learn({"train": [], "test": []})


def test_the_vocabulary_of_cmmt_counts_both_markers_and_keeps_case() -> None:
    tokenizer = learned(min_count=2, **CMMT)

    # <START>, <END> and red 3 times, A, man and a twice, in order of appearance
    assert tokenizer.words == ("", START, "red", END, "A", "man", "a", "UNK")
    assert tokenizer(["A man, he"]).tolist() == [[4, 5, 7, 3, 0, 0, 0, 0, 0]]


def test_ids_of_cmmt_share_padding_with_the_first_word() -> None:
    tokenizer = learned(min_count=2, **SHARED)

    assert tokenizer.words == (START, "red", END, "A", "man", "a", "UNK")
    assert tokenizer(["A red", ""])[:, :4].tolist() == [[3, 1, 2, 0], [2, 0, 0, 0]]


@pytest.mark.parametrize("padding", ["own", "first_word"])
def test_a_long_caption_keeps_its_end_token(padding: str) -> None:
    tokenizer = learned(3, **{**CMMT, "min_count": 1, "padding": padding})
    end = tokenizer.id_of(END)

    tokens = tokenizer(["a man red coat", "a man", "a"])

    assert tokens[:, -1].tolist() == [end, end, 0]
    assert token_length(tokens).tolist() == [3, 3, 2]
    assert tokenizer.num_truncated(["a man red coat", "a man", "a"]) == 1


def test_a_long_caption_is_cut_without_end_token() -> None:
    tokenizer = learned(2, min_count=1)

    assert tokenizer(["red man coat"]).tolist() == [[3, 2]]
    assert tokenizer.lengths_untruncated(["red man coat", "red - man", ""]) == [3, 2, 0]
    assert tokenizer.num_truncated(["red man coat", "red - man", ""]) == 1


def test_a_caption_without_words_has_no_ids() -> None:
    assert learned(min_count=1)(["", "?!"]).tolist() == [[0] * 9] * 2


def test_a_tokenizer_without_vocabulary_says_what_is_missing() -> None:
    tokenizer = WordTokenizer(5)

    for use in (lambda: tokenizer(["a"]), lambda: tokenizer.words, lambda: tokenizer.id_of("a")):
        with pytest.raises(RuntimeError, match=r"no vocabulary yet: call learn"):
            use()


def test_the_digest_tells_vocabularies_apart() -> None:
    digests = {learned(min_count=count).vocabulary_digest for count in (1, 2, 3)}

    assert len(digests) == 3
    assert WordTokenizer(5).vocabulary_digest == ""
    assert learned(min_count=2).vocabulary_digest in digests


@pytest.mark.parametrize("options", [{"min_count": 2}, {"min_count": 1}, {**CMMT, "min_count": 2}])
def test_a_saved_vocabulary_gives_the_same_ids(options: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = learned(**options)
    tokenizer.save_vocabulary(tmp_path / "words.json")

    again = WordTokenizer(9, **options, vocabulary=tmp_path / "words.json")
    again.learn({"train": ["other captions do not matter"]})

    assert again.words == tokenizer.words
    assert again.vocabulary_digest == tokenizer.vocabulary_digest
    assert again(CAPTIONS).tolist() == tokenizer(CAPTIONS).tolist()


def test_a_saved_vocabulary_of_other_words_is_refused(tmp_path: Path) -> None:
    learned(min_count=1).save_vocabulary(tmp_path / "words.json")

    with pytest.raises(ValueError, match=r"lower_case=True, but data\.tokenizer\.lower_case is F"):
        WordTokenizer(9, vocabulary=tmp_path / "words.json", lower_case=False)


def written(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


OFFICIAL = {"a": 0, "and": 1, "black": 2, END: 3, START: 4}


@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_an_official_pickle_gives_the_official_ids(
    kind: type[dict[str, int]], tmp_path: Path
) -> None:
    path = written(tmp_path / "word_to_index.pkl", kind(reversed(list(OFFICIAL.items()))))

    tokenizer = WordTokenizer(6, **SHARED, vocabulary=path)

    assert tokenizer.words == ("a", "and", "black", END, START, "UNK")
    tokens = tokenizer(["a black, and a A", "a a", ""])
    assert tokens.tolist() == [[0, 2, 1, 0, 5, 3], [0, 0, 3, 0, 0, 0], [3, 0, 0, 0, 0, 0]]
    assert token_length(tokens).tolist() == [6, 3, 1]


def test_an_official_pickle_may_be_used_with_a_padding_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "word_to_index.pkl", OFFICIAL)

    tokenizer = WordTokenizer(5, **CMMT, vocabulary=path)

    assert tokenizer.words == ("", "a", "and", "black", END, START, "UNK")


def test_a_word_to_id_file_of_cm_moco_counts_from_one(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"man": 2, "a": 1, "UNK": 3}))

    assert WordTokenizer(5, vocabulary=path).words == ("", "a", "man", "UNK")
    assert WordTokenizer(5, vocabulary=path).encode("a hat") == [1, 3]


@pytest.mark.parametrize("unknown", [False, True])
def test_a_text_file_has_one_word_per_line(unknown: bool, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("a\nman\n" + "UNK\n" * unknown)

    tokenizer = WordTokenizer(5, vocabulary=path)

    assert tokenizer.words == ("", "a", "man", "UNK")[: 3 + unknown]


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch proof-of-execution",)


@pytest.mark.parametrize("content", [Malicious(), {"a": Malicious()}, defaultdict(int, a=0)])
def test_no_code_of_a_pickle_runs(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "word_to_index.pkl", content)

    with pytest.raises(ValueError, match=r"no plain dictionary of words and ids.*would run code"):
        WordTokenizer(5, vocabulary=path)
    assert not (tmp_path / "proof-of-execution").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.json", "[1, 2]", "neither words nor ids of words"),
        ("words.json", '{"a": "b"}', "neither words nor ids of words"),
        ("words.json", '{"a": true}', "neither words nor ids of words"),
        ("words.json", '{"words": ["a", 3]}', "not all of its words are text"),
        ("words.json", "3", "neither words nor ids of words"),
        ("words.json", "{", "is no JSON file"),
        ("words.json", '{"a": 0, "b": 2}', "not consecutive numbers"),
        ("words.json", '{"a": 0, "b": 0}', "not consecutive numbers"),
        ("words.json", '{"a": 2, "b": 3}', "first id is 2, .*start at 0 or 1"),
        ("words.json", "[]", "has no words"),
        ("words.txt", "", "has no words"),
        ("words.txt", "a\n\nb\n", "an empty word"),
        ("words.txt", "a\nb\na\n", "'a' twice"),
        ("words.pkl", "not a pickle", "no plain dictionary"),
    ],
)
def test_files_without_a_vocabulary_are_refused(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(ValueError, match=message):
        WordTokenizer(5, vocabulary=tmp_path / name)


def test_a_missing_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"words\.json, which data\.tokenizer\.vocabulary"):
        WordTokenizer(5, vocabulary=tmp_path / "words.json")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"a": 0, "man": 1}, r"has no <END>, but data\.tokenizer\.end_token=true"),
        ({END: 0, "a": 1}, r"<END> has id 0.*length of a caption cannot be told"),
        ({"a": 1, END: 2}, r"first id is 1.*padding=first_word: ids start at 0"),
    ],
)
def test_lengths_that_cannot_be_told_are_refused(
    ids: dict[str, int], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "word_to_index.pkl", ids)

    with pytest.raises(ValueError, match=message):
        WordTokenizer(5, **SHARED, vocabulary=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "first_word"}, r"padding=first_word needs data\.tokenizer\.end_token=true"),
        ({"min_count": 0}, r"data\.tokenizer\.min_count=0 should be at least 1"),
        ({"count_splits": "train"}, r"count_splits='train' is no list; write \[train\]"),
        ({"context_length": 0}, r"data\.context_length=0 leaves no room for a word; .* least 1"),
        ({"context_length": 1, "end_token": True}, r"and the end token; .* at least 2"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordTokenizer(**{"context_length": 5, **options})
