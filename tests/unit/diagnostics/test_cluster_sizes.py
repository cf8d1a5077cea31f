from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from crosswalk.diagnostics.cluster_sizes import ClusterSizes, cluster_sizes
from tests.unit.diagnostics.pages import folder_with, section_of, titles


@pytest.mark.parametrize(
    ("labels", "sizes"),
    [
        ([3, 3, 3, 1], (2.0, 3.0)),
        ([0, -1, -1], (1.0, 1.0)),
        ([2, 2, 5, 5, 5, 5, 9, -1], (2.0, 4.0)),
    ],
)
def test_sizes_are_counted_without_outliers(labels: list[int], sizes: tuple[float, float]) -> None:
    assert tuple(cluster_sizes(torch.tensor(labels)).values()) == sizes


def test_an_epoch_logs_the_sizes_of_its_clusters_and_nothing_where_there_is_none() -> None:
    logged: dict[str, float] = {}
    labels: dict[str, torch.Tensor] = {}
    module = SimpleNamespace(pseudo_labels=lambda: labels, log_dict=logged.update)

    ClusterSizes().on_train_epoch_end(None, module)
    labels["image"] = torch.tensor([-1, -1])
    ClusterSizes().on_train_epoch_end(None, module)
    assert not logged
    labels["image"] = torch.tensor([0, 0, 1, -1])
    ClusterSizes().on_train_epoch_end(None, module)

    assert logged == {"train/image_median_size": 1.5, "train/image_largest_size": 2.0}


def test_the_report_shows_them_by_epoch(tmp_path: Path) -> None:
    lines = [{"epoch": n, "train/image_median_size": 3.0 + n} for n in range(2)]

    section = section_of(ClusterSizes(), folder_with(tmp_path, lines))

    assert titles(section) == ["Images of a cluster by epoch"]
