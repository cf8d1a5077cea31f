"""An encoder as a file of ONNX, with float32, float16 or int8 weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import onnxscript.optimizer
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor

from crosswalk.encoders.padded_words import both_ways  # noqa: F401  # makes the operation known
from crosswalk.use.graphs import Embed, Graph, exporting, quiet

LARGEST = (1 << 31) - (1 << 24)
"""Bytes of weights: a file of ONNX holds 2 GB, and the graph is in it."""

OUTPUT = "embeddings"

op: Any = onnxscript.opset20  # whose types know no tensors of torch


def write(graph: Graph, path: Path, about: Mapping[str, object], *, half: bool) -> None:
    """Write a graph with a free batch size.

    Args:
        graph: The encoder.
        path: The file.
        about: What the file says of itself: its ``metadata_props``, JSON where they are no text.
        half: Whether weights that are numbers of float16 are stored so; what is computed stays
            float32.

    Raises:
        ValueError: If it cannot be exported, or is too large.
    """
    size = sum(row.numel() * row.element_size() for row in graph.encoder.state_dict().values())
    if size > LARGEST:
        raise ValueError(
            f"{graph.model.name} has {size / 1e9:.1f} GB of weights, and a file of ONNX holds 2 "
            "GB. Take --format torch or safetensors."
        )
    batch = torch.export.Dim("N", min=1)
    program = exporting(
        graph,
        "as ONNX",
        lambda: torch.onnx.export(
            graph,
            (graph.example,),
            input_names=[graph.takes],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},),
            custom_translation_table={
                torch.ops.aten.sort.stable: _sort,
                torch.ops.crosswalk.both_ways.default: _both_ways,
            },
            dynamo=True,
            optimize=not half,
            verbose=False,
        ),
    )
    if half:  # no more than this: `optimize` folds normalisations into weights, which are rounded
        onnxscript.optimizer.inline(program.model)
        onnxscript.optimizer.fold_constants(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    if half:
        _store_as_float16(model)
    for node in model.graph.node:  # which lines of which files here it is from
        node.ClearField("metadata_props")
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_int8(source: Path, target: Path) -> None:
    """Write a file of ONNX with weights of 8 bits; activations are rounded as they come."""
    with quiet():
        # unsigned: onnxruntime's convolutions of integers on CPUs take no other weights
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)


def embed_by(path: Path, graph: Graph) -> Embed:
    """Return what runs a file that was written of a graph, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(rows: Tensor) -> Tensor:
        (found,) = session.run([OUTPUT], {graph.takes: graph.input_of(rows).numpy()})
        return torch.from_numpy(found)

    return embed


def _store_as_float16(model: onnx.ModelProto) -> None:
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        name, rows = weight.name, numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            small = rows.astype(np.float16)
        if not np.array_equal(small, rows):
            continue
        weight.CopyFrom(numpy_helper.from_array(small, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _sort(
    values: Any,  # noqa: ANN401
    *,
    stable: bool | None = None,
    dim: int = -1,
    descending: bool = False,
) -> Any:  # noqa: ANN401
    """Translate `torch.sort`: of equal values ONNX's TopK too has the lower place first."""
    size = op.Reshape(op.Gather(op.Shape(values), dim, axis=0), op.Constant(value_ints=[1]))
    return op.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


def _both_ways(states: Any, length: Any, weights: Sequence[Any]) -> Any:  # noqa: ANN401
    """Translate `crosswalk.encoders.padded_words.both_ways`."""
    hidden = weights[1].shape[1]
    is_gru = weights[1].shape[0] == 3 * hidden
    order = (1, 0, 2) if is_gru else (0, 3, 1, 2)  # of the gates in ONNX, by their place in torch

    def stacked(directions: Sequence[Any]) -> Any:  # noqa: ANN401
        gates = [
            op.Slice(rows, [gate * hidden], [(gate + 1) * hidden], [0])
            for rows in directions
            for gate in order
        ]
        return op.Reshape(op.Concat(*gates, axis=0), [2, len(order) * hidden, -1])

    words = op.Transpose(states, perm=[1, 0, 2])
    inputs, recurrent = stacked(weights[::2]), stacked(weights[1::2])
    length = op.Cast(length, to=onnx.TensorProto.INT32)
    options = {"direction": "bidirectional", "hidden_size": hidden}
    if is_gru:
        out, *_ = op.GRU(
            *(words, inputs, recurrent, None, length), linear_before_reset=1, **options
        )
    else:
        out, *_ = op.LSTM(*(words, inputs, recurrent, None, length), **options)
    out = op.Transpose(out, perm=[2, 0, 1, 3])  # from [L, directions, N, hidden]
    return op.Reshape(out, [0, 0, -1])
