"""What the limits of `crosswalk.ranges` allow, and how they are said."""

from __future__ import annotations

import re
from typing import Any

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen

from crosswalk.ranges import Matching


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
