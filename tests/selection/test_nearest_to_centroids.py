import numpy as np
import pytest

from skal.selection import nearest_to_centroids


def test_larger_clusters_come_first():
    rng = np.random.default_rng(0)
    centers, sizes = np.array([[0.0, 0], [50, 0], [0, 50]]), [5, 30, 11]
    labels = np.repeat(range(3), sizes)
    points = centers[labels] + rng.normal(size=(46, 2))
    picks = nearest_to_centroids(points, 3, random_state=1)
    assert labels[picks].tolist() == [1, 2, 0]
    for pick, label in zip(picks, labels[picks], strict=True):
        own = points[labels == label]
        gaps = np.linalg.norm(own - own.mean(0), axis=1)
        np.testing.assert_array_equal(points[pick], own[gaps.argmin()])


def test_fewer_distinct_rows_than_clusters():
    points = np.repeat(np.eye(3), 4, axis=0)
    picks = nearest_to_centroids(points, 12, random_state=0)
    assert picks.dtype == np.int64 and sorted(picks) == list(range(12))
    assert set(picks[:3] // 4) == {0, 1, 2}
    assert nearest_to_centroids(points, 0).tolist() == []


def test_wrong_parameters():
    with pytest.raises(ValueError, match="n_select must be an int between 0 and 3"):
        nearest_to_centroids(np.eye(3), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(value):
    with pytest.raises(ValueError, match="^points must be finite"):
        nearest_to_centroids([[0.0], [value], [2.0]], 1)
