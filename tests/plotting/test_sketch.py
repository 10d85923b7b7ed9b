import numpy as np

from skal.plotting import sketch_curve
from skal.plotting._sketch import _BOX

BLUE = (0, 114, 178)


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
