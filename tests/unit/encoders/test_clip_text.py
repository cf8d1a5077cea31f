import json
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.encoders.clip_text import ClipText, open_clip_text
from crosswalk.encoders.clip_weights import read_weights

TEXT = {"context_length": 11, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3}
CAPTIONS = ["A man in red, with a bag.", "", "a woman whose very long caption is cut at its end"]


@pytest.fixture(params=[True, False], ids=["quick", "exact"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the name of a small CLIP with a ResNet that open_clip knows."""
    config = {
        "embed_dim": 12,
        "quick_gelu": request.param,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    }
    (tmp_path / "small-RN.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "small-RN.json")
    yield "small-RN"
    open_clip.factory._MODEL_CONFIGS.pop("small-RN")


def library_model(name: str) -> open_clip.CLIP:
    torch.manual_seed(3)
    model = open_clip.create_model(name).eval()
    for parameter in model.parameters():  # nothing may hide behind a zero or a one
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch(context_length: int = 11) -> tuple[Tensor, Tensor, int]:
    tokens = ClipTokenizer(context_length)(CAPTIONS)
    length = tokens.argmax(dim=1) + 1
    return tokens, length, int(length.max())


def small(**options: object) -> ClipText:
    torch.manual_seed(0)
    sizes = {"width": 8, "layers": 2, "heads": 2, "embed_dim": 4, "context_length": 6}
    return ClipText(vocabulary_size=10, **(sizes | options))  # type: ignore[arg-type]


def test_features_are_those_of_open_clip(name: str, tmp_path: Path) -> None:
    model = library_model(name)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    text = open_clip_text(name=name, pretrained=str(tmp_path / "w.pt"))
    tokens, length, longest = batch()

    features = text(tokens, length, longest)

    assert text.num_features == 12
    assert_close(features, model.encode_text(tokens), rtol=1e-5, atol=1e-6)
    single = text(tokens[[1]], length[[1]], 2)
    assert_close(single, features[[1]], rtol=1e-5, atol=1e-6)


def test_a_shorter_context_takes_the_first_positions(name: str, tmp_path: Path) -> None:
    model = library_model(name)
    torch.save(model.state_dict(), tmp_path / "w.pt")

    text = open_clip_text(name=name, pretrained=str(tmp_path / "w.pt"), context_length=7)

    tokens, length, longest = batch(7)
    padded = torch.nn.functional.pad(tokens, (0, 4))
    assert_close(text(tokens, length, longest), model.encode_text(padded), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "published", ["RN50-quickgelu", "RN101-quickgelu", "RN50x4-quickgelu", "ViT-B-32-quickgelu"]
)
def test_published_models_have_the_names_and_shapes_of_open_clip(published: str) -> None:
    with torch.device("meta"):
        theirs = open_clip.create_model(published, device="meta").state_dict()
        ours = open_clip_text(name=published, pretrained=None).state_dict()

    text = {
        name: row.shape
        for name, row in theirs.items()
        if not name.startswith("visual.") and name not in ("logit_scale", "attn_mask")
    }
    assert {name: row.shape for name, row in ours.items()} == text


def test_the_small_clip_of_the_package_loads() -> None:
    text = open_clip_text(name="tiny", pretrained="tiny_clip.safetensors")

    packaged = read_weights("tiny_clip.safetensors")
    for name, row in text.state_dict().items():
        assert_close(row, packaged[name].float(), rtol=0, atol=0)


def test_a_frozen_encoder_is_not_trained_and_another_is_wholly() -> None:
    tokens = torch.tensor([[8, 3, 9, 0, 0, 0], [8, 1, 2, 3, 4, 9]])
    frozen, trained = small(frozen=True), small()

    assert not frozen(tokens, torch.tensor([3, 6]), 6).requires_grad
    trained(tokens, torch.tensor([3, 6]), 6).square().sum().backward()

    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert all(weight.grad is not None for weight in trained.parameters())


def test_an_empty_batch_gives_no_features_and_gradients_of_zero() -> None:
    text = small()

    features = text(torch.zeros(0, 6, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 3)
    features.sum().backward()

    assert features.shape == (0, 4)
    for weight in text.parameters():
        assert weight.grad is not None
        assert not weight.grad.any()


def test_ids_of_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.tokenizer numbers 2 words, but CLIP's"):
        small(words=["", "man"])


def test_models_that_are_built_differently_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no model 'RN51' \(encoder\.text\.name\).*RN50"):
        open_clip_text(name="RN51", pretrained=None)
    with pytest.raises(ValueError, match=r"coca_ViT-B-32 .*no plain CLIP text encoder"):
        open_clip_text(name="coca_ViT-B-32", pretrained=None)


def test_weights_with_another_activation_or_of_another_model_are_refused(
    name: str, tmp_path: Path
) -> None:
    torch.save(library_model(name).state_dict(), tmp_path / "w.pt")

    with pytest.raises(ValueError, match=r"set encoder\.text\.name=RN50-quickgelu"):
        open_clip_text(name="RN50", pretrained="openai")
    with pytest.raises(ValueError, match=r"w\.pt \(encoder\.text\.pretrained\) does not fit"):
        open_clip_text(name="tiny", pretrained=str(tmp_path / "w.pt"))
    with pytest.raises(FileNotFoundError, match=r"encoder\.text\.pretrained=no\.pt is neither"):
        open_clip_text(name="ViT-B-32", pretrained="no.pt")
