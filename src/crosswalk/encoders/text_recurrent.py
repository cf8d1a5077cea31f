"""Caption encoders that read word by word, in both directions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crosswalk.encoders.heads import no_features, num_features_of
from crosswalk.encoders.padded_words import max_over_own_words, padded_states
from crosswalk.encoders.word_vectors import MakeVectors, Words
from crosswalk.host import Values, on_host, to_device
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

    def forward(self, tokens: Tensor, length: Values, longest: int) -> Tensor:
        """Return ``[b, 2 * hidden_size]`` features.

        Args:
            tokens: ``[b, L]`` token ids, 0 after the last; b may be 0.
            length: ``[b]`` tokens of each caption; 1 <= length <= L. Best on the host, where the
                sizes of the packed batch come from.
            longest: Greatest length in the global batch, of all processes.

        Raises:
            ValueError: If a caption is empty, or longer than ``L`` or ``longest``.
        """
        if not tokens.shape[0]:
            return no_features(self)
        if torch.compiler.is_exporting():
            length = torch.as_tensor(length)
            states = padded_states(self.gru, self.vectors(tokens), length)
            features = max_over_own_words(states, length)
            is_shorter = length < longest
        else:
            features = self.states(tokens, length, longest).maximum()
            is_shorter = to_device(on_host(length) < longest, features.device)
        if self.mask_padding:
            return features
        return torch.where(is_shorter[:, None], features.clamp_min(0), features)

    def states(self, tokens: Tensor, length: Values, longest: int) -> PackedWords:
        """Return ``2 * hidden_size`` channels of each word; arguments as of `forward`."""
        return _read(self.gru, self.vectors, packed(tokens, length, longest))


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

    def forward(self, tokens: Tensor, length: Values, longest: int) -> Tensor:
        """Return ``[b, output_size]`` features.

        Args:
            tokens: ``[b, L]`` token ids, 0 after the last; b may be 0.
            length: ``[b]`` tokens of each caption; 1 <= length <= L. Best on the host, where the
                sizes of the packed batch come from.
            longest: Greatest length in the global batch, of all processes.

        Raises:
            ValueError: If a caption is empty, or longer than ``L`` or ``longest``.
        """
        if not tokens.shape[0]:
            return no_features(self)
        if torch.compiler.is_exporting():
            length = torch.as_tensor(length)
            padded = padded_states(self.lstm, self.vectors(tokens), length)
            return max_over_own_words(self.projection(padded), length)
        states = self.states(tokens, length, longest)
        with torch.autocast(tokens.device.type, enabled=False):
            return states._replace(words=self.projection(states.words)).maximum()

    def states(self, tokens: Tensor, length: Values, longest: int) -> PackedWords:
        """Return ``2 * hidden_size`` channels of each word; arguments as of `forward`."""
        return _read(self.lstm, self.vectors, packed(tokens, length, longest))


class PackedWords(NamedTuple):
    """The words of all captions without padding: all first words, then all second ones, ...

    Longer captions come first, so that those which are still read are always the first ones.

    Attributes:
        words: ``[n, ...]`` ids of the words, or what became of them.
        place: ``[n]`` int64 place of each word in ``captions x most`` places.
        batch_sizes: ``[most]`` int64 captions that have a first, a second, ... word; on the host.
        captions: Number of captions.
    """

    words: Tensor
    place: Tensor
    batch_sizes: Tensor
    captions: int

    def padded(self, value: float) -> Tensor:
        """Return ``[captions, most, D]`` of ``[n, D]`` words, with ``value`` behind the last."""
        most, channels = len(self.batch_sizes), self.words.shape[1]
        rows = self.words.new_full((self.captions * most, channels), value)
        return rows.index_copy(0, self.place, self.words).view(self.captions, most, channels)

    def maximum(self) -> Tensor:
        """Return ``[captions, D]`` maxima over the words of each caption."""
        return self.padded(-torch.inf).max(dim=1).values


def packed(tokens: Tensor, length: Values, longest: int) -> PackedWords:
    """Return the ids of all captions word by word, as `torch.nn.utils.rnn` packs them.

    All sizes come from the host's lengths; torch's own packing asks the device for them.

    Args:
        tokens: ``[b, L]`` token ids; b >= 1.
        length: ``[b]`` tokens of each caption.
        longest: Greatest length in the global batch, of all processes.

    Raises:
        ValueError: If a caption is empty, or longer than ``L`` or ``longest``.

    Example:
        >>> packed(torch.tensor([[4, 0, 0], [5, 6, 0]]), np.array([1, 2]), longest=2).words
        tensor([5, 4, 6])
    """
    counts = on_host(length)
    least, most = int(counts.min()), int(counts.max())
    if least < 1:
        empty = np.flatnonzero(counts < 1).tolist()
        raise ValueError(
            f"captions {empty[:5]} of this batch have no words, so no features. Remove captions "
            "without words from the data, or see that data.tokenizer gives them one."
        )
    if most > min(longest, tokens.shape[1]):
        raise ValueError(
            f"a caption of this batch counts {most} words, but {tokens.shape[1]} of each are kept "
            f"and the longest is said to have {longest}: lengths count the words that are kept."
        )
    has_word = np.arange(most)[:, None] < np.sort(counts)[::-1]
    number, row = map(torch.from_numpy, np.nonzero(has_word))
    # the library's order of equally long captions, by which sums of gradients are rounded
    caption = torch.sort(torch.from_numpy(counts), descending=True).indices[row]
    place = (caption * most + number).to(tokens.device, non_blocking=True)
    words = tokens[:, :most].flatten().index_select(0, place)
    return PackedWords(words, place, torch.from_numpy(has_word.sum(axis=1)), len(counts))


def _read(recurrent: nn.RNNBase, vectors: nn.Module, ids: PackedWords) -> PackedWords:
    # In the weights' precision: the state is carried over up to a hundred words
    with torch.autocast(ids.words.device.type, enabled=False):
        inputs = vectors(ids.words)
        layers = recurrent.num_layers * 2  # of either direction
        start = inputs.new_zeros(layers, ids.captions, recurrent.hidden_size)
        weights: list[Tensor] = [weight for layer in recurrent.all_weights for weight in layer]
        options = (False, recurrent.num_layers, 0.0, recurrent.training, True)  # both directions
        # not by the module's own forward, which reads the number of captions off the device
        if isinstance(recurrent, nn.GRU):
            states = torch.gru(inputs, ids.batch_sizes, start, weights, *options)[0]
        else:
            states = torch.lstm(inputs, ids.batch_sizes, (start, start), weights, *options)[0]
        return ids._replace(words=states)
