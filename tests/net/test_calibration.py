import numpy as np
import pytest
import torch

from skal.net.calibration import best_temperature, calibration_error, stratified


def test_calibration_error_by_hand():
    # One bin: sure by .9 on average, right in two of three.
    proba = np.array([[0.9, 0.1], [0.91, 0.09], [0.89, 0.11]])
    proba = np.clip(proba, 0.0, 0.91)
    assert calibration_error(proba, np.array([0, 0, 1])) == pytest.approx(0.7 / 3)
    # Two bins, in one of which the rows are sure by .6, and all right.
    proba = np.array([[0.95, 0.05], [0.6, 0.4], [0.6, 0.4]])
    error = calibration_error(proba, np.array([0, 0, 0]))
    assert error == pytest.approx((0.05 + 2 * 0.4) / 3)
    assert calibration_error(np.eye(3), np.arange(3)) == 0


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_best_temperature_undoes_overconfidence(scale):
    # 80 % are of class 0; at temperature 1 logits of scale 1 say so.
    codes = (np.arange(1000) % 5 == 0).astype(int)
    scores = torch.tensor([[scale * np.log(4), 0.0]]).expand(1000, 2)
    assert best_temperature(scores, codes) == pytest.approx(scale, rel=0.06)
    assert best_temperature(torch.eye(2)[codes] * 99, codes) == 1.0  # all are as good


@pytest.mark.parametrize("seed", range(5))
def test_three_tenths_of_each_class_are_drawn(seed):
    codes = np.repeat([0, 1, 2, 3, 4], [100, 40, 2, 1, 10])
    drawn = stratified(codes, 0.3, np.random.default_rng(seed))
    counts = np.bincount(codes[drawn], minlength=5)
    assert abs(counts - 0.3 * np.array([100, 40, 2, 0, 10])).max() <= 1
    assert counts[3] == 0  # else there were none to train on
    assert counts[2] < 2
    assert not stratified(np.arange(4), 0.3, np.random.default_rng(seed)).any()
