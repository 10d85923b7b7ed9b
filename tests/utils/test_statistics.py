"""Statistics of learning curves: hand numbers."""

import numpy as np
import pytest

from skal.utils.statistics import (
    Curve,
    area_under_curve,
    class_balance,
    label_quartiles,
    labels_saved,
    labels_to_target,
    learning_curves,
    mean_curve,
    mean_interval,
    overlap,
)


def records(strategy, seed, scores, n_labeled=(10, 20, 30)):
    return [
        {"strategy": strategy, "seed": seed, "n_labeled": n, "accuracy": score}
        for n, score in zip(n_labeled, scores, strict=True)
    ]


def test_curves_are_gathered_in_any_order():
    rows = records("badge", 1, [0.1, 0.2, 0.3]) + records("random", 0, [0.4, 0.5, 0.6])
    curves = learning_curves(rows[::-1])
    assert list(curves) == ["random", "badge"]
    np.testing.assert_array_equal(curves["badge"][1].n_labeled, [10, 20, 30])
    np.testing.assert_array_equal(curves["badge"][1].scores, [0.1, 0.2, 0.3])


def test_two_rounds_with_as_many_labels_are_refused():
    rows = records("badge", 1, [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="two rounds of 'badge', seed 1, with 20"):
        learning_curves([*rows, rows[1]])


def test_mean_curve_has_the_numbers_that_all_have():
    long = Curve(np.array([10, 20, 25, 30]), np.array([0.1, 0.2, 0.9, 0.3]))
    short = Curve(np.array([10, 20, 30]), np.array([0.3, 0.4, 0.5]))
    mean = mean_curve([long, short])
    np.testing.assert_array_equal(mean.n_labeled, [10, 20, 30])
    np.testing.assert_allclose(mean.scores, [0.2, 0.3, 0.4])


def test_interval_of_the_mean():
    # t(0.975, 4) = 2.7764; the deviation of 1..5 is 1.5811.
    mean, half = mean_interval([1, 2, 3, 4, 5])
    assert (mean, round(float(half), 4)) == (3, 1.9632)
    assert np.isnan(mean_interval([1.0])[1])


def test_area_with_a_short_last_batch():
    assert area_under_curve([10, 20, 30], [0.4, 0.6, 0.8]) == pytest.approx(0.6)
    # (10 * 0.5 + 10 * 0.7 + 5 * 0.85) / 25
    area = area_under_curve([10, 20, 30, 35], [0.4, 0.6, 0.8, 0.9])
    assert area == pytest.approx(0.65)
    assert area_under_curve([0, 7, 9], [0.3, 0.3, 0.3]) == pytest.approx(0.3)
    assert area_under_curve([10], [0.4]) == 0.4
    with pytest.raises(ValueError, match=r"must ascend, got \[20, 10\]"):
        area_under_curve([20, 10], [0, 1])


def test_never_is_a_number_of_labels():
    assert labels_to_target([20, 40, 60], [0.5, 0.8, 0.7], 0.8) == 40
    assert labels_to_target([20, 40, 60], [0.5, 0.8, 0.7], 0.81) == np.inf
    quartiles = label_quartiles([120, np.inf, 100, np.inf, np.inf])
    np.testing.assert_array_equal(quartiles, [120, np.inf, np.inf])
    np.testing.assert_array_equal(label_quartiles([40]), [40, 40, 40])


def test_labels_saved_by_hand():
    random = Curve(np.array([0, 100, 200]), np.array([0.0, 0.5, 1.0]))
    twice = Curve(np.array([0, 50, 100]), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(labels_saved(twice, random, [0.25, 0.75]), 0.5)
    np.testing.assert_allclose(labels_saved(random, twice, [0.25]), -1.0)
    flat = Curve(np.array([0, 100]), np.array([0.0, 0.4]))
    assert labels_saved(flat, random, [0.5])[0] == -np.inf
    assert np.isnan(labels_saved(random, flat, [0.5])[0])


def test_class_balance_by_hand():
    balance = class_balance([[5, 5], [10, 0], [1, 3]])
    entropy = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    np.testing.assert_allclose(balance, [1, 0, entropy])


def test_overlap_is_averaged_over_shared_seeds():
    picks = {
        "a": {0: [1, 2, 3, 4], 1: [1, 2]},
        "b": {0: [3, 4, 5, 6], 1: [1, 2], 2: [9]},
        "c": {5: [1]},
    }
    matrix = overlap(picks)
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx((2 / 6 + 1) / 2)
    assert np.isnan(matrix[0, 2])
    np.testing.assert_array_equal(matrix.diagonal(), 1)
