import numpy as np
import pytest
import torch

from skal.selection import nearest_distinct


def brute_force(points, targets):
    distances = np.linalg.norm(targets[:, None] - points, axis=2)
    picks = []
    for _ in targets:
        target, point = np.unravel_index(distances.argmin(), distances.shape)
        picks.append(point)
        distances[target], distances[:, point] = np.inf, np.inf
    return picks


@pytest.mark.parametrize("n_targets", [1, 20, 150, 300])
@pytest.mark.parametrize("spread", [1.0, 0.01])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_picks_are_those_of_brute_force(n_targets, spread, dtype):
    """Targets close together see each other's points taken, round after round."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((300, 3)).astype(dtype)
    targets = (spread * rng.standard_normal((n_targets, 3)) + 7).astype(dtype)
    picks = nearest_distinct(points, targets)
    assert picks.dtype == np.int64
    expected = brute_force(points.astype(float), targets.astype(float))
    np.testing.assert_array_equal(picks, expected)


@pytest.mark.parametrize("far", [1e6, 1e9])
@pytest.mark.parametrize("kind", ["a point", "a target", "two groups"])
def test_far_rows_hide_nothing(far, kind):
    rng = np.random.default_rng(0)
    points, targets = 1e-2 * rng.normal(size=(200, 1)), 1e-2 * rng.normal(size=(90, 1))
    if kind == "a point":
        points[3] = far
    elif kind == "a target":
        targets[3] = far
    else:
        points[:50] += far
        targets[:50] += far
    picks = nearest_distinct(points, targets, random_state=0)
    np.testing.assert_array_equal(picks, brute_force(points, targets))


def test_blocks_of_pairs_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    points, targets = rng.random((500, 2)), rng.random((30, 2))
    whole = nearest_distinct(points, targets)
    monkeypatch.setattr("skal.selection._nearest_distinct.N_PAIRS", 30 * 70)
    np.testing.assert_array_equal(nearest_distinct(points, targets), whole)


def test_targets_among_the_points_find_themselves():
    points = 1e4 + torch.rand(200, 5, generator=torch.Generator().manual_seed(0))
    picks = nearest_distinct(points, points[[7, 100, 3]])
    assert sorted(picks) == [3, 7, 100]


def test_all_targets_alike_take_points_by_distance():
    points = np.random.default_rng(0).permutation(200.0 + np.arange(200))[:, None]
    picks = nearest_distinct(points, np.zeros((200, 1)))
    np.testing.assert_array_equal(points[picks, 0], 200 + np.arange(200))


def test_equal_points_are_taken_at_random():
    points, targets = np.ones((40, 3)), np.zeros((1, 3))
    firsts = [
        int(nearest_distinct(points, targets, random_state=s)[0]) for s in [*range(60)]
    ]
    assert len(set(firsts)) > 20
    assert abs(np.mean(firsts) - 19.5) < 4 * (40**2 / 12 / 60) ** 0.5
    assert firsts[3] == nearest_distinct(points, targets, random_state=3)[0]
    assert sorted(nearest_distinct(points, np.zeros((40, 3)))) == list(range(40))


def test_no_targets():
    assert nearest_distinct(np.ones((3, 2)), np.ones((0, 2))).shape == (0,)


@pytest.mark.parametrize(
    "points, targets, match",
    [
        (np.ones((3, 2)), np.ones((4, 2)), "at most as many as the 3 points"),
        (np.ones((3, 2)), np.ones((1, 3)), "as many columns, 2, got"),
        (np.ones((3, 2)), np.ones(2), "targets must be 2-D"),
        (np.array([[1.0], [np.nan]]), np.ones((1, 1)), "points must be finite"),
        (np.ones((3, 1)), np.array([[np.inf]]), "targets must be finite"),
        (np.array([[1.0], [1e200]]), np.ones((1, 1)), "points must be finite.*huge"),
    ],
)
def test_bad_input(points, targets, match):
    with pytest.raises(ValueError, match=match):
        nearest_distinct(points, targets)
