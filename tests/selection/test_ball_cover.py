import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans

from skal.selection import ball_cover, pure_radius


def plain(points, n_select, radius, centers=None):
    """Picks of the greedy algorithm on the whole graph."""
    near = cdist(points, points) < radius
    open_rows = np.ones(len(points), dtype=bool)
    if centers is not None and len(centers):
        open_rows = ~(cdist(points, centers) < radius).any(1)
    picks = []
    while len(picks) < n_select:
        counts = near[open_rows].sum(0)
        if counts.max() == 0:
            rest = np.setdiff1d(np.arange(len(points)), picks)
            return picks + rest[: n_select - len(picks)].tolist()
        picks.append(int(counts.argmax()))
        open_rows &= ~near[picks[-1]]
    return picks


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("radius", [0.5, 3.0, 6.0, np.inf])
@pytest.mark.parametrize("n_centers", [0, 30])
def test_equals_the_greedy_on_the_whole_graph(n_centers, radius, offset):
    # More numbers than products are in double precision for.
    rng = np.random.default_rng(0)
    points = offset + rng.standard_normal((900, 20)).astype(np.float32)
    points[::9] = points[1::9]
    centers = offset + rng.standard_normal((n_centers, 20)).astype(np.float32)
    picks = ball_cover(points, 60, radius, centers=centers)
    assert picks.dtype == np.int64
    points, centers = points.astype(float), centers.astype(float)
    assert picks.tolist() == plain(points, 60, radius, centers)


@pytest.mark.parametrize("seed", range(5))
def test_each_pick_covers_most_and_the_whole_at_least_1_less_1_over_e(seed):
    rng = np.random.default_rng(seed)
    points = rng.random((9, 2))
    near = cdist(points, points) < 0.3
    picks = ball_cover(points, 3, 0.3)
    best = max(
        near[[i, j, k]].any(0).sum()
        for i in range(9)
        for j in range(i)
        for k in range(j)
    )
    assert near[picks].any(0).sum() >= (1 - 1 / np.e) * best


def test_a_ball_is_open():
    line = np.arange(4.0)[:, None]
    assert ball_cover(line, 4, 1.0).tolist() == [0, 1, 2, 3]
    assert ball_cover(line, 2, 1.5).tolist() == [1, 2]  # 0, 1 and 2, then 3
    # 1 to 3 are covered, by a hair the one at the end.
    assert ball_cover(line, 1, 2.0 + 1e-12, centers=line[3:]).tolist() == [0]


def test_many_rows_are_covered_by_those_drawn():
    rng = np.random.default_rng(0)
    points = np.vstack([rng.normal(0, 0.1, (300, 2)), rng.normal(9, 0.1, (100, 2))])
    picks = ball_cover(points, 2, 1.0, max_references=60, random_state=0)
    assert picks[0] < 300 <= picks[1]
    again = ball_cover(points, 2, 1.0, max_references=60, random_state=0)
    assert again.tolist() == picks.tolist()


def test_bad_parameters():
    for radius in (0.0, -1.0, np.nan, "a", None, True):
        with pytest.raises(ValueError, match="radius must be a number above 0, got"):
            ball_cover(np.eye(3), 1, radius)
    for count in (0, 1.5, None):
        with pytest.raises(ValueError, match="max_references must be an int of at"):
            ball_cover(np.eye(3), 1, 1.0, max_references=count)
        with pytest.raises(ValueError, match="max_references must be an int of at"):
            pure_radius(np.eye(3), [0, 1, 1], max_references=count)
    for share in (-0.1, 2, np.nan, "a"):
        match = "purity must be a number of at least 0 and at most 1, got"
        with pytest.raises(ValueError, match=match):
            pure_radius(np.eye(3), [0, 1, 1], purity=share)
    for labels in ([0, 1], [[0, 1, 1]]):
        with pytest.raises(ValueError, match="labels must be one for each"):
            pure_radius(np.eye(3), labels)
    with pytest.raises(ValueError, match="at least one, got"):
        pure_radius(np.zeros((0, 3)), [])
    with pytest.raises(ValueError, match="3 columns"):
        ball_cover(np.eye(3), 1, 1.0, centers=np.eye(2))
    with pytest.raises(ValueError, match="n_select"):
        ball_cover(np.eye(3), 4, 1.0)
    assert ball_cover(torch.eye(3), 0, 1.0).tolist() == []


def purity(points, labels, radius):
    """Share of balls that hold one label."""
    near = cdist(points, points) < radius
    return np.mean([len(set(labels[row])) == 1 for row in near])


@pytest.mark.parametrize("wanted", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_pure_radius_is_the_largest(offset, wanted):
    points = np.random.default_rng(0).standard_normal((300, 4)) + offset
    labels = KMeans(5, n_init=1, random_state=0).fit_predict(points)
    radius = pure_radius(points, labels, purity=wanted)
    assert purity(points, labels, radius) >= wanted
    assert purity(points, labels, radius * (1 + 1e-9)) < wanted


def test_pure_radius_of_one_label_is_infinite():
    assert pure_radius(np.eye(3), [1, 1, 1]) == np.inf


def test_pure_radius_of_a_sample_is_near():
    points = np.random.default_rng(0).standard_normal((2000, 2))
    labels = (points[:, 0] > 0).astype(int)
    exact = pure_radius(points, labels, purity=0.7)
    some = pure_radius(points, labels, purity=0.7, max_references=500, random_state=0)
    assert some == pytest.approx(exact, rel=0.2)
