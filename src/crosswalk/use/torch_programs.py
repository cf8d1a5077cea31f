"""An encoder as a program of `torch.export`, which torch alone runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from crosswalk.use.graphs import Embed, Graph, exporting

_INNER = ("py_kernels", "_dispatch_cache")
"""What torch's operators are made of, and nobody promises."""


def write(graph: Graph, path: Path, about: Mapping[str, object], *, half: bool = False) -> None:
    """Write a graph with a free batch size; arguments as of `crosswalk.use.onnx_files.write`.

    ``about`` is the file ``crosswalk.json`` in it; ``half`` has to be false.
    """
    assert not half  # the command refuses it
    batch = torch.export.Dim("N", min=1)

    def export() -> torch.export.ExportedProgram:
        with _known_shapes():
            return torch.export.export(
                graph, (graph.example,), dynamic_shapes=({0: batch},), strict=False
            )

    program: torch.export.ExportedProgram = exporting(graph, "by torch.export", export)
    torch.export.save(program, path, extra_files={"crosswalk.json": json.dumps(about)})


def embed_by(path: Path, graph: Graph) -> Embed:
    """Return what runs a file that was written of a graph."""
    program = torch.export.load(path).module()

    @torch.inference_mode()
    def embed(rows: Tensor) -> Tensor:
        found: Tensor = program(graph.input_of(rows))
        return found

    return embed


@contextmanager
def _known_shapes() -> Iterator[None]:
    """Let GRUs and LSTMs say which shapes they give; torch finds out by reading word by word.

    That takes ten seconds and more. A program holds the one operation either way.
    """

    def gru(words: Tensor, start: Tensor, *rest: object) -> tuple[Tensor, ...]:
        return words.new_empty(*words.shape[:2], start.shape[2]), torch.empty_like(start)

    def lstm(words: Tensor, start: list[Tensor], *rest: object) -> tuple[Tensor, ...]:
        return *gru(words, start[0]), torch.empty_like(start[1])

    known: dict[Any, Any] = {torch.ops.aten.gru.input: gru, torch.ops.aten.lstm.input: lstm}
    with ExitStack() as stack:
        for operation, shapes in known.items():
            if not all(hasattr(operation, name) for name in _INNER):
                continue  # another torch: it takes longer
            stack.callback(operation._dispatch_cache.clear)
            kernels = dict.fromkeys(operation.py_kernels, shapes)
            stack.enter_context(patch.dict(operation.py_kernels, kernels))
            operation._dispatch_cache.clear()
        yield
