"""The documentation site, built with warnings as errors."""

from __future__ import annotations

import os
import posixpath
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]


class Fetched(HTMLParser):
    """Collects what a page fetches, what it links to, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("script", "img", "iframe", "source") and "src" in given:
            self.fetched.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect", "icon"):
            self.fetched.append(given["href"])
        if tag == "a" and "href" in given:
            self.linked.append(given["href"])


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_needs_nothing_else(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert made.returncode == 0, made.stdout + made.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): Fetched(path) for path in tmp_path.rglob("*.html")
    }
    for name, page in pages.items():
        for address in [*page.fetched, *page.linked]:
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//"):
                assert address in page.linked, f"{name} fetches {address}"
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path))
            place = name if not parts.path else unquote(target)
            if name == "404.html":  # whose addresses are those of a server
                continue
            assert (tmp_path / place).is_file(), f"{name}: {address}"
            if parts.fragment and place in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[place].anchors, f"{name}: {address}"
