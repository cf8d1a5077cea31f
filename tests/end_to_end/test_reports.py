"""Reports of whole runs: what they hold, and how they look in a browser."""

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from crosswalk.cli import main
from crosswalk.pages import Section, render_page, table_tag
from crosswalk.run.callbacks.ranking_lists import QUERY, RIGHT, WRONG
from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.browser import measure, screenshot
from tests.end_to_end.small_runs import METHODS, WholeRuns, run_small, small_run, tiny_pairs

SECTIONS = (
    *("summary", "results", "curves", "ranking-lists", "open-set", "embedding-map"),
    *("configuration", "provenance"),
)
COLOURS = {"right": RIGHT, "wrong": WRONG, "query": QUERY}
DIVISION = "division"  # a section of RDE


class Resources(HTMLParser):
    """Collects whatever a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
        self.found += [value or "" for name, value in attributes if name in named]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def runs(
    data: Path, whole: WholeRuns, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RunFolder]:
    """Return a run on data that a test moves away, and one that others look at, too."""
    overrides = small_run("rde", f"data.root={tiny_pairs(data)}", "data.noise_rate=0.5")
    folder = tmp_path_factory.mktemp("rde")
    code, rde = run_small(overrides, folder, data / "cache", report=True)
    assert code == 0
    return {"rde": rde, "mar": whole["mar"]}


def report_of(run: RunFolder) -> Path:
    return run.path / "report.html"


@pytest.mark.parametrize("kind", ["rde", "mar"])
def test_every_run_leaves_a_report_of_one_file_that_fetches_nothing(
    kind: str, runs: dict[str, RunFolder]
) -> None:
    page = report_of(runs[kind]).read_text(encoding="utf-8")
    resources = Resources()
    resources.feed(page)

    assert len(page) < 3_000_000
    assert all(each.startswith(("#", "data:")) for each in resources.found)
    assert page.count("url(") == page.count("url(#")  # clip paths of figures
    assert "@import" not in page
    assert not resources.tags & {"script", "link", "iframe", "object", "embed"}


def test_commands_that_look_at_finished_runs_import_neither_torch_nor_lightning(
    whole: WholeRuns, cache: Path, tmp_path: Path
) -> None:
    runs = {kind: whole[kind].path for kind in METHODS}
    others = {kind: shutil.copytree(runs[kind], tmp_path / kind) for kind in ("rde", "mar", "mmcl")}
    lines = [
        *(
            ["report", str(run), "--out", str(tmp_path / f"{kind}.html")]
            for kind, run in runs.items()
        ),
        *(
            ["compare", str(runs[kind]), str(other), "--out", str(tmp_path / f"two-{kind}.html")]
            for kind, other in others.items()
        ),
        ["audit", str(runs["rde"]), "--out", str(tmp_path / "suspects.csv")],
    ]
    code = (
        "import sys\nfrom crosswalk.cli import main\n"
        "slow = {'torch', 'torchvision', 'torchmetrics', 'lightning', 'timm', 'open_clip'}\n"
        f"for words in {lines!r}:\n"
        "    print('ENDED', words[0], main(words), sorted(slow & set(sys.modules)))"
    )

    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "CROSSWALK_CACHE": str(cache)},
    )

    ended = [line for line in output.stdout.splitlines() if line.startswith("ENDED")]
    assert ended == [f"ENDED {words[0]} 0 []" for words in lines]
    for kind in METHODS:
        page = (tmp_path / f"{kind}.html").read_text(encoding="utf-8")
        assert "need the data of the run" not in page
        assert all(f'id="{section}"' in page for section in SECTIONS)


@pytest.mark.parametrize("kind", ["rde", "mar"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_report_fits_the_window_and_shows_everything(
    kind: str, width: int, runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    measured = measure(report_of(runs[kind]), tmp_path, width=width)

    assert measured["width"] == width
    assert measured["content_width"] <= width
    assert [each for each in measured["sections"] if each in SECTIONS] == list(SECTIONS)
    assert (DIVISION in measured["sections"]) == (kind == "rde")
    assert measured["empty_sections"] == []
    assert {picture["frame"] for picture in measured["pictures"]} >= {"right", "wrong", "query"}
    for picture in measured["pictures"]:
        assert min(picture["natural"]) > 0
        left, _, shown_width, _ = picture["place"]
        assert 0 <= left <= left + shown_width <= width
        mark = {"right": '"✓"', "wrong": '"✗"'}.get(picture["frame"])  # for who sees no colours
        assert picture["mark"] == mark or (mark is None and picture["mark"] == "none")
        if mark is not None:  # it stands in the picture's corner
            assert picture["mark_place"][2] == pytest.approx(shown_width, abs=1)
    assert len(measured["drawings"]) >= 3
    for left, _, shown_width, height in measured["drawings"]:
        assert min(shown_width, height) > 100
        assert 0 <= left <= left + shown_width <= width


@pytest.mark.parametrize("kind", ["rde", "mar"])
def test_frames_have_their_colours_on_the_screen(
    kind: str, runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    page = report_of(runs[kind])
    pictures = [each for each in measure(page, tmp_path, width=1280)["pictures"] if each["frame"]]
    first = {each["frame"]: each["place"] for each in reversed(pictures)}
    height = int(max(top + tall for _, top, _, tall in first.values())) + 100

    shown = np.asarray(screenshot(page, tmp_path, width=1280, height=height))

    assert shown.shape == (height, 1280, 3)
    assert first.keys() == COLOURS.keys()
    for frame, (left, top, wide, tall) in first.items():
        middle, centre = int(top + tall / 2), int(left + wide / 2)
        borders = [
            *(shown[middle, int(left) + 2], shown[middle, int(left + wide) - 2]),
            *(shown[int(top) + 2, centre], shown[int(top + tall) - 2, centre]),
        ]
        assert [tuple(map(int, border)) for border in borders] == [COLOURS[frame]] * 4
        inside = shown[int(top) + 6 : int(top + tall) - 6, int(left) + 6 : int(left + wide) - 6]
        assert inside.std() > 5  # a picture of something


@pytest.mark.parametrize("columns", [3, 60])
def test_a_table_is_in_the_shade_where_there_is_more_of_it(tmp_path: Path, columns: int) -> None:
    table = table_tag(["name"] * columns, [["value"] * columns] * 9)
    page = tmp_path / "page.html"
    page.write_text(render_page("wide", [Section("one", "One", table)]), encoding="utf-8")

    shown = np.asarray(screenshot(page, tmp_path, width=800, height=500)).astype(int)

    edge = shown[150:400, 770:776].mean()  # the page ends at 776
    assert edge < 200 if columns == 60 else edge > 250


def test_a_report_can_be_written_again_and_without_the_images(
    runs: dict[str, RunFolder], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(data / "cache"))
    copy = RunFolder(shutil.copytree(runs["rde"].path, tmp_path / runs["rde"].name))
    report_of(copy).unlink()

    assert main(["report", str(copy.path)]) == 0

    assert report_of(copy).read_text() == report_of(runs["rde"]).read_text()
    shutil.move(data / "tiny-pairs", data / "elsewhere")
    try:
        assert main(["report", str(copy.path), "--out", str(tmp_path / "page.html")]) == 0
    finally:
        shutil.move(data / "elsewhere", data / "tiny-pairs")
    page = (tmp_path / "page.html").read_text()
    assert "The ranking lists need the data of the run." in page
    assert 'id="provenance"' in page


def test_a_run_of_no_epochs_has_a_report(
    runs: dict[str, RunFolder], data: Path, tmp_path: Path
) -> None:
    weights = runs["rde"].last_checkpoint
    more = (f"data.root={data / 'tiny-pairs'}", f"checkpoint={weights}", "trainer.max_epochs=0")

    code, run = run_small(small_run("rde", *more), tmp_path, data / "cache", report=True)

    assert code == 0
    page = report_of(run).read_text()
    assert "this run did not train" in page
    assert "R@1, test, text → image, start (0)" in page
    assert "before training" in page
