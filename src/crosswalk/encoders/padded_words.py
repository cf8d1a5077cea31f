"""Captions read word by word without packing, for graphs that are exported.

Packing sorts captions and drops padding, whose amount no graph knows. Here padding is read too and
changes nothing: it is behind the words, and the second direction reads captions that are turned
around within their length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def padded_states(recurrent: nn.RNNBase, states: Tensor, length: Tensor) -> Tensor:
    """Return ``[b, L, 2 * hidden_size]`` states of words, and anything behind the last of each.

    What a GRU or an LSTM in both directions and without biases makes of packed captions, but for
    rounding.

    Args:
        recurrent: The GRU or LSTM.
        states: ``[b, L, D]`` vectors of the words.
        length: ``[b]`` words of each caption.

    Example:
        >>> gru = nn.GRU(1, 1, bias=False, bidirectional=True)
        >>> rows = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 7.0]])[:, :, None]
        >>> found = padded_states(gru, rows, torch.tensor([2, 2]))
        >>> torch.equal(found[0, :2], found[1, :2])
        True
    """
    # an operation of its own where ONNX has one; a program of torch is to need nothing but torch
    read = both_ways if torch.onnx.is_in_onnx_export() else _both_ways
    layers = iter(recurrent.all_weights)  # of a layer's first direction, then of its second
    for forward, backward in zip(layers, layers, strict=True):
        states = read(states, length, [*forward, *backward])
    return states


def max_over_own_words(states: Tensor, length: Tensor) -> Tensor:
    """Return ``[b, D]`` maxima over the first ``[b]`` of ``[b, L, D]`` states.

    Example:
        >>> max_over_own_words(torch.tensor([[[1.0], [3.0], [8.0]]]), torch.tensor([2]))
        tensor([[3.]])
    """
    behind = torch.arange(states.shape[1], device=states.device) >= length[:, None]
    return states.masked_fill(behind[:, :, None], -torch.inf).amax(dim=1)


def _both_ways(states: Tensor, length: Tensor, weights: list[Tensor]) -> Tensor:
    """Return what one layer gives; ``weights`` are input's and state's of both directions."""
    place = torch.arange(states.shape[1], device=states.device)
    last = length[:, None] - 1
    turned = torch.where(place <= last, last - place, place)[:, :, None]
    hidden = weights[1].shape[1]
    is_gru = weights[1].shape[0] == 3 * hidden  # gates; an LSTM has 4
    start = states.new_zeros(1, states.shape[0], hidden)

    def one_way(inputs: Tensor, weights: list[Tensor]) -> Tensor:
        options = (False, 1, 0.0, False, False, True)  # one layer, one direction, batch first
        if is_gru:
            return torch.gru(inputs, start, weights, *options)[0]
        return torch.lstm(inputs, (start, start), weights, *options)[0]

    def turn(rows: Tensor) -> Tensor:
        return rows.gather(1, turned.expand(-1, -1, rows.shape[2]))

    forward, backward = one_way(states, weights[:2]), one_way(turn(states), weights[2:])
    return torch.cat([forward, turn(backward)], dim=2)


both_ways = torch.library.custom_op("crosswalk::both_ways", _both_ways, mutates_args=())
"""The same as one operation."""


@both_ways.register_fake
def _shape(states: Tensor, length: Tensor, weights: list[Tensor]) -> Tensor:
    return states.new_empty(*states.shape[:2], 2 * weights[1].shape[1])
