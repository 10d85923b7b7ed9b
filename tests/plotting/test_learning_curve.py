import numpy as np
import pytest

from skal.plotting import LearningCurveDisplay

figure = pytest.importorskip("matplotlib.figure")


def records(strategy, seed, scores):
    return [
        {"strategy": strategy, "seed": seed, "n_labeled": 10 * i, "accuracy": score}
        for i, score in enumerate(scores, start=1)
    ]


def test_numbers_are_those_drawn():
    rows = [
        *records("badge", 1, [0.4, 0.8]),
        *records("badge", 0, [0.2, 0.6]),
        *records("random", 0, [0.1, 0.5]),
    ]
    ax = figure.Figure().subplots()
    display = LearningCurveDisplay.from_records(rows[::-1], ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    np.testing.assert_array_equal(display.curves["badge"][1], [[0.2, 0.6], [0.4, 0.8]])
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["badge"], [[10, 0.3], [20, 0.7]])
    np.testing.assert_allclose(lines["random"], [[10, 0.1], [20, 0.5]])


def test_runs_of_other_lengths_are_refused():
    rows = records("badge", 0, [0.1]) + records("badge", 1, [0.1, 0.2])
    with pytest.raises(ValueError, match="'badge' differ in their numbers of labels"):
        LearningCurveDisplay.from_records(rows, ax=figure.Figure().subplots())


def test_intervals_and_frame():
    curves = {"badge": ([20, 40], [[0.7, 0.9], [0.8, 0.9], [0.9, 0.9]])}
    display = LearningCurveDisplay(curves)
    low, high = display.interval("badge")
    # t(0.975, 2) = 4.3027; the deviation is 0.1.
    np.testing.assert_allclose(high - low, [2 * 4.3027 * 0.1 / 3**0.5, 0], atol=1e-4)
    frame = display.frame()
    assert list(frame) == ["strategy", "n_labeled", "mean", "low", "high", "n_runs"]
    assert frame["n_runs"].tolist() == [3, 3]
    np.testing.assert_allclose(frame["mean"], [0.8, 0.9])
