"""``crosswalk audit``: training pairs that a run judged wrong, as a list and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from crosswalk.config.places import refuse_inside_data
from crosswalk.config.search import default_method
from crosswalk.diagnostics.division import DivisionRecord, division_file, read_division
from crosswalk.files import csv_text, write_text
from crosswalk.lab.report.evaluation_data import evaluation_data
from crosswalk.pages import Section, lost, picture_tag, render, render_page
from crosswalk.run.ranking_lists import people_of
from crosswalk.run.run_folder import RunFolder

MOST_SHOWN = 200
"""The page shows so many suspects; the table lists all."""


SEPARATE = 2.0
"""Ashman's D from which on two Gaussians are apart."""

FEW = 500
"""Training pairs below which two Gaussians fitted to the losses of right pairs alone are often
`SEPARATE`."""


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """An image with the caption it was trained with; the person as the data call it."""

    image: Path
    caption: str
    person_id: int | str


@dataclass(frozen=True, slots=True)
class Suspect:
    """A training pair that was judged wrong.

    Attributes:
        sample_index: Number of the pair, in the order of the annotation.
        pair: The pair.
        probability: That it is right, mean over the views, in [0, 1].
        probabilities: The same by view.
        losses: Loss by view, augmented as the division saw the pair.
        kept: Whether it was trained on all the same: a coin decides where views differ.
        true_pair: False where noise was injected; None where nobody knows.
    """

    sample_index: int
    pair: TrainingPair
    probability: float
    probabilities: Mapping[str, np.float64]
    losses: Mapping[str, np.float32]
    kept: bool
    true_pair: bool | None


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a list of suspects finds injected noise.

    Attributes:
        found: Suspects that are injected noise.
        listed: All suspects.
        injected: All pairs that are injected noise.
    """

    found: int
    listed: int
    injected: int

    def in_words(self) -> str:
        """Return a sentence.

        Example:
            >>> Quality(found=3, listed=4, injected=6).in_words()
            '3 of them are injected noise: precision 75.0 %, recall 50.0 % of 6.'
            >>> Quality(found=0, listed=0, injected=0).in_words()
            '0 of them are injected noise.'
        """
        shares = []
        if self.listed:
            shares.append(f"precision {100 * self.found / self.listed:.1f} %")
        if self.injected:
            shares.append(f"recall {100 * self.found / self.injected:.1f} % of {self.injected:,}")
        verb = "is" if self.found == 1 else "are"
        sentence = f"{self.found:,} of them {verb} injected noise"
        return f"{sentence}: {', '.join(shares)}." if shares else f"{sentence}."


def run_audit(
    run_path: Path,
    out: Path,
    *,
    threshold: float | None = None,
    limit: int | None = None,
    which: str = "last",
) -> int:
    """Write the list of suspicious training pairs and the page beside it, and say how many.

    Args:
        run_path: Folder of a run that divided its pairs.
        out: The ``.csv`` to write. The page is the ``.html`` beside it.
        threshold: List pairs whose mean probability of being right is at most this; None: what
            the run called right had to exceed.
        limit: List at most so many; None: all.
        which: The "first" or the "last" division of the run.

    Returns:
        The exit status.
    """
    folder = RunFolder(run_path)
    folder.check_is_run("audit")
    record = division_of(folder, which)
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out={out} does not end in .csv. The page goes beside it, as .html.")
    refuse_inside_data(folder.runnable_config(()), out, "--out")
    data = evaluation_data(folder)
    check_same_pairs(record, data, folder)
    at_most = threshold_of(folder) if threshold is None else threshold
    listed = suspects(record, training_pairs(data), threshold=at_most, limit=limit)
    summary = _summary(listed, record, at_most=at_most)
    replaced = ", in the place of an earlier one" if out.exists() else ""
    write_text(out, to_csv(listed, record.views))
    page = out.with_suffix(".html")
    write_text(page, audit_page(folder.name, listed, summary))
    print(f"{summary}\nTable: {out}{replaced}\nPage:  {page}")
    return 0


def audit_page(name: str, listed: Sequence[Suspect], summary: str) -> str:
    """Return the HTML of a page with the first `MOST_SHOWN` suspects.

    Args:
        name: Of the run.
        listed: The suspects.
        summary: Sentences that stand above them.
    """
    shown = listed[:MOST_SHOWN]
    body = render(
        "suspects.html.j2",
        summary=summary,
        suspects=[(_picture(each), each) for each in shown],
        not_shown=len(listed) - len(shown),
    )
    return render_page(f"Suspicious pairs of {name}", [Section("suspects", "Suspects", body)])


def _summary(listed: Sequence[Suspect], record: DivisionRecord, *, at_most: float) -> str:
    sentences = [
        f"{len(listed):,} of {len(record.clean):,} training pairs are listed: right with a "
        f"probability of at most {at_most:g}, by the division of epoch {record.epoch + 1}."
    ]
    quality = quality_of(listed, record)
    if quality is not None:
        sentences.append(quality.in_words())
    sentences.append(apart_in_words(record))
    return " ".join(sentences)


def distances(record: DivisionRecord) -> dict[str, float]:
    """Return by view how far the losses of pairs called right lie from those of the others.

    Ashman's D, the distance of two means in units of the common deviation: below 2 two Gaussians
    overlap. Of the losses weighted by the probabilities that the mixture gave them.
    Source: Ashman et al., Detecting bimodality in astronomical datasets, 1994.

    Example:
        >>> losses = np.array([[0.0, 2.0, 8.0, 10.0]], np.float32)
        >>> right = np.array([[1.0, 1.0, 0.0, 0.0]])
        >>> clean = right[0] > 0
        >>> record = DivisionRecord(
        ...     0, ("global",), losses, right, right > 0, clean + 0, clean, None
        ... )
        >>> distances(record)
        {'global': 8.0}
    """
    found = {}
    for view, losses, right in zip(record.views, record.losses, record.probability, strict=True):
        values = losses.astype(np.float64)
        moments = []
        for weight in (right, 1 - right):
            total = weight.sum()
            mean = (weight * values).sum() / total if total > 0 else np.nan
            moments.append(
                (mean, (weight * (values - mean) ** 2).sum() / total if total > 0 else 0)
            )
        (low, narrow), (high, wide) = moments
        spread = np.sqrt((narrow + wide) / 2)
        apart = abs(high - low) / spread if spread > 0 else np.inf
        found[view] = 0.0 if np.isnan(low) or np.isnan(high) else float(apart)
    return found


def apart_in_words(record: DivisionRecord) -> str:
    """Return how far the two Gaussians of a division are apart, and what that means."""
    apart = distances(record)
    listed = ", ".join(f"{view} {value:.1f}" for view, value in apart.items())
    if len(record.clean) < FEW:
        return (
            f"Of so few losses as {len(record.clean)} two Gaussians lie apart by chance "
            f"(Ashman's D: {listed}): being listed is no evidence that a pair is wrong."
        )
    if min(apart.values()) >= SEPARATE:
        return f"The losses of right and wrong pairs lie apart (Ashman's D: {listed})."
    return (
        f"The two Gaussians of the losses overlap (Ashman's D: {listed}; they are apart from "
        f"{SEPARATE:g} on): being listed is no evidence that a pair is wrong, and clean data give "
        "such a list too."
    )


def _picture(suspect: Suspect) -> Markup:
    frame = {None: "", True: "right", False: "wrong"}[suspect.true_pair]
    try:
        pair = suspect.pair
        title = f"{pair.image}, person {pair.person_id}"
        return picture_tag(pair.image, alt=pair.image.name, frame=frame, title=title)
    except (OSError, ValueError) as error:
        name = suspect.pair.image.name
        return Markup('<p class="quiet">{} {}</p>').format(name, lost(error))


def division_of(run_folder: RunFolder, which: str) -> DivisionRecord:
    """Return the "first" or the "last" division of a run.

    Raises:
        FileNotFoundError: If the folder holds no run, or the run has made no division yet.
        ValueError: If its method judges no pairs.
    """
    config = run_folder.config()
    name = config.get("choices", {}).get("method", "another method")
    if "division" not in config["method"]:
        raise ValueError(
            f"{run_folder.path} is a run of {name}, which judges no training pairs. Audit a run of "
            f"a method with division=: crosswalk train method={default_method()}."
        )
    if config["method"]["division"] is None:
        raise ValueError(
            f"{run_folder.path} trained on all pairs (division=off), so it judged none wrong. "
            "Audit a run with division=published."
        )
    if (config.get("trainer") or {}).get("max_epochs") == 0:
        raise ValueError(
            f"{run_folder.path} was trained for no epoch (trainer.max_epochs=0), so it judged no "
            "pairs. Audit a run that was trained."
        )
    path = division_file(run_folder.path, which)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: the run has not divided its pairs yet (method.warmup_epochs="
            f"{config['method'].get('warmup_epochs', 0)}), or it was made before divisions were "
            "kept. Continue it with resume=true, or run it again."
        )
    return read_division(path)


def threshold_of(run_folder: RunFolder) -> float:
    """Return the probability that a pair had to exceed to be called right."""
    return float(run_folder.config()["method"]["division"].get("threshold", 0.5))


def training_pairs(data: Any) -> list[TrainingPair]:  # noqa: ANN401
    """Return every training pair as it was trained on, by sample index.

    Where noise was injected, the caption is the exchanged one.

    Args:
        data: What `evaluation_data` returns of a run on pairs.
    """
    readable = set(data.evaluation_images("train"))  # data.allow_missing=true leaves some out
    records = [record for record in data.splits.train if record.image_path in readable]
    captions = data.evaluation_captions("train")
    images = [record for record in records for _ in record.captions]
    people = people_of(data)
    return [
        TrainingPair(
            record.image_path,
            captions[caption],
            people.get(record.person_id, record.person_id),
        )
        for record, caption in zip(images, data.caption_of_sample.tolist(), strict=True)
    ]


def check_same_pairs(record: DivisionRecord, data: Any, run_folder: RunFolder) -> None:  # noqa: ANN401
    """Raise an error if a run's training pairs are not those of the data.

    Raises:
        ValueError: If there are more or fewer, or other captions were exchanged.
    """
    num_pairs = len(data.evaluation_captions("train"))
    if num_pairs != len(record.clean):
        raise ValueError(
            f"{run_folder.path} divided {len(record.clean):,} training pairs, but its data have "
            f"{num_pairs:,} now. Put back the data it was trained on, or train again."
        )
    known = None if data.true_pairs is None else np.asarray(data.true_pairs)
    before = record.true_pair
    if (known is None) != (before is None) or not np.array_equal(known, before):  # type: ignore[arg-type]
        noise_index = run_folder.config()["data"].get("noise_index")
        raise ValueError(
            f"the captions exchanged in {run_folder.path} are not those of its configuration now "
            f"(data.noise_index={noise_index}). Put back the file it was trained with."
        )


def suspects(
    record: DivisionRecord,
    pairs: Sequence[TrainingPair],
    *,
    threshold: float,
    limit: int | None = None,
) -> list[Suspect]:
    """Return the pairs whose mean probability of being right is at most ``threshold``.

    The lowest probability comes first; of equal ones, such as many zeros, the larger loss, scaled
    to [0, 1] in each view; then the lower sample index.

    Args:
        record: The division.
        pairs: Every training pair.
        threshold: In [0, 1].
        limit: At most so many, at least 1; None: all.

    Example:
        >>> one = np.ones((1, 3))
        >>> losses = np.array([[1.0, 3.0, 2.0]], np.float32)
        >>> probability = np.array([[0.9, 0.0, 0.0]])
        >>> record = DivisionRecord(
        ...     0, ("global",), losses, probability, one > 0, one[0], probability[0] > 0, None
        ... )
        >>> pair = TrainingPair(Path("a.jpg"), "a coat", 7)
        >>> [each.sample_index for each in suspects(record, [pair] * 3, threshold=0.5)]
        [1, 2]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(
            f"--threshold={threshold} is not a probability. Give a number from 0 to 1."
        )
    if limit is not None and limit < 1:
        raise ValueError(f"--limit={limit} lists nothing. Give at least 1, or leave it out.")
    probability = record.probability.mean(axis=0)
    order = np.lexsort((-_scaled(record.losses).mean(axis=0), probability))
    chosen = order[probability[order] <= threshold][:limit]
    return [
        Suspect(
            sample_index=index,
            pair=pairs[index],
            probability=float(probability[index]),
            probabilities=dict(zip(record.views, record.probability[:, index], strict=True)),
            losses=dict(zip(record.views, record.losses[:, index], strict=True)),
            kept=bool(record.clean[index]),
            true_pair=None if record.true_pair is None else bool(record.true_pair[index]),
        )
        for index in chosen.tolist()
    ]


def quality_of(listed: Sequence[Suspect], record: DivisionRecord) -> Quality | None:
    """Return how many suspects are injected noise; None where nobody knows."""
    if record.true_pair is None:
        return None
    found = sum(each.true_pair is False for each in listed)
    return Quality(found, len(listed), injected=int((~record.true_pair).sum()))


def to_csv(listed: Sequence[Suspect], views: Sequence[str]) -> str:
    """Return a table with a header; probabilities and losses in full precision.

    ``true_pair`` is empty where nobody knows.

    Example:
        >>> suspect = Suspect(
        ...     4, TrainingPair(Path("a.jpg"), "a coat, red", 7), 0.25,
        ...     {"global": np.float64(0.25)}, {"global": np.float32(1.5)}, False, None,
        ... )
        >>> print(to_csv([suspect], ["global"]), end="")
        sample_index,image,caption,person_id,probability,probability_global,loss_global,kept,true_pair
        4,a.jpg,"a coat, red",7,0.25,0.25,1.5,false,
    """
    header = [
        *("sample_index", "image", "caption", "person_id", "probability"),
        *(f"probability_{view}" for view in views),
        *(f"loss_{view}" for view in views),
        *("kept", "true_pair"),
    ]
    rows = [
        [
            *(each.sample_index, each.pair.image, each.pair.caption, each.pair.person_id),
            each.probability,
            *(each.probabilities[view] for view in views),
            *(each.losses[view] for view in views),
            str(each.kept).lower(),
            None if each.true_pair is None else str(each.true_pair).lower(),
        ]
        for each in listed
    ]
    return csv_text(header, rows)


def _scaled(losses: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return losses moved and scaled to [0, 1] in each row; 0 where all of a row are equal."""
    low, extent = losses.min(axis=1, keepdims=True), np.ptp(losses, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (losses - low) / np.where(extent == 0, 1, extent)
    return scaled
