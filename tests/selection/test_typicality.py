import numpy as np
import pytest
from scipy.spatial.distance import cdist

from skal.selection import typicality


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 500])
@pytest.mark.parametrize("n_neighbors", [1, 20, 899])
def test_equals_brute_force(n_neighbors, offset, dtype):
    points = np.random.default_rng(0).standard_normal((900, 20)) + offset
    points = points.astype(dtype)
    distances = np.sort(cdist(points.astype(float), points.astype(float)), axis=1)
    expected = 1 / distances[:, 1 : n_neighbors + 1].mean(1)
    np.testing.assert_allclose(typicality(points, n_neighbors), expected, rtol=1e-9)


def test_copies_are_most_typical():
    points = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert typicality(points, 2).tolist() == [np.inf, np.inf, np.inf, 1.0]


@pytest.mark.parametrize("n_neighbors", [0, 3, 1.5, "a", True, None])
def test_bad_number_of_neighbors(n_neighbors):
    with pytest.raises(ValueError, match="n_neighbors must be an int between 1 and 2"):
        typicality(np.eye(3), n_neighbors)
