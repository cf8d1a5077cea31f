"""Random numbers as a pure function of (seed, epoch, pass, sample), on any device.

A sample gets the same draws on any number of processes and workers and after a resume, because
no generator is advanced. The hash is the finaliser of splitmix64 in int64 arithmetic, which
wraps around alike on CPU and GPU.
Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _signed(value: int) -> int:
    """Return the int64 that has the lower 64 bits of ``value``."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Return the logical right shift; that of int64 tensors would copy the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """Return a bijection of int64 in which every input bit flips half of the output bits."""
    value = (value ^ _shifted(value, 30)) * _signed(_MULTIPLIERS[0])
    value = (value ^ _shifted(value, 27)) * _signed(_MULTIPLIERS[1])
    return value ^ _shifted(value, 31)


def sample_key(seed: int, epoch: int, pass_: int, sample_index: Tensor) -> Tensor:
    """Return the ``[B]`` int64 keys of the random draws of samples.

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        pass_: Which pass over the data within the epoch: 0 trains, 1 sweeps, more for further
            passes, so that each sees augmentations of its own.
        sample_index: ``[B]`` int64.

    Example:
        >>> index = torch.tensor([4, 5])
        >>> bool((sample_key(1, 0, 0, index) != sample_key(1, 0, 1, index)).all())
        True
    """
    state = torch.zeros((), dtype=torch.int64, device=sample_index.device)
    for word in (seed, epoch, pass_):
        state = _mix(state + _signed((word + 1) * _GOLDEN_GAMMA))
    return _mix(state + (sample_index + 1) * _signed(_GOLDEN_GAMMA))


def keyed_uniform(key: Tensor, num_draws: int, stream: int = 0) -> Tensor:
    """Return ``[B, num_draws]`` float64 uniform numbers in [0, 1), a function of the keys alone.

    Args:
        key: ``[B]`` int64 keys from `sample_key`.
        num_draws: Numbers per key. Fewer draws are the beginning of more.
        stream: Different streams of a key are independent: one per purpose (image, text).

    Example:
        >>> key = torch.tensor([7, 8])
        >>> bool((keyed_uniform(key, 3)[:, :2] == keyed_uniform(key, 2)).all())
        True
        >>> bool((keyed_uniform(key, 3) == keyed_uniform(key.flip(0), 3).flip(0)).all())
        True
    """
    counter = torch.arange(1, num_draws + 1, dtype=torch.int64, device=key.device)
    start = _mix(key ^ _signed((stream + 1) * _MULTIPLIERS[0]))
    bits = _mix(start[:, None] + counter * _signed(_GOLDEN_GAMMA))
    return _shifted(bits, 11).double() * 2.0**-53  # all 53 bits of a float64's fraction
