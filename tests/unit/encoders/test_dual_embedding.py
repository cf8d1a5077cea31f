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


def test_selected_patches_are_those_the_class_token_attends_to_most() -> None:
    model = encoder()

    selected = model.selected_patches(images())

    assert model.patch_grid == (4, 2)
    attention = model.clip.encode_image(images()).attention[:, 1:]  # without the class token
    for row, patches in zip(attention.tolist(), selected.tolist(), strict=True):
        assert patches == sorted(range(8), key=lambda patch: -row[patch])[:4]


def test_selected_words_are_those_the_end_token_attends_to_most_and_no_padding() -> None:
    model = encoder()  # selects 3 of 7 tokens

    selected = model.selected_words(CAPTIONS).tolist()

    attention = model.clip.encode_text(CAPTIONS).attention.tolist()
    assert selected[0] == [*sorted([1, 2], key=lambda place: -attention[0][place]), -1]
    assert selected[1] == sorted(range(1, 8), key=lambda place: -attention[1][place])[:3]
    assert selected[2] == [1, -1, -1]  # no word: the end token itself


def test_as_many_words_are_selected_as_the_embedding_pools() -> None:
    model = encoder()
    chosen: list[Tensor] = []
    model.text_selection.register_forward_pre_hook(lambda _, inputs: chosen.append(inputs[1]))

    model.embed_texts(CAPTIONS)

    pooled = (model.selected_words(CAPTIONS) >= 0).sum(dim=1)
    assert chosen[0].tolist() == pooled.tolist() == [2, 3, 1]
