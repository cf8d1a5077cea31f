"""Parameters of a W&B sweep file as the local search understands them.

W&B draws each parameter from a distribution. Optuna has uniform, log-uniform and categorical ones;
what is one of them under another name is mapped, what is not is refused with what to write instead.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Value = bool | int | float | str


def short(value: Value) -> str:
    """Return a value with four digits.

    Example:
        >>> short(0.00016940792713382026), short(64), short("triplet_ranking")
        ('0.0001694', '64', 'triplet_ranking')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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

Reader = Callable[[str, Mapping[str, Any]], Parameter]
KEYS = ("value", "values", "min", "max", "mu", "sigma", "q", "a", "b", "probabilities")


def read_parameter(name: str, given: object) -> Parameter:
    """Return what one entry of ``parameters`` means.

    Args:
        name: Dotted key of the configuration.
        given: What stands behind it in the file.

    Raises:
        ValueError: If it is not valid, or cannot be drawn exactly by Optuna.

    Example:
        >>> read_parameter("optim.lr", {"distribution": "log_uniform_values",
        ...                             "min": 0.001, "max": 0.1})
        Range(low=0.001, high=0.1, whole=False, log=True, multiple=None)
        >>> read_parameter("data.batch_size", {"values": [32, 64]})
        Choice(values=(32, 64))
    """
    place = f"parameters.{name}"
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{place} is {given!r}; write value, values, or min and max below it.")
    if "parameters" in given:
        raise ValueError(
            f"{place}.parameters: nested parameters are not understood here. Write dotted names, "
            f"such as {name}.<key>."
        )
    for key in given:
        if key not in (*KEYS, "distribution"):
            raise ValueError(f"{place}.{key} is not a key of a W&B parameter.")
    distribution = given.get("distribution") or _distribution(place, given)
    if distribution not in READERS:
        raise ValueError(
            f"{place}.distribution={distribution} does not exist. Understood here are "
            f"{', '.join(name for name in READERS if name not in REFUSED)}."
        )
    wanted, read = READERS[distribution]
    for key in given:
        if key not in (*wanted, "distribution"):
            raise ValueError(
                f"{place}.{key} does not belong to distribution: {distribution}, which takes "
                f"{', '.join(wanted)}."
            )
    return read(place, given)


def _distribution(place: str, given: Mapping[str, Any]) -> str:
    """Return the distribution that W&B takes where none is named."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical"
    if "min" in given and "max" in given:
        whole = all(_is_whole(given[key]) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise ValueError(
        f"{place} says neither value, values, nor min and max; then it must name a distribution."
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_yaml(number: float) -> str:
    """Return a number as YAML reads it: with a point before an exponent.

    Example:
        >>> _as_yaml(3e-6), _as_yaml(0.5)
        ('3.0e-06', '0.5')
    """
    mantissa, exponent, power = repr(number).partition("e")
    return f"{mantissa}{'' if '.' in mantissa or not exponent else '.0'}{exponent}{power}"


def _number(place: str, given: Mapping[str, Any], key: str) -> float:
    value = given.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    if value is None:
        raise ValueError(f"{place}.{key} is missing.")
    hint = ""
    with contextlib.suppress(TypeError, ValueError):
        hint = f" YAML reads it as text; write {_as_yaml(float(str(value)))}."
    raise ValueError(f"{place}.{key}={value!r} is not a number.{hint}")


def _ends(place: str, given: Mapping[str, Any]) -> tuple[float, float]:
    low, high = _number(place, given, "min"), _number(place, given, "max")
    if low >= high:
        raise ValueError(f"{place}: min={low} is not less than max={high}.")
    return low, high


def _positive_ends(place: str, given: Mapping[str, Any]) -> tuple[float, float]:
    low, high = _ends(place, given)
    if low <= 0:
        raise ValueError(f"{place}.min={low} must be above 0: its logarithm is drawn.")
    return low, high


def _constant(place: str, given: Mapping[str, Any]) -> Parameter:
    if "value" not in given:
        raise ValueError(f"{place}.value is missing.")
    return Constant(_value(f"{place}.value", given["value"]))


def _categorical(place: str, given: Mapping[str, Any]) -> Parameter:
    if "probabilities" in given:
        raise ValueError(
            f"{place}.probabilities: Optuna draws all values equally often. Leave them out."
        )
    values = given.get("values")
    if not isinstance(values, list) or not values:
        raise ValueError(f"{place}.values={values!r} is not a list of values.")
    read = [_value(f"{place}.values", value) for value in values]
    texts = [str(value) for value in read]
    for text in texts:
        if texts.count(text) > 1:
            raise ValueError(f"{place}.values has {text} twice. Name each value once.")
    return Choice(tuple(read))


def _value(place: str, value: object) -> Value:
    """Return a value as a trial gets it; a list as the text that W&B's agent makes of it."""
    if value is None:
        raise ValueError(
            f"{place} is empty, which W&B hands over as the text None. Write 'null' in quotes."
        )
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return str(value)
    raise ValueError(
        f"{place}={value!r}: one key takes one value or a list. Write a parameter with a dotted "
        "name for each key."
    )


def _int_uniform(place: str, given: Mapping[str, Any]) -> Parameter:
    low, high = _ends(place, given)
    for key, end in (("min", low), ("max", high)):
        if not _is_whole(end):
            raise ValueError(f"{place}.{key}={end} is not a whole number.")
    return Range(low, high, whole=True)


def _uniform(place: str, given: Mapping[str, Any]) -> Parameter:
    low, high = _ends(place, given)
    return Range(float(low), float(high))


def _q_uniform(place: str, given: Mapping[str, Any]) -> Parameter:
    low, high = _ends(place, given)
    return Range(float(low), float(high), multiple=_multiple(place, given))


def _multiple(place: str, given: Mapping[str, Any]) -> float:
    multiple = _number(place, {"q": 1, **given}, "q")
    if multiple <= 0:
        raise ValueError(f"{place}.q={multiple} must be above 0.")
    return multiple


def _log_uniform_values(place: str, given: Mapping[str, Any]) -> Parameter:
    low, high = _positive_ends(place, given)
    return Range(float(low), float(high), log=True)


def _q_log_uniform_values(place: str, given: Mapping[str, Any]) -> Parameter:
    low, high = _positive_ends(place, given)
    return Range(float(low), float(high), log=True, multiple=_multiple(place, given))


def _exponents(distribution: str, sign: int) -> Reader:
    """Return a reader that says what to write instead of exponents of e, W&B's old way."""

    def refuse(place: str, given: Mapping[str, Any]) -> Parameter:
        low, high = sorted(math.exp(sign * end) for end in _ends(place, given))
        raise ValueError(
            f"{place}.distribution={distribution} takes exponents of e, which W&B advises against. "
            f"Write distribution: {'q_' if 'q_' in distribution else ''}log_uniform_values, "
            f"min: {low:.6g}, max: {high:.6g}."
        )

    return refuse


def _bell(distribution: str) -> Reader:
    """Return a reader that says what to write instead of a normal distribution."""

    def refuse(place: str, given: Mapping[str, Any]) -> Parameter:
        centre = _number(place, {"mu": 0.0, **given}, "mu")
        width = _number(place, {"sigma": 1.0, **given}, "sigma")
        low, high = centre - 2 * width, centre + 2 * width
        kind = "uniform"
        if "log" in distribution:
            low, high, kind = math.exp(low), math.exp(high), "log_uniform_values"
        raise ValueError(
            f"{place}.distribution={distribution}: Optuna has no distribution without ends. "
            f"Write distribution: {'q_' if 'q_' in distribution else ''}{kind}, min: {low:.6g}, "
            f"max: {high:.6g} (two standard deviations)."
        )

    return refuse


def _beta(place: str, given: Mapping[str, Any]) -> Parameter:
    raise ValueError(
        f"{place}.distribution={given['distribution']}: Optuna has no beta distribution. Write "
        "distribution: uniform, min: 0.0, max: 1.0."
    )


_ENDS = ("min", "max")
_BELL = ("mu", "sigma")
READERS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "constant": (("value",), _constant),
    "categorical": (("values", "probabilities"), _categorical),
    "categorical_w_probabilities": (("values", "probabilities"), _categorical),
    "int_uniform": (_ENDS, _int_uniform),
    "uniform": (_ENDS, _uniform),
    "q_uniform": ((*_ENDS, "q"), _q_uniform),
    "log_uniform_values": (_ENDS, _log_uniform_values),
    "q_log_uniform_values": ((*_ENDS, "q"), _q_log_uniform_values),
    # the logarithm of 1 / x is drawn evenly where that of x is
    "inv_log_uniform_values": (_ENDS, _log_uniform_values),
    "log_uniform": (_ENDS, _exponents("log_uniform", 1)),
    "inv_log_uniform": (_ENDS, _exponents("inv_log_uniform", -1)),
    "q_log_uniform": ((*_ENDS, "q"), _exponents("q_log_uniform", 1)),
    "normal": (_BELL, _bell("normal")),
    "q_normal": ((*_BELL, "q"), _bell("q_normal")),
    "log_normal": (_BELL, _bell("log_normal")),
    "q_log_normal": ((*_BELL, "q"), _bell("q_log_normal")),
    "beta": (("a", "b"), _beta),
    "q_beta": (("a", "b", "q"), _beta),
}
"""For each distribution of W&B: its keys, and what reads them."""

REFUSED = (
    *("categorical_w_probabilities", "log_uniform", "inv_log_uniform", "q_log_uniform"),
    *("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta"),
)
"""Distributions that a reader answers with what to write instead."""
