import numpy as np
import pytest

from skal.plotting import sketch_curve
from skal.plotting._sketch import _BOX, limits, ticks

BLUE = (31, 119, 180)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (-0.5, 0.5, [-0.4, -0.2, 0, 0.2, 0.4]),
        (10, 230, [50, 100, 150, 200]),
        (0.991, 0.9985, [0.992, 0.994, 0.996, 0.998]),
    ],
)
def test_ticks(low, high, expected):
    np.testing.assert_allclose(ticks(low, high), expected, atol=1e-12)


@pytest.mark.parametrize("value", [0.3, 0, 20])
def test_limits_of_one_value(value):
    assert limits([value]) == (value - 0.5, value + 0.5)


def test_points_are_where_they_belong():
    picture = sketch_curve([10, 20, 30], [0.5, 0.9, 0.7], title="a", score_name="b_c")
    pixels = np.asarray(picture)
    assert pixels.shape == (500, 750, 3)
    left, top, right, bottom = _BOX
    for x, y in [(10, 0.5), (20, 0.9), (30, 0.7)]:
        across = left + (right - left) * (x - 9) / 22
        down = bottom - (bottom - top) * (y - 0.48) / 0.44
        assert tuple(pixels[round(down), round(across)]) == BLUE
    blue = (pixels == BLUE).all(2)
    assert not blue[: top + 10].any() and not blue[:, : left + 10].any()


def test_one_round():
    pixels = np.asarray(sketch_curve([20], [0.3]))
    rows, columns = np.nonzero((pixels == BLUE).all(2))
    left, top, right, bottom = _BOX
    assert abs(rows.mean() - (top + bottom) / 2) < 1
    assert abs(columns.mean() - (left + right) / 2) < 1
