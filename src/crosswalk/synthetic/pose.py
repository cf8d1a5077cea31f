"""How a person stands before a camera: direction, step and the joints that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from crosswalk.synthetic.people import Person

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Shot:
    """All that differs between two pictures of one person.

    Attributes:
        key: Number that keys the details of the picture's random streams.
        source: Source folder, a key of `Look.cameras`.
        camera: Camera within the source, from 0.
        yaw: Direction the person faces, in radians: 0 to the camera, pi / 2 to the right edge of
            the picture, pi away from the camera.
        phase: Phase of the step, in radians.
        stride: Largest angle of the thighs, in radians; below 0.12 the person stands.
        arm: Largest angle of the arms, in radians.
        occluder: What hides a part of the person: "none", "low", "pole" or "passer-by".
        umbrella_open: Whether a person who has an umbrella holds it open.
    """

    key: int
    source: str
    camera: int
    yaw: float
    phase: float
    stride: float
    arm: float
    occluder: str
    umbrella_open: bool


def passing(shot: Shot, rng: np.random.Generator) -> Shot:
    """Return how somebody else walks through the picture of a shot."""
    return replace(
        shot,
        yaw=rng.uniform(-3, 3),
        phase=rng.uniform(0, 6),
        stride=0.4,
        arm=0.6,
        occluder="none",
        umbrella_open=False,
    )


def view_of(yaw: float) -> str:
    """Return "front", "back", "left" or "right": where a person facing this way is turned to.

    "left" and "right" are edges of the picture.

    Example:
        >>> view_of(0.1), view_of(math.pi / 2), view_of(math.pi), view_of(-math.pi / 2)
        ('front', 'right', 'back', 'left')
    """
    toward = math.cos(yaw)
    if abs(toward) < 0.5:
        return "right" if math.sin(yaw) > 0 else "left"
    return "front" if toward > 0 else "back"


def visible_items(person: Person, shot: Shot) -> frozenset[str]:
    """Return which of a person's items someone who sees the picture can name.

    Args:
        person: The person shown.
        shot: The picture.

    Returns:
        Names of fields of `Person`; of a shirt under an open jacket and of a print on a chest
        only where the front shows ("upper.pattern" stands for the print).

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> from crosswalk.synthetic.people import person_of
        >>> away = Shot(0, "Market", 0, math.pi, 0.0, 0.4, 0.3, "low", False)
        >>> person = person_of(LOOKS["city"], seed=0, person_id=0)
        >>> bool({"shoes", "glasses"} & visible_items(person, away))
        False
    """
    toward, aside = math.cos(shot.yaw), math.sin(shot.yaw)
    seen = {"hair", "headwear", "lower", "scarf"}
    if person.outer.kind == "none" or toward > 0.25:
        seen.add("upper")
    if toward > 0.25 or person.upper.pattern != "logo":
        seen.add("upper.pattern")
    if person.outer.kind != "none":
        seen.add("outer")
    if shot.occluder != "low":
        seen |= {"shoes", "socks"}
    if toward > -0.2:
        seen.add("glasses")
    if shot.umbrella_open:
        seen.add("umbrella")
    if toward > -0.5:
        seen.add("phone")
    # side 1 is the person's left, which is turned away where the person faces the right edge
    near = -person.bag.side * aside > -0.6
    if person.bag.kind == "backpack" or near:
        seen.add("bag")
    if person.carried.kind in ("shopping bag", "bottle"):
        if -person.carried.side * aside > -0.6:
            seen.add("carried")
    elif toward > -0.3:
        seen.add("carried")
    return frozenset(name for name in seen if name == "upper.pattern" or _has(person, name))


def _has(person: Person, name: str) -> bool:
    return bool(getattr(person, name).kind != "none")


class Skeleton:
    """Joints of a person in a shot: ``(x, y, depth)``, body heights, y up, depth to the viewer."""

    def __init__(self, person: Person, shot: Shot) -> None:
        self._cos, self._sin = math.cos(shot.yaw), math.sin(shot.yaw)
        wide = {"slim": 0.9, "average": 1.0, "heavy": 1.16}[person.build]
        male = person.sex == "male"
        self.shoulder = (0.118 if male else 0.1) * wide
        self.hip = (0.088 if male else 0.094) * wide
        self.chest_depth = (0.07 if male else 0.066) * wide * (1.12 if wide > 1.1 else 1.0)
        self.limb = wide
        swing = shot.stride * math.sin(shot.phase)
        self.legs = {side: self._leg(side, side * swing, shot) for side in (1, -1)}
        self.arms = {side: self._arm(side, -side * swing, person, shot) for side in (1, -1)}

    def place(self, left: float, up: float, forward: float) -> Point:
        """Return a point of the body, given along its own axes, as the camera sees it."""
        depth = forward * self._cos - left * self._sin
        return left * self._cos + forward * self._sin, up - 0.1 * depth, depth

    def half_width(self, lateral: float, forward: float) -> float:
        """Return half the visible width of a trunk with these half axes."""
        return math.hypot(lateral * self._cos, forward * self._sin)

    def _leg(self, side: int, angle: float, shot: Shot) -> tuple[Point, Point, Point, Point]:
        left = side * self.hip * 0.56
        bend = max(0.0, -angle) * 0.9 + 0.05 * abs(math.cos(shot.phase)) * (shot.stride > 0.12)
        lift = 0.0
        knee = (left, 0.5 - 0.235 * math.cos(angle), 0.235 * math.sin(angle))
        shin = angle - bend
        ankle = (left, knee[1] - 0.225 * math.cos(shin) + lift, knee[2] + 0.225 * math.sin(shin))
        toe = (left * 1.25, ankle[1] - 0.02, ankle[2] + 0.075)
        return (
            self.place(left, 0.52, 0.0),
            self.place(*knee),
            self.place(*ankle),
            self.place(*toe),
        )

    def _arm(
        self, side: int, angle: float, person: Person, shot: Shot
    ) -> tuple[Point, Point, Point]:
        left = side * (self.shoulder - 0.014)
        spread = 0.16 if person.build != "heavy" else 0.2
        bend = 0.25 + 0.4 * max(0.0, angle)
        angle = angle * shot.arm
        holds_up = shot.umbrella_open and side == person.umbrella.side
        calls = person.phone.kind != "none" and side == -person.umbrella.side and not holds_up
        if holds_up:
            angle, bend = 0.25, 1.9
        elif calls:
            angle, bend = 0.35, 2.3
        elif person.carried.kind in ("box", "folder"):
            angle, bend = 0.1, 1.45
        elbow = (
            left + side * 0.15 * math.sin(spread),
            0.795 - 0.15 * math.cos(angle),
            0.15 * math.sin(angle),
        )
        fore = angle + bend
        inward = -0.4 if person.carried.kind in ("box", "folder") else 0.1
        wrist = (
            elbow[0] + side * 0.14 * inward,
            elbow[1] - 0.14 * math.cos(fore),
            elbow[2] + 0.14 * math.sin(fore),
        )
        return self.place(left, 0.795, 0.0), self.place(*elbow), self.place(*wrist)
