"""What int8 weights cost: R@1 on the test split of the model's run, or agreement on samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crosswalk.config.check import check
from crosswalk.config.compose import restore
from crosswalk.config.construct import construct
from crosswalk.metrics.retrieval import RetrievalScores
from crosswalk.progress import Progress
from crosswalk.types import TextBatch
from crosswalk.use.graphs import Embed, Samples
from crosswalk.use.source import Source

Encoders = Mapping[str, Embed]
"""What embeds images and, of some models, captions: by ``image`` and ``text``."""


def data_to_test_on(source: Source) -> tuple[Any, str]:
    """Return a run's data, ready to be tested on; or None, and why there are none."""
    if source.kind != "run":
        return None, "it was exported from no run folder"
    folder = source.folder
    try:
        config = restore(folder.runnable_config(), [], vocabulary=folder.kept_vocabulary)
        checked = check(config, trains=False, stored=folder.config_file)
        identities = {"identities": checked.needs.plans_see_identities}
        data: Any = construct(checked.config["data"], identities)
        data.setup("test")
    except (OSError, ValueError, RuntimeError) as error:  # they are elsewhere, or have changed
        return None, str(error).splitlines()[0]
    if ("test", "query") not in data.evaluation_roles("test"):
        return None, "its data have no test split"
    return data, ""


def rank1_on(data: Any, encoders: Encoders) -> float:  # noqa: ANN401
    """Return R@1 of the test split as the evaluation of a run counts it, in [0, 1]."""
    scores = RetrievalScores(
        num_query=data.num_evaluation_samples("test", "query"),
        num_gallery=data.num_evaluation_samples("test", "gallery"),
        camera_rule=data.camera_rule,
        same_pictures=data.same_pictures("test"),
        directions=data.directions[:1],
    )
    loaders = dict(zip(data.evaluation_roles("test"), data.test_dataloader(), strict=True))
    for (split, role), loader in loaders.items():
        if split != "test":
            continue
        with Progress(f"Measuring R@1: {role}") as shown:
            for number, batch in enumerate(loader, start=1):
                is_text = isinstance(batch, TextBatch)
                rows = encoders["text"](batch.tokens) if is_text else encoders["image"](batch.image)
                scores.update(
                    *(role, {"all": rows}, batch.person_id, batch.camera_id, batch.sample_index)
                )
                shown(number, len(loader))
    return scores.compute().values["rank1"]


def agreement(samples: Mapping[str, Samples], encoders: Encoders) -> float:
    """Return the share of samples whose nearest one stays the same, in [0, 1].

    Of captions that is an image, of models of images alone another image.
    """
    expected = {what: some.expected for what, some in samples.items()}
    found = {what: some.of(encoders[what]) for what, some in samples.items()}
    return float((_nearest(expected) == _nearest(found)).float().mean())


def _nearest(rows: Mapping[str, Tensor]) -> Tensor:
    images = rows["image"]
    if "text" in rows:
        return (rows["text"] @ images.T).argmax(dim=1)
    return (images @ images.T).fill_diagonal_(-2.0).argmax(dim=1)
