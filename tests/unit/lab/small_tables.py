"""Tables and results small enough to calculate by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crosswalk.lab.tables.manifest import Manifest, metric_key, read_manifest, row_overrides

Numbers = Mapping[str, Mapping[int, Sequence[float]]]
"""By row and seed the percentages of the table's metrics."""


def small_manifest(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    **changes: Any,  # noqa: ANN401
) -> Manifest:
    """Return a table of CUHK-PEDES with rank1 and mAP; rows change the number of epochs."""
    path = folder / "experiments" / "rde" / "small.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, row in enumerate(rows, 1):
        own = {} if "run" in row else {"overrides": [f"trainer.max_epochs={number}"]}
        entries.append({"published": None, **own, **row})
    content = {
        "title": "Small",
        "source": {"paper": "A paper", "table": "1", "verified": True},
        "base": ["method=rde", "data=cuhk_pedes"],
        "metrics": ["rank1", "map"],
        "seeds": [1, 2, 3],
        "rows": entries,
    }
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return read_manifest(path)


def runs_with(manifest: Manifest, numbers: Numbers, **changes: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return an entry per row and seed; the rows must have runs of their own."""
    runs = []
    for name, by_seed in numbers.items():
        row = manifest.row(name)
        for seed, values in by_seed.items():
            overrides = row_overrides(manifest, row, seed)
            results = {
                metric_key(row, metric): value / 100
                for metric, value in zip(manifest.metrics, values, strict=True)
            }
            run = {
                "row": name,
                "seed": seed,
                "overrides": overrides,
                "command": " ".join(["crosswalk train", *overrides]),
                "commit": "0123456789abcdef",
                "dirty": False,
                "code": "aaaabbbbcccc",
                "results": {row.checkpoint: results},
            }
            runs.append(run | changes)
    return runs


def spread_over_queries(
    manifest: Manifest, runs: Sequence[Mapping[str, Any]], *, num_queries: int
) -> dict[str, np.ndarray]:
    """Return queries of which every one has the mean of its run."""
    arrays: dict[str, np.ndarray] = {"sample_index": np.arange(num_queries)}
    for run in runs:
        row = manifest.row(run["row"])
        for metric in manifest.metrics:
            value = run["results"][row.checkpoint][metric_key(row, metric)]
            arrays[f"{row.name}|{run['seed']}|{metric}"] = np.full(num_queries, value)
    return arrays
