"""Captions of synthetic pictures: what a person has, as far as the picture shows it, in words.

Words are as loose as those of people who describe pictures: "pants" may be jeans, "dark" may be
navy, and a few mentions in a hundred are wrong. `Caption.mentions` keeps what each said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crosswalk.synthetic.people import Item, Person, attribute_values
from crosswalk.synthetic.pose import Shot, view_of, visible_items
from crosswalk.synthetic.randomness import draw, pick
from crosswalk.synthetic.tables import table

WRONG_SHARE = 0.04
"""Share of mentions of attributes that are wrong."""

WORD_LIMITS = (10, 40)
"""Least and most words of a caption."""

Words = Mapping[str, Mapping[str, float]]

_TABLES: dict[str, Any] = table("captions")
_WORDS: Mapping[str, Words] = _TABLES["words"]
_NOUNS: Words = _TABLES["nouns"]
_SENTENCES: Mapping[str, Sequence[str]] = _TABLES["sentences"]
_NEUTRAL = ("person", "pedestrian")


@dataclass(frozen=True, slots=True)
class Mention:
    """What a caption says of one attribute.

    Attributes:
        attribute: A key of `people.attribute_values`.
        word: The word used.
        means: Every value that the word can stand for.
    """

    attribute: str
    word: str
    means: frozenset[str]


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence or several, and what they say."""

    text: str
    mentions: tuple[Mention, ...]


def tokenized(text: str) -> list[str]:
    """Return the lower-case words of a caption, without punctuation.

    Example:
        >>> tokenized("A man in a T-shirt, seen from behind.")
        ['a', 'man', 'in', 'a', 't-shirt', 'seen', 'from', 'behind']
    """
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())


def describe(person: Person, shot: Shot, rng: np.random.Generator) -> Caption:
    """Return one caption of a picture.

    Args:
        person: Who is shown.
        shot: How; what it hides is not mentioned.
        rng: Source of the choice of words.

    Returns:
        A caption of 10 to 40 words.

    Example:
        >>> from crosswalk.synthetic.looks import LOOKS
        >>> from crosswalk.synthetic.people import person_of
        >>> from crosswalk.synthetic.randomness import keyed_generator
        >>> person = person_of(LOOKS["city"], seed=0, person_id=0)
        >>> shot = Shot(0, "Market", 0, 0.0, 0.0, 0.4, 0.3, "none", False)
        >>> 10 <= len(tokenized(describe(person, shot, keyed_generator(0)).text)) <= 40
        True
    """
    least, most = WORD_LIMITS
    while True:
        caption = _Writer(person, shot, rng).write()
        if least <= len(tokenized(caption.text)) <= most:
            return caption


class _Writer:
    """Writes one caption: makes the phrases, picks a form for them, notes what was said."""

    def __init__(self, person: Person, shot: Shot, rng: np.random.Generator) -> None:
        self.person, self.shot, self.rng = person, shot, rng
        self.values = attribute_values(person)
        self.seen = visible_items(person, shot)
        self.said: dict[str, list[Mention]] = {}
        self.phrase = ""

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    # words --------------------------------------------------------------------------------------

    def name(self, attribute: str, words: Words) -> str:
        """Return a word for the attribute's value, sometimes for another value; note it."""
        value = self.values[attribute]
        if self.chance(WRONG_SHARE):
            value = pick(self.rng, [other for other in words if other != value] or [value])
        word = draw(self.rng, words[value])
        means = frozenset(value for value, choices in words.items() if word in choices)
        self.said.setdefault(self.phrase, []).append(Mention(attribute, word, means))
        return word

    def colour(self, item: str) -> str:
        return self.name(f"{item}.colour", _WORDS["colour"])

    def subject(self) -> str:
        self.phrase = "subject"
        person, rng = self.person, self.rng
        nouns = _NOUNS
        if person.age == "young":
            nouns = {sex: {**_NOUNS[sex], **_TABLES["young_nouns"][sex]} for sex in _NOUNS}
        value = self.values["sex"]
        if self.chance(WRONG_SHARE / 2):
            value = "female" if value == "male" else "male"
        noun = draw(rng, nouns[value])
        self.neutral = noun in _NEUTRAL
        self.female = value == "female"
        if not self.neutral:
            self.said.setdefault("subject", []).append(Mention("sex", noun, frozenset({value})))
        adjectives = []
        if self.chance(0.16) and self.values["stature"] != "middle":
            stature = self.values["stature"]
            adjectives.append(stature)
            self.said["subject"] = [
                *self.said.get("subject", []),
                Mention("stature", stature, frozenset({stature})),
            ]
        if self.chance(0.16) and person.build != "average":
            adjectives.append(self.name("build", _WORDS["build"]))
        if self.chance(0.3) and noun not in ("boy", "girl", "guy") and person.age != "adult":
            adjectives.append(self.name("age", _WORDS["age"]))
        return " ".join([*adjectives, noun])

    def upper(self) -> str:
        self.phrase = "upper"
        person = self.person
        if person.outer.kind != "none":
            self.phrase = "outer"
            outer = f"{self.colour('outer')} {self.name('outer.kind', _WORDS['upper'])}"
            if "upper" not in self.seen or self.chance(0.15):
                return _a(outer)
            self.phrase = "upper"
            inner = _a(self._garment("upper", person.upper))
            self.said["upper"] = self.said.pop("outer") + self.said.get("upper", [])
            form = pick(self.rng, _SENTENCES["open"])
            other = "unzipped" if self.person.outer.kind == "jacket" else "unbuttoned"
            opened = "open" if "zip" in outer or self.chance(0.6) else other
            return form.format(open=_a(f"{opened} {outer}"), plain=_a(outer), inner=inner)
        text = _a(self._garment("upper", person.upper))
        sleeves = person.upper.extent
        if sleeves != "none" and person.upper.kind != "coat" and self.chance(0.2):
            self.said["upper"].append(Mention("upper.extent", sleeves, frozenset({sleeves})))
            return f"{text} with {sleeves} sleeves"
        if person.upper.pattern == "logo" and "upper.pattern" in self.seen and self.chance(0.7):
            return f"{text} with {self._print()}"
        return text

    def _garment(self, field: str, item: Item) -> str:
        kind = (f"{field}.kind", _WORDS[field])
        colour = self.colour(field)
        weaves = ("striped", "vertical", "plaid", "dotted")
        if item.pattern in weaves and self.chance(0.85):
            pattern = self.name(
                f"{field}.pattern", {weave: _WORDS["pattern"][weave] for weave in weaves}
            )
            word = self.name(*kind)
            if self.chance(0.7):
                accent = self.name(f"{field}.accent", _WORDS["colour"])
                return f"{colour} and {accent} {pattern} {word}"
            return pick(self.rng, [f"{colour} {pattern} {word}", f"{pattern} {colour} {word}"])
        if item.pattern == "block" and field == "upper" and self.chance(0.75):
            accent = self.name("upper.accent", _WORDS["colour"])
            return f"{colour} and {accent} {self.name(*kind)}"
        return f"{colour} {self.name(*kind)}"

    def _print(self) -> str:
        means = frozenset({"logo"})
        word = pick(self.rng, ["a {} print", "a {} logo", "a {} picture"])
        where = pick(self.rng, ["on the front", "on the chest", "on it"])
        accent = self.name("upper.accent", _WORDS["colour"])
        self.said["upper"].append(Mention("upper.pattern", word.format("").split()[-1], means))
        return _a(f"{word.format(accent)[2:]}") + f" {where}"

    def lower(self) -> str:
        self.phrase = "lower"
        lower = self.person.lower
        text = self._garment("lower", lower)
        if lower.kind == "skirt":
            kind_wrong = self.said["lower"][-1].means != frozenset({"skirt"})
            if not kind_wrong and self.chance(0.5):
                text = f"{self.name('lower.extent', _WORDS['skirt'])} {text}"
        if "skirt" in text:
            return _a(text)
        return f"a pair of {text}" if self.chance(0.18) else text

    def shoes(self) -> str:
        self.phrase = "shoes"
        text = f"{self.colour('shoes')} {self.name('shoes.kind', _WORDS['shoes'])}"
        bare = self.person.lower.kind in ("none", "shorts", "skirt")
        if self.person.socks.kind != "none" and bare and self.chance(0.4):
            text += f" with {self.colour('socks')} socks"
        return f"a pair of {text}" if self.chance(0.15) else text

    def hair(self) -> str:
        self.phrase = "hair"
        kind = self.values["hair.kind"]
        if kind == "bald":
            return f"a {self.name('hair.kind', _WORDS['no hair'])} head"
        colour = self.name("hair.colour", _WORDS["hair colour"])
        if kind in ("ponytail", "bun"):
            self.said["hair"].append(Mention("hair.kind", kind, frozenset({kind})))
            return pick(
                self.rng,
                [f"{colour} hair in a {kind}", f"{colour} hair tied back in a {kind}"]
                + ([f"a {colour} ponytail"] if kind == "ponytail" else []),
            )
        if self.chance(0.2):
            return f"{colour} hair"
        return f"{self.name('hair.kind', _WORDS['hair length'])} {colour} hair"

    def bag(self) -> str:
        self.phrase = "bag"
        colour, word = self.colour("bag"), self.name("bag.kind", _WORDS["bag"])
        return _a(f"{colour} {word}")

    def _where(self) -> str:
        side = "left " if self.person.bag.side > 0 else "right "
        if not self.chance(0.4):
            side = ""
        his = self.possessive
        return {
            "backpack": pick(self.rng, [f"on {his} back", f"over {his} shoulders"]),
            "crossbody bag": pick(self.rng, [f"across {his} chest", f"at {his} {side}side"]),
            "shoulder bag": pick(self.rng, [f"over {his} {side}shoulder", f"on {his} {side}arm"]),
            "handbag": f"in {his} {side}hand",
            "suitcase": f"behind {'him' if his == 'his' else 'her' if his == 'her' else 'them'}",
        }[self.person.bag.kind]

    def extra(self) -> list[str]:
        """Return noun phrases of smaller things the picture shows."""
        extras = []
        seen = self.seen
        if "headwear" in seen and self.chance(0.8):
            self.phrase = "worn headwear"
            extras.append(
                _a(f"{self.colour('headwear')} {self.name('headwear.kind', _WORDS['headwear'])}")
            )
        if "glasses" in seen and self.chance(0.45):
            self.phrase = "worn glasses"
            extras.append(self.name("glasses.kind", _WORDS["glasses"]))
        if "scarf" in seen and self.chance(0.6):
            self.phrase = "worn scarf"
            extras.append(_a(f"{self.colour('scarf')} scarf"))
        return extras

    def held(self) -> list[str]:
        """Return noun phrases of what is in the hands."""
        held = []
        if "carried" in self.seen and self.chance(0.65):
            self.phrase = "held carried"
            thing = f"{self.colour('carried')} {self.name('carried.kind', _WORDS['carried'])}"
            held.append(_a(thing))
        if "umbrella" in self.seen and self.chance(0.9):
            self.phrase = "held umbrella"
            held.append(_a(f"{self.colour('umbrella')} umbrella"))
        if "phone" in self.seen and self.chance(0.5):
            self.phrase = "held phone"
            self.said["held phone"] = [Mention("phone.kind", "phone", frozenset({"phone"}))]
            held.append(pick(self.rng, ["a phone", "a mobile phone", "a cell phone"]))
        return held

    def action(self) -> str:
        view, walks = view_of(self.shot.yaw), self.shot.stride > 0.12
        if view == "front":
            options = ["facing the camera", "seen from the front"]
            options += ["walking toward the camera", "walking forward"] * 2 if walks else []
        elif view == "back":
            options = ["facing away from the camera", "seen from behind"]
            options += ["walking away from the camera", "walking away"] * 2 if walks else []
        else:
            options = [f"facing {view}", "seen from the side", f"turned to the {view}"]
            options += [f"walking to the {view}", f"walking toward the {view}"] if walks else []
        if not walks:
            options += ["standing still", "standing upright"]
        return pick(self.rng, options)

    # sentences ----------------------------------------------------------------------------------

    def write(self) -> Caption:
        noun = self.subject()
        he = "the person" if self.neutral else "she" if self.female else "he"
        self.possessive = "their" if self.neutral else "her" if self.female else "his"
        slots = {
            "s": pick(self.rng, [_a(noun), f"the {noun}", f"this {noun}"]),
            "a_s": _a(noun),
            "he": he,
            "his": self.possessive,
            "A": self.action(),
            "U": self.upper(),
        }
        if "lower" in self.seen:
            slots["L"] = self.lower()
        if "shoes" in self.seen and self.chance(0.78):
            slots["F"] = self.shoes()
        if "hair" in self.seen and self.chance(0.55 if "headwear" not in self.seen else 0.2):
            slots["H"] = self.hair()
        if "bag" in self.seen and self.chance(self._bag_chance()):
            slots["B"] = self.bag()
        forms = _TABLES["forms" if "L" in slots else "dress_forms"]
        fitting = [form for form in forms if _slots(form) <= slots.keys()]
        # forms that use much of what is there are preferred: others would drop it
        form = draw(self.rng, {f: 1.0 + 2.0 * len(_slots(f) & set("FHB")) for f in fitting})
        used = _slots(form)
        sentences = [form.format(**slots)]
        for slot, maker in (("H", self._hair_sentence), ("B", self._bag_sentence)):
            if slot in slots and slot not in used and self.chance(0.75):
                sentences.append(maker(slots))
                used = used | {slot}
        if "F" in slots and "F" not in used and self.chance(0.7):
            sentences.append(self._shoe_sentence(slots))
            used = used | {"F"}
        extras, held = self.extra(), self.held()
        if extras:
            verb = pick(self.rng, ["is also wearing", "wears", "has on", "is wearing"])
            sentences.append(f"{he} {verb} {_listed(extras)}.")
        if held:
            verb = pick(self.rng, ["is holding", "holds", "is carrying", "carries"])
            sentences.append(f"{he} {verb} {_listed(held)}.")
        if "A" not in used and self.chance(0.25):
            sentences.append(f"{he} is {slots['A']}.")
        text = _capitalised(" ".join(sentences))
        phrases = {"U": "upper", "L": "lower", "F": "shoes", "H": "hair", "B": "bag"}
        dropped = {phrase for slot, phrase in phrases.items() if slot not in used}
        mentions = [m for phrase, said in self.said.items() if phrase not in dropped for m in said]
        return Caption(text, tuple(mentions))

    def _bag_chance(self) -> float:
        from_front = self.person.bag.kind == "backpack" and view_of(self.shot.yaw) == "front"
        return 0.45 if from_front else 0.85

    def _hair_sentence(self, slots: Mapping[str, str]) -> str:
        forms = ["{he} has {H}.", "{he} has {H}."]
        if slots["H"].endswith("hair") and not slots["H"].startswith("a "):
            forms += [
                "{his} hair is " + slots["H"].removesuffix(" hair").replace(" ", " and ") + "."
            ]
        return pick(self.rng, forms).format(**slots)

    def _bag_sentence(self, slots: Mapping[str, str]) -> str:
        where = self._where()
        kind = "suitcase" if self.person.bag.kind == "suitcase" else "bag"
        return pick(self.rng, _SENTENCES[kind]).format(where=where, **slots)

    def _shoe_sentence(self, slots: Mapping[str, str]) -> str:
        return pick(self.rng, _SENTENCES["shoes"]).format(**slots)


def _slots(form: str) -> frozenset[str]:
    """Return the phrases that a form of the main sentence has room for."""
    return frozenset(re.findall(r"{([A-Z])}", form))


def _a(phrase: str) -> str:
    """Return the phrase with "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _capitalised(text: str) -> str:
    """Return the text with a capital at the start of every sentence."""
    return re.sub(r"(?:^|(?<=\. ))[a-z]", lambda match: match[0].upper(), text)


def _listed(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
