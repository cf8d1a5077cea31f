"""The outcome of a run: written to its folder, printed as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TextIO

from rich.table import Table

from crosswalk.run.run_folder import RunFolder
from crosswalk.terminal import console_for, show
from crosswalk.words import counted

MEASURES = {"rank1": "R@1", "rank5": "R@5", "rank10": "R@10", "map": "mAP", "minp": "mINP"}
EXTRA_MEASURES = {
    "map_trapezoidal": "mAP (trapezoidal)",
    "map_first_hit_bonus": "mAP (first-hit bonus)",
}
DIRECTIONS = {
    "text_to_image": "text → image",
    "image_to_text": "image → text",
    "image_to_image": "image → image",
}

Results = Mapping[str, Mapping[str, Any]]
"""By checkpoint ("start", "best", "last") the metrics as fractions by name, and its ``epoch``."""


def monitor_of(config: Mapping[str, Any]) -> str | None:
    """Return the metric that chooses the best epoch: on test only where the protocol says so.

    None where nothing is chosen and the last epoch counts.

    Example:
        >>> [monitor_of({"protocol": protocol}) for protocol in ("val", "official", "last")]
        ['val/rank1', 'test/rank1', None]
    """
    return {"val": "val/rank1", "official": "test/rank1", "last": None}[config["protocol"]]


def chosen_by(monitor: str | None) -> str:
    """Return how the epoch that counts was chosen, in words.

    Example:
        >>> chosen_by("val/rank1"), chosen_by(None)
        ('best epoch by val/rank1', 'last epoch (no val split: nothing was selected)')
    """
    if monitor is None:
        return "last epoch (no val split: nothing was selected)"
    return f"best epoch by {monitor}"


def what_counts(config: Mapping[str, Any]) -> str:
    """Return what the results of a run are of, in words.

    Example:
        >>> what_counts({"protocol": "val", "trainer": {"max_epochs": 0}})
        'zero-shot: the weights as they were given, without training'
    """
    if config["trainer"]["max_epochs"] == 0:
        return "zero-shot: the weights as they were given, without training"
    return chosen_by(monitor_of(config))


def what_counts_in(folder: RunFolder) -> str:
    """Return what the results in a folder are of; an evaluation has the epoch of its run.

    By whatever rules it evaluates: the training has chosen by its own.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> run = RunFolder(Path(tempfile.mkdtemp()))
        >>> run.save_config({"protocol": "val", "trainer": {"max_epochs": 3}})
        >>> what_counts_in(RunFolder(run.path / "evaluations" / "by-other-rules"))
        'best epoch by val/rank1 of the training'
    """
    run = RunFolder(folder.evaluated)
    counts, monitor = what_counts(run.config()), monitor_of(run.config())
    chose = run != folder and monitor is not None and counts.endswith(monitor)
    return f"{counts} of the training" if chose else counts


def one_each(results: Results) -> Results:
    """Return the results with the best epoch and the last one together where they are one.

    Example:
        >>> one_each({"best": {"epoch": 7}, "last": {"epoch": 7}})
        {'best = last': {'epoch': 7}}
    """
    best, last = results.get("best"), results.get("last")
    if best is None or last is None or best["epoch"] != last["epoch"]:
        return results
    return {
        "best = last" if name == "best" else name: metrics
        for name, metrics in results.items()
        if name != "last"
    }


def result_rows(
    results: Results,
    *,
    directions: Sequence[str],
    measures: Sequence[str] = tuple(MEASURES),
) -> list[tuple[str, ...]]:
    """Return the rows of the table: epoch, split, direction, then every measure in percent.

    Args:
        results: The metrics; the measures of the first direction have plain names.
        directions: What the data set looks for in what, names from `DIRECTIONS`; a re-ranking of
            a direction has a row of its own behind it.
        measures: The columns; a row has a dash for one that was not measured.

    Example:
        >>> measures = {name: 0.5 for name in MEASURES}
        >>> metrics = {f"test/{name}": value for name, value in measures.items()}
        >>> result_rows({"best": {"epoch": 7, **metrics}}, directions=["image_to_image"])
        [('best (7)', 'test', 'image → image', '50.00', '50.00', '50.00', '50.00', '50.00')]
    """
    rows = []
    rankings = {"": "", "reranked/": ", re-ranked"}
    for checkpoint, metrics in one_each(results).items():
        epoch = f"{checkpoint} ({metrics['epoch']})"
        for split in ("val", "test"):
            for number, direction in enumerate(directions):
                for kind, label in rankings.items():
                    prefix = f"{split}/{direction}/{kind}" if number else f"{split}/{kind}"
                    if any(f"{prefix}{name}" not in metrics for name in MEASURES):
                        continue
                    values = [metrics.get(f"{prefix}{name}") for name in measures]
                    percent = ["-" if value is None else f"{100 * value:.2f}" for value in values]
                    rows.append((epoch, split, DIRECTIONS[direction] + label, *percent))
    return rows


def print_results(
    results: Results,
    *,
    counts: str,
    directions: Sequence[str],
    data: str = "",
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    file: TextIO | None = None,
) -> None:
    """Print the table of a run.

    Args:
        results: As for `result_rows`.
        counts: What they are of, `what_counts`.
        directions: As for `result_rows`.
        data: Name of the data, the value of ``data=``.
        sizes: Numbers of queries and of gallery images of each split.
        file: Where to; standard output by default.
    """
    columns = MEASURES | {
        name: label for name, label in EXTRA_MEASURES.items() if _is_measured(results, name)
    }
    if directions[0] == "image_to_image":
        columns["rank1"] = "R@1 (CMC@1)"
    table = Table(
        title=f"Results{f' on {data}' if data else ''} in percent; {counts}",
        title_justify="left",
        caption="\n".join([*map(_size, sizes.items()), *_skipped_queries(results)]) or None,
        caption_justify="left",
    )
    for column in ("epoch", "split", "direction"):
        table.add_column(column)
    for label in columns.values():
        table.add_column(label, justify="right")
    for row in result_rows(results, directions=directions, measures=tuple(columns)):
        table.add_row(*row)
    console = console_for(file, width=100 + 20 * (len(columns) - len(MEASURES)))
    show(table, console, numbers=range(3, 3 + len(columns)))


def _is_measured(results: Results, measure: str) -> bool:
    return any(
        name.rpartition("/")[2] == measure for metrics in results.values() for name in metrics
    )


def _size(of: tuple[str, tuple[int, int]]) -> str:
    split, (queries, gallery) = of
    return f"{split}: {counted(queries, 'query')}, {counted(gallery, 'image')} in the gallery"


def _skipped_queries(results: Results) -> list[str]:
    """Return a line about queries that count in no measure, none if there are none."""
    skipped = {
        split: int(metrics[name])
        for metrics in results.values()
        for split in ("val", "test")
        if metrics.get(name := f"{split}/queries_without_match")
    }
    if not skipped:
        return []
    numbers = ", ".join(f"{number} of {split}" for split, number in skipped.items())
    return [f"Queries without a match in the gallery, left out: {numbers}"]
