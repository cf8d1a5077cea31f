"""The picture at the top of the README: sentences, and what the shipped model finds for them.

``make pictures`` draws it. The sentences are the first captions of the first people of the
synthetic test set, none is chosen; a green frame and a tick mark images of the person described.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from PIL import Image

import crosswalk
from crosswalk.synthetic.generate import synthesize_pairs

SENTENCES, IMAGES = 3, 7
RIGHT, WRONG = "#1a7f37", "#c9c9c9"
TARGET = Path("docs/pictures/search.jpg")


class Found(NamedTuple):
    """A sentence and the images nearest to it, with whether they show the person described."""

    sentence: str
    images: list[tuple[Path, bool]]


def search(root: Path) -> list[Found]:
    """Return what the model ranks first for each sentence, in a data set like CUHK-PEDES."""
    entries = json.loads((root / "CUHK-PEDES" / "reid_raw.json").read_text(encoding="utf-8"))
    test = [entry for entry in entries if entry["split"] == "test"]
    files = [root / "CUHK-PEDES" / "imgs" / entry["file_path"] for entry in test]
    first: dict[int, str] = {}
    for entry in test:
        first.setdefault(entry["id"], entry["captions"][0])
    queries = list(first.items())[:SENTENCES]
    model = crosswalk.load("tiny:rde")
    scores = model.embed_texts([text for _, text in queries]) @ model.embed_images(files).T
    ranked = scores.argsort(dim=1, descending=True)[:, :IMAGES].tolist()
    return [
        Found(text, [(files[place], test[place]["id"] == person) for place in places])
        for (person, text), places in zip(queries, ranked, strict=True)
    ]


def draw(found: list[Found], target: Path) -> None:
    """Write the picture, a row for each sentence."""
    figure, rows = plt.subplots(
        len(found),
        IMAGES + 1,
        figsize=(8.4, 1.85 * len(found)),
        width_ratios=[2.5, *[0.75] * IMAGES],
    )
    for each, row in zip(found, rows, strict=True):
        row[0].text(0, 0.5, fill(f"“{each.sentence}”", 34), va="center", fontsize=8.5)
        row[0].axis("off")
        for place, ((file, is_right), axes) in enumerate(zip(each.images, row[1:], strict=True), 1):
            _draw_image(axes, file, f"{place} ✓" if is_right else str(place), is_right)
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.96, wspace=0.06, hspace=0.14)
    figure.savefig(target, dpi=120, pil_kwargs={"quality": 88})


def _draw_image(axes: Any, file: Path, title: str, is_right: bool) -> None:  # noqa: ANN401
    axes.imshow(Image.open(file), aspect="auto", interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, color=RIGHT if is_right else "#666666", pad=2)
    for side in axes.spines.values():
        side.set(color=RIGHT if is_right else WRONG, linewidth=2.5 if is_right else 1)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        synthesize_pairs(folder)
        draw(search(Path(folder)), TARGET)
    print(f"wrote {TARGET}")
