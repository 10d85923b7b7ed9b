import numpy as np
import pytest

from skal.experiment.metrics import score_probabilities


def test_hand_numbers():
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    scores = score_probabilities(np.array([0, 0, 1, 1]), proba)
    assert scores["accuracy"] == 0.75
    assert scores["balanced_accuracy"] == 0.75
    assert scores["nll"] == pytest.approx(-np.log([0.9, 0.6, 0.7, 0.2]).mean())
    # Each row has a bin of its own: |hit - confidence| on average.
    assert scores["ece"] == pytest.approx((0.1 + 0.4 + 0.3 + 0.8) / 4)


def test_calibration_error_averages_within_bins():
    proba = np.array([[0.7, 0.3]] * 10)
    scores = score_probabilities(np.array([0] * 7 + [1] * 3), proba)
    assert scores["ece"] == pytest.approx(0.0, abs=1e-12)


def test_bins_are_closed_above():
    # 0.6 would share the bin of 0.65 if bins were closed below.
    proba = np.array([[0.6, 0.4], [0.65, 0.35]])
    scores = score_probabilities(np.array([0, 1]), proba)
    assert scores["ece"] == pytest.approx((0.4 + 0.65) / 2)


def test_balanced_accuracy_weighs_present_classes_alike():
    proba = np.eye(3)[[0, 0, 0, 0]]
    scores = score_probabilities(np.array([0, 0, 0, 1]), proba)
    assert scores["accuracy"] == 0.75
    assert scores["balanced_accuracy"] == 0.5


def test_certain_and_wrong_is_finite():
    scores = score_probabilities(np.array([1]), np.array([[1.0, 0.0]], np.float32))
    assert np.isfinite(scores["nll"]) and scores["nll"] > 80
