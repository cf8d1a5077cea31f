"""Keeping freed memory in the process, for training on CPUs."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory instead of giving it back; return whether it took effect.

    By default every array above 32 MB is mapped anew and its pages are cleared one by one when
    they are first written: a training step on a CPU, which frees and makes the same large
    tensors again and again, spends a good part of its time there. Memory use stays at its peak.
    Call it early in a program that trains on a CPU. It does nothing outside Linux with glibc.

    Example:
        >>> isinstance(keep_freed_memory(), bool)
        True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
