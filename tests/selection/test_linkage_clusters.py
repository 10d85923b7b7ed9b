import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import cdist, pdist

from skal.selection import linkage_clusters


def same_partition(one, other):
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


@pytest.mark.parametrize("min_mean_size", [1, 2, 3.5, 10, 59, 60, 1000])
def test_number_of_clusters(min_mean_size):
    points = np.random.default_rng(0).normal(size=(60, 3))
    labels = linkage_clusters(points, min_mean_size)
    n_clusters = max(1, int(60 / min_mean_size))
    assert labels.dtype == np.int64
    assert sorted(set(labels.tolist())) == list(range(n_clusters))
    tree = average(pdist(points, "sqeuclidean"))
    if n_clusters < 60:  # where older SciPy still merges the nearest pair
        expected = fcluster(tree, n_clusters, criterion="maxclust")
        assert same_partition(labels, expected)


def test_equal_heights_are_merged_together():
    # Five pairs at distance 1: a mean size of 1.25 asks for two of them.
    points = np.array([[100.0 * (i // 2) + i % 2] for i in range(10)])
    assert same_partition(linkage_clusters(points, 1.25), np.arange(10) // 2)


def test_copies_are_in_one_cluster():
    points = np.repeat(np.random.default_rng(0).normal(size=(12, 4)), 5, axis=0)
    for min_mean_size in (1, 2, 5):
        labels = linkage_clusters(points, min_mean_size)
        assert same_partition(labels, np.repeat(np.arange(12), 5))
    assert not linkage_clusters(np.zeros((30, 2)), 3).any()
    assert linkage_clusters([[1.0]], 10).tolist() == [0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_rows_join_the_cluster_of_least_mean_distance(dtype):
    points = np.random.default_rng(0).normal(size=(3000, 6)).astype(dtype)
    points = torch.from_numpy(points) + 50
    labels = linkage_clusters(points, 4, max_linked=100, random_state=3)
    linked = np.sort(np.random.default_rng(3).choice(3000, 100, replace=False))
    some = linkage_clusters(points[linked], 4)
    np.testing.assert_array_equal(labels[linked], some)
    between = torch.cdist(points.double(), points[linked].double()).square().numpy()
    means = np.stack([between[:, some == k].mean(1) for k in range(25)], 1)
    rest = np.setdiff1d(np.arange(3000), linked)
    found = np.take_along_axis(means, labels[:, None], 1)[rest, 0]
    np.testing.assert_allclose(found, means[rest].min(1), rtol=1e-5)


@pytest.mark.parametrize("far", [[1e6], [-1e9, 1e9]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_rows_hide_nothing(far, dtype):
    points = np.random.default_rng(0).normal(size=(2000, 9))
    linked = np.sort(np.random.default_rng(3).choice(2000, 100, replace=False))
    points[linked[: len(far)]] = np.array(far)[:, None]
    points = points.astype(dtype)
    labels = linkage_clusters(points, 4, max_linked=100, random_state=3)
    some = labels[linked]
    rows, rest = points.astype(float), np.setdiff1d(np.arange(2000), linked)
    between = cdist(rows[rest], rows[linked], "sqeuclidean")
    means = np.stack([between[:, some == k].mean(1) for k in range(25)], 1)
    np.testing.assert_array_equal(labels[rest], means.argmin(1))


def test_the_seed_draws_the_linked_rows():
    points = np.random.default_rng(0).normal(size=(200, 2))
    draws = [
        linkage_clusters(points, 5, max_linked=50, random_state=s) for s in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not same_partition(draws[0], draws[2])
    whole = linkage_clusters(points, 5, max_linked=200)
    np.testing.assert_array_equal(whole, linkage_clusters(points, 5))


def test_errors():
    points = np.zeros((3, 1))
    with pytest.raises(ValueError, match="min_mean_size must be at least 1, got 0.5"):
        linkage_clusters(points, 0.5)
    with pytest.raises(ValueError, match="min_mean_size must be at least 1, got nan"):
        linkage_clusters(points, np.nan)
    with pytest.raises(ValueError, match="max_linked must be at least 1, got 0"):
        linkage_clusters(points, 2, max_linked=0)
    with pytest.raises(ValueError, match="points must be finite"):
        linkage_clusters(points * np.nan, 2, max_linked=2)


def test_rows_that_are_not_linked_must_be_finite_too():
    points = np.random.default_rng(0).normal(size=(30, 2))
    linked = np.random.default_rng(0).choice(30, 10, replace=False)
    points[np.setdiff1d(np.arange(30), linked)[0]] = np.nan
    with pytest.raises(ValueError, match="points must be finite"):
        linkage_clusters(points, 2, max_linked=10, random_state=0)
