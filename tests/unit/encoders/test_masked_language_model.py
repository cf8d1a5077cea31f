import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.masked_language_model import MaskedLanguageModel


def given(width: int = 12, captions: int = 3) -> tuple[MaskedLanguageModel, Tensor, Tensor]:
    torch.manual_seed(2)
    model = MaskedLanguageModel(width, 7, depth=2, heads=3, weight=0.5).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return (
        model,
        torch.randn(captions, 5, width).double().requires_grad_(),
        torch.randn(captions, 4, width).double().requires_grad_(),
    )


def attended(attention: nn.Module, query: Tensor, other: Tensor) -> Tensor:
    """Return what `torch.nn.MultiheadAttention` gives with the same weights."""
    reference = nn.MultiheadAttention(query.shape[2], 3, batch_first=True).double()
    reference.load_state_dict(attention.state_dict())
    return reference(query, other, other, need_weights=False)[0]


def all_logits(model: MaskedLanguageModel, text: Tensor, image: Tensor) -> Tensor:
    """Return the scores of every place, written out."""
    seen = model.ln_pre_i(image)
    x = attended(model.cross_attn, model.ln_pre_t(text), seen)  # and nothing added to it
    for block in model.cross_modal_transformer.resblocks:
        normed = block.ln_1(x)
        x = x + attended(block.attn, normed, normed)
        hidden = block.mlp.c_fc(block.ln_2(x))
        x = x + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
    head = model.mlm_head
    hidden = head.dense(model.ln_post(x))
    return head.fc(head.ln(hidden * torch.sigmoid(1.702 * hidden)))


@pytest.mark.parametrize("captions", [1, 3])
def test_words_ask_the_image_without_a_way_around(captions: int) -> None:
    model, text, image = given(captions=captions)
    label = torch.ones(captions, 5, dtype=torch.int64)

    assert_close(model.logits(text, image, label), all_logits(model, text, image).flatten(0, 1))


def test_the_head_at_labelled_places_gives_loss_and_gradients_of_the_head_at_all() -> None:
    model, text, image = given()
    label = torch.tensor([[0, 3, 0, 6, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])

    # the attention written out has weights of its own
    of = [text, image, *(row for name, row in model.named_parameters() if "attn." not in name)]
    guesses = model(text, image, label)
    found = torch.autograd.grad(guesses.loss.sum(), of)

    logits = all_logits(model, text, image).flatten(0, 1)
    losses = F.cross_entropy(logits, label.flatten(), reduction="none", ignore_index=0)
    expected = torch.autograd.grad(losses.sum(), of)
    assert_close(guesses.loss, losses[label.flatten() != 0])
    assert guesses.caption.tolist() == [0, 0, 1]
    right = (logits.argmax(dim=1) == label.flatten())[label.flatten() != 0]
    assert guesses.hit.tolist() == right.double().tolist()
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_nothing_to_guess_and_no_captions_give_gradients_of_zero() -> None:
    for captions in (2, 0):
        model, text, image = given(captions=captions)

        guesses = model(text, image, torch.zeros(captions, 5, dtype=torch.int64))
        guesses.loss.sum().backward()

        assert len(guesses.loss) == 0
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name  # as DDP waits for one
            assert not parameter.grad.any(), name


def test_weights_are_drawn_as_in_the_released_code() -> None:
    torch.manual_seed(1)
    model = MaskedLanguageModel(192, 300, depth=3)

    wanted = {
        "cross_attn.in_proj_weight": 192**-0.5,
        "cross_attn.out_proj.weight": (6 * 192) ** -0.5,
        "cross_modal_transformer.resblocks.2.attn.in_proj_weight": 192**-0.5,
        "cross_modal_transformer.resblocks.0.attn.out_proj.weight": (6 * 192) ** -0.5,
        "cross_modal_transformer.resblocks.1.mlp.c_fc.weight": (2 * 192) ** -0.5,
        "cross_modal_transformer.resblocks.1.mlp.c_proj.weight": (6 * 192) ** -0.5,
        "mlm_head.dense.weight": (2 * 192) ** -0.5,
        "mlm_head.fc.weight": (6 * 192) ** -0.5,
        "mlm_head.fc.bias": 192**-0.5 / 3**0.5,  # uniform
    }
    for name, deviation in wanted.items():
        row = model.get_parameter(name)
        assert row.std().item() == pytest.approx(deviation, rel=0.15 if row.dim() == 1 else 0.03)
    for name in ("cross_attn.in_proj_bias", "cross_attn.out_proj.bias"):
        assert not model.get_parameter(name).any()
    assert model.cross_attn.heads == 3  # one per 64 channels
