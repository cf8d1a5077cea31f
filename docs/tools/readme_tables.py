"""Tables inside documents, made from the results that are kept, so that no number is copied.

A document says where a table belongs and what it shows::

    <!-- table: mmcl/components_synthetic {metrics: [rank1, map], rows: [direct transfer, MMCL]} -->
    <!-- /table -->

and ``make tables`` (this program, started in the repository) fills in what stands between. The
options are those of `Options`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import mean, stdev

import yaml

from crosswalk.config.words import did_you_mean
from crosswalk.lab.tables.document import CHECKPOINTS, grid_in_markdown, render_markdown
from crosswalk.lab.tables.kept import KeptResults, Run, commit_of, measured, read_results, runs_of
from crosswalk.lab.tables.manifest import (
    Manifest,
    Row,
    checked_checkpoint,
    checked_metrics,
    metric_label,
    read_manifest,
)
from crosswalk.lab.tables.verdict import judge
from crosswalk.lab.tables.words import Grid, percent, spread

DOCUMENTS = ("README.md", "docs/choosing.md", "experiments/README.md")
BLOCK = re.compile(
    r"^<!-- table: (?P<table>\S+)\s*(?P<options>\{.*?\})? -->\n.*?^<!-- /table -->$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Options:
    """What a table in a document shows.

    Attributes:
        metrics: Columns.
        rows: Lines by name, with the name that is shown; empty: all.
        checkpoint: Weights; None: those that the rows name.
        baseline: Row that differences are to; None: no differences.
        digits: Behind the point.
        verdict: Whether the verdicts are shown.
        published: Whether published numbers are shown where there are any.
    """

    metrics: tuple[str, ...] = ("rank1", "map")
    rows: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    baseline: str | None = None
    digits: int = 1
    verdict: bool = False
    published: bool = True


def read_options(text: str | None, place: str) -> Options:
    """Return the options written in a marker.

    Args:
        text: A mapping in YAML, None for the defaults.
        place: Where it stands, for the message.

    Raises:
        ValueError: If an option or its value is unknown.

    Example:
        >>> read_options("{metrics: [map], rows: [A, B], digits: 2}", "README.md").rows
        {'A': 'A', 'B': 'B'}
    """
    content = yaml.safe_load(text) if text else {}
    known = [each.name for each in fields(Options)]
    for name in content:
        if name not in known:
            near = did_you_mean(str(name), known)
            raise ValueError(
                f"{place}: unknown option {name}.{near} There are: {', '.join(known)}."
            )
    if "metrics" in content:
        for metric in content["metrics"]:
            checked_metrics([str(metric).removeprefix("val/")], place)
        content["metrics"] = tuple(content["metrics"])
    if content.get("checkpoint") is not None:
        checked_checkpoint(content["checkpoint"], place)
        if content.get("verdict"):
            raise ValueError(f"{place}: verdicts are about the checkpoint that the table names.")
    rows = content.get("rows", ())
    if isinstance(rows, list):
        rows = dict(zip(rows, rows, strict=True))
    content["rows"] = {str(name): str(shown) for name, shown in dict(rows).items()}
    return Options(**content)


def table_in_document(manifest: Manifest, kept: KeptResults, options: Options) -> str:
    """Return the table that a document shows, with a line below it that says what it is.

    Raises:
        ValueError: If an option names a row that the table does not have, or a metric that its
            runs did not measure.
    """
    shown = dict(options.rows) or {row.name: row.name for row in manifest.rows}
    rows = {name: _with_checkpoint(manifest.row(name), options.checkpoint) for name in shown}
    runs = {name: runs_of(manifest, row, kept.runs) for name, row in rows.items()}
    header, columns = ["row"], [list(shown.values())]
    counts = {len(each) for each in runs.values() if each}
    if len(counts) > 1:
        header.append("runs")
        columns.append([str(len(each)) for each in runs.values()])
    for metric in options.metrics:
        label = metric_label(metric)
        published = [_published(manifest, row, metric) for row in rows.values()]
        if options.published and any(each is not None for each in published):
            header.append(f"{label} published")
            columns.append([percent(each) for each in published])
        numbers = {name: _numbers(runs[name], row, metric) for name, row in rows.items()}
        for name in shown:
            if len(numbers[name]) < len(runs[name]):
                raise ValueError(
                    f"{manifest.path}, row '{name}': not all runs measured {metric} with the "
                    f"{rows[name].checkpoint} weights; leave the metric or the row out."
                )
        header.append(label)
        columns.append([_mean(each, options.digits) for each in numbers.values()])
        if options.baseline is not None:
            base = _with_checkpoint(manifest.row(options.baseline), options.checkpoint)
            start = _numbers(runs_of(manifest, base, kept.runs), base, metric)
            header.append("difference")
            columns.append(
                [
                    "" if name == base.name else _lead(numbers[name], start, options.digits)
                    for name in shown
                ]
            )
    places = range(1, len(header))
    if options.verdict:
        verdicts = {
            each.name: each.verdict for each in judge(manifest, kept.runs, kept.queries).rows
        }
        header.append("verdict")
        columns.append([verdicts[name] for name in shown])
    grid = Grid(tuple(header), tuple(zip(*columns, strict=True)), frozenset(places))
    return f"{grid_in_markdown(grid)}\n\n{_caption(manifest, rows, runs, counts)}"


def _with_checkpoint(row: Row, checkpoint: str | None) -> Row:
    # weights before training are a row of their own, not one of its checkpoints
    if checkpoint is None or row.checkpoint == "start":
        return row
    return replace(row, checkpoint=checkpoint)


def _published(manifest: Manifest, row: Row, metric: str) -> float | None:
    if row.published is None or metric not in manifest.metrics:
        return None
    return row.published[manifest.metrics.index(metric)]


def _numbers(runs: Mapping[int, Run], row: Row, metric: str) -> dict[int, float]:
    split = "val" if metric.startswith("val/") else "test"
    found = {
        seed: measured(run, row, metric.removeprefix("val/"), split=split)
        for seed, run in runs.items()
    }
    return {seed: value for seed, value in found.items() if value is not None}


def _mean(numbers: Mapping[int, float], digits: int) -> str:
    if not numbers:
        return "not run"
    values = list(numbers.values())
    return spread(mean(values), stdev(values) if len(values) > 1 else None, digits=digits)


def _lead(numbers: Mapping[int, float], start: Mapping[int, float], digits: int) -> str:
    """Return the difference to the baseline, paired by seed."""
    leads = [value - start[seed] for seed, value in numbers.items() if seed in start]
    if not leads:
        return "-"
    return spread(mean(leads), stdev(leads) if len(leads) > 1 else None, sign=True, digits=digits)


def _caption(
    manifest: Manifest,
    rows: Mapping[str, Row],
    runs: Mapping[str, Mapping[int, Run]],
    counts: set[int],
) -> str:
    weights = {CHECKPOINTS[row.checkpoint]: None for row in rows.values()}
    made = sorted({commit_of(run) for each in runs.values() for run in each.values()})
    number = f"{counts.pop()} runs a row" if len(counts) == 1 else "the runs of a row"
    moved = ""
    if manifest.data != manifest.published_data:
        moved = f"; published numbers are for {manifest.published_data} and are not comparable"
    return (
        f"*Test on {manifest.data}, percent{moved}; {', '.join(weights)}; mean ± standard "
        f"deviation over {number}, commit {', '.join(made) or 'none: not run'}."
        f"{' ' + manifest.note if manifest.note else ''}*"
    )


def kept_table(experiments: Path, name: str) -> tuple[Manifest, KeptResults]:
    """Return a table on the data it was run on, and what is kept of it.

    Args:
        experiments: The folder of all tables.
        name: ``<method>/<table>``, with ``.<data>`` behind it on other than its own data.

    Raises:
        FileNotFoundError: If there is no such table, or nothing of it was kept.
    """
    method, _, stem = name.partition("/")
    table, _, data = stem.partition(".")
    manifest = read_manifest(experiments / method / f"{table}.yaml")
    if data:
        manifest = manifest.with_data(data)
    kept = read_results(experiments / method / "results" / f"{stem}.json")
    return manifest.with_overrides(kept.overrides), kept


def rewrite(text: str, experiments: Path, *, place: str) -> str:
    """Return a document with all its tables as the kept results are now.

    Args:
        text: The document.
        experiments: The folder of all tables.
        place: Its name, for messages.

    Raises:
        FileNotFoundError: If a table does not exist or nothing of it was kept.
        ValueError: If a marker is not closed, or an option is wrong.
    """

    def filled(block: re.Match[str]) -> str:
        name = block["table"]
        options = read_options(block["options"], f"{place}, table {name}")
        begin = block[0][: block[0].index("-->") + 3]
        content = table_in_document(*kept_table(experiments, name), options)
        return f"{begin}\n{content}\n<!-- /table -->"

    marks, ends, blocks = (
        len(re.findall(r"^<!-- table:", text, re.MULTILINE)),
        len(re.findall(r"^<!-- /table -->$", text, re.MULTILINE)),
        len(BLOCK.findall(text)),
    )
    if not marks == ends == blocks:
        raise ValueError(
            f"{place} opens {marks} tables and closes {ends}, of which {blocks} can be read. Write "
            "a line <!-- table: <method>/<table> {options} --> and a line <!-- /table -->."
        )
    return BLOCK.sub(filled, text)


def own_program(results: Path) -> Path:
    """Return the program that makes this Markdown file instead of `render_markdown`, if it exists.

    Args:
        results: ``experiments/<method>/results/<table>.md``.

    Example:
        >>> own_program(Path("experiments/rde/results/table2.md")).as_posix()
        'experiments/rde/table2.py'
    """
    return results.parents[1] / f"{results.stem}.py"


def wanted_files(root: Path) -> dict[Path, str]:
    """Return what every generated file and every document with tables should hold.

    Args:
        root: Folder of the repository.
    """
    experiments = root / "experiments"
    files = {}
    for path in sorted(experiments.glob("*/results/*.json")):
        target = path.with_suffix(".md")
        if not own_program(target).exists():
            manifest, kept = kept_table(experiments, f"{path.parents[1].name}/{path.stem}")
            verdict = judge(manifest, kept.runs, kept.queries)
            files[target] = render_markdown(verdict)
    for name in DOCUMENTS:
        path = root / name
        files[path] = rewrite(path.read_text(encoding="utf-8"), experiments, place=name)
    return files


def main(arguments: list[str]) -> int:
    """Rewrite what is not current, and return the exit status."""
    root = Path(arguments[0]) if arguments else Path.cwd()
    for path, content in wanted_files(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
