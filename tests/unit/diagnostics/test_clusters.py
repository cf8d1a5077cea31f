from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from crosswalk.diagnostics.clusters import Clusters, cluster_agreement, cluster_counts
from crosswalk.run.callbacks.observer import Observer
from tests.unit.diagnostics.pages import cells, folder_with, section_of, titles


class Truth:
    def __init__(self, of_samples: list[int] | None, of_images: list[int] | None) -> None:
        self.train_person_id = None if of_samples is None else torch.tensor(of_samples)
        self.train_image_person_id = None if of_images is None else torch.tensor(of_images)


class Clustering(L.LightningModule):
    """A method with given pseudo labels, which keeps what is logged."""

    def __init__(self, **labels: list[int]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.labels = {name: torch.tensor(values) for name, values in labels.items()}

    def pseudo_labels(self) -> dict[str, Tensor]:
        return self.labels

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def watching(data: Truth) -> Clusters:
    diagnostic = Clusters()
    diagnostic.watch(Path(), data)
    return diagnostic


def end_epoch(data: Truth, module: L.LightningModule) -> dict[str, float]:
    logged: dict[str, float] = {}
    module.log_dict = logged.update  # type: ignore[method-assign]
    watching(data).on_train_epoch_end(None, module)
    return logged


def entropy(counts: Counter[object]) -> float:
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


@pytest.mark.parametrize("outliers", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_clusters", [1, 3, 7])
def test_agreement_is_that_of_counted_pairs_and_shares(num_clusters: int, outliers: float) -> None:
    generator = torch.Generator().manual_seed(num_clusters)
    person_id = torch.randint(0, 4, (13,), generator=generator) + 100
    labels = torch.randint(0, num_clusters, (13,), generator=generator)
    labels[torch.rand(13, generator=generator) < outliers] = -1

    agreement = cluster_agreement(labels, person_id)

    people, alone = person_id.tolist(), labels.tolist()
    alone = [(-1, place) if label < 0 else (label, 0) for place, label in enumerate(alone)]
    clustered = [
        (label, person) for label, person in zip(labels.tolist(), people, strict=True) if label >= 0
    ]
    right = sum(
        max(Counter(person for label, person in clustered if label == number).values())
        for number in {label for label, _ in clustered}
    )
    pairs = list(itertools.combinations(range(13), 2))
    together = sum(alone[a] == alone[b] for a, b in pairs)
    same = sum(people[a] == people[b] for a, b in pairs)
    both = sum(alone[a] == alone[b] and people[a] == people[b] for a, b in pairs)
    by_chance = together * same / len(pairs)
    ari = (both - by_chance) / ((together + same) / 2 - by_chance)
    entropies = entropy(Counter(alone)), entropy(Counter(people))
    joint = entropy(Counter(zip(alone, people, strict=True)))
    nmi = (sum(entropies) - joint) / (sum(entropies) / 2)
    expected = {"ari": ari, "nmi": nmi}
    if clustered:
        expected["purity"] = right / len(clustered)
    assert agreement == pytest.approx(expected, abs=1e-12)


def test_perfect_clusters_have_all_scores_of_one_whatever_their_numbers() -> None:
    agreement = cluster_agreement(torch.tensor([7, 0, 7, 3]), torch.tensor([1, 2, 1, 9]))

    assert agreement == pytest.approx({"purity": 1.0, "ari": 1.0, "nmi": 1.0})


@pytest.mark.parametrize(
    ("labels", "clusters", "outliers"),
    [([0, 2, 2, -1], 2, 0.25), ([-1, -1], 0, 1.0), ([0], 1, 0.0), ([4, 1, 2], 3, 0.0)],
)
def test_clusters_and_outliers_are_counted(
    labels: list[int], clusters: int, outliers: float
) -> None:
    counts = cluster_counts(torch.tensor(labels))

    assert counts == {"clusters": clusters, "outliers": outliers}


def test_labels_of_images_and_of_captions_are_compared_with_their_own_persons() -> None:
    data = Truth(of_samples=[5, 5, 6, 6, 6], of_images=[5, 6, 6])

    logged = end_epoch(data, Clustering(image=[0, 1, 1], text=[0, 0, 1, 1, -1]))

    assert logged["train/image_clusters"] == 2
    assert logged["train/image_ari"] == 1
    assert logged["train/text_outliers"] == pytest.approx(0.2)
    assert logged["train/text_purity"] == 1
    assert logged["train/text_ari"] == pytest.approx(
        cluster_agreement(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([5, 5, 6, 6, 6]))["ari"]
    )
    assert len(logged) == 10


def test_labels_that_the_captions_of_an_image_share_are_compared_with_the_images() -> None:
    data = Truth(of_samples=[5, 5, 6, 6, 6], of_images=[5, 6, 6])

    logged = end_epoch(data, Clustering(text_refined=[0, 1, 0]))

    assert logged["train/text_refined_purity"] == pytest.approx(2 / 3)


def test_where_nobody_knows_the_persons_clusters_are_only_counted() -> None:
    logged = end_epoch(Truth(None, None), Clustering(image=[0, -1], text=[0, 1, 1]))

    assert logged == {
        "train/image_clusters": 1,
        "train/image_outliers": 0.5,
        "train/text_clusters": 2,
        "train/text_outliers": 0,
    }


def test_without_pseudo_labels_nothing_is_logged() -> None:
    assert end_epoch(Truth([0], [0]), Clustering()) == {}


def test_a_trainer_logs_the_clusters_of_its_epoch() -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[Observer(watching(Truth([0, 0, 1, 1], [0, 1])))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    trainer.fit(Clustering(image=[0, 1], text=[0, 0, 0, -1]), DataLoader(torch.arange(4)))

    assert trainer.callback_metrics["train/image_nmi"] == 1
    assert trainer.callback_metrics["train/text_purity"].item() == pytest.approx(2 / 3)
    assert trainer.callback_metrics["train/text_outliers"] == 0.25


def test_clusters_are_shown_before_and_after_refinement(tmp_path: Path) -> None:
    measures = {"purity": 0.5, "ari": 0.25, "nmi": 0.75, "clusters": 12.0, "outliers": 0.125}
    names = ("image", "image_refined", "text", "text_refined")
    line = {
        f"train/{name}_{measure}": value + (number if measure == "clusters" else 0)
        for number, name in enumerate(names)
        for measure, value in measures.items()
    }
    folder = folder_with(tmp_path, [{"epoch": 0, **line}])

    section = section_of(Clusters(), folder)

    heading, *rows = cells(section)
    assert heading == ["last epoch", "Purity", "ARI", "NMI", "Clusters", "Outliers"]
    assert sorted(rows) == [
        ["image, after refinement", "0.5", "0.25", "0.75", "13", "0.125"],
        ["image, before refinement", "0.5", "0.25", "0.75", "12", "0.125"],
        ["text, after refinement", "0.5", "0.25", "0.75", "15", "0.125"],
        ["text, before refinement", "0.5", "0.25", "0.75", "14", "0.125"],
    ]
    assert [title.removesuffix(" by epoch") for title in titles(section)] == heading[1:]


def test_clusters_of_people_nobody_knows_are_counted_only(tmp_path: Path) -> None:
    line = {"train/image_clusters": 4.0, "train/image_outliers": 0.5}
    folder = folder_with(tmp_path, [{"epoch": 2, **line}])

    section = section_of(Clusters(), folder)

    assert section.title == "Clusters"  # nothing was refined
    assert cells(section)[1] == ["image", "-", "-", "-", "4", "0.5"]
    assert titles(section) == ["Clusters by epoch", "Outliers by epoch"]
