"""The pictures a fixed camera takes of a person who walks by, and of nobody in particular."""

from __future__ import annotations

import math

import numpy as np

from crosswalk.synthetic.looks import Look
from crosswalk.synthetic.people import Person
from crosswalk.synthetic.pose import Shot
from crosswalk.synthetic.randomness import draw, keyed_generator
from crosswalk.synthetic.shots import picture_of

_NOBODY = 0.3  # share of the distractors that show an empty place


def frame_of(
    look: Look, person: Person, *, seed: int, character: int, camera: int, number: int, role: str
) -> bytes:
    """Return the JPEG file of one of the pictures that a camera takes while a person walks by.

    Light and direction are those of the visit; background, step, box and grain are the picture's
    own. That makes pictures of one visit easy to match and those of two cameras hard.

    Args:
        look: Where the person lives.
        person: The person.
        seed: Seed of the data set.
        character: Number of the person; >= 0.
        camera: From 0.
        number: Which picture of the visit, from 0.
        role: "junk" for a box around a part of the person, "distractor" for a detector's error, or
            anything else.

    Returns:
        Bytes of a JPEG file.

    Example:
        >>> from crosswalk.synthetic.looks import look_named
        >>> from crosswalk.synthetic.people import person_of
        >>> summer = look_named("summer")
        >>> person = person_of(summer, seed=0, person_id=3)
        >>> where = {"character": 3, "camera": 1, "number": 0, "role": "query"}
        >>> frame_of(summer, person, seed=0, **where)[:2].hex()
        'ffd8'
    """
    source = next(iter(look.cameras))
    visit = keyed_generator(seed, look.name, "visit", character, camera)
    rng = keyed_generator(seed, look.name, "frame", role, character, camera, number)
    yaw = _direction(look, seed, camera) + visit.normal(0, 0.45)
    yaw += math.pi if visit.random() < 0.5 else 0.0
    walks = visit.random() < 0.85
    stride = visit.uniform(0.3, 0.55) if walks else visit.uniform(0.0, 0.1)
    arm = visit.uniform(0.4, 1.1)
    umbrella_open = person.umbrella.kind != "none" and visit.random() < 0.5
    yaw += rng.uniform(-0.25, 0.25)
    shot = Shot(
        key=number,
        source=source,
        camera=camera,
        yaw=(yaw + math.pi) % (2 * math.pi) - math.pi,
        phase=rng.uniform(0, 2 * math.pi),
        stride=stride,
        arm=arm,
        occluder=draw(rng, look.occluders),
        umbrella_open=umbrella_open,
    )
    shown: Person | None = person
    framing = None
    if role == "junk":
        framing = _bad_box(rng)
    elif role == "distractor":
        shown = None if rng.random() < _NOBODY else person
        framing = _bad_box(rng) if rng.random() < 0.5 else None
    return picture_of(
        look,
        shown,
        shot,
        seed=seed,
        rng=rng,
        scene=rng,  # who walks by comes past all of the camera's background
        light=keyed_generator(seed, look.name, "light of a visit", character, camera),
        framing=framing,
    )


def _direction(look: Look, seed: int, camera: int) -> float:
    """Return which way most people walk before a camera, or the opposite way."""
    return keyed_generator(seed, look.name, "direction", camera).uniform(-math.pi, math.pi)


def _bad_box(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return shares that are cut off left, top, right and bottom: half of the person or more."""
    cut = rng.uniform(0.4, 0.62)
    kind = rng.random()
    if kind < 0.35:  # the upper part
        return 0.1, 0.0, 0.1, cut
    if kind < 0.6:  # the lower part
        return 0.1, cut, 0.1, 0.0
    return (cut, 0.05, 0.0, 0.05) if kind < 0.8 else (0.0, 0.05, cut, 0.05)
