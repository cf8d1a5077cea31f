"""What tells one synthetic place from another: its fashion, its season, its cameras.

A `Look` is everything of which people of two data sets differ in distribution. The renderer, the
captions and the writers of layouts know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crosswalk.synthetic.tables import table


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


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def _looks(kind: str) -> dict[str, Look]:
    return {name: Look(name, **_settings(given)) for name, given in table("looks")[kind].items()}


LOOKS = _looks("pairs")
"""Looks by name. `city` is the default."""

IMAGE_LOOKS = _looks("images")
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
