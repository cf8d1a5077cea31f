"""A graph has to compute what its model does, but where the model itself hangs on rounding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.use import torch_programs
from crosswalk.use.graphs import Graph, Samples, difference, exporting


class Selects(nn.Module):
    """Selects the larger one of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        return F.one_hot((self.weight * rows).argmax(dim=1), 2).float()


class Selected(Graph):
    what, takes = "image", "rows"

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.encoder(rows)
        return found


def graph() -> Selected:
    method = nn.Module()
    method.encoder = Selects()
    model: Any = SimpleNamespace(method=method, name="toy")
    return Selected(model, torch.zeros(3, 2))


@pytest.mark.parametrize(("differing", "is_accepted"), [([7], True), ([8], False), ([7, 8], False)])
def test_only_a_choice_between_equals_may_differ(differing: list[int], is_accepted: bool) -> None:
    selects = graph()
    rows = torch.tensor([[1.0, 0.9]]).repeat(50, 1)
    rows[7] = 1.0
    samples = Samples(torch.arange(50), selects(rows))
    wrong = samples.expected.clone()
    wrong[differing] = wrong[differing].flip(1)
    selects.input_of = lambda places: rows[places]  # type: ignore[method-assign]

    if is_accepted:
        found = difference(selects, samples, lambda places: wrong[places], most=1e-4)
        assert found == (0.0, 1)
    else:
        with pytest.raises(ValueError, match="embeddings are up to 1"):
            difference(selects, samples, lambda places: wrong[places], most=1e-4)
    assert torch.equal(selects.encoder.weight, torch.ones(2))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), AssertionError("ours")])
def test_what_is_not_the_graphs_fault_is_not_said_to_be(error: Exception) -> None:
    def export() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        exporting(graph(), "as ONNX", export)


@pytest.mark.parametrize("inner", [torch_programs._INNER, ("no_such_table",)])
def test_another_torch_finds_the_shapes_of_grus_by_itself(
    inner: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_programs, "_INNER", inner)
    table: Any = torch.ops.aten.gru.input.py_kernels  # type: ignore[attr-defined]
    before = dict(table)

    with torch_programs._known_shapes():
        assert (table != before) is (inner != ("no_such_table",))

    assert table == before
