"""Times training steps on one process of one thread, and on several such processes.

``python benchmarks/processes.py`` takes the synthetic recipe of every method (``configs/method``),
with all parts of its step switched on, the same global batch on all numbers of processes, and no
workers. It prints steps per second and their ratio to one process, and what a step sends: the
collectives, the bytes that one process hands over to them, and the bytes that it sends for them
by rings (docs/scale.md). Behind them stands what every process holds: weights, gradients,
optimizer and the method's buffers; ``--published`` counts them at published size, with the
training sets of the papers, and trains nothing. ``--full-size`` takes steps of the published
recipes, with few samples and without a trainer (`steps.py`). Processes that share their cores
with other programs wait for each other, so processor time is printed too, with the ratio that it
allows: the whole of one process over the busiest of several. Rounds alternate between the numbers
of processes, and medians count. ``--quick`` takes two steps of ``small:`` of every method.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from rows import commit, facts, report, write
from steps import PUBLISHED, SMALL, Step, built, configuration
from torch import Tensor

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.search import group_values, small_overrides
from crosswalk.distributed import rank_and_world_size
from crosswalk.run.callbacks.run_record import RunRecord
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import make_trainer

WHOLE = {
    "mmcl": ["method.mplp_start_epoch=0"],
    "mar": ["method.mining_start_epoch=0"],
    "cmmt": ["method.start_epoch=0"],
    "cluster_contrast": ["data.plan.num_batches=100"],
}
"""What switches on, from the first step, the parts that a method has only later."""

AIM, AIM_FULL_SIZE = 1.5, 1.7
WITHOUT_STAGE = ("clip_reid", "cluster_contrast", "mar", "mmcl")
COLLECTIVES = (
    *("all_reduce", "all_gather", "all_gather_into_tensor", "reduce_scatter_tensor"),
    *("broadcast", "all_gather_object", "broadcast_object_list", "barrier"),
)
HELD = ("weights", "trainable", "optimizer", "buffers")
KINDS = {"reduced": "all_reduce", "gathered": "all_gather"}


class Ended(Exception):
    """Ends a training once its steps are measured."""


class Traffic:
    """Counts the collectives of this process, what it hands over to them, and the time in them.

    Attributes:
        reduced: Bytes handed over to sums, which every process ends up with.
        gathered: Bytes handed over to be gathered.
        other: Bytes handed over to anything else.
    """

    def __init__(self) -> None:
        self.number = self.reduced = self.gathered = self.other = 0
        self.seconds = 0.0
        for name in COLLECTIVES:
            setattr(torch.distributed, name, self._counted(getattr(torch.distributed, name)))

    def _counted(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self.number += 1
            # the last tensor is what this process contributes; all_reduce has no other
            given = [each for each in args if isinstance(each, Tensor)]
            kind = next((each for each in KINDS if KINDS[each] in collective.__name__), "other")
            setattr(self, kind, getattr(self, kind) + (given[-1].nbytes if given else 0))
            start = time.perf_counter()
            try:
                return collective(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return call

    def now(self) -> dict[str, float]:
        """Return clocks and counts."""
        return {
            "seconds": time.perf_counter(),
            "cpu": time.process_time(),
            "in_collectives": self.seconds,
            "collectives": self.number,
            "reduced": self.reduced,
            "gathered": self.gathered,
            "other": self.other,
        }


class Meter(L.Callback):
    """Reads clocks and traffic around the steps behind the warm-up."""

    def __init__(self, traffic: Traffic, warm_up: int, steps: int) -> None:
        self.traffic, self.warm_up, self.steps = traffic, warm_up, steps
        self.measured: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._done = 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        """Begin, or end, in front of a step: loading a batch belongs to its step."""
        if self._done == self.warm_up:
            self._before = self.traffic.now()
        if self._done == self.warm_up + self.steps:
            self.measured = per_step(
                *(self._before, self.traffic.now(), self.steps),
                *(trainer.strategy.model, trainer.lightning_module, trainer.optimizers),
            )
            raise Ended
        self._done += 1


def per_step(
    before: dict[str, float],
    after: dict[str, float],
    steps: int,
    model: Any,  # noqa: ANN401
    method: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
) -> dict[str, float]:
    """Return what one of so many steps took and sent, and what this process holds."""
    measured = {name: (value - before[name]) / steps for name, value in after.items()}
    buckets = bucket_bytes(model)
    measured["collectives"] += len(buckets)
    measured["gradients"] = sum(buckets)
    world_size = rank_and_world_size()[1]
    return {**measured, **sums(measured, world_size), **held(method, optimizers)}


def sums(handed: dict[str, float], world_size: int) -> dict[str, float]:
    """Return the bytes that a process hands over, and those that it sends by rings.

    A sum of ``x`` bytes is scattered and gathered, ``2 (n - 1) / n * x``; of ``x`` gathered bytes
    each process passes on all but its neighbour's, ``(n - 1) * x``.
    """
    summed = handed["gradients"] + handed["reduced"]
    passed_on = (world_size - 1) * handed["gathered"]
    return {
        "bytes": summed + handed["gathered"] + handed["other"],
        "sent": 2 * (world_size - 1) / world_size * summed + passed_on + handed["other"],
    }


def held(method: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, float]:
    """Return the bytes of what every process holds whole; what is trainable has gradients, too."""
    kept = [
        each
        for optimizer in optimizers
        for values in optimizer.state.values()
        for each in values.values()
        if isinstance(each, Tensor)
    ]
    return {
        "weights": sum(each.nbytes for each in method.parameters()),
        "trainable": sum(each.nbytes for each in method.parameters() if each.requires_grad),
        "optimizer": sum(each.nbytes for each in kept),
        "buffers": sum(each.nbytes for each in method.buffers()),
    }


def of_published_size(method: str) -> dict[str, float]:
    """Return `held` of a method's published recipe, from its constructor and its optimizer's."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = configuration(method, Path(folder), batch_size=64)
        _, made = built(overrides, PUBLISHED)
    optimizer = made.configure_optimizers()["optimizer"]
    first = optimizer.param_groups[0]
    copies = 2 if "betas" in first else int(first.get("momentum", 0) > 0)
    trainable = sum(each.nbytes for each in made.parameters() if each.requires_grad)
    return {
        "weights": sum(each.nbytes for each in made.parameters()),
        "trainable": trainable,
        "optimizer": copies * trainable,
        "buffers": sum(each.nbytes for each in made.buffers()),
    }


def bucket_bytes(model: Any) -> list[int]:  # noqa: ANN401
    """Return the sizes of the gradient buckets of a model, each of them one collective a step."""
    if not hasattr(model, "_get_ddp_logging_data"):
        return []
    facts = model._get_ddp_logging_data()
    sizes = facts.get("rebuilt_bucket_sizes") or facts.get("bucket_sizes") or ""
    return [int(size) for size in str(sizes).split(",") if size.strip()]


def overrides_of(method: str, quick: bool, more: list[str]) -> list[str]:
    """Return the overrides of a method's run."""
    if quick:
        return [f"method={method}", *small_overrides(method), "trainer=cpu", "logger=csv", *more]
    stage = ["stage=null"] if method in WITHOUT_STAGE else []
    always = ["trainer=cpu", "logger=csv", "data.num_workers=0", "checkpoint_every_n_steps=0"]
    return [f"method={method}", *always, *stage, *WHOLE.get(method, []), *more]


def measure_here(config: dict[str, Any], folder: Path, warm_up: int, steps: int) -> dict[str, Any]:
    """Train on this process, one of those that the environment tells of."""
    torch.set_num_threads(1)
    L.seed_everything(1, verbose=False)
    run = build(check(config))
    run.trainer["enable_progress_bar"] = False
    run_folder = RunFolder(folder)
    trainer = make_trainer(run, run_folder, RunRecord(run_folder, seeds={}))
    meter = Meter(Traffic(), warm_up, steps)
    trainer.callbacks.append(meter)  # type: ignore[attr-defined]
    with contextlib.suppress(Ended):
        trainer.fit(run.method, datamodule=run.data)
    if not meter.measured:
        raise RuntimeError(f"the training ended before step {warm_up + steps}")
    return meter.measured


def measure_full_size(
    overrides: list[str], num_processes: int, warm_up: int, steps: int
) -> dict[str, float]:
    """Take steps of a published recipe on this process, without a trainer (`steps.py`)."""
    torch.set_num_threads(1)
    traffic = Traffic()
    if num_processes > 1:
        rank = int(os.environ["LOCAL_RANK"])
        torch.distributed.init_process_group("gloo", rank=rank, world_size=num_processes)
    step = Step(overrides, sizes=SMALL)
    loss = step()
    for _ in range(1, warm_up):
        step()
    before = traffic.now()
    for _ in range(steps):
        step()
    parts = step.model, step.method, [step.optimizer]
    return {**per_step(before, traffic.now(), steps, *parts), "loss": float(loss)}


@contextlib.contextmanager
def written_config(overrides: list[str], num_processes: int, full_size: bool) -> Iterator[Path]:
    """Write what a process needs to know into a folder."""
    given: Any = overrides
    if not full_size:
        given = to_plain(compose([*overrides, f"trainer.devices={num_processes}"]))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(given))
        yield Path(folder)


def measure(
    overrides: list[str], num_processes: int, warm_up: int, steps: int, full_size: bool = False
) -> list[dict[str, float]]:
    """Return what each of so many processes measured, per step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with written_config(overrides, num_processes, full_size) as folder:
        command = [sys.executable, __file__, "--of-one", str(folder)]
        command += ["--warm-up", str(warm_up), "--steps", str(steps)]
        command += ["--processes", str(num_processes), *(["--full-size"] if full_size else [])]
        started = []
        for rank in range(num_processes):
            place = {
                **{"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"},
                **{"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            }
            log = (folder / f"{rank}.log").open("w")
            started.append(
                subprocess.Popen(command, env={**os.environ, **place}, stdout=log, stderr=log)
            )
        while None in (codes := [process.poll() for process in started]) and not any(codes):
            time.sleep(0.1)
        if any(codes):  # the others would wait for it
            for process in started:
                process.kill()
            raise RuntimeError(
                (folder / f"{codes.index(next(filter(None, codes)))}.log").read_text()
            )
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(num_processes)]


def median(outcomes: list[list[dict[str, float]]], name: str) -> float:
    """Return the median over rounds of the process with most of it."""
    return statistics.median(max(each[name] for each in round_) for round_ in outcomes)


def compare(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Print a method's rows, and return them."""
    warm_up, steps, rounds = (1, 2, 1) if options.quick else (5, options.steps, options.rounds)
    recipe, aim = "synthetic recipe", AIM
    overrides = overrides_of(method, options.quick, options.overrides)
    if options.full_size:
        size = options.batch_size
        recipe, aim, warm_up = f"published recipe on {size} samples", AIM_FULL_SIZE, 1
        overrides = configuration(method, options.data, batch_size=size, tiny=options.quick)
        overrides += options.overrides
    outcomes: dict[int, list[list[dict[str, float]]]] = {n: [] for n in options.processes}
    for _ in range(rounds):
        for number, measured in outcomes.items():
            measured.append(measure(overrides, number, warm_up, steps, options.full_size))
    losses = [
        each["loss"]
        for rounds in outcomes.values()
        for one in rounds
        for each in one
        if "loss" in each
    ]
    if not np.allclose(losses, losses[:1], rtol=1e-3):
        raise RuntimeError(f"{method} has another loss on other processes: {losses}")
    rows, alone = {}, outcomes[options.processes[0]]
    for number, measured in outcomes.items():
        values = {name: median(measured, name) for name in measured[0][0]}
        ratio = median(alone, "seconds") / values["seconds"]
        allowed = median(alone, "cpu") / values["cpu"]
        print(
            f"{method:<17}{number:>3}{1 / values['seconds']:>9.2f}{ratio:>7.2f}"
            f"{1e3 * values['cpu']:>9.1f}{allowed:>7.2f}{1e3 * values['in_collectives']:>9.1f}"
            f"{values['collectives']:>8.1f}{values['bytes'] / 1e3:>11.1f}"
            f"{values['sent'] / 1e3:>11.1f}"
            f"{sum(values[name] for name in HELD) / 1e6:>9.2f}",
            flush=True,
        )
        if number == 2:
            step = f"a step of {method}'s {recipe} on two processes of one thread"
            note = f"{values['collectives']:.0f} collectives, {values['bytes'] / 1e3:,.0f} kB"
            one = median(alone, "seconds")
            report(step, values["seconds"], one, against="one process", at_least=aim, note=note)
            busiest = f"{step}, processor time of the busier one"
            one = median(alone, "cpu")
            report(busiest, values["cpu"], one, against="one process", unit="CPU s", note=note)
        rows[str(number)] = {**values, "ratio": ratio, "cpu_ratio": allowed}
    return rows


def keep(path: Path | None, **rows: dict[str, Any]) -> None:
    """Put rows into a file of results beside what is in it; without a path, nowhere."""
    if path is not None:
        before = json.loads(path.read_text()) if path.exists() else {}
        write(path, {**before, "machine": facts(), **commit(), **rows})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time training steps on several processes.")
    parser.add_argument("overrides", nargs="*", help="of every method's run")
    parser.add_argument("--methods", nargs="+", default=group_values("method"))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=20, help="measured steps")
    parser.add_argument("--rounds", type=int, default=1, help="of all numbers of processes")
    parser.add_argument("--warm-up", type=int, default=5, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--quick", action="store_true", help="two steps of small runs")
    parser.add_argument("--published", action="store_true", help="count bytes at published size")
    parser.add_argument(
        "--full-size", action="store_true", help="encoders of published size, without a trainer"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="of --full-size, in all")
    parser.add_argument("--of-one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.of_one is not None:
        given = json.loads((options.of_one / "config.json").read_text())
        length = options.warm_up, options.steps
        if options.full_size:
            measured = measure_full_size(given, options.processes[0], *length)
        else:
            measured = measure_here(given, options.of_one / "run", *length)
        (options.of_one / f"{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(measured))
        os._exit(0)  # a process group that is closed waits for the others
    if options.published:
        rows = {method: of_published_size(method) for method in options.methods}
        print(f"{'method':<17}{'weights':>9}{'gradients':>11}{'optimizer':>11}{'buffers':>9}  MB")
        for method, held in rows.items():
            weights, trainable, optimizer, buffers = (value / 1e6 for value in held.values())
            print(f"{method:<17}{weights:>9.1f}{trainable:>11.1f}{optimizer:>11.1f}{buffers:>9.1f}")
        keep(options.json, published=rows)
        return 0
    print(
        f"{'':<17}{'':>3}{'steps':>9}{'':>7}{'cpu ms':>9}{'':>7}{'ms in':>9}{'':>8}{'kB a':>11}"
        f"{'kB sent':>11}{'MB':>9}"
    )
    print(
        f"{'method':<17}{'n':>3}{'a second':>9}{'ratio':>7}{'a step':>9}{'allows':>7}"
        f"{'coll.':>9}{'coll.':>8}{'step':>11}{'a step':>11}{'held':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        options.data = Path(folder)
        rows = {method: compare(method, options) for method in options.methods}
    keep(options.json, **{"full_size" if options.full_size else "per_step": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
