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
        tint: Factor on each channel that all cameras have in common.
        gamma: Range of the exponent of each camera's tone curve.
        contrast: Range of each camera's slope around middle grey.
        noise: Range of the standard deviation of each camera's grain, in grey levels.
        quality: Range of each camera's JPEG quality.
        height: Range of each camera's typical height of a crop, in pixels.
        height_limits: Least and largest height of a crop, in pixels.
        crop_size: Width and height of every crop; None lets them vary with `height`.
        light: Range of the factor that the light of the moment puts on the exposure.
        light_cast: Largest deviation of a channel's gain in the light of the moment.
        occluders: What stands in front of people, weighted; "none" is nothing.
        figure: Range of a person's height in the painted picture, as a share of its height.
        offset: Largest distance of a person from the middle, as a share of the picture's width.
        box_error: Largest shares of the painted picture that a detector's box cuts off at either
            side, at the top and at the bottom.
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
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: tuple[float, float] = (0.82, 1.2)
    contrast: tuple[float, float] = (0.8, 1.15)
    noise: tuple[float, float] = (1.0, 7.0)
    quality: tuple[int, int] = (62, 95)
    height: tuple[int, int] = (190, 360)
    height_limits: tuple[int, int] = (160, 400)
    crop_size: tuple[int, int] | None = None
    light: tuple[float, float] = (0.82, 1.18)
    light_cast: float = 0.04
    occluders: Mapping[str, float] = field(
        default_factory=lambda: {"none": 0.8, "low": 0.07, "pole": 0.06, "passer-by": 0.07}
    )
    figure: tuple[float, float] = (0.8, 0.88)
    offset: float = 0.06
    box_error: tuple[float, float, float] = (0.16, 0.06, 0.05)


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

IMAGE_LOOKS: dict[str, Look] = {
    # a campus in summer: small hazy pictures, loose boxes, light clothes, short sleeves
    "summer": Look(
        "summer",
        warmth=0.95,
        colour_weights={"white": 1.6, "pink": 1.5, "light blue": 1.4, "yellow": 1.3, "black": 0.7},
        bag_rate=0.62,
        headwear_rate=0.12,
        cameras={"site": 6},
        exposure=(0.78, 1.06),
        cast=0.1,
        sharpness=(0.35, 0.75),
        places={"street": 2.0, "grass": 4.0, "wall": 0.7, "plaza": 2.5},
        tint=(1.1, 1.0, 0.86),
        gamma=(0.8, 1.15),
        contrast=(0.75, 0.95),
        noise=(1.0, 6.0),
        quality=(70, 95),
        crop_size=(64, 128),
        figure=(0.66, 0.88),
        offset=0.1,
        box_error=(0.2, 0.1, 0.08),
    ),
    # a town in winter: dim, bluish, coats and bags, people hidden by one another
    "winter": Look(
        "winter",
        warmth=0.12,
        colour_weights={"black": 2.0, "grey": 1.7, "navy": 1.7, "white": 0.6, "pink": 0.5},
        bag_rate=0.74,
        headwear_rate=0.34,
        cameras={"site": 8},
        exposure=(0.58, 0.92),
        cast=0.1,
        sharpness=(0.35, 0.9),
        places={"street": 4.0, "grass": 0.4, "wall": 3.0, "plaza": 2.0},
        tint=(0.93, 1.0, 1.1),
        gamma=(0.9, 1.25),
        contrast=(0.75, 1.0),
        noise=(2.0, 8.0),
        quality=(70, 95),
        height=(130, 340),
        height_limits=(110, 400),
        occluders={"none": 0.7, "low": 0.1, "pole": 0.06, "passer-by": 0.14},
    ),
    # halls and streets from morning to evening: all kinds of light
    "terminal": Look(
        "terminal",
        warmth=0.5,
        colour_weights={"red": 1.3, "olive": 1.5, "brown": 1.4, "maroon": 1.4},
        bag_rate=0.66,
        headwear_rate=0.2,
        cameras={"site": 15},
        exposure=(0.75, 1.05),
        cast=0.05,
        sharpness=(0.5, 1.0),
        places={"street": 2.0, "grass": 0.8, "wall": 1.2, "plaza": 1.0, "indoor": 4.5},
        tint=(0.98, 1.04, 0.98),
        gamma=(0.9, 1.15),
        contrast=(0.85, 1.1),
        noise=(1.0, 8.0),
        height=(140, 360),
        height_limits=(110, 400),
        light=(0.82, 1.15),
        light_cast=0.03,
    ),
}
"""Looks of the image sets, which have one place with numbered cameras each."""


def look_named(name: str) -> Look:
    """Return the look of this name.

    Raises:
        ValueError: If there is none.

    Example:
        >>> look_named("city").name
        'city'
    """
    looks = LOOKS | IMAGE_LOOKS
    if name not in looks:
        raise ValueError(
            f"there is no look {name!r} for synthetic people. Set domain to one of "
            f"{', '.join(sorted(LOOKS))}."
        )
    return looks[name]
