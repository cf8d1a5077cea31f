"""What tells one synthetic place from another: its fashion, its season, its cameras.

A `Look` is everything of which people of two data sets differ in distribution. The renderer, the
captions and the writers of layouts know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Look:
    """The distribution that people and cameras of one synthetic place come from.

    Attributes:
        name: Its name; also keys the random streams, so no person is in two looks.
        warmth: Season, 0 (winter: coats, long sleeves) to 1 (summer: shorts, short sleeves).
        colour_weights: Relative frequency of garment colours where it is not the usual one.
        bag_rate: Share of people with a bag.
        headwear_rate: Share of people with something on their head.
        look_alike_share: Share of people who are a variation of a neighbour.
        cameras: Number of cameras of each source folder.
        exposure: Range of each camera's usual exposure, 1 = as painted.
        cast: Largest deviation of a camera's channel gains from 1.
        sharpness: Range of the share of pixels that a camera really resolves, in (0, 1].
        places: Backgrounds that occur, weighted.
    """

    name: str
    warmth: float = 0.55
    colour_weights: Mapping[str, float] = field(default_factory=dict)
    bag_rate: float = 0.58
    headwear_rate: float = 0.2
    look_alike_share: float = 0.6
    cameras: Mapping[str, int] = field(
        default_factory=lambda: {
            "cam_a": 1,
            "cam_b": 1,
            "CUHK01": 2,
            "CUHK03": 4,
            "Market": 6,
            "test_query": 3,
            "train_query": 4,
        }
    )
    exposure: tuple[float, float] = (0.7, 1.12)
    cast: float = 0.09
    sharpness: tuple[float, float] = (0.35, 1.0)
    places: Mapping[str, float] = field(
        default_factory=lambda: {"street": 3.0, "grass": 2.0, "wall": 2.0, "plaza": 2.0}
    )


LOOKS: dict[str, Look] = {
    "city": Look("city"),
    "campus": Look(
        "campus",
        warmth=0.7,
        colour_weights={"blue": 1.8, "light blue": 1.6, "orange": 1.6, "black": 0.7, "green": 1.4},
        bag_rate=0.66,
        headwear_rate=0.26,
        exposure=(0.8, 1.2),
        cast=0.06,
        sharpness=(0.45, 1.0),
        places={"street": 1.0, "grass": 4.0, "wall": 1.5, "plaza": 3.0},
    ),
}
"""Looks by name. `city` is the default; `campus` is meant for pre-training: other people, other
cameras, other fashion."""


def look_named(name: str) -> Look:
    """Return the look of this name.

    Raises:
        ValueError: If there is none.

    Example:
        >>> look_named("city").name
        'city'
    """
    if name not in LOOKS:
        raise ValueError(
            f"there is no look {name!r} for synthetic people. Set domain to one of "
            f"{', '.join(sorted(LOOKS))}."
        )
    return LOOKS[name]
