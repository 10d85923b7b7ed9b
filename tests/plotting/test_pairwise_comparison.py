import numpy as np
import pytest

from skal.analysis import learning_curves, penalty_matrix
from skal.plotting import PairwiseComparisonDisplay

figure = pytest.importorskip("matplotlib.figure")


def records():
    """badge is better than random with 40 of 20, 40, 60 and 100 labels."""
    gains = [0.009, 0.01, 0.011, 0.01, 0.01]
    return [
        {
            "strategy": name,
            "seed": seed,
            "n_labeled": n,
            "accuracy": n / 200 + (name == "badge") * (n == 40) * gain,
        }
        for seed, gain in enumerate(gains)
        for name in ("badge", "random")
        for n in (100, 20, 60, 40)
    ]


def test_numbers_are_those_of_the_matrix_and_drawn():
    ax = figure.Figure().subplots()
    display = PairwiseComparisonDisplay.from_records(records(), ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    assert display.names == ["badge", "random"]
    np.testing.assert_array_equal(display.checkpoints, [20, 40, 60, 100])
    np.testing.assert_array_equal(display.wins, [[0, 0.25], [0, 0]])
    np.testing.assert_array_equal(display.penalties, [0, 0.125])
    np.testing.assert_array_equal(display.n_seeds, [[5, 5], [5, 5]])
    drawn = {text.get_position(): text.get_text() for text in ax.texts}
    # (column, row); the last row has the penalties.
    expected = {(1, 0): "0.25", (0, 1): "0.00", (0, 2): "0.00", (1, 2): "0.12"}
    assert drawn == expected
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["badge", "random", "is beaten"]


def test_options_reach_the_matrix():
    ax = figure.Figure().subplots()
    options = {"checkpoints": [40, 100], "alpha": 1e-9}
    display = PairwiseComparisonDisplay.from_records(records(), ax=ax, **options)
    expected = penalty_matrix(learning_curves(records()), **options).wins
    np.testing.assert_array_equal(display.wins, expected)
    assert not display.wins.any()


def test_frame():
    pytest.importorskip("pandas")
    nan = np.nan
    frame = PairwiseComparisonDisplay(["a", "b"], [[0, nan], [nan, 0]]).frame()
    assert list(frame.columns) == ["a", "b"]
    assert list(frame.index) == ["a", "b", "penalty"]
    np.testing.assert_array_equal(frame, [[0, nan], [nan, 0], [nan, nan]])


def test_what_could_not_be_compared_is_drawn_as_a_dash():
    ax = figure.Figure().subplots()
    PairwiseComparisonDisplay(["a", "b"], [[0, np.nan], [np.nan, 0]]).plot(ax)
    assert [text.get_text() for text in ax.texts] == ["-"] * 4


def test_shape_is_checked():
    with pytest.raises(ValueError, match=r"wins must .* 3 names, got the shape \(2, 2"):
        PairwiseComparisonDisplay(list("abc"), np.zeros((2, 2)))
