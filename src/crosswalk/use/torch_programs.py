"""An encoder as a program of `torch.export`, which torch alone runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from crosswalk.use.graphs import Embed, Graph, exporting


def write(graph: Graph, path: Path, about: Mapping[str, object], *, half: bool = False) -> None:
    """Write a graph with a free batch size; arguments as of `crosswalk.use.onnx_files.write`.

    ``about`` is the file ``crosswalk.json`` in it; ``half`` has to be false.
    """
    assert not half  # the command refuses it
    batch = torch.export.Dim("N", min=1)
    program: torch.export.ExportedProgram = exporting(
        graph,
        "by torch.export",
        lambda: torch.export.export(
            graph, (graph.example,), dynamic_shapes=({0: batch},), strict=False
        ),
    )
    torch.export.save(program, path, extra_files={"crosswalk.json": json.dumps(about)})


def embed_by(path: Path, graph: Graph) -> Embed:
    """Return what runs a file that was written of a graph."""
    program = torch.export.load(path).module()

    @torch.inference_mode()
    def embed(rows: Tensor) -> Tensor:
        found: Tensor = program(graph.input_of(rows))
        return found

    return embed
