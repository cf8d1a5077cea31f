"""Who is seen by which camera, and how often: the plan of a synthetic image set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crosswalk.synthetic.randomness import keyed_generator

JUNK_LABEL, DISTRACTOR_LABEL = -1, 0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Some people, and how much there is of them.

    Attributes:
        persons: Number of people.
        visits: Number of (person, camera) pairs: how many cameras see each of them, added up.
        images: Number of images.
    """

    persons: int
    visits: int
    images: int


NOBODY = Crowd(0, 0, 0)


@dataclass(frozen=True, slots=True)
class SetSize:
    """How much there is in an image set.

    Attributes:
        train: People to train on, seen by two cameras or more each.
        test: Other people, seen by two cameras or more; one image of each visit is a query and
            the rest, at least one, is in the gallery.
        val_images: How many images of train are listed as those of val.
        bystanders: People of the gallery only, seen by one camera each.
        distractors: Gallery images that show nobody in particular.
        junk: Images of the gallery that count neither as right nor as wrong.
    """

    train: Crowd
    test: Crowd
    val_images: int = 0
    bystanders: Crowd = NOBODY
    distractors: int = 0
    junk: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """One image of the set.

    Attributes:
        role: "train", "val", "query", "gallery", "distractor" or "junk".
        character: Number of the person who is shown, from 1; people of train, test and gallery
            only follow one another.
        label: Identity in file names, from 1: -1 for junk, 0 for distractors.
        camera: From 0.
        number: Which image of the person's visit to this camera, from 0.
    """

    role: str
    character: int
    label: int
    camera: int
    number: int


def plan_of(size: SetSize, *, num_cameras: int, look_name: str, seed: int) -> tuple[Sighting, ...]:
    """Return all images of a set, those of one person side by side.

    Args:
        size: How much there is.
        num_cameras: Number of cameras.
        look_name: Keys the random streams, with the seed.
        seed: Seed of the set.

    Returns:
        The images; every query has an image of the same person by another camera in the gallery.

    Example:
        >>> size = SetSize(train=Crowd(3, 7, 20), test=Crowd(2, 5, 14), junk=2)
        >>> plan = plan_of(size, num_cameras=4, look_name="summer", seed=0)
        >>> {role: sum(s.role == role for s in plan) for role in ("train", "query", "gallery")}
        {'train': 20, 'query': 5, 'gallery': 9}
    """
    rng = keyed_generator(seed, look_name, "plan")
    popularity = rng.uniform(0.5, 1.5, num_cameras)
    popularity /= popularity.sum()
    labels = rng.permutation(size.train.persons + size.test.persons + size.bystanders.persons) + 1
    first, sightings = 1, []
    for role, crowd in (("train", size.train), ("test", size.test), ("gallery", size.bystanders)):
        least = 2 if role == "test" else 1
        visits = _visits(rng, crowd, num_cameras, popularity, cameras=1 if role == "gallery" else 2)
        images = _shared_out(rng, crowd.images, len(visits), least=least)
        for (person, camera), count in zip(visits, images, strict=True):
            character = first + person
            for number in range(count):
                shown = ("query" if number == 0 else "gallery") if role == "test" else role
                label = int(labels[character - 1])
                sightings.append(Sighting(shown, character, label, camera, number))
        first += crowd.persons
    sightings = _with_val(rng, sightings, size.val_images)
    # junk shows parts of people of the set; distractors show strangers, or nobody
    for role, label, count in (
        ("distractor", DISTRACTOR_LABEL, size.distractors),
        ("junk", JUNK_LABEL, size.junk),
    ):
        cameras = rng.choice(num_cameras, count, p=popularity)
        own = 1 + size.train.persons + rng.integers(max(1, size.test.persons), size=count)
        for number, camera in enumerate(cameras.tolist()):
            character = first + number if role == "distractor" else int(own[number])
            sightings.append(Sighting(role, character, label, camera, number))
        first += count if role == "distractor" else 0
    return tuple(sightings)


def by_person(plan: Sequence[Sighting]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last place, exclusive, of each run of one person's images.

    Example:
        >>> people = [Sighting("train", number, number, 0, 0) for number in (1, 1, 2)]
        >>> list(by_person(people))
        [(0, 2), (2, 3)]
    """
    start = 0
    for place in range(1, len(plan) + 1):
        if place == len(plan) or plan[place].character != plan[start].character:
            yield start, place
            start = place


def _visits(
    rng: np.random.Generator,
    crowd: Crowd,
    num_cameras: int,
    popularity: np.ndarray,
    *,
    cameras: int,
) -> list[tuple[int, int]]:
    """Return (person, camera) pairs, `cameras` or more of each person, sorted."""
    if crowd.persons == 0:
        return []
    seen_by = np.full(crowd.persons, cameras)
    for _ in range(crowd.visits - int(seen_by.sum())):
        seen_by[rng.choice(np.flatnonzero(seen_by < num_cameras))] += 1
    return [
        (person, int(camera))
        for person, count in enumerate(seen_by.tolist())
        for camera in sorted(rng.choice(num_cameras, count, replace=False, p=popularity))
    ]


def _shared_out(rng: np.random.Generator, total: int, parts: int, *, least: int) -> list[int]:
    """Return sizes of the parts that add up to the total, some several times others."""
    if parts == 0:
        return []
    shares = rng.gamma(2.0, size=parts)
    sizes: list[int] = (
        least + rng.multinomial(total - least * parts, shares / shares.sum())
    ).tolist()
    return sizes


def _with_val(
    rng: np.random.Generator, sightings: list[Sighting], val_images: int
) -> list[Sighting]:
    """Return the sightings with some of train moved to val, of each person at most all but one."""
    kept: set[int] = set()
    movable = []
    for place, sighting in enumerate(sightings):
        if sighting.role == "train":
            if sighting.character in kept:
                movable.append(place)
            kept.add(sighting.character)
    moved = set(rng.choice(movable, val_images, replace=False).tolist()) if val_images else set()
    return [
        replace(sighting, role="val") if place in moved else sighting
        for place, sighting in enumerate(sightings)
    ]
