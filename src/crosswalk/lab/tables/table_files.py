"""The files of a table: written anew after every run, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from crosswalk.files import write_arrays, write_text
from crosswalk.lab.tables.collect import Collector
from crosswalk.lab.tables.manifest import Manifest
from crosswalk.lab.tables.table import render_html, render_markdown, verdict_json
from crosswalk.lab.tables.verdict import Verdict, judge


def with_overrides(manifest: Manifest, overrides: Sequence[str]) -> Manifest:
    """Return the table with overrides for all rows; what a row says itself is stronger.

    Args:
        manifest: The table, on the data it is run on.
        overrides: Of `crosswalk train`.

    Raises:
        ValueError: If one is about what distinguishes rows and runs.
    """
    advice = {
        "data": "choose the data with --data",
        "seed": "choose seeds with --seeds",
        "output_dir": "choose the folder with --output-dir",
        "method": "a table is about one method",
        "name": "runs of tables are named by their configuration",
        "resume": "runs of tables go on by themselves",
    }
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in advice:
            raise ValueError(f"{override}: {advice[key]}.")
    return replace(manifest, base=(*manifest.base, *overrides))


def judged(collector: Collector, overrides: Sequence[str] = ()) -> Verdict:
    """Return what the finished runs of a table say.

    Args:
        collector: Of the runs.
        overrides: Those for all rows, which are said with it.
    """
    plan = collector.plan
    runs = [asdict(result) for result in collector.results()]
    return judge(plan.manifest, runs, collector.queries(), code=plan.codes(), overrides=overrides)


def write_table(
    path: Path, collector: Collector, verdict: Verdict, *, overrides: Sequence[str] = ()
) -> None:
    """Write the table as JSON, with the queries in ``.queries.npz``, as Markdown and as a page.

    Args:
        path: The JSON file; the others have its name and their own ending.
        collector: Of the runs.
        verdict: What they say.
        overrides: Those for all rows.
    """
    manifest = collector.plan.manifest
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "title": manifest.title,
        "manifest": f"{manifest.path.parent.name}/{manifest.path.stem}",
        "data": manifest.data,
        "overrides": list(overrides),
        "code": collector.plan.codes(),
        "runs": [asdict(result) for result in collector.results()],
        "verdict": verdict_json(verdict),
    }
    write_arrays(path.with_suffix(".queries.npz"), collector.queries())
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(path.with_suffix(".md"), render_markdown(verdict))
    write_text(path.with_suffix(".html"), render_html(verdict))


def save_table(
    collector: Collector, verdict: Verdict, *, overrides: Sequence[str] = ()
) -> list[Path]:
    """Keep the table beside its manifest and return the files: JSON, queries and Markdown.

    Args:
        collector: Of the runs.
        verdict: What they say.
        overrides: Those for all rows.
    """
    path = collector.plan.manifest.committed_path
    write_table(path, collector, verdict, overrides=overrides)
    path.with_suffix(".html").unlink()  # made again from the others at any time
    return [path, path.with_suffix(".queries.npz"), path.with_suffix(".md")]
