"""Learned prompts: how like the people's texts are each other, and their images to them."""

from __future__ import annotations

from crosswalk.diagnostics.base import LoggedCurves
from crosswalk.diagnostics.figures import Curves


class PromptSimilarity(LoggedCurves):
    """Shows cosines of training images and of the texts that were learned for people."""

    anchor = "prompts"
    title = "Similarity of prompts"
    curves = (
        Curves(
            "Images and texts",
            "cosine",
            {
                "train/own_text": "image and its own person's text",
                "train/other_texts": "image and texts of others",
                "train/between_texts": "texts of two people",
            },
            "Mean cosines. Images and texts of CLIP lie apart, so that the gap between the first "
            "two counts, not their size. Texts of two people near 1 say nearly the same of "
            "everybody: what the words have learned is the little that is left.",
        ),
        Curves(
            "Found by text",
            "share",
            {"train/found_by_text": "training images"},
            "Share of training images that the text of their own person describes better than that "
            "of any other. It should rise; where it stays at one by the number of people, the "
            "words have learned nothing.",
        ),
    )
