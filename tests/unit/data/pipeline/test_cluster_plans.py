from collections import Counter

import numpy as np
import pytest

from crosswalk.data.pipeline.cluster_plans import (
    ClusterBatches,
    SeededDraws,
    cluster_plan,
    pass_over_clusters,
)
from crosswalk.data.pipeline.plans import Index

SIZES = (5, 1, 9, 3, 16, 4, 2)


def labelled(*sizes: int, outliers: int = 3) -> tuple[Index, Index]:
    """Return shuffled clusters of some sizes with outliers between them, and cameras."""
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(-1, len(sizes)), (outliers, *sizes))
    return random.permutation(labels), random.integers(0, 3, len(labels))


def one_pass(labels: Index, camera: Index, size: int, *, by_camera: bool, seed: int = 0) -> Index:
    draws = SeededDraws(np.random.default_rng(seed))
    return pass_over_clusters(labels, camera, draws, images_per_cluster=size, by_camera=by_camera)


def plan_of(labels: Index, camera: Index, batch_size: int, **settings: object) -> ClusterBatches:
    plan = ClusterBatches(np.full(len(labels), -1), camera, batch_size, 7, **settings)
    plan.set_labels(labels)
    return plan


def runs_of(labels: Index, found: Index) -> list[Index]:
    """Return what a pass has of one cluster after the other."""
    return np.split(found, 1 + np.flatnonzero(np.diff(labels[found])))


@pytest.mark.parametrize("by_camera", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_a_pass_has_every_cluster_once_and_no_outlier(size: int, by_camera: bool) -> None:
    labels, camera = labelled(*SIZES)

    runs = runs_of(labels, one_pass(labels, camera, size, by_camera=by_camera))

    assert sorted(int(labels[run[0]]) for run in runs) == list(range(len(SIZES)))
    for run in runs:
        assert len(run) == (1 if SIZES[labels[run[0]]] == 1 else size)


@pytest.mark.parametrize("seed", range(5))
def test_images_beside_the_first_are_by_other_cameras_where_there_are_some(seed: int) -> None:
    labels, camera = labelled(*SIZES)
    camera[labels == 3] = 1

    for run in runs_of(labels, one_pass(labels, camera, 4, by_camera=True, seed=seed)):
        cluster = np.flatnonzero(labels == labels[run[0]])
        others = cluster[camera[cluster] != camera[run[0]]]
        pool = others if len(others) else cluster[cluster != run[0]]
        assert set(run[1:].tolist()) <= set(pool.tolist())
        if len(pool) >= 4:  # the bound of drawing twice is the size, not one less
            assert len(set(run.tolist())) == len(run)


@pytest.mark.parametrize("num_others", [3, 4])
def test_a_pool_of_one_less_than_the_size_is_drawn_with_replacement(num_others: int) -> None:
    labels, camera = np.zeros(1 + num_others, np.int64), np.arange(1 + num_others)

    passes = [one_pass(labels, camera, 4, by_camera=True, seed=seed) for seed in range(60)]

    twice = [len(set(found.tolist())) < 4 for found in passes]
    assert any(twice) == (num_others == 3)


def test_without_cameras_the_whole_cluster_is_drawn_from() -> None:
    labels, camera = np.zeros(6, np.int64), np.array([1, 1, 1, 1, 1, 2])

    first = [one_pass(labels, camera, 3, by_camera=False, seed=seed) for seed in range(40)]

    counts = Counter(int(image) for found in first for image in found[1:])
    assert min(counts.values()) >= 5
    assert len(counts) == 6


def test_unknown_cameras_are_one_camera() -> None:
    labels = labelled(*SIZES)[0]
    unknown = np.full(len(labels), -1)

    found = one_pass(labels, unknown, 4, by_camera=True)

    assert np.array_equal(found, one_pass(labels, unknown, 4, by_camera=False))


@pytest.mark.parametrize("num_batches", [1, 3, 7, 20])
def test_passes_follow_each_other_and_drop_their_rests(num_batches: int) -> None:
    labels, camera = labelled(*SIZES)
    plan = plan_of(labels, camera, 8, images_per_cluster=4, num_batches=num_batches)
    plan.set_epoch(2, 1)

    batches = list(plan)

    expected: list[list[int]] = []
    for number in range(num_batches):
        draws = SeededDraws(np.random.default_rng([7, 2, 1, number]))
        found = pass_over_clusters(labels, camera, draws, images_per_cluster=4, by_camera=True)
        whole = len(found) // 8 * 8
        expected += [found[start : start + 8].tolist() for start in range(0, whole, 8)]
    assert [batch.tolist() for batch in batches] == expected[:num_batches]
    assert len(plan) == num_batches


def test_the_number_of_batches_is_that_of_the_training_set_unless_told() -> None:
    assert len(plan_of(*labelled(*SIZES, outliers=0), 8)) == 5
    assert len(plan_of(*labelled(2, outliers=0), 8)) == 1


def test_epochs_passes_and_seeds_differ_and_repeat() -> None:
    labels, camera = labelled(*SIZES)

    def drawn(seed: int, epoch: int, pass_: int) -> list[list[int]]:
        plan = ClusterBatches(labels, camera, 8, seed, images_per_cluster=4, num_batches=5)
        plan.set_epoch(epoch, pass_)
        return [batch.tolist() for batch in plan]

    places = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 2)]
    orders = [drawn(*place) for place in places]
    assert orders == [drawn(*place) for place in places]
    assert all(orders[0] != other for other in orders[1:])


def test_a_short_pass_is_an_error_that_says_what_to_change() -> None:
    plan = plan_of(*labelled(3, 1, 4), 16, images_per_cluster=4)
    plan.set_epoch(9)

    with pytest.raises(
        ValueError,
        match=r"epoch 9 has 3 clusters, which give 9 images with data\.plan\.images_per_cluster=4, "
        r"fewer than data\.batch_size=16.*method\.clustering\.eps.*data\.plan\.short_pass=fill",
    ):
        next(iter(plan))


@pytest.mark.parametrize("sizes", [(3, 1, 4), (1,), (2, 2), (5,)])
def test_further_passes_fill_a_batch_where_that_is_asked_for(sizes: tuple[int, ...]) -> None:
    labels, camera = labelled(*sizes)
    settings = {"images_per_cluster": 4, "num_batches": 3, "short_pass": "fill"}

    batches = list(plan_of(labels, camera, 16, **settings))

    assert [len(batch) for batch in batches] == [16] * 3
    for batch in batches:
        assert set(labels[batch].tolist()) == set(range(len(sizes)))


def test_a_filling_plan_is_the_same_where_passes_are_long_enough() -> None:
    labels, camera = labelled(*SIZES)
    plans = [
        plan_of(labels, camera, 8, images_per_cluster=4, num_batches=9, short_pass=short_pass)
        for short_pass in ("error", "fill")
    ]

    first, second = ([batch.tolist() for batch in plan] for plan in plans)
    assert first == second


@pytest.mark.parametrize("labels", [[-1, -1, -1], None])
def test_no_cluster_is_an_error_that_names_the_epoch_and_eps(labels: list[int] | None) -> None:
    plan = ClusterBatches(np.full(3, -1), np.zeros(3, np.int64), 2, 0)
    plan.set_labels(None if labels is None else np.array(labels))
    plan.set_epoch(4)

    with pytest.raises(ValueError, match=r"epoch 4 has no cluster.*Raise method\.clustering\.eps"):
        next(iter(plan))


def test_without_labels_identities_are_the_clusters() -> None:
    labels, camera = labelled(*SIZES)
    plan = cluster_plan(labels, camera_id=camera, batch_size=8, seed=7, images_per_cluster=4)
    own = [batch.tolist() for batch in plan]

    plan.set_labels(np.where(labels == 0, 1, labels))
    merged = [batch.tolist() for batch in plan]
    plan.set_labels(None)

    assert merged != own
    assert [batch.tolist() for batch in plan] == own


def test_there_is_one_label_per_sample_and_a_batch_of_one_at_least() -> None:
    labels, camera = labelled(3)
    with pytest.raises(ValueError, match=r"plan_labels\(\).*\[4\] labels.*6 training samples"):
        plan_of(labels, camera, 2).set_labels(labels[:4])
    with pytest.raises(ValueError, match=r"data\.batch_size=0"):
        plan_of(labels, camera, 0)


def test_the_plan_says_that_it_batches_by_person() -> None:
    assert cluster_plan.by_person
