"""Random streams keyed by integers, and the few draws that everything synthetic is made of."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def keyed_generator(*keys: int | str) -> np.random.Generator:
    """Return a generator that depends on the keys alone, not on the process or the order of calls.

    That is why a person looks the same however many workers render the set.

    Args:
        keys: Non-negative numbers or words that name the stream, such as the seed, the look, the
            purpose and the person.

    Returns:
        A fresh generator.

    Example:
        >>> keyed_generator(0, "people", 7).integers(100) == keyed_generator(
        ...     0, "people", 7
        ... ).integers(100)
        np.True_
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of the options, each with the same probability.

    Example:
        >>> pick(keyed_generator(0), ["only"])
        'only'
    """
    return options[int(rng.random() * len(options))]


def draw(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return one of the words, with a probability in proportion to its weight.

    Args:
        rng: Source of the draw.
        weights: Weight >= 0 of each word; at least one is positive.

    Returns:
        The word drawn.

    Example:
        >>> draw(keyed_generator(0), {"never": 0.0, "always": 2.0})
        'always'
    """
    left = rng.random() * sum(weights.values())
    for word, weight in weights.items():
        left -= weight
        if left < 0:
            return word
    return max(weights, key=lambda word: weights[word])
