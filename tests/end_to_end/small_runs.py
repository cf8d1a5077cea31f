"""Runs of every method's configuration, cut down to seconds by `small:` of its file."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch

from crosswalk.cli import main
from crosswalk.commands import train as train_command
from crosswalk.config.search import group_values, small_overrides
from crosswalk.files import lock, write_text
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import evaluate
from crosswalk.synthetic.generate import synthesize_pairs
from tests.end_to_end.toy_run import assert_same, exit_code_of, traces

METHODS = tuple(group_values("method"))
VARIANTS: dict[str, tuple[str, ...]] = {
    "mmcl, two sets": (
        *("data=synthetic_transfer", "data.batch_size=12"),
        *("data.source.synthetic.size=tiny", "data.target.synthetic.size=tiny"),
    ),
    "cmmt, pairs and centroids": (
        "method.memory._target_=crosswalk.memory.cluster_memory.ClusterMemory",
        *("method.recluster_from=encoder", "method.text_slot=caption"),
        *("method.relation=pairs", "method.directions=both"),
    ),
}
"""Overrides of further kinds of run, behind the name of their method and a comma."""

KINDS = (*METHODS, *VARIANTS)
"""What is trained whole, by two processes and without identities.

A method that is added is among them by its file. What the variants do not change, such as going
on after a stop, is tested on the methods alone.
"""


def small_run(kind: str, *more: str) -> list[str]:
    """Return the overrides of a run of seconds; ``kind`` is one of `KINDS`."""
    method, variant = kind.partition(",")[0], VARIANTS.get(kind, ())
    small = small_overrides(method)
    assert small, f"configs/method/{method}.yaml has no `small:`"
    if any(override.startswith("data=") for override in variant):
        small = [override for override in small if not override.startswith("data.synthetic.")]
    return [f"method={method}", *small, "trainer=cpu", "logger=csv", *variant, *more]


def tiny_pairs(folder: Path) -> Path:
    """Return the root of a tiny synthetic set below ``folder``."""
    return synthesize_pairs(folder / "tiny-pairs", size="tiny", seed=3, progress=False)


def rename_training_people(cache: Path) -> int:
    """Name the people of generated training sets anew, except a source's; return how many sets.

    The order of images and pairs stays.
    """
    sets = 0
    for path in (cache / "synthetic").glob("pairs-*/CUHK-PEDES/reid_raw.json"):
        random = np.random.default_rng(5)
        entries = json.loads(path.read_text())
        for entry in entries:
            if entry["split"] == "train":
                entry["id"] = 20_000 + int(random.integers(7))
        path.write_text(json.dumps(entries))
        sets += 1
    for folder in (cache / "synthetic").glob("images-market1501-*/*/bounding_box_train"):
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"{number + 1:04}_{path.name.split('_', 1)[1]}")
        sets += 1
    return sets


def leave_empty_reports() -> None:
    """Let runs of this process leave an empty page: to draw the figures takes most of a run."""
    train_command.leave_report = lambda folder, data: write_text(folder.path / "report.html", "")


def train(overrides: list[str], cache: str, report: bool = False) -> None:
    """Run ``crosswalk train``, with an empty report unless it is asked for."""
    if not report:
        leave_empty_reports()
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = cache
    L.seed_everything(0, verbose=False)
    if status := main(["train", *overrides]):
        raise RuntimeError(f"the run ended with status {status}")


def evaluate_again(folder: Path, cache: str, overrides: Sequence[str] = ()) -> None:
    """Run ``crosswalk evaluate``."""
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = cache
    evaluate(folder, overrides)


def run_small(
    overrides: list[str], runs: Path, cache: Path, *, report: bool = False
) -> tuple[int | None, RunFolder]:
    """Run `train` in a process of its own; return its exit code and its folder.

    Args:
        overrides: Of the run; name and output folder are added.
        runs: Where its folder is made; it should hold no other.
        cache: The cache folder.
        report: Whether the page of the run matters.
    """
    overrides = [f"output_dir={runs}", "name=it", *overrides]
    code = exit_code_of(train, overrides, str(cache), report)
    (folder,) = runs.glob("*-it")
    return code, RunFolder(folder)


def run_kind(
    kind: str, runs: Path, cache: Path, *more: str, report: bool = False
) -> tuple[int | None, RunFolder]:
    """Run one of `KINDS` as `run_small` does, with a checkpoint every other step."""
    overrides = small_run(kind, "checkpoint_every_n_steps=2", *more)
    return run_small(overrides, runs, cache, report=report)


class WholeRuns:
    """Uninterrupted runs by kind, each made when any process first asks for it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache

    def __getitem__(self, kind: str) -> RunFolder:
        runs = self.folder / re.sub(r"\W+", "-", kind)
        with lock(Path(f"{runs}.lock")):
            if not list(runs.glob("*-it/report.html")):
                code, _ = run_kind(kind, runs, self.cache, report=True)
                assert code == 0
            (folder,) = runs.glob("*-it")
        return RunFolder(folder)


def assert_same_run(found: RunFolder, expected: RunFolder) -> None:
    """Check that two runs left the same behind, bit by bit."""
    assert_same(traces(found.path), traces(expected.path))
    assert found.results_file.read_text() == expected.results_file.read_text()


def evaluated_copy(
    run: RunFolder, target: Path, cache: Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """Return a copy of a run below ``target`` that was evaluated again.

    Without overrides the copy has no results before.
    """
    copy = RunFolder(shutil.copytree(run.path, target / "copy"))
    if not overrides:
        copy.results_file.unlink()
    assert exit_code_of(evaluate_again, copy.path, str(cache), overrides) == 0
    return copy
