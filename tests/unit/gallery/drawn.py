"""A gallery of drawn pictures with all that a table can say, for tests of the search page."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from crosswalk import Gallery
from crosswalk.use.model import Model

NUMBER = 12
SENTENCE = "a woman in a red coat with a black backpack"
HOSTILE = '<img src=x onerror="document.title=1">'
"""What a page that does not escape would run."""


def picture(seed: int) -> Image.Image:
    """Return a picture of a few coloured stripes."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 3), dtype=np.uint8)
    return Image.fromarray(colours.repeat(24, 0)[:, None].repeat(40, 1))


def drawn(folder: Path, model: Model) -> Gallery:
    """Return a gallery of `NUMBER` pictures; two look the same, and the first is called hostile.

    Picture n is of camera 0, 1 or 2, taken on 2026-11-(n + 1) at noon, in one of two places.
    """
    photos = folder / "photos"
    photos.mkdir()
    with (photos / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "camera", "time", "own_id", "place"])
        for number in range(NUMBER):
            name = f"{HOSTILE if number == 0 else number}.png"
            picture(min(number, NUMBER - 2)).save(photos / name)
            time = f"2026-11-{number + 1:02} 12:00"
            own_id = f"<b>{number}</b>"
            writer.writerow([name, number % 3, time, own_id, ["gate", "hall"][number % 2]])
    return Gallery.build(folder / "photos.gallery", model, photos / "table.csv")
