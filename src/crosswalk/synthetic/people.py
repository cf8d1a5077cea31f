"""Synthetic people: who they are and what they wear, carry and look like."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from crosswalk.synthetic.looks import Look
from crosswalk.synthetic.randomness import draw, keyed_generator, pick
from crosswalk.synthetic.tables import table

Rgb = tuple[int, int, int]

_TABLES: dict[str, Any] = table("people")
_COLOURS_OF: dict[str, dict[str, float]] = _TABLES["colours_of"]
_PATTERNS_OF: dict[str, dict[str, float]] = _TABLES["patterns_of"]

COLOURS: dict[str, Rgb] = {name: tuple(rgb) for name, rgb in _TABLES["rgb"].items()}
"""Names of garment colours and the centre of what each looks like."""


@dataclass(frozen=True, slots=True)
class Item:
    """A thing that is worn or carried; `kind` is "none" where there is none.

    Attributes:
        kind: What it is, such as "jeans" or "backpack".
        colour: Name of its main colour, a key of `COLOURS`, or "none".
        rgb: Its main colour as painted for this person.
        pattern: "plain", "striped", "vertical", "plaid", "dotted", "logo" or "block".
        accent: Name of the pattern's second colour, or "none".
        accent_rgb: The second colour as painted.
        extent: Sleeves ("long", "short", "none") or length ("long", "knee", "short").
        side: 1 on the person's left, -1 on the right.
    """

    kind: str = "none"
    colour: str = "none"
    rgb: Rgb = (0, 0, 0)
    pattern: str = "plain"
    accent: str = "none"
    accent_rgb: Rgb = (0, 0, 0)
    extent: str = "none"
    side: int = 1


NOTHING = Item()


@dataclass(frozen=True, slots=True)
class Person:
    """All of a synthetic person that stays from picture to picture."""

    sex: str
    age: str
    build: str
    stature: float
    skin: Rgb
    hair: Item
    headwear: Item
    upper: Item
    outer: Item
    lower: Item
    shoes: Item
    socks: Item
    bag: Item
    carried: Item
    scarf: Item
    umbrella: Item
    glasses: Item
    phone: Item


def attribute_values(person: Person) -> dict[str, str]:
    """Return every nameable attribute of a person, as a caption can be checked against it.

    Args:
        person: The person.

    Returns:
        Values such as ``{"upper.colour": "red", "bag.kind": "backpack", ...}``; what a person does
        not have is "none".

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> attribute_values(person_of(LOOKS["city"], seed=0, person_id=1))["sex"]
        'male'
    """
    values = {"sex": person.sex, "age": person.age, "build": person.build}
    values["stature"] = (
        "tall" if person.stature > 1.035 else "short" if person.stature < 0.945 else "middle"
    )
    for field in fields(person):
        item = getattr(person, field.name)
        if isinstance(item, Item):
            for part in ("kind", "colour", "pattern", "accent", "extent"):
                values[f"{field.name}.{part}"] = getattr(item, part)
    return values


def person_of(look: Look, *, seed: int, person_id: int) -> Person:
    """Return the person of this number: a function of look, seed and number alone.

    A share of people vary a prototype that they have in common with three neighbours and differ
    from it in one to three things, because look-alikes are what makes person search hard.

    Args:
        look: Where the person lives.
        seed: Seed of the data set; >= 0.
        person_id: Number of the person; >= 0.

    Returns:
        The person.

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> first, again = (person_of(LOOKS["city"], seed=0, person_id=5) for _ in range(2))
        >>> first == again
        True
    """
    rng = keyed_generator(seed, look.name, "person", person_id)
    varies = rng.random() < look.look_alike_share
    own = _sample(rng, look)
    if not varies:
        return own
    prototype = _sample(keyed_generator(seed, look.name, "prototype", person_id // 4), look)
    return _vary(rng, prototype, own)


def _vary(rng: np.random.Generator, prototype: Person, own: Person) -> Person:
    """Return the prototype with one to three of its things replaced by the person's own."""
    clothes = ("upper", "outer", "lower")
    if "dress" in (prototype.upper.kind, own.upper.kind):
        groups: list[tuple[str, ...]] = [clothes]
    else:
        groups = [("upper", "outer"), ("lower",)]
    groups += [("hair",), ("headwear",), ("shoes",), ("bag",), ("carried", "scarf")]
    differing = [
        group
        for group in groups
        if any(
            (getattr(own, name).kind, getattr(own, name).colour)
            != (getattr(prototype, name).kind, getattr(prototype, name).colour)
            for name in group
        )
    ]
    person = replace(prototype, skin=own.skin, build=own.build, stature=own.stature)
    for _ in range(min(len(differing), 1 + int(rng.random() * 2.4))):
        group = differing.pop(int(rng.random() * len(differing)))
        person = replace(person, **{name: getattr(own, name) for name in group})
    return person


def _sample(rng: np.random.Generator, look: Look) -> Person:
    """Return a person of the look, with every attribute drawn afresh."""
    sex = "male" if rng.random() < 0.53 else "female"
    age = draw(rng, {"young": 0.35, "adult": 0.55, "old": 0.1})
    build = draw(rng, {"slim": 0.3, "average": 0.5, "heavy": 0.2})
    stature = float(np.clip(rng.normal(1.02 if sex == "male" else 0.96, 0.035), 0.88, 1.1))
    skin = _shifted(rng, pick(rng, _TABLES["skin_rgb"]), 6)
    upper, outer, lower = _clothes(rng, look, sex)
    return Person(
        sex=sex,
        age=age,
        build=build,
        stature=stature,
        skin=skin,
        hair=_hair(rng, sex, age),
        headwear=_headwear(rng, look),
        upper=upper,
        outer=outer,
        lower=lower,
        shoes=_shoes(rng, look, sex),
        socks=_plain(rng, "socks", _COLOURS_OF["socks"]) if rng.random() < 0.5 else NOTHING,
        bag=_bag(rng, look, sex),
        carried=_carried(rng),
        scarf=_plain(rng, "scarf", _COLOURS_OF["bag"])
        if rng.random() < 0.16 * (1.3 - look.warmth)
        else NOTHING,
        umbrella=_plain(rng, "umbrella", _COLOURS_OF["bag"]) if rng.random() < 0.05 else NOTHING,
        glasses=Item(draw(rng, {"glasses": 0.7, "sunglasses": 0.3}), "black", (22, 22, 24))
        if rng.random() < 0.2
        else NOTHING,
        phone=Item("phone", "black", (20, 20, 22)) if rng.random() < 0.08 else NOTHING,
    )


def _shifted(rng: np.random.Generator, rgb: Rgb, spread: float) -> Rgb:
    """Return the colour made lighter or darker, and tinted a little."""
    shift = rng.normal(0, spread) + rng.normal(0, spread * 0.5, 3)
    red, green, blue = (int(min(250, max(8, c + s))) for c, s in zip(rgb, shift, strict=True))
    return red, green, blue


def _plain(rng: np.random.Generator, kind: str, colours: dict[str, float]) -> Item:
    colour = draw(rng, colours)
    side = 1 if rng.random() < 0.5 else -1
    return Item(kind, colour, _shifted(rng, COLOURS[colour], 9), side=side)


def _kinds(look: Look, what: str, sex: str) -> dict[str, float]:
    """Return how often there is which kind of something, as warm as it is."""
    kinds: dict[str, float] = dict(_TABLES["kinds_of"][what][sex])
    for kind in kinds:
        if kind in _TABLES["summer"]:
            kinds[kind] *= look.warmth
        elif kind in _TABLES["winter"]:
            kinds[kind] *= _TABLES["winter"][kind] - look.warmth
    return kinds


def _tinted(look: Look, colours: dict[str, float]) -> dict[str, float]:
    return {name: weight * look.colour_weights.get(name, 1.0) for name, weight in colours.items()}


def _accented(rng: np.random.Generator, item: Item, pattern: str) -> Item:
    """Return the item with a pattern whose second colour stands out from the first."""
    if pattern == "plain":
        return item
    colour = item.colour
    while colour == item.colour or math.dist(COLOURS[colour], COLOURS[item.colour]) < 110:
        colour = draw(rng, {**_COLOURS_OF["upper"], "white": 4.0, "black": 3.0})
    rgb = _shifted(rng, COLOURS[colour], 8)
    return replace(item, pattern=pattern, accent=colour, accent_rgb=rgb)


def _clothes(rng: np.random.Generator, look: Look, sex: str) -> tuple[Item, Item, Item]:
    warm = look.warmth
    colours = _tinted(look, _COLOURS_OF["upper"])
    if sex == "female" and rng.random() < 0.1 + 0.12 * warm:
        dress = _plain(rng, "dress", colours)
        dress = _accented(rng, dress, draw(rng, _PATTERNS_OF["dress"]))
        sleeves = draw(rng, {"none": 1.0 + warm, "short": 1.0, "long": 1.2 - warm})
        return replace(dress, extent=sleeves), NOTHING, NOTHING
    kinds = _kinds(look, "upper", sex)
    kinds["t-shirt"] += 0.4  # below something else in winter, too
    kind = draw(rng, kinds)
    sleeves = {"t-shirt": "short", "polo": "short", "tank top": "none"}.get(kind, "long")
    if kind in ("shirt", "blouse"):
        sleeves = "short" if rng.random() < 0.25 + 0.4 * warm else "long"
    upper = replace(_plain(rng, kind, colours), extent=sleeves)
    upper = _accented(rng, upper, draw(rng, _PATTERNS_OF.get(kind, {"plain": 1})))
    outer = NOTHING
    if kind in ("t-shirt", "shirt", "polo", "blouse") and rng.random() < 0.34 * (1.5 - warm):
        outer = _plain(rng, draw(rng, {"jacket": 3, "coat": 1, "suit": 1, "cardigan": 1}), colours)
        while math.dist(COLOURS[outer.colour], COLOURS[upper.colour]) < 60:
            outer = _plain(rng, outer.kind, colours)
        outer = replace(outer, extent="long")
    return upper, outer, _lower(rng, look, sex)


def _lower(rng: np.random.Generator, look: Look, sex: str) -> Item:
    kind = draw(rng, _kinds(look, "lower", sex))
    item = _plain(
        rng, kind, _COLOURS_OF["jeans"] if kind == "jeans" else _tinted(look, _COLOURS_OF["lower"])
    )
    if kind == "jeans":
        grey = sum(item.rgb) / 3
        muted = tuple(int(0.72 * c + 0.28 * grey) for c in item.rgb)
        item = replace(item, rgb=(muted[0], muted[1], muted[2]))
    extent = {"shorts": "short", "capris": "knee"}.get(kind, "long")
    if kind == "skirt":
        extent = draw(rng, {"short": 1.2, "knee": 1.4, "long": 0.7})
    item = replace(item, extent=extent)
    if kind in ("shorts", "skirt") and rng.random() < 0.2:
        item = _accented(rng, item, draw(rng, _PATTERNS_OF["skirt"]))
    elif kind == "sweatpants" and rng.random() < 0.6:
        item = _accented(rng, item, "block")
    return item


def _hair(rng: np.random.Generator, sex: str, age: str) -> Item:
    colours = {"black": 4.0, "brown": 2.4, "blond": 1.3, "grey": 0.15, "red": 0.4}
    if age == "old":
        colours["grey"] = 9.0
    colour = draw(rng, colours)
    rgb = _shifted(rng, _TABLES["hair_rgb"][colour], 7)
    kind = draw(rng, _TABLES["kinds_of"]["hair"][sex])
    return Item(kind, "none" if kind == "bald" else colour, rgb)


def _headwear(rng: np.random.Generator, look: Look) -> Item:
    if rng.random() >= look.headwear_rate:
        return NOTHING
    kind = draw(rng, {"cap": 2.4, "hat": 1.0, "beanie": 1.6 * (1.2 - look.warmth)})
    return _plain(rng, kind, _COLOURS_OF["bag"])


def _shoes(rng: np.random.Generator, look: Look, sex: str) -> Item:
    kind = draw(rng, _kinds(look, "shoes", sex))
    colours = "shoes" if kind in ("sneakers", "flats") else "leather"
    return _plain(rng, kind, _COLOURS_OF[colours])


def _bag(rng: np.random.Generator, look: Look, sex: str) -> Item:
    if rng.random() >= look.bag_rate:
        return NOTHING
    return _plain(rng, draw(rng, _kinds(look, "bag", sex)), _COLOURS_OF["bag"])


def _carried(rng: np.random.Generator) -> Item:
    if rng.random() >= 0.2:
        return NOTHING
    kind = draw(rng, {"shopping bag": 2.0, "box": 0.7, "folder": 1.0, "bottle": 0.8})
    return _plain(rng, kind, _COLOURS_OF["carried"])
