"""A map of the embeddings of a few test persons: those of one person should lie together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from crosswalk.files import read_arrays
from crosswalk.metrics.samples import DrawnSamples
from crosswalk.pages import Section, figure_tag
from crosswalk.run.run_folder import RunFolder

CHECKPOINTS = {"start": "before training", "best": "best epoch", "last": "last epoch"}
SIZE = (4.6, 4.0)
"""Width and height of a map, in inches."""


def embedding_map_section(folder: RunFolder, *, texts_are_queries: bool) -> Section:
    """Return the maps of the starting weights and of the best epoch, or else the last one.

    Args:
        folder: The run.
        texts_are_queries: Whether a query is a caption; else it is an image.
    """
    files = {name: path for name in CHECKPOINTS if (path := folder.embeddings_file(name)).exists()}
    if "best" in files:
        files.pop("last", None)
    if not files:
        body = Markup(
            "<p>There are no embeddings of this run yet: <code>{}</code> "
            "writes some, then <code>crosswalk report</code> shows them here.</p>"
        ).format(folder.evaluate_command())
        return Section("embedding-map", "Embedding map", body)
    roles = ("captions", "images") if texts_are_queries else ("queries", "gallery images")
    maps = []
    num_persons = 0
    for name, path in files.items():
        arrays = read_arrays(path)
        drawn = DrawnSamples(**{name: arrays[name] for name in DrawnSamples._fields})
        num_persons = len(np.unique(drawn.person_id))
        title = CHECKPOINTS[name]
        maps.append(_figure(drawn, roles=roles, title=title))
    text = Markup(
        "<p>{} persons of the test split, drawn at random but the same for every checkpoint; a "
        "colour is a person, ● {}, ▲ {}. Embeddings are laid out by t-SNE, so neighbourhoods "
        "mean something and distances between groups do not.</p>"
    ).format(num_persons, *roles)
    body = text + Markup('<div class="figures">{}</div>').format(Markup("\n").join(maps))
    return Section("embedding-map", "Embedding map", body)


def map_positions(embedding: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return ``[samples, 2]`` positions whose neighbours are those of the embeddings.

    t-SNE, started from the principal components, so that equal embeddings give equal maps; fewer
    than eight samples are too few for it and stay at their principal components.

    Args:
        embedding: ``[samples, D]``.

    Example:
        >>> map_positions(np.array([[0.0, 0.0], [0.0, 2.0]])).round(6).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    rows = np.asarray(embedding, np.float64)
    rows = rows - rows.mean(axis=0)
    left, lengths, right = np.linalg.svd(rows, full_matrices=False)
    signs = np.where(right[np.arange(len(right)), abs(right).argmax(axis=1)] < 0, -1.0, 1.0)
    components = (left * lengths * signs)[:, :50]
    flat = np.zeros((len(rows), 2))
    flat[:, : min(2, components.shape[1])] = components[:, :2]
    if len(rows) < 8 or flat[:, 0].std() == 0:
        return flat
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums of several threads differ from run to run
        layout: NDArray[np.float64] = TSNE(
            init=flat / flat[:, 0].std() * 1e-4,
            perplexity=min(8.0, (len(rows) - 1) / 3),
            max_iter=500,
            learning_rate="auto",
            random_state=0,
        ).fit_transform(components)
    return layout


def _figure(drawn: DrawnSamples, *, roles: tuple[str, str], title: str) -> Markup:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    position = map_positions(drawn.embedding)
    persons, number = np.unique(drawn.person_id, return_inverse=True)
    colour = colormaps["tab20"](number % 20)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    shapes: Mapping[str, tuple[NDArray[np.bool_], str]] = {
        roles[0]: (drawn.is_query, "o"),
        roles[1]: (~drawn.is_query, "^"),
    }
    for name, (chosen, marker) in shapes.items():
        x, y = position[chosen].T
        axes.scatter(
            x, y, c=colour[chosen], marker=marker, s=26, label=name, linewidths=0.4, edgecolors="w"
        )
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", "datalim")
    return figure_tag(figure, alt=f"map of {len(persons)} persons, {title}")
