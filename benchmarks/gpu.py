"""Everything that is to be known of one large GPU, in one run: ``make bench-gpu``.

A part after the other, the most wanted first: the tests marked ``gpu``; training steps of every
method at published size under bfloat16, with channels last, with model FLOP utilisation and peak
memory; RDE's compiled, and with larger batches; the input pipeline with augmentation on the device;
evaluation at the sizes of three test sets, with the metrics of the CPU. The file of results is
written after every part, and a part that would begin after ``--minutes`` is left out, so that a run
that is cut off leaves what it has. On ``--device cpu --tiny`` everything runs small, to see that it
does.

Utilisation is what PyTorch counts of matrix products and convolutions in a whole step, forward and
backward, over the seconds of the step and the peak of dense bfloat16 products of the device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rows
import torch
from rows import report
from steps import METHODS, PUBLISHED, TINY, Sizes, Step, configuration, on_device, takes_pairs
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crosswalk.config.build import construct
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.metrics.ranking import rank_embeddings

ROOT = Path(__file__).parents[1]
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bfloat16 operations per second, by a part of the device's name; of the data sheets."""
BATCH = {"cluster_contrast": 256, "mmcl": 128, "mar": 184, "cmmt": 128, "cm_moco": 128}
"""Published batch sizes; the other methods have 64."""
EVALUATIONS = {  # queries, gallery, width, persons, cameras
    "CUHK-PEDES": (6156, 3074, 512, 1000, 0),
    "Market-1501": (3368, 19732, 2048, 751, 6),
    "MSMT17": (11659, 82161, 2048, 3060, 15),
}
PAIRS, EPOCHS, MOST_MINUTES = 68_126, 60, 60.0
"""RDE's run on CUHK-PEDES, and how long it may take."""


class Bench:
    """A run: its device, its sizes, its deadline and its file."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.device = torch.device(options.device)
        self.tiny: bool = options.tiny
        self.methods: list[str] = options.methods
        self.tests: list[str] = options.tests
        self.compiled: list[str] = options.compile
        self.folder = folder
        self.until = time.monotonic() + 60 * options.minutes
        self.sizes: Sizes = TINY if self.tiny else PUBLISHED
        self.images_per_second: dict[str, float] = {}
        cuda = self.device.type == "cuda"
        self.name = torch.cuda.get_device_name(self.device) if cuda else "the CPU"
        self.peak = next((peak for part, peak in PEAKS.items() if part in self.name), None)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], *, warm: int = 3, most: float = 4.0) -> float:
        """Return the median seconds of a call, of 3 to 20 within ``most`` seconds."""
        for _ in range(1 if self.tiny else warm):
            run()
        self.wait()
        taken: list[float] = []
        while len(taken) < 3 or (len(taken) < 20 and sum(taken) < most):
            start = time.perf_counter()
            run()
            self.wait()
            taken.append(time.perf_counter() - start)
            if self.tiny:
                break
        return statistics.median(taken)

    def forget_peak(self) -> None:
        """Begin to measure the peak of memory anew."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory(self) -> float | None:
        """Return the peak of memory in GB; None on the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return None


def gpu_tests(bench: Bench) -> dict[str, Any]:
    """Run the tests marked ``gpu``."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *bench.tests], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    last = (done.stdout.strip().splitlines() or [""])[-1]
    print(f"  {last}")
    if done.returncode not in (0, 5):  # 5: none was collected
        print(done.stdout[-4000:])
        raise RuntimeError(f"tests marked gpu end with {done.returncode}: {last}")
    return {"pytest": last, "seconds": time.monotonic() - start}


def step_of(bench: Bench, method: str, batch_size: int) -> Step:
    """Return a method in training on the device."""
    overrides = configuration(
        method,
        bench.folder,
        batch_size=batch_size,
        tiny=bench.tiny,
        set_size="tiny" if bench.tiny else "toy",
    )
    if "encoder.channels_last" in keys_of(overrides):
        overrides.append("encoder.channels_last=true")
    return Step(overrides, sizes=bench.sizes, device=bench.device, bfloat16=True)


def keys_of(overrides: list[str]) -> set[str]:
    """Return the keys of the encoder in a configuration."""
    return {f"encoder.{key}" for key in compose(overrides).encoder}


def measure_step(bench: Bench, method: str, batch_size: int, *, compiled: bool) -> dict[str, Any]:
    """Report one method; return what was measured."""
    bench.forget_peak()
    step = step_of(bench, method, batch_size)
    found: dict[str, Any] = {"batch_size": batch_size}
    start = time.perf_counter()
    loss = float(step())
    found["first_step_seconds"] = time.perf_counter() - start
    with FlopCounterMode(display=False) as counter:
        step()
    operations = counter.get_total_flops()
    if compiled:
        step.method.get_submodule("encoder").compile()
        start = time.perf_counter()
        step()
        bench.wait()
        found["compile_seconds"] = time.perf_counter() - start
    seconds = bench.seconds(step)
    memory = bench.peak_memory()
    images = batch_size * (2 if method == "mar" else 1)
    found |= {"seconds": seconds, "images_per_second": images / seconds, "loss": loss}
    found |= {"operations": operations, "peak_memory_gb": memory}
    bench.images_per_second[f"{method} {batch_size}"] = images / seconds
    title = f"{method}, batch of {batch_size}{', compiled' if compiled else ''}"
    note = f"{images / seconds:,.0f} images/s"
    if compiled:
        note += f"; compiled in {found['compile_seconds']:.0f} s"
    if memory is not None:
        note += f"; {memory:.1f} GB"
    report(f"training step of {title}, {bench.name}", 1e3 * seconds, unit="ms", note=note)
    if bench.peak is not None:
        found["utilisation"] = operations / seconds / bench.peak
        report(
            f"model FLOP utilisation of {title}, {bench.name}",
            100 * found["utilisation"],
            unit="%",
            at_least=40 if method in ("rde", "irra") else None,
        )
    print(f"  {title:40}{1e3 * seconds:9.1f} ms  {note}", flush=True)
    return found


def encoder_alone(bench: Bench, batch_size: int) -> dict[str, Any]:
    """Report the utilisation of RDE's encoder, forward and backward, without anything around."""
    step = step_of(bench, "rde", batch_size)
    batch = step.data.transform_batch(step.batch)
    encoder = step.method.encoder

    def run() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            views = [*encoder.embed_images(batch.image).values()]
            views += encoder.embed_texts(batch.tokens).values()
        torch.stack([view.float().sum() for view in views]).sum().backward()
        encoder.zero_grad()

    with FlopCounterMode(display=False) as counter:
        run()
    seconds = bench.seconds(run)
    share = None if bench.peak is None else counter.get_total_flops() / seconds / bench.peak
    if share is not None:
        name = f"utilisation of RDE's encoder, batch of {batch_size}, {bench.name}"
        report(name, 100 * share, unit="%", at_least=40)
    return {"batch_size": batch_size, "seconds": seconds, "utilisation": share}


def input_pipeline(bench: Bench) -> dict[str, Any]:
    """Report images per second from the cache to augmented batches on the device."""
    batch_size, workers = (12, 0) if bench.tiny else (128, 8)
    overrides = configuration(
        "rde",
        bench.folder,
        batch_size=batch_size,
        tiny=bench.tiny,
        set_size="tiny" if bench.tiny else "toy",
    )
    overrides += ["data.cache=on", f"data.num_workers={workers}"]
    checked = check(compose(overrides))
    data = construct(checked.config["data"], {"identities": checked.needs.plans_see_identities})
    data.setup("fit")
    loader = data.train_dataloader()
    count = 0

    def epoch() -> None:
        nonlocal count
        count = 0
        for batch in loader:
            moved = data.transform_batch(on_device(batch, bench.device))
            count += len(moved.image)

    epoch()  # workers start, pages are read
    bench.wait()
    start, passes = time.perf_counter(), 0
    while passes < 3 and time.perf_counter() - start < 40:
        epoch()
        passes += 1
    bench.wait()
    speed = passes * count / (time.perf_counter() - start)
    name = f"a thousand images, cached, augmented on {bench.name}, {workers} workers"
    report(name, 1e6 / speed, unit="ms", note=f"{speed:,.0f} images/s")
    fastest = max((v for k, v in bench.images_per_second.items() if k.startswith("rde")), default=0)
    print(f"  {speed:,.0f} images/s; RDE's step takes {fastest:,.0f}")
    if fastest:
        name = f"images that the input pipeline gives to RDE's fastest step, {bench.name}"
        report(name, speed / fastest, unit="times those it takes", at_least=1)
        minutes = PAIRS * EPOCHS / min(speed, fastest) / 60
        name = f"{EPOCHS} epochs of {PAIRS:,} pairs of RDE, {bench.name}, by arithmetic"
        note = "without divisions and evaluations"
        report(name, minutes, unit="minutes", at_most=MOST_MINUTES, note=note)
    return {"images_per_second": speed, "passes": passes, "images": count}


def drawn(size: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return embeddings of small integers, whose products are exact, with many ties, and labels."""
    queries, gallery, width, persons, cameras = size
    random = torch.Generator().manual_seed(1)
    vectors = [
        torch.randint(-1, 2, (count, width), generator=random).float()
        for count in (queries, gallery)
    ]
    labels = {}
    for name, count in (("query", queries), ("gallery", gallery)):
        labels[f"{name}_person_id"] = torch.randint(persons, (count,), generator=random)
        if cameras:
            labels[f"{name}_camera_id"] = torch.randint(cameras, (count,), generator=random)
    return vectors[0], vectors[1], labels


def same(mine: Any, theirs: Any) -> bool:  # noqa: ANN401
    """Return whether two results are equal to the last digit."""
    if isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(same(mine[key], theirs[key]) for key in theirs)
    return bool(np.array_equal(mine, theirs, equal_nan=np.asarray(theirs).dtype.kind == "f"))


def evaluation(bench: Bench, name: str) -> dict[str, Any]:
    """Report an evaluation on the device; its metrics are those of the CPU, digit by digit."""
    size = (60, 300, 16, 20, 4) if bench.tiny else EVALUATIONS[name]
    query, gallery, labels = drawn(size)
    moved = query.to(bench.device), gallery.to(bench.device)
    bench.forget_peak()
    before = bench.peak_memory()

    def run() -> Any:  # noqa: ANN401
        return rank_embeddings(*moved, **labels, topk=10)

    def product() -> None:
        for some in moved[0].split(1024):
            some @ moved[1].T

    seconds, bare = bench.seconds(run, warm=1), bench.seconds(product, warm=1)
    memory = bench.peak_memory()
    found, expected = run(), rank_embeddings(query, gallery, **labels, topk=10)
    for field, mine, theirs in zip(expected._fields, found, expected, strict=True):
        if not same(mine, theirs):
            raise RuntimeError(f"{name}: {field} is another one on {bench.name} than on the CPU")
    note = "the metrics of the CPU"
    if memory is not None and before is not None:
        note += f"; {memory - before:.2f} GB beside the embeddings"
    title = f"evaluation at {name} size on {bench.name}"
    report(title, 1e3 * seconds, 1e3 * bare, against="the bare product", unit="ms", note=note)
    print(f"  {name:14}{1e3 * seconds:9.1f} ms, the bare product {1e3 * bare:.1f} ms; {note}")
    return {"seconds": seconds, "product_seconds": bare, "peak_memory_gb": memory}


def parts(bench: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield all parts by name, in order."""
    yield "tests marked gpu", lambda: gpu_tests(bench)
    for method in bench.methods:
        size = 12 if bench.tiny else BATCH.get(method, 64)
        yield (
            f"step of {method}",
            lambda method=method, size=size: measure_step(bench, method, size, compiled=False),
        )
    for name in EVALUATIONS:
        yield f"evaluation, {name}", lambda name=name: evaluation(bench, name)
    if "rde" in bench.methods:
        for size in (12,) if bench.tiny else (64, 256):
            yield f"RDE's encoder, {size}", lambda size=size: encoder_alone(bench, size)
        for size in () if bench.tiny else (128, 256):
            yield (
                f"step of rde, {size}",
                lambda size=size: measure_step(bench, "rde", size, compiled=False),
            )
    yield "input pipeline", lambda: input_pipeline(bench)
    for method in bench.compiled:
        size = 12 if bench.tiny else 128 if takes_pairs(method) else BATCH.get(method, 64)
        yield (
            f"step of {method}, compiled",
            lambda method=method, size=size: measure_step(bench, method, size, compiled=True),
        )


def main(arguments: list[str] | None = None) -> int:
    """Run all parts for which there is time; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that all runs")
    parser.add_argument("--minutes", type=float, default=11, help="no part begins later")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--compile", nargs="*", choices=METHODS, default=["rde"], metavar="METHOD")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="where tests are looked for")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is here; --device cpu --tiny shows that everything runs")
        return 2

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.environ.setdefault("CROSSWALK_CACHE", str(folder / "cache"))
        lines = folder / "rows"
        lines.touch()
        os.environ[rows.VARIABLE] = str(lines)
        stack.callback(os.environ.pop, rows.VARIABLE)
        bench = Bench(options, folder)
        begun = time.monotonic()
        contents: dict[str, Any] = {
            "begun": datetime.now(UTC).isoformat(timespec="minutes"),
            **rows.commit(),
            "machine": {**rows.facts(), "device": bench.name},
            "quick": options.tiny,
            "finished": False,
            "scripts": {},
            "rows": [],
        }
        for part, run in parts(bench):
            load = os.getloadavg()[0]
            print(f"== {part}", flush=True)
            outcome: dict[str, Any] = {"load_before": load}
            if time.monotonic() > bench.until:
                outcome["left_out"] = f"{options.minutes:g} minutes were over"
            else:
                start = time.monotonic()
                try:
                    outcome |= run()
                except (RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
                    outcome["failed"] = f"{type(error).__name__}: {error}"
                outcome["part_seconds"] = time.monotonic() - start
            for key in ("left_out", "failed"):
                if key in outcome:
                    print(f"  {key.replace('_', ' ')}: {outcome[key]}", flush=True)
            contents["scripts"][part] = outcome
            found = [json.loads(line) for line in lines.read_text().splitlines()]
            contents["rows"] += [{"script": part, **row} for row in found]
            lines.write_text("")
            contents["seconds"] = time.monotonic() - begun
            rows.write(options.out, contents)
        contents["finished"] = not any(
            {"left_out", "failed"} & each.keys() for each in contents["scripts"].values()
        )
        rows.write(options.out, contents)
    print(f"{contents['seconds'] / 60:.1f} minutes; {options.out.name} holds the results")
    return 1 if any("failed" in each for each in contents["scripts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
