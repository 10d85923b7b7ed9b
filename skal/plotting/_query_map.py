"""Where in the pool the purchases lie."""

from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA

from skal.plotting._base import Display
from skal.plotting._looks import looks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class QueryMapDisplay(Display):
    """Map of the pool with the purchases by round.

    Use :meth:`from_embeddings`, or give coordinates of your own, such as t-SNE's.

    Parameters
    ----------
    coordinates : array-like of shape (n_samples, 2)
        Where the rows of the pool lie.
    labeled_iter : array-like of int of shape (n_samples,)
        Round in which a row was bought: 0 initially, k in round k, -1 never, as in
        `ActiveLearningLoop.labeled_iter_`.
    next_query : array-like of int, default=()
        Rows that are asked for now, as in `ActiveLearningLoop.next_query_`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the map was drawn.
    figure_ : matplotlib Figure
        Its figure.

    Examples
    --------
    >>> from skal.plotting import QueryMapDisplay
    >>> display = QueryMapDisplay([[0, 0], [1, 0], [0, 1]], [-1, 0, 1])
    >>> display.rows_of(1)
    array([2])
    """

    def __init__(
        self,
        coordinates: ArrayLike,
        labeled_iter: ArrayLike,
        *,
        next_query: ArrayLike = (),
    ):
        self.coordinates = np.asarray(coordinates, dtype=float)
        self.labeled_iter = np.asarray(labeled_iter)
        self.next_query = np.asarray(next_query, dtype=np.int64)
        expected = (len(self.labeled_iter), 2)
        if self.coordinates.shape != expected:
            raise ValueError(
                f"coordinates must be of shape {expected}, two for each entry of "
                f"labeled_iter, got {self.coordinates.shape}."
            )
        if np.setdiff1d(self.next_query, np.arange(len(self.labeled_iter))).size:
            raise ValueError(
                f"next_query must hold rows from 0 to {len(self.labeled_iter) - 1}, "
                f"got {self.next_query.tolist()}."
            )

    @classmethod
    def from_embeddings(
        cls,
        embeddings: ArrayLike,
        labeled_iter: ArrayLike,
        *,
        next_query: ArrayLike = (),
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw the two main axes of embeddings or features.

        Parameters
        ----------
        embeddings : array-like of shape (n_samples, ...)
            Of all rows, in the order of `labeled_iter`, at least two numbers each;
            images are flattened. All from one network: the axes are its own.
        labeled_iter : array-like of int of shape (n_samples,)
            Round in which a row was bought, -1 never.
        next_query : array-like of int, default=()
            Rows that are asked for now.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : QueryMapDisplay
        """
        rows = np.asarray(embeddings, dtype=float)
        rows = rows.reshape(len(rows), -1)
        if min(rows.shape) < 2:
            raise ValueError(
                "embeddings must have at least two rows of at least two numbers, got "
                f"the shape {rows.shape}."
            )
        coordinates = PCA(n_components=2, random_state=0).fit_transform(rows)
        return cls(coordinates, labeled_iter, next_query=next_query).plot(ax=ax)

    def rows_of(self, number: int) -> NDArray[np.int64]:
        """Find the rows that were bought in a round.

        Parameters
        ----------
        number : int
            The round; -1 for the rows that were never bought.

        Returns
        -------
        rows : int64 array of shape (n_rows,)
            Ascending.
        """
        return np.flatnonzero(self.labeled_iter == number)

    def frame(self) -> "pd.DataFrame":
        """Give the numbers as a table.

        Returns
        -------
        frame : pandas.DataFrame
            Columns x, y, round and asked, a row for each row of the pool.
        """
        import pandas

        x, y = self.coordinates.T
        asked = np.isin(np.arange(len(x)), self.next_query)
        columns = {"x": x, "y": y, "round": self.labeled_iter, "asked": asked}
        return pandas.DataFrame(columns)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the pool in grey, purchases in the colour of their round, and the query.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : QueryMapDisplay
        """
        from matplotlib.ticker import MaxNLocator

        ax, color = self._axes(ax), looks("abcd")["d"].color
        parts = [self.rows_of(-1), self.rows_of(0), self.labeled_iter > 0]
        pool, initial, bought = (self.coordinates[rows].T for rows in parts)
        ax.scatter(*pool, s=6, color="0.82", linewidths=0, label="not bought")
        ax.scatter(*initial, s=28, color="black", marker="x", label="initial")
        if bought.size:
            rounds = self.labeled_iter[parts[2]]
            style = {"s": 22, "edgecolors": "white", "linewidths": 0.4}
            scale = {"cmap": "viridis_r", "vmin": 1, "vmax": max(rounds.max(), 2)}
            points = ax.scatter(*bought, c=rounds, label="bought", **style, **scale)
            ticks = MaxNLocator(integer=True)
            ax.figure.colorbar(points, ax=ax, label="round", ticks=ticks)
        if len(self.next_query):
            asked = self.coordinates[self.next_query].T
            style = {"facecolors": "none", "edgecolors": color, "linewidths": 1.6}
            ax.scatter(*asked, s=60, marker="D", label="asked now", **style)
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4)
        return self
