"""What noise costs RDE and InfoNCE, from the runs of noise_synthetic.yaml, paired over seeds.

Run: python experiments/rde/noise_synthetic.py > experiments/rde/results/noise_synthetic.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from crosswalk.lab.tables.kept import read_results
from crosswalk.lab.tables.manifest import read_manifest

TABLE = Path(__file__).parent / "noise_synthetic.yaml"
NOISE = (0, 20, 50, 80)
MEASURES = {"rank1": "R@1", "map": "mAP"}
DIVISION = ("clean_fraction", "clean_precision", "clean_recall", "noisy_precision", "noisy_recall")


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation of percentages."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def main() -> None:
    """Print the tables in Markdown."""
    manifest = read_manifest(TABLE)
    runs = {(run["row"], run["seed"]): run for run in read_results(manifest.committed_path).runs}

    def values(method: str, noise: int, checkpoint: str, measure: str) -> list[float]:
        rows = [runs[f"{method}, {noise} % noise", seed] for seed in manifest.seeds]
        return [100 * row["results"][checkpoint][f"test/{measure}"] for row in rows]

    print("# What noise costs RDE and InfoNCE on synthetic pairs")
    for checkpoint, what in (("best", "best epoch on val"), ("last", "last epoch")):
        print(f"\nTest, text to image, {what}; mean ± standard deviation over seeds, percent:\n")
        print("| noise | " + " | ".join(f"RDE {m} | InfoNCE {m}" for m in MEASURES.values()) + " |")
        print("|---|" + "---|" * 2 * len(MEASURES))
        for noise in NOISE:
            cells = [
                spread(values(method, noise, checkpoint, measure))
                for measure in MEASURES
                for method in ("RDE", "InfoNCE")
            ]
            print(f"| {noise} % | " + " | ".join(cells) + " |")
        print(f"\nWhat noise costs against 0 %, {what}; difference paired over seeds, points:\n")
        print("| noise | measure | RDE | InfoNCE | InfoNCE - RDE |")
        print("|---|---|---|---|---|")
        for noise in NOISE[1:]:
            for measure, name in MEASURES.items():
                cost = {
                    method: [
                        clean - noisy
                        for clean, noisy in zip(
                            values(method, 0, checkpoint, measure),
                            values(method, noise, checkpoint, measure),
                            strict=True,
                        )
                    ]
                    for method in ("RDE", "InfoNCE")
                }
                gain = [b - a for a, b in zip(cost["RDE"], cost["InfoNCE"], strict=True)]
                print(
                    f"| {noise} % | {name} | {spread(cost['RDE'])} | {spread(cost['InfoNCE'])} "
                    f"| {spread(gain)} |"
                )
    print("\nThe division of RDE in the last epoch, percent of pairs:\n")
    print("| noise | kept | kept pairs that are right | right pairs that are kept | dropped pairs "
          "that are wrong | wrong pairs that are dropped |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for noise in NOISE:
        last = [runs[f"RDE, {noise} % noise", seed]["last_epoch"] for seed in manifest.seeds]
        cells = []
        for name in DIVISION:
            shares = [100 * run[f"train/{name}"] for run in last if f"train/{name}" in run]
            cells.append(spread(shares) if shares else "-")
        print(f"| {noise} % | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
