"""Tables whose runs take no time: plans without a configuration, and a stand-in for training."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crosswalk.lab.pool import Pool
from crosswalk.lab.tables.manifest import Manifest, Row, read_manifest
from crosswalk.lab.tables.plan import Plan, planned
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.run_folder import RunFolder
from tests.unit.lab.fake_train import config_of

BEGIN, END = "2026-01-01T10:00:00+00:00", "2026-01-01T10:01:40+00:00"
CODE = "c0de00112233"
TRAIN = [sys.executable, str(Path(__file__).with_name("fake_train.py"))]
MANIFEST = """
title: A table
source: {paper: none, table: 1, verified: false}
base: [method=rde, data=synthetic_pairs]
metrics: [rank1, map]
seeds: [1, 2]
rows:
  - {name: full, overrides: [], published: [70.0, null]}
  - {name: one view, run: full, view: global, published: null}
  - {name: no division, overrides: [division=off], published: null}
"""


def write_manifest(folder: Path, text: str = MANIFEST) -> Path:
    path = folder / "experiments" / "rde" / "two.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def fake_manifest(folder: Path) -> Manifest:
    return read_manifest(write_manifest(folder))


def fake_config(seed: int = 1, **more: object) -> dict[str, Any]:
    return config_of(seed, **more)


def fake_plan(
    folder: Path,
    *does: str,
    seeds: Sequence[int] = (1,),
    code: str = CODE,
    any_code: bool = False,
    trainer: Mapping[str, object] | None = None,
) -> Plan:
    """Return a plan with a row for each of ``does``: what `fake_train.py` is to do for it."""
    pool = Pool(folder / "runs" / "ablations", code=lambda config: code)
    manifest = fake_manifest(folder)
    runs = []
    for seed in seeds:
        for number, do in enumerate(does):
            overrides = (f"+do={do}", f"+row={number}", f"+code={code}", f"seed={seed}")
            config = fake_config(seed, do=do, row=number)
            config["trainer"] |= trainer or {}
            row = Row(f"row {number}", overrides[:3], None)
            runs.append(planned(pool, row, seed, overrides, config))
    return Plan(manifest, pool, tuple(runs), tuple(runs), any_code)


def finish(
    folder: RunFolder,
    *,
    code: str = CODE,
    config: dict[str, Any] | None = None,
    ended: str = END,
    results: dict[str, Any] | None = None,
) -> RunFolder:
    """Write the folder of a run that took 100 seconds."""
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.save_config(config or fake_config())
    record = {
        "status": "finished",
        "code": code,
        "commit": "3b5fe8e0",
        "dirty": False,
        "ended": ended,
        "versions": {"torch": "2.0"},
        "hardware": {"host": "secret", "cpus": 2},
        "data": {"dataset": "toy", "root": "/somewhere", "source": {"root": "/else", "n": 1}},
        "sessions": [{"started": BEGIN, "ended": END}],
    }
    folder.record_file.write_text(json.dumps(record))
    folder.results_file.write_text(
        json.dumps(results or {"best": {"epoch": 2, "test/rank1": 0.5, "test/map": 0.25}})
    )
    folder.metrics_file.write_text(
        '{"step": 1, "epoch": 0, "time": 1.0, "train/loss": 2.0}\n'
        '{"step": 3, "epoch": 1, "time": 2.0, "train/loss": 1.0, "val/rank1": 0.5}\n'
    )
    return folder


def write_fake_queries(
    folder: RunFolder, first_hit: Sequence[int], *, index: Sequence[int], view: str = "global"
) -> None:
    """Write per-query results in which each view is a query behind the whole."""

    def results(ranks: Sequence[int]) -> QueryResults:
        hits = np.array(ranks)
        precision = np.where(hits > 0, 1 / np.maximum(hits, 1), np.nan)
        lists = np.zeros((len(hits), 1), np.int64)
        matches = (hits > 0).astype(np.int64)
        rows = np.array(index[: len(hits)])  # the other direction has a query less
        return QueryResults(
            rows, hits * 0, matches, hits, precision, precision, lists, lists, lists
        )

    directions = {"text_to_image": results(first_hit), "image_to_text": results([1, 1])}
    behind = [rank + 1 if rank else 0 for rank in first_hit]
    folder.save_queries("test", "best", {**directions, f"view/{view}": results(behind)})


def calls(plan: Plan) -> list[dict[str, Any]]:
    """Return what `fake_train.py` was called with, in order."""
    path = plan.pool.path / "calls.yaml"
    return list(yaml.safe_load_all(path.read_text())) if path.exists() else []
