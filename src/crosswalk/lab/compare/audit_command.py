"""``crosswalk audit``: a list of suspicious training pairs, and a page to look through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from crosswalk.diagnostics.division import DivisionRecord
from crosswalk.files import write_text
from crosswalk.lab.compare.audit import (
    Suspect,
    check_same_pairs,
    division_of,
    quality_of,
    suspects,
    threshold_of,
    to_csv,
    training_pairs,
)
from crosswalk.lab.report.evaluation_data import evaluation_data
from crosswalk.pages import Section, picture_tag, render, render_page
from crosswalk.run.run_folder import RunFolder

MOST_SHOWN = 200
"""The page shows so many suspects; the table lists all."""


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
    record = division_of(folder, which)
    if out.suffix.lower() != ".csv":
        raise ValueError(f"--out={out} does not end in .csv. The page goes beside it, as .html.")
    data = evaluation_data(folder)
    check_same_pairs(record, data, folder)
    at_most = threshold_of(folder) if threshold is None else threshold
    listed = suspects(record, training_pairs(data), threshold=at_most, limit=limit)
    summary = _summary(listed, record, at_most=at_most)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, to_csv(listed, record.views))
    page = out.with_suffix(".html")
    write_text(page, audit_page(folder.name, listed, summary))
    print(f"{summary}\nTable: {out}\nPage:  {page}")
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
    return " ".join(sentences)


def _picture(suspect: Suspect) -> Markup:
    frame = {None: "", True: "right", False: "wrong"}[suspect.true_pair]
    try:
        return picture_tag(suspect.pair.image, alt=suspect.pair.image.name, frame=frame)
    except FileNotFoundError:
        return Markup('<p class="quiet">{} is gone</p>').format(suspect.pair.image.name)
