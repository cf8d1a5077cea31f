"""The division into right and wrong pairs: losses, mixtures, what was kept, and whether rightly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from crosswalk.diagnostics.base import Diagnostic, record_file
from crosswalk.diagnostics.figures import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    Curves,
    captioned,
    curve_figures,
    label,
    legend_below,
    panels,
    side_by_side,
)
from crosswalk.files import read_arrays, write_arrays
from crosswalk.labels.loss_mixture import fitted_mixture
from crosswalk.pages import Section, figure_tag, table_tag
from crosswalk.run.run_folder import RunFolder

if TYPE_CHECKING:
    import lightning.pytorch as L

MOST_BINS = 60
SETTINGS = ("max_iter", "tol", "reg_covar")
"""Of the mixture that a division fits."""
QUALITY = Curves(
    "Precision and recall of the division",
    "share",
    {
        "train/clean_precision": "kept, precision",
        "train/clean_recall": "kept, recall",
        "train/noisy_precision": "rejected, precision",
        "train/noisy_recall": "rejected, recall",
    },
    "Kept pairs: how many of them are right, and how many of the right ones are kept. Rejected "
    "pairs: how many of them are injected noise, and how much of the noise is rejected. The noise "
    "is only looked at here, never trained on. All four should rise in the first epochs.",
)


class DivisionRecord(NamedTuple):
    """What is known of one division of ``N`` training pairs; arrays by sample index.

    Attributes:
        epoch: 0-based epoch that was trained on it.
        views: Names of the views.
        losses: ``[views, N]`` loss of every pair, augmented as the sweep saw it.
        probability: ``[views, N]`` each view's probability that the pair is right, in [0, 1].
        prediction: ``[views, N]`` bool, true where a view calls the pair right.
        votes: ``[N]`` how many views do.
        clean: ``[N]`` bool, true where the pair was kept.
        true_pair: ``[N]`` bool, False where noise was injected; None where nobody knows.
    """

    epoch: int
    views: tuple[str, ...]
    losses: NDArray[np.float32]
    probability: NDArray[np.float64]
    prediction: NDArray[np.bool_]
    votes: NDArray[np.int64]
    clean: NDArray[np.bool_]
    true_pair: NDArray[np.bool_] | None


def division_file(folder: Path, which: str) -> Path:
    """Return the file of the "first" or the "last" division of the run in ``folder``."""
    return record_file(folder, f"division-{which}")


def write_division(path: Path, record: DivisionRecord) -> None:
    """Write a record whole or not at all."""
    known = {name: value for name, value in record._asdict().items() if value is not None}
    write_arrays(path, {name: np.asarray(value) for name, value in known.items()})


def read_division(path: Path) -> DivisionRecord:
    """Return what `write_division` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "division-last.npz"
        >>> one = np.ones((1, 1))
        >>> record = DivisionRecord(3, ("global",), one, one, one > 0, one[0], one[0] > 0, None)
        >>> write_division(path, record)
        >>> read_division(path)[:2]
        (3, ('global',))
    """
    stored = read_arrays(path)
    needed = [name for name in DivisionRecord._fields if name != "true_pair"]
    arrays: dict[str, Any] = {name: stored[name] for name in needed}
    arrays["true_pair"] = stored.get("true_pair")
    arrays["epoch"], arrays["views"] = int(arrays["epoch"]), tuple(arrays["views"].tolist())
    return DivisionRecord(**arrays)


def division_quality(clean: NDArray[np.bool_], true_pair: NDArray[np.bool_]) -> dict[str, float]:
    """Return precision and recall of the pairs kept and of the pairs rejected.

    Args:
        clean: ``[N]`` bool, true where a pair was kept.
        true_pair: ``[N]`` bool, False where noise was injected.

    Returns:
        ``clean_precision``: share of the kept pairs that are right; ``clean_recall``: share of
        the right pairs that were kept; ``noisy_precision`` and ``noisy_recall`` likewise for the
        pairs rejected. Shares of nothing are left out.

    Example:
        >>> division_quality(np.array([1, 1, 0, 0]) > 0, np.array([1, 0, 0, 1]) > 0)
        {'clean_precision': 0.5, 'clean_recall': 0.5, 'noisy_precision': 0.5, 'noisy_recall': 0.5}
    """
    shares = {
        "clean_precision": (clean & true_pair, clean),
        "clean_recall": (clean & true_pair, true_pair),
        "noisy_precision": (~clean & ~true_pair, ~clean),
        "noisy_recall": (~clean & ~true_pair, ~true_pair),
    }
    return {
        name: float(np.float32(part.sum()) / np.float32(whole.sum()))  # as torch divides counts
        for name, (part, whole) in shares.items()
        if whole.any()
    }


class Division(Diagnostic):
    """Keeps the first and the last division of a method, and logs how well they find known noise.

    The method has ``clean`` and, after a sweep, ``latest_losses`` and ``latest_division``; the
    data module has ``true_pairs``, which are only looked at, never trained on. The first process
    writes ``diagnostics/division-first.npz`` and ``division-last.npz`` right after the sweep and
    before the first checkpoint of its epoch: a run that goes on within the epoch finds them there.
    """

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Log the quality of this epoch's division; write it if it is new."""
        truth = None if self.data.true_pairs is None else self.data.true_pairs.numpy(force=True)
        if truth is not None:
            quality = division_quality(pl_module.clean.numpy(force=True) > 0, truth)
            pl_module.log_dict({f"train/{name}": value for name, value in quality.items()})
        epoch, losses = trainer.current_epoch, pl_module.latest_losses
        if not trainer.is_global_zero or losses is None or not pl_module.wants_sweep(epoch):
            return
        division = pl_module.latest_division
        record = DivisionRecord(
            epoch=epoch,
            views=tuple(losses),
            losses=np.stack([each.numpy(force=True) for each in losses.values()]),
            probability=division.probability.numpy(force=True),
            prediction=division.prediction.numpy(force=True),
            votes=division.votes.numpy(force=True),
            clean=division.clean.numpy(force=True) > 0,
            true_pair=truth,
        )
        first = division_file(self.folder, "first")
        # a file of a later epoch is of a run before a kill
        if not first.exists() or read_division(first).epoch >= epoch:
            write_division(first, record)
        write_division(division_file(self.folder, "last"), record)

    def shows(self, metric: str) -> bool:
        """Return whether it is the share of pairs kept, or how right the division is."""
        return metric == "train/clean_fraction" or metric in QUALITY.lines

    def section(self, folder: RunFolder) -> Section | None:
        """Return losses and mixtures of both divisions, and what every epoch kept, how rightly."""
        files = [division_file(folder.path, "first"), division_file(folder.path, "last")]
        records = [read_division(path) for path in files if path.exists()]
        if len(records) == 2 and records[0].epoch == records[1].epoch:
            records = records[:1]
        num_pairs = len(records[0].clean) if records else None
        history = _with_number_kept(folder.metrics(), num_pairs)
        figures = curve_figures(history, [_kept(num_pairs), QUALITY])
        if not records and not figures:
            return None
        parts = []
        if records:
            parts = [_table(records), _histograms(records, folder.config().get("method", {}))]
            if records[0].true_pair is not None:
                figures.insert(0, _kept_by_truth(records))
        parts.append(side_by_side(figures))
        return Section("division", "Division of the training pairs", Markup("\n").join(parts))


class Heap(NamedTuple):
    """One Gaussian of a mixture, in units of the loss; ``weight`` in [0, 1]."""

    weight: float
    mean: float
    deviation: float


def heaps(
    record: DivisionRecord, view: int, *, division: Mapping[str, Any], seed: int
) -> tuple[Heap, Heap] | None:
    """Return the heap of right and that of wrong pairs as the run fitted them.

    Args:
        record: The division.
        view: Number of the view.
        division: The run's ``method.division``.
        seed: The run's ``method.seed``.

    Returns:
        None where the run did not fit this mixture: all losses equal, another division, or other
        probabilities than those it kept.

    Example:
        >>> losses = np.array([[0.0, 0.2, 0.1, 4.0, 3.8]], dtype=np.float32)
        >>> judged = losses < 2
        >>> record = DivisionRecord(
        ...     0, ("global",), losses, judged * 1.0, judged, judged[0] * 1, judged[0], None
        ... )
        >>> settings = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
        >>> right, wrong = heaps(record, 0, division=settings, seed=1)
        >>> round(right.mean, 3), round(wrong.mean, 3), round(wrong.weight, 3)
        (0.1, 3.9, 0.4)
    """
    losses = record.losses[view]
    if not set(SETTINGS) <= division.keys() or np.ptp(losses) == 0:
        return None
    normalised = ((losses - losses.min()) / np.ptp(losses)).astype(np.float64)
    settings = {name: division[name] for name in SETTINGS}
    mixture = fitted_mixture(normalised, **settings, seed=seed + record.epoch)
    right = int(np.argmin(mixture.means_))
    posterior = mixture.predict_proba(normalised[:, None])[:, right]
    if not np.allclose(posterior, record.probability[view], atol=1e-3):
        return None
    low, extent = float(losses.min()), float(np.ptp(losses))
    first, second = (
        Heap(
            weight=float(mixture.weights_[number]),
            mean=low + extent * float(mixture.means_[number, 0]),
            deviation=extent * float(np.sqrt(mixture.covariances_[number, 0, 0])),
        )
        for number in (right, 1 - right)
    )
    return first, second


def boundaries(losses: NDArray[np.floating[Any]], prediction: NDArray[np.bool_]) -> list[float]:
    """Return the losses at which the judgement changes, each midway between two pairs.

    Example:
        >>> boundaries(np.array([3.0, 1.0, 2.0]), np.array([False, True, True]))
        [2.5]
    """
    order = np.argsort(losses, kind="stable")
    change = np.flatnonzero(np.diff(prediction[order].astype(np.int8)))
    sorted_losses = losses[order].astype(np.float64)
    return [float(each) for each in (sorted_losses[change] + sorted_losses[change + 1]) / 2]


def _kept(num_pairs: int | None) -> Curves:
    unit = "share" if num_pairs is None else "pairs"
    of_all = "" if num_pairs is None else f" of {num_pairs:,}"
    return Curves(
        "Pairs kept",
        unit,
        {"train/clean_fraction" if num_pairs is None else "pairs kept": "kept"},
        f"Pairs{of_all} that an epoch is trained on. It should settle near the number of right "
        "pairs; near all or near none, the losses do not fall into two heaps.",
    )


def _with_number_kept(
    history: Sequence[Mapping[str, Any]], num_pairs: int | None
) -> Sequence[Mapping[str, Any]]:
    if num_pairs is None:
        return history
    return [
        {**line, "pairs kept": round(float(line["train/clean_fraction"]) * num_pairs)}
        if "train/clean_fraction" in line
        else line
        for line in history
    ]


def _table(records: Sequence[DivisionRecord]) -> Markup:
    names = ["clean_precision", "clean_recall", "noisy_precision", "noisy_recall"]
    header = [
        *("epoch", "pairs", "kept", "all views: right", "views differ", "all views: wrong"),
        *("kept: precision", "recall", "rejected: precision", "recall"),
    ]
    rows = []
    for record in records:
        row: list[object] = [
            *(record.epoch + 1, len(record.clean), int(record.clean.sum())),
            int((record.votes == len(record.views)).sum()),
            int(((record.votes > 0) & (record.votes < len(record.views))).sum()),
            int((record.votes == 0).sum()),
        ]
        if record.true_pair is not None:
            quality = division_quality(record.clean, record.true_pair)
            row += [f"{100 * quality[name]:.1f} %" if name in quality else "-" for name in names]
        rows.append(row)
    return table_tag(header[: len(rows[0])], rows)


def _histograms(records: Sequence[DivisionRecord], method: Mapping[str, Any]) -> Markup:
    """Return the losses of each view (rows) at each division (columns)."""
    from scipy.stats import norm

    views = records[0].views
    figures = []
    division, seed = method.get("division") or {}, int(method.get("seed", 0))
    missing = False
    for row, view in enumerate(views):
        for record in records:
            figure, ((panel,),) = panels(1, 1)
            losses = record.losses[row].astype(np.float64)
            edges = np.histogram_bin_edges(losses, min(MOST_BINS, 2 * math.isqrt(len(losses)) + 1))
            total = np.histogram(losses, edges)[0]
            if record.true_pair is None:
                panel.stairs(total, edges, fill=True, color=BLUE, label="pairs")
            else:
                right = np.histogram(losses[record.true_pair], edges)[0]
                panel.stairs(right, edges, fill=True, color=BLUE, label="right")
                panel.stairs(total, edges, baseline=right, fill=True, color=ORANGE, label="noise")
            fitted = heaps(record, row, division=division, seed=seed)
            missing |= fitted is None
            grid = np.linspace(edges[0], edges[-1], 200)
            scale = len(losses) * (edges[1] - edges[0])
            for heap, colour, name in zip(
                fitted or (), (PURPLE, GREY), ("fit: right", "fit: wrong"), strict=False
            ):
                density = heap.weight * norm.pdf(grid, heap.mean, heap.deviation)
                panel.plot(grid, scale * density, color=colour, lw=1.3, label=name)
            for place in boundaries(losses, record.prediction[row]):
                panel.axvline(place, color="black", linestyle="--", linewidth=1)
            title = f"{view}, epoch {record.epoch + 1}"
            label(panel, title=title, across="loss", up="pairs")
            legend_below(figure, panel)
            figures.append(figure_tag(figure, alt=f"Losses of all training pairs: {title}"))
    look_for = (
        "Losses of all training pairs at the first and the last division. The two Gaussians should "
        "stand apart, each over its own heap; a view calls a pair right on the low side of the "
        "dashed line, or between two of them, since a broad Gaussian wins on both sides of a "
        "narrow one. Where the heaps overlap, right and wrong pairs are mixed up."
    )
    if missing:
        look_for += (
            " Where no Gaussians are drawn, the run's fit could not be repeated from its losses."
        )
    # two columns at most: beside a view's first division stands its last one
    return Markup('<div class="figures pairs">{}</div>\n<p class="quiet">{}</p>').format(
        Markup("\n").join(figures), look_for
    )


def _kept_by_truth(records: Sequence[DivisionRecord]) -> Markup:
    figure, ((axes,),) = panels(1, 1)
    names, counts = [], []
    for record in records:
        assert record.true_pair is not None
        for name, chosen in (("kept", record.clean), ("rejected", ~record.clean)):
            names.append(f"{name}\nepoch {record.epoch + 1}")
            right = int((chosen & record.true_pair).sum())
            counts.append((right, int(chosen.sum()) - right))
    right, wrong = np.array(counts).T
    axes.bar(names, right, color=BLUE, label="right", width=0.7)
    axes.bar(names, wrong, bottom=right, color=ORANGE, label="noise", width=0.7)
    label(axes, title="Kept and rejected pairs", across="", up="pairs")
    legend_below(figure, axes)
    look_for = (
        "Each pair by what the division did with it and what it is. Noise among the kept pairs is "
        "trained on; right pairs among the rejected ones are lost."
    )
    return captioned(figure, alt="Kept and rejected pairs by truth", look_for=look_for)
