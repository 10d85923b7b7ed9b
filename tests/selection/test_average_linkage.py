import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import average, is_valid_linkage
from scipy.spatial.distance import pdist

from skal.selection import _average_linkage as module
from skal.selection import average_linkage


@pytest.fixture
def passes(monkeypatch):
    """Let passes do the merges of all but five clusters; how many each one merged."""
    monkeypatch.setattr(module, "N_DENSE", 5)
    monkeypatch.setattr(module.math, "isqrt", lambda n: 1)
    merge, numbers = module._Clusters.merge, []

    def count(self, a, b):
        numbers.append(len(a))
        merge(self, a, b)

    monkeypatch.setattr(module._Clusters, "merge", count)
    return numbers


def scipy_linkage(points):
    return average(pdist(np.asarray(points, dtype=np.float64), "sqeuclidean"))


def clouds(n, d, dtype=np.float64):
    rng = np.random.default_rng(n)
    centers = 3 * rng.normal(size=(4, d))
    return (centers[rng.integers(4, size=n)] + rng.normal(size=(n, d))).astype(dtype)


def assert_merges_are_the_nearest(points, linkage):
    """Each line merges two clusters that no others are nearer than."""
    between = ((points[:, None] - points) ** 2).sum(2)
    members = {i: [i] for i in range(len(points))}
    for i, (a, b, height, size) in enumerate(linkage):
        least = min(
            between[np.ix_(members[p], members[q])].mean()
            for p in members
            for q in members
            if p < q
        )
        merged = members.pop(int(a)), members.pop(int(b))
        mean = between[np.ix_(*merged)].mean()
        assert a < b
        np.testing.assert_allclose(height, mean, rtol=1e-12, atol=1e-12)
        assert mean <= least * (1 + 1e-12)
        members[len(points) + i] = sum(merged, [])
        assert size == len(members[len(points) + i])


def test_by_hand():
    # {0, 1} is 16 and 9 from 4, 12.5 on average; 81, 64 and 25 from 9.
    linkage = average_linkage([[9.0], [1.0], [4.0], [0.0]])
    expected = [[1, 3, 1, 2], [2, 4, 12.5, 3], [0, 5, 170 / 3, 4]]
    np.testing.assert_allclose(linkage, expected, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, d", [(2, 1), (3, 4), (40, 2), (120, 1), (200, 5)])
def test_equals_scipy(passes, n, d, dtype):
    points = clouds(n, d, dtype)
    expected = scipy_linkage(points)
    for rows in (points, torch.from_numpy(points)):
        linkage = average_linkage(rows)
        assert linkage.dtype == np.float64
        np.testing.assert_allclose(linkage[:, 2], expected[:, 2], rtol=1e-12)
        np.testing.assert_array_equal(linkage[:, [0, 1, 3]], expected[:, [0, 1, 3]])


@pytest.mark.parametrize("n_dense", [1, 300])
def test_equals_scipy_by_products_in_single_precision(passes, monkeypatch, n_dense):
    monkeypatch.setattr(module, "N_DENSE", n_dense)
    monkeypatch.setattr(module, "N_BYTES", 2**16)  # several blocks
    points = clouds(600, 40, np.float32)
    expected, linkage = scipy_linkage(points), average_linkage(points)
    assert sum(passes) >= 600 - n_dense
    np.testing.assert_allclose(linkage[:, 2], expected[:, 2], rtol=1e-12)
    np.testing.assert_array_equal(linkage[:, [0, 1, 3]], expected[:, [0, 1, 3]])


def test_small_distances_far_from_the_mean(passes):
    """Products in single precision cannot tell these apart."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 50)) * 1e-3
    points[200:] += 1000
    points = points.astype(np.float32)
    expected, linkage = scipy_linkage(points), average_linkage(points)
    np.testing.assert_allclose(linkage[:, 2], expected[:, 2], rtol=1e-9)


@pytest.mark.parametrize("n_dense", [1, 1024])
@pytest.mark.parametrize("seed", range(8))
def test_ties(monkeypatch, seed, n_dense):
    monkeypatch.setattr(module, "N_DENSE", n_dense)
    monkeypatch.setattr(module.math, "isqrt", lambda n: 1)
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 3 + seed // 2, size=(24, 1 + seed % 3)).astype(np.float64)
    linkage = average_linkage(points)
    assert (np.diff(linkage[:, 2]) >= 0).all() and is_valid_linkage(linkage)
    assert_merges_are_the_nearest(points, linkage)


def test_equidistant_points_merge_in_few_passes(passes):
    linkage = average_linkage(np.eye(256))
    np.testing.assert_allclose(linkage[:, 2], 2, rtol=1e-12)
    assert len(passes) < 30 and passes[0] == 128


def test_a_ring_of_nearest_still_merges():
    clusters = module._Clusters(torch.eye(3), np.arange(3), np.ones(3))
    clusters.known[:] = True
    clusters.nearest[:] = torch.tensor([1, 2, 0])
    clusters.height[:] = torch.tensor([2.0, 1.0, 2.0])
    a, b = clusters.reciprocal_pairs()
    assert (a.tolist(), b.tolist()) == ([1], [2])


def test_copies_merge_first_at_zero(passes):
    rng = np.random.default_rng(0)
    base = rng.normal(size=(9, 3)).astype(np.float32)
    points = base[rng.permutation(np.repeat(np.arange(9), 7))] + np.float32(100)
    linkage, expected = average_linkage(points), scipy_linkage(points)
    np.testing.assert_array_equal(linkage[:54, 2], 0)
    np.testing.assert_allclose(linkage[:, 2], expected[:, 2], rtol=1e-9, atol=0)
    np.testing.assert_array_equal(linkage[54:, 3], expected[54:, 3])


@pytest.mark.parametrize("points", [np.zeros((70, 3)), np.full((70, 2), 0.1), [[]] * 5])
def test_equal_rows(points):
    linkage = average_linkage(points)
    assert linkage.shape == (len(points) - 1, 4) and is_valid_linkage(linkage)
    np.testing.assert_array_equal(linkage[:, 2], 0)
    assert linkage[-1, 3] == len(points)


def test_minus_zero_is_zero():
    assert average_linkage([[0.0], [5.0], [-0.0]])[0].tolist() == [0, 2, 0, 2]


def test_one_row():
    assert average_linkage([[1.0, 2.0]]).shape == (0, 4)


def test_tiny_and_large_numbers(passes):
    points = clouds(60, 3)
    expected = scipy_linkage(points)
    for scale in (1e-40, 1e40):
        linkage = average_linkage(points * scale)
        np.testing.assert_allclose(linkage[:, 2] / scale**2, expected[:, 2], rtol=1e-9)


def test_squares_that_underflow_in_single_precision(passes):
    points = clouds(600, 40, np.float32) * np.float32(1e-24)
    expected, linkage = scipy_linkage(points), average_linkage(points)
    np.testing.assert_allclose(linkage[:, 2], expected[:, 2], rtol=1e-9)


def test_kinds_of_input_agree_and_stay_as_they_are(passes):
    wide = clouds(90, 8, np.float32)
    points, before, state = wide[::-1, ::2], wide.tobytes(), torch.get_rng_state()
    wide.flags.writeable = False
    expected = average_linkage(points.copy())
    tensor = torch.tensor(points.copy(), requires_grad=True)
    for rows in (points, tensor, points.tolist(), points.astype(np.float64)):
        np.testing.assert_allclose(average_linkage(rows), expected, rtol=1e-12)
    assert wide.tobytes() == before
    assert torch.equal(state, torch.get_rng_state())


def test_errors():
    with pytest.raises(ValueError, match="metric must be 'sqeuclidean', got 'cosine'"):
        average_linkage([[0.0]], metric="cosine")
    with pytest.raises(ValueError, match="points must have at least one row"):
        average_linkage(np.empty((0, 3)))
    with pytest.raises(ValueError, match=r"points must be 2-D, got shape \(3,\)"):
        average_linkage(np.ones(3))
    for bad in (np.nan, np.inf, 1e200):
        with pytest.raises(ValueError, match="points must be finite"):
            average_linkage([[0.0], [bad]])
