from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

from skal.selection import k_center_greedy, k_center_mip, k_center_mip_subset

LINE = np.array([[0.0], [1], [2], [3], [4], [100]])


def radius(points, picks, centers=None, n_outliers=0, weights=None):
    """Least distance beyond which rows of weight `n_outliers` at most remain."""
    weights = np.ones(len(points)) if weights is None else weights
    near = cdist(points, points[list(picks)]).min(1, initial=np.inf)
    if centers is not None:
        near = np.minimum(near, cdist(points, centers).min(1, initial=np.inf))
    enough = [r for r in [0, *near] if weights[near > r].sum() <= n_outliers]
    return min(enough, default=0)


def least_radius(points, n_select, **problem):
    sets = combinations(range(len(points)), n_select)
    return min(radius(points, picks, **problem) for picks in sets)


def test_line():
    def solve(points, **params):
        picks, bounds = k_center_mip(
            points, 1, centers=[[0.0]], return_bounds=True, **params
        )
        return picks.tolist(), bounds

    assert solve(LINE) == ([5], (4.0, 4.0))
    assert solve(LINE, n_outliers=1) == ([3], (1.0, 1.0))
    # The far row stands for two: both are too many to leave out.
    assert solve(LINE, n_outliers=1, weights=[1, 1, 1, 1, 1, 2])[0] == [5]
    assert solve([[0], [4], [5], [6], [10]]) == ([3], (4.0, 4.0))
    assert k_center_greedy(LINE, 1, centers=[[0.0]]).tolist() == [5]


@pytest.mark.parametrize("n_outliers", [0, 1, 2])
@pytest.mark.parametrize("n_centers", [None, 0, 1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_brute_force(n_outliers, n_centers, weighted):
    rng = np.random.default_rng([n_outliers, n_centers or 0, weighted])
    for trial in range(12):
        n = int(rng.integers(1, 12))
        n_select = int(rng.integers(0, min(n, 4) + 1))
        # Half of them on a grid: copies, ties.
        points = rng.integers(0, 5, (n, 2)) if trial % 2 else rng.normal(size=(n, 2))
        problem = {
            "centers": None if n_centers is None else rng.normal(size=(n_centers, 2)),
            "n_outliers": n_outliers,
            "weights": rng.integers(0, 4, n) if weighted else None,
        }
        points = points.astype(float)
        picks, (lower, upper) = k_center_mip(
            points, n_select, return_bounds=True, **problem
        )
        assert picks.dtype == np.int64 and len(set(picks.tolist())) == n_select
        assert lower == upper
        np.testing.assert_allclose(upper, radius(points, picks, **problem), rtol=1e-12)
        np.testing.assert_allclose(
            upper, least_radius(points, n_select, **problem), rtol=1e-12
        )


@pytest.mark.parametrize("n_outliers", [0, 1])
@pytest.mark.parametrize("kind", ["far centre", "far row", "far groups"])
def test_bounds_hold_where_rows_are_far(kind, n_outliers):
    rng = np.random.default_rng(2)
    for far in (1e6, 1e9):
        points, centers = 1e-2 * rng.normal(size=(9, 1)), np.array([[0.0], [0.02]])
        if kind == "far centre":
            centers = np.vstack([[[far]], centers])
        elif kind == "far row":
            points[4] = far
        else:
            points[:5] += far
            centers = np.vstack([centers, centers + far])
        problem = {"centers": centers, "n_outliers": n_outliers}
        best = least_radius(points, 2, **problem)
        picks, bounds = k_center_mip(points, 2, return_bounds=True, **problem)
        assert bounds == pytest.approx((best, best), rel=1e-12)
        assert radius(points, picks, **problem) == bounds[1]
        for n_candidates in (3, 9):
            picks, (lower, upper) = k_center_mip_subset(
                points, 2, max_points=n_candidates, **problem
            )
            assert lower <= best * (1 + 1e-12) and best <= upper * (1 + 1e-12)
            assert radius(points, picks, **problem) == pytest.approx(upper, rel=1e-12)


@pytest.mark.parametrize("n_outliers", [0, 2])
def test_radius_falls_and_never_exceeds_the_greedy_one(n_outliers):
    rng = np.random.default_rng(1)
    points, centers = rng.normal(size=(150, 2)), rng.normal(size=(2, 2))
    problem = {"centers": centers, "n_outliers": n_outliers}
    last = np.inf
    for n_select in (1, 2, 4, 7, 10):
        _, (lower, upper) = k_center_mip(
            points, n_select, return_bounds=True, **problem
        )
        greedy = k_center_greedy(points, n_select, centers=centers)
        assert lower == upper <= last
        assert upper <= radius(points, greedy, **problem)
        if n_outliers == 0:
            assert radius(points, greedy, **problem) <= 2 * upper
        more = k_center_mip(
            points,
            n_select,
            centers=centers,
            n_outliers=n_outliers + 1,
            return_bounds=True,
        )
        assert more[1][1] <= upper
        last = upper


def test_the_optimum_may_be_below_half_the_greedy_radius():
    # The start of the paper's bisection is no bound where rows may be left out.
    points = np.array([[0.0], [0.1], [10], [10.1], [100], [200]])
    problem = {"n_outliers": 2}
    greedy = radius(points, k_center_greedy(points, 2), **problem)
    _, (lower, upper) = k_center_mip(points, 2, return_bounds=True, **problem)
    assert lower == upper == pytest.approx(0.1)
    assert upper < greedy / 2


def test_digits_are_proven():
    # 300 rows: the programs need several rounds of rows, reductions and swaps.
    points = load_digits().data[:300]
    picks, (lower, upper) = k_center_mip(
        points, 10, time_limit=float("inf"), return_bounds=True
    )
    assert lower == upper
    assert upper == pytest.approx(radius(points, picks))
    assert upper < 0.95 * radius(points, k_center_greedy(points, 10, random_state=0))


def test_picks_come_farthest_first():
    rng = np.random.default_rng(4)
    points, centers = rng.normal(size=(60, 3)), rng.normal(size=(4, 3))
    picks = k_center_mip(points, 8, centers=centers)
    order = k_center_greedy(points[picks], 8, centers=centers)
    assert order.tolist() == list(range(8))


@pytest.mark.parametrize("n_outliers", [0, 5])
@pytest.mark.parametrize("time_limit", [0, 0.2])
def test_time_limit_gives_a_true_interval(time_limit, n_outliers):
    # With 512 columns the rows are nearly equidistant: far from proven.
    points = np.random.default_rng(0).normal(size=(400, 512))
    picks, (lower, upper) = k_center_mip(
        points,
        40,
        n_outliers=n_outliers,
        time_limit=time_limit,
        return_bounds=True,
    )
    greedy = k_center_greedy(points, 40, random_state=0)
    bar = radius(points, greedy, n_outliers=n_outliers)
    assert len(set(picks.tolist())) == 40
    assert 0 < lower <= upper <= bar * (1 + 1e-12)
    assert upper == pytest.approx(radius(points, picks, n_outliers=n_outliers))
    if time_limit == 0:
        assert lower < upper and set(picks) == set(greedy)


@pytest.mark.parametrize("n_outliers", [0, 1])
def test_bounds_hold_where_the_clock_stops_at_once(n_outliers):
    rng = np.random.default_rng(7)
    for _ in range(30):
        points = rng.normal(size=(9, 2))
        _, (lower, upper) = k_center_mip(
            points, 2, n_outliers=n_outliers, time_limit=0, return_bounds=True
        )
        best = least_radius(points, 2, n_outliers=n_outliers)
        assert lower <= best * (1 + 1e-12) and best <= upper * (1 + 1e-12)


def test_copies_and_equal_rows():
    for n_select in (1, 3, 10):
        picks, bounds = k_center_mip(np.ones((10, 3)), n_select, return_bounds=True)
        assert sorted(set(picks)) == sorted(picks) and len(picks) == n_select
        assert bounds == (0.0, 0.0)
    points = np.repeat([[0.0], [5.0], [9.0]], 4, axis=0)
    for n_select, best in ((1, 5.0), (2, 4.0), (3, 0.0), (7, 0.0), (12, 0.0)):
        picks, bounds = k_center_mip(points, n_select, return_bounds=True)
        assert len(set(picks.tolist())) == n_select
        assert bounds == (best, best)


def test_nothing_to_select_or_to_cover():
    for n in (0, 3):
        assert k_center_mip(np.ones((n, 2)), 0).shape == (0,)
    assert k_center_mip(LINE, 0, return_bounds=True)[1] == (np.inf, np.inf)
    bounds = k_center_mip(LINE, 0, centers=[[0.0]], return_bounds=True)[1]
    assert bounds == (100.0, 100.0)
    for n_select in (0, 2):
        bounds = k_center_mip(LINE, n_select, n_outliers=9, return_bounds=True)[1]
        assert bounds == (0.0, 0.0)


def test_kinds_of_input_agree_and_stay_as_they_are():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 9, (80, 4)).astype(np.float32)
    weights = rng.integers(1, 4, 80)
    before, state = points.tobytes(), torch.get_rng_state()
    points.flags.writeable = False
    problem = {"n_outliers": 3, "weights": weights}
    expected = k_center_mip(points, 6, **problem).tolist()
    assert k_center_mip(points, 6, **problem).tolist() == expected
    for other in (torch.tensor(points.copy()), points.astype(np.float64)):
        assert k_center_mip(other, 6, **problem).tolist() == expected
    tensor = torch.tensor(weights)
    assert k_center_mip(points, 6, n_outliers=3, weights=tensor).tolist() == expected
    assert points.tobytes() == before
    assert torch.equal(state, torch.get_rng_state())


def test_errors():
    points = np.ones((3, 2))
    with pytest.raises(ValueError, match="n_select must be an int between 0 and 3"):
        k_center_mip(points, 4)
    for bad in (-1, 1.0, True, None):
        with pytest.raises(ValueError, match="n_outliers must be an int of 0 or more"):
            k_center_mip(points, 1, n_outliers=bad)
    for bad in (-1, np.nan, "3", None, True):
        with pytest.raises(ValueError, match="time_limit must be a number of seconds"):
            k_center_mip(points, 1, time_limit=bad)
    for bad in (0, 1.5, True, None):
        with pytest.raises(ValueError, match="max_points must be an int of 1 or more"):
            k_center_mip_subset(points, 1, max_points=bad)
    for bad in ([1, 1], [1, 1, -1], [1, 1, np.inf], ["a", "b", "c"], 1):
        with pytest.raises(ValueError, match="weights must be 3 finite numbers"):
            k_center_mip(points, 1, weights=bad)
    with pytest.raises(ValueError, match="centers must have 2 columns"):
        k_center_mip(points, 1, centers=np.ones((1, 3)))
    with pytest.raises(ValueError, match="points must be finite"):
        k_center_mip(points * np.nan, 1)


@pytest.mark.parametrize("n_outliers", [0, 2])
@pytest.mark.parametrize("max_points", [1, 5, 9, 14])
def test_subset_bounds_hold_for_all_rows(n_outliers, max_points):
    rng = np.random.default_rng(3)
    for _ in range(5):
        points, centers = rng.normal(size=(14, 2)), rng.normal(size=(1, 2))
        problem = {"centers": centers, "n_outliers": n_outliers}
        picks, (lower, upper) = k_center_mip_subset(
            points, 3, max_points=max_points, **problem
        )
        assert len(set(picks.tolist())) == 3
        assert upper == pytest.approx(radius(points, picks, **problem))
        best = least_radius(points, 3, **problem)
        assert lower <= best * (1 + 1e-12) and best <= upper * (1 + 1e-12)
        greedy = k_center_greedy(points, 3, centers=centers)
        assert upper <= radius(points, greedy, **problem) * (1 + 1e-12)
        if max_points == 14:
            assert upper == pytest.approx(best)


def test_subset_counts_the_rows_that_a_candidate_stands_for():
    # Two copies at 100 are one candidate: as one row it could be left out.
    points = np.repeat(LINE, [1, 1, 1, 1, 1, 2], axis=0)
    problem = {"max_points": 5, "centers": [[0.0]]}
    picks, (_, upper) = k_center_mip_subset(points, 1, n_outliers=1, **problem)
    assert picks[0] in (5, 6) and upper == 3.0
    picks, (_, upper) = k_center_mip_subset(points, 1, n_outliers=2, **problem)
    assert picks[0] in (2, 3) and upper <= 2.0
