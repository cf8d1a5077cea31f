import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.heads import embed_layer, normed, normed_projection
from crosswalk.encoders.resnet import ResNet
from crosswalk.encoders.text_recurrent import BiGru, BiLstm
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords

WORDS = ["", "a", "man", "in", "red"]
TOKENS = torch.tensor([[1, 2, 3, 4, 0], [2, 0, 0, 0, 0], [4, 2, 1, 0, 0]])
LENGTH = torch.tensor([4, 1, 3])


class Vectors(nn.Module):
    num_features = 3

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))


def resnet() -> ResNet:
    return ResNet((1, 1), block="basic", stem_width=2, planes=(2, 3))


def two_stream(image: nn.Module | None = None, **options: object) -> TwoStream:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "text": partial(BiGru, vectors=partial(LearnedWords, size=3), hidden_size=4),
        "image_head": embed_layer,
        "text_head": embed_layer,
        "embedding_size": 6,
        "words": WORDS,
    }
    return TwoStream(image or resnet(), **(settings | options)).double()


def images(num: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 3, 32, 16, dtype=torch.float64, generator=generator)


def test_maps_are_averaged_over_positions_before_the_head() -> None:
    encoder = two_stream().eval()
    maps = encoder.image(images())
    _, _, height, width = maps.shape

    features, embedding = encoder.image_features(images()), encoder.embed_images(images())

    weight, bias = encoder.image_head.weight, encoder.image_head.bias
    for number, row in enumerate(features):
        for channel, value in enumerate(row):
            total = sum(maps[number, channel].flatten().tolist())
            assert value.item() == pytest.approx(total / (height * width))
        for size, value in enumerate(embedding[number]):
            expected = sum((weight[size] * row).tolist()) + bias[size].item()
            assert value.item() == pytest.approx(expected)


def test_vectors_are_taken_as_they_are() -> None:
    encoder = two_stream(Vectors())

    assert_close(encoder.image_features(images()), images().mean(dim=(2, 3)))
    assert encoder.image_head.in_features == 3


def test_captions_pass_the_text_stream_and_its_head() -> None:
    encoder = two_stream()

    embedding = encoder.embed_texts(TOKENS, LENGTH, longest=5)

    features = encoder.text(TOKENS, LENGTH, 5)
    assert_close(encoder.text_features(TOKENS, LENGTH, 5), features)
    assert_close(embedding, features @ encoder.text_head.weight.T + encoder.text_head.bias)
    assert embedding.shape == (3, encoder.embedding_size)


def test_the_text_stream_gets_the_words() -> None:
    assert len(two_stream().text.vectors.embedding.weight) == len(WORDS)
    with pytest.raises(ValueError, match="no list of words"):
        two_stream(words=None)


def test_the_four_parts_have_fixed_names() -> None:
    encoder = two_stream()

    assert [name for name, _ in encoder.named_children()] == [
        "image",
        "text",
        "image_head",
        "text_head",
    ]


@pytest.mark.parametrize("training", [False, True])
def test_an_empty_batch_gives_no_embeddings_and_all_gradients(training: bool) -> None:
    encoder = two_stream(Vectors()).train(training)
    parameters = dict(encoder.named_parameters())

    embedding = encoder.embed_texts(TOKENS[:0], LENGTH[:0], longest=3)
    image = encoder.embed_images(images(0))
    (embedding.sum() + image.sum()).backward()

    assert embedding.shape == image.shape == (0, 6)
    assert all(weight.grad is not None for weight in parameters.values())
    assert not any(weight.grad.any() for weight in parameters.values())


def test_embeddings_under_autocast_are_float32_and_the_heads_are_not_rounded() -> None:
    encoder = two_stream(Vectors()).float()
    image = images().float()

    with torch.autocast("cpu", torch.bfloat16):
        embedding = encoder.embed_images(image)
        text = encoder.embed_texts(TOKENS, LENGTH, 4)

    assert embedding.dtype == text.dtype == torch.float32
    assert_close(embedding, encoder.embed_images(image), rtol=0, atol=0)
    assert_close(text, encoder.embed_texts(TOKENS, LENGTH, 4), rtol=0, atol=0)


def test_maps_in_bfloat16_are_averaged_in_float32() -> None:
    encoder = two_stream(Vectors()).float()
    encoder.image.forward = lambda image: image.bfloat16()  # type: ignore[method-assign]
    maps = images().float()

    features = encoder.image_features(maps)

    assert features.dtype == torch.float32
    assert_close(features, maps.bfloat16().float().mean(dim=(2, 3)))


def test_the_order_of_pixels_in_memory_does_not_change_embeddings() -> None:
    encoder = two_stream().eval()
    other = two_stream(channels_last=True).eval()
    other.load_state_dict(encoder.state_dict())

    assert other.image.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(other.embed_images(images()), encoder.embed_images(images()))


def test_cmmt_embeds_a_single_pair_in_evaluation() -> None:
    lstm = partial(BiLstm, vectors=partial(LearnedWords, size=3), hidden_size=4, output_size=6)
    encoder = two_stream(text=lstm, image_head=normed_projection, text_head=normed).eval()

    many = encoder.embed_images(images()), encoder.embed_texts(TOKENS, LENGTH, 4)
    one = encoder.embed_images(images()[:1]), encoder.embed_texts(TOKENS[:1], LENGTH[:1], 4)

    assert_close(one, (many[0][:1], many[1][:1]))


def test_a_head_that_does_not_fit_a_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="gives 8 features"):
        two_stream(text_head=normed)


def test_copies_and_loaded_states_embed_equally() -> None:
    encoder = two_stream().eval()
    other = two_stream().eval()
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(encoder.state_dict())

    for same in (copy.deepcopy(encoder), other):
        assert_close(same.embed_images(images()), encoder.embed_images(images()), rtol=0, atol=0)
        texts = (TOKENS, LENGTH, 4)
        assert_close(same.embed_texts(*texts), encoder.embed_texts(*texts), rtol=0, atol=0)


def test_only_the_image_stream_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: compiled.append(module))
    encoder = two_stream()

    encoder.compile(dynamic=False)

    assert compiled == [encoder.image]
