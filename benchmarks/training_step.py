"""Times a whole training step of every method: straightforward in float32, and as a run does it.

``python benchmarks/training_step.py`` takes, one after the other, every method of
``configs/method`` with its published recipe: encoder and images of the published size, random
weights, synthetic people, memories of a whole training set (`steps.py`). A step is augmentation,
forward, labels, loss, backward, optimizer and memory. The straightforward one is in float32, with
an optimizer that goes from parameter to parameter, and with the parts of `plain_steps.py` where the
published code has such; ours is under bfloat16 (``trainer.precision=bf16-mixed``), with channels
last where the encoder has them. Both take turns, and a ratio is the median over the rounds of
(straightforward step / our step of the same round). It fails if the losses of the first step, ours
in float32 and ours in bfloat16, are not the straightforward one, to the precision of their numbers.
``--quick`` takes the small recipes, to see that everything runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from plain_steps import make_plain
from rows import report
from steps import METHODS, SMALL, TINY, Step, configuration, takes_pairs

AIM = 2.0
"""Least ratio."""
BATCH_OF_PAIRS, BATCH_OF_IMAGES = 8, 16
FLOAT32, BFLOAT16 = 1e-3, 1e-1
"""Relative differences of a first loss: bfloat16 meets networks of random weights, and cosines
times 30 or 50."""


def first_loss(step: Step) -> float:
    torch.manual_seed(1)  # of dropout
    return float(step())


def seconds(step: Step) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - start, time.process_time() - cpu


def compare(method: str, folder: Path, *, batch_size: int, rounds: int, tiny: bool) -> list[str]:
    """Print and report one method; return what is wrong with its losses."""
    sizes = TINY if tiny else SMALL
    overrides = configuration(method, folder, batch_size=batch_size, tiny=tiny)
    plain = Step(overrides, sizes=sizes)
    for group in plain.optimizer.param_groups:
        group["fused"] = group["foreach"] = False
    parts = make_plain(plain.method)
    expected = first_loss(plain)
    found = {"ours, float32": (first_loss(Step(overrides, sizes=sizes)), FLOAT32)}
    channels_last = hasattr(plain.method.encoder, "memory_format")
    more = ["encoder.channels_last=true"] * channels_last
    ours = Step([*overrides, *more], sizes=sizes, bfloat16=True)
    found["ours, bfloat16"] = (first_loss(ours), BFLOAT16)

    taken = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    ratio, cpu_ratio = (
        statistics.median(slow[clock] / fast[clock] for slow, fast in taken) for clock in (0, 1)
    )
    slow, fast = (statistics.median(each[side][0] for each in taken) for side in (0, 1))
    against = f"float32, {parts}" if parts else "float32"
    how = f"bfloat16{', channels last' if channels_last else ''}"
    print(
        f"{method:<18}{slow:>9.3f} s{fast:>9.3f} s{ratio:>7.2f}{cpu_ratio:>7.2f}"
        f"{expected:>12.5f}{found['ours, bfloat16'][0]:>12.5f}  {how}, against {against}",
        flush=True,
    )
    report(
        f"training step of {method}, batch of {batch_size}: {how}",
        slow / ratio,
        slow,
        against=against,
        at_least=AIM,
        note=f"median of {rounds} rounds; {cpu_ratio:.1f}x by processor time",
    )
    return [
        f"{method}, {name}: loss {loss}, expected {expected}"
        for name, (loss, tolerance) in found.items()
        if not abs(loss - expected) <= tolerance * abs(expected)
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time a training step of every method.")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    parser.add_argument("--batch-size", type=int, help="default: 8 pairs, or 16 images")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of either way")
    parser.add_argument("--folder", type=Path, help="where synthetic people are kept")
    parser.add_argument("--quick", action="store_true", help="the small recipes, one round")
    options = parser.parse_args(arguments)

    wrong = []
    print(f"{torch.get_num_threads()} threads")
    print(f"{'method':<18}{'plain':>11}{'ours':>11}{'ratio':>7}{'CPU':>7}{'loss':>12}{'ours':>12}")
    with tempfile.TemporaryDirectory() as temporary:
        for method in options.methods:
            batch_size = BATCH_OF_PAIRS if takes_pairs(method) else BATCH_OF_IMAGES
            wrong += compare(
                method,
                options.folder or Path(temporary),
                batch_size=options.batch_size or batch_size,
                rounds=1 if options.quick else options.rounds,
                tiny=options.quick,
            )
    print("\n".join(wrong) or "all losses agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
