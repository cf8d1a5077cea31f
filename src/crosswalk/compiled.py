"""Loops compiled to machine code by Numba, which keeps them on the disk for the next process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def compiled(
    *signatures: str, any_order: bool = False, fused: bool = False
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Return a decorator that compiles a function of plain loops when it is first called.

    A call lets other threads run and starts none, so the caller divides the work among its own;
    and nothing is left behind that a fork could break. Only the first call imports Numba. It takes
    seconds once per machine: the code is kept in ``$NUMBA_CACHE_DIR``, beside the source file, or
    in the user's cache folder, whichever can be written; where none can, each process compiles.

    Args:
        signatures: Types of the arguments as Numba writes them, such as ``"i8(f4[:, ::1], i8)"``.
            All are compiled together: processes that start at once then write the same files.
        any_order: Whether sums may be added up in any order, which is several times as fast; their
            last digits then depend on the processor.
        fused: Whether a sum with a product is rounded once where the processor can, as torch's are.

    Example:
        >>> import numpy as np
        >>> @compiled("i8(i8[::1])")
        ... def largest(values):
        ...     most = values[0]
        ...     for value in values:
        ...         most = max(most, value)
        ...     return most
        >>> largest(np.array([3, 7, 5]))
        7
    """
    freedom = {"reassoc", "contract"} if any_order else {"contract"} if fused else set()

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        lock = Lock()
        kernel: list[Callable[..., Result]] = []

        @wraps(function)
        def call(*args: Any) -> Result:  # noqa: ANN401
            if not kernel:
                with lock:
                    if not kernel:
                        kernel.append(_compile(function, signatures, freedom))
            return kernel[0](*args)

        return call

    return decorate


def _compile(
    function: Callable[..., Result], signatures: tuple[str, ...], freedom: set[str]
) -> Callable[..., Result]:
    import numba  # takes 0.2 s

    for cache in (True, False):
        try:
            kernel: Callable[..., Result] = numba.njit(
                list(signatures),
                nogil=True,
                cache=cache,
                error_model="numpy",
                fastmath=freedom or False,
            )(function)
            return kernel
        except (OSError, RuntimeError):  # no folder can be written, or it is full
            if not cache:
                raise
    raise AssertionError("the second way returns or raises")


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor | None]:
    """Provide as many threads as torch uses, or None for one; they end with the context.

    Example:
        >>> with threads() as pool:
        ...     sum((map if pool is None else pool.map)(abs, [-1, 2]))
        3
    """
    if torch.get_num_threads() == 1:
        yield None
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield pool


def for_each(
    function: Callable[[Any], None], items: Sequence[Any], pool: ThreadPoolExecutor | None
) -> None:
    """Call a function for each item, in the threads of a pool if there is one.

    Example:
        >>> for_each(print, range(2), None)
        0
        1
    """
    for _ in map(function, items) if pool is None else pool.map(function, items):
        pass
