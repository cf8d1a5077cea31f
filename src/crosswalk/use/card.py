"""The model card: what a model is, what was measured, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crosswalk.config.model_file import CARD, COLOURS, LARGEST
from crosswalk.files import read_text, safetensors_header
from crosswalk.metrics.open_set import figures, first_scores, verdict
from crosswalk.metrics.paired import bootstrap_means, measures_per_query
from crosswalk.run.results import MEASURES, chosen_by, monitor_of
from crosswalk.run.run_folder import RunFolder
from crosswalk.use.described import Described
from crosswalk.use.source import Source

INTERVAL = (2.5, 97.5)
"""Percentiles of the means of queries drawn with replacement."""

USE = """\
For research on the retrieval of people in pictures, and for tools around it, where there is a
legal ground and the consent that the law asks for. Not for identifying or following people without
it, not for decisions about people, and not where a wrong match harms somebody: a ranking list
always has a first place, whether the person is there or not."""

LIMITS = """\
- On cameras, places, clothes and groups of people other than those it was trained on it is worse,
  and how much worse is not known.
- Whole people in upright crops are expected; faces, groups and full scenes are not."""


def card_of(source: Source, described: Described) -> str:
    """Return the card of a model, in Markdown, with the header that the hub reads.

    Args:
        source: Of the model; an exported folder has its card already.
        described: What the model needs.

    Raises:
        ValueError: If a file of the run is damaged; the message names it.
    """
    own = source.folder.path / CARD
    if source.kind == "export" and own.is_file():
        return read_text(own, limit=LARGEST)
    config = described.config
    choices = config.get("choices") or {}
    height, width = described.preprocessing.image_size
    reads = "images and sentences" if "tokenizer" in config["data"] else "images"
    encoder = choices.get("encoder") or config["encoder"]["_target_"].rpartition(".")[2]
    title = source.name
    if source.is_of_a_run:
        title = f"{source.folder.name} ({source.weights.stem})"
        told = _of_a_run(source.folder, config, source.weights.stem)
    else:
        told = _of_others(source)
    sections = {
        "Use it": _use(reads),
        "What it is": (
            f"Method `{choices.get('method')}`, encoder `{encoder}`; reads {reads}; "
            f"images are resized to {height}x{width}.{_colours(described)}"
        ),
        **told,
        "Intended use": USE,
        "Known limits": LIMITS,
        "Licence": (
            "The weights follow from the data set and from what the training started from, whose "
            "terms hold for them; crosswalk itself is under Apache-2.0."
        ),
    }
    head = "---\nlibrary_name: crosswalk\ntags: [person-retrieval, person-reid]\n---\n\n"
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{head}# {title}\n\n{body}\n"


def _colours(described: Described) -> str:
    """Return what to say where a method measures the colours of each set by itself."""
    if COLOURS not in described.evaluation:
        return ""
    mean, std = (list(each) for each in (described.preprocessing.mean, described.preprocessing.std))
    return (
        " The method normalises each set by the colours of its own training images, which "
        f"`crosswalk evaluate` measures; everywhere else they are taken for mean {mean}, std {std}."
    )


def _of_a_run(folder: RunFolder, config: Mapping[str, Any], checkpoint: str) -> dict[str, str]:
    record = folder.record()
    return {
        "Training data": _data(record.get("data") or {}),
        "What was measured": _measured(folder, config, checkpoint),
        "How to make it again": _again(record, record.get("versions") or {}),
    }


def _of_others(source: Source) -> dict[str, str]:
    if source.kind == "import":
        origin = safetensors_header(source.weights).get("origin", "an official file")
        where = f"That of the official checkpoint `{origin}`; the file does not say which it was."
    else:
        where = f"That of the published weights `{source.name}`."
    return {
        "Training data": where,
        "What was measured": (
            "Nothing, so far. `crosswalk evaluate model/ data=<data set> data.root=<folder>` "
            "measures it, without any training."
        ),
    }


def _use(reads: str) -> str:
    lines = [
        "import crosswalk",
        "",
        'model = crosswalk.load("<this folder>")',
        'images = model.embed_images(["1.jpg", "2.jpg"])  # float32, unit length',
    ]
    if "sentences" in reads:
        lines += [
            'texts = model.embed_texts(["a woman in a red coat"])',
            "scores = texts @ images.T",
        ]
    else:
        lines += ["scores = images @ images.T"]
    return "```python\n" + "\n".join(lines) + "\n```"


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return "Unknown: the run has no record."
    parts = [data, *(data[name] for name in ("source", "target") if name in data)]
    lines = []
    for part in parts:
        counts = (part.get("counts") or {}).get("train") or {}
        numbers = ", ".join(f"{number:,} {what}" for what, number in counts.items())
        lines.append(f"- {part.get('dataset')}" + (f": {numbers} in training" if numbers else ""))
    return "\n".join(lines) + f"\n\nFingerprint `{data.get('fingerprint')}`."


def _measured(folder: RunFolder, config: Mapping[str, Any], checkpoint: str) -> str:
    results = folder.results().get(checkpoint)
    if results is None:
        return "Nothing: the run was not evaluated."
    lines = [
        f"Percent on test, of epoch {results['epoch']}; {chosen_by(monitor_of(config))}. In "
        "brackets 95 % intervals: queries drawn anew, 10,000 times. They say nothing about other "
        "seeds or other data.",
        "",
        "| direction | " + " | ".join(MEASURES.values()) + " |",
        "|---|" + "---:|" * len(MEASURES),
    ]
    try:
        queries = folder.queries("test", checkpoint)
    except FileNotFoundError:
        return "Nothing on test, or the file of its queries is gone."
    said = []
    for direction, ranked in queries.items():
        if direction.startswith("view/"):
            continue
        measures = measures_per_query(ranked)
        values = np.stack([measures[name] for name in MEASURES], axis=1)
        values = values[np.isfinite(values).all(axis=1)]
        low, high = np.percentile(100 * bootstrap_means(values), INTERVAL, axis=0)
        cells = [
            f"{mean:.1f} ({least:.1f} to {most:.1f})"
            for mean, least, most in zip(100 * values.mean(axis=0), low, high, strict=True)
        ]
        lines.append(f"| {direction.replace('_', ' ')} | " + " | ".join(cells) + " |")
        scores = first_scores(ranked)
        if scores is not None and scores.can_be_measured:
            said.append(f"- {direction.replace('_', ' ')}: {verdict(figures(scores))}")
    return "\n".join([*lines, *([""] if said else []), *said])


def _again(record: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    if not record.get("command"):
        return "Unknown: the run has no record."
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = record.get("commit") or "of an installed package"
    changed = ", with uncommitted changes" if record.get("dirty") else ""
    return f"```sh\n{record['command']}\n```\n\nCode: commit {commit}{changed}. Versions: {known}."
