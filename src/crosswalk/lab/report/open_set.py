"""First scores of queries whose person is in the gallery and of those whose person is not."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from crosswalk.diagnostics.figures import BLUE, GREY, ORANGE, label, legend_below, panels
from crosswalk.lab.report.ranking_lists import CHECKPOINTS, PLACES, nothing_ranked
from crosswalk.metrics.open_set import (
    COLUMNS,
    RATES,
    FirstScores,
    OpenSet,
    figures,
    first_scores,
    rate_rows,
    verdict,
)
from crosswalk.pages import Section, figure_tag, table_tag
from crosswalk.run.results import DIRECTIONS
from crosswalk.run.run_folder import RunFolder

MOST_BINS = 40
LOOK_FOR = (
    "The score of the first item of every query, where it is the person (right), where the person "
    "is there but somebody else is first (wrong), and where the person was taken out of the "
    "gallery (absent). Where the three heaps lie on each other, scores cannot tell."
)
THRESHOLD = (
    " Right scores should stand to the right of the dashed threshold, which 1 % of the absent "
    "ones reach."
)


def open_set_section(folder: RunFolder) -> Section:
    """Return histograms of first scores, rates at their thresholds, and whether they can tell.

    Of the same checkpoint and split as the ranking lists.

    Args:
        folder: The run.
    """
    place = next((place for place in PLACES if folder.queries_file(*place).exists()), None)
    if place is None:
        body = Markup("<p>{}</p>").format(nothing_ranked(folder))
    else:
        try:
            body = _body(folder, *place)
        except ValueError as error:
            body = Markup("<p>{}</p>").format(error)
    return Section("open-set", "Is the person there at all?", body)


def _body(folder: RunFolder, split: str, checkpoint: str) -> Markup:
    results = folder.queries(split, checkpoint)
    scores = {
        direction: first_scores(results[direction])
        for direction in DIRECTIONS
        if direction in results
    }
    pictures, said, rows, look_for = [], [], [], LOOK_FOR
    for direction, given in scores.items():
        if given is None:
            return Markup(
                "<p>The first scores are missing, which earlier releases did not keep: "
                "<code>{}</code> writes them, then <code>crosswalk report {}</code> shows them "
                "here.</p>"
            ).format(folder.evaluate_command(), folder.path)
        found = figures(given)
        title = DIRECTIONS[direction]
        if RATES[0] in found.rates:
            look_for = LOOK_FOR + THRESHOLD
        pictures.append(_figure(given, found, title))
        said.append(Markup("<p><b>{}</b>: {}</p>").format(title, verdict(found)))
        rows += [(title, *row) for row in rate_rows(found)]
    caption = (
        f"{CHECKPOINTS[checkpoint].capitalize()} on {split}; in brackets 95 % intervals, queries "
        "drawn anew"
    )
    return Markup("\n").join(
        [
            *said,
            Markup('<div class="figures">{}</div>\n<p class="quiet">{}</p>').format(
                Markup("\n").join(pictures), look_for
            ),
            table_tag(["direction", *COLUMNS], rows, caption=caption),
        ]
    )


def _figure(scores: FirstScores, found: OpenSet, title: str) -> Markup:
    figure, ((axes,),) = panels(1, 1)
    groups = scores.groups
    everything = np.concatenate(list(groups.values()))
    edges = np.histogram_bin_edges(everything, min(MOST_BINS, 2 * math.isqrt(len(everything)) + 1))
    styles = {"absent": (GREY, True), "wrong": (ORANGE, False), "right": (BLUE, False)}
    for name, (colour, fill) in styles.items():
        if len(groups[name]):
            heights = np.histogram(groups[name], edges)[0] / len(groups[name])
            shown = f"{name} ({len(groups[name]):,})"
            axes.stairs(
                heights, edges, fill=fill, color=colour, alpha=0.4 if fill else 1, label=shown
            )
    if RATES[0] in found.rates:
        threshold = found.rates[RATES[0]].threshold.value
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
    label(axes, title=title, across="score of the first item", up="share of the queries")
    legend_below(figure, axes)
    return figure_tag(figure, alt=f"First scores, {title}")
