"""Caption encoders that read word by word, in both directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from crosswalk.encoders.heads import no_features, num_features_of
from crosswalk.encoders.padded_words import max_over_own_words, padded_states
from crosswalk.encoders.word_vectors import MakeVectors, Words
from crosswalk.ranges import Depth, Width


class BiGru(nn.Module):
    """The maximum over the words of what a bidirectional GRU makes of them.

    One layer, without biases. The published code takes the maximum over all positions up to the
    longest caption of the batch, of which those behind a caption's end are 0: a caption that is
    not the longest has no negative feature. So features depend a little on which captions share
    the batch, in training as in test; with ``mask_padding`` they do not. Runs in the precision of
    its weights under autocast too: state is carried over a hundred steps.
    Source: Han et al., CM-MoCo, BMVC 2021, released code.

    Args:
        words: The word of each token id, for ``vectors``.
        vectors: Called ``vectors(words)``; the module gives ``[n, num_features]`` of ``[n]`` ids.
        hidden_size: Channels of each direction.
        mask_padding: Whether the maximum is over a caption's own words only.

    Example:
        >>> from crosswalk.encoders.word_vectors import LearnedWords
        >>> gru = BiGru(["", "a", "man"], vectors=LearnedWords, hidden_size=5)
        >>> tokens, length = torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([2, 1])
        >>> gru(tokens, length, longest=2).shape, gru.num_features
        (torch.Size([2, 10]), 10)
    """

    def __init__(
        self,
        words: Words | None = None,
        *,
        vectors: MakeVectors,
        hidden_size: Width = 512,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.vectors = vectors(words)
        self.mask_padding = mask_padding
        self.gru = nn.GRU(
            num_features_of(self.vectors), hidden_size, bias=False, bidirectional=True
        )
        self.num_features = 2 * hidden_size

    def forward(self, tokens: Tensor, length: Tensor, longest: int) -> Tensor:
        """Return ``[b, 2 * hidden_size]`` features.

        Args:
            tokens: ``[b, L]`` token ids, 0 after the last; b may be 0.
            length: ``[b]`` tokens of each caption; 1 <= length <= L.
            longest: Greatest length in the global batch, of all processes.

        Raises:
            ValueError: If a caption is empty, or longer than ``L`` or ``longest``.
        """
        if not tokens.shape[0]:
            return no_features(self)
        if torch.compiler.is_exporting():
            states = padded_states(self.gru, self.vectors(tokens), length)
            features = max_over_own_words(states, length)
        else:
            features = _max_over_words(self.states(tokens, length, longest))
        if self.mask_padding:
            return features
        is_shorter = (length < longest).to(features.device)
        return torch.where(is_shorter[:, None], features.clamp_min(0), features)

    def states(self, tokens: Tensor, length: Tensor, longest: int) -> PackedSequence:
        """Return ``2 * hidden_size`` channels of each word; arguments as of `forward`."""
        return _read(self.gru, self.vectors, _packed(tokens, length, longest))


class BiLstm(nn.Module):
    """The maximum over the words of a projection of what a bidirectional LSTM makes of them.

    Without biases in the LSTM. The maximum is over a caption's own words, whatever shares the
    batch. Runs in the precision of its weights under autocast too. The first layer's weights of
    the forward direction are drawn by Xavier's normal rule, all others uniformly as torch does.
    Source: Zhao et al., CMMT, ICCV 2021, released code, which projects by a 1x1 convolution.

    Args:
        words: The word of each token id, for ``vectors``.
        vectors: Called ``vectors(words)``; the module gives ``[n, num_features]`` of ``[n]`` ids.
        hidden_size: Channels of each direction.
        num_layers: Of the LSTM.
        output_size: Channels of the features.

    Example:
        >>> from crosswalk.encoders.word_vectors import LearnedWords
        >>> lstm = BiLstm(["", "a", "man"], vectors=LearnedWords, hidden_size=5, output_size=7)
        >>> tokens, length = torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([2, 1])
        >>> lstm(tokens, length, longest=2).shape, lstm.num_features
        (torch.Size([2, 7]), 7)
    """

    def __init__(
        self,
        words: Words | None = None,
        *,
        vectors: MakeVectors,
        hidden_size: Width = 512,
        num_layers: Depth = 2,
        output_size: Width = 512,
    ) -> None:
        super().__init__()
        self.vectors = vectors(words)
        self.lstm = nn.LSTM(
            num_features_of(self.vectors),
            hidden_size,
            num_layers,
            bias=False,
            bidirectional=True,
        )
        for weight in (self.lstm.weight_ih_l0, self.lstm.weight_hh_l0):
            assert isinstance(weight, Tensor)
            nn.init.xavier_normal_(weight)
        self.projection = nn.Linear(2 * hidden_size, output_size)
        self.num_features = output_size

    def forward(self, tokens: Tensor, length: Tensor, longest: int) -> Tensor:
        """Return ``[b, output_size]`` features.

        Args:
            tokens: ``[b, L]`` token ids, 0 after the last; b may be 0.
            length: ``[b]`` tokens of each caption; 1 <= length <= L.
            longest: Greatest length in the global batch, of all processes.

        Raises:
            ValueError: If a caption is empty, or longer than ``L`` or ``longest``.
        """
        if not tokens.shape[0]:
            return no_features(self)
        if torch.compiler.is_exporting():
            padded = padded_states(self.lstm, self.vectors(tokens), length)
            return max_over_own_words(self.projection(padded), length)
        states = self.states(tokens, length, longest)
        with torch.autocast(tokens.device.type, enabled=False):
            return _max_over_words(_with_data(states, self.projection(states.data)))

    def states(self, tokens: Tensor, length: Tensor, longest: int) -> PackedSequence:
        """Return ``2 * hidden_size`` channels of each word; arguments as of `forward`."""
        return _read(self.lstm, self.vectors, _packed(tokens, length, longest))


def _packed(tokens: Tensor, length: Tensor, longest: int) -> PackedSequence:
    """Return the ids of all captions word by word, without padding."""
    counts = length.cpu()  # where the library wants them
    least, most = int(counts.min()), int(counts.max())
    if least < 1:
        empty = (counts < 1).nonzero().flatten().tolist()
        raise ValueError(
            f"captions {empty[:5]} of this batch have no words, so no features. Remove captions "
            "without words from the data, or see that data.tokenizer gives them one."
        )
    if most > min(longest, tokens.shape[1]):
        raise ValueError(
            f"a caption of this batch counts {most} words, but {tokens.shape[1]} of each are kept "
            f"and the longest is said to have {longest}: lengths count the words that are kept."
        )
    return pack_padded_sequence(tokens, counts, batch_first=True, enforce_sorted=False)


def _read(recurrent: nn.RNNBase, vectors: nn.Module, tokens: PackedSequence) -> PackedSequence:
    # In the weights' precision: the state is carried over up to a hundred words
    with torch.autocast(tokens.data.device.type, enabled=False):
        read: PackedSequence
        read, _ = recurrent(_with_data(tokens, vectors(tokens.data)))
        return read


def _max_over_words(states: PackedSequence) -> Tensor:
    padded, _ = pad_packed_sequence(states, batch_first=True, padding_value=-torch.inf)
    return padded.max(dim=1).values


def _with_data(packed: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
