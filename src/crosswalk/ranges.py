"""Ranges of what a configuration can set, for the annotations of constructors.

`crosswalk.config.constructors` compares every value with them, as with the choices of a
`Literal`. A whole number has an upper end too: beyond it memory or patience run out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen


@dataclass(frozen=True)
class Matching:
    """A text of a pattern, which ``words`` describes."""

    pattern: str
    words: str


def allows(limit: Any, value: Any) -> bool:  # noqa: ANN401
    """Return whether a value keeps to one limit; metadata of other kinds allow all.

    Example:
        >>> allows(Ge(1), 0), allows(Matching("[ab]+", "a and b"), "abba"), allows("a note", -1)
        (False, True, True)
    """
    match limit:
        case Ge(ge=least):
            return bool(value >= least)
        case Gt(gt=bound):
            return bool(value > bound)
        case Le(le=most):
            return bool(value <= most)
        case Lt(lt=bound):
            return bool(value < bound)
        case Len(min_length=least, max_length=most):
            return least <= len(value) and (most is None or len(value) <= most)
        case MinLen(min_length=least):
            return len(value) >= least
        case MaxLen(max_length=most):
            return len(value) <= most
        case Matching(pattern=pattern):
            return re.fullmatch(pattern, value) is not None
    return True


def in_words(limit: Any) -> str:  # noqa: ANN401
    """Return what a limit allows; nothing for metadata of other kinds.

    Example:
        >>> in_words(Ge(1)), in_words(Len(2, 2))
        ('>= 1', 'of 2 values')
    """
    match limit:
        case Ge(ge=least):
            return f">= {least}"
        case Gt(gt=bound):
            return f"> {bound}"
        case Le(le=most):
            return f"<= {most}"
        case Lt(lt=bound):
            return f"< {bound}"
        case Len(min_length=least, max_length=most) if least == most:
            return f"of {least} values"
        case Len(min_length=least, max_length=None) | MinLen(min_length=least):
            return f"of at least {least} value{'s' * (least != 1)}"
        case Matching(words=words):
            return f"of {words}"
    return ""


Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what NumPy's generators take
Epoch = Annotated[int, Ge(0), Le(10**6)]  # or a number of them, or of steps in units of thousands
Count = Annotated[int, Ge(1), Le(10**6)]  # of samples, neighbours, iterations
WholeNumber = Annotated[int, Ge(0), Le(10**6)]  # likewise, or none
Width = Annotated[int, Ge(1), Le(2**16)]  # of a layer
Depth = Annotated[int, Ge(1), Le(1000)]  # layers, heads
Workers = Annotated[int, Ge(0), Le(1024)]
Pixels = Annotated[int, Ge(1), Le(4096)]  # a side of an image
Padding = Annotated[int, Ge(0), Le(1024)]
TokenCount = Annotated[int, Ge(1), Le(4096)]

Share = Annotated[float, Ge(0), Le(1)]
Margin = Annotated[float, Ge(0), Le(2)]  # in cosine units
OpenShare = Annotated[float, Ge(0), Lt(1)]  # of a running mean: at 1 nothing new arrives
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Similarity = Annotated[float, Ge(-1), Le(1)]
"""Of unit vectors."""

ImageSize = Annotated[Sequence[Pixels], Len(2, 2)]
"""Height and width."""
Range = tuple[Positive, Positive]
"""Least and largest."""
Colour = tuple[float, float, float]
"""A value of each channel."""

# What W&B takes as names
Label = Annotated[str, Matching(r"(?s).{1,128}", "1 to 128 characters")]
Project = Annotated[
    str, Matching(r"[^/\\#?%:]{1,128}", "1 to 128 characters, without / \\ # ? % :")
]
