"""The pictures that are taken of a synthetic person, and how one of them is made."""

from __future__ import annotations

import math

import numpy as np

from crosswalk.synthetic.cameras import CANVAS, background_of, camera_of, photograph
from crosswalk.synthetic.looks import Look
from crosswalk.synthetic.people import Person, person_of
from crosswalk.synthetic.pose import Shot, passing
from crosswalk.synthetic.randomness import draw, keyed_generator
from crosswalk.synthetic.render import Painter, occlude

_VIEWS = (0.0, math.pi, math.pi / 2, -math.pi / 2, 0.25 * math.pi, -0.8 * math.pi)


def shots_of(look: Look, person: Person, *, seed: int, person_id: int, count: int) -> list[Shot]:
    """Return the shots of a person: one source, changing cameras, directions that differ.

    Args:
        look: Where the person lives.
        person: The person.
        seed: Seed of the data set.
        person_id: Number of the person.
        count: Number of shots; >= 1.

    Returns:
        ``count`` shots; the first four have four different views.

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> city = LOOKS["city"]
        >>> person = person_of(city, seed=0, person_id=3)
        >>> shots = shots_of(city, person, seed=0, person_id=3, count=3)
        >>> len({shot.yaw for shot in shots}), len({shot.source for shot in shots})
        (3, 1)
    """
    rng = keyed_generator(seed, look.name, "shots", person_id)
    source = draw(rng, {name: number for name, number in look.cameras.items()})
    views = [_VIEWS[i] for i in rng.permutation(4)] + [_VIEWS[i] for i in 4 + rng.permutation(2)]
    first_camera = int(rng.random() * look.cameras[source])
    shots = []
    for number in range(count):
        yaw = views[number % len(views)] + rng.uniform(-0.42, 0.42)
        walks = rng.random() < 0.82
        shots.append(
            Shot(
                key=person_id * 64 + number,
                source=source,
                camera=(first_camera + number) % look.cameras[source],
                yaw=(yaw + math.pi) % (2 * math.pi) - math.pi,
                phase=rng.uniform(0, 2 * math.pi),
                stride=rng.uniform(0.28, 0.55) if walks else rng.uniform(0.0, 0.1),
                arm=rng.uniform(0.4, 1.1),
                occluder=draw(rng, look.occluders),
                umbrella_open=person.umbrella.kind != "none" and rng.random() < 0.7,
            )
        )
    return shots


def take_picture(look: Look, person: Person, shot: Shot, *, seed: int) -> bytes:
    """Return the JPEG file of a shot.

    Args:
        look: Where the person lives.
        person: The person.
        shot: How the person stands, and where.
        seed: Seed of the data set.

    Returns:
        Bytes of a JPEG file.

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> city = LOOKS["city"]
        >>> person = person_of(city, seed=0, person_id=3)
        >>> shot = shots_of(city, person, seed=0, person_id=3, count=1)[0]
        >>> take_picture(city, person, shot, seed=0)[:2].hex()
        'ffd8'
    """
    rng = keyed_generator(seed, look.name, "picture", shot.key)
    return picture_of(look, person, shot, seed=seed, rng=rng, scene=rng, light=rng)


def picture_of(
    look: Look,
    person: Person | None,
    shot: Shot,
    *,
    seed: int,
    rng: np.random.Generator,
    scene: np.random.Generator,
    light: np.random.Generator,
    framing: tuple[float, float, float, float] | None = None,
) -> bytes:
    """Return the JPEG file of a shot whose surroundings may be those of another picture.

    Args:
        look: Where the person lives.
        person: The person, or None where a detector saw somebody in an empty place.
        shot: How the person stands, and where.
        seed: Seed of the data set.
        rng: Source of what changes from picture to picture.
        scene: Source of the piece of background.
        light: Source of the light of the moment.
        framing: Shares of the picture that are cut off left, top, right and bottom; None for a
            detector's small errors.

    Returns:
        Bytes of a JPEG file.

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> empty = Shot(0, "Market", 0, 0.0, 0.0, 0.4, 0.3, "none", False)
        >>> streams = {name: keyed_generator(0) for name in ("rng", "scene", "light")}
        >>> picture_of(LOOKS["city"], None, empty, seed=0, **streams)[:2].hex()
        'ffd8'
    """
    camera = camera_of(look.name, seed=seed, source=shot.source, camera=shot.camera)
    painter = Painter(background_of(camera, scene), rng)
    width, height = CANVAS
    if rng.random() < 0.16:  # somebody behind
        other = person_of(look, seed=seed + 1, person_id=int(rng.integers(1 << 20)))
        side = -1 if rng.random() < 0.5 else 1
        place = (width * (0.5 + side * rng.uniform(0.36, 0.5)), height * rng.uniform(0.62, 0.8))
        painter.figure(other, passing(shot, rng), scale=height * rng.uniform(0.4, 0.6), foot=place)
    if person is not None:
        scale = height * rng.uniform(*look.figure)
        if shot.umbrella_open:
            scale *= 0.9
        middle = 0.5 + rng.uniform(-look.offset, look.offset)
        foot = (width * middle, height * rng.uniform(0.945, 0.97))
        painter.figure(person, shot, scale=scale, foot=foot)
    if shot.occluder != "none":
        passer_by = person_of(look, seed=seed + 1, person_id=int(rng.integers(1 << 20)))
        occlude(painter, shot, rng, passer_by)
    return photograph(painter.finish(), camera, rng, light=light, framing=framing)
