"""The renderer: paints a person in a shot from joints, capsules and patterns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from crosswalk.synthetic.cameras import CANVAS
from crosswalk.synthetic.people import Item, Person, Rgb
from crosswalk.synthetic.pose import Point, Shot, Skeleton, passing

Spot = tuple[float, float]

_LIT, _DIM = 255, 176
_WOOL = ("sweater", "hoodie", "jacket", "coat", "cardigan")


class Painter:
    """A canvas with a picture and, apart from it, how brightly each pixel is lit.

    Shade is kept apart so that it can be softened without blurring colours and patterns.
    """

    def __init__(self, background: Image.Image, rng: np.random.Generator) -> None:
        self._picture = background
        self._shade = Image.new("L", background.size, _LIT)
        self._pen = ImageDraw.Draw(self._picture)
        self._shader = ImageDraw.Draw(self._shade)
        self._rng = rng
        self._light = -1.0 if rng.random() < 0.5 else 1.0

    def finish(self) -> Image.Image:
        """Return the picture in its light."""
        soft = self._shade.filter(ImageFilter.BoxBlur(2))
        return ImageChops.multiply(self._picture, Image.merge("RGB", (soft, soft, soft)))

    def figure(
        self, person: Person, shot: Shot, *, scale: float, foot: Spot, shadow: bool = True
    ) -> None:
        """Paint a person; `scale` is pixels of a body height, `foot` where the person stands."""
        if shadow:
            self._cast_shadow(foot, scale)
        _Figure(self, person, shot, scale * person.stature, foot).paint()

    def capsule(
        self, start: Spot, end: Spot, radius: float, end_radius: float, colour: Rgb
    ) -> None:
        """Paint a limb: round at both ends, brighter where the light comes from."""
        body = _capsule_outline(start, end, radius, end_radius)
        self._pen.polygon(body, fill=colour)
        self._shader.polygon(body, fill=_DIM)
        shift = self._light * 0.28
        lit = _capsule_outline(
            (start[0] + shift * radius, start[1]),
            (end[0] + shift * end_radius, end[1]),
            radius * 0.62,
            end_radius * 0.62,
        )
        self._shader.polygon(lit, fill=_LIT)

    def shape(
        self, outline: Sequence[Spot], colour: Rgb, *, lit: int = _LIT, item: Item | None = None
    ) -> None:
        """Paint a flat piece, with an item's pattern on it if it has one."""
        self._pen.polygon(outline, fill=colour)
        self._shader.polygon(outline, fill=lit)
        if item is not None and item.pattern not in ("plain", "logo", "block"):
            self._weave(outline, item)

    def trunk(self, outline: Sequence[Spot], item: Item) -> None:
        """Paint a piece of clothing around the trunk, darker on the side away from the light."""
        self.shape(outline, item.rgb, item=item)
        middle = sum(x for x, _ in outline) / len(outline)
        self._shader.polygon(outline, fill=_DIM + 6)
        for share, shift, light in ((0.84, 0.1, _DIM + 44), (0.6, 0.2, _LIT)):
            lit = [(middle + (x - middle) * share, y) for x, y in outline]
            reach = max(x for x, _ in lit) - middle
            self._shader.polygon([(x + self._light * shift * reach, y) for x, y in lit], fill=light)
        for _ in range(3):  # folds
            (x0, y0), (x1, y1) = outline[0], outline[len(outline) // 2]
            a, b, c, d = self._rng.random(4)
            x, y = x0 + (x1 - x0) * (0.2 + 0.6 * a), y0 + (y1 - y0) * (0.2 + 0.7 * b)
            reach = abs(x1 - x0) * 0.22
            self._shader.line(
                (x - reach * c, y, x + reach * d, y + 12 * (a - 0.3)), fill=_DIM + 22, width=2
            )

    def oval(
        self,
        centre: Spot,
        half: Spot,
        colour: Rgb,
        *,
        lit: int = _LIT,
        start: float = 0,
        end: float = 360,
    ) -> None:
        """Paint an ellipse, or the piece of it between two angles."""
        box = _around(centre, half)
        if end - start >= 360:
            self._pen.ellipse(box, fill=colour)
            self._shader.ellipse(box, fill=lit)
        else:
            self._pen.chord(box, start, end, fill=colour)
            self._shader.chord(box, start, end, fill=lit)

    def stroke(self, spots: Sequence[Spot], colour: Rgb, width: float) -> None:
        """Paint a line of at least one pixel."""
        self._pen.line(list(spots), fill=colour, width=max(1, round(width)), joint="curve")
        self._shader.line(list(spots), fill=_LIT - 20, width=max(1, round(width)))

    def block(self, box: tuple[float, float, float, float], colour: Rgb, radius: float = 3) -> None:
        """Paint a box with round corners and a darker rim."""
        x0, y0, x1, y1 = min(box[0], box[2]), box[1], max(box[0], box[2]), box[3]
        self._pen.rounded_rectangle((x0, y0, x1, y1), radius, fill=colour)
        self._shader.rounded_rectangle((x0, y0, x1, y1), radius, fill=_DIM + 10)
        if x1 - x0 > 6 and y1 - y0 > 7:
            self._shader.rounded_rectangle((x0 + 2, y0 + 2, x1 - 3, y1 - 4), radius, fill=_LIT)

    def _weave(self, outline: Sequence[Spot], item: Item) -> None:
        left, top = int(min(x for x, _ in outline)), int(min(y for _, y in outline))
        right, bottom = int(max(x for x, _ in outline)) + 1, int(max(y for _, y in outline)) + 1
        if right - left < 2 or bottom - top < 2:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in outline], fill=255)
        weave = _weave_of(item.pattern).crop((0, 0, right - left, bottom - top))
        self._picture.paste(item.accent_rgb, (left, top), ImageChops.multiply(mask, weave))

    def _cast_shadow(self, foot: Spot, scale: float) -> None:
        reach = scale * 0.16
        self._shader.ellipse(
            (
                foot[0] - reach + self._light * -8,
                foot[1] - scale * 0.03,
                foot[0] + reach + self._light * -8,
                foot[1] + scale * 0.022,
            ),
            fill=150,
        )


def _capsule_outline(start: Spot, end: Spot, radius: float, end_radius: float) -> list[Spot]:
    """Return the outline of two discs and what lies between them."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    outline = []
    for centre, size, first in ((start, radius, 0.5), (end, end_radius, -0.5)):
        for step in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            turn = angle + math.pi * (first + step)
            outline.append((centre[0] + size * math.cos(turn), centre[1] + size * math.sin(turn)))
    return outline


@lru_cache(maxsize=8)
def _weave_of(pattern: str) -> Image.Image:
    """Return the mask of a pattern's second colour, large enough for any garment."""
    size = 200
    y, x = np.mgrid[:size, :size]
    if pattern == "striped":
        mask = (y % 16 < 7) * 255
    elif pattern == "vertical":
        mask = (x % 9 < 3) * 255
    elif pattern == "plaid":
        mask = ((x % 16 < 7) * 110 + (y % 16 < 7) * 110) + ((x % 16 == 3) | (y % 16 == 3)) * 35
    else:  # dotted
        row = y // 9
        mask = ((x + (row % 2) * 6) % 12 - 5) ** 2 + (y % 9 - 4) ** 2
        mask = (mask < 8) * 255
    return Image.fromarray(mask.astype(np.uint8))


def _darker(rgb: Rgb, share: float) -> Rgb:
    return int(rgb[0] * share), int(rgb[1] * share), int(rgb[2] * share)


class _Figure:
    """Paints one person, from what is farthest from the viewer to what is nearest."""

    def __init__(
        self, painter: Painter, person: Person, shot: Shot, size: float, foot: Spot
    ) -> None:
        self.person, self.shot, self.size, self.foot = person, shot, size, foot
        self.capsule, self.shape, self.trunk = painter.capsule, painter.shape, painter.trunk
        self.oval, self.stroke, self.block = painter.oval, painter.stroke, painter.block
        self.body = Skeleton(person, shot)
        self.toward, self.aside = math.cos(shot.yaw), math.sin(shot.yaw)
        self.parts: list[tuple[float, Callable[[], None]]] = []

    def at(self, point: Point) -> Spot:
        return self.foot[0] + point[0] * self.size, self.foot[1] - point[1] * self.size

    def spot(self, left: float, up: float, forward: float) -> Spot:
        return self.at(self.body.place(left, up, forward))

    def paint(self) -> None:
        """Collect all parts with their depth, then paint them in order."""
        self._legs()
        self._trunk()
        self._arms()
        self._head()
        self._bag()
        self._carried()
        for _, paint in sorted(self.parts, key=lambda part: part[0]):
            paint()

    def add(self, depth: float, paint: Callable[[], None]) -> None:
        self.parts.append((depth, paint))

    # legs and feet ------------------------------------------------------------------------------

    def _legs(self) -> None:
        for side in (1, -1):
            depth = self.body.place(side * self.body.hip, 0, 0)[2]
            forward = self.body.legs[side][1][2]
            self.add(-0.3 + 0.5 * depth + 0.3 * forward, partial(self._leg, side))

    def _leg(self, side: int) -> None:
        person, size = self.person, self.size
        hip, knee, ankle, toe = (self.at(point) for point in self.body.legs[side])
        wide = size * 0.046 * self.body.limb
        lower = person.lower
        extent = "short" if lower.kind == "none" else lower.extent
        if lower.kind == "skirt":
            extent = "bare"
        calf, thin = wide * 0.74, wide * 0.52
        if lower.kind in ("trousers", "sweatpants"):
            calf, thin = wide * 0.86, wide * 0.8
        elif lower.kind == "jeans":
            calf, thin = wide * 0.8, wide * 0.68
        if extent != "long":
            self.capsule(knee, ankle, wide * 0.68, wide * 0.44, person.skin)
            if extent != "knee":
                self.capsule(hip, knee, wide, wide * 0.72, person.skin)
            if person.socks.kind != "none":
                start = _between(knee, ankle, 0.55)
                self.capsule(start, ankle, wide * 0.54, wide * 0.48, person.socks.rgb)
        self._shoe(knee, ankle, toe, wide)
        if lower.kind in ("none", "skirt"):
            return
        rgb = lower.rgb
        if extent == "long":
            self.capsule(knee, _between(knee, ankle, 0.95), calf, thin, rgb)
        elif extent == "knee":
            self.capsule(knee, _between(knee, ankle, 0.42), calf, wide * 0.66, rgb)
        thigh_end = _between(hip, knee, 0.86) if extent == "short" else knee
        end_width = wide * 1.05 if extent == "short" else calf
        self.capsule(hip, thigh_end, wide * 1.1, end_width, rgb)
        if extent == "short":
            hem = _between(hip, knee, 0.9)
            hem = (hem[0], hem[1] + wide * 0.5)
            self.shape(_trapezoid(hip, wide * 1.05, hem, wide * 1.15), rgb, item=lower)
        if lower.pattern == "block":
            outer = side * wide * 0.7 * self.toward
            seam = [
                (x + outer * share, y) for (x, y), share in ((hip, 1), (knee, 0.9), (ankle, 0.8))
            ]
            for piece in (seam[:2], seam[1:]):
                self.stroke(piece, lower.accent_rgb, size * 0.013)

    def _shoe(self, knee: Spot, ankle: Spot, toe: Spot, wide: float) -> None:
        shoes = self.person.shoes
        if shoes.kind == "boots":
            self.capsule(_between(knee, ankle, 0.5), ankle, wide * 0.72, wide * 0.6, shoes.rgb)
        thick = wide * (0.58 if shoes.kind == "sneakers" else 0.5)
        base = (ankle[0], ankle[1] + wide * 0.2)
        if shoes.kind == "sandals":
            self.capsule(base, toe, thick * 0.9, thick * 0.7, self.person.skin)
            self.stroke([(base[0], base[1] + thick), (toe[0], toe[1] + thick * 0.8)], shoes.rgb, 3)
            self.stroke([base, _between(base, toe, 0.8)], shoes.rgb, 3)
            return
        self.capsule(base, toe, thick * 1.05, thick * 0.85, shoes.rgb)
        if shoes.kind == "sneakers":
            sole = (240, 240, 238) if shoes.colour != "white" else (150, 150, 150)
            self.stroke(
                [(base[0], base[1] + thick * 0.9), (toe[0], toe[1] + thick * 0.75)], sole, 2
            )
        elif shoes.kind == "heels":
            back = base[0] - (toe[0] - base[0]) * 0.3
            self.stroke([(back, base[1]), (back, base[1] + thick * 1.3)], shoes.rgb, 2)

    # trunk --------------------------------------------------------------------------------------

    def _outline(
        self, levels: Sequence[tuple[float, float, float]], *, forward: float = 0.0
    ) -> list[Spot]:
        """Return an outline from ``(height, lateral, depth)`` half axes, top to bottom."""
        right, left = [], []
        for up, lateral, depth in levels:
            x, y = self.spot(0.0, up, forward)
            half = self.body.half_width(lateral, depth) * self.size
            right.append((x + half, y))
            left.append((x - half, y))
        return right + left[::-1]

    def _trunk(self) -> None:
        person, body = self.person, self.body
        worn = person.outer if person.outer.kind != "none" else person.upper
        self.add(0.0, self._lower_trunk)
        loose = 1.08 if worn.kind in _WOOL else 1.0
        wide, deep, hip = body.shoulder * loose, body.chest_depth * loose, body.hip
        female = person.sex == "female"
        belly = 1.22 if person.build == "heavy" else 1.0
        hem = {"coat": 0.3, "dress": 0.33, "jacket": 0.47, "tank top": 0.49}.get(worn.kind, 0.475)
        waist = hip * (0.86 if female else 1.02) * belly
        flare = 1.5 if worn.kind == "dress" else 1.18 if worn.kind == "coat" else 1.08
        levels = [
            (0.845, 0.045, 0.04),
            (0.82, wide * 0.94, deep * 0.8),
            (0.77, wide * 0.97, deep),
            (0.7, wide * 0.92, deep * (1.12 if female else 1.0)),
            (0.6, waist, deep * 0.9 * belly),
            (0.52, max(waist, hip) * 1.06, deep * belly),
            (hem, hip * flare * (1.1 if hem < 0.4 else 1.0), deep * flare),
        ]
        if worn.kind == "tank top":
            levels[1] = (0.815, wide * 0.62, deep * 0.7)
        self.add(0.01, lambda: self._garment(levels, worn))

    def _lower_trunk(self) -> None:
        body, lower = self.body, self.person.lower
        if lower.kind == "none":
            return
        levels = [(0.56, body.hip * 0.95, body.chest_depth), (0.47, body.hip, body.chest_depth)]
        if lower.kind == "skirt":
            hem = {"short": 0.36, "knee": 0.27, "long": 0.1}[lower.extent]
            spread = 0.5 * abs(self.body.legs[1][1][0] - self.body.legs[-1][1][0])
            half = body.hip * 1.25 + 0.2 * (0.45 - hem)
            levels += [(hem, half, max(body.chest_depth * 1.3, spread + 0.03))]
        self.trunk(self._outline(levels), lower)

    def _garment(self, levels: list[tuple[float, float, float]], worn: Item) -> None:
        person, toward, size = self.person, self.toward, self.size
        if worn.kind == "tank top":
            self.trunk(
                self._outline(
                    [
                        (0.84, 0.045, 0.04),
                        (0.82, self.body.shoulder * 0.9, 0.05),
                        (0.7, self.body.shoulder * 0.9, 0.06),
                    ]
                ),
                Item("skin", rgb=person.skin),
            )
        self.trunk(self._outline(levels), worn)
        if worn.pattern == "block":
            self.shape(self._outline(levels[:3]), worn.accent_rgb)
        if toward > 0.15:
            self._front(levels, worn)
        elif worn.kind == "hoodie":
            hood = self.spot(0, 0.82, -0.05)
            self.oval(hood, (size * 0.06, size * 0.035), _darker(worn.rgb, 0.85), lit=215)
        if person.scarf.kind != "none":
            neck = self.spot(0, 0.835, 0.01)
            self.oval(neck, (size * 0.066, size * 0.03), person.scarf.rgb, lit=230)
            if toward > 0:
                start, end = self.spot(0.03, 0.83, 0.06), self.spot(0.035, 0.66, 0.075)
                self.capsule(start, end, size * 0.02, size * 0.018, person.scarf.rgb)

    def _front(self, levels: list[tuple[float, float, float]], worn: Item) -> None:
        """Paint what only the front of the trunk shows: print, opening, collar."""
        person, toward, size = self.person, self.toward, self.size
        front = self.body.chest_depth * 0.9

        if person.outer.kind != "none":
            corners = ((0.052 * 0.7, 0.84), (0.052, 0.49), (-0.052, 0.49), (-0.052 * 0.7, 0.84))
            strip = [self.spot(left, up, front) for left, up in corners]
            self.shape(strip, person.upper.rgb, item=person.upper)
            if person.upper.pattern == "logo":
                self.oval(
                    self.spot(0, 0.71, front),
                    (size * 0.03 * toward, size * 0.025),
                    person.upper.accent_rgb,
                )
        elif worn.pattern == "logo":
            centre = self.spot(0, 0.71, front)
            half = (size * 0.05 * toward, size * 0.036)
            if worn.kind == "hoodie":
                self.block(_around(centre, (half[0], half[1] * 0.6)), worn.accent_rgb)
            else:
                self.oval(centre, half, worn.accent_rgb)
        elif worn.kind in ("suit", "coat", "jacket", "shirt", "cardigan"):
            low = levels[-1][0]
            if worn.kind == "suit":
                opening = [
                    self.spot(left, up, front)
                    for left, up in ((0.04, 0.84), (-0.04, 0.84), (0, 0.66))
                ]
                shirt = (236, 236, 234) if worn.colour != "white" else (60, 70, 110)
                self.shape(opening, shirt)
            self.stroke(
                [self.spot(0, 0.83, front), self.spot(0, low, front)], _darker(worn.rgb, 0.6), 1.4
            )
        if worn.kind in ("polo", "shirt", "coat"):
            for side in (1, -1):
                self.shape(
                    [
                        self.spot(0, 0.825, front),
                        self.spot(side * 0.045, 0.85, 0.03),
                        self.spot(side * 0.05, 0.815, front),
                    ],
                    _darker(worn.rgb, 0.82),
                )
        elif worn.kind in ("t-shirt", "blouse", "dress", "tank top"):
            self.oval(self.spot(0, 0.845, 0.03), (size * 0.036, size * 0.022), person.skin)

    # arms ---------------------------------------------------------------------------------------

    def _arms(self) -> None:
        for side in (1, -1):
            shoulder, _, wrist = self.body.arms[side]
            depth = shoulder[2] * 1.6 + 0.4 * (wrist[2] - shoulder[2])
            self.add(depth, partial(self._arm, side))

    def _arm(self, side: int) -> None:
        person, size = self.person, self.size
        shoulder, elbow, wrist = (self.at(point) for point in self.body.arms[side])
        worn = person.outer if person.outer.kind != "none" else person.upper
        wide = size * 0.034 * self.body.limb * (1.14 if worn.kind in _WOOL else 1.0)
        sleeve = worn.accent_rgb if worn.pattern == "block" else worn.rgb
        if worn.extent != "long":
            self.capsule(elbow, wrist, wide * 0.74, wide * 0.56, person.skin)
        self.capsule(
            _between(wrist, elbow, 0.04),
            _beyond(elbow, wrist, size * 0.03),
            wide * 0.6,
            wide * 0.56,
            person.skin,
        )
        if worn.extent == "long":
            self.capsule(elbow, wrist, wide * 0.88, wide * 0.72, sleeve)
            self.capsule(shoulder, elbow, wide * 1.08, wide * 0.9, sleeve)
        else:
            self.capsule(shoulder, elbow, wide * 0.92, wide * 0.74, person.skin)
            if worn.extent == "short":
                end = _between(shoulder, elbow, 0.62)
                self.capsule(shoulder, end, wide * 1.1, wide * 1.08, sleeve)
        if worn.pattern in ("striped", "plaid", "vertical", "dotted"):
            pieces = [(shoulder, elbow)] if worn.extent != "none" else []
            pieces += [(elbow, wrist)] if worn.extent == "long" else []
            for start, end in pieces:
                for share in (0.2, 0.55, 0.9) if worn.extent == "long" else (0.2, 0.5):
                    x, y = _between(start, end, share)
                    self.stroke([(x - wide, y), (x + wide, y)], worn.accent_rgb, 2.4)
        if person.phone.kind != "none" and side == -person.umbrella.side:
            x, y = _beyond(elbow, wrist, size * 0.03)
            self.block((x - 3, y - 7, x + 3, y + 5), person.phone.rgb, 1)

    # head ---------------------------------------------------------------------------------------

    def _head(self) -> None:
        self.add(0.05, self._neck_and_head)
        hair = self.person.hair
        if hair.kind == "long" or hair.kind == "ponytail":
            # falls down the back: in front of the trunk only where the back is seen
            self.add(0.06 if self.toward < 0.25 else -0.5, self._falling_hair)

    def _falling_hair(self) -> None:
        hair, size = self.person.hair, self.size
        top, end = self.spot(0, 0.92, -0.045), self.spot(0, 0.74, -0.075)
        if hair.kind == "ponytail":
            end = self.spot(0, 0.79, -0.1)
            self.capsule(top, end, size * 0.02, size * 0.024, hair.rgb)
        else:
            half = self.body.half_width(0.066, 0.035) * size
            self.capsule(top, end, half * 0.9, half, hair.rgb)

    def _neck_and_head(self) -> None:
        person, size, toward, aside = self.person, self.size, self.toward, self.aside
        hair, headwear = person.hair, person.headwear
        neck = self.spot(0, 0.86, 0.0)
        x, y = self.spot(0, 0.93, 0.012)
        self.capsule(
            neck, (x, y + size * 0.03), size * 0.031, size * 0.031, _darker(person.skin, 0.86)
        )
        wide, high = size * 0.056, size * 0.07
        bald = hair.kind == "bald"
        crown = person.skin if bald else hair.rgb
        puff = {"medium": 1.14, "long": 1.12}.get(hair.kind, 1.03)
        self.oval((x - aside * wide * 0.14, y - high * 0.04), (wide * puff, high), crown)
        if hair.kind in ("medium", "long") and not bald:
            drop = (x - aside * wide * 0.4, y + high * 0.5)
            self.oval(drop, (wide * (0.95 - 0.25 * abs(aside)), high * 0.75), crown)
        if hair.kind == "bun":
            bun = (x - aside * wide * 0.9, y - high * 0.75)
            self.oval(bun, (wide * 0.5, high * 0.4), crown)
        if toward < -0.45 and hair.kind in ("short", "bun", "ponytail"):
            self.oval((x, y + high * 0.72), (wide * 0.66, high * 0.3), person.skin, lit=220)
        if toward > -0.45:
            self._face((x, y), wide, high)
        if headwear.kind != "none":
            self._headwear((x, y), wide, high)
        if self.shot.umbrella_open:
            self._umbrella((x, y))

    def _face(self, head: Spot, wide: float, high: float) -> None:
        person, toward, aside = self.person, self.toward, self.aside
        half = wide * (0.8 if toward > 0.5 else 0.6 if toward > -0.1 else 0.34)
        x, y = head[0] + aside * (wide - half * 0.9), head[1] + high * 0.2
        self.oval((x, y), (half, high * 0.76), person.skin)
        if toward > 0.3 or abs(aside) > 0.8:
            eyes = [x + aside * half * 0.4 + s * half * 0.42 * max(toward, 0) for s in (1, -1)]
            for eye in eyes:
                self.oval((eye, y - high * 0.1), (1.4, 1.2), (40, 30, 28))
            self.stroke(
                [(eyes[1] - 1, y + high * 0.42), (eyes[0] + 1, y + high * 0.42)], (150, 76, 70), 1
            )
            if person.glasses.kind != "none":
                for eye in eyes:
                    box = _around((eye, y - high * 0.1), (4, 3))
                    if person.glasses.kind == "sunglasses":
                        self.block(box, person.glasses.rgb, 1)
                    else:
                        corners = ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))
                        rim = [(box[across], box[down]) for across, down in corners]
                        self.stroke(rim, person.glasses.rgb, 1)
                self.stroke(
                    [(eyes[1], y - high * 0.12), (eyes[0], y - high * 0.12)], person.glasses.rgb, 1
                )

    def _headwear(self, head: Spot, wide: float, high: float) -> None:
        x, y = head
        item, reach = self.person.headwear, wide * 1.12
        if item.kind == "hat":
            brim = (x, y - high * 0.38)
            self.oval(brim, (wide * 1.75, high * 0.2), _darker(item.rgb, 0.85))
            box = (x - wide * 0.95, y - high * 1.12, x + wide * 0.95, y - high * 0.36)
            self.block(box, item.rgb, 5)
            return
        drop = 0.0 if item.kind == "beanie" else -0.1
        self.oval((x, y + high * drop), (reach, high * 1.06), item.rgb, start=180, end=360)
        if item.kind == "cap":
            tip = x + self.aside * wide * 1.9
            level = y + high * (drop - 0.02)
            if self.toward > -0.5:
                half = wide * (0.4 + 0.7 * max(self.toward, 0))
                middle = (x + tip) / 2
                self.oval(
                    (middle, level),
                    (max(half, abs(tip - x) / 2), high * 0.16),
                    _darker(item.rgb, 0.75),
                )
        else:
            band = (x - reach, y - high * 0.14, x + reach, y + high * 0.06)
            self.block(band, _darker(item.rgb, 0.85), 2)

    def _umbrella(self, head: Spot) -> None:
        size, item = self.size, self.person.umbrella
        hand = self.at(self.body.arms[item.side][2])
        x, y = (hand[0] + head[0]) / 2, head[1] - size * 0.03
        self.stroke([hand, (x, y - size * 0.1)], (60, 60, 62), 2)
        self.oval((x, y), (size * 0.2, size * 0.13), item.rgb, lit=225, start=180, end=360)

    # things -------------------------------------------------------------------------------------

    def _bag(self) -> None:
        bag, toward, size = self.person.bag, self.toward, self.size
        if bag.kind == "none":
            return
        if bag.kind == "backpack":
            self.add(-toward * 0.5, self._backpack)
            if toward > -0.2:
                self.add(0.3, self._backpack_straps)
        elif bag.kind in ("crossbody bag", "shoulder bag"):
            side = bag.side
            depth = self.body.place(side * 0.16, 0, 0)[2]
            over = -side if bag.kind == "crossbody bag" else side
            wide = 0.055 if bag.kind == "crossbody bag" else 0.06
            x, y = self.spot(side * (self.body.hip + 0.035), 0.5, 0.0)
            half = self.body.half_width(0.035, wide) * size

            def strap() -> None:
                front = 0.06 if toward > 0 else -0.06
                start = self.spot(over * 0.08, 0.83, 0.0)
                middle = self.spot(over * 0.02, 0.72, front)
                end = (x, y - size * 0.03)
                spots = [start, middle, end] if over != side else [start, end]
                self.stroke(spots, _darker(bag.rgb, 0.8), size * 0.014)

            self.add(0.25, strap)
            self.add(
                depth * 3,
                lambda: self.block(
                    (x - half, y - size * 0.045, x + half, y + size * 0.06), bag.rgb, 4
                ),
            )
        elif bag.kind == "handbag":
            hand = self.at(self.body.arms[bag.side][2])
            depth = self.body.place(bag.side * 0.2, 0, 0)[2] * 3

            def paint() -> None:
                half = self.body.half_width(0.03, 0.075) * size
                top = hand[1] + size * 0.05
                self.stroke(
                    [(hand[0] - half * 0.5, top), hand, (hand[0] + half * 0.5, top)], bag.rgb, 2
                )
                self.block((hand[0] - half, top, hand[0] + half, top + size * 0.09), bag.rgb, 4)

            self.add(depth, paint)
        else:  # suitcase, pulled behind
            x, y = self.spot(bag.side * 0.19, 0.0, -0.16)
            half = self.body.half_width(0.075, 0.05) * size
            hand = self.at(self.body.arms[bag.side][2])

            def pull() -> None:
                self.stroke([hand, (x, y - size * 0.26)], (70, 70, 74), 2)
                self.block((x - half, y - size * 0.27, x + half, y - 2), bag.rgb, 4)
                self.oval((x - half + 3, y), (2.5, 2.5), (20, 20, 20))
                self.oval((x + half - 3, y), (2.5, 2.5), (20, 20, 20))

            self.add(-toward * 0.6 + self.body.place(bag.side * 0.2, 0, 0)[2], pull)

    def _backpack(self) -> None:
        bag, size, body = self.person.bag, self.size, self.body
        x, y = self.spot(0, 0.69, -(body.chest_depth + 0.04))
        half = body.half_width(0.088, 0.052) * size
        self.block(_around((x, y), (half, size * 0.125)), bag.rgb, 8)
        if self.toward < -0.3:
            self.stroke(
                [(x - half * 0.8, y - size * 0.03), (x + half * 0.8, y - size * 0.03)],
                _darker(bag.rgb, 0.65),
                1.5,
            )
            self.block(
                (x - half * 0.6, y + size * 0.01, x + half * 0.6, y + size * 0.09),
                _darker(bag.rgb, 0.86),
                4,
            )

    def _backpack_straps(self) -> None:
        bag, front = self.person.bag, self.body.chest_depth * 0.95
        for side in (1, -1):
            if side * self.aside > 0.5:
                continue
            left = side * self.body.shoulder * 0.6
            self.stroke(
                [
                    self.spot(left, 0.835, 0.0),
                    self.spot(left, 0.74, front),
                    self.spot(left * 1.2, 0.63, front * 0.5),
                ],
                bag.rgb,
                self.size * 0.018,
            )

    def _carried(self) -> None:
        item, size = self.person.carried, self.size
        if item.kind == "none":
            return
        if item.kind in ("box", "folder"):
            x, y = self.spot(0, 0.64, 0.16)
            half = self.body.half_width(0.1, 0.06 if item.kind == "box" else 0.02) * size
            tall = size * (0.07 if item.kind == "box" else 0.085)
            self.add(self.toward, lambda: self.block(_around((x, y), (half, tall)), item.rgb, 1))
            return
        hand = self.at(self.body.arms[item.side][2])
        depth = self.body.place(item.side * 0.2, 0, 0)[2] * 3

        def paint() -> None:
            if item.kind == "bottle":
                self.block((hand[0] - 4, hand[1] - 8, hand[0] + 4, hand[1] + 14), item.rgb, 2)
                return
            half = self.body.half_width(0.025, 0.07) * size
            top = (hand[0], hand[1] + size * 0.03)
            bottom = (hand[0], top[1] + size * 0.13)
            self.shape(_trapezoid(top, half * 0.7, bottom, half), item.rgb, lit=235)
            self.stroke([hand, top], item.rgb, 2)

        self.add(depth, paint)


def _around(centre: Spot, half: Spot) -> tuple[float, float, float, float]:
    return centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]


def _trapezoid(top: Spot, half_top: float, bottom: Spot, half_bottom: float) -> list[Spot]:
    """Return the corners of a piece between two levels, given by the middle of each."""
    (x, y), (u, v) = top, bottom
    return [(x - half_top, y), (x + half_top, y), (u + half_bottom, v), (u - half_bottom, v)]


def _between(start: Spot, end: Spot, share: float) -> Spot:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _beyond(start: Spot, end: Spot, distance: float) -> Spot:
    reach = math.hypot(end[0] - start[0], end[1] - start[1]) or 1.0
    return _between(start, end, 1 + distance / reach)


def occlude(
    painter: Painter, shot: Shot, rng: np.random.Generator, passer_by: Person | None
) -> None:
    """Paint what stands between the camera and the person.

    Args:
        painter: Where the person has been painted.
        shot: Its `occluder` says what there is.
        rng: Source of its place and colour.
        passer_by: Who walks through the picture where the occluder is a passer-by.

    Example:
        >>> from crosswalk.synthetic.randomness import keyed_generator
        >>> painter = Painter(Image.new("RGB", CANVAS, "white"), keyed_generator(0))
        >>> occlude(painter, Shot(0, "Market", 0, 0.0, 0.0, 0.4, 0.3, "low", False),
        ...         keyed_generator(1), None)
        >>> sum(painter.finish().getpixel((75, 350))) < 3 * 255
        True
    """
    width, height = CANVAS
    grey = int(rng.integers(50, 190))
    if shot.occluder == "low":
        top = height * rng.uniform(0.7, 0.82)
        if rng.random() < 0.5:  # a hedge
            for _ in range(26):
                x, y = rng.uniform(0, width), rng.uniform(top, height)
                light = rng.uniform(0.7, 1.2)
                leaf = (int(56 * light), int(92 * light), int(44 * light))
                painter.oval((x, y + 10), (26, 22), leaf)
        else:  # a parked thing or a wall
            tint = rng.integers(-25, 25, 3)
            colour = (grey + int(tint[0]), grey + int(tint[1]), grey + int(tint[2]))
            painter.block((-20, top, width + 20, height + 20), colour, 12)
    elif shot.occluder == "pole":
        x = width * rng.uniform(0.25, 0.7)
        painter.block((x, -5, x + rng.uniform(8, 17), height + 5), (grey, grey, grey), 0)
    elif shot.occluder == "passer-by" and passer_by is not None:
        edge = -0.06 if rng.random() < 0.5 else 1.06
        painter.figure(
            passer_by,
            passing(shot, rng),
            scale=height * rng.uniform(0.8, 1.0),
            foot=(width * edge, height * 1.02),
            shadow=False,
        )
