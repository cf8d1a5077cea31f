"""Captions to words of a vocabulary that is counted on the data set, or read from a file."""

from __future__ import annotations

import hashlib
import json
import pickle
import string
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from crosswalk.ranges import Count, TokenCount

PADDING = ""
"""What `WordTokenizer.words` has for an id that is padding only."""

UNKNOWN = "UNK"
START, END = "<START>", "<END>"

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def split_words(caption: str, *, lower_case: bool) -> list[str]:
    """Return the words of a caption: punctuation is deleted, and white space separates them.

    No space takes the place of a punctuation mark: "t-shirt" is one word, and so is "shoes.She".
    Source: the released preprocessing of CM-MoCo and CMMT.

    Example:
        >>> split_words("A T-shirt, & jeans.", lower_case=True)
        ['a', 'tshirt', 'jeans']
    """
    text = caption.lower() if lower_case else caption
    return text.translate(_WITHOUT_PUNCTUATION).split()


def frequent_words(
    captions: Iterable[Sequence[str]],
    *,
    min_count: int,
    order: Literal["appearance", "count"],
) -> tuple[list[str], bool]:
    """Return the words that occur often enough, and whether any does not.

    Args:
        captions: Words of each caption.
        min_count: Least number of times.
        order: By first ``appearance``, or by falling ``count``, equal ones by first appearance.

    Example:
        >>> captions = [["a", "man"], ["the", "man"], ["the", "man", "a"]]
        >>> frequent_words(captions, min_count=2, order="count")
        (['man', 'a', 'the'], False)
        >>> frequent_words(captions, min_count=3, order="appearance")
        (['man'], True)
    """
    count = Counter(word for words in captions for word in words)
    kept = [word for word, number in count.items() if number >= min_count]
    if order == "count":
        kept.sort(key=lambda word: -count[word])  # stable
    return kept, len(kept) < len(count)


def pad(sequences: Sequence[Sequence[int]], length: int, *, keep_last: bool = False) -> Tensor:
    """Return ``[n, length]`` int64 ids: zeros behind a shorter sequence, a longer one is cut.

    Args:
        sequences: Ids of each caption.
        length: Ids per row.
        keep_last: Whether the last id of a sequence that is cut is kept instead of the one at its
            place, as an end token must be.

    Example:
        >>> pad([[5, 6], [1, 2, 3, 4]], 3)
        tensor([[5, 6, 0],
                [1, 2, 3]])
        >>> pad([[1, 2, 3, 4]], 3, keep_last=True)
        tensor([[1, 2, 4]])
    """
    rows = np.zeros((len(sequences), length), dtype=np.int64)
    for row, ids in zip(rows, sequences, strict=True):
        kept = min(len(ids), length)
        row[:kept] = ids[:kept]
        if keep_last and len(ids) > length:
            row[-1] = ids[-1]
    return torch.from_numpy(rows)


class WordTokenizer:
    """Captions to ids of words, by a vocabulary of the data set.

    Words that are too rare share one id, the last. The defaults are the vocabulary of CM-MoCo
    (Han et al., BMVC 2021, released preprocessing); that of CMMT (Zhao et al., ICCV 2021, released
    preprocessing) is ``lower_case=False, count_splits=["train"], order="count", unknown="always",
    end_token=True``. A caption that is too long is cut, and keeps its end token; the published
    loaders fail there. CM-MoCo counts in the order of the annotation, here one split comes after
    the other. A caption without words has no ids at all.

    Args:
        context_length: Ids per caption.
        lower_case: Whether captions are in lower case.
        count_splits: Splits whose captions make the vocabulary; None is all.
        min_count: Least number of times that a word of the vocabulary occurs in them; >= 1.
        order: Words are numbered by first ``appearance``, or by falling ``count``.
        unknown: Whether there is an id for other words ``always``, or only ``if_dropped``: if any
            word was too rare. Without it, captions with new words are refused.
        end_token: Whether an end token follows every caption. It and a start token are words of
            the vocabulary then, as in CMMT, but the start token is in no caption's ids.
        padding: ``own``: id 0 is padding only. ``first_word``: id 0 is padding and the first word,
            as in the files of CMMT, whose checkpoints need that. The end token tells then where a
            caption ends, so there must be one.
        vocabulary: A file with the vocabulary, which is not counted then: from `save_vocabulary`,
            CMMT's ``word_to_index.pkl`` or a JSON file likewise, or text with a word per line.

    Example:
        >>> tokenizer = WordTokenizer(context_length=4, min_count=2)
        >>> tokenizer.learn({"train": ["A man in red.", "A woman in red!"]})
        >>> tokenizer.words
        ('', 'a', 'in', 'red', 'UNK')
        >>> tokenizer(["a man", "red, red, a blue-red"])
        tensor([[1, 4, 0, 0],
                [3, 3, 1, 4]])
    """

    context_length: int
    lower_case: bool
    end_token: bool
    padding: Literal["own", "first_word"]
    vocabulary_digest: str
    """Changes with the vocabulary; empty without one."""

    def __init__(
        self,
        context_length: TokenCount,
        *,
        lower_case: bool = True,
        count_splits: Sequence[str] | None = None,
        min_count: Count = 3,
        order: Literal["appearance", "count"] = "appearance",
        unknown: Literal["always", "if_dropped"] = "if_dropped",
        end_token: bool = False,
        padding: Literal["own", "first_word"] = "own",
        vocabulary: str | Path | None = None,
    ) -> None:
        least = 2 if end_token else 1
        if context_length < least:
            raise ValueError(
                f"data.context_length={context_length} leaves no room for a word"
                f"{' and the end token' if end_token else ''}; it should be at least {least}."
            )
        if min_count < 1:
            raise ValueError(f"data.tokenizer.min_count={min_count} should be at least 1.")
        if isinstance(count_splits, str):
            raise ValueError(
                f"data.tokenizer.count_splits={count_splits!r} is no list; write [{count_splits}]."
            )
        if padding == "first_word" and not end_token:
            raise ValueError(
                "data.tokenizer.padding=first_word needs data.tokenizer.end_token=true: id 0 is a "
                "word and padding, so only an end token shows where a caption ends."
            )
        self.context_length = context_length
        self.lower_case = lower_case
        self.end_token = end_token
        self.padding = padding
        self.vocabulary_digest = ""
        self._count_splits = None if count_splits is None else tuple(count_splits)
        self._min_count = min_count
        self._order = order
        self._unknown = unknown
        self._vocabulary_file = None if vocabulary is None else Path(vocabulary)
        self._words: tuple[str, ...] = ()
        self._id: dict[str, int] = {}
        self._unknown_id: int | None = None
        if self._vocabulary_file is not None:
            self._read(self._vocabulary_file)

    @property
    def words(self) -> tuple[str, ...]:
        """The word of each id: "" for one that is padding only, "UNK" for all unknown words.

        Raises:
            RuntimeError: If there is no vocabulary yet.
        """
        self._require_vocabulary()
        return self._words

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, padding included."""
        return len(self.words)

    def learn(self, captions_by_split: Mapping[str, Sequence[str]]) -> None:
        """Count the vocabulary; nothing happens if it is that of a file.

        Args:
            captions_by_split: The captions of each split, in the order in which words are numbered.

        Raises:
            ValueError: If a split of ``count_splits`` is missing.
        """
        if self._vocabulary_file is not None:
            return
        names = tuple(captions_by_split) if self._count_splits is None else self._count_splits
        missing = [name for name in names if name not in captions_by_split]
        if missing:
            raise ValueError(
                f"data.tokenizer.count_splits names {', '.join(missing)}, but the data set has "
                f"{', '.join(captions_by_split)}. Correct data.tokenizer.count_splits."
            )
        words, dropped = frequent_words(
            (self._marked(caption) for name in names for caption in captions_by_split[name]),
            min_count=self._min_count,
            order=self._order,
        )
        self._use(words, has_unknown=dropped or self._unknown == "always")

    def id_of(self, word: str) -> int:
        """Return the id of a word, which is that of unknown words if it is unknown.

        Raises:
            ValueError: If the word is unknown, and the vocabulary has no id for such words.
        """
        known = self._id.get(word, self._unknown_id)
        if known is None:
            self._require_vocabulary()
            raise ValueError(
                f"the word {word!r} is not in the vocabulary, which has no id for unknown words. "
                "Set data.tokenizer.unknown=always, or count the words of all captions "
                "(data.tokenizer.count_splits=null)."
            )
        return known

    def encode(self, caption: str) -> list[int]:
        """Return the ids of a caption, however long, the end token included.

        Example:
            >>> tokenizer = WordTokenizer(9, min_count=1, end_token=True)
            >>> tokenizer.learn({"train": ["a man"]})
            >>> tokenizer.words
            ('', '<START>', 'a', 'man', '<END>')
            >>> tokenizer.encode("A man, a man")
            [2, 3, 2, 3, 4]
        """
        words = split_words(caption, lower_case=self.lower_case)
        if self.end_token:
            words.append(END)
        known, other = self._id, self._unknown_id
        ids = [known.get(word, other) for word in words]
        return [
            self.id_of(words[place]) if number is None else number
            for place, number in enumerate(ids)
        ]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ``[captions, context_length]`` int64 ids, 0 behind the last."""
        self._require_vocabulary()
        return pad(
            [self.encode(caption) for caption in captions],
            self.context_length,
            keep_last=self.end_token,
        )

    def lengths_untruncated(self, captions: Sequence[str]) -> list[int]:
        """Return how many ids each caption needs, the end token included.

        Example:
            >>> WordTokenizer(2, end_token=True).lengths_untruncated(["a man in red", ""])
            [5, 1]
        """
        return [
            len(split_words(caption, lower_case=self.lower_case)) + self.end_token
            for caption in captions
        ]

    def num_truncated(self, captions: Sequence[str]) -> int:
        """Return how many captions lose their end to `context_length`."""
        return sum(length > self.context_length for length in self.lengths_untruncated(captions))

    def save_vocabulary(self, path: str | Path) -> None:
        """Write the vocabulary as JSON, for the argument ``vocabulary``."""
        first = self._first_id
        content = {
            "lower_case": self.lower_case,
            "end_token": self.end_token,
            "unknown": self._unknown_id is not None,
            "words": self.words[first:],
        }
        text = json.dumps(content, ensure_ascii=False, indent=1)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @property
    def _first_id(self) -> int:
        """Id of the first word."""
        return int(self.padding == "own")

    def _marked(self, caption: str) -> list[str]:
        words = split_words(caption, lower_case=self.lower_case)
        return [START, *words, END] if self.end_token else words

    def _require_vocabulary(self) -> None:
        if not self._words:
            raise RuntimeError(
                "the word tokenizer has no vocabulary yet: call learn(captions_by_split), or set "
                "data.tokenizer.vocabulary=<file>"
            )

    def _use(self, words: Sequence[str], *, has_unknown: bool) -> None:
        """Make ``words``, without those for padding and unknown words, the vocabulary."""
        first = self._first_id
        self._id = {word: number for number, word in enumerate(words, first)}
        self._unknown_id = first + len(words) if has_unknown else None
        self._words = (
            *((PADDING,) * first),
            *words,
            *((UNKNOWN,) * has_unknown),
        )
        digest = hashlib.sha256(json.dumps([self._unknown_id, self._words]).encode())
        self.vocabulary_digest = digest.hexdigest()
        if self.padding == "first_word" and self.id_of(END) == 0:
            raise ValueError(
                f"{END} has id 0, which is padding with data.tokenizer.padding=first_word, so the "
                "length of a caption cannot be told. Use data.tokenizer.padding=own."
            )

    def _read(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}, which data.tokenizer.vocabulary names, is missing. Correct the path, or "
                "leave it out to count the words of the data set."
            )
        words, has_unknown = self._words_in(path)
        twice = [word for word, number in Counter(words).items() if number > 1]
        if twice or not words or not all(words):
            wrong = f"{twice[0]!r} twice" if twice else "an empty word" if words else "no words"
            raise ValueError(f"{path} has {wrong}: it is no vocabulary.")
        if self.end_token and END not in words:
            raise ValueError(
                f"{path} has no {END}, but data.tokenizer.end_token=true puts it behind every "
                "caption. Set data.tokenizer.end_token=false, or use another vocabulary."
            )
        self._use(words, has_unknown=has_unknown)

    def _words_in(self, path: Path) -> tuple[list[str], bool]:
        """Return the words of a file, and whether there is an id for others behind them."""
        if path.suffix == ".json":
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is no JSON file: {error}") from error
        elif path.suffix in (".pkl", ".pickle"):
            content = _plain_pickle(path)
        else:
            content = path.read_text(encoding="utf-8").splitlines()
        if isinstance(content, dict) and isinstance(content.get("words"), list):
            self._check_settings(path, content)
            words, has_unknown = content["words"], bool(content.get("unknown"))
            if not all(isinstance(word, str) for word in words):
                raise ValueError(f"{path}: not all of its words are text: it is no vocabulary.")
            return (words[:-1], True) if has_unknown else (words, False)
        words = self._in_order(path, content) if isinstance(content, dict) else content
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{path} has neither words nor ids of words: it is no vocabulary.")
        if words and words[-1] == UNKNOWN:
            return words[:-1], True
        return words, self._unknown == "always"

    def _check_settings(self, path: Path, content: Mapping[str, Any]) -> None:
        for name, ours in (("lower_case", self.lower_case), ("end_token", self.end_token)):
            if name in content and content[name] != ours:
                raise ValueError(
                    f"{path} was counted with {name}={content[name]}, but data.tokenizer.{name} is "
                    f"{ours}. Set it like the file's."
                )

    def _in_order(self, path: Path, ids: Mapping[Any, Any]) -> list[Any]:
        """Return the words of ``{word: id}`` by their ids."""
        if not all(type(number) is int for number in ids.values()):
            raise ValueError(f"{path} has neither words nor ids of words: it is no vocabulary.")
        words = sorted(ids, key=lambda word: ids[word])
        start = ids[words[0]] if words else 0
        if [ids[word] for word in words] != list(range(start, start + len(words))):
            raise ValueError(f"{path}: the ids of its words are not consecutive numbers.")
        if start not in (0, 1) or start > self._first_id:
            raise ValueError(
                f"{path}: its first id is {start}, which does not go with "
                f"data.tokenizer.padding={self.padding}: ids start at "
                f"{'0 or 1' if self.padding == 'own' else 0} there."
            )
        return words


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, text and numbers only: no class or function of the file is called."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def _plain_pickle(path: Path) -> Any:  # noqa: ANN401
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except (
        pickle.UnpicklingError,
        *(AttributeError, EOFError, LookupError, TypeError, ValueError),
    ) as error:
        raise ValueError(
            f"{path} is no plain dictionary of words and ids, so it is not read: loading it "
            f"would run code from it. ({error})"
        ) from error
