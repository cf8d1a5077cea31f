from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.dual_embedding import DualEmbedding

CAPTIONS = torch.tensor(
    [[28, 5, 7, 29, 0, 0, 0, 0, 0], [28, 1, 2, 3, 4, 5, 6, 7, 29], [28, 29, 0, 0, 0, 0, 0, 0, 0]]
)


def encoder(**options: object) -> DualEmbedding:
    torch.manual_seed(4)
    clip = ClipDualEncoder(
        image_size=(32, 16),
        patch_size=8,
        vision_width=24,
        vision_layers=3,
        vision_heads=3,
        text_width=16,
        text_layers=3,
        text_heads=2,
        embed_dim=6,
        context_length=9,
        vocabulary_size=30,
    )
    return DualEmbedding(clip, select_ratio=0.5, **{"embedding_size": 10} | options)


def images(num: int = 3) -> Tensor:
    return torch.randn(num, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def test_embeddings_are_unit_vectors_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = [encoder().embed_images(images()), encoder().embed_texts(CAPTIONS)]

    for view in views:
        assert {name: rows.shape for name, rows in view.items()} == {
            "global": (3, 6),
            "token_selection": (3, 10),
        }
        for rows in view.values():
            assert rows.dtype == torch.float32
            assert_close(rows.norm(dim=1), torch.ones(3))


def test_a_sample_is_embedded_alike_in_every_batch() -> None:
    model = encoder()

    together, alone = model.embed_texts(CAPTIONS), model.embed_texts(CAPTIONS[1:2])

    for view, rows in alone.items():
        assert_close(together[view][1:2], rows)


def test_a_caption_without_words_has_finite_embeddings_and_gradients() -> None:
    model = encoder()

    rows = model.embed_texts(CAPTIONS)
    sum(row[:, 0].sum() for row in rows.values()).backward()

    assert all(row.isfinite().all() for row in rows.values())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_every_parameter_receives_a_gradient() -> None:
    model = encoder()

    views = [model.embed_images(images()), model.embed_texts(CAPTIONS)]
    sum(rows.square()[:, 0].sum() for view in views for rows in view.values()).backward()

    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("statistics", "num_batches"), [("frozen", 0), ("train", 1)])
def test_batch_statistics_are_a_property_of_the_head_and_not_of_the_mode(
    statistics: str, num_batches: int
) -> None:
    model = encoder(statistics=statistics).train()

    model.embed_images(images())

    norm = model.image_selection.token_mlp.norm
    assert int(norm.num_batches_tracked) == num_batches
    assert bool((norm.running_mean == 0).all()) == (statistics == "frozen")


def test_the_mlp_can_be_left_out() -> None:
    model = encoder(token_mlp=torch.nn.Identity)

    assert model.embed_images(images())["token_selection"].shape == (3, 6)
    assert not any("selection" in name for name, _ in model.named_parameters())


def test_a_compiled_encoder_gives_the_same_embeddings() -> None:
    plain, compiled = encoder(), encoder()
    compiled_graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled_graphs.append(graph)
        return graph.forward

    compiled.compile(backend=backend)

    for view, rows in plain.embed_texts(CAPTIONS).items():
        assert_close(compiled.embed_texts(CAPTIONS)[view], rows, rtol=1e-5, atol=1e-6)
    for view, rows in plain.embed_images(images()).items():
        assert_close(compiled.embed_images(images())[view], rows, rtol=1e-5, atol=1e-6)
    assert len(compiled_graphs) == 2  # one block of each transformer
    assert compiled.state_dict().keys() == plain.state_dict().keys()
