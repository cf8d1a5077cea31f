"""Operations for whose values the host would wait, counted on a CPU or on a pretended device.

On a CPU nothing waits, so what is counted is what would: operations that hand a value to the host,
or whose shapes follow from values. On the pretended device copies to the host are known as well.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten

READING = frozenset(
    {
        aten._local_scalar_dense,  # item, and bool, int, float of a tensor
        aten.is_nonzero,
        aten.equal,
        aten.nonzero,
        aten.nonzero_numpy,
        aten.argwhere,
        aten.masked_select,
        aten._unique,
        aten._unique2,
        aten.unique_dim,
        aten.unique_consecutive,
        aten.unique_dim_consecutive,
        aten.bincount,
        aten._pack_padded_sequence,
    }
)
INDEXING = frozenset({aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_})
TO_HOST = ("cpu", "numpy", "tolist", "__array__")
"""Methods of a tensor that copy it to the host, and on a CPU hand it over."""


class DeviceReads:
    """What read values back, by the line of the package that asked for it."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    @contextmanager
    def counting(self, *, pretended: bool = False) -> Iterator[None]:
        """Count what is done inside.

        Args:
            pretended: Whether tensors have no values: reading then gives 2, or 2 rows.
        """

        def twos(tensor: Tensor) -> Any:  # noqa: ANN401
            self.note("tolist")
            return np.full(tensor.shape, 2).tolist()

        with (
            mock.patch.object(FakeTensor, "tolist", twos),  # it would be asked number by number
            _Operations(self, pretended=pretended),
            _Methods(self, pretended=pretended),
        ):
            yield

    def note(self, name: str) -> None:
        """Count one more."""
        places = [
            f"{frame.filename.rpartition('/crosswalk/')[2]}:{frame.lineno}"
            for frame in traceback.extract_stack()
            if "/src/crosswalk/" in frame.filename
        ]
        self.found[f"{name} in {places[-1] if places else 'no line of the package'}"] += 1


class _Operations(TorchDispatchMode):
    def __init__(self, reads: DeviceReads, *, pretended: bool) -> None:
        super().__init__()
        self.reads, self.pretended = reads, pretended

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        options = dict(kwargs or {})
        if not _reads(func, args, options):
            return func(*args, **options)
        self.reads.note(str(func))
        if self.pretended and func.overloadpacket is aten._local_scalar_dense:
            return 2
        if self.pretended and func.overloadpacket is aten.nonzero:
            return args[0].new_empty((2, args[0].dim()), dtype=torch.int64)
        return func(*args, **options)


class _Methods(TorchFunctionMode):
    def __init__(self, reads: DeviceReads, *, pretended: bool) -> None:
        super().__init__()
        self.reads, self.pretended = reads, pretended

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if getattr(func, "__name__", "") in TO_HOST:
            self.reads.note(func.__name__)
        if self.pretended and func in (torch.gru, torch.lstm):
            words, sizes, start, *rest = args
            captions = (start if isinstance(start, Tensor) else start[0]).shape[1]
            args = (words, _some_batch_sizes(len(words), len(sizes), captions), start, *rest)
        return func(*args, **(kwargs or {}))


def _some_batch_sizes(words: int, longest: int, captions: int) -> Tensor:
    """Return how many captions may have a first, a second, ... word: the library reads them."""
    sizes, left = [], words - longest
    for _ in range(longest):
        more = min(left, captions - 1)
        sizes.append(1 + more)
        left -= more
    with _disable_current_modes():
        return torch.tensor(sizes)


def _reads(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:  # noqa: ANN401
    """Return whether an operation hands values to the host, or takes its shape from them."""
    kind = func.overloadpacket
    if kind in INDEXING:  # a mask in the place of an index
        masks = (torch.bool, torch.uint8)
        return any(isinstance(each, Tensor) and each.dtype in masks for each in args[1])
    if kind is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    if kind is aten._to_copy:
        there = torch.device(kwargs.get("device") or args[0].device)
        return args[0].device.type != "cpu" and there.type == "cpu"
    if kind is aten.copy_:
        return args[0].device.type == "cpu" and args[1].device.type != "cpu"
    return kind in READING
