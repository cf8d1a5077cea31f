"""What a parameter of a sweep can be: always the same, one of several values, or a range."""

from __future__ import annotations

import math
from dataclasses import dataclass

Value = bool | int | float | str


@dataclass(frozen=True)
class Constant:
    """The same value in every trial."""

    value: Value

    @property
    def examples(self) -> tuple[Value, ...]:
        """Values to check before the first trial."""
        return (self.value,)

    def __str__(self) -> str:
        return f"{self.value}"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    @property
    def examples(self) -> tuple[Value, ...]:
        """Values to check before the first trial: all of them."""
        return self.values

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Range:
    """A number between two others, both included.

    Attributes:
        low: The least.
        high: The greatest.
        whole: Whether only whole numbers are drawn.
        log: Whether its logarithm is drawn evenly.
        multiple: What the drawn number is rounded to a multiple of, as W&B's q_ distributions do:
            the values at both ends are then drawn half as often.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    multiple: float | None = None

    def rounded(self, drawn: float) -> Value:
        """Return what a trial gets for a drawn number.

        Example:
            >>> Range(0, 1, multiple=0.25).rounded(0.4)
            0.5
            >>> Range(0, 100, multiple=10).rounded(57.1)
            60
        """
        if self.multiple is None:
            return drawn
        steps = round(drawn / self.multiple)
        if isinstance(self.multiple, int):
            return steps * self.multiple
        digits = max(0, 12 - math.floor(math.log10(self.multiple)))
        return round(steps * self.multiple, digits)  # 3 * 0.1 is not 0.3

    @property
    def examples(self) -> tuple[Value, ...]:
        """Values to check before the first trial: both ends."""
        return (self.rounded(self.low), self.rounded(self.high))

    def __str__(self) -> str:
        kind = "whole numbers " if self.whole else ""
        ends = f"{self.low:g} to {self.high:g}"
        multiple = "" if self.multiple is None else f", multiples of {self.multiple:g}"
        return f"{kind}{ends}{', logarithmic' if self.log else ''}{multiple}"


Parameter = Constant | Choice | Range
