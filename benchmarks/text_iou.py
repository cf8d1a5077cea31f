"""Times what CMMT does with captions: their noun phrases, and Text-IoU of a batch.

``python benchmarks/text_iou.py`` writes captions of synthetic people, finds their noun phrases, and
prints Text-IoU of a batch of 128 as loops over Python sets and as the package computes it, on one
core or on ``--device cuda``. It fails if the results differ.
Finding the noun phrases and counting the vocabulary, once per training, is timed on a part of
CUHK-PEDES' number of captions and extrapolated. ``--quick`` takes few captions.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable

import torch
from rows import report
from torch import Tensor

from crosswalk.data.text.noun_phrases import NounPhrases
from crosswalk.data.text.word_tokenizer import WordTokenizer
from crosswalk.labels.text_iou import text_iou
from crosswalk.synthetic.captions import describe
from crosswalk.synthetic.looks import LOOKS
from crosswalk.synthetic.people import person_of
from crosswalk.synthetic.randomness import keyed_generator
from crosswalk.synthetic.shots import shots_of

CAPTIONS = 68_126
"""Of the training set of CUHK-PEDES."""

AIM = 2e-3
"""Most seconds for Text-IoU of a batch, on one core."""


def synthetic_captions(count: int) -> list[str]:
    """Return captions of people with three images and two captions of each."""
    look = LOOKS["city"]
    captions: list[str] = []
    person_id = 0
    while len(captions) < count:
        person_id += 1
        person = person_of(look, seed=0, person_id=person_id)
        for shot in shots_of(look, person, seed=0, person_id=person_id, count=3):
            words = keyed_generator(0, look.name, "captions", shot.key)
            captions += [describe(person, shot, words).text for _ in range(2)]
    return captions[:count]


def looped_iou(phrases: list[set[int]]) -> list[list[float]]:
    """Return Text-IoU by a loop over pairs of sets."""
    iou = []
    for i, first in enumerate(phrases):
        row = []
        for j, second in enumerate(phrases):
            union = len(first | second)
            row.append(1.0 if i == j else len(first & second) / union if union else 0.0)
        iou.append(row)
    return iou


def fastest(function: Callable[[], object], repeats: int) -> float:
    """Return the fastest duration in seconds: of the one core's work, or until a GPU is done."""
    durations = []
    for _ in range(repeats):
        start, start_of_work = time.perf_counter(), time.process_time()
        result = function()
        if isinstance(result, Tensor) and result.is_cuda:
            torch.cuda.synchronize()
            durations.append(time.perf_counter() - start)
        else:
            durations.append(time.process_time() - start_of_work)
    return min(durations)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time noun phrases and Text-IoU.")
    parser.add_argument("--batch-size", type=int, default=128, help="captions of a step")
    parser.add_argument("--captions", type=int, default=6_000, help="captions whose words are read")
    parser.add_argument("--repeats", type=int, default=30, help="the fastest of so many counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="few captions")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    captions = synthetic_captions(600 if options.quick else options.captions)
    failed = False

    print(f"{'once per training':<34}{'captions/s':>12}{'68,126 captions':>18}")
    tokenizer = WordTokenizer(100)
    readers: dict[str, Callable[[], object]] = {
        "vocabulary and tokens": lambda: (
            tokenizer.learn({"train": captions}),
            tokenizer(captions),
        )
    }
    for backend in ("rules", "textblob"):
        if backend == "textblob" and importlib.util.find_spec("textblob") is None:
            print("textblob is not installed: its row is left out")
            continue
        phrases = NounPhrases(backend=backend)  # type: ignore[arg-type]
        phrases.units(captions[:1])  # reads word lists
        readers[f"noun phrases, {backend}"] = lambda phrases=phrases: phrases.learn(captions)  # type: ignore[misc]
    for name, read in readers.items():
        rate = len(captions) / fastest(read, 1)
        print(f"{name:<34}{rate:>12,.0f}{CAPTIONS / rate:>16.1f} s")
        report(
            f"{name} of {CAPTIONS:,} captions",
            CAPTIONS / rate,
            unit="CPU s",
            note=f"{len(captions):,} captions, extrapolated",
        )

    pick = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0))
    batch = [captions[place] for place in pick[: options.batch_size].tolist()]
    for unit in ("word", "pair"):
        units = NounPhrases(unit)  # type: ignore[arg-type]
        units.learn(captions)
        numbers = units(batch).to(options.device)
        sets = [{number for number in row if number} for row in numbers.tolist()]
        slow = fastest(lambda sets=sets: looped_iou(sets), options.repeats)  # type: ignore[misc]
        ours = fastest(lambda numbers=numbers: text_iou(numbers), options.repeats)  # type: ignore[misc]
        expected = torch.tensor(looped_iou(sets))
        print(
            f"\nText-IoU by {unit}: {len(batch)} captions, {len(set().union(*sets))} units of "
            f"{units.num_units}, at most {numbers.shape[1]} each, {options.device}\n"
            f"  loop over sets {1e3 * slow:8.2f} ms\n"
            f"  ours           {1e3 * ours:8.2f} ms   {slow / ours:.1f}x"
        )
        if not torch.allclose(text_iou(numbers).cpu(), expected, rtol=1e-6, atol=0):
            print("the results differ")
            failed = True
        title = f"Text-IoU of {len(batch)} captions by {unit}"
        report(title, 1e3 * ours, 1e3 * slow, against="loops over sets", unit="CPU ms")
        report(f"{title}, beside its bound", 1e3 * ours, unit="CPU ms", at_most=1e3 * AIM)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
