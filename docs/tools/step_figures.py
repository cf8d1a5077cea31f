"""The figures of one training step, from YAML to weights: ``make pictures`` draws them.

A box says what happens, where its code is, and what comes out, with its shape.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("docs/pictures")
WIDTH = 460
MARGIN = 14
LINE = 19
GAP = 16

TINTS = {"once": "#e8eaf6", "every epoch": "#fff3e0", "every step": "#e8f5e9"}
EDGES = {"once": "#3f51b5", "every epoch": "#ef6c00", "every step": "#2e7d32"}


class Box(NamedTuple):
    """One thing that happens.

    Attributes:
        title: What.
        code: Where: a file of ``configs/``, or ``module:name`` below ``crosswalk``.
        gives: What comes out, with its shape.
    """

    title: str
    code: str
    gives: str


Figure = dict[str, tuple[Box, ...]]

BUILD = (
    Box("compose files and overrides", "config.compose:compose", "one configuration, closed"),
    Box("compare with constructors", "config.check:check", "types, ranges, what fits what"),
    Box("call the constructors", "config.build:build", "data, method, trainer"),
)

RDE: Figure = {
    "once": (Box("YAML", "configs/method/rde.yaml", "targets and numbers"), *BUILD),
    "every epoch": (
        Box("look at all N pairs", "methods.rde:RDE.sweep_step", "losses [N] of each view"),
        Box(
            "two mixtures, one consensus",
            "labels.consensus_division:divide",
            "clean [N]: kept or not",
        ),
    ),
    "every step": (
        Box("next B pairs", "data.pipeline.plans:shuffled_plan", "indices of all processes"),
        Box(
            "augment",
            "data.pipeline.transforms:PairTransform",
            "image [b, 3, H, W], tokens [b, 77]",
        ),
        Box(
            "two views of CLIP's tokens",
            "encoders.dual_embedding:DualEmbedding",
            "unit vectors [b, D] of each view",
        ),
        Box(
            "gather from all processes",
            "distributed:all_gather_rows",
            "similarity [B, B], captions x images",
        ),
        Box(
            "triplet alignment, both ways",
            "losses.triplet_alignment:triplet_alignment_loss",
            "losses [B] of each view",
        ),
        Box("times clean, summed", "losses.pair_losses:weighted_sum", "the loss"),
        Box("backward, Adam", "optim:OptimBuilder", "new weights"),
    ),
}

CLUSTER_CONTRAST: Figure = {
    "once": (Box("YAML", "configs/method/cluster_contrast.yaml", "targets and numbers"), *BUILD),
    "every epoch": (
        Box(
            "features of all N images",
            "methods.cluster_contrast:ClusterContrast.sweep_step",
            "features [N, D]",
        ),
        Box(
            "Jaccard distances, DBSCAN",
            "labels.clustering:dbscan_clusters",
            "labels [N], -1 is an outlier",
        ),
        Box(
            "a vector per cluster",
            "memory.cluster_centers:ClusterCenters.fill",
            "centers [K, D], unit vectors",
        ),
    ),
    "every step": (
        Box(
            "some clusters, images of each",
            "data.pipeline.cluster_plans:cluster_plan",
            "indices of all processes",
        ),
        Box("augment", "data.pipeline.image_transform:ImageTransform", "image [b, 3, H, W]"),
        Box("ResNet, pooling, neck", "encoders.image:ImageEncoder", "unit vectors [b, D]"),
        Box("gather from all processes", "distributed:all_gather_rows", "embedding [B, D]"),
        Box(
            "softmax among all clusters",
            "methods.cluster_contrast:ClusterContrast.training_step",
            "logits [B, K], the loss",
        ),
        Box("backward, Adam", "optim:OptimBuilder", "new weights"),
        Box("write the memory", "memory.memory_bank:move_rows", "centers, image by image"),
    ),
}

FIGURES = {"step_rde.svg": RDE, "step_cluster_contrast.svg": CLUSTER_CONTRAST}


def drawn(figure: Figure, name: str) -> str:
    """Return a figure as SVG, its boxes from top to bottom.

    Example:
        >>> drawn({"once": (Box("a", "b:c", "d"),)}, "A step").startswith("<svg")
        True
    """
    parts: list[str] = []
    top = 0
    height = 3 * LINE + 14
    for stage, boxes in figure.items():
        inner = len(boxes) * (height + GAP) - GAP
        full = inner + LINE + 2 * MARGIN
        parts.append(_rectangle(0, top, WIDTH, full, TINTS[stage], "none"))
        parts.append(_text(MARGIN, top + 20, stage, f'font-weight="bold" fill="{EDGES[stage]}"'))
        y = top + LINE + MARGIN
        for place, box in enumerate(boxes):
            parts.append(_rectangle(MARGIN, y, WIDTH - 2 * MARGIN, height, "#fff", EDGES[stage]))
            parts.append(_text(2 * MARGIN, y + LINE + 1, box.title, 'font-weight="bold"'))
            code = 'font-family="monospace" font-size="12" fill="#455a64"'
            parts.append(_text(2 * MARGIN, y + 2 * LINE, box.code, code))
            parts.append(
                _text(2 * MARGIN, y + 3 * LINE, f"→ {box.gives}", f'fill="{EDGES[stage]}"')
            )
            y += height
            if place < len(boxes) - 1:
                parts.append(_arrow(y, EDGES[stage]))
            y += GAP
        top += full + GAP // 2
    body = "\n".join(parts)
    total = top - GAP // 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" '
        f'height="{total}" font-family="sans-serif" font-size="14" role="img">\n'
        f"<title>{escape(name)}</title>\n{body}\n</svg>\n"
    )


def _rectangle(x: int, y: int, width: int, height: int, fill: str, edge: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" '
        f'stroke="{edge}"/>'
    )


def _text(x: int, y: int, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _arrow(y: int, colour: str) -> str:
    middle, end = WIDTH // 2, y + GAP
    return (
        f'<path d="M{middle} {y}V{end - 2}M{middle - 5} {end - 7}L{middle} {end - 1}'
        f'L{middle + 5} {end - 7}" stroke="{colour}" fill="none" stroke-width="1.5"/>'
    )


def main() -> None:
    """Write them."""
    for name, figure in FIGURES.items():
        title = f"One training step: {name.removeprefix('step_').removesuffix('.svg')}"
        (FOLDER / name).write_text(drawn(figure, title), encoding="utf-8")
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
