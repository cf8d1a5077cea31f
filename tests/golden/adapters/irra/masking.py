"""Masked words: with recorded draws, with Python's generator, and from captions on."""

import random

import numpy as np
import torch

from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.labels.masked_words import mask_words
from tests.golden.harness import Case, golden

RATES = {"probability": 0.15, "mask_share": 0.8, "replace_share": 0.1}


def rates(case: Case) -> dict[str, float]:
    return {name: case.setting(name, value) for name, value in RATES.items()}


def is_replaced(draw: float, case: Case) -> bool:
    rate = rates(case)
    share = draw / rate["probability"]
    ends = rate["mask_share"], rate["mask_share"] + rate["replace_share"]
    return draw < rate["probability"] and ends[0] <= share < ends[1]


def mask_id(case: Case) -> int:
    return int(case.setting("mask_id", ClipTokenizer.mask_id))


@golden("irra", "mlm_mask")
def mlm_mask(case: Case) -> None:
    tokens, draws = case.tensor("tokens"), case.tensor("uniform_draws")
    replacements = case.tensor("replacement_draws")

    masked, label = mask_words(
        tokens[None], draws[None], replacements[None], mask_id=mask_id(case), **rates(case)
    )

    case.equal("out_mlm_ids", masked[0])
    case.equal("out_mlm_labels", label[0])
    case.equal("out_caption_ids", masked[0])  # shared, as released
    words = int(((tokens > 0) & (tokens < mask_id(case))).sum())
    case.equal("out_uniform_used", np.int64(words))
    replaced = sum(is_replaced(draw, case) for draw in draws[:words].tolist())
    case.equal("out_replacements_used", np.int64(replaced))


@golden("irra", "mlm_mask_seeded")
def mlm_mask_seeded(case: Case) -> None:
    tokens, last = case.tensor("tokens"), mask_id(case)
    random.seed(case.item("python_seed"))
    words = range(1, last)
    draws = torch.zeros(tokens.shape, dtype=torch.float64)
    replacements = torch.zeros_like(tokens)
    for row, caption in enumerate(tokens):
        turn = 0
        for place in range(int(((caption > 0) & (caption < last)).sum())):
            draws[row, place] = random.random()
            if is_replaced(draws[row, place].item(), case):
                replacements[row, turn] = random.choice(words)
                turn += 1

    masked, label = mask_words(tokens, draws, replacements, mask_id=last, **rates(case))

    case.equal("out_mlm_ids", masked)
    case.equal("out_mlm_labels", label)


@golden("irra", "dataset_item")
def dataset_item(case: Case) -> None:
    tokens = ClipTokenizer(case.item("text_length"))(case.json("captions_json"))

    masked, label = mask_words(
        tokens,
        case.tensor("uniform_draws"),
        case.tensor("replacement_draws"),
        mask_id=mask_id(case),
        **rates(case),
    )

    case.equal("out_mlm_ids", masked)
    case.equal("out_mlm_labels", label)
    case.equal("out_caption_ids", masked)
    case.equal("out_caption_ids_without_mlm_flag", tokens)
    case.equal("out_evaluation_ids", tokens)
    case.equal("out_pids", case["pids"])
    case.equal("out_image_ids", case["image_ids"])
