"""Ranking lists as HTML: the query, then what was found for it, marked right (✓) or wrong (✗)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from crosswalk.lab.report.outcome import lost_in_words, lost_parts
from crosswalk.metrics.queries import QueryResults
from crosswalk.pages import Section, lost, picture_tag, render
from crosswalk.run.ranking_lists import (
    RankedItem,
    RankingList,
    RankingListData,
    people_of,
    queries_and_gallery,
    ranking_lists,
)
from crosswalk.run.results import DIRECTIONS
from crosswalk.run.run_folder import RunFolder

CHECKPOINTS = {"best": "the best epoch", "last": "the last epoch", "start": "the starting weights"}
PLACES = [(split, checkpoint) for split in ("test", "val") for checkpoint in CHECKPOINTS]
EACH, SEED = 3, 0
"""Queries of each kind, and the seed of their choice."""
PICTURE = (64, 128)
"""Width and height in pixels that no picture of a list exceeds."""


def ranking_lists_section(
    folder: RunFolder, data: RankingListData | Callable[[], RankingListData]
) -> Section:
    """Return ranking lists of the best, median and worst queries of every direction.

    Of the first of these that there is: the best epoch on test, the last epoch, the starting
    weights; the same on val, for a run that was not tested yet.

    Args:
        folder: The run.
        data: The data it was evaluated on, or a function that makes them.
    """
    place = next((place for place in PLACES if folder.queries_file(*place).exists()), None)
    if place is None:
        text = nothing_ranked(folder)
        return Section("ranking-lists", "Ranking lists", Markup("<p>{}</p>").format(text))
    try:
        data = data() if callable(data) else data
        body = _lists(folder, *place, data)
    except (FileNotFoundError, ValueError) as error:
        body = Markup("<p>The ranking lists need the data of the run. {}</p>").format(error)
    return Section("ranking-lists", "Ranking lists", body)


def nothing_ranked(folder: RunFolder) -> str:
    """Return why there is nothing to rank: it is missing, or nothing was evaluated."""
    if "queries/" in (gone := lost_parts(folder)):
        return lost_in_words(folder, gone)
    if folder.record().get("status") == "finished":
        return "Nothing was ranked: the run was not evaluated."
    return "Nothing was ranked yet: the run did not reach an evaluation."


def choose_by_precision(
    results: QueryResults, *, each: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return which rows of ``results`` are the best, median and worst queries by AP.

    The best are of the upper third, the worst of the lower one, the median nearest the middle.
    Of equal ones the seed chooses; queries of one person come after those of others; queries
    without a match are left out.

    Args:
        results: Per-query results.
        each: Queries of each kind; fewer where there are not so many.
        seed: Seed of the choice.

    Example:
        >>> precision = np.array([0.1, 0.9, np.nan, 0.5, 0.4, 0.8])
        >>> six = np.arange(6)
        >>> results = QueryResults(
        ...     six, six, np.array([1, 1, 0, 1, 1, 1]), six, precision, *[six] * 4
        ... )
        >>> {kind: rows.tolist() for kind, rows in
        ...  choose_by_precision(results, each=1, seed=0).items()}
        {'best': [1], 'median': [3], 'worst': [0]}
    """
    valid = np.random.default_rng(seed).permutation(np.flatnonzero(results.num_matches))
    order = valid[np.argsort(-results.average_precision[valid], kind="stable")]
    third = max(1, round(len(order) / 3))
    between = order[third : len(order) - third]
    middle = abs(np.arange(len(between)) - (len(between) - 1) / 2)
    pools = {
        "best": order[:third],
        "median": between[np.argsort(middle, kind="stable")],
        "worst": order[max(third, len(order) - third) :][::-1],
    }
    return {
        kind: pool[np.sort(_other_persons_first(results.person_id[pool])[:each])]
        for kind, pool in pools.items()
    }


def _other_persons_first(person_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of all persons' first rows, then of the rest."""
    first = np.sort(np.unique(person_id, return_index=True)[1])
    return np.concatenate([first, np.setdiff1d(np.arange(len(person_id)), first)])


def ranking_list_html(ranking_list: RankingList, *, title: str = "", length: int = 10) -> Markup:
    """Return one ranking list: a line of facts, the query, and what was found, best first.

    Matches have green frames, others red ones. A picture whose file is gone, or
    is none any more, is a box of the same size that names it.

    Args:
        ranking_list: The query and what was found for it.
        title: Stands ahead of the facts.
        length: Number of items that are shown at most.

    Example:
        >>> found = (RankedItem("a blue coat", 0.75, True), RankedItem("a bag", 0.5, False))
        >>> one = RankingList(4, "a coat", 7, first_hit=1, average_precision=0.25, found=found)
        >>> page = ranking_list_html(one, title="best")
        >>> page.count('class="caption right"'), page.count('class="caption wrong"')
        (1, 1)
        >>> "first hit at rank 1" in page, "AP 25.0" in page
        (True, True)
    """
    facts = [f"person {ranking_list.person_id}", f"query {ranking_list.sample_index}"]
    if ranking_list.first_hit > 0:
        facts.append(f"first hit at rank {ranking_list.first_hit}")
    else:
        facts.append("no match in the gallery")
    if not math.isnan(ranking_list.average_precision):
        facts.append(f"AP {100 * ranking_list.average_precision:.1f} %")
    return render(
        "ranking_list.html.j2",
        title=title,
        facts=", ".join(facts),
        query=_item_html(ranking_list.query, "query", alt="query", person=ranking_list.person_id),
        about_query=_about(ranking_list.query, ranking_list.person_id),
        found=[_found_html(rank, item) for rank, item in enumerate(ranking_list.found[:length], 1)],
    )


def _lists(folder: RunFolder, split: str, checkpoint: str, data: RankingListData) -> Markup:
    parts = [
        Markup(
            "<p>Of {} on {}. The query is framed in blue, matches in green (✓), others in red "
            "(✗); below each stand its rank and its similarity. Queries without a match are left "
            "out; of equal ones some are drawn at random, always the same.</p>"
        ).format(CHECKPOINTS[checkpoint], split)
    ]
    for direction, results in folder.queries(split, checkpoint).items():
        if direction.startswith("view/"):
            continue
        parts.append(Markup("<h3>{}</h3>").format(DIRECTIONS[direction]))
        queries, gallery = queries_and_gallery(data, split, direction)
        chosen = choose_by_precision(results, each=EACH, seed=SEED)
        for kind, rows in chosen.items():
            lists = ranking_lists(results, rows, queries, gallery, people=people_of(data))
            for number, each in enumerate(lists, 1):
                title = f"{kind} {number}" if len(rows) > 1 else kind
                parts.append(ranking_list_html(each, title=title))
    return Markup("\n").join(parts)


def _found_html(rank: int, found: RankedItem) -> tuple[Markup, str]:
    verdict = "right" if found.is_match else "wrong"
    alt = f"rank {rank}, {verdict}"
    picture = _item_html(found.item, verdict, alt=alt, person=found.person_id)
    about = _about(found.item, found.person_id)
    return picture, Markup("{}: {:.3f}{}").format(rank, found.score, about)


def _about(item: Path | str, person: int | str | None) -> Markup:
    """Return the lines below an item: the name of its file, and its person."""
    lines = [item.name] if isinstance(item, Path) else []
    lines += [] if person is None else [f"person {person}"]
    return Markup("").join(Markup("<br>{}").format(line) for line in lines)


def _item_html(
    item: Path | str, frame: str, *, alt: str, person: int | str | None = None
) -> Markup:
    if isinstance(item, str):
        # the page cuts long ones off: whole where the pointer rests, or where one taps
        tag = Markup('<p class="caption {}" tabindex="0" title="{}">{}</p>')
        return tag.format(frame, item, item)
    try:
        title = f"{item}" if person is None else f"{item}, person {person}"
        return picture_tag(item, alt=alt, frame=frame, title=title, largest=PICTURE)
    except (OSError, ValueError) as error:
        return Markup('<p class="caption {}">{} {}</p>').format(frame, item.name, lost(error))
