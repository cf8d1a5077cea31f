"""`crosswalk search`: a query, and the pictures that it finds, as a table, as JSON or as a page."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from crosswalk.files import check_writable, path_meant
from crosswalk.gallery.description import MOST_HITS, read_gallery
from crosswalk.gallery.where import parse_where
from crosswalk.use.source import source_of

if TYPE_CHECKING:
    from crosswalk.gallery.gallery import Gallery, Hit

LARGEST = (192, 384)
"""Width and height in pixels of the pictures on a page."""


def check(options: Namespace) -> None:
    """Refuse what cannot be searched, before anything slow is imported.

    Raises:
        FileNotFoundError: If the gallery or the picture is missing.
        ValueError: If the query, the filter or a number makes no sense.
    """
    gallery = read_gallery(options.gallery)
    if (options.sentence is None) == (options.image is None):
        both = "not both" if options.sentence else "one of them"
        raise ValueError(f"search by a SENTENCE or by --image FILE, {both}.")
    if options.image is not None:
        from crosswalk.image_files import check_plain_file  # late: brings NumPy along

        if not options.image.exists():
            raise FileNotFoundError(
                f"--image {options.image} does not exist.{path_meant(options.image)} Name a "
                "picture of a person."
            )
        check_plain_file(options.image)
    else:
        if not options.sentence.strip():
            raise ValueError("the sentence is empty. Say what is to be seen.")
        if _is_file(options.sentence):
            raise ValueError(
                f"{options.sentence} is a file. Search by a picture with --image "
                f"{options.sentence}."
            )
        if not gallery.reads_captions:
            raise ValueError(
                f"{options.gallery} was built with {gallery.model}, a model of images alone: "
                "search by a picture, --image FILE."
            )
    if options.k > MOST_HITS:
        raise ValueError(f"-k {options.k} is more than {MOST_HITS:,}, the most that are shown.")
    if options.group is not True and not -1 <= options.group <= 1:
        raise ValueError(f"--group {options.group} should be a cosine, at most 1, such as 0.97.")
    if options.html is not None:
        check_writable(options.html, "--html")
    parse_where(options.where, gallery.columns)
    with nullcontext() if options.model else gallery.kept():
        source_of(options.model or gallery.model)


def find(options: Namespace) -> int:
    """Search, print or write what was found, and return the exit status."""
    from crosswalk.gallery.gallery import Gallery
    from crosswalk.use.load import load

    told = read_gallery(options.gallery)
    with nullcontext() if options.model else told.kept():
        model = load(options.model or told.model, device=options.device)
    with Gallery(options.gallery, model=model) as gallery:
        hits = gallery.search(
            options.image if options.sentence is None else options.sentence,
            options.k,
            where=options.where,
            exact=options.exact,
            group=options.group,
            rerank=options.rerank,
        )
        note = gallery.note(hits, "sentence" if options.sentence else "picture")
        if options.json:
            for hit in hits:
                print(as_json(hit))
        else:
            print_hits(hits)
        if note:  # beside the lines of JSON, not among them
            print(f"note: {note}", file=sys.stderr if options.json else sys.stdout)
        if options.html is not None:
            query = options.sentence or options.image
            write_page(gallery, query, hits, options.html, note=note)
    return 0


def _is_file(sentence: str) -> bool:
    try:
        return Path(sentence).is_file()
    except OSError:  # longer than a name may be
        return False


def as_json(hit: Hit) -> str:
    """Return a hit as a line of JSON, times in ISO 8601."""
    return json.dumps(record_of(hit), default=str)


def record_of(hit: Hit) -> dict[str, object]:
    """Return a hit as plain values, the columns of its table among them; times as ISO 8601."""
    columns = {
        name: value if isinstance(value, (int, float, str)) else value.isoformat(sep=" ")
        for name, value in hit.columns.items()
    }
    told: dict[str, object] = {"id": str(hit.id), "score": round(hit.score, 6)}
    if hit.probability is not None and math.isfinite(hit.probability):
        told["probability"] = round(hit.probability, 4)
    return {**told, "count": hit.count, "path": str(hit.path), "columns": columns}


def print_hits(hits: Sequence[Hit]) -> None:
    """Print a table; columns that no hit has are left out."""
    from rich.console import Console
    from rich.table import Table

    from crosswalk.terminal import fit

    if not hits:
        print("Nothing was found: no picture is of what the filter says.")
        return
    columns = {
        "": [str(rank) for rank in range(1, len(hits) + 1)],
        "score": [f"{hit.score:.4f}" for hit in hits],
        "camera": ["" if hit.camera is None else str(hit.camera) for hit in hits],
        "time": ["" if hit.time is None else hit.time.isoformat(" ", "seconds") for hit in hits],
        "own id": [hit.own_id or "" for hit in hits],
        "alike": ["" if hit.count == 1 else str(hit.count) for hit in hits],
        "is there": ["" if hit.probability is None else f"{hit.probability:.2f}" for hit in hits],
        "picture": [_near(hit.path) for hit in hits],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table()
    for name in columns:
        table.add_column(name, justify="right" if name in ("", "score", "alike") else "left")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(_escaped, cells))
    console = Console()
    if not console.is_terminal:
        console.width = 100 + max(len(cell) for cell in columns["picture"])
    console.print(fit(table, console, numbers=(0, 1)))


def _near(path: Path) -> str:
    """Return a path from the working folder, if it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _escaped(cell: str) -> str:
    from rich.markup import escape

    # file names and tables may be somebody else's, and a terminal obeys control characters
    plain = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cell)
    return escape(plain)


def write_page(
    gallery: Gallery, query: str | Path, hits: Sequence[Hit], target: Path, *, note: str = ""
) -> None:
    """Write a page with the pictures that were found, which needs no other file."""
    from markupsafe import Markup

    from crosswalk.files import write_text
    from crosswalk.pages import Section, picture_tag, render_page

    tile = Markup("<div>{}<br>{}</div>")
    shown = []
    for rank, hit in enumerate(hits, 1):
        told = [f"{rank}: {hit.score:.3f}", *_told(hit)]
        try:
            picture = picture_tag(hit.path, alt=hit.path.name, largest=LARGEST)
        except (OSError, ValueError) as error:
            picture = Markup("<p>{}</p>").format(f"cannot be shown: {error}")
        shown.append(tile.format(picture, Markup("<br>").join(told)))
    body = Markup('<div class="pictures large">{}</div>').format(Markup("").join(shown))
    if note:
        body = Markup("<p>{}.</p>").format(note[0].upper() + note[1:]) + body
    if isinstance(query, Path):
        body = Markup("<p>{}</p>").format(picture_tag(query, alt="the query", frame="query")) + body
    section = Section("found", f"What looks most like it among {len(gallery):,} pictures", body)
    title = f"“{query}”" if isinstance(query, str) else query.name
    write_text(target, render_page(title, [section], subtitle=str(gallery.path)))
    print(f"Page: {target}")


def _told(hit: Hit) -> list[str]:
    told = [hit.path.name]
    if hit.own_id is not None:
        told.append(hit.own_id)
    if hit.camera is not None:
        told.append(f"camera {hit.camera}")
    if hit.time is not None:
        told.append(hit.time.isoformat(" ", "minutes"))
    if hit.count > 1:
        told.append(f"{hit.count} alike")
    return told
