"""`crosswalk export --format onnx|torch`: encoders as graphs that run without crosswalk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from crosswalk import __version__
from crosswalk.config.model_file import CARD, THRESHOLDS, WEIGHTS
from crosswalk.run.weights import halved
from crosswalk.use.calibrate import thresholds_of
from crosswalk.use.calling import calling, merged
from crosswalk.use.card import card_of
from crosswalk.use.described import described_by
from crosswalk.use.export_check import FORMATS, Format, Settings
from crosswalk.use.graphs import (
    MOVED,
    Embed,
    Graph,
    Samples,
    difference,
    graphs_of,
    samples_for,
)
from crosswalk.use.int8_loss import agreement, data_to_test_on, rank1_on
from crosswalk.use.model import Model
from crosswalk.use.source import Source
from crosswalk.use.token_files import MERGES, VOCABULARY, write_token_files
from crosswalk.words import counted

MOST = 1e-4
"""Largest accepted difference of a number of an embedding, in [-1, 1]."""


def export_graphs(model: Model, source: Source, target: Path, settings: Settings) -> int:
    """Write the graphs of a model, compared with it, and its card; say so, and return 0.

    Args:
        model: On the CPU.
        source: Where it was loaded from.
        target: The folder to make.
        settings: What is asked for.

    Raises:
        ValueError: If an encoder cannot be exported, or its graph computes something else. Nothing
            is written then.
    """
    if settings.form == "onnx":
        import crosswalk.use.onnx_files as writer
    else:
        import crosswalk.use.torch_programs as writer  # type: ignore[no-redef]
    card = card_of(source, described_by(source))
    thresholds, fingerprint = thresholds_of(source), model.fingerprint
    merged(
        card, target, settings.form, fingerprint=fingerprint
    )  # refuses other models' folders before the work
    above = next(place for place in target.absolute().parents if place.is_dir())
    with TemporaryDirectory(prefix=".crosswalk-export-", dir=above) as name:
        folder = Path(name)
        graphs = graphs_of(model, preprocessing=settings.inside)
        facts: dict[str, Any] = {}
        said: list[str] = []
        if model.tokenizer is not None:
            facts, said = write_token_files(model.tokenizer, folder)
        found: dict[str, tuple[Samples, Embed]] = {}
        exact = {graph.what: samples_for(graph).expected for graph in graphs * settings.half}
        about = {graph.what: _about(graph, facts) for graph in graphs}  # before rounding
        if settings.half:
            encoder = model.method.get_submodule("encoder")
            encoder.load_state_dict(halved(encoder.state_dict()))
        for graph in graphs:
            path = folder / f"{graph.what}{FORMATS[settings.form]}"
            writer.write(graph, path, about[graph.what], half=settings.half)
            samples, embed = samples_for(graph), writer.embed_by(path, graph)
            found[graph.what] = samples, embed
            away, undecided = difference(graph, samples, embed, most=MOST)
            said.append(_compared(path.name, samples, away, undecided, exact.get(graph.what)))
        if settings.int8:
            said.append(_int8(folder, graphs, source, found))
        text = calling(settings.form, graphs, said, half=settings.half)
        told = merged(card, target, settings.form, text, fingerprint=fingerprint)
        (folder / CARD).write_text(told, encoding="utf-8")
        if thresholds is not None and not (target / WEIGHTS).exists():
            thresholds._replace(fingerprint=fingerprint).write(folder / THRESHOLDS)
        _move(folder, target, settings.form)
    for sentence in said:
        print(sentence.replace("`", ""))
    print(f"They are in {target}, with a card that says how to call them: {target / CARD}.")
    return 0


def _compared(
    name: str, samples: Samples, away: float, undecided: int, exact: Tensor | None
) -> str:
    said = (
        f"`{name}` was compared with the model{' after that' * (exact is not None)} on "
        f"{len(samples.rows)} samples in batches of 1, 7 and 42: the largest difference of a "
        f"number is {away:.1e}."
    )
    if undecided:
        said += (
            f" On {counted(undecided, 'sample')} the model selects other tokens if its weights "
            f"change by {MOVED:g} of themselves, and the graph selects those."
        )
    if exact is None:
        return said
    cosine = float((samples.expected * exact).sum(dim=1).min())
    return (
        "Weights were rounded to float16, which leaves embeddings with a cosine of at least "
        f"{cosine:.5f} to those before. {said}"
    )


def _about(graph: Graph, facts: Mapping[str, Any]) -> dict[str, object]:
    """Return what a file says of itself."""
    model = graph.model
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "crosswalk": __version__,
        "input": graph.takes,
        **(
            {"tokenizer": facts}
            if graph.what == "text"
            else {"preprocessing": asdict(model.preprocessing)}
        ),
    }


def _int8(
    folder: Path,
    graphs: Sequence[Graph],
    source: Source,
    found: Mapping[str, tuple[Samples, Embed]],
) -> str:
    """Write files with int8 weights; return what they cost."""
    from crosswalk.use.onnx_files import embed_by, write_int8

    whole = {what: embed for what, (_, embed) in found.items()}
    small = {}
    for graph in graphs:
        path = folder / f"{graph.what}.int8.onnx"
        write_int8(folder / f"{graph.what}.onnx", path)
        small[graph.what] = embed_by(path, graph)
    data, why = data_to_test_on(source)
    if data is not None:
        before, after = (100 * rank1_on(data, encoders) for encoders in (whole, small))
        cost = (
            f"R@1 on the test split of its run is {after:.2f} % with them, {before:.2f} % without"
        )
    else:
        same = agreement({what: samples for what, (samples, _) in found.items()}, small)
        cost = (
            f"R@1 was not measured ({why}). Of 50 random samples {same:.0%} keep the nearest one, "
            "which says little about people"
        )
    return f"`*.int8.onnx` hold weights of 8 bits (dynamic quantisation). {cost}."


def _move(folder: Path, target: Path, form: Format) -> None:
    """Put the files of an export into its folder, where none of an earlier one stay."""
    target.mkdir(parents=True, exist_ok=True)
    written = {path.name for path in folder.iterdir()}
    for path in target.iterdir():
        is_old = path.name.endswith(FORMATS[form]) or (
            path.name == MERGES and VOCABULARY in written
        )
        if is_old and path.name not in written:
            path.unlink()
    for name in written:
        os.replace(folder / name, target / name)
