from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.labels.mutual_refinement import outliers_as_singletons, refine_mutually
from crosswalk.labels.text_iou import text_iou
from crosswalk.losses.cluster_contrast import cluster_contrast_loss
from crosswalk.losses.hard_samples import hard_sample_loss
from crosswalk.losses.projection_matching import soft_projection_matching_loss
from crosswalk.memory.cluster_memory import ClusterMemory
from crosswalk.memory.hybrid_memory import HybridMemory
from crosswalk.methods.cmmt import CMMT
from crosswalk.types import (
    DataSpec,
    ImageBatch,
    PairBatch,
    TextBatch,
)

# Seven images; the first two have two captions each, which do not follow each other.
IMAGE_OF_SAMPLE = torch.tensor([0, 1, 2, 0, 3, 4, 1, 5, 6])
PERSON_OF_IMAGE = torch.tensor([0, 1, 0, 2, 1, 2, 2])
NUM_SAMPLES, NUM_IMAGES, SIZE = 9, 7, 5
EVERYTHING = list(range(NUM_SAMPLES))
IMAGE_CLUSTERS = [0, 1, 0, -1, 1, -1, 1]
TEXT_CLUSTERS = [2, -1, -1, 0, 1, 2, -1]
BASELINE: dict[str, Any] = {
    "clustering": None,
    "relation": "pairs",
    "cross_weight": 0.0,
    "intra_weight": 0.0,
}


class ToyEncoder(nn.Module):
    """A linear map of flat images, and one of the mean vector of a caption's tokens."""

    embedding_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(12, SIZE)
        self.words = nn.Embedding(11, 4)
        self.text = nn.Linear(4, SIZE)

    def embed_images(self, image: Tensor) -> Tensor:
        return self.image(image.flatten(1)).float()

    def embed_texts(self, tokens: Tensor, length: Tensor, longest: int) -> Tensor:
        assert longest >= int(length.max())
        mask = torch.arange(tokens.shape[1]) < length[:, None]
        mean = (self.words(tokens) * mask[:, :, None]).sum(dim=1) / length[:, None]
        return self.text(mean).float()


def by_turns(*clusters: list[int]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a clustering with given results: of the images first, then of the captions."""
    results = [torch.tensor(labels) for labels in clusters]

    def cluster(rows: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        results.append(results.pop(0))
        assert len(results[-1]) == len(rows)
        return results[-1], threshold

    return cluster


def by_median(rows: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Cluster rows by one coordinate; those with a small other one are outliers."""
    labels = (rows[:, 0] > rows[:, 0].median()).long()
    return labels.masked_fill(rows[:, 1] < rows[:, 1].quantile(0.25), -1), threshold


def cmmt(**settings: object) -> CMMT:
    method = CMMT(
        ToyEncoder(),
        DataSpec(NUM_SAMPLES, NUM_IMAGES, 3),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        **{
            "clustering": by_turns(IMAGE_CLUSTERS, TEXT_CLUSTERS),
            "memory": HybridMemory,
            "refinement": refine_mutually,
            **settings,
        },
    )
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def pairs(sample_index: list[int], person_id: Tensor | None = None) -> PairBatch:
    """Return training pairs that depend on their numbers alone."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(NUM_IMAGES, 3, 2, 2, generator=generator)
    tokens = torch.randint(1, 11, (NUM_SAMPLES, 6), generator=generator)
    length = torch.randint(1, 7, (NUM_SAMPLES,), generator=generator)
    phrases = torch.randint(0, 6, (NUM_SAMPLES, 3), generator=generator)
    persons = PERSON_OF_IMAGE[IMAGE_OF_SAMPLE] if person_id is None else person_id
    index = torch.tensor(sample_index)
    image_index = IMAGE_OF_SAMPLE[index]
    return PairBatch(
        image=images[image_index],
        tokens=tokens[index],
        length=length[index],
        person_id=persons[index],
        camera_id=torch.zeros_like(index),
        sample_index=index,
        image_index=image_index,
        phrases=phrases[index],
        key=None,
    )


def sweep(method: CMMT, person_id: Tensor | None = None) -> CMMT:
    """Do what `EpochSweep` does."""
    with torch.no_grad():
        method.on_sweep_end(method.sweep_step(pairs(EVERYTHING, person_id)))
    return method


def started(**settings: object) -> CMMT:
    """Return the method at the first step of its first epoch."""
    method = sweep(cmmt(**settings))
    method.on_train_epoch_start()
    return method


def embeddings(method: CMMT, batch: PairBatch) -> tuple[Tensor, Tensor]:
    texts = method.encoder.embed_texts(batch.tokens, batch.length, 6)
    return method.encoder.embed_images(batch.image), texts


def logged(method: CMMT, batch: PairBatch) -> dict[str, Tensor]:
    """Return every term of the loss of a step."""
    terms: dict[str, Tensor] = {}
    method.log_dict = lambda values, **kwargs: terms.update(values)  # type: ignore[method-assign]
    terms["train/loss"] = method.training_step(batch, 0)["loss"].detach()
    return {name.removeprefix("train/loss_"): value for name, value in terms.items()}


def test_the_baseline_matches_captions_with_their_own_images_alone() -> None:
    method, batch = cmmt(**BASELINE), pairs([4, 0, 3, 8])
    image, text = embeddings(method, batch)

    outputs = method.training_step(batch._replace(phrases=None), 0)

    probability = (text @ normalize(image).T).softmax(dim=1)
    expected = (probability * (probability / (torch.eye(4) + 1e-8)).log()).sum() / 4
    assert_close(outputs["loss"], expected, rtol=1e-5, atol=1e-6)
    assert set(outputs) == {"loss"}
    assert not any("memories" in name or "clusters" in name for name in method.state_dict())
    assert not method.wants_sweep(0)
    assert method.pseudo_labels() == {}
    method.on_train_epoch_start()
    method.remember(outputs)


def test_the_loss_is_the_sum_of_matching_clusters_and_hard_samples() -> None:
    settings = {
        "matching_weight": 0.5,
        "cluster_weight": 2.0,
        "cross_weight": 3.0,
        "intra_weight": 0.25,
        "iou_power": 2.0,
        "temperature": 0.1,
        "hard_samples": partial(hard_sample_loss, num_nearest=3, margin=0.2),
    }
    method, batch = started(**settings), pairs([4, 0, 3, 8, 6])
    image, text = embeddings(method, batch)
    relation = text_iou(batch.phrases) ** 2

    terms = logged(method, batch)

    def hard(anchor: Tensor, pool: Tensor) -> Tensor:
        return hard_sample_loss(anchor, pool, relation, num_nearest=3, margin=0.2).sum()

    def contrast(rows: Tensor, name: str) -> Tensor:
        memory, slot = method.memories[name], IMAGE_OF_SAMPLE[[4, 0, 3, 8, 6]]
        scores = memory.scores(normalize(rows))
        return cluster_contrast_loss(scores, memory.labels[slot], temperature=0.1).mean()

    matching = soft_projection_matching_loss(text @ normalize(image).T, relation).mean()
    expected = {
        "matching": 0.5 * matching,
        "hard_cross": 3 * hard(text, image),
        "hard_image": 0.25 * hard(image, image),
        "hard_text": 0.25 * hard(text, text),
        "cluster_image": 2 * contrast(image, "image"),
        "cluster_text": 2 * contrast(text, "text"),
    }
    assert_close(terms.pop("train/loss"), torch.stack(list(expected.values())).sum())
    assert_close(terms, {name: value.detach() for name, value in expected.items()})
    assert all(value > 0 for value in terms.values())


def test_both_directions_are_matched_on_request() -> None:
    method, batch = started(directions="both"), pairs([4, 0, 3, 8, 6])
    image, text = embeddings(method, batch)
    relation = text_iou(batch.phrases)

    terms = logged(method, batch)

    of_texts = soft_projection_matching_loss(text @ normalize(image).T, relation)
    of_images = soft_projection_matching_loss(image @ normalize(text).T, relation)
    assert_close(terms["matching"], (of_texts.mean() + of_images.mean()).detach())


def test_pairs_can_be_matched_one_to_one_while_phrases_choose_the_hard_samples() -> None:
    method, batch = started(relation="pairs"), pairs([4, 0, 3, 8, 6])
    image, text = embeddings(method, batch)

    terms = logged(method, batch)

    alone = soft_projection_matching_loss(text @ normalize(image).T, torch.eye(5)).mean()
    mined = hard_sample_loss(text, image, text_iou(batch.phrases)).sum()
    assert_close(terms["matching"], alone.detach())
    assert_close(terms["hard_cross"], mined.detach())


def test_terms_of_weight_zero_are_left_out() -> None:
    terms = logged(started(cross_weight=0.0), pairs([4, 0, 3]))

    assert "hard_cross" not in terms
    assert {"hard_image", "hard_text"} <= set(terms)


def test_the_last_caption_of_an_image_fills_its_row() -> None:
    method = sweep(cmmt())
    image, text = (normalize(rows) for rows in embeddings(method, pairs(EVERYTHING)))

    last = [3, 6, 2, 4, 5, 7, 8]  # of images 0 to 6
    assert_close(method.memories["image"].rows, image[last].detach())
    assert_close(method.memories["text"].rows, text[last].detach())


def test_captions_can_have_rows_of_their_own() -> None:
    clusters = [0, 0, -1, 1, 1, 0, -1, 1, 0]
    method = started(text_slot="caption", clustering=by_turns(IMAGE_CLUSTERS, clusters))
    image, text = (normalize(rows).detach() for rows in embeddings(method, pairs(EVERYTHING)))

    batch = pairs([6, 3])
    outputs = method.training_step(batch, 0)

    assert_close(method.memories["text"].rows, text)
    expected = refine_mutually(
        torch.tensor(IMAGE_CLUSTERS),
        torch.tensor(clusters),
        image[[3, 6, 2, 4, 5, 7, 8]],
        text,
        IMAGE_OF_SAMPLE,
    )
    assert torch.equal(method.pseudo_labels()["text_refined"], expected[1])
    assert torch.equal(method.pseudo_labels()["image_refined"], expected[0])
    assert outputs["text_slot"].tolist() == [6, 3]
    assert outputs["image_slot"].tolist() == [1, 0]


def test_an_epoch_trains_on_the_refined_clusters_with_outliers_as_classes_of_their_own() -> None:
    method = started()
    rows = {name: memory.rows for name, memory in method.memories.items()}
    given = {"image": torch.tensor(IMAGE_CLUSTERS), "text": torch.tensor(TEXT_CLUSTERS)}

    labels = method.pseudo_labels()

    refined = dict(
        zip(("image", "text"), refine_mutually(*given.values(), *rows.values()), strict=True)
    )
    for name in ("image", "text"):
        assert torch.equal(labels[name], given[name])
        assert torch.equal(labels[f"{name}_refined"], refined[name])
        assert torch.equal(method.memories[name].labels, outliers_as_singletons(refined[name]))
        assert not torch.equal(refined[name], given[name])


def test_without_refinement_outliers_stay_what_they_are() -> None:
    method = started(refinement=None)

    assert method.pseudo_labels()["text_refined"].tolist() == TEXT_CLUSTERS
    assert method.memories["text"].labels.tolist() == [2, 3, 4, 0, 1, 2, 5]


def test_the_memories_move_after_the_step_a_slot_once_for_each_of_its_captions() -> None:
    method = started(momentum=0.25)
    before = {name: memory.rows.clone() for name, memory in method.memories.items()}
    labels = method.memories["text"].labels.clone()

    outputs = method.training_step(pairs([0, 4, 3]), 0)
    unwritten = {name: memory.rows.clone() for name, memory in method.memories.items()}
    method.remember(outputs)

    assert not outputs["text"].requires_grad
    for name, memory in method.memories.items():
        assert torch.equal(unwritten[name], before[name])
        expected = before[name].clone()
        for row, slot in zip(outputs[name], (0, 3, 0), strict=True):
            expected[slot] = normalize(0.25 * expected[slot] + 0.75 * row, dim=0)
        assert_close(memory.rows, expected)
        untouched = [1, 2, 4, 5, 6]
        assert torch.equal(memory.rows[untouched], before[name][untouched])
    assert torch.equal(method.memories["text"].labels, labels)


@pytest.mark.parametrize(
    ("settings", "filled", "sweeps"),
    [
        ({}, False, [True, True, True]),
        ({}, True, [False, False, False]),
        ({"recluster_from": "encoder"}, True, [True, True, True]),
        ({"start_epoch": 2}, False, [False, False, True]),
        ({"start_epoch": 1, "recluster_from": "encoder"}, False, [False, True, True]),
        (BASELINE, False, [False, False, False]),
    ],
)
def test_all_pairs_are_embedded_once_or_in_every_epoch(
    settings: dict[str, Any], filled: bool, sweeps: list[bool]
) -> None:
    method = cmmt(**settings)
    if filled:
        sweep(method)

    assert [method.wants_sweep(epoch) for epoch in range(3)] == sweeps


def test_before_the_first_clusters_there_is_only_matching_and_mining() -> None:
    method = cmmt(start_epoch=2)

    method.on_train_epoch_start()
    terms = logged(method, pairs([4, 0, 3]))
    method.remember(method.training_step(pairs([4, 0, 3]), 0))

    assert set(terms) == {"train/loss", "matching", "hard_cross", "hard_image", "hard_text"}
    assert method.pseudo_labels() == {}
    assert not any(memory.rows.any() for memory in method.memories.values())


def test_later_epochs_cluster_the_rows_as_they_moved() -> None:
    seen = []

    def record(rows: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(rows.clone())
        return torch.zeros(len(rows), dtype=torch.int64), threshold

    method = started(clustering=record)
    method.remember(method.training_step(pairs([0, 4, 3]), 0))

    method.on_train_epoch_start()

    assert len(seen) == 4
    assert not torch.equal(seen[2], seen[0])
    assert torch.equal(seen[2], method.memories["image"].rows)
    assert torch.equal(seen[3], method.memories["text"].rows)


def test_a_clustering_is_handed_the_threshold_it_returned_for_that_modality() -> None:
    handed = []

    def record(rows: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        handed.append(threshold.item())
        return torch.zeros(len(rows), dtype=torch.int64), torch.tensor(float(len(handed)))

    method = started(clustering=record)
    restored = cmmt(clustering=record)
    restored.load_state_dict(method.state_dict())
    restored.on_train_epoch_start()

    assert handed[:2] == pytest.approx([torch.nan] * 2, nan_ok=True)
    assert handed[2:] == [1, 2]


@pytest.mark.parametrize("memory", [HybridMemory, ClusterMemory])
def test_either_memory_is_trained_against(memory: Callable[[int, int], Any]) -> None:
    method = started(memory=memory, recluster_from="encoder")
    before = {name: part.clone() for name, part in method.memories.state_dict().items()}

    outputs = method.training_step(pairs([0, 4, 3]), 0)
    outputs["loss"].backward()
    method.remember(outputs)

    moved = {
        name
        for name, part in method.memories.state_dict().items()
        if not torch.equal(part, before[name])
    }
    part = "rows" if memory is HybridMemory else "centroids"
    assert moved == {f"image.{part}", f"text.{part}"}
    assert all(weight.grad is not None for weight in method.encoder.parameters())


def train(method: CMMT, epochs: int, person_id: Tensor | None = None) -> dict[str, Any]:
    """Return all that training leaves behind: losses, weights, labels, memories."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    losses = []
    for epoch in range(epochs):
        if method.wants_sweep(epoch):
            sweep(method, person_id)
        method.on_train_epoch_start()
        for index in torch.randperm(NUM_SAMPLES, generator=generator).split([4, 3, 2]):
            outputs = method.training_step(pairs(index.tolist(), person_id), 0)
            optimizer.zero_grad()
            outputs["loss"].backward()
            method.remember(outputs)
            optimizer.step()
            losses.append(outputs["loss"].detach())
    return {"losses": torch.stack(losses), **method.state_dict()}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"text_slot": "caption", "directions": "both"},
    {"recluster_from": "encoder", "memory": ClusterMemory},
    {"relation": "pairs", "start_epoch": 1, "refinement": partial(refine_mutually, search="first")},
    BASELINE,
]


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda settings: "-".join(settings) or "default")
def test_identities_do_not_enter_training(settings: dict[str, Any]) -> None:
    settings = {"clustering": by_median, **settings}
    garbage = torch.tensor([99, -7, 0, 12345, 3, 3, -1, 2**40, 1])

    truth = train(cmmt(**settings), epochs=3)
    lie = train(cmmt(**settings), epochs=3, person_id=garbage)

    assert_close(lie, truth, rtol=0, atol=0, equal_nan=True)
    assert len(set(truth["losses"].tolist())) == len(truth["losses"])
    if settings["clustering"]:
        for name in ("image", "text"):
            assert len(truth[f"{name}_clusters"].unique()) > 1
            assert truth[f"memories.{name}.rows"].any()


def test_identities_as_upper_bound_are_relation_and_clusters() -> None:
    method = cmmt(relation="identities")
    sweep(method)
    method.on_train_epoch_start()
    batch = pairs([4, 0, 3, 8, 6])._replace(phrases=None)
    image, text = embeddings(method, batch)

    terms = logged(method, batch)

    person = batch.person_id
    same = (person[:, None] == person).float()
    matching = soft_projection_matching_loss(text @ normalize(image).T, same).mean()
    assert_close(terms["matching"], matching.detach())
    for name in ("image", "text"):
        assert method.memories[name].labels.tolist() == PERSON_OF_IMAGE.tolist()
        assert method.pseudo_labels()[f"{name}_refined"].tolist() == PERSON_OF_IMAGE.tolist()


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_resumed_training_goes_on_as_if_nothing_had_happened(epochs: int) -> None:
    whole = cmmt(clustering=by_median)
    train(whole, epochs)
    resumed = cmmt(clustering=by_median)

    resumed.load_state_dict(whole.state_dict())

    assert_close(resumed.pseudo_labels(), whole.pseudo_labels(), rtol=0, atol=0)
    assert_close(train(resumed, 2), train(whole, 2), rtol=0, atol=0, equal_nan=True)


def test_unit_vectors_are_compared_at_test() -> None:
    method, batch = cmmt(), pairs([4, 0, 3])
    image, text = embeddings(method, batch)
    nothing = torch.zeros(3, dtype=torch.int64)

    of_images = method.embed(ImageBatch(batch.image, nothing, nothing, nothing, None))
    of_texts = method.embed(TextBatch(batch.tokens, batch.length, nothing, nothing, nothing))

    assert_close(of_images, {"global": normalize(image)})
    assert_close(of_texts, {"global": normalize(text)})


def test_losses_and_memories_stay_float32_under_autocast() -> None:
    method = started()

    with torch.autocast("cpu", torch.bfloat16):
        outputs = method.training_step(pairs([0, 4, 3]), 0)
        outputs["loss"].backward()
    method.remember(outputs)

    assert outputs["loss"].dtype == torch.float32
    assert all(memory.rows.dtype == torch.float32 for memory in method.memories.values())
    exact = started().training_step(pairs([0, 4, 3]), 0)["loss"]
    assert outputs["loss"].item() == pytest.approx(exact.item(), rel=0.05)


def test_without_phrases_the_way_out_is_named() -> None:
    method, batch = started(), pairs([0, 4])._replace(phrases=None)

    with pytest.raises(ValueError, match=r"data.phrases=null.*method.relation=pairs"):
        method.training_step(batch, 0)


def test_a_memory_whose_rows_stay_needs_all_pairs_to_be_embedded_again() -> None:
    with pytest.raises(ValueError, match=r"Set method\.recluster_from=encoder"):
        cmmt(memory=ClusterMemory)
