"""The bought images themselves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skal.plotting._base import Display
from skal.plotting._looks import looks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_INCH = 1.35  # width of an image in a figure of its own
_LINE = 0.14  # height, in widths of an image
_FORMS = {"label": "{}", "prediction": "pred. {}", "score": "{:.3g}"}
_LONGEST = 18  # letters below an image


class QuerySheetDisplay(Display):
    """Contact sheet of the bought images with label, prediction and score.

    Parameters
    ----------
    images : array-like of shape (n, height, width), (n, n_channels, height, width) \
            or (n, height, width, n_channels)
        One or three channels. Bytes, or numbers in [0, 1]; others are scaled, all
        alike.
    indices : array-like of int of shape (n,), default=None
        Their rows in the pool; None counts from 0.
    label, prediction : array-like of shape (n,), default=None
        What was answered, and what the model said before.
    score : array-like of shape (n,), default=None
        Of the strategy.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the sheet was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.plotting import QuerySheetDisplay
    >>> display = QuerySheetDisplay(
    ...     np.zeros((2, 1, 8, 8)), label=["cat", "dog"], score=[0.9, 0.71]
    ... )
    >>> display.captions
    [['cat', '0.9'], ['dog', '0.71']]
    """

    def __init__(
        self,
        images: ArrayLike,
        *,
        indices: ArrayLike | None = None,
        label: ArrayLike | None = None,
        prediction: ArrayLike | None = None,
        score: ArrayLike | None = None,
    ):
        self.images = _as_pictures(np.asarray(images))
        n = len(self.images)
        columns = {"index": np.arange(n) if indices is None else indices}
        columns |= {"label": label, "prediction": prediction, "score": score}
        self.columns = {
            name: np.asarray(values)
            for name, values in columns.items()
            if values is not None
        }
        for name, values in self.columns.items():
            if values.shape != (n,):
                raise ValueError(
                    f"{name} must have one entry for each of the {n} images, got the "
                    f"shape {values.shape}."
                )

    @classmethod
    def from_purchase(
        cls,
        X: Any,
        indices: ArrayLike,
        *,
        y: ArrayLike | None = None,
        prediction: ArrayLike | None = None,
        score: ArrayLike | None = None,
        classes: Sequence[str] | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw the rows that were bought.

        Parameters
        ----------
        X : array-like or Dataset of shape (n_samples, ...)
            The pool; a Dataset gives its rows as (image, ...) or image.
        indices : array-like of int of shape (n,)
            Rows of X that were bought, best first.
        y : array-like of shape (n_samples,), default=None
            Labels of the pool.
        prediction, score : array-like of shape (n,), default=None
            Of the rows that were bought, in the order of `indices`.
        classes : sequence of str, default=None
            Names, where labels and predictions are positions in it.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : QuerySheetDisplay
        """
        indices = np.asarray(indices)
        images = [np.asarray(_image(X, row)) for row in indices.tolist()]
        label = None if y is None else np.asarray(y)[indices]
        columns = {"label": label, "prediction": prediction}
        if classes is not None:
            columns = {
                name: None if values is None else np.asarray(classes)[values]
                for name, values in columns.items()
            }
        return cls(np.stack(images), indices=indices, score=score, **columns).plot(ax)

    @property
    def captions(self) -> list[list[str]]:
        """Lines below each image: label, prediction and score, where given."""
        lines = [
            [_shorten(form.format(value)) for value in self.columns[name]]
            for name, form in _FORMS.items()
            if name in self.columns
        ]
        return [list(each) for each in zip(*lines, strict=True)]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether label and prediction differ; nowhere where one is not given."""
        if {"label", "prediction"} <= self.columns.keys():
            return self.columns["label"] != self.columns["prediction"]
        return np.zeros(len(self.images), dtype=bool)

    def frame(self) -> "pd.DataFrame":
        """Give the numbers as a table.

        Returns
        -------
        frame : pandas.DataFrame
            A row for each image: index and, where given, label, prediction and score.
        """
        import pandas

        return pandas.DataFrame(self.columns)

    def plot(self, ax: "Axes | None" = None, *, n_columns: int = 6) -> Self:
        """Draw the images in rows; a wrong prediction is bold, and its image framed.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        n_columns : int, default=6
            Images in a row.

        Returns
        -------
        self : QuerySheetDisplay
        """
        captions = self.captions or [[]] * len(self.images)
        n_columns = min(n_columns, len(self.images))
        n_rows = -(-len(self.images) // n_columns)
        height = self.images.shape[1] / self.images.shape[2]
        cell = height + _LINE * (len(captions[0]) + 0.7)
        inches, size = _INCH, np.array([1.1 * n_columns, n_rows * cell])
        if ax is not None:
            extent = ax.get_window_extent().size / ax.figure.dpi
            inches = min(extent / size)
        ax = self._axes(ax, figsize=_INCH * size)
        # As large as there is room for: 18 letters, 0.6 of their height wide.
        letters = {"ha": "center", "va": "top", "fontsize": min(72 * inches / 11, 10)}
        color = looks("abcd")["d"].color
        for k, picture in enumerate(self.images):
            left, top = k % n_columns * 1.1, k // n_columns * cell
            extent = left, left + 1, top + height, top
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent)
            if self.wrong[k]:
                x, y = [left, left + 1, left + 1, left], [top, top, top + height]
                ax.fill(x, [*y, top + height], fill=False, edgecolor=color, linewidth=2)
            for line, text in enumerate(captions[k]):
                place = left + 0.5, top + height + _LINE * line + 0.03
                below = self.wrong[k] and line == 1  # the label
                style = {"color": color, "weight": "bold"} if below else {}
                ax.text(*place, text, **letters, **style)
        ax.set(xlim=(-0.05, n_columns * 1.1), ylim=(n_rows * cell, -0.05))
        ax.set_aspect("equal")
        ax.axis("off")
        return self


def _as_pictures(images):
    """Scale to [0, 1] and move channels last; one channel is dropped."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3):
        images = np.moveaxis(images, 1, -1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    good = images.ndim in (3, 4) and images.shape[3:] in ((), (3,))
    if not (good and len(images)):
        raise ValueError(
            "images must be at least one, gray or of one or three channels, got the "
            f"shape {images.shape}."
        )
    if images.dtype == np.uint8:
        return images / 255
    low, high = min(images.min(), 0.0), max(images.max(), 1.0)
    return (images - low) / (high - low)


def _image(X, row):
    item = X[row]
    return item[0] if isinstance(item, tuple | list) else item


def _shorten(text):
    return text if len(text) <= _LONGEST else text[: _LONGEST - 2] + ".."
