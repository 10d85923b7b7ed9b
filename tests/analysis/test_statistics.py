import numpy as np
import pandas as pd
import pytest
from scipy import integrate

from skal.analysis import (
    area_under_curve,
    areas_by_seed,
    class_balance,
    label_quartiles,
    labels_saved,
    labels_to_target,
    learning_curves,
    mean_curve,
    mean_interval,
    overlap,
)


def test_learning_curves_are_ordered_by_seed_and_labels():
    rows = [
        {"strategy": name, "seed": seed, "n_labeled": n, "nll": seed + n}
        for name, seed, n in [("b", 1, 20), ("a", 0, 10), ("b", 0, 10), ("b", 1, 10)]
    ]
    curves = learning_curves(rows, "nll")
    assert list(curves) == [("b", 0), ("b", 1), ("a", 0)]
    assert list(curves.index) == [10, 20]
    np.testing.assert_array_equal(curves, [[10, 11, 10], [np.nan, 21, np.nan]])
    pd.testing.assert_frame_equal(learning_curves(pd.DataFrame(rows), "nll"), curves)
    with pytest.raises(ValueError, match="two rounds of 'a', seed 0, with 10 labels"):
        learning_curves([*rows, rows[1]], "nll")
    with pytest.raises(ValueError, match="the column 'accuracy', got strategy, seed, "):
        learning_curves(rows)
    with pytest.raises(ValueError, match="the column 'strategy', got none"):
        learning_curves([])


def test_mean_curve_is_over_the_counts_that_all_have():
    runs = {0: {10: 0.2, 20: 0.4, 30: 0.9}, 1: {10: 0.4, 30: 0.5}}
    mean = mean_curve(pd.DataFrame(runs))
    np.testing.assert_array_equal(mean.index, [10, 30])
    np.testing.assert_allclose(mean, [0.3, 0.7])


def test_areas_are_by_seed_and_in_the_order_of_the_strategies():
    rows = [
        {"strategy": name, "seed": seed, "n_labeled": n, "accuracy": score}
        for name, seed, n, score in [
            ("b", 1, 10, 0.5),
            ("b", 1, 40, 0.7),
            ("a", 0, 10, 0.5),
            ("a", 0, 20, 0.7),
            ("a", 0, 25, 0.9),
        ]
    ]
    areas = areas_by_seed(learning_curves(rows))
    assert list(areas) == ["b", "a"] and list(areas.index) == [0, 1]
    np.testing.assert_allclose(areas, [[np.nan, 2 / 3], [0.6, np.nan]])


def test_interval_by_hand():
    # Standard deviation 1, t of 0.975 with 4 degrees of freedom 2.776.
    values = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [7.0] * 5]).T
    mean, half = mean_interval(values)
    np.testing.assert_allclose(mean, [3, 7])
    np.testing.assert_allclose(half, [2.776445 * np.sqrt(2.5 / 5), 0], rtol=1e-6)
    mean, half = mean_interval([0.3])
    assert mean == 0.3 and np.isnan(half)


@pytest.mark.parametrize(
    "n_labeled, scores, area",
    [
        ([20, 40, 60], [0.5, 0.7, 0.9], 0.7),
        # 20 * 0.6 + 20 * 0.8 + 5 * 0.95 over 45: the last batch is short.
        ([20, 40, 60, 65], [0.5, 0.7, 0.9, 1.0], 32.75 / 45),
        ([1, 2, 102], [0.0, 0.0, 1.0], 50 / 101),
        ([7], [0.4], 0.4),
    ],
)
def test_area_by_hand(n_labeled, scores, area):
    assert area_under_curve(n_labeled, scores) == pytest.approx(area, rel=1e-12)


def test_area_of_even_batches_is_the_published_one():
    """`trapz(acc, dx=1 / (n - 1))`, and sum of (a_i + a_{i+1}) b / 2 over the quota."""
    scores = np.array([0.1, 0.6, 0.5, 0.9])
    area = area_under_curve([5, 15, 25, 35], scores)
    assert area == pytest.approx(integrate.trapezoid(scores, dx=1 / 3))
    assert area == pytest.approx(sum(scores[:-1] + scores[1:]) * 10 / 2 / 30)


@pytest.mark.parametrize("n_labeled", [[20, 20], [40, 20]])
def test_area_needs_ascending_labels(n_labeled):
    with pytest.raises(ValueError, match="n_labeled must ascend, got"):
        area_under_curve(n_labeled, [0.1, 0.2])


def test_labels_to_target_is_the_first_crossing():
    curve = [20, 40, 60, 80], [0.5, 0.8, 0.7, 0.9]
    found = [labels_to_target(*curve, target) for target in (0.5, 0.75, 0.9, 0.91)]
    assert found == [20, 40, 80, np.inf]
    # By position, whatever the index.
    table = pd.DataFrame({"n": [20, 40], "score": [0.5, 0.9]}, index=[7, 1])
    assert labels_to_target(table["n"], table["score"], 0.8) == 40


@pytest.mark.parametrize(
    "labels, quartiles",
    [
        # BatchBALD, b = 10, 90 % on MNIST: published 70 / 90 / 110, six runs.
        ([70, 70, 90, 100, 110, 110], [70, 90, 110]),
        ([250, np.inf, 250, np.inf], [250, 250, np.inf]),
        ([np.inf, 260, 280, np.inf, np.inf], [280, np.inf, np.inf]),
        ([np.inf] * 3, [np.inf] * 3),
        ([30], [30, 30, 30]),
        (range(1, 101), [25, 50, 75]),
    ],
)
def test_quartiles_with_never(labels, quartiles):
    np.testing.assert_array_equal(label_quartiles(labels), quartiles)


def test_labels_saved_by_hand():
    counts = [20, 40, 60, 80]
    random = pd.Series([0.4, 0.6, 0.55, 0.8], counts)
    quick = pd.Series([0.4, 0.8, 0.85, 0.9], counts)
    # Random first has 0.7 at 60 + 20 * 0.15 / 0.25 = 72, quick at 35.
    saved = labels_saved(quick, random, [0.3, 0.5, 0.7, 0.8, 0.85])
    np.testing.assert_allclose(saved, [0, 1 - 25 / 30, 1 - 35 / 72, 0.5, np.nan])
    np.testing.assert_allclose(labels_saved(random, random, [0.6, 0.7]), 0)
    slow = pd.Series([0.4, 0.4, 0.5, 0.6], counts)
    np.testing.assert_allclose(labels_saved(slow, random, [0.6, 0.8]), [-1, -np.inf])


def test_class_balance_by_hand():
    np.testing.assert_allclose(class_balance([2, 1, 1, 0]), 0.75)
    np.testing.assert_allclose(class_balance([[4] * 10, [0] * 9 + [3]]), [1, 0])


def test_overlap_is_averaged_over_shared_seeds():
    picks = {
        "a": {0: np.array([1, 2]), 1: np.array([3, 4])},
        "b": {1: np.array([4, 5]), 0: np.array([2, 1]), 2: np.array([9])},
        "c": {3: np.array([1, 2])},
    }
    nan = np.nan
    expected = [[1, (1 + 1 / 3) / 2, nan], [(1 + 1 / 3) / 2, 1, nan], [nan, nan, 1]]
    np.testing.assert_allclose(overlap(picks), expected)
    assert overlap({"a": {0: np.array([])}}).loc["a", "a"] == 1
