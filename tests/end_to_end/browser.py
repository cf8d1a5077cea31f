"""Pages in a headless Chromium: what they measure there, and how they look."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

MEASURE = """
<script>
addEventListener("load", () => {
  const place = (element) => {
    const box = element.getBoundingClientRect();
    return [box.left + scrollX, box.top + scrollY, box.width, box.height];
  };
  const measured = {
    width: innerWidth,
    content_width: document.documentElement.scrollWidth,
    content_height: document.documentElement.scrollHeight,
    sections: [...document.querySelectorAll("section")].map((section) => section.id),
    empty_sections: [...document.querySelectorAll("section")]
      .filter((section) => section.getBoundingClientRect().height < 60)
      .map((section) => section.id),
    pictures: [...document.images].map((image) => ({
      frame: image.className, natural: [image.naturalWidth, image.naturalHeight],
      place: place(image), mark: getComputedStyle(image.parentElement, "::after").content,
      mark_place: place(image.parentElement),
    })),
    drawings: [...document.querySelectorAll("figure svg")].map(place),
  };
  const output = parent.document.createElement("pre");
  output.id = "measured";
  output.textContent = JSON.stringify(measured);
  parent.document.body.append(output);
});
</script>
"""


def _chromium(folder: Path, width: int, height: int, *options: str) -> str:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    outcome = subprocess.run(
        [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
            # nothing but files: a page that needs the network shows less here
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},{height}"),
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def measure(page: Path, folder: Path, *, width: int) -> dict[str, Any]:
    """Return what ``MEASURE`` finds in a page as wide as ``width`` pixels."""
    content = page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>")
    outer = folder / "outer.html"
    # in a frame: a window has 500 pixels at least
    outer.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><body>'
        f'<iframe style="border: 0" width="{width}" height="800" '
        f'srcdoc="{html.escape(content)}"></iframe></body>',
        encoding="utf-8",
    )
    dom = _chromium(folder, 1400, 1000, "--dump-dom", outer.as_uri())
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    measured: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return measured


def screenshot(page: Path, folder: Path, *, width: int, height: int) -> Image.Image:
    """Return the top ``height`` pixels of a page."""
    target = folder / "page.png"
    _chromium(folder, width, height, f"--screenshot={target}", page.as_uri())
    return Image.open(target).convert("RGB")
