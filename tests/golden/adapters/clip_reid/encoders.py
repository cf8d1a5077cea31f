"""Positions and tokens, and the official model on a small scale: features, texts, one step."""

from __future__ import annotations

import torch
from torch import Tensor

from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.encoders.clip_weights import resize_position_embedding
from crosswalk.encoders.prompts import WORDS, sentence_ids
from tests.golden.adapters.clip_reid.given import (
    images_of,
    make_prompts,
    make_second,
    state_of,
)
from tests.golden.adapters.clip_reid.training import one_step, train_prompts, train_second
from tests.golden.harness import Case, Tolerance, golden

FEATURES: Tolerance = {"rtol": 1e-6, "atol": 1e-9}
POSITIONS = ("image_encoder.positional_embedding", "image_encoder.attnpool.positional_embedding")
PATCH = 16  # of the released grids; those of ResNets are made with it, too


@golden("clip_reid", "pos_embed")
def pos_embed(case: Case) -> None:
    resized = resize_position_embedding(case.tensor("embedding"), tuple(case["grid"].tolist()))

    case.close("out_embedding", resized, rtol=1e-6, atol=1e-6)


@golden("clip_reid", "prompt_tokens")
def prompt_tokens(case: Case) -> None:
    texts, number = case["text"].tolist(), case.item("num_context")
    tokens = ClipTokenizer(case["out_tokens"].shape[1])(texts)

    case.equal("out_tokens", tokens)
    case.equal("out_end", tokens.argmax(dim=1))
    for text, row in zip(texts, tokens.tolist(), strict=True):
        before, behind = sentence_ids(text.replace(" ".join(["X"] * number), WORDS))
        case.check(len(before) == case.item("num_prefix"), "the words begin where recorded")
        case.check(row[: len(before)] == before, "what is before the words")
        end = len(before) + number
        case.check(row[end : end + len(behind)] == behind, "what is behind the words")
        case.check(not any(row[end + len(behind) :]), "nothing is behind the end token")


@golden("clip_reid", "tiny_vit")
def tiny_vit(case: Case) -> None:
    tiny(case)


@golden("clip_reid", "tiny_rn")
def tiny_rn(case: Case) -> None:
    tiny(case)


def tiny(case: Case) -> None:
    """Compare a model, or one of the two trainings of it."""
    if "epoch_order" in case:
        train_prompts(case)
    elif "batches" in case:
        train_second(case)
    else:
        whole_model(case)


def whole_model(case: Case) -> None:
    state = state_of(case)
    first, second = make_prompts(case, state), make_second(case, state)
    images, person_id = images_of(case), case.tensor("person_id")
    camera_id = case.tensor("camera_id") + 1
    pretrained_positions(case, state)

    with torch.no_grad():
        cached = first.encoder.eval().layer_features(images).projected
        everybody = torch.arange(case.item("num_classes"))
        sentences = first.prompts.sentences(everybody)
        texts = first.prompts.everybody()
        tested = second.encoder.eval().layer_features(images, camera_id)
    case.close("out_stage1_image_features", cached, **FEATURES)
    length = sentences.shape[1]
    case.check(length <= case["out_prompts"].shape[1], "a sentence fits")
    rest = case.tensor("out_prompts")[:, length:]  # behind the end token, without influence
    case.close("out_prompts", torch.cat([sentences, rest], dim=1), **FEATURES)
    case.close("out_text_features", texts, **FEATURES)
    case.close("out_text_features_of_batch", texts[person_id], **FEATURES)
    case.close(
        "out_test_feature_before_neck",
        torch.cat([tested.last, tested.projected], dim=1),
        **FEATURES,
    )
    case.close(
        "out_test_feature_after_neck",
        torch.cat([tested.last_neck, tested.projected_neck], dim=1),
        **FEATURES,
    )
    second.texts.write(texts)
    one_step(case, second, images, camera_id)


def pretrained_positions(case: Case, state: dict[str, Tensor]) -> None:
    """Compare the official model's positions with what is made of CLIP's."""
    positions = [row for name, row in state.items() if name in POSITIONS]
    height, width = case["images"].shape[2:]
    stride = case.item("stride")
    grid = (height - PATCH) // stride + 1, (width - PATCH) // stride + 1
    ours = resize_position_embedding(case.tensor("pretrained_positional_embedding"), grid)
    close = torch.allclose(ours.double(), positions[0], rtol=1e-6, atol=1e-6)
    case.check(len(positions) == 1 and close, "positions are those of CLIP, resized")
