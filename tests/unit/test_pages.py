from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from crosswalk.data.pipeline.decoding import decode_pixels
from crosswalk.pages import (
    LARGEST,
    Section,
    figure_tag,
    picture_tag,
    render,
    render_page,
    small_picture,
    table_tag,
)

VOID = {"meta", "img", "br", "line", "circle"}


class Tags(HTMLParser):
    """Collects the tags of a page, and checks that they are closed in the order they opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


def decoded(tag: str) -> Image.Image:
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', tag)
    assert found is not None
    picture = Image.open(io.BytesIO(base64.b64decode(found.group(1))))
    assert picture.format == "JPEG"
    return picture


def a_page() -> str:
    sections = [
        Section("numbers", "Numbers & names", table_tag(["run", "R@1"], [["<a>", 1.5]])),
        Section("picture", "Picture", picture_tag(Image.new("RGB", (9, 17)), alt="nobody")),
        Section("empty", "Nothing", Markup("")),
    ]
    return render_page("A <page>", sections, subtitle='of "runs"')


def test_a_page_links_to_each_of_its_sections() -> None:
    tags = Tags(a_page())

    anchors = [attributes["id"] for attributes in tags.all("section")]
    assert anchors == ["numbers", "picture", "empty"]
    assert [attributes["href"] for attributes in tags.all("a")] == [f"#{name}" for name in anchors]


def test_a_page_fetches_nothing() -> None:
    page = a_page()

    tags = Tags(page)
    assert {name for name, _ in tags.seen} & {"link", "script", "iframe", "object"} == set()
    for _, attributes in tags.seen:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


def test_what_is_not_markup_is_escaped() -> None:
    page = a_page()

    assert "<h1>A &lt;page&gt;</h1>" in page
    assert "<h2>Numbers &amp; names</h2>" in page
    assert "of &#34;runs&#34;" in page
    assert "<td>&lt;a&gt;</td>" in page


def test_a_page_names_its_language_and_its_characters() -> None:
    tags = Tags(a_page())

    assert tags.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in tags.all("meta")


def test_a_value_that_a_template_misses_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="sections"):
        render("page.html.j2", title="A page", subtitle="")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((9, 17), (9, 17)),  # never enlarged
        ((96, 192), (96, 192)),
        ((300, 900), (64, 192)),
        ((960, 480), (96, 48)),
        ((1, 1), (1, 1)),
        ((7, 5001), (1, 192)),  # 0.27 pixels wide
    ],
)
def test_a_picture_fits_and_keeps_its_shape(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    tag = picture_tag(Image.new("RGB", size, (200, 30, 40)), alt="red", frame="wrong")

    (attributes,) = Tags(tag).all("img")
    assert decoded(tag).size == expected
    assert (attributes["width"], attributes["height"]) == tuple(map(str, expected))
    assert (attributes["class"], attributes["alt"]) == ("wrong", "red")
    assert expected[0] <= LARGEST[0]
    assert expected[1] <= LARGEST[1]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_a_picture_of_any_mode_becomes_a_jpeg_in_colour(mode: str, tmp_path: Path) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    path = tmp_path / f"picture.{suffix}"
    Image.new(mode, (9, 17)).save(path)

    assert decoded(picture_tag(path, alt="")).mode == "RGB"


def deep(path: Path) -> None:
    Image.fromarray(np.full((17, 9), 128 * 257, np.uint16)).save(path)


def clear_palette(path: Path) -> None:
    picture = Image.new("P", (9, 17))
    picture.putpalette([255, 0, 0])
    picture.save(path, transparency=0)


FILES = {
    "16 bits": (deep, (128, 128, 128)),
    "clear": (lambda path: Image.new("RGBA", (9, 17), (255, 0, 0, 0)).save(path), (255, 255, 255)),
    "a palette with a clear colour": (clear_palette, (255, 255, 255)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_picture_is_shown_as_training_on_own_images_reads_it(kind: str, tmp_path: Path) -> None:
    save, colour = FILES[kind]
    path = tmp_path / "picture.png"
    save(path)

    shown = small_picture(path, (96, 192))

    assert shown.getpixel((0, 0)) == colour
    assert (np.asarray(shown) == decode_pixels(path, own=True)).all()


@pytest.mark.parametrize("size", [(40, 20), (2400, 1200)])
def test_a_picture_is_turned_as_its_file_says(size: tuple[int, int], tmp_path: Path) -> None:
    picture = Image.new("RGB", size, "blue")
    picture.paste("red", (0, 0, size[0] // 2, size[1]))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    path = tmp_path / "turned.jpg"
    picture.save(path, exif=exif, quality=95)

    shown = small_picture(path, (96, 192))

    expected = (20, 40) if size == (40, 20) else (96, 192)
    assert shown.size == expected
    top, bottom = (shown.getpixel((expected[0] // 2, y)) for y in (3, expected[1] - 4))
    assert top[0] > 200 > 60 > top[2]
    assert bottom[2] > 200 > 60 > bottom[0]


def test_a_picture_handed_over_stays_as_it_was() -> None:
    picture = Image.new("RGB", (300, 900))

    small_picture(picture, (96, 192))

    assert picture.size == (300, 900)


def draw(value: float) -> Figure:
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0, value, 1], marker="o", label="a < b & c")
    axes.legend()
    return figure


def test_a_figure_is_drawn_into_the_page_with_its_text_as_text() -> None:
    tag = figure_tag(draw(0.5), alt='loss "a"')

    figure = ElementTree.fromstring(tag.replace("xlink:href", "href"))
    assert figure.attrib == {"role": "img", "aria-label": 'loss "a"'}
    (drawing,) = figure
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert "a < b & c" in "".join(drawing.itertext())
    assert "<?xml" not in tag
    assert "<!DOCTYPE" not in tag


def test_equal_figures_give_equal_text_and_others_do_not() -> None:
    tags = [figure_tag(draw(value), alt="loss") for value in (0.5, 0.5, 0.25)]

    assert tags[0] == tags[1] != tags[2]


def test_numbers_stand_on_the_right_and_words_and_truths_on_the_left() -> None:
    table = table_tag(["a", "b"], [[1, "1"], [0.5, True]])

    assert table.count('<td class="number">') == 2
    assert '<td class="number">1</td><td>1</td>' in table
    assert '<td class="number">0.5</td><td>True</td>' in table


def test_cells_of_markup_stay_as_they_are() -> None:
    table = table_tag(["<a>"], [[Markup("<b>x</b>")], ["<b>"], [None]], caption="a < b")

    assert "<td><b>x</b></td>" in table
    assert "<td>&lt;b&gt;</td>" in table
    assert "<td>None</td>" in table
    assert "<th>&lt;a&gt;</th>" in table
    assert "<caption><span>a &lt; b</span></caption>" in table


@pytest.mark.parametrize("num_rows", [0, 1, 3])
def test_a_table_has_a_line_for_each_row(num_rows: int) -> None:
    tags = Tags(table_tag(["x"], [[number] for number in range(num_rows)]))

    assert len(tags.all("tr")) == num_rows + 1
    assert not tags.all("caption")


def test_names_on_a_page_need_not_be_utf_8() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")

    page = render_page(name, [])

    assert "caf\\udce9.jpg" in page
    assert page.encode("utf-8").decode() == page
