"""Runs of every method's configuration, cut down to seconds by `small:` of its file."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as L
import numpy as np
import torch

from crosswalk.cli import main
from crosswalk.config.compose import compose
from crosswalk.config.constructors import locate
from crosswalk.config.search import group_values, small_overrides
from crosswalk.files import lock
from crosswalk.methods.base import Method
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
"""What every guarantee is tested on: a method that is added is among them by its file."""


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


MOMENTS = "moments.json"


class Moment(NamedTuple):
    """A place in a run: the ``number``-th (from 1) event of its kind in an epoch.

    Events: ``step`` (a training step begins), ``sweep`` (a batch of the pass over the training
    set begins), ``evaluation`` (a batch of an evaluation begins).
    """

    event: str
    epoch: int
    number: int


HOOKS = {
    **{"training_step": "step", "sweep_step": "sweep"},
    **{"validation_step": "evaluation", "test_step": "evaluation"},
}


class _Events:
    """Counts what happens in this process, and kills it at a moment."""

    def __init__(self, kill_at: Moment | None) -> None:
        self.kill_at = kill_at
        self.counts: Counter[tuple[str, int]] = Counter()

    def __call__(self, event: str, epoch: int) -> None:
        self.counts[event, epoch] += 1
        if self.kill_at == (event, epoch, self.counts[event, epoch]):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, method: type[Method]) -> None:
        events = self
        for hook, event in HOOKS.items():
            original = getattr(method, hook)

            def counting(
                self: Method, *args: object, original: Callable = original, event: str = event
            ) -> object:
                events(event, self.trainer.current_epoch)
                return original(self, *args)

            setattr(method, hook, counting)

    def moments(self) -> list[Moment]:
        """Return the last event of each kind in each epoch, in the order of their first."""
        return [Moment(*key, number) for key, number in self.counts.items()]


def train_and_be_killed(
    overrides: list[str],
    kill_at: Moment | None = None,
    environment: dict[str, str] | None = None,
    moments: Path | None = None,
) -> None:
    """Run ``crosswalk train``; SIGKILL this process at a moment.

    Args:
        overrides: Of the run.
        kill_at: The moment, if any.
        environment: Variables that are set before.
        moments: Where the last event of each kind in each epoch is written, if the run ends.
    """
    torch.set_num_threads(1)
    os.environ |= environment or {}
    events = _Events(kill_at)
    events.watch(locate(compose(overrides).method._target_, "method"))
    L.seed_everything(0, verbose=False)
    if status := main(["train", *overrides]):
        raise RuntimeError(f"the run ended with status {status}")
    if moments is not None:
        moments.write_text(json.dumps(events.moments()))


def evaluate_again(folder: Path, cache: str, overrides: Sequence[str] = ()) -> None:
    """Run ``crosswalk evaluate``."""
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = cache
    evaluate(folder, overrides)


def run_small(
    overrides: list[str], runs: Path, cache: Path, kill_at: Moment | None = None
) -> tuple[int | None, RunFolder]:
    """Run `train_and_be_killed` in a process of its own; return its exit code and its folder.

    Args:
        overrides: Of the run; name and output folder are added.
        runs: Where its folder is made; it should hold no other.
        cache: The cache folder.
        kill_at: When to kill it.
    """
    overrides = [f"output_dir={runs}", "name=it", *overrides]
    environment = {"CROSSWALK_CACHE": str(cache)}
    code = exit_code_of(train_and_be_killed, overrides, kill_at, environment, runs / MOMENTS)
    (folder,) = runs.glob("*-it")
    return code, RunFolder(folder)


def moments_of(run: RunFolder) -> list[Moment]:
    """Return the last event of each kind in each epoch of a run that was not killed."""
    return [Moment(*each) for each in json.loads((run.path.parent / MOMENTS).read_text())]


def run_kind(
    kind: str, runs: Path, cache: Path, *more: str, kill_at: Moment | None = None
) -> tuple[int | None, RunFolder]:
    """Run one of `KINDS` as `run_small` does, with a checkpoint every other step."""
    return run_small(small_run(kind, "checkpoint_every_n_steps=2", *more), runs, cache, kill_at)


class WholeRuns:
    """Uninterrupted runs by kind, each made when any process first asks for it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache

    def __getitem__(self, kind: str) -> RunFolder:
        runs = self.folder / re.sub(r"\W+", "-", kind)
        with lock(Path(f"{runs}.lock")):
            if not (runs / MOMENTS).exists():
                runs.mkdir()
                code, _ = run_kind(kind, runs, self.cache)
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
