"""What messages say of words, values and types: the nearest word, a value cut, a type in words."""

from __future__ import annotations

import collections.abc
import difflib
import re
import types
import typing
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Literal, Union

from crosswalk.config.keys import CALLED_ELSEWHERE, SAME_NAMES
from crosswalk.config.limits import in_words

PLAIN_TYPES = (bool, int, float, str)
LISTS = ("builtins", "collections.abc")
"""Modules of classes that a list of YAML may be; those of others are objects."""
CALLED_BY_LETTERS = {word.replace("_", ""): meant for word, meant in CALLED_ELSEWHERE.items()}


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return a question after the nearest candidate, or nothing where none is near.

    A dotted key whose last part is right somewhere else counts as nearest, then one that other
    programs of the field call so, or this one first for a word without dots.

    Example:
        >>> did_you_mean("method.temperature", ["method.seed", "method.loss.temperature"])
        ' Did you mean method.loss.temperature?'
        >>> did_you_mean("rdee", ["rde", "mmcl"])
        ' Did you mean rde?'
        >>> did_you_mean("tripet", ["multilabel", "triplet_ranking", "triplet_alignment"])
        ' Did you mean triplet_ranking?'
        >>> did_you_mean("gpu", ["cpu", "one_gpu"])
        ' Did you mean one_gpu?'
        >>> did_you_mean("learning_rate", ["method.momentum_growth", "optim.lr"])
        ' Did you mean optim.lr?'
    """
    candidates = list(dict.fromkeys(candidates))
    last = word.rsplit(".", 1)[-1]
    elsewhere = CALLED_BY_LETTERS.get(re.sub(r"[-_]", "", last.lower()))
    same_name = [
        each
        for each in candidates
        if each.rsplit(".", 1)[-1] in (last, SAME_NAMES.get(last))
        and ("." in each or "." not in word)
    ]
    longer = [candidate for candidate in candidates if word and candidate.startswith(word)]
    holding = [
        each
        for each in candidates
        if (len(word) > 3 or "." not in each) and word in each.rsplit(".", 1)[-1].split("_")
    ]
    near = [
        candidate
        for candidate in difflib.get_close_matches(word, candidates, n=3, cutoff=0.6)
        if _are_near(last, candidate.rsplit(".", 1)[-1])
    ]
    meant = [elsewhere] if elsewhere in candidates else []
    plural = [each for each in longer if len(each) - len(word) <= 2]
    best = (meant if "." not in word else plural) or same_name or meant or longer or holding or near
    if not best and len(word) > 3 and "." not in word:  # one word of a name is
        words = {part: each for each in reversed(candidates) for part in re.split(r"[_/.]", each)}
        best = [words[part] for part in difflib.get_close_matches(last, words, 1, cutoff=0.8)]
    return f" Did you mean {best[0]}?" if best else ""


def _are_near(word: str, candidate: str) -> bool:
    """Return whether words are about as long, share most letters, and half of the longer one's."""
    matcher = difflib.SequenceMatcher(None, word, candidate)
    shared = sum(block.size for block in matcher.get_matching_blocks())
    longer = max(len(word), len(candidate))
    as_long = abs(len(word) - len(candidate)) <= max(2, longer // 3)
    return as_long and matcher.ratio() >= 0.6 and 2 * shared > longer


def shown(value: object) -> str:
    """Return a value for a message, cut where it is long.

    Example:
        >>> shown([0.5]), len(shown("a" * 1000))
        ('[0.5]', 81)
    """
    words = "null" if value is None else repr(value)
    return words if len(words) <= 100 else f"{words[:80]}…"


def readable(expected: Any) -> str:  # noqa: ANN401
    """Return an annotation in words, with the range of its numbers.

    Example:
        >>> from collections.abc import Mapping
        >>> from crosswalk.ranges import Positive
        >>> readable(Positive | None), readable(Literal["val", "last"])
        ('float > 0 | null', 'val | last')
        >>> readable(tuple[int, int]), readable(Mapping[str, float])
        ('list of 2 x int', 'mapping of float')
    """
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Annotated:
        words = " and ".join(filter(None, map(in_words, inner[1:])))
        return " ".join(filter(None, [readable(inner[0]), words]))
    if origin is Literal:
        return " | ".join(dict.fromkeys(map(str, inner)))
    if origin in (Union, types.UnionType):
        return " | ".join(map(readable, inner))
    if expected in (None, types.NoneType):
        return "null"
    if expected in (Any, object):
        return "any value"
    if expected is bool:
        return "true | false"
    if expected in PLAIN_TYPES:
        return str(expected.__name__)
    plain = origin or expected
    if not isinstance(plain, type) or plain.__name__ == "Callable":
        return "a node with _target_"
    if issubclass(plain, PurePath):
        return "path"
    if issubclass(plain, collections.abc.Mapping):
        return f"mapping of {readable(inner[1])}" if len(inner) == 2 else "mapping"
    if issubclass(plain, collections.abc.Iterable) and plain.__module__ in LISTS:
        kinds = [readable(each) for each in inner if each is not Ellipsis]
        same = len(kinds) > 1 and len(set(kinds)) == 1
        words = f"{len(kinds)} x {kinds[0]}" if same else ", ".join(kinds)
        return f"list of {words}" if kinds else "list"
    return f"{plain.__name__} (a node with _target_)"
