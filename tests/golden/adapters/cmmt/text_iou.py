"""Noun phrases of captions, and what captions have in common."""

import torch
from torch import Tensor

from crosswalk.data.text.noun_phrases import NounPhrases, phrases_by_rules
from crosswalk.labels.text_iou import text_iou
from tests.golden.harness import FLOAT32, Case, golden

KINDS = {
    "out_iou_word": NounPhrases("word"),
    "out_iou_word_nosyn": NounPhrases("word", synonyms=False),
    "out_iou_pair": NounPhrases("pair"),
    "out_iou_phrase": NounPhrases("phrase"),
}


def iou_of(captions: list[str], phrases: NounPhrases) -> Tensor:
    phrases.learn(captions)
    return text_iou(phrases(captions))


@golden("cmmt", "text_iou_pairs")
def text_iou_pairs(case: Case) -> None:
    first, second = case["caption_a"].tolist(), case["caption_b"].tolist()
    for name, phrases in KINDS.items():
        both = [iou_of([a, b], phrases)[0, 1] for a, b in zip(first, second, strict=True)]
        case.close(name, torch.stack(both))
    for side, captions in (("a", first), ("b", second)):
        words = [sorted(units) for units in NounPhrases("word").units(captions)]
        case.equal(f"out_words_{side}", ["|".join(row) for row in words])
        lists = [[" ".join(phrase) for phrase in phrases_by_rules(text)] for text in captions]
        case.equal(f"out_phrases_{side}", ["|".join(row) for row in lists])


@golden("cmmt", "text_iou_matrix")
def text_iou_matrix(case: Case) -> None:
    iou = iou_of(case["captions"].tolist(), NounPhrases())

    case.close("out_iou", iou, **FLOAT32)
    case.close("out_q", iou / iou.sum(dim=1, keepdim=True), **FLOAT32)
