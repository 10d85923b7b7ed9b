"""Who beats whom: the penalty matrix."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skal.analysis import learning_curves, penalties, penalty_matrix
from skal.plotting._base import Display

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class PairwiseComparisonDisplay(Display):
    """Penalty matrix: how often each strategy is significantly better than another.

    Use :meth:`from_records`; the numbers stay on the object.

    Parameters
    ----------
    names : list of str
        The strategies.
    wins : array-like of shape (n_strategies, n_strategies)
        wins[i, j] is how often i beats j; NaN where they could not be compared. A sum
        over data sets is allowed.
    checkpoints : array-like of int, default=()
        Numbers of labels at which they were compared.
    n_seeds : array-like of int of shape (n_strategies, n_strategies), default=None
        Seeds behind each comparison.

    Attributes
    ----------
    penalties : ndarray of shape (n_strategies,)
        Means of the columns: how often a strategy is beaten, lower is better; NaN
        where it was compared with none.
    ax_ : matplotlib Axes
        Where the matrix was drawn.
    figure_ : matplotlib Figure
        Its figure.

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford and Agarwal (2020). Deep batch active
       learning by diverse, uncertain gradient lower bounds. ICLR. Section 5.

    Examples
    --------
    >>> from skal.plotting import PairwiseComparisonDisplay
    >>> display = PairwiseComparisonDisplay(["badge", "random"], [[0, 0.5], [0, 0]])
    >>> display.penalties
    array([0.  , 0.25])
    """

    def __init__(
        self,
        names: Sequence[str],
        wins: ArrayLike,
        *,
        checkpoints: ArrayLike = (),
        n_seeds: ArrayLike | None = None,
    ):
        self.names = list(names)
        self.wins = np.asarray(wins, dtype=float)
        if self.wins.shape != (len(self.names), len(self.names)):
            raise ValueError(
                "wins must have a row and a column for each of the "
                f"{len(self.names)} names, got the shape {self.wins.shape}."
            )
        self.checkpoints, self.n_seeds = np.asarray(checkpoints), n_seeds
        self.penalties = penalties(self.wins).to_numpy()

    @classmethod
    def from_records(
        cls,
        records: "pd.DataFrame | Iterable[dict[str, Any]]",
        *,
        score_name: str = "accuracy",
        ax: "Axes | None" = None,
        **options: Any,
    ) -> Self:
        """Compare the runs of several strategies, paired by seed, and draw.

        Parameters
        ----------
        records : pandas.DataFrame or iterable of dict
            One a run and round, with the columns "strategy", "seed", "n_labeled" and
            `score_name`; of one data set, network and batch size.
        score_name : str, default="accuracy"
            Column of the score, of which more is better.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **options : dict
            `checkpoints`, `baseline`, `alpha` and `holm` of
            :func:`skal.analysis.penalty_matrix`.

        Returns
        -------
        display : PairwiseComparisonDisplay
        """
        curves = learning_curves(records, score_name)
        wins, checkpoints, n_seeds = penalty_matrix(curves, **options)
        display = cls(wins.index, wins, checkpoints=checkpoints, n_seeds=n_seeds)
        return display.plot(ax=ax)

    def frame(self) -> "pd.DataFrame":
        """Give the numbers as a table.

        Returns
        -------
        frame : pandas.DataFrame
            Row i, column j: how often i beats j; the last row, "penalty", has the
            means of the columns.
        """
        import pandas

        rows = np.vstack([self.wins, self.penalties])
        index = pandas.Index([*self.names, "penalty"], name="better")
        return pandas.DataFrame(rows, index=index, columns=self.names)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the matrix, with the penalties below it.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : PairwiseComparisonDisplay
        """
        n = len(self.names)
        ax = self._axes(ax, figsize=(2 + 0.5 * n, 1.6 + 0.45 * n))
        rows = np.vstack([self.wins, self.penalties])
        top = max(np.nanmax(rows, initial=0), 1e-9)
        colors = np.where(np.isnan(rows), 0, rows)
        ax.imshow(colors, cmap="Blues", vmin=0, vmax=1.4 * top, aspect="auto")
        for (i, j), value in np.ndenumerate(rows):
            if i != j:
                text = "-" if np.isnan(value) else f"{value:.2f}"
                ax.text(j, i, text, ha="center", va="center", fontsize="small")
        ax.axhline(n - 0.5, color="black", linewidth=1)
        ax.set_xticks(range(n), self.names, rotation=90)
        ax.set_yticks(range(n + 1), [*self.names, "is beaten"])
        ax.set(xlabel="worse", ylabel="better")
        return self
