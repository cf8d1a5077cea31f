"""Synthetic cameras: where they stand and what they do to the light that reaches them."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from crosswalk.synthetic.looks import Look, look_named
from crosswalk.synthetic.randomness import draw, keyed_generator, pick

CANVAS = (150, 360)
"""Width and height in pixels of the picture that is painted before a camera takes it."""

_SCENE_WIDTH = 420
_GRAIN_SIZE = 512


@dataclass(frozen=True, slots=True)
class Camera:
    """The constant part of a camera's look.

    Attributes:
        key: Words and numbers that key the camera's own random streams.
        place: Kind of background.
        exposure: Factor on all channels.
        gains: Factor on each channel.
        gamma: Exponent of the tone curve.
        contrast: Slope around middle grey.
        sharpness: Share of the pixels that are really resolved, in (0, 1].
        noise: Standard deviation of the grain, in grey levels.
        quality: JPEG quality.
        height: Typical height of a crop in pixels.
        look: What all cameras of the place have in common.
    """

    key: tuple[int, str, str, int]
    place: str
    exposure: float
    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    sharpness: float
    noise: float
    quality: int
    height: int
    look: Look = field(compare=False)


@lru_cache(maxsize=256)
def camera_of(look_name: str, *, seed: int, source: str, camera: int) -> Camera:
    """Return the camera of this number of a source: a function of the arguments alone.

    Args:
        look_name: Name of the look.
        seed: Seed of the data set.
        source: Source folder.
        camera: Number within the source, from 0.

    Returns:
        The camera.

    Example:
        >>> camera_of("city", seed=0, source="Market", camera=1).key
        (0, 'city', 'Market', 1)
    """
    look = look_named(look_name)
    rng = keyed_generator(seed, look_name, "camera", source, camera)
    gains = 1 + rng.uniform(-look.cast, look.cast, 3)
    gains /= gains.mean()
    gains *= look.tint
    return Camera(
        key=(seed, look_name, source, camera),
        place=draw(rng, look.places),
        exposure=rng.uniform(*look.exposure),
        gains=(gains[0], gains[1], gains[2]),
        gamma=rng.uniform(*look.gamma),
        contrast=rng.uniform(*look.contrast),
        sharpness=rng.uniform(*look.sharpness),
        noise=rng.uniform(*look.noise),
        quality=int(rng.integers(*look.quality)),
        height=int(rng.integers(*look.height)),
        look=look,
    )


def background_of(camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Return a piece of one of the camera's scenes, as wide as the canvas, to be painted on.

    Example:
        >>> camera = camera_of("city", seed=0, source="Market", camera=1)
        >>> background_of(camera, keyed_generator(3)).size == CANVAS
        True
    """
    scene = _scene(camera, int(rng.random() * 3))
    left = int(rng.random() * (_SCENE_WIDTH - CANVAS[0]))
    piece = scene.crop((left, 0, left + CANVAS[0], CANVAS[1]))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else piece


def photograph(
    picture: Image.Image,
    camera: Camera,
    rng: np.random.Generator,
    *,
    light: np.random.Generator | None = None,
    framing: tuple[float, float, float, float] | None = None,
) -> bytes:
    """Return the JPEG file that the camera makes of a painted picture.

    Crops with jitter, resolves as little as the camera and the distance let it, and adds cast,
    exposure, grain and the artefacts of compression.

    Args:
        picture: RGB picture of the canvas' size.
        camera: The camera.
        rng: Source of what changes from picture to picture.
        light: Source of the light of the moment; None for `rng`.
        framing: Shares of the picture that are cut off left, top, right and bottom; None for a
            detector's small errors.

    Returns:
        Bytes of a JPEG file; by the usual look 60 to 160 pixels wide and 160 to 400 high.

    Example:
        >>> camera = camera_of("city", seed=0, source="Market", camera=1)
        >>> photograph(Image.new("RGB", CANVAS), camera, keyed_generator(3))[:2].hex()
        'ffd8'
    """
    least, most = camera.look.height_limits
    height = int(min(most, max(least, camera.height * rng.uniform(0.8, 1.2))))
    width = int(min(0.4 * most, max(0.375 * least, height / rng.uniform(2.25, 2.95))))
    width, height = camera.look.crop_size or (width, height)
    # the detector's box: off by some per cent on every side
    aside, above, below = camera.look.box_error
    errors = rng.uniform((0, 0, 0, 0), (aside, above, aside, below))
    left, top, right, bottom = errors if framing is None else framing
    box = (left * CANVAS[0], top * CANVAS[1], (1 - right) * CANVAS[0], (1 - bottom) * CANVAS[1])
    share = camera.sharpness * rng.uniform(0.75, 1.0)
    small = (max(24, int(width * share)), max(60, int(height * share)))
    resolved = picture.resize(small, Image.Resampling.BOX, box=box)
    image = resolved.resize((width, height), Image.Resampling.BILINEAR)
    image = image.point(_tone_curve(camera, rng if light is None else light))
    image = _grained(image, camera, rng)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=camera.quality)
    return file.getvalue()


def _tone_curve(camera: Camera, rng: np.random.Generator) -> list[int]:
    """Return the table of 3 x 256 levels of the camera in the light of the moment."""
    exposure = camera.exposure * rng.uniform(*camera.look.light)
    gains = np.array(camera.gains) * (
        1 + rng.uniform(-camera.look.light_cast, camera.look.light_cast, 3)
    )
    level = np.linspace(0, 1, 256) ** camera.gamma
    level = 0.5 + (level - 0.5) * camera.contrast * rng.uniform(0.9, 1.1)
    table = np.outer(gains * exposure, level) * 255 + rng.uniform(-4, 8)
    curve: list[int] = table.clip(0, 255).round().astype(int).ravel().tolist()
    return curve


def _grained(image: Image.Image, camera: Camera, rng: np.random.Generator) -> Image.Image:
    left, top = (int(v) for v in rng.integers(0, _GRAIN_SIZE - 400, 2))
    tile = _grain(round(camera.noise)).crop((left, top, left + image.width, top + image.height))
    return ImageChops.add(image, tile, scale=1, offset=-128)


@lru_cache(maxsize=16)
def _grain(noise: int) -> Image.Image:
    levels = keyed_generator("grain").normal(128, noise, (_GRAIN_SIZE, _GRAIN_SIZE, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


@lru_cache(maxsize=128)
def _scene(camera: Camera, number: int) -> Image.Image:
    """Return a wide background of the camera: ground, what stands behind it, and clutter."""
    rng = keyed_generator(*camera.key, "scene", number)
    size = (_SCENE_WIDTH, CANVAS[1])
    image = Image.new("RGB", size)
    pen = ImageDraw.Draw(image)
    horizon = int(size[1] * rng.uniform(0.12, 0.5))
    ground = {
        "street": (104, 104, 108),
        "grass": (88, 122, 62),
        "wall": (146, 138, 128),
        "plaza": (172, 164, 152),
        "indoor": (176, 170, 160),
    }[camera.place]
    _paint_ground(pen, rng, horizon, _near(rng, ground, 16), camera.place)
    _paint_far(pen, rng, horizon, camera.place)
    image = image.filter(ImageFilter.GaussianBlur(1.2))
    mottled = keyed_generator(*camera.key, "mottle", number)
    blotches = Image.fromarray(mottled.standard_normal((30, 36), dtype=np.float32) * 8)
    grain = np.asarray(blotches.resize(size, Image.Resampling.BICUBIC)) + 4 * (
        mottled.standard_normal(size[::-1], dtype=np.float32)
    )
    levels = np.asarray(image) + grain[:, :, None]
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.SMOOTH)


def _near(
    rng: np.random.Generator, rgb: tuple[int, int, int], spread: float
) -> tuple[int, int, int]:
    shift = rng.normal(0, spread) + rng.normal(0, spread * 0.4, 3)
    red, green, blue = (int(min(245, max(10, c + s))) for c, s in zip(rgb, shift, strict=True))
    return red, green, blue


def _paint_ground(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    horizon: int,
    colour: tuple[int, int, int],
    place: str,
) -> None:
    bottom = CANVAS[1]
    for top in range(horizon, bottom, 6):
        light = 0.82 + 0.3 * (top - horizon) / (bottom - horizon)
        pen.rectangle((0, top, _SCENE_WIDTH, top + 6), fill=tuple(int(c * light) for c in colour))
    if place == "plaza":
        dark = tuple(int(c * 0.8) for c in colour)
        for left in range(-400, 800, 45):
            pen.line((left, bottom, 210 + (left - 210) * 0.35, horizon), fill=dark, width=2)
        for step in range(9):
            level = horizon + (bottom - horizon) * (step / 9) ** 1.8
            pen.line((0, level, _SCENE_WIDTH, level), fill=dark, width=2)
    elif place == "street":
        for _ in range(int(rng.integers(1, 4))):
            start, end = rng.uniform(-100, 500, 2)
            pen.line((start, bottom, end, horizon), fill=(216, 214, 200), width=5)
    elif place == "grass":
        for x, y in rng.uniform((0, horizon), (_SCENE_WIDTH, bottom), (260, 2)):
            light = rng.uniform(0.7, 1.25)
            pen.line((x, y, x + 2, y - 6), fill=tuple(int(c * light) for c in colour), width=2)
        if rng.random() < 0.6:
            start = rng.uniform(0, 300)
            path = [(start, bottom), (start + 150, bottom), (start + 90, horizon), (start, horizon)]
            pen.polygon(path, fill=(168, 156, 138))


def _paint_far(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, horizon: int, place: str
) -> None:
    if place == "wall":
        colour = _near(rng, (156, 128, 108), 26)
        pen.rectangle((0, 0, _SCENE_WIDTH, horizon), fill=colour)
        dark = tuple(int(c * 0.86) for c in colour)
        for row, level in enumerate(range(0, horizon, 14)):
            pen.line((0, level, _SCENE_WIDTH, level), fill=dark, width=1)
            for joint in range(-(row % 2) * 15, _SCENE_WIDTH, 30):
                pen.line((joint, level, joint, min(horizon, level + 14)), fill=dark, width=1)
    elif place == "indoor":
        _paint_hall(pen, rng, horizon)
        return
    else:
        pen.rectangle((0, 0, _SCENE_WIDTH, horizon), fill=_near(rng, (176, 186, 196), 22))
        for _ in range(int(rng.integers(3, 8))):
            left, wide = float(rng.uniform(-60, _SCENE_WIDTH)), float(rng.uniform(40, 150))
            top = horizon * float(rng.uniform(0, 0.6))
            if place == "grass" or rng.random() < 0.3:
                green = _near(rng, (58, 92, 48), 20)
                pen.ellipse((left, top, left + wide, horizon + 12), fill=green)
            else:
                house = _near(rng, (150, 140, 132), 34)
                pen.rectangle((left, top, left + wide, horizon), fill=house)
                pane = tuple(int(c * 0.6) for c in house)
                for x in range(int(left) + 6, int(left + wide) - 10, 18):
                    for y in range(int(top) + 6, horizon - 14, 22):
                        pen.rectangle((x, y, x + 9, y + 13), fill=pane)
    for _ in range(int(rng.integers(0, 4))):  # poles, parked things
        left = float(rng.uniform(0, _SCENE_WIDTH))
        colour = _near(rng, pick(rng, [(70, 72, 76), (150, 150, 150), (120, 60, 50)]), 14)
        if rng.random() < 0.5:
            foot = horizon + float(rng.uniform(10, 120))
            pen.rectangle((left, 0, left + rng.uniform(4, 10), foot), fill=colour)
        else:
            foot, wide = horizon + float(rng.uniform(5, 70)), float(rng.uniform(50, 130))
            top = foot - float(rng.uniform(35, 70))
            body = _near(rng, pick(rng, [(150, 30, 36), (40, 60, 120), (200, 200, 200)]), 20)
            pen.rounded_rectangle((left, top, left + wide, foot), 12, fill=body)
            pen.ellipse((left + 8, foot - 12, left + 30, foot + 10), fill=(30, 30, 32))
            pen.ellipse(
                (left + wide - 30, foot - 12, left + wide - 8, foot + 10), fill=(30, 30, 32)
            )


def _paint_hall(pen: ImageDraw.ImageDraw, rng: np.random.Generator, horizon: int) -> None:
    """Paint an inner wall with doors, posters and a row of lamps, and pillars before it."""
    wall = _near(rng, (196, 190, 176), 22)
    pen.rectangle((0, 0, _SCENE_WIDTH, horizon), fill=wall)
    base = tuple(int(c * 0.7) for c in wall)
    pen.rectangle((0, horizon - 5, _SCENE_WIDTH, horizon), fill=base)
    left = float(rng.uniform(-60, 0))
    while left < _SCENE_WIDTH:
        wide = float(rng.uniform(34, 70))
        top = horizon * float(rng.uniform(0.1, 0.4))
        kind = rng.random()
        if kind < 0.35:  # a door
            pen.rectangle((left, top, left + wide, horizon), fill=_near(rng, (112, 84, 62), 20))
        elif kind < 0.65:  # a pane or a poster
            colour = pick(rng, [(120, 150, 170), (176, 60, 50), (60, 96, 140), (214, 196, 120)])
            foot = horizon * float(rng.uniform(0.6, 0.85))
            pen.rectangle((left, top, left + wide, foot), fill=_near(rng, colour, 18))
        left += wide + float(rng.uniform(20, 80))
    for lamp in range(int(rng.integers(10, 50)), _SCENE_WIDTH, 90):
        pen.rectangle((lamp, 0, lamp + 46, 5), fill=(244, 244, 236))
    for _ in range(int(rng.integers(0, 3))):
        left, wide = float(rng.uniform(0, _SCENE_WIDTH)), float(rng.uniform(16, 34))
        foot = horizon + float(rng.uniform(10, 90))
        pen.rectangle((left, 0, left + wide, foot), fill=_near(rng, (150, 148, 144), 24))
        pen.rectangle(
            (left + wide * 0.7, 0, left + wide, foot), fill=_near(rng, (110, 108, 106), 8)
        )
