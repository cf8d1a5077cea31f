from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.clip import (
    Attention,
    ClipDualEncoder,
    attention_row,
    open_clip_vit,
)

SIZES = {
    "image_size": (32, 16),
    "patch_size": 8,
    "vision_width": 24,
    "vision_layers": 3,
    "vision_heads": 3,
    "text_width": 16,
    "text_layers": 2,
    "text_heads": 2,
    "embed_dim": 12,
    "context_length": 9,
    "vocabulary_size": 30,
}
CAPTIONS = torch.tensor(
    [[28, 5, 7, 29, 0, 0, 0, 0, 0], [28, 29, 0, 0, 0, 0, 0, 0, 0], [28, 1, 2, 3, 4, 5, 6, 7, 29]]
)


def library_model(image_size: int | tuple[int, int], quick_gelu: bool) -> open_clip.CLIP:
    torch.manual_seed(3)
    model = open_clip.CLIP(
        embed_dim=12,
        vision_cfg={
            "image_size": image_size,
            "layers": 3,
            "width": 24,
            "head_width": 8,
            "patch_size": 8,
        },
        text_cfg={"context_length": 9, "vocab_size": 30, "width": 16, "heads": 2, "layers": 2},
        quick_gelu=quick_gelu,
    ).eval()
    for parameter in model.parameters():  # nothing may hide behind a zero or a one
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def images(num: int = 3) -> Tensor:
    return torch.randn(num, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def global_embeddings(clip: ClipDualEncoder) -> tuple[Tensor, Tensor]:
    image, text = clip.encode_image(images()), clip.encode_text(CAPTIONS)
    return (
        clip.project_image(image, image.global_position[:, None])[:, 0],
        clip.project_text(text, text.global_position[:, None])[:, 0],
    )


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_weights_of_open_clip_give_the_embeddings_of_open_clip(
    tmp_path: Path, quick_gelu: bool
) -> None:
    model = library_model((32, 16), quick_gelu)
    torch.save(model.state_dict(), tmp_path / "weights.pt")

    clip = ClipDualEncoder(**SIZES, quick_gelu=quick_gelu, pretrained=str(tmp_path / "weights.pt"))
    image, text = global_embeddings(clip)

    assert_close(image, model.encode_image(images()), rtol=1e-4, atol=1e-5)
    assert_close(text, model.encode_text(CAPTIONS), rtol=1e-4, atol=1e-5)


def every_token(clip: ClipDualEncoder, captions: Tensor) -> Tensor:
    tokens = clip.encode_text(captions)
    everywhere = torch.arange(captions.shape[1]).expand(len(captions), -1)
    return clip.project_text(tokens, everywhere)


def test_finishing_some_tokens_gives_what_finishing_all_gives() -> None:
    torch.manual_seed(0)
    clip = ClipDualEncoder(**SIZES)
    position = torch.tensor([[4, 0, 8], [1, 1, 2], [8, 3, 0]])

    some = clip.project_text(clip.encode_text(CAPTIONS), position)

    full = every_token(clip, CAPTIONS)
    for row, places in enumerate(position.tolist()):
        for column, place in enumerate(places):
            assert_close(some[row, column], full[row, place], rtol=1e-5, atol=1e-6)


def test_a_token_of_a_caption_does_not_depend_on_later_tokens() -> None:
    torch.manual_seed(0)
    clip = ClipDualEncoder(**SIZES)
    changed = CAPTIONS.clone()
    changed[:, 5:] = 11

    before, after = every_token(clip, CAPTIONS), every_token(clip, changed)

    assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("last_visible", [None, torch.tensor([0, 6, 3])])
def test_one_row_of_attention_is_the_row_of_the_whole_softmax(last_visible: Tensor | None) -> None:
    torch.manual_seed(0)
    attention = Attention(12, heads=3).double()
    torch.nn.init.normal_(attention.in_proj_weight)
    torch.nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(3, 7, 12, dtype=torch.float64)
    at = torch.zeros(3, dtype=torch.int64) if last_visible is None else last_visible

    query = attention.queries(x[torch.arange(3), at][:, None])
    row = attention_row(query, attention.keys_and_values(x)[0], last_visible)

    library = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    library.load_state_dict(attention.state_dict())
    hidden = None if last_visible is None else torch.ones(7, 7, dtype=torch.bool).triu(1)
    weights = library(x, x, x, attn_mask=hidden)[1]
    for sample in range(3):
        assert_close(row[sample], weights[sample, at[sample]])


def test_attention_rows_are_those_of_the_last_block_of_open_clip() -> None:
    model = library_model((32, 16), quick_gelu=True)
    seen: list[Tensor] = []
    block = model.visual.transformer.resblocks[-1]
    block.attn.register_forward_pre_hook(
        lambda attn, args, kwargs: seen.append(kwargs.get("query", args[0] if args else None)),
        with_kwargs=True,
    )
    model.encode_image(images())
    expected = block.attn(seen[0], seen[0], seen[0], need_weights=True)[1][:, 0]

    clip = ClipDualEncoder(**SIZES)
    weights = {k: v for k, v in model.state_dict().items() if k != "logit_scale"}
    clip.load_state_dict(weights)

    assert_close(clip.encode_image(images()).attention, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_autocast_agrees_with_float32_to_its_precision() -> None:
    torch.manual_seed(0)
    clip = ClipDualEncoder(**SIZES)
    exact = torch.cat(global_embeddings(clip))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = torch.cat(global_embeddings(clip)).float()

    cosine = torch.nn.functional.cosine_similarity(exact, rounded)
    assert cosine.min() > 0.999  # 8 bits, five blocks


def test_every_parameter_takes_part_in_the_two_encodings() -> None:
    torch.manual_seed(0)
    clip = ClipDualEncoder(**SIZES)

    sum(embedding.square().sum() for embedding in global_embeddings(clip)).backward()

    without = [name for name, p in clip.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_stride_below_the_patch_size_gives_overlapping_patches() -> None:
    clip = ClipDualEncoder(**SIZES, stride=4)

    # (32 - 8) // 4 + 1 = 7 rows, (16 - 8) // 4 + 1 = 3 columns
    assert clip.num_patches == 21
    assert clip.encode_image(images()).attention.shape == (3, 22)


def test_a_named_architecture_has_the_names_and_shapes_of_open_clip() -> None:
    config = open_clip.get_model_config("ViT-S-32-alt")
    config["vision_cfg"]["image_size"] = (64, 32)
    with torch.device("meta"):
        expected = open_clip.CLIP(**config).state_dict()
        ours = open_clip_vit("ViT-S-32-alt", image_size=(64, 32)).state_dict()

    assert {name: row.shape for name, row in ours.items()} == {
        name: row.shape for name, row in expected.items() if name != "logit_scale"
    }


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "ViT-H-14-CLIPA"])
def test_another_architecture_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*not a plain CLIP vision transformer"):
        open_clip_vit(name)


def test_an_unknown_architecture_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="ViT-B-16-quickgelu"):
        open_clip_vit("ViT-B-15")
