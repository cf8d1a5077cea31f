"""Tables as data: a manifest names rows and published numbers, this runs them and renders both.

Every row and seed is a process of its own (``crosswalk train``), so that rows cannot disturb each
other. A result is kept with its commit, its command and its resolved overrides; a row that is
already done with the same overrides is not run again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from crosswalk.config import compose, to_plain
from crosswalk.run_folder import RunFolder, differing_keys
from crosswalk.tracking import read_metrics


@dataclass(frozen=True)
class Row:
    """One line of a table: what it changes and what the paper reports for it.

    ``checkpoint`` says which weights of the run the line is about: "start", "best" or "last".
    """

    name: str
    overrides: tuple[str, ...]
    published: tuple[float, ...] | None
    checkpoint: str = "best"


@dataclass(frozen=True)
class Manifest:
    """One table."""

    path: Path
    title: str
    source: dict[str, Any]
    base: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def results_path(self) -> Path:
        """Where the results of this table are kept."""
        return self.path.parent / "results" / f"{self.path.stem}.json"


KEYS = {"title", "source", "base", "metrics", "seeds", "rows"}
OPTIONAL_KEYS = {"checkpoint"}


def read_manifest(path: Path) -> Manifest:
    """Return the table that ``path`` describes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is missing or unknown, or a row's published numbers do not match the
            metrics.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; the tables lie in experiments/<method>/<table>.yaml"
        )
    content = yaml.safe_load(path.read_text())
    if not KEYS <= set(content) <= KEYS | OPTIONAL_KEYS:
        raise ValueError(
            f"{path}: needs the keys {sorted(KEYS)} and may have {sorted(OPTIONAL_KEYS)}; it has "
            f"{sorted(content)}"
        )
    rows = []
    for entry in content["rows"]:
        published = entry.get("published")
        if published is not None and len(published) != len(content["metrics"]):
            raise ValueError(
                f"{path}, row '{entry['name']}': {len(published)} published numbers for "
                f"{len(content['metrics'])} metrics; write null for a number that is not known"
            )
        checkpoint = entry.get("checkpoint", content.get("checkpoint", "best"))
        if checkpoint not in ("start", "best", "last"):
            raise ValueError(
                f"{path}, row '{entry['name']}': checkpoint={checkpoint}; write start (the weights "
                "before training), best or last"
            )
        overrides = tuple(entry["overrides"])
        rows.append(Row(entry["name"], overrides, published and tuple(published), checkpoint))
    names = [row.name for row in rows]
    if len(set(names)) != len(names):
        raise ValueError(f"{path}: two rows have the same name; results are kept by row name")
    return Manifest(
        path=path,
        title=content["title"],
        source=content["source"],
        base=tuple(content["base"]),
        metrics=tuple(content["metrics"]),
        seeds=tuple(content["seeds"]),
        rows=tuple(rows),
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def row_overrides(manifest: Manifest, row: Row, seed: int) -> list[str]:
    """Return the overrides of ``crosswalk train`` for one row and seed."""
    return [*manifest.base, *row.overrides, f"seed={seed}"]


def read_results(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the results kept for this table, in the order they were made."""
    path = manifest.results_path
    return json.loads(path.read_text()) if path.is_file() else []


def _add_result(manifest: Manifest, result: dict[str, Any]) -> None:
    path = manifest.results_path
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [
        old
        for old in read_results(manifest)
        if (old["row"], old["seed"]) != (result["row"], result["seed"])
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([*results, result], indent=1) + "\n")
    os.replace(temporary, path)


def _folder_of(manifest: Manifest, row: Row, seed: int) -> RunFolder:
    # Hydra composes one configuration at a time: not for threads
    config = to_plain(compose([*row_overrides(manifest, row, seed), "logger=csv"]))
    choices = config["choices"]
    name = f"{choices['method']}-{choices['data']}-{_run_name(row, seed)}"
    # tables of two methods may have the same name
    table = _slug(f"{manifest.path.parent.name}-{manifest.path.stem}")
    folder = RunFolder(Path("runs") / table / name)
    if folder.path.exists() and (differing := differing_keys(config, folder.config())):
        raise ValueError(
            f"{folder.path} is of another configuration than row '{row.name}' is now "
            f"({', '.join(differing)}). Rename or delete that folder and start again."
        )
    return folder


def _run_name(row: Row, seed: int) -> str:
    return f"{_slug(row.name)}-seed{seed}"


def _run_one(
    manifest: Manifest, row: Row, seed: int, folder: RunFolder, threads: int
) -> dict[str, Any]:
    """Train one row with one seed in a process of its own and return its result."""
    overrides = row_overrides(manifest, row, seed)
    runs, name = folder.path.parent, _run_name(row, seed)
    command = [
        *(sys.executable, "-m", "crosswalk", "train", *overrides),
        *(f"output_dir={runs}", f"name={name}", "logger=csv"),
    ]
    if not folder.is_finished:
        if folder.path.exists():
            command.append("resume=true")
        runs.mkdir(parents=True, exist_ok=True)
        log = runs / f"{name}.log"
        with log.open("w") as output:
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            run = subprocess.run(command, stdout=output, stderr=output, env=environment)
        if run.returncode != 0:
            raise RuntimeError(
                f"row '{row.name}', seed {seed} ended with status {run.returncode}; see {log}"
            )
    record = folder.record()
    last = {
        name: value
        for line in read_metrics(folder.metrics_file)
        for name, value in line.items()
        if name.startswith("train/")
    }
    return {
        "row": row.name,
        "seed": seed,
        "overrides": overrides,
        "command": " ".join(["crosswalk train", *overrides]),
        "commit": record["commit"],
        "sessions": record["sessions"],
        "last_epoch": last,
        "results": json.loads(folder.results_file.read_text()),
    }


def run_table(
    manifest: Manifest,
    *,
    rows: Iterable[str] = (),
    seeds: Sequence[int] = (),
    jobs: int = 1,
    dry_run: bool = False,
) -> int:
    """Run what is not done yet of a table, ``jobs`` rows at a time, and return the exit status.

    Args:
        manifest: The table.
        rows: Names of the rows to run; all if empty.
        seeds: Seeds to run; the manifest's if empty.
        jobs: Processes side by side; they share the cores evenly.
        dry_run: Only print the commands.
    """
    wanted = set(rows) or {row.name for row in manifest.rows}
    unknown = wanted - {row.name for row in manifest.rows}
    if unknown:
        raise ValueError(
            f"{manifest.path} has no row {sorted(unknown)}; it has "
            f"{[row.name for row in manifest.rows]}"
        )
    done = {(old["row"], old["seed"], tuple(old["overrides"])) for old in read_results(manifest)}
    todo = [
        (row, seed)
        for seed in seeds or manifest.seeds
        for row in manifest.rows
        if row.name in wanted
        and (row.name, seed, tuple(row_overrides(manifest, row, seed))) not in done
    ]
    print(f"{manifest.title}: {len(todo)} runs to do, {len(done)} done", flush=True)
    if dry_run:
        for row, seed in todo:
            print("crosswalk train " + " ".join(row_overrides(manifest, row, seed)))
        return 0
    threads = max(1, (os.cpu_count() or 1) // jobs)
    folders = [_folder_of(manifest, row, seed) for row, seed in todo]
    failures = 0
    with ThreadPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(_run_one, manifest, row, seed, folder, threads)
            for (row, seed), folder in zip(todo, folders, strict=True)
        ]
        for (row, seed), future in zip(todo, futures, strict=True):
            try:
                result = future.result()
            except RuntimeError as error:
                failures += 1
                print(f"failed: {error}", flush=True)
                continue
            _add_result(manifest, result)
            rank1 = 100 * result["results"][row.checkpoint]["test/rank1"]
            print(f"done: {row.name}, seed {seed}, test R@1 {rank1:.2f}", flush=True)
    return 1 if failures else 0


def render_table(manifest: Manifest, *, checkpoint: str | None = None, split: str = "test") -> str:
    """Return the table in Markdown: obtained mean and standard deviation over seeds, in percent.

    Args:
        manifest: The table.
        checkpoint: Weights to report instead of those that each row names.
        split: The split to report.

    Rows that were not run say so; published numbers stand beside the obtained ones.
    """
    results = read_results(manifest)
    header = ["row", "seeds"] + [
        part for metric in manifest.metrics for part in (f"published {metric}", f"{metric}")
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in manifest.rows:
        runs = [
            result["results"][checkpoint or row.checkpoint]
            for result in results
            if result["row"] == row.name
            and result["overrides"] == row_overrides(manifest, row, result["seed"])
        ]
        cells = [row.name, str(len(runs)) if runs else "not run"]
        for position, metric in enumerate(manifest.metrics):
            published = row.published[position] if row.published else None
            values = [100 * run[f"{split}/{metric}"] for run in runs]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            cells.append("-" if published is None else f"{published:.2f}")
            cells.append(f"{mean(values):.2f}{spread}" if values else "not run")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
