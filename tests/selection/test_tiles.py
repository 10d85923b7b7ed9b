"""Tiles hold every pair that the triangle inequality cannot rule out."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from skal.selection import _distances, k_center_greedy, kmeans_plusplus
from skal.selection._tiles import FEWEST_COLUMNS, N_ROWS_OF_TILE, tiles


def clustered(n_rows, n_columns, n_clusters=20, seed=0):
    rng = np.random.default_rng(seed)
    means = 10 * rng.normal(size=(n_clusters, n_columns))
    points = means[rng.integers(n_clusters, size=n_rows)]
    return points + rng.normal(size=points.shape)


@pytest.mark.parametrize("n_rows", [50, 255, 256, 1_000, 3_000])
@pytest.mark.parametrize("spread", [1, 30])
def test_tiles_hold_every_row_that_gets_nearer(n_rows, spread):
    points = clustered(n_rows + 80, 6, seed=n_rows)
    points[:n_rows] *= spread
    points, known, fresh = np.split(points, [n_rows, n_rows + 30])
    distances = cdist(points, known, "sqeuclidean")
    owners, reach = distances.argmin(1), distances.min(1) * (1 + 1e-9)
    reach[7] = -1  # wants no centre
    nearer = cdist(points, fresh, "sqeuclidean") < reach[:, None]
    found, left = tiles(owners, reach, cdist(known, fresh, "sqeuclidean"))
    covered = np.zeros((n_rows, 50), dtype=int)
    for rows, columns in found:
        assert FEWEST_COLUMNS <= len(columns)
        assert len(rows) < 2 * N_ROWS_OF_TILE
        covered[np.ix_(rows, columns)] += 1
    assert covered.max() == 1
    assert covered[nearer].all()
    assert covered.mean() == pytest.approx(left)


def test_far_clusters_are_left_out():
    """40 known centres in one cluster, 40 fresh ones in another: no row gets nearer."""
    rows = clustered(2_000, 6, n_clusters=1)
    fresh = rows[:40] + 1_000
    distances = cdist(rows, rows[:40], "sqeuclidean")
    found, left = tiles(
        distances.argmin(1), distances.min(1), cdist(rows[:40], fresh, "sqeuclidean")
    )
    assert found == []
    assert left == 0


def make(kind):
    rng = np.random.default_rng(1)
    points = clustered(3_000, 64).astype(np.float32)
    if kind == "pair":
        return points, (1 + 0.1 * rng.random((3_000, 4))).astype(np.float32)
    if kind == "copies":
        points[1_000:1_500] = points[:500]
    if kind == "far":
        points += 1e4
    return points.astype(np.float64) if kind == "double" else points


@pytest.fixture
def found(monkeypatch):
    """The part of the products left by tiles, each time."""
    parts = []

    def spy(*args):
        tiled = tiles(*args)
        parts.append(tiled[1])
        return tiled

    monkeypatch.setattr(_distances, "tiles", spy)
    monkeypatch.setattr(_distances, "N_WIDE", 64)
    return parts


@pytest.mark.parametrize("kind", ["plain", "copies", "far", "double", "pair"])
def test_picks_are_those_without_tiles(kind, found, monkeypatch):
    points = make(kind)

    def pick():
        picks = [kmeans_plusplus(points, 250, random_state=s) for s in range(2)]
        if kind != "pair":
            centers, rest = points[:700], points[700:]
            picks.append(k_center_greedy(points, 250, random_state=0))
            kwargs = {"centers": centers, "random_state": 0}
            picks.append(k_center_greedy(rest, 300, **kwargs))
        return picks

    tiled = pick()
    assert min(found) < 0.5
    monkeypatch.setattr(_distances, "N_WIDE", 10**9)
    n_found = len(found)
    for one, other in zip(tiled, pick(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(found) == n_found


def test_rows_that_do_not_cluster_are_tried_once(found):
    points = torch.randn(2_000, 64, generator=torch.Generator().manual_seed(0))
    picks = k_center_greedy(points, 300)
    assert len(np.unique(picks)) == 300
    assert len(found) == 1
    assert found[0] > 0.9
