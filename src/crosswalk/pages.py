"""Self-contained HTML pages: pictures and figures are part of the file, nothing is fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from crosswalk.image_files import as_seen, open_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JPEG_QUALITY = 80
LARGEST = (96, 192)
"""Width and height in pixels that no picture of a page exceeds, unless a page asks for more."""


class Section(NamedTuple):
    """One part of a page: an anchor, a heading, and what stands below it."""

    anchor: str
    title: str
    body: Markup


def render_page(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """Return the HTML of a page with a table of contents; one file that needs no other.

    Example:
        >>> page = render_page("Two <runs>", [Section("one", "One", Markup("<p>1</p>"))])
        >>> "<h1>Two &lt;runs&gt;</h1>" in page, '<section id="one">' in page
        (True, True)
    """
    return render("page.html.j2", title=title, subtitle=subtitle, sections=sections)


def render(template: str, **values: object) -> Markup:
    """Return a template of ``crosswalk/templates`` filled in; values are escaped."""
    environment = Environment(
        loader=PackageLoader("crosswalk", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**values)
    # file names need not be UTF-8, pages are
    return Markup(text.encode("utf-8", "backslashreplace").decode())


def picture_tag(
    picture: Path | Image.Image,
    *,
    alt: str,
    frame: str = "",
    title: str = "",
    largest: tuple[int, int] = LARGEST,
) -> Markup:
    """Return an ``<img>`` that holds the picture as a small JPEG.

    Args:
        picture: A file or an image.
        alt: What it shows.
        frame: Class of the frame: "right" (green, ✓), "wrong" (red, ✗), "query" (blue) or none.
        title: What a pointer on it is told; nothing by default.
        largest: Width and height that it is made to fit; it is never enlarged.

    Example:
        >>> picture_tag(Image.new("RGB", (8, 16)), alt="a & b", frame="query")[:44]
        Markup('<img class="query" alt="a &amp; b" width="8"')
    """
    small = small_picture(picture, largest)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    data = base64.b64encode(content.getvalue()).decode()
    tag = Markup(
        '<img class="{}" alt="{}"{} width="{}" height="{}" src="data:image/jpeg;base64,{}">'
    ).format(frame, alt, Markup(' title="{}"').format(title) if title else "", *small.size, data)
    if frame not in ("right", "wrong"):
        return tag
    return Markup('<span class="framed {}">{}</span>').format(frame, tag)  # its mark is drawn there


def small_picture(picture: Path | Image.Image, largest: tuple[int, int]) -> Image.Image:
    """Return a copy in RGB that fits ``largest`` width and height; a file is shown `as_seen`.

    Example:
        >>> small_picture(Image.new("L", (300, 900)), (96, 192)).size
        (64, 192)
    """
    if isinstance(picture, Path):
        with open_image(picture) as file:
            # a large JPEG is decoded at a fraction of its size
            file.draft(None, (2 * largest[0], 2 * largest[1]))
            small = as_seen(file)
    else:
        small = picture.convert("RGB")
    small.thumbnail(largest)
    return small


def lost(error: Exception) -> str:
    """Return what a page says behind the name of a file that `picture_tag` does not show.

    Example:
        >>> lost(FileNotFoundError()), lost(ValueError())
        ('is gone', 'cannot be shown')
    """
    return "is gone" if isinstance(error, FileNotFoundError) else "cannot be shown"


def figure_tag(figure: Figure, *, alt: str) -> Markup:
    """Return the figure as SVG inside the page; equal figures give equal text."""
    import matplotlib

    content = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": alt, "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None})
    drawing = content.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    return Markup('<figure role="img" aria-label="{}">{}</figure>').format(alt, Markup(drawing))


def table_tag(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = ""
) -> Markup:
    """Return a table; cells that are `Markup` stay as they are, numbers stand on the right.

    Example:
        >>> print(table_tag(["run", "R@1"], [["a", 0.5]]))
        <div class="wide"><table><thead><tr><th>run</th><th>R@1</th></tr></thead>
        <tbody><tr><td>a</td><td class="number">0.5</td></tr></tbody></table></div>
    """

    def cell(value: object) -> Markup:
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        return Markup('<td class="number">{}</td>' if numeric else "<td>{}</td>").format(value)

    def line(cells: Sequence[Markup]) -> Markup:
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))

    head = line([Markup("<th>{}</th>").format(name) for name in header])
    body = Markup("\n").join(line([cell(value) for value in row]) for row in rows)
    title = Markup("<caption><span>{}</span></caption>").format(caption) if caption else ""
    return Markup(
        '<div class="wide"><table>{}<thead>{}</thead>\n<tbody>{}</tbody></table></div>'
    ).format(title, head, body)
