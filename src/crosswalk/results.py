"""The outcome of a run: written to its folder, printed as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from crosswalk.run_folder import RunFolder, write_whole

MEASURES = {"rank1": "R@1", "rank5": "R@5", "rank10": "R@10", "map": "mAP", "minp": "mINP"}
DIRECTIONS = {"": "text → image", "image_to_text/": "image → text"}


def result_rows(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the rows of the table: epoch, split, direction, then every measure in percent.

    Args:
        results: By checkpoint ("best", "last") the metrics as fractions by name, and its
            ``epoch``.

    Example:
        >>> measures = {name: 0.5 for name in MEASURES}
        >>> metrics = {f"test/{name}": value for name, value in measures.items()}
        >>> result_rows({"best": {"epoch": 7, **metrics}})
        [('best (7)', 'test', 'text → image', '50.00', '50.00', '50.00', '50.00', '50.00')]
    """
    rows = []
    for checkpoint, metrics in results.items():
        for split in ("val", "test"):
            for prefix, direction in DIRECTIONS.items():
                names = [f"{split}/{prefix}{measure}" for measure in MEASURES]
                if all(name in metrics for name in names):
                    values = [f"{100 * float(metrics[name]):.2f}" for name in names]
                    rows.append((f"{checkpoint} ({metrics['epoch']})", split, direction, *values))
    return rows


def print_results(
    results: Mapping[str, Mapping[str, Any]], *, monitor: str, file: TextIO | None = None
) -> None:
    """Print the table of a run.

    Args:
        results: As for `result_rows`.
        monitor: Metric by which the best epoch was chosen.
        file: Where to; standard output by default.
    """
    table = Table(title=f"Results in percent; best epoch by {monitor}", title_justify="left")
    for column in ("epoch", "split", "direction"):
        table.add_column(column, no_wrap=True)
    for name in MEASURES.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in result_rows(results):
        table.add_row(*row)
    console = Console(file=file)
    if not console.is_terminal:
        console.width = 100
    console.print(table)


def save_results(folder: RunFolder, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``results.json``."""
    write_whole(folder.results_file, json.dumps(results, indent=1, sort_keys=True) + "\n")
