"""Where the targets of stored configurations are today.

A run folder or a checkpoint of an earlier release names modules as they were called then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVED = {
    "crosswalk.data.plans": "crosswalk.data.pipeline.plans",
    "crosswalk.data.transforms": "crosswalk.data.pipeline.transforms",
    "crosswalk.data.image_transform": "crosswalk.data.pipeline.image_transform",
    "crosswalk.data.crops": "crosswalk.data.pipeline.crops",
    "crosswalk.data.tokenizers": "crosswalk.data.text.tokenizers",
    "crosswalk.data.word_tokenizer": "crosswalk.data.text.word_tokenizer",
    "crosswalk.data.noun_phrases": "crosswalk.data.text.noun_phrases",
    "crosswalk.data.text_to_image": "crosswalk.data.pairs",
    "crosswalk.data.image_to_image": "crosswalk.data.images",
    "crosswalk.data.source_target": "crosswalk.data.transfer",
    **{
        f"crosswalk.data.{reader}": f"crosswalk.data.readers.{reader}"
        for reader in (
            *("cuhk_pedes", "icfg_pedes", "rstp_reid", "own_pairs"),
            *("market1501", "dukemtmc", "msmt17", "own_images"),
        )
    },
    "crosswalk.tracking": "crosswalk.run.tracking",
    **{
        f"crosswalk.losses.pair_losses.{loss}": f"crosswalk.losses.pair_losses.{today}_of_pairs"
        for loss, today in {
            "TripletAlignment": "triplet_alignment",
            "TripletRankingSum": "triplet_ranking_sum",
            "TripletRanking": "triplet_ranking",
            "InfoNCE": "info_nce",
            "SimilarityDistribution": "similarity_distribution",
        }.items()
    },
}
"""Old names of modules, or of classes and functions in them, with today's."""


def today(target: str) -> str:
    """Return the present name of a class or function.

    Example:
        >>> today("crosswalk.data.plans.identity_plan")
        'crosswalk.data.pipeline.plans.identity_plan'
        >>> today("torch.nn.ReLU")
        'torch.nn.ReLU'
    """
    for old, new in MOVED.items():
        if target == old or target.startswith(f"{old}."):
            return new + target.removeprefix(old)
    return target


def modernised(node: Any) -> Any:  # noqa: ANN401
    """Return a stored configuration with present targets.

    Example:
        >>> modernised({"data": {"plan": {"_target_": "crosswalk.data.plans.shuffled_plan"}}})
        {'data': {'plan': {'_target_': 'crosswalk.data.pipeline.plans.shuffled_plan'}}}
    """
    if isinstance(node, list):
        return [modernised(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: today(value) if key == "_target_" and isinstance(value, str) else modernised(value)
        for key, value in node.items()
    }
