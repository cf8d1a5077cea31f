"""What a caption names: its noun phrases, by word lists or by a part-of-speech tagger.

The lists in ``assets/noun_phrases.json`` were made for captions of people, and need no tagger and
no download. By their author's measurement on 1,900 captions of CUHK-PEDES, Text-IoU of their words
tells people apart with an ROC AUC of 0.81, that of a chunker's words (not quite ours) with 0.78.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Phrase = tuple[str, ...]

LEXICON = Path(__file__).parents[2] / "assets" / "noun_phrases.json"
RULES_VERSION = 1
"""To be raised where the code below finds other phrases; the lists speak for themselves."""

_POSSESSIVE = re.compile(r"'s\b")
_SEGMENT = re.compile(r"[^a-z0-9\s/-]+")
_TOKEN = re.compile(r"[\s/-]+")

_BREAK = ""
"""Stands for a token that ends a phrase, where None is one that is skipped."""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


class _Lexicon(NamedTuple):
    break_words: frozenset[str]
    skip_words: frozenset[str]
    compounds: dict[tuple[str, str], str]
    irregular: dict[str, str]
    synonyms: dict[str, str]


@cache
def _lexicon() -> _Lexicon:
    lists = json.loads(LEXICON.read_text(encoding="utf-8"))
    compounds = {}
    for pair, whole in lists["compounds"].items():
        first, second = pair.split()
        compounds[first, second] = whole
    return _Lexicon(
        frozenset(lists["break_words"]),
        frozenset(lists["skip_words"]),
        compounds,
        lists["irregular"],
        lists["synonyms"],
    )


@cache
def _compound() -> re.Pattern[str]:
    """Return a pattern of two words that make a compound, apart or with a hyphen."""
    pairs = ("[\\s-]+".join(pair) for pair in _lexicon().compounds)
    return re.compile(rf"\b(?:{'|'.join(pairs)})\b")


def _compound_of(pair: str) -> str:
    first, second = _TOKEN.split(pair)
    return _lexicon().compounds[first, second]


def lemma(word: str) -> str:
    """Return the singular of a lower-case word, by a table and the usual endings.

    Example:
        >>> [lemma(word) for word in ("watches", "bodies", "ties", "dress", "jean", "women")]
        ['watch', 'body', 'tie', 'dress', 'jeans', 'woman']
    """
    known = _lexicon().irregular.get(word)
    if known is not None:
        return known
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@cache
def _meaning(token: str, synonyms: bool) -> str | None:
    """Return what a token adds to a phrase: a word, `_BREAK`, or nothing (None)."""
    lexicon = _lexicon()
    if token in lexicon.break_words:
        return _BREAK
    if token in lexicon.skip_words:
        return None
    word = lemma(token)
    return lexicon.synonyms.get(word, word) if synonyms else word


def _without_apostrophes(caption: str) -> str:
    text = caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return _POSSESSIVE.sub("", text).replace("'", "")


def _phrases_in(segment: str, *, synonyms: bool) -> list[Phrase]:
    """Return the phrases of a part of a caption that no phrase reaches beyond."""
    compounds = _lexicon().compounds
    tokens = [token for token in _TOKEN.split(segment) if token]
    phrases: list[Phrase] = []
    phrase: list[str] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        whole = compounds.get((token, tokens[place + 1])) if place + 1 < len(tokens) else None
        place += 1 if whole is None else 2
        word = _meaning(whole or token, synonyms)
        if word:
            phrase.append(word)
        elif word == _BREAK and phrase:
            phrases.append(tuple(phrase))
            phrase = []
    if phrase:
        phrases.append(tuple(phrase))
    return phrases


def phrases_by_rules(caption: str, *, synonyms: bool = True) -> list[Phrase]:
    """Return the noun phrases of a caption as runs of content words between other words.

    Function words, verbs and punctuation end a phrase; some empty words ("pair", "style") are left
    out of it. There are no parts of speech: an unknown verb counts as content, and so does the
    adjective of "she is tall".

    Args:
        caption: English sentences.
        synonyms: Whether words are replaced by a common one: "navy" by "blue", "girl" by "woman".

    Example:
        >>> phrases_by_rules("The girl's wearing navy tennis shoes, and a back-pack.")
        [('woman',), ('blue', 'sneaker'), ('backpack',)]
        >>> phrases_by_rules("A girl in navy shorts", synonyms=False)
        [('girl',), ('navy', 'shorts')]
    """
    text = _without_apostrophes(caption)
    return [
        phrase
        for segment in _SEGMENT.split(text)
        for phrase in _phrases_in(segment, synonyms=synonyms)
    ]


def phrases_by_textblob(caption: str, *, synonyms: bool = True) -> list[Phrase]:
    """Return the noun phrases of a caption as TextBlob's tagger and chunker see them.

    Their words pass through the same lists as in `phrases_by_rules`, so that an article or a
    pronoun is no noun phrase and the words mean the same. The tagger comes with TextBlob; nothing
    is downloaded.

    Args:
        caption: English sentences.
        synonyms: As in `phrases_by_rules`.

    Raises:
        ModuleNotFoundError: If TextBlob is not installed.

    Example:
        >>> phrases_by_textblob("The tall girl's walking with a black back-pack.")
        [('tall', 'woman'), ('black', 'backpack')]
    """
    # The tagger takes words in capitals for names, "t-shirt" for an adjective, a slash for markup.
    text = _without_apostrophes(caption).replace("/", " ")
    text = _compound().sub(lambda pair: _compound_of(pair[0]), text)
    chunks: list[list[str]] = []
    for sentence in _textblob_parser()(text):
        inside = False
        for word, _, chunk, *_ in sentence:
            if chunk == "I-NP" and inside:
                chunks[-1].append(word)
            elif chunk in ("B-NP", "I-NP"):
                chunks.append([word])
            inside = chunk in ("B-NP", "I-NP")
    return [
        phrase
        for chunk in chunks
        for segment in _SEGMENT.split(" ".join(chunk))
        for phrase in _phrases_in(segment, synonyms=synonyms)
    ]


@cache
def _textblob_parser() -> Callable[[str], list[list[list[str]]]]:
    if importlib.util.find_spec("textblob") is None:
        raise ModuleNotFoundError(
            "backend=textblob of the noun phrases needs TextBlob, which is not installed: "
            'pip install "<folder or URL of crosswalk>[phrases]", or choose '
            "data.phrases.backend=rules."
        )
    from textblob.en import parse  # late: it imports NLTK, for a second

    return lambda text: parse(text).split()


def units_of(phrases: Iterable[Phrase], unit: Literal["word", "pair", "phrase"]) -> list[str]:
    """Return what two captions are compared by, each once, in order of first appearance.

    Args:
        phrases: Noun phrases of one caption.
        unit: ``word``: their words. ``pair``: every word of a phrase with its last, or the only
            word. ``phrase``: whole phrases.

    Example:
        >>> phrases = [("dark", "blue", "jeans"), ("hair",)]
        >>> units_of(phrases, "word")
        ['dark', 'blue', 'jeans', 'hair']
        >>> units_of(phrases, "pair")
        ['dark jeans', 'blue jeans', 'hair']
        >>> units_of(phrases, "phrase")
        ['dark blue jeans', 'hair']
    """
    units: dict[str, None] = {}
    for phrase in phrases:
        if unit == "word":
            units.update(dict.fromkeys(phrase))
        elif unit == "pair" and len(phrase) > 1:
            units.update((f"{word} {phrase[-1]}", None) for word in phrase[:-1])
        else:
            units[" ".join(phrase)] = None
    return list(units)


class NounPhrases:
    """Captions to numbers of the noun-phrase units in them, for `crosswalk.labels.text_iou`.

    The numbers are those of the captions given to `learn`, by first appearance, so every process
    that learns the same captions numbers alike. How the paper finds noun phrases is not known.

    Args:
        unit: What captions are compared by; see `units_of`. The paper's reading notes say words.
        synonyms: Whether words with one meaning count as one.
        backend: ``rules`` (`phrases_by_rules`), or ``textblob`` (`phrases_by_textblob`), which
            needs the extra ``phrases`` of the installation.

    Example:
        >>> phrases = NounPhrases()
        >>> phrases.learn(["a man in a red coat", "a woman with a red bag"])
        >>> phrases(["a woman in a coat", "she is walking", "a man in a red coat"])
        tensor([[4, 3, 0],
                [0, 0, 0],
                [1, 2, 3]])
    """

    unit: Literal["word", "pair", "phrase"]
    synonyms: bool
    backend: Literal["rules", "textblob"]
    version = f"{RULES_VERSION}-{_digest(LEXICON)}"
    """Changes with the word lists and the rules: phrases of another version are found anew."""

    def __init__(
        self,
        unit: Literal["word", "pair", "phrase"] = "word",
        synonyms: bool = True,
        backend: Literal["rules", "textblob"] = "rules",
    ) -> None:
        if backend == "textblob":
            _textblob_parser()  # before a data set is read for nothing
        self.unit = unit
        self.synonyms = synonyms
        self.backend = backend
        self._number: dict[str, int] = {}

    @property
    def num_units(self) -> int:
        """How many units have a number."""
        return len(self._number)

    def units(self, captions: Iterable[str]) -> list[list[str]]:
        """Return the units of every caption, each once.

        Example:
            >>> NounPhrases(unit="phrase").units(["a man in a red coat"])
            [['man', 'red coat']]
        """
        extract = phrases_by_rules if self.backend == "rules" else phrases_by_textblob
        return [units_of(extract(text, synonyms=self.synonyms), self.unit) for text in captions]

    def learn(self, captions: Iterable[str]) -> None:
        """Number the units of ``captions``, instead of what was learned before."""
        self._number = {}
        for units in self.units(captions):
            for unit in units:
                self._number.setdefault(unit, len(self._number) + 1)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ``[captions, P]`` int64 numbers from 1, each once; 0 after the last.

        P is the largest number of units of one caption.

        Raises:
            ValueError: If a caption has a unit that none of the learned captions has.
        """
        units = self.units(captions)
        longest = max(map(len, units), default=0)
        numbers = np.zeros((len(units), longest), dtype=np.int64)
        for row, caption, known in zip(numbers, captions, units, strict=True):
            try:
                row[: len(known)] = [self._number[unit] for unit in known]
            except KeyError as error:
                raise ValueError(
                    f"the noun phrase {error} of {caption!r} was not learned: "
                    "learn all captions of the training set first"
                ) from None
        return torch.from_numpy(numbers)
