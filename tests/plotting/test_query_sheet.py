import numpy as np
import pytest

from skal.plotting import QuerySheetDisplay

figure = pytest.importorskip("matplotlib.figure")

POOL = np.arange(5 * 3 * 2 * 4, dtype=np.uint8).reshape(5, 3, 2, 4)


def test_purchase_is_what_is_drawn():
    ax = figure.Figure().subplots()
    display = QuerySheetDisplay.from_purchase(
        POOL,
        [4, 1, 2],
        y=np.array([0, 1, 0, 0, 1]),
        prediction=[1, 0, 0],
        score=[0.98765, 0.5, 0.25],
        classes=("cat", "a very long name of a class"),
        ax=ax,
    )
    assert display.ax_ is ax and display.figure_ is ax.figure
    np.testing.assert_array_equal(display.wrong, [False, True, False])
    expected = np.moveaxis(POOL[[4, 1, 2]], 1, -1) / 255
    np.testing.assert_array_equal(display.images, expected)
    for image, drawn in zip(expected, ax.images, strict=True):
        np.testing.assert_array_equal(drawn.get_array(), image)
    assert display.captions == [
        ["a very long name..", "pred. a very lon..", "0.988"],
        ["a very long name..", "pred. cat", "0.5"],
        ["cat", "pred. cat", "0.25"],
    ]
    assert [text.get_text() for text in ax.texts] == sum(display.captions, [])
    bold = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    assert bold == ["pred. cat"]
    (frame,) = ax.patches  # around the image of the wrong one
    left, right, bottom, top = ax.images[1].get_extent()
    corners = {(left, top), (right, top), (right, bottom), (left, bottom)}
    assert set(map(tuple, frame.get_xy())) == corners


@pytest.mark.parametrize("n_columns, width", [(6, None), (10, 8), (3, 3), (2, 4)])
def test_captions_fit_below_their_images(n_columns, width):
    names = ["a very long name of a class", "MMMMMMMMMMMMMMMMMM", "cat"] * 4
    display = QuerySheetDisplay(np.zeros((12, 8, 8)), label=names, prediction=names)
    ax = None if width is None else figure.Figure(figsize=(width, width)).subplots()
    display.plot(ax, n_columns=n_columns)
    display.figure_.canvas.draw()
    boxes = [text.get_window_extent() for text in display.ax_.texts]
    apart = boxes[2].x0 - boxes[0].x0 + (boxes[2].width - boxes[0].width) / 2
    texts = sum(display.captions, [])
    ordinary = [box for box, text in zip(boxes, texts, strict=True) if "M" not in text]
    assert max(box.width for box in ordinary) <= apart
    assert boxes[1].y1 < boxes[0].y0 + 1
    if width is None:
        assert display.ax_.texts[0].get_fontsize() >= 8
        pytest.importorskip("matplotlib.pyplot").close(display.figure_)


def test_images_and_captions_do_not_overlap():
    ax = figure.Figure().subplots()
    display = QuerySheetDisplay(np.zeros((5, 6, 3)), label=list("abcde"))
    display.plot(ax, n_columns=2)
    left, right, bottom, top = np.array([each.get_extent() for each in ax.images]).T
    np.testing.assert_allclose(right - left, 1)
    np.testing.assert_allclose(bottom - top, 2)
    assert left[1] > right[0] and left[2] == left[0]
    captions = [text.get_position()[1] for text in ax.texts]
    assert np.all(captions > bottom) and captions[0] < top[2] - 0.14
    assert ax.get_xlim()[1] >= right.max() and ax.get_ylim()[0] > captions[-1]


@pytest.mark.parametrize(
    "images, shape",
    [
        (np.zeros((2, 4, 5)), (2, 4, 5)),
        (np.zeros((2, 1, 4, 5)), (2, 4, 5)),
        (np.zeros((2, 4, 5, 1)), (2, 4, 5)),
        (np.zeros((2, 3, 4, 5)), (2, 4, 5, 3)),
        (np.zeros((2, 4, 5, 3)), (2, 4, 5, 3)),
    ],
)
def test_layouts_of_images(images, shape):
    assert QuerySheetDisplay(images).images.shape == shape


def test_numbers_outside_of_0_and_1_are_scaled_alike():
    images = np.array([[[-1.0, 3.0]], [[0.0, 1.0]]])
    scaled = QuerySheetDisplay(images).images
    np.testing.assert_allclose(scaled, [[[0, 1]], [[0.25, 0.5]]])
    kept = QuerySheetDisplay(np.array([[[0.25, 0.5]]])).images
    np.testing.assert_array_equal(kept, [[[0.25, 0.5]]])


def test_a_dataset_gives_its_images():
    rows = [(image, 0) for image in POOL]
    ax = figure.Figure().subplots()
    display = QuerySheetDisplay.from_purchase(rows, [3], ax=ax)
    np.testing.assert_array_equal(display.images[0], np.moveaxis(POOL[3], 0, -1) / 255)
    assert display.captions == [] and not ax.texts


def test_frame():
    pytest.importorskip("pandas")
    frame = QuerySheetDisplay(
        POOL[:2], indices=[7, 3], score=[0.1, 0.2], prediction=["a", "b"]
    ).frame()
    assert list(frame.columns) == ["index", "prediction", "score"]
    assert frame["index"].tolist() == [7, 3] and frame["score"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 4), (2, 2, 4, 4), (2, 1, 3, 4, 4)])
def test_images_are_checked(shape):
    with pytest.raises(ValueError, match="images must be at least one"):
        QuerySheetDisplay(np.zeros(shape))


def test_columns_are_checked():
    with pytest.raises(ValueError, match="score must have one entry for each of the 5"):
        QuerySheetDisplay(POOL, score=[1.0])
