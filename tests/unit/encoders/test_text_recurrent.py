import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from crosswalk.encoders.text_recurrent import BiGru, BiLstm, packed
from crosswalk.encoders.word_vectors import LearnedWords, WordTable

Vector = list[float]
States = Callable[[nn.RNNBase, list[Vector], str], list[Vector]]
WORDS = [f"word {number}" for number in range(11)]
LENGTHS = [[3], [1, 1, 1], [2, 5, 1, 5], [7, 3, 6, 2, 4]]


def batch(lengths: list[int], width: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = torch.randint(1, len(WORDS), (len(lengths), width), generator=generator)
    length = torch.tensor(lengths)
    tokens[torch.arange(width) >= length[:, None]] = 0
    return tokens, length


def gru(**options: object) -> BiGru:
    torch.manual_seed(1)
    vectors = partial(LearnedWords, size=3)
    return BiGru(WORDS, vectors=vectors, hidden_size=4, **options).double()


def lstm(**options: object) -> BiLstm:
    torch.manual_seed(1)
    vectors = partial(LearnedWords, size=3)
    return BiLstm(WORDS, vectors=vectors, hidden_size=4, output_size=5, **options).double()


ENCODERS = [gru, lstm]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gates(weight: Tensor, vector: Vector, number: int) -> list[Vector]:
    """Return weight @ vector, cut into gates."""
    rows = [sum(w * x for w, x in zip(row, vector, strict=True)) for row in weight.tolist()]
    size = len(rows) // number
    return [rows[size * gate : size * (gate + 1)] for gate in range(number)]


def gru_states(module: nn.RNNBase, words: list[Vector], suffix: str) -> list[Vector]:
    """Return the state after each word; reset, update and new gate, no biases."""
    from_word, from_state = (getattr(module, f"weight_{part}_{suffix}") for part in ("ih", "hh"))
    state = [0.0] * module.hidden_size
    states = []
    for word in words:
        word_gates, state_gates = gates(from_word, word, 3), gates(from_state, state, 3)
        reset, update = (
            [sigmoid(a + b) for a, b in zip(word_gates[gate], state_gates[gate], strict=True)]
            for gate in (0, 1)
        )
        new = [
            math.tanh(a + r * b)
            for a, r, b in zip(word_gates[2], reset, state_gates[2], strict=True)
        ]
        state = [(1 - z) * n + z * h for z, n, h in zip(update, new, state, strict=True)]
        states.append(state)
    return states


def lstm_states(module: nn.RNNBase, words: list[Vector], suffix: str) -> list[Vector]:
    """Return the state after each word; input, forget, cell and output gate, no biases."""
    from_word, from_state = (getattr(module, f"weight_{part}_{suffix}") for part in ("ih", "hh"))
    state, cell = [0.0] * module.hidden_size, [0.0] * module.hidden_size
    states = []
    for word in words:
        summed = [
            [a + b for a, b in zip(*pair, strict=True)]
            for pair in zip(gates(from_word, word, 4), gates(from_state, state, 4), strict=True)
        ]
        cell = [
            sigmoid(f) * c + sigmoid(i) * math.tanh(g)
            for i, f, g, c in zip(*summed[:3], cell, strict=True)
        ]
        state = [sigmoid(o) * math.tanh(c) for o, c in zip(summed[3], cell, strict=True)]
        states.append(state)
    return states


def both_directions(
    states: States, module: nn.RNNBase, words: list[Vector], layer: int
) -> list[Vector]:
    forward = states(module, words, f"l{layer}")
    backward = states(module, words[::-1], f"l{layer}_reverse")[::-1]
    return [a + b for a, b in zip(forward, backward, strict=True)]


def words_of(encoder: BiGru | BiLstm, tokens: Tensor, length: Tensor, row: int) -> list[Vector]:
    table = encoder.vectors.embedding.weight
    return [table[token].tolist() for token in tokens[row, : length[row]]]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("mask_padding", [False, True])
def test_gru_features_match_an_explicit_loop(lengths: list[int], mask_padding: bool) -> None:
    encoder = gru(mask_padding=mask_padding)
    tokens, length = batch(lengths)

    features = encoder(tokens, length, max(lengths))

    for row, feature in enumerate(features):
        words = words_of(encoder, tokens, length, row)
        states = both_directions(gru_states, encoder.gru, words, 0)
        if lengths[row] < max(lengths) and not mask_padding:
            states.append([0.0] * encoder.num_features)  # the padding takes part
        expected = [max(channel) for channel in zip(*states, strict=True)]
        assert feature.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_lstm_features_match_an_explicit_loop(lengths: list[int], num_layers: int) -> None:
    encoder = lstm(num_layers=num_layers)
    tokens, length = batch(lengths)

    features = encoder(tokens, length, max(lengths))

    weight, bias = encoder.projection.weight.tolist(), encoder.projection.bias.tolist()
    for row, feature in enumerate(features):
        states = words_of(encoder, tokens, length, row)
        for layer in range(num_layers):
            states = both_directions(lstm_states, encoder.lstm, states, layer)
        projected = [
            [
                b + sum(w * x for w, x in zip(r, state, strict=True))
                for r, b in zip(weight, bias, strict=True)
            ]
            for state in states
        ]
        expected = [max(channel) for channel in zip(*projected, strict=True)]
        assert feature.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("make", ENCODERS)
@pytest.mark.parametrize("lengths", [*LENGTHS, [1 + n * n % 7 for n in range(31)]])
def test_words_are_packed_and_read_as_the_library_does(
    make: Callable[[], BiGru | BiLstm], lengths: list[int]
) -> None:
    encoder = make()
    tokens, length = batch(lengths)
    recurrent = encoder.gru if isinstance(encoder, BiGru) else encoder.lstm
    expected = pack_padded_sequence(tokens, length, batch_first=True, enforce_sorted=False)

    ids, states = packed(tokens, length, 9), encoder.states(tokens, length.numpy(), 9)

    assert torch.equal(ids.words, expected.data)
    assert torch.equal(ids.batch_sizes, expected.batch_sizes)
    read, _ = recurrent(expected._replace(data=encoder.vectors(expected.data)))
    assert torch.equal(states.words, read.data)
    assert torch.equal(states.padded(7.0), pad_packed_sequence(read, True, 7.0)[0])


def test_zero_padding_makes_features_depend_on_the_longest_caption_of_the_batch() -> None:
    encoder, masked = gru(), gru(mask_padding=True)
    tokens, length = batch([2, 5, 4])

    together = encoder(tokens, length, longest=5)
    alone = encoder(tokens[[2]], length[[2]], longest=4)[0]

    assert (alone < 0).any()
    assert_close(together[2], alone.clamp_min(0), rtol=0, atol=1e-12)
    assert_close(masked(tokens, length, longest=5)[2], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", ENCODERS)
def test_parts_of_a_batch_give_the_features_of_the_whole(
    make: Callable[[], BiGru | BiLstm],
) -> None:
    encoder = make()
    tokens, length = batch([2, 5, 1, 4, 3])

    whole = encoder(tokens, length, longest=5)
    parts = [encoder(tokens[part], length[part], longest=5) for part in ([0], [1, 2], [], [3, 4])]

    assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", ENCODERS)
def test_padding_ids_and_further_columns_do_not_matter(make: Callable[[], BiGru | BiLstm]) -> None:
    encoder = make()
    tokens, length = batch([2, 5, 1])
    other = tokens.clone()
    other[tokens == 0] = 7

    assert_close(encoder(other[:, :5], length, 5), encoder(tokens, length, 5), rtol=0, atol=0)


@pytest.mark.parametrize("make", ENCODERS)
def test_an_empty_batch_gives_no_features_and_gradients_of_zero(
    make: Callable[[], BiGru | BiLstm],
) -> None:
    encoder = make()
    tokens, length = batch([1])

    features = encoder(tokens[:0], length[:0], longest=4)
    features.sum().backward()

    assert features.shape == (0, encoder.num_features)
    assert features.dtype == torch.float64
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("make", ENCODERS)
def test_every_parameter_gets_a_gradient_that_finite_differences_confirm(
    make: Callable[[], BiGru | BiLstm],
) -> None:
    encoder = make()
    tokens, length = batch([2, 5, 4])
    encoder(tokens, length, 5).square().sum().backward()

    for name, parameter in encoder.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        place = int(gradient.abs().argmax())
        values = []
        for step in (1e-6, -2e-6):
            flat[place] += step
            values.append(encoder(tokens, length, 5).square().sum().item())
        flat[place] += 1e-6
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)
        assert gradient[place] != 0, name


def test_the_vector_of_padding_is_never_trained() -> None:
    encoder = gru()
    tokens = torch.tensor([[0, 3, 0], [1, 0, 0]])  # in CMMT's official vocabulary 0 is a word too

    encoder(tokens, torch.tensor([3, 2]), 3).sum().backward()

    gradient = encoder.vectors.embedding.weight.grad
    assert not gradient[0].any()
    assert gradient[1].any()
    assert gradient[3].any()


@pytest.mark.parametrize("make", ENCODERS)
@pytest.mark.parametrize(
    ("lengths", "longest", "message"),
    [
        ([2, 0, 3, 0], 3, r"captions \[1, 3\] of this batch have no words"),
        ([2, 10], 10, "counts 10 words, but 9 of each are kept"),
        ([2, 4], 3, "counts 4 words.*longest is said to have 3"),
    ],
)
def test_lengths_that_cannot_be_are_refused(
    make: Callable[[], BiGru | BiLstm], lengths: list[int], longest: int, message: str
) -> None:
    tokens, length = batch(lengths)

    with pytest.raises(ValueError, match=message):
        make()(tokens, length, longest)


@pytest.mark.parametrize("make", ENCODERS)
def test_a_deep_copy_and_a_loaded_state_give_the_same_features(
    make: Callable[[], BiGru | BiLstm],
) -> None:
    encoder = make()
    tokens, length = batch([2, 5, 1, 4])
    expected = encoder(tokens, length, 6)
    copied, loaded = copy.deepcopy(encoder), make()
    for parameter in loaded.parameters():
        nn.init.zeros_(parameter)
    loaded.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()

    assert_close(copied(tokens, length, 6), expected, rtol=0, atol=0)
    assert_close(loaded(tokens, length, 6), expected, rtol=0, atol=0)
    assert not torch.equal(encoder(tokens, length, 6), expected)


@pytest.mark.parametrize("make", ENCODERS)
def test_autocast_leaves_the_features_as_they_are(make: Callable[[], BiGru | BiLstm]) -> None:
    encoder = make().float()
    tokens, length = batch([2, 5, 4])

    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(tokens, length, 5)

    assert features.dtype == torch.float32
    assert_close(features, encoder(tokens, length, 5), rtol=0, atol=0)


def test_the_gru_starts_as_torchs_and_has_no_biases() -> None:
    encoder = BiGru(WORDS, vectors=partial(LearnedWords, size=30), hidden_size=25)

    names = [f"weight_{part}_l0{way}" for way in ("", "_reverse") for part in ("ih", "hh")]
    assert {name for name, _ in encoder.gru.named_parameters()} == set(names)
    for name in names:
        weight = encoder.gru.get_parameter(name)
        assert weight.abs().max() <= 0.2  # 1 / sqrt(25)
        assert weight.std().item() == pytest.approx(0.2 / math.sqrt(3), rel=0.06)


def test_only_the_forward_weights_of_the_first_lstm_layer_start_as_xavier_normal() -> None:
    torch.manual_seed(0)
    encoder = BiLstm(WORDS, vectors=partial(LearnedWords, size=30), hidden_size=25)

    for name, weight in encoder.lstm.named_parameters():
        deviation = 0.2 / math.sqrt(3)  # uniform up to 1 / sqrt(25)
        if name in ("weight_ih_l0", "weight_hh_l0"):
            deviation = math.sqrt(2 / (weight.shape[0] + weight.shape[1]))
            assert weight.abs().max() > 0.25, name
        else:
            assert weight.abs().max() <= 0.2, name
        assert weight.std().item() == pytest.approx(deviation, rel=0.06), name
    assert len(list(encoder.lstm.parameters())) == 8


def test_the_published_sizes_have_the_published_number_of_parameters() -> None:
    words = [""] * 4092
    encoder = BiGru(words, vectors=partial(WordTable, table=lambda words: torch.zeros(4092, 512)))
    with torch.device("meta"):
        cmmt = BiLstm(words, vectors=partial(LearnedWords, size=768))

    # CM-MoCo: four matrices of 1536 x 512; CMMT: the shapes of its checkpoint
    assert sum(weight.numel() for weight in encoder.parameters()) == 4 * 1536 * 512
    assert sum(weight.numel() for weight in cmmt.parameters()) == (
        4092 * 768 + 2 * 2048 * (768 + 512 + 1024 + 512) + 512 * 1024 + 512
    )
