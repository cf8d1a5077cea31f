from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.clip_embedding import ClipEmbedding, every_token
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.clip_streams import ClipStreams
from crosswalk.encoders.clip_text import ClipText


@cache
def streams() -> ClipStreams:
    torch.manual_seed(1)
    visual = ClipResNet((1, 1, 1, 1), width=4, output_dim=6, heads=2, image_size=(48, 32))
    text = ClipText(width=8, layers=2, heads=2, embed_dim=6, context_length=7, vocabulary_size=20)
    return ClipStreams(visual, text).double().eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 48, 32, generator=torch.Generator().manual_seed(3)).double()


def test_tokens_of_images_are_what_the_pool_gives_with_a_query_at_every_position() -> None:
    clip, pool = streams(), streams().visual.attnpool
    reference = nn.MultiheadAttention(128, 2, batch_first=True).double()
    parts = (pool.q_proj, pool.k_proj, pool.v_proj)
    weight, bias = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias")
    )
    reference.load_state_dict(
        {
            "in_proj_weight": weight,
            "in_proj_bias": bias,
            "out_proj.weight": torch.eye(128),
            "out_proj.bias": torch.zeros(128),
        }
    )

    found = every_token(clip.project_image, clip.encode_image(images(3)))

    positions = clip.visual.maps(images(3)).flatten(2).mT
    tokens = torch.cat([positions.mean(dim=1, keepdim=True), positions], dim=1)
    tokens = tokens + pool.positional_embedding
    assert_close(found, pool.c_proj(reference(tokens, tokens, tokens)[0]))
    assert_close(found[:, 0], clip.visual(images(3)))  # the pool's own vector


def test_captions_are_embedded_as_by_the_text_stream() -> None:
    tokens = torch.tensor([[18, 3, 4, 19, 0, 0, 0], [18, 5, 6, 7, 8, 9, 19]])
    encoder = ClipEmbedding(streams())

    embedding = encoder.text_embedding(encoder.clip.encode_text(tokens))

    expected = encoder.clip.text(tokens, torch.tensor([4, 7]), longest=7)
    assert_close(embedding, expected)
    assert_close(encoder.embed_texts(tokens)["global"], nn.functional.normalize(expected))


def test_two_models_are_no_clip() -> None:
    visual = ClipResNet((1, 1, 1, 1), width=4, output_dim=5, heads=2, image_size=(48, 32))

    with pytest.raises(ValueError, match=r"gives 5 channels, and encoder\.clip\.text gives 6"):
        ClipStreams(visual, streams().text)
