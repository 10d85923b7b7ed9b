import numpy as np
import pytest

from skal.plotting import QueryMapDisplay

figure = pytest.importorskip("matplotlib.figure")

ROUNDS = np.array([-1, 2, 0, -1, 1, 2])
# On a line of three numbers, the second ten times as wide as the third.
ROWS = np.array([[7, 10 * i, (i % 2)] for i in range(6)], dtype=float)


def test_map_is_of_the_two_main_axes_and_drawn():
    ax = figure.Figure().subplots()
    display = QueryMapDisplay.from_embeddings(ROWS, ROUNDS, ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    centred = ROWS - ROWS.mean(0)
    np.testing.assert_allclose(
        (display.coordinates**2).sum(1), (centred**2).sum(1), rtol=1e-9
    )
    steps = np.abs(np.diff(display.coordinates[::2, 0]))
    np.testing.assert_allclose(steps, 20, rtol=1e-2)
    pool, initial, bought = ax.collections
    for points, rows in [(pool, [0, 3]), (initial, [2]), (bought, [1, 4, 5])]:
        np.testing.assert_array_equal(points.get_offsets(), display.coordinates[rows])
    np.testing.assert_array_equal(bought.get_array(), [2, 1, 2])


def test_rows_of_a_round():
    display = QueryMapDisplay(ROWS[:, :2], ROUNDS)
    assert display.rows_of(2).tolist() == [1, 5]
    assert display.rows_of(-1).tolist() == [0, 3]
    assert display.rows_of(7).tolist() == []


def test_images_are_flattened_and_same_again():
    images = np.random.default_rng(0).integers(0, 255, (6, 1, 4, 4), dtype=np.uint8)
    first, again = (
        QueryMapDisplay.from_embeddings(
            each, ROUNDS, ax=figure.Figure().subplots()
        ).coordinates
        for each in (images, images.reshape(6, 16))
    )
    np.testing.assert_array_equal(first, again)


def test_what_is_asked_for_is_drawn():
    ax = figure.Figure().subplots()
    QueryMapDisplay.from_embeddings(ROWS, ROUNDS, next_query=[3, 0], ax=ax)
    pool, *_, asked = ax.collections
    assert asked.get_label() == "asked now"
    np.testing.assert_array_equal(asked.get_offsets(), pool.get_offsets()[::-1])
    for rows in ([6], [-1]):
        with pytest.raises(ValueError, match="next_query must hold rows from 0 to 5"):
            QueryMapDisplay(ROWS[:, :2], ROUNDS, next_query=rows)


def test_a_pool_without_purchases():
    ax = figure.Figure().subplots()
    QueryMapDisplay(ROWS[:, :2], np.where(ROUNDS > 0, -1, ROUNDS)).plot(ax)
    assert [len(each.get_offsets()) for each in ax.collections] == [5, 1]


def test_frame():
    pytest.importorskip("pandas")
    frame = QueryMapDisplay(ROWS[:, :2], ROUNDS, next_query=[3, 0]).frame()
    assert list(frame.columns) == ["x", "y", "round", "asked"]
    assert np.flatnonzero(frame["asked"]).tolist() == [0, 3]
    np.testing.assert_array_equal(frame["y"], ROWS[:, 1])
    np.testing.assert_array_equal(frame["round"], ROUNDS)


@pytest.mark.parametrize("shape", [(6, 3), (5, 2), (6,)])
def test_coordinates_are_checked(shape):
    with pytest.raises(ValueError, match=r"coordinates must be of shape \(6, 2\)"):
        QueryMapDisplay(np.zeros(shape), ROUNDS)


@pytest.mark.parametrize("shape", [(6, 1), (1, 6)])
def test_embeddings_are_checked(shape):
    with pytest.raises(ValueError, match="at least two rows of at least two numbers"):
        QueryMapDisplay.from_embeddings(np.zeros(shape), ROUNDS[: shape[0]])
