"""Times what MMCL does beside the network: positive labels, loss, memory update.

``python benchmarks/label_prediction.py`` takes a batch of 128 against a memory of 12,936 rows of
length 2048 (Market-1501), in clusters like those of a half-trained network, and prints each step
written as loops over samples, as the published code does it, and as the package does it. It fails
if the results differ. The loops over rankings take some samples and are extrapolated to the batch.
``--quick`` takes a small memory, to see that everything runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from rows import report
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.labels.positive_labels import cycle_consistent_rows
from crosswalk.losses.multilabel import mmcl_loss
from crosswalk.memory.memory_bank import MemoryBank

THRESHOLD, DELTA, RATIO, MOMENTUM = 0.6, 5.0, 0.01, 0.25
AIM = 4.0
"""Least ratio of labels and loss together."""


def clustered_rows(num_rows: int, size: int, generator: torch.Generator) -> Tensor:
    """Return unit rows: 17 images of a person, by 6 cameras, which resemble each other less."""
    person = torch.arange(num_rows) // 17
    camera = torch.randint(0, 6, (num_rows,), generator=generator)
    _, view = (6 * person + camera).unique(return_inverse=True)

    def noise(count: int) -> Tensor:
        return normalize(torch.randn(count, size, generator=generator))

    groups = (int(person.max()) + 1, int(view.max()) + 1)
    rows = noise(groups[0])[person] + 0.5 * noise(groups[1])[view]
    # images differ in how clear they are, which is what makes neighbourhoods one-sided
    blur = 0.2 + 0.8 * torch.rand(num_rows, 1, generator=generator)
    return normalize(rows + blur * noise(num_rows))


def looped_labels(rows: Tensor, index: Tensor) -> Tensor:
    """Return the labels by a ranking of all rows per sample, and another one per candidate."""
    labels = torch.zeros(len(index), len(rows), dtype=torch.bool, device=rows.device)
    for sample, row in enumerate(index.tolist()):
        similarity, ranked = (rows @ rows[row]).sort(descending=True, stable=True)
        num_similar = int((similarity > THRESHOLD).sum())
        num_candidates = max(num_similar, 10)
        walked = num_candidates
        for place, candidate in enumerate(ranked[:num_candidates].tolist()):
            own = (rows @ rows[candidate]).argsort(descending=True, stable=True)
            if int((own == ranked[0]).nonzero()) > num_candidates:
                walked = place
                break
        labels[sample, ranked[: min(max(walked, 2), num_similar)]] = True
        labels[sample, row] = True
    return labels


def looped_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss, with the negatives of each sample sorted out and ranked by itself."""
    losses = []
    for scores, positive in zip(logits, labels, strict=True):
        right = scores[positive]
        wrong = scores[~positive]
        hardest = wrong.sort(descending=True).indices[: int(RATIO * len(wrong))]
        losses.append(DELTA * (1 - right).square().mean() + (1 + wrong[hardest]).square().mean())
    return torch.stack(losses).mean()


def our_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return mmcl_loss(logits, labels, delta=DELTA, ratio=RATIO).mean()


def looped_update(rows: Tensor, embedding: Tensor, index: Tensor) -> Tensor:
    """Return the memory after one row after the other was moved."""
    for vector, row in zip(embedding, index, strict=True):
        rows[row] = MOMENTUM * rows[row] + (1 - MOMENTUM) * vector
        rows[row] /= rows[row].norm()
    return rows


def fastest(function: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Return the fastest duration in seconds, and the last result."""
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        if result.is_cuda:
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return min(durations), result


def gradient_of(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor
) -> Callable[[], Tensor]:
    def forward_and_backward() -> Tensor:
        leaf = logits.detach().requires_grad_()
        loss(leaf, labels).backward()
        assert leaf.grad is not None
        return leaf.grad

    return forward_and_backward


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time MMCL's labels, loss and memory update.")
    parser.add_argument("--rows", type=int, default=12_936, help="training images")
    parser.add_argument("--batch-size", type=int, default=128, help="images per step")
    parser.add_argument("--loop-samples", type=int, default=16, help="samples of the label loops")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="a small memory")
    options = parser.parse_args(arguments)
    num_rows, size = (2_000, 64) if options.quick else (options.rows, 2048)
    looped = min(options.loop_samples, options.batch_size)

    generator = torch.Generator().manual_seed(0)
    rows = clustered_rows(num_rows, size, generator)
    index = torch.randperm(num_rows, generator=generator)[: options.batch_size]
    noise = normalize(torch.randn(len(index), size, generator=generator))
    embedding = normalize(rows[index] + 0.5 * noise).to(options.device)
    rows, index = rows.to(options.device), index.to(options.device)
    scores = embedding @ rows.T

    seconds: dict[str, tuple[float, float]] = {}
    wrong = []

    share, expected = fastest(lambda: looped_labels(rows, index[:looped]), 2)
    ours, labels = fastest(
        lambda: cycle_consistent_rows(rows, index, threshold=THRESHOLD), options.repeats
    )
    seconds["positive labels"] = (share * len(index) / looped, ours)
    if not torch.equal(labels[:looped], expected):
        wrong.append(f"{int((labels[:looped] != expected).sum())} labels differ")

    plain, gradient = fastest(gradient_of(looped_loss, scores, labels), options.repeats)
    ours, our_gradient = fastest(gradient_of(our_loss, scores, labels), options.repeats)
    seconds["loss and gradient"] = (plain, ours)
    if not torch.allclose(our_gradient, gradient, rtol=1e-4, atol=1e-7):
        wrong.append(f"gradients differ by up to {(our_gradient - gradient).abs().max():.2g}")

    bank = MemoryBank(num_rows, size).to(options.device)
    bank.rows.copy_(rows)
    copy = rows.clone()
    plain, _ = fastest(lambda: looped_update(copy, embedding, index), options.repeats)
    ours, _ = fastest(
        lambda: bank.update(embedding, index, momentum=MOMENTUM) or bank.rows, options.repeats
    )
    seconds["memory update"] = (plain, ours)
    if not torch.allclose(bank.rows, copy, rtol=1e-4, atol=1e-6):
        wrong.append(f"memories differ by up to {(bank.rows - copy).abs().max():.2g}")

    both = [sum(column) for column in zip(*list(seconds.values())[:2], strict=True)]
    seconds["labels and loss"] = (both[0], both[1])
    similar = (rows[index] @ rows.T > THRESHOLD).sum(dim=1).float()
    print(
        f"batch of {len(index)}, {num_rows} rows of length {size}, {options.device}, "
        f"{torch.get_num_threads()} threads; {similar.mean():.1f} rows above the threshold and "
        f"{labels.sum(dim=1).float().mean():.1f} labels per sample; label loops over {looped} "
        "samples, extrapolated"
    )
    print(f"{'step':<20}{'loops':>12}{'ours':>12}{'ratio':>8}")
    for name, (slow, fast) in seconds.items():
        print(f"{name:<20}{1e3 * slow:>9.1f} ms{1e3 * fast:>9.1f} ms{slow / fast:>8.1f}")
        report(
            f"MMCL's {name}, batch of {len(index)}, {num_rows} rows",
            fast,
            slow,
            against="loops",
            at_least=AIM if name == "labels and loss" else None,
            note=f"loops of {looped} samples, extrapolated" if "labels" in name else "",
        )
    print("\n".join(wrong) or "all results agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
