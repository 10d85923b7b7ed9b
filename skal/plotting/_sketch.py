"""A picture of one learning curve, by Pillow: matplotlib takes long to import."""

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from skal.plotting._looks import limits, looks, ticks

if TYPE_CHECKING:
    from PIL.Image import Image

_SIZE, _BOX = (750, 500), (80, 42, 730, 435)
_SCALE = 2  # drawn larger and reduced: Pillow's lines have hard edges
_INK, _GRID = "#262626", "#d9d9d9"


def sketch_curve(
    n_labeled: ArrayLike,
    scores: ArrayLike,
    *,
    title: str = "",
    score_name: str = "accuracy",
) -> "Image":
    """Draw the scores of one run.

    Parameters
    ----------
    n_labeled, scores : array-like of shape (n_points,)
        Finite.
    title : str, default=""
        Above the picture.
    score_name : str, default="accuracy"
        What the scores are.

    Returns
    -------
    picture : PIL.Image.Image
        Of 750 x 500 pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    left, top, right, bottom = (_SCALE * edge for edge in _BOX)
    image = Image.new("RGB", [_SCALE * length for length in _SIZE], "white")
    draw = ImageDraw.Draw(image)
    color = looks([""])[""].color
    font = ImageFont.load_default(_SCALE * 17)
    (x_low, x_high), (y_low, y_high) = limits(n_labeled), limits(scores)

    def place(x, y):
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return left + across * (right - left), bottom - up * (bottom - top)

    def write(at, text, anchor):
        draw.text(at, text, _INK, font, anchor)

    gap = 8 * _SCALE
    for tick in ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        draw.line([(x, top), (x, bottom)], _GRID, _SCALE)
        write((x, bottom + gap), f"{tick:g}", "mt")
    for tick in ticks(y_low, y_high):
        _, y = place(x_low, tick)
        draw.line([(left, y), (right, y)], _GRID, _SCALE)
        write((left - gap, y), f"{tick:g}", "rm")
    draw.rectangle([left, top, right, bottom], outline=_INK, width=_SCALE)
    points = [place(*point) for point in zip(n_labeled, scores, strict=True)]
    draw.line(points, color, 5, joint="curve")
    for x, y in points:
        draw.ellipse([x - 9, y - 9, x + 9, y + 9], color)
    write(((left + right) / 2, top - gap), title, "mb")
    write(((left + right) / 2, image.height - gap), "labels", "mb")
    upright = Image.new("RGB", (bottom - top, 3 * gap), "white")
    text = score_name.replace("_", " ")
    ImageDraw.Draw(upright).text((upright.width / 2, 0), text, _INK, font, "mt")
    image.paste(upright.rotate(90, expand=True), (gap, top))
    return image.reduce(_SCALE)
