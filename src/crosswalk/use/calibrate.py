"""How well the first scores of a model tell that a person is there: of runs, exports, vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from rich.markup import escape
from rich.table import Table

from crosswalk.config.model_file import THRESHOLDS
from crosswalk.metrics.open_set import (
    COLUMNS,
    OpenSet,
    figures,
    first_scores,
    rate_rows,
    scores_by_hit,
    verdict,
)
from crosswalk.run.results import DIRECTIONS
from crosswalk.run.run_folder import RunFolder
from crosswalk.terminal import console_for, show
from crosswalk.use.source import WHICH, Source, source_of
from crosswalk.use.thresholds import Thresholds, read_thresholds

if TYPE_CHECKING:
    from torch import Tensor


def thresholds_of_run(
    folder: RunFolder, *, split: str = "test", checkpoint: str | None = None
) -> Thresholds:
    """Return what the evaluation of a run says of its scores; the fingerprint is left open.

    Args:
        folder: A run, or the folder of an evaluation.
        split: ``test`` or ``val``.
        checkpoint: One of `WHICH`; None takes the first that was evaluated.

    Raises:
        FileNotFoundError: If that was not evaluated.
        ValueError: If the evaluation is damaged, of an earlier release, or cannot be measured.
    """
    there = [each for each in WHICH if folder.queries_file(split, each).exists()]
    checkpoint = checkpoint or (there[0] if there else WHICH[0])
    results = folder.queries(split, checkpoint)
    directions = {}
    for direction in DIRECTIONS:
        if direction in results:
            scores = first_scores(results[direction])
            if scores is None:
                raise ValueError(
                    f"{folder.queries_file(split, checkpoint)} lacks the first scores of its "
                    f"queries, which earlier releases did not keep. `{folder.evaluate_command()}` "
                    "writes them."
                )
            directions[direction] = figures(scores)
    name = folder.model_elsewhere or f"{RunFolder(folder.evaluated).name} ({checkpoint})"
    data = folder.config()["choices"]["data"]
    return Thresholds(name, None, data, split, directions)


def thresholds_of(source: Source) -> Thresholds | None:
    """Return what is known of a model's scores: its ``thresholds.json``, or its evaluation on test.

    Args:
        source: Of the model.

    Returns:
        None where nothing is known.

    Raises:
        ValueError: If a file that should say is damaged.
    """
    if source.kind == "export":
        file = source.folder.path / THRESHOLDS
        return read_thresholds(file) if file.exists() else None
    checkpoint = source.weights.stem
    if not source.is_of_a_run or not source.folder.queries_file("test", checkpoint).exists():
        return None
    for results in source.folder.queries("test", checkpoint).values():
        scores = first_scores(results)
        if scores is None or not scores.can_be_measured:
            return None
    return thresholds_of_run(source.folder, checkpoint=checkpoint)


def open_set_of(
    query: Tensor,
    gallery: Tensor,
    *,
    query_person_id: Tensor,
    gallery_person_id: Tensor,
    **labels: Any,  # noqa: ANN401
) -> OpenSet:
    """Return how well the scores of embeddings tell whether a person is in a gallery.

    Args:
        query: ``[queries, D]`` unit vectors.
        gallery: ``[gallery, D]`` unit vectors.
        query_person_id: ``[queries]`` int64; -1 is unknown, and left out.
        gallery_person_id: ``[gallery]`` int64; -1 is unknown, and ignored.
        labels: Cameras and pictures, as for `crosswalk.metrics.ranking.rank_embeddings`: what is
            both in the queries and in the gallery needs ``query_picture`` and ``gallery_picture``.

    Raises:
        ValueError: If no query has its person in the gallery, or nobody else is there.

    Example:
        >>> import torch
        >>> vectors, ids = torch.eye(3), torch.tensor([5, 6, 7])
        >>> found = open_set_of(vectors, vectors, query_person_id=ids, gallery_person_id=ids)
        >>> found.auc.value, found.quantiles["absent"]
        (1.0, (0.0, 0.0, 0.0))
    """
    from crosswalk.metrics.ranking import rank_embeddings

    ranking = rank_embeddings(
        query,
        gallery,
        query_person_id=query_person_id,
        gallery_person_id=gallery_person_id,
        topk=0,
        **labels,
    )
    return figures(
        scores_by_hit(
            query_person_id.cpu().numpy(),
            ranking.first_hit,
            ranking.best_score,
            ranking.best_other_score,
            gallery=len(gallery),
        )
    )


def model_of(folder: RunFolder, checkpoint: str | None) -> Source | None:
    """Return the model that the evaluation in a folder is of; None where it is not here any more.

    Args:
        folder: A run, or the folder of an evaluation.
        checkpoint: Of a run.
    """
    elsewhere = folder.model_elsewhere
    try:
        if elsewhere is None:
            return source_of(folder.evaluated, checkpoint)
        return source_of(folder.config().get("checkpoint") or elsewhere)
    except (FileNotFoundError, ValueError):
        return None


def print_thresholds(found: Thresholds, *, file: TextIO | None = None) -> None:
    """Print what was measured: rates, quartiles of the scores, and whether they can tell.

    Args:
        found: It.
        file: Where to; standard output by default.
    """
    console = console_for(file, width=120)
    rates = Table(
        title=escape(f"First scores of {found.model} on {found.data}, {found.split}")
        + "; in brackets 95 % intervals",
        title_justify="left",
    )
    for column in ("direction", *COLUMNS):
        rates.add_column(column)
    scores = Table(title="Quartiles of the first scores", title_justify="left")
    for column in ("direction", "right", "wrong", "person not in the gallery"):
        scores.add_column(column)
    for direction, each in found.directions.items():
        for row in rate_rows(each):
            rates.add_row(DIRECTIONS[direction], *row)
        quartiles = [
            "-" if group is None else " ".join(f"{value:.3f}" for value in group)
            for group in each.quantiles.values()
        ]
        scores.add_row(DIRECTIONS[direction], *quartiles)
    show(rates, console)
    show(scores, console)
    for direction, each in found.directions.items():
        print(f"{DIRECTIONS[direction]}: {verdict(each)}", file=file)
