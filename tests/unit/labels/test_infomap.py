import sys

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.config.construct import locate
from crosswalk.labels.infomap import infomap_clusters, large_modules, neighbour_links

NOTHING = torch.tensor(torch.nan)


def rows_of(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k1", [1, 2, 5, 11])
@pytest.mark.parametrize("min_similarity", [-1.0, 0.1, 0.8])
def test_links_go_to_the_nearest_points_that_are_similar_enough(
    k1: int, min_similarity: float
) -> None:
    rows = rows_of(11)
    similarity = normalize(rows.double()) @ normalize(rows.double()).T

    links = neighbour_links(rows, k1=k1, min_similarity=min_similarity)

    expected = []
    for point in range(11):
        others = [other for other in range(11) if other != point]
        nearest = sorted(others, key=lambda other: -float(similarity[point, other]))[: k1 - 1]
        expected += [
            (point, other) for other in nearest if similarity[point, other] >= min_similarity
        ]
    assert list(zip(links.start.tolist(), links.end.tolist(), strict=True)) == expected
    for start, end, weight in zip(*links, strict=True):
        assert weight == pytest.approx(float(similarity[start, end]), abs=1e-6)


@pytest.mark.parametrize(
    ("largest", "labels"),
    [(0, [0, 1, 2, 1, 3, 2, 1]), (1, [-1, 0, 1, 0, -1, 1, 0]), (2, [-1, 0, -1, 0, -1, -1, 0])],
)
def test_small_modules_are_outliers_and_the_others_numbered_by_their_first_points(
    largest: int, labels: list[int]
) -> None:
    modules = {1: 9, 3: 9, 6: 9, 2: 4, 5: 4}  # the points 0 and 4 have no link

    found = large_modules(modules, num_points=7, largest_outlier=largest)

    assert found.tolist() == labels


def test_clusters_are_the_large_modules_of_the_links() -> None:
    centre = normalize(torch.eye(6)[[0, 0, 0, 1, 1, 0, 2, 1, 1]])
    rows = centre + 0.01 * rows_of(9)

    labels, threshold = infomap_clusters(rows, NOTHING, k1=4, k2=3, seed=5)

    assert labels.tolist() == [0, 0, 0, 1, 1, 0, -1, 1, 1]
    assert threshold is NOTHING


def test_points_without_a_link_are_outliers_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosswalk.labels.infomap.PROGRAM", "nowhere")

    labels, _ = infomap_clusters(torch.eye(6), NOTHING, k1=3)

    assert labels.tolist() == [-1] * 6


def test_it_works_in_a_process_that_has_faiss() -> None:
    centre = normalize(torch.eye(6)[[0, 0, 0, 1, 1, 1]])
    assert faiss.IndexFlatIP(6).d == 6  # its types and Infomap's are the same to SWIG

    for seed in (1, 2):
        labels, _ = infomap_clusters(centre + 0.01 * rows_of(6), NOTHING, k1=3, k2=2, seed=seed)
        assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_an_infomap_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosswalk.labels.infomap.PROGRAM", "nowhere")

    with pytest.raises(
        RuntimeError, match=r"Infomap ended with status 1: .*No module named nowhere"
    ):
        infomap_clusters(rows_of(20), NOTHING, k1=2, min_similarity=0.0)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "crosswalk.labels.infomap")

    with pytest.raises(ValueError, match=r"need the package infomap.*\[infomap\]"):
        locate("crosswalk.labels.infomap.infomap_clusters", "method.clustering")


def test_labels_are_whole_numbers_on_the_device_of_the_rows() -> None:
    labels, _ = infomap_clusters(rows_of(20), NOTHING, k1=2, k2=2, min_similarity=0.0)

    assert labels.dtype == torch.int64
    assert labels.max() > 0
    assert set(np.unique(labels)) == set(range(-1, int(labels.max()) + 1))
