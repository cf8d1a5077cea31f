"""The pictures of the search page and of a report, taken in Chromium: ``make pictures``.

The gallery is the synthetic test set, and the sentence its first caption; which camera saw whom
when is made up. The report is that of ``crosswalk evaluate tiny:rde`` on the same set.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from PIL import Image

import crosswalk
from crosswalk.cli import main as program
from crosswalk.gallery.serving import served
from crosswalk.synthetic.generate import synthesize_pairs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ViewportSize

FOLDER = Path("docs/pictures")
SIZES = {"page.png": (1280, 900), "page-narrow.png": (400, 860)}
"""Width and height in pixels by name."""

COLOURS = 200
"""Of a picture, which is a third as large with them."""

SHOWN = """[...document.querySelectorAll("#hits img")].every(
    (image) => image.naturalWidth || image.getBoundingClientRect().top > innerHeight
)"""
"""Whether all that a window shows is there."""

OVERVIEW = "overview.png"
"""The search page beside the ranking lists of a report, for the README."""

CAMERAS = 6
OPENED = datetime(2026, 11, 2, 8)


def table_of(root: Path) -> tuple[Path, str]:
    """Write a table of the test images of a synthetic set; return it, and their first caption."""
    images = root / "CUHK-PEDES" / "imgs"
    entries = json.loads((images.parent / "reid_raw.json").read_text(encoding="utf-8"))
    test = [entry for entry in entries if entry["split"] == "test"]
    table = images / "pictures.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "camera", "time", "own_id"])
        for place, entry in enumerate(test):
            time = OPENED + timedelta(minutes=37 * place)
            camera = 1 + place * 7 % CAMERAS
            writer.writerow([entry["file_path"], camera, time, f"person {entry['id']}"])
    return table, test[0]["captions"][0]


def take(
    browser: Browser, address: str, sentence: str, target: Path, width: int, height: int
) -> None:
    """Search by a sentence, and write what a window of this size shows."""
    size: ViewportSize = {"width": width, "height": height}
    page = browser.new_page(viewport=size, bypass_csp=True)  # to wait for `SHOWN`
    page.goto(address)
    page.get_by_role("searchbox").fill(sentence)
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator("#hits li").first.wait_for()
    page.wait_for_function(SHOWN)
    page.screenshot(path=target)
    page.close()
    Image.open(target).convert("RGB").quantize(COLOURS).save(target, optimize=True)


def ranking_lists(browser: Browser, folder: Path) -> Image.Image:
    """Return the first ranking lists of a report, as large as the page."""
    command = ["evaluate", "tiny:rde", "data=synthetic_pairs", f"output_dir={folder}"]
    if status := program(command):
        raise SystemExit(status)
    (report,) = folder.glob("*/report.html")
    width, height = SIZES["page.png"]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(report.as_uri())
    taken = page.locator("#ranking-lists").screenshot()
    page.close()
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    margin = (width - picture.width) // 2
    framed = Image.new("RGB", (width, height), "white")
    framed.paste(picture, (margin, margin))
    return framed


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two pictures of one size in one, with a line between them.

    Example:
        >>> side_by_side(Image.new("RGB", (9, 7)), Image.new("RGB", (9, 7))).size
        (18, 7)
    """
    both = Image.new("RGB", (2 * left.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    both.paste("#c9c9c9", (left.width - 1, 0, left.width + 1, left.height))
    return both


def main() -> None:
    """Take them all."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        synthesize_pairs(folder)
        table, sentence = table_of(Path(folder))
        gallery = crosswalk.Gallery.build(Path(folder) / "photos.gallery", "tiny:rde", table)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with gallery, served(gallery) as address:
            for name, (width, height) in SIZES.items():
                take(browser, address, sentence, FOLDER / name, width, height)
                print(f"wrote {FOLDER / name}")
        lists = ranking_lists(browser, Path(folder) / "runs")
        both = side_by_side(Image.open(FOLDER / "page.png").convert("RGB"), lists)
        both.quantize(COLOURS).save(FOLDER / OVERVIEW, optimize=True)
        print(f"wrote {FOLDER / OVERVIEW}")
        browser.close()


if __name__ == "__main__":
    main()
