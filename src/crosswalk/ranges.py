"""Ranges of what a configuration can set, for the annotations of constructors.

`crosswalk.config.constructors` compares every value with them, as with the choices of a
`Literal`. A whole number has an upper end too: beyond it memory or patience run out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, Lt


@dataclass(frozen=True)
class Matching:
    """A text of a pattern, which ``words`` describes."""

    pattern: str
    words: str


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
