"""Nearest and farthest points, against full sorts."""

import numpy as np
import pytest
import torch

import crosswalk.nearest as module
from crosswalk.nearest import nearest, nearest_and_farthest
from tests.unit.heaps import all_distances, points


@pytest.fixture(params=["compiled", "screened", "by_torch"])
def _search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test run with both searches of the CPU, and with that of other devices."""
    if request.param == "screened":
        screen(monkeypatch)
    else:
        monkeypatch.setitem(module.KEEPERS, "cpu", getattr(module, f"_keep_{request.param}"))


def screen(monkeypatch: pytest.MonkeyPatch, *, spare: int = -1) -> None:
    """Compare any number of points in bfloat16 first, whatever the processor."""
    monkeypatch.setattr(module, "SCREENED_FROM", 1)
    monkeypatch.setattr(module, "SPARE", spare)
    monkeypatch.setattr(module, "_multiplies_bfloat16", lambda _: True)


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize("scale", [1.0, 7.0])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (3, 3), (7, 2), (50, 11), (64, 64)])
@pytest.mark.parametrize("at_once", [3, 16, 4096])
def test_nearest_points_are_those_of_a_full_sort(
    monkeypatch: pytest.MonkeyPatch, count: int, k: int, at_once: int, scale: float
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    rows = points(count, 5, seed=count) * torch.linspace(1, scale, count)[:, None]

    index, distance = nearest(rows, k)

    squared = all_distances(rows)
    assert index.tolist() == squared.argsort(axis=1, kind="stable")[:, :k].tolist()
    np.testing.assert_allclose(distance, np.sort(squared, axis=1)[:, :k], rtol=0, atol=5e-6 * scale)


@pytest.mark.usefixtures("_search")
def test_a_point_is_its_own_first_neighbour_among_copies_of_it() -> None:
    rows = points(3, 700, seed=0).repeat_interleave(5, dim=0)

    index, distance = nearest(rows, 5)

    assert index[:, 0].tolist() == list(range(15))
    assert [set(found) for found in index.tolist()] == [
        set(range(first, first + 5)) for first in (0, 5, 10) for _ in range(5)
    ]
    assert distance[:, 0].tolist() == [0.0] * 15


@pytest.mark.usefixtures("_search")
@pytest.mark.parametrize(("count", "at_once"), [(1, 5), (2, 1), (13, 5), (13, 100)])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_the_farthest_points_distance_comes_with_the_nearest_points(
    monkeypatch: pytest.MonkeyPatch, count: int, at_once: int, scale: float
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    rows = scale * points(count, 3, seed=count)
    k = min(count, 4)

    index, distance, farthest = nearest_and_farthest(rows, k)

    expected_index, expected_distance = nearest(rows, k)
    assert index.tolist() == expected_index.tolist()
    assert distance.tolist() == expected_distance.tolist()
    for row, value in zip(rows.double().tolist(), farthest.tolist(), strict=True):
        others = [
            sum((a - b) ** 2 for a, b in zip(row, other, strict=True))
            for other in rows.double().tolist()
        ]
        assert value == pytest.approx(max(others), rel=1e-4, abs=1e-5 * scale**2)


@pytest.mark.parametrize(("num_threads", "at_once"), [(1, 4096), (3, 4), (3, 64)])
def test_of_equally_near_points_the_first_are_taken_by_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, num_threads: int, at_once: int
) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(module, "POINTS_OF_A_GROUP", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
    rows = corners.repeat(20, 1)

    index, _ = nearest(rows, 30)

    squared = all_distances(rows)
    np.fill_diagonal(squared, -1)
    assert index.tolist() == squared.argsort(axis=1, kind="stable")[:, :30].tolist()


def test_nearest_points_are_the_same_where_the_step_computes_in_less_precision() -> None:
    rows = points(200, 64, seed=1)
    expected = nearest(rows, 9)[0]
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")

    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nearest(rows, 9)[0]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(chosen)

    assert torch.equal(found, expected)


def test_too_few_points_are_an_error_that_names_the_setting() -> None:
    with pytest.raises(ValueError, match=r"4 points have no 5 neighbours.*clustering\.k1"):
        nearest(torch.zeros(4, 2), 5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_points_that_are_not_finite_are_an_error(bad: float) -> None:
    rows = torch.ones(4, 2)
    rows[2, 1] = bad

    with pytest.raises(ValueError, match="not finite"):
        nearest(rows, 2)


@pytest.mark.parametrize("index", ["Flat", "HNSW32;efSearch=400", "IVF2,Flat;nprobe=2"])
def test_an_index_that_looks_at_everything_finds_the_same(index: str) -> None:
    rows = points(150, 8, seed=2)

    found, distance = nearest(rows, 7, index=index)

    expected, squared = nearest(rows, 7)
    assert torch.equal(found, expected)
    torch.testing.assert_close(distance, squared, rtol=0, atol=2e-6)


def test_a_point_that_an_index_misses_is_still_its_own_first_neighbour() -> None:
    rows = points(400, 16, seed=3)

    found, distance = nearest(rows, 5, index="PQ4x2")  # two bits for four numbers: many are alike

    assert found[:, 0].tolist() == list(range(400))
    assert distance[:, 0].tolist() == [0.0] * 400
    assert all(len(set(row)) == 5 for row in found.tolist())


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("Nonsense", r"clustering\.index='Nonsense': faiss cannot build this for 40 points"),
        ("Flat;nprobe=oops", r"clustering\.index='Flat;nprobe=oops': faiss cannot build this"),
        ("IVF20,Flat;nprobe=1", "finds fewer than 30 neighbours of 40 points"),
    ],
)
def test_an_index_that_cannot_serve_is_an_error(index: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(points(40, 8, seed=4), 30, index=index)


@pytest.mark.parametrize("spare", [1, 8])
@pytest.mark.parametrize("size", [7, 16, 40])
def test_points_screened_in_bfloat16_have_distances_of_float64(
    monkeypatch: pytest.MonkeyPatch, size: int, spare: int
) -> None:
    screen(monkeypatch, spare=spare)
    looked: set[int] = set()
    monkeypatch.setattr(module, "_kept_of_some", lambda *given: looked.update(given[1].tolist()))
    rows = points(90, size, seed=size, centers=90 // 5) + 3.0

    index, distance, farthest = nearest_and_farthest(rows, 4)

    squared = all_distances(rows)
    sure = np.delete(np.arange(90), list(looked))
    assert len(sure) > 30
    np.testing.assert_array_equal(index[sure], squared.argsort(axis=1)[sure, :4])
    np.testing.assert_allclose(distance[sure], np.sort(squared, axis=1)[sure, :4], rtol=1e-7)
    np.testing.assert_allclose(farthest[sure], squared.max(axis=1)[sure], rtol=1e-7)


@pytest.mark.parametrize("away", [0.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_error_of_products_in_bfloat16_is_below_its_bound(away: float, scale: float) -> None:
    rows = points(60, 200, seed=3) * torch.linspace(1, scale, 60)[:, None] + away

    low, half_norm, bound = module._in_bfloat16(rows)

    moved = rows.double() - rows.double().mean(dim=0)
    exact = moved @ moved.T - moved.square().sum(dim=1) / 2
    error = ((low @ low.T).float() - half_norm - exact).abs().amax(dim=1)
    assert (error <= bound).all()
    assert (error >= bound / 200).any()


def test_few_points_have_to_be_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch, spare=module.SPARE)
    again = []
    monkeypatch.setattr(module, "_kept_of_some", lambda *given: again.append(len(given[1])))

    nearest_and_farthest(points(2000, 256, seed=0, centers=250), 10)

    assert sum(again) < 100
