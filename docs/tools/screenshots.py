"""The pictures of the search page in the docs, taken in Chromium: ``make pictures``.

The gallery is the synthetic test set, and the sentence its first caption; which camera saw whom
when is made up.
"""

from __future__ import annotations

import csv
import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from PIL import Image

import crosswalk
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


def main() -> None:
    """Take them all."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        synthesize_pairs(folder)
        table, sentence = table_of(Path(folder))
        gallery = crosswalk.Gallery.build(Path(folder) / "photos.gallery", "tiny:rde", table)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with gallery, served(gallery) as address:
            for name, (width, height) in SIZES.items():
                take(browser, address, sentence, FOLDER / name, width, height)
                print(f"wrote {FOLDER / name}")
        browser.close()


if __name__ == "__main__":
    main()
