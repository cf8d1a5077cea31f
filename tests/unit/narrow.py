"""Terminals of some width, and the numbers that stand in what is printed there."""

from __future__ import annotations

import re
from collections import Counter

import pytest

WIDTHS = (60, 68, 72, 80)


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Let rich take any stream for a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")


def plain(text: str) -> str:
    """Return a text without colours."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)


def times_left(bar: str) -> list[str]:
    """Return what stands behind every remaining time of the lines of a bar."""
    return re.findall(r"[\d-]+:[\d-]{2}:[\d-]{2}( left|)", plain(bar))


def figures(text: str) -> Counter[str]:
    """Return how often every number stands in a text, with its sign, brackets and commas."""
    words = re.sub(r"[│┃]", " ", plain(text)).split()
    return Counter(
        word for word in words if re.search(r"\d", word) and not re.search(r"[^\W\d]", word)
    )
