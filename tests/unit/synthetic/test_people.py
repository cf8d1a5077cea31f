"""Synthetic people, the views of them and the pictures that are taken."""

import io
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from crosswalk.synthetic.looks import LOOKS, look_named
from crosswalk.synthetic.people import Item, attribute_values, person_of
from crosswalk.synthetic.pose import Shot, Skeleton, view_of, visible_items
from crosswalk.synthetic.randomness import draw, keyed_generator
from crosswalk.synthetic.shots import shots_of, take_picture

CITY = LOOKS["city"]
WORN = ("upper", "outer", "lower", "shoes", "bag", "hair", "headwear", "carried", "scarf")


def shot(yaw: float, occluder: str = "none") -> Shot:
    return Shot(1, "Market", 0, yaw, 0.7, 0.4, 0.5, occluder, False)


def test_a_person_depends_on_look_seed_and_number() -> None:
    assert person_of(CITY, seed=1, person_id=9) == person_of(CITY, seed=1, person_id=9)
    assert person_of(CITY, seed=1, person_id=9) != person_of(CITY, seed=2, person_id=9)
    assert person_of(CITY, seed=1, person_id=9) != person_of(CITY, seed=1, person_id=10)
    assert person_of(CITY, seed=1, person_id=9) != person_of(LOOKS["campus"], seed=1, person_id=9)


def test_neighbours_are_often_look_alikes_but_not_the_same() -> None:
    near, far = [], []
    people = [person_of(CITY, seed=0, person_id=number) for number in range(400)]
    for number, person in enumerate(people):
        for others, other_number in ((near, number ^ 1), (far, (number + 201) % 400)):
            other = people[other_number]
            others.append(
                sum(
                    (getattr(person, name).kind, getattr(person, name).colour)
                    != (getattr(other, name).kind, getattr(other, name).colour)
                    for name in WORN
                )
            )

    assert np.mean(np.array(near) <= 3) > 0.2
    assert np.mean(np.array(far) <= 3) < 0.05


def test_looks_differ_in_what_people_wear() -> None:
    def share(look: str, colour: str) -> float:
        people = [person_of(LOOKS[look], seed=0, person_id=number) for number in range(500)]
        return sum(person.upper.colour == colour for person in people) / 500

    assert share("campus", "blue") > share("city", "blue") + 0.02


def test_an_unknown_look_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'moon'.*campus, city"):
        look_named("moon")


def test_every_item_of_a_person_has_five_values() -> None:
    values = attribute_values(person_of(CITY, seed=0, person_id=0))
    parts = Counter(name.split(".")[1] for name in values if "." in name)

    assert set(parts) == {"kind", "colour", "pattern", "accent", "extent"}
    assert len(set(parts.values())) == 1
    assert {"sex", "age", "build", "stature"} <= values.keys()


@pytest.mark.parametrize(
    ("yaw", "view"),
    [(0.0, "front"), (1.0, "front"), (1.2, "right"), (-1.6, "left"), (2.5, "back"), (-2.3, "back")],
)
def test_views_are_named_after_the_direction(yaw: float, view: str) -> None:
    assert view_of(yaw) == view


def test_the_left_hand_is_on_the_right_of_a_picture_from_the_front() -> None:
    person = person_of(CITY, seed=0, person_id=0)

    assert Skeleton(person, shot(0.0)).place(0.1, 0.5, 0.0)[0] == pytest.approx(0.1)
    assert Skeleton(person, shot(math.pi)).place(0.1, 0.5, 0.0)[0] == pytest.approx(-0.1)
    x, _, depth = Skeleton(person, shot(math.pi / 2)).place(0.1, 0.5, 0.0)
    assert x == pytest.approx(0.0, abs=1e-12)
    assert depth == pytest.approx(-0.1)


def test_the_shirt_under_a_jacket_shows_from_the_front_only() -> None:
    numbers = range(200)
    dressed = [person_of(CITY, seed=0, person_id=number) for number in numbers]
    layered = [person for person in dressed if person.outer.kind != "none"]

    assert len(layered) > 10
    for person in layered:
        assert "upper" in visible_items(person, shot(0.0))
        assert "upper" not in visible_items(person, shot(math.pi))


def test_the_first_four_shots_have_four_views() -> None:
    for number in range(50):
        person = person_of(CITY, seed=0, person_id=number)
        shots = shots_of(CITY, person, seed=0, person_id=number, count=4)
        assert len({round(one.yaw / (math.pi / 2)) % 4 for one in shots}) == 4


def test_a_picture_shows_the_colour_that_is_worn() -> None:
    """The middle of an unoccluded front view is redder in red than in blue."""
    plain = person_of(CITY, seed=0, person_id=2)

    def middle(rgb: tuple[int, int, int]) -> np.ndarray:
        from dataclasses import replace

        none = Item()
        person = replace(
            plain, upper=Item("sweater", "red", rgb, extent="long"), outer=none, bag=none,
            carried=none, scarf=none, umbrella=none, phone=none,
        )  # fmt: skip
        data = take_picture(CITY, person, shot(0.0), seed=0)
        small = Image.open(io.BytesIO(data)).convert("RGB").resize((32, 96))
        return np.asarray(small, dtype=np.float64)[30:42, 13:19].mean(axis=(0, 1))

    red, blue = middle((196, 32, 38)), middle((38, 84, 186))
    assert red[0] > red[2] + 40
    assert blue[2] > blue[0] + 40


def test_draws_follow_their_weights() -> None:
    rng = keyed_generator(4)
    counts = Counter(draw(rng, {"a": 1.0, "b": 3.0, "c": 0.0}) for _ in range(4000))

    assert counts["c"] == 0
    assert counts["b"] / 4000 == pytest.approx(0.75, abs=0.03)
