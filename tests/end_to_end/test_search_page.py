"""The search page in a real browser, and many at once, against a server that runs."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

import crosswalk
from crosswalk import Gallery
from crosswalk.cli import main
from crosswalk.gallery.answers import THREADS
from crosswalk.gallery.gallery import Hit
from crosswalk.gallery.serving import served
from tests.unit.gallery.drawn import HOSTILE, NUMBER, SENTENCE, drawn, picture

TOKEN = "a-token-of-many-signs"
PATIENCE = 300_000.0
"""Milliseconds after which what did not happen will not."""
expect.set_options(timeout=PATIENCE)
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
AT_ONCE = 200
MOST_MEMORY = 300 << 20
"""Bytes that answering `AT_ONCE` requests may add to the process, their clients in it included."""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with drawn(tmp_path_factory.mktemp("page"), crosswalk.load("tiny:rde")) as built:
        yield built


@pytest.fixture(scope="module")
def address(gallery: Gallery) -> Iterator[str]:
    with served(gallery) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield launched
        launched.close()


def new_page(browser: Browser, width: int = 1280, height: int = 720) -> Page:
    """Return an empty page that waits as long as a busy machine takes."""
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(PATIENCE)
    return opened


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Yield the page, opened; it must have asked no other host, and run nothing but its own."""
    opened = new_page(browser, 1100, 800)
    asked: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: "Content Security" in said.text and wrong.append(said.text))
    opened.on("dialog", lambda dialog: wrong.append(dialog.message))
    opened.goto(address)
    yield opened
    title = opened.title()
    opened.close()
    assert {urlsplit(url).netloc for url in asked} <= {urlsplit(address).netloc, ""}
    assert not wrong
    assert title == "photos.gallery: find people in pictures"  # HOSTILE would have changed it


def names(page: Page, hits: Sequence[Hit]) -> None:
    """Wait until the page shows these hits in this order."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#hits .told > :last-child")).to_have_text([hit.path.name for hit in hits])


def say(page: Page, sentence: str) -> None:
    page.get_by_role("searchbox", name="Who is to be found?").fill(sentence)
    page.keyboard.press("Enter")


def test_a_sentence_finds_pictures(page: Page, gallery: Gallery) -> None:
    hits = gallery.search(SENTENCE, 20)

    say(page, SENTENCE)

    names(page, hits)
    expect(page.get_by_role("status")).to_have_text(f"{NUMBER} pictures, most similar first.")
    expect(page.get_by_role("heading", name=f"Found for “{SENTENCE}”")).to_be_visible()
    first, tile = hits[0], page.get_by_role("listitem").first
    for told in (f"1. score {first.score:.3f}", f"camera {first.camera}", first.own_id, "12:00"):
        expect(tile).to_contain_text(str(told))
    image = tile.get_by_role("img", name=f"Hit 1, {first.path.name}")
    expect(image).to_have_js_property("complete", True)
    assert image.evaluate("image => image.decode().then(() => image.naturalHeight)") == 96
    hostile = page.get_by_role("listitem").filter(has_text=f"{HOSTILE}.png")
    expect(hostile).to_contain_text("<b>0</b>")


def test_the_note_of_the_gallery_is_shown(
    page: Page, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = [replace(hit, probability=0.574) for hit in gallery.search(SENTENCE, 3)]
    monkeypatch.setattr(gallery, "search", lambda *_, **__: hits)
    monkeypatch.setattr(gallery, "note", lambda *_: "perhaps not in this gallery (score 0.5)")

    say(page, SENTENCE)

    expect(page.locator("#note")).to_have_text(
        "Perhaps not in this gallery (score 0.5). At even odds, the best score says 57 % that the "
        "person is here."
    )


def test_a_dropped_picture_and_a_chosen_one_are_searched_by(
    page: Page, gallery: Gallery, tmp_path: Path
) -> None:
    content = io.BytesIO()
    picture(3).save(content, "PNG")
    picture(5).save(tmp_path / "five.png")
    code = """code => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(code), (sign) => sign.charCodeAt(0));
        data.items.add(new File([bytes], "three.png", {type: "image/png"}));
        return data;
    }"""
    dropped = page.evaluate_handle(code, base64.b64encode(content.getvalue()).decode())

    page.dispatch_event("h1", "drop", {"dataTransfer": dropped})
    names(page, gallery.search(gallery.path.parent / "photos/3.png", 20))
    preview = page.get_by_role("img", name="The picture that is searched by")
    expect(preview).to_be_visible()
    page.get_by_label("Or search by a picture").set_input_files(tmp_path / "five.png")
    names(page, gallery.search(tmp_path / "five.png", 20))
    page.get_by_role("button", name="Remove the picture").click()

    expect(preview).to_be_hidden()
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_filters_leave_what_they_say(page: Page, gallery: Gallery) -> None:
    say(page, SENTENCE)
    names(page, gallery.search(SENTENCE, 20))

    page.get_by_text("Filters and order").click()
    page.get_by_role("group", name="Camera").get_by_label("1", exact=True).check()
    names(page, gallery.search(SENTENCE, 20, where="camera == 1"))
    page.get_by_label("until", exact=True).fill("2026-11-08")
    names(page, gallery.search(SENTENCE, 20, where="camera == 1 and time <= '2026-11-08'"))
    page.get_by_label("until, time of day").fill("11:00")
    where = "camera == 1 and time <= '2026-11-08 11:00' and place == 'hall'"
    page.get_by_label("Other columns").fill("place == 'hall'")
    page.keyboard.press("Enter")

    names(page, gallery.search(SENTENCE, 20, where=where))
    expect(page.locator("#active")).to_have_text("(in use: camera, until, other columns)")


def test_near_duplicates_are_one_hit_with_their_number(page: Page, gallery: Gallery) -> None:
    page.get_by_text("Filters and order").click()
    page.get_by_label("near-duplicates as one").check()
    page.get_by_label("pictures at most").fill("3")
    say(page, SENTENCE)

    hits = gallery.search(SENTENCE, 3, group=True)

    names(page, hits)
    alike = [f"{hit.count} alike" for hit in hits if hit.count > 1]
    assert re.findall(r"\d+ alike", page.locator("#hits").inner_text()) == alike


def test_more_like_this_and_back(page: Page, gallery: Gallery) -> None:
    hits = gallery.search(SENTENCE, 20)
    say(page, SENTENCE)

    page.get_by_role("button", name=f"More like hit 2, {hits[1].path.name}").click()
    names(page, gallery.similar(hits[1].id, 20))
    expect(page.locator("#found")).to_be_focused()
    page.get_by_role("button", name="Back").click()

    names(page, hits)
    expect(page.get_by_role("button", name="Back")).to_be_hidden()


def test_everything_is_done_by_keys_alone(page: Page, gallery: Gallery) -> None:
    hits = gallery.search(SENTENCE, 20)
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    names(page, hits)
    focused = page.locator(":focus")
    order = []
    for _ in range(3):
        page.keyboard.press("Tab")
        order.append(focused.evaluate("each => each.id || each.textContent.trim()"))
    page.keyboard.press("Tab")
    first = focused.locator("img").get_attribute("alt")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    second = focused.locator("img").get_attribute("alt")
    page.keyboard.press("End")
    last = focused.locator("img").get_attribute("alt")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    below = focused.locator("img").get_attribute("alt")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("img")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert focused.locator("img").get_attribute("alt") == below
    page.keyboard.press("Tab")
    expect(focused).to_have_text("More like this")
    page.keyboard.press("Enter")

    assert order == ["Search", "picture", "Filters and order"]
    for name, number in ((first, 1), (second, 2), (last, NUMBER)):
        assert name is not None
        assert name.startswith(f"Hit {number}, {hits[number - 1].path.name}")
    expect(page.locator("#found")).to_contain_text("Looks like")


def test_every_field_and_button_has_a_name(page: Page) -> None:
    page.get_by_text("Filters and order").click()
    say(page, SENTENCE)
    expect(page.get_by_role("listitem")).to_have_count(NUMBER)

    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, button")].filter((each) =>
            !each.labels?.length && !each.ariaLabel && !each.textContent.trim()
            && !each.querySelector("img[alt]")).map((each) => each.outerHTML)"""
    )
    without_alt = page.locator("img:not([alt])").count()

    assert (nameless, without_alt) == ([], 0)
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("width", [320, 400])
def test_a_narrow_screen_needs_no_scrolling_to_the_side(
    page: Page, address: str, path: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    if path == "/":
        page.get_by_text("Filters and order").click()
        say(page, "x" * 500)
        expect(page.get_by_role("listitem")).to_have_count(NUMBER)
    else:
        page.goto(address + path)

    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.goto(address)


def test_light_and_dark_follow_the_system(page: Page) -> None:
    shades = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        shades.append(
            page.evaluate(
                """() => {
                    const style = getComputedStyle(document.body);
                    return Number(style.color.match(/\\d+/)[0]);
                }"""
            )
        )

    assert shades == [0, 255]


def test_what_goes_wrong_is_said_on_the_page(page: Page, address: str, tmp_path: Path) -> None:
    alert = page.get_by_role("alert")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(alert).to_have_text("Say what is to be seen, or choose a picture.")
    page.get_by_text("Filters and order").click()
    page.get_by_label("Other columns").fill("colour == 'red'")
    say(page, SENTENCE)
    expect(alert).to_contain_text("asks for colour, which the gallery does not know")
    page.get_by_label("Other columns").fill("camera == 9")
    say(page, SENTENCE)
    expect(page.get_by_role("status")).to_contain_text("Nothing was found")
    (tmp_path / "no.png").write_text("no picture")
    page.get_by_label("Or search by a picture").set_input_files(tmp_path / "no.png")
    expect(alert).to_contain_text("The picture cannot be read: it is cut off, or none.")
    (tmp_path / "large.png").write_bytes(bytes(20_000_001))
    page.get_by_label("Or search by a picture").set_input_files(tmp_path / "large.png")
    expect(alert).to_have_text("The picture is too large: at most 20 MB are read.")
    page.route("**/api/search", lambda route: route.abort())
    say(page, SENTENCE)

    expect(alert).to_contain_text("The server does not answer")


def test_a_picture_that_is_gone_is_said_in_its_place(page: Page, gallery: Gallery) -> None:
    file = gallery.path.parent / "photos/6.png"
    content = file.read_bytes()
    file.unlink()
    try:
        say(page, SENTENCE)
        tile = page.get_by_role("listitem").filter(has_text="6.png")
        tile.scroll_into_view_if_needed()

        expect(tile).to_contain_text("This picture cannot be shown: its file is gone")
    finally:
        file.write_bytes(content)


def test_the_token_opens_the_page_once_and_for_all(browser: Browser, gallery: Gallery) -> None:
    with served(gallery, token=TOKEN) as address:
        opened = new_page(browser)
        opened.goto(address)
        expect(opened.get_by_role("heading")).to_have_text("A token is needed")
        opened.get_by_label("Token").fill("wrong")
        opened.keyboard.press("Enter")
        expect(opened.get_by_role("alert")).to_have_text("This is not the token.")
        opened.get_by_label("Token").fill(TOKEN)
        opened.keyboard.press("Enter")
        say(opened, SENTENCE)
        names(opened, gallery.search(SENTENCE, 20))

        assert opened.url == f"{address}/"
        assert opened.evaluate("document.cookie") == ""
        opened.close()


def test_the_command_serves_the_gallery_where_it_says(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served_at: list[str] = []

    def run(server: uvicorn.Server, sockets: Sequence[socket.socket]) -> None:
        served_at.append(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/")
        client = TestClient(server.config.app, base_url=served_at[0])  # type: ignore[arg-type]
        assert client.get("/api/gallery").json()["pictures"] == NUMBER
        assert not server.config.access_log
        server.should_exit = True  # as its handler of Ctrl-C does, which raises the signal again
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(uvicorn.Server, "run", run)

    assert main(["serve", str(gallery.path), "--port=0"]) == 0
    said = capsys.readouterr()
    assert f"{NUMBER} pictures) at {served_at[0]} until Ctrl-C" in said.out
    assert "interrupted" not in said.err


def resident() -> int:
    """Return the bytes of memory that this process takes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def by_sentence(address: str, sentence: str) -> Callable[[], Any]:
    query = urlencode({"sentence": sentence, "k": 5})
    return lambda: urllib.request.urlopen(f"{address}/api/search?{query}").read()


def by_picture(address: str, seed: int) -> Callable[[], Any]:
    content = io.BytesIO()
    picture(seed).resize((600, 800)).save(content, "BMP")
    part = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
    number = b"\r\n" + part.replace(b'picture"; filename="a', b"k") + b"5\r\n--x--\r\n"
    body = part + content.getvalue() + number
    request = urllib.request.Request(
        f"{address}/api/search", body, {"content-type": "multipart/form-data; boundary=x"}
    )
    return lambda: urllib.request.urlopen(request).read()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_many_at_once_are_all_answered_a_few_at_a_time_in_bounded_memory(
    gallery: Gallery, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [f"{SENTENCE} and {colour} shoes" for colour in ("red", "blue", "green")]
    questions = [
        *((by_sentence(address, each), gallery.search(each, 5)) for each in sentences),
        (by_picture(address, 4), gallery.search(picture(4).resize((600, 800)), 5)),
    ]
    running, most, memory, lock = 0, 0, [resident()], threading.Lock()
    search = gallery.search

    def counting(*query: Any, **options: Any) -> list[Hit]:  # noqa: ANN401
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return search(*query, **options)
        finally:
            with lock:
                running -= 1
                memory.append(resident())

    monkeypatch.setattr(gallery, "search", counting)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [pool.submit(questions[place % 4][0]) for place in range(AT_ONCE)]

    for place, answer in enumerate(answers):
        found = [(int(hit["id"]), hit["score"]) for hit in json.loads(answer.result())["hits"]]
        ids, scores = zip(*found, strict=True)
        assert list(ids) == [hit.id for hit in questions[place % 4][1]]
        assert scores == pytest.approx([hit.score for hit in questions[place % 4][1]], abs=1e-5)
    assert len(memory) == AT_ONCE + 1
    assert 1 <= most <= THREADS
    assert max(memory) - memory[0] < MOST_MEMORY
