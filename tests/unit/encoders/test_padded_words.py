"""Captions with padding are read as packed ones are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crosswalk.encoders.padded_words import max_over_own_words, padded_states


@pytest.mark.parametrize(("kind", "num_layers"), [(nn.GRU, 1), (nn.LSTM, 1), (nn.LSTM, 2)])
def test_padded_captions_get_the_states_of_packed_ones(
    kind: type[nn.GRU | nn.LSTM], num_layers: int
) -> None:
    torch.manual_seed(0)
    recurrent = kind(5, 3, num_layers, bias=False, bidirectional=True, dtype=torch.float64)
    rows = torch.randn(4, 7, 5, dtype=torch.float64)
    length = torch.tensor([7, 1, 4, 6])
    packed = pack_padded_sequence(rows, length, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(recurrent(packed)[0], batch_first=True)

    found = padded_states(recurrent, rows, length)

    assert found.shape == (4, 7, 6)
    for one, other, words in zip(found, expected, length, strict=True):
        torch.testing.assert_close(one[:words], other[:words])
    largest = torch.stack([each[:words].amax(0) for each, words in zip(found, length, strict=True)])
    assert torch.equal(max_over_own_words(found, length), largest)
