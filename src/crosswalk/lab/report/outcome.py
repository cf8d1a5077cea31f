"""What came out of a run: its state and headline numbers, and the table of all measures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup

from crosswalk.pages import Section, render, table_tag
from crosswalk.run.results import (
    DIRECTIONS,
    EXTRA_MEASURES,
    MEASURES,
    Results,
    one_each,
    result_rows,
    what_counts_in,
)
from crosswalk.run.run_folder import RunFolder

HEADLINE = ("rank1", "map")
SPLITS = ("val", "test")


def directions_of(results: Results) -> list[str]:
    """Return what was looked for in what, the first direction first.

    Example:
        >>> directions_of({"last": {"epoch": 1, "test/rank1": 0.5}})
        ['image_to_image']
    """
    names = {name for metrics in results.values() for name in metrics}
    both = any("/image_to_text/" in name for name in names)
    return ["text_to_image", "image_to_text"] if both else ["image_to_image"]


def summary_section(folder: RunFolder) -> Section:
    """Return the state of the run, what it trained on what, and its headline numbers on test."""
    record, results, config = folder.record(), folder.results(), folder.config()
    choices, data = config["choices"], record.get("data") or {}
    facts = {
        "Status": record.get("status", "not started"),
        "Error": record.get("error"),
        "Method": choices["method"],
        "Data": ", ".join([choices["data"], *_named(data, choices["data"])]),
        "Epochs": str(config["trainer"]["max_epochs"]),
        "What counts": what_counts_in(folder),
        "Took": duration(record.get("sessions", [])),
        "Notes": "; ".join(data.get("notices", [])),
    }
    place = f"test, {DIRECTIONS[directions_of(results)[0]]}"
    numbers = [
        (f"{MEASURES[name]}, {place}, {checkpoint} ({metrics['epoch']})", f"{100 * value:.2f} %")
        for checkpoint, metrics in one_each(results).items()
        for name in HEADLINE
        if (value := metrics.get(f"test/{name}")) is not None
    ]
    body = render(
        "summary.html.j2",
        facts={name: text for name, text in facts.items() if text},
        numbers=numbers,
    )
    return Section("summary", "Summary", body)


def results_section(folder: RunFolder) -> Section:
    """Return the table of checkpoints, splits, directions and measures in percent."""
    results = folder.results()
    if not results:
        text = "No results yet: the run was not evaluated."
        if "results.json" in (gone := lost_parts(folder)):
            text = lost_in_words(folder, gone)
        elif folder.record().get("status") == "finished":
            text = "No results: the data of the run have neither queries nor a gallery."
        return Section("results", "Results", Markup("<p>{}</p>").format(text))
    directions = directions_of(results)
    names = {name.rpartition("/")[2] for metrics in results.values() for name in metrics}
    columns = MEASURES | {name: text for name, text in EXTRA_MEASURES.items() if name in names}
    header = ["epoch", "split", "direction", *columns.values()]
    caption = f"Percent; {what_counts_in(folder)}"
    rows = result_rows(results, directions=directions, measures=tuple(columns))
    body = _table(header, rows, caption)
    views = _view_rows(results)
    if views:
        header = ["epoch", "split", "view", *MEASURES.values()]
        body += _table(header, views, "Single views, in the first direction")
    return Section("results", "Results", body)


def lost_parts(folder: RunFolder) -> list[str]:
    """Return what a finished run has written of its evaluation, and is not there any more."""
    record = folder.record()
    data = record.get("data") or {}
    counts = data.get("target", data).get("counts") or {}
    if record.get("status") != "finished" or counts.keys() == {"train"}:
        return []
    parts = {
        "results.json": folder.results_file,
        "queries/": folder.queries_file("", "").parent,
        "diagnostics/": folder.embeddings_file("").parent,
    }
    return [name for name, path in parts.items() if not path.exists()]


def lost_in_words(folder: RunFolder, parts: list[str]) -> str:
    """Return what a reader is told of `lost_parts`."""
    return (
        f"{' and '.join(parts)} {'is' if len(parts) == 1 else 'are'} missing in {folder.path}, "
        f"which has finished: deleted, or not copied. `{folder.evaluate_command()}` writes what an "
        "evaluation keeps."
    )


def duration(sessions: list[Mapping[str, Any]]) -> str:
    """Return how long the sessions took together, "" if none has ended.

    Example:
        >>> noon, later = "2026-01-01T12:00:00+00:00", "2026-01-01T13:02:05+00:00"
        >>> duration([{"started": noon, "ended": later}, {"started": later, "ended": None}])
        '1 h 2 min 5 s'
    """
    seconds = sum(
        round(_time(s["ended"]) - _time(s["started"])) for s in sessions if s.get("ended")
    )
    if not any(session.get("ended") for session in sessions):
        return ""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (seconds >= 60)
    return " ".join([*parts, f"{seconds % 60} s"])


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _named(data: Mapping[str, Any], choice: str) -> list[str]:
    """Return the name of the data, unless it is that of their file, and their sizes."""
    counts = data.get("counts", {}).get("train", {})
    names = {name: name.replace("_", " ") for name in counts}
    sizes = [
        f"{count} training {names[name].removesuffix('s') if count == 1 else names[name]}"
        for name, count in counts.items()
    ]
    name, called = (
        re.sub(r"[\W_]", "", text).lower() for text in (data.get("dataset", ""), choice)
    )
    return [*([data["dataset"]] if name not in ("", called) else []), *sizes]


def _view_rows(results: Results) -> list[tuple[str, ...]]:
    rows = []
    for checkpoint, metrics in one_each(results).items():
        for split in SPLITS:
            prefix = f"{split}/view/"
            views = sorted({n.split("/")[2] for n in metrics if n.startswith(prefix)})
            for view in views:
                values = [metrics.get(f"{prefix}{view}/{measure}") for measure in MEASURES]
                percent = ["-" if value is None else f"{100 * value:.2f}" for value in values]
                rows.append((f"{checkpoint} ({metrics['epoch']})", split, view, *percent))
    return rows


def _table(header: list[str], rows: list[tuple[str, ...]], caption: str) -> Markup:
    word = Markup('<span class="together">{}</span>')
    number = Markup('<div class="number">{}</div>')
    cells = [[*map(word.format, row[:3]), *map(number.format, row[3:])] for row in rows]
    return table_tag(header, cells, caption=caption)
