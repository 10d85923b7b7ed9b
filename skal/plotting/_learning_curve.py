"""Score against the number of labels."""

from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skal.analysis import learning_curves, mean_interval
from skal.plotting._base import Display
from skal.plotting._looks import looks, score_range

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Gain = namedtuple("Gain", "n_labeled mean low high n_pairs")


class LearningCurveDisplay(Display):
    """Learning curves of one or several strategies.

    Use :meth:`from_records`; the numbers stay on the object.

    Parameters
    ----------
    curves : dict of str to (n_labeled, scores)
        By strategy, the numbers of labels, of shape (n_points,), and the scores of
        its runs, of shape (n_runs, n_points).
    score_name : str, default="accuracy"
        What the scores are.
    seeds : dict of str to array-like of shape (n_runs,), default=None
        By strategy, the seeds of its runs, by which runs are paired; None takes 0, 1,
        ... for each.
    baseline : str, default="random"
        The strategy that the others are compared with.
    full_data : float, default=None
        Score of the model trained on all labels, drawn as a line.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the curves were drawn.
    figure_ : matplotlib Figure
        Its figure.

    Notes
    -----
    There are two 95 % intervals, both Student's t over seeds. :meth:`interval` is that
    of one strategy's mean. It holds the spread of splits and first labels, which the
    runs of a seed share: where two overlap, the strategies may well differ.
    :meth:`gain` is that of the mean difference from the baseline, paired by seed, which
    is free of it: where it leaves out 0, they differ at that number of labels.

    Examples
    --------
    >>> from skal.plotting import LearningCurveDisplay
    >>> curves = {
    ...     "badge": ([20, 40], [[0.7, 0.9], [0.8, 0.9]]),
    ...     "random": ([20, 40], [[0.7, 0.8], [0.8, 0.8]]),
    ... }
    >>> display = LearningCurveDisplay(curves)
    >>> display.mean("badge")
    array([0.75, 0.9 ])
    >>> display.gain("badge").mean.round(3)
    array([0. , 0.1])
    """

    def __init__(
        self,
        curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        score_name: str = "accuracy",
        seeds: Mapping[str, ArrayLike] | None = None,
        baseline: str = "random",
        full_data: float | None = None,
    ):
        self.curves = {
            name: (np.asarray(n_labeled), np.atleast_2d(scores))
            for name, (n_labeled, scores) in curves.items()
        }
        self.score_name, self.baseline = score_name, baseline
        self.full_data = None if full_data is None else float(full_data)
        self.seeds = {}
        for name, (_, scores) in self.curves.items():
            mine = range(len(scores)) if seeds is None else seeds[name]
            self.seeds[name] = list(mine)
            if len(set(self.seeds[name])) != len(scores):
                raise ValueError(
                    f"seeds[{name!r}] must be one for each of the {len(scores)} runs, "
                    f"got {self.seeds[name]}."
                )

    @classmethod
    def from_records(
        cls,
        records: "pd.DataFrame | Iterable[dict[str, Any]]",
        *,
        strategies: Sequence[str] | None = None,
        score_name: str = "accuracy",
        baseline: str = "random",
        full_data: float | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw the rounds of one or several runs.

        Parameters
        ----------
        records : pandas.DataFrame or iterable of dict
            One a run and round, with the columns "strategy", "seed", "n_labeled" and
            `score_name`, as in rounds.jsonl and results.csv.
        strategies : list of str, default=None
            Which to draw, in this order; the baseline is drawn in any case, where
            there are records of it. None draws all.
        score_name : str, default="accuracy"
            Column of the score.
        baseline : str, default="random"
            The strategy that the others are compared with.
        full_data : float, default=None
            Score of the model trained on all labels.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : LearningCurveDisplay

        Raises
        ------
        ValueError
            Where there are no records of a strategy, or its runs differ in their
            numbers of labels.
        """
        table = learning_curves(records, score_name)
        there = table.columns.unique("strategy")
        names = list(there if strategies is None else strategies)
        if absent := [name for name in names if name not in there]:
            raise ValueError(
                f"strategies has {absent[0]!r}, of which there are no records; there "
                f"are {', '.join(there)}."
            )
        if baseline in there and baseline not in names:
            names.append(baseline)
        curves, seeds = {}, {}
        for name in names:
            labels = {tuple(run.dropna().index) for _, run in table[name].items()}
            if len(labels) > 1:
                raise ValueError(
                    f"The runs of {name!r} differ in their numbers of labels: "
                    f"{sorted(labels)}."
                )
            n_labeled = list(labels.pop())
            curves[name] = n_labeled, table.loc[n_labeled, name].to_numpy().T
            seeds[name] = list(table[name])
        options = {"baseline": baseline, "full_data": full_data}
        return cls(curves, score_name=score_name, seeds=seeds, **options).plot(ax)

    def mean(self, name: str) -> NDArray:
        """Compute the mean score of a strategy's runs.

        Parameters
        ----------
        name : str

        Returns
        -------
        mean : ndarray of shape (n_points,)
        """
        return self.curves[name][1].mean(axis=0)

    def interval(self, name: str) -> tuple[NDArray, NDArray]:
        """Compute the 95 % t interval of the mean over a strategy's runs.

        Parameters
        ----------
        name : str

        Returns
        -------
        low, high : ndarray of shape (n_points,)
            NaN where there is one run.
        """
        mean, half = mean_interval(self.curves[name][1])
        return mean - half, mean + half

    def gain(self, name: str) -> Gain:
        """Compute a strategy's mean difference from the baseline, paired by seed.

        Parameters
        ----------
        name : str

        Returns
        -------
        gain : Gain
            n_labeled, mean, low, high : ndarray of shape (n_points,), the numbers of
            labels that both have, the mean over the seeds that both have and its 95 %
            t interval, NaN with one seed; n_pairs : int, the seeds. Without a seed in
            common there are no points.
        """
        if self.baseline not in self.curves:
            return Gain(*np.empty((4, 0)), 0)
        gaps = self._runs(name) - self._runs(self.baseline)
        # Seeds and numbers of labels that one of them lacks are NaN.
        gaps = gaps.dropna(axis=1, how="all").dropna(how="all")
        if gaps.empty:
            return Gain(*np.empty((4, 0)), 0)
        mean, half = mean_interval(gaps.T)
        n_labeled = gaps.index.to_numpy()
        return Gain(n_labeled, mean, mean - half, mean + half, gaps.shape[1])

    def _runs(self, name):
        import pandas

        n_labeled, scores = self.curves[name]
        return pandas.DataFrame(scores.T, index=n_labeled, columns=self.seeds[name])

    def frame(self) -> "pd.DataFrame":
        """Give the numbers as a table.

        Returns
        -------
        frame : pandas.DataFrame
            Columns strategy, n_labeled, mean, low, high and n_runs, and the paired
            gain, gain_low, gain_high and n_pairs, NaN where there is no baseline; a row
            for each point of each mean curve.
        """
        import pandas

        parts = []
        for name, (n_labeled, scores) in self.curves.items():
            low, high = self.interval(name)
            mine = pandas.DataFrame({"strategy": name, "n_labeled": n_labeled})
            own = {"mean": self.mean(name), "low": low, "high": high}
            mine = mine.assign(**own, n_runs=len(scores))
            counts, *gain, n_pairs = self.gain(name)
            gain = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
            mine = mine.join(pandas.DataFrame(gain, index=counts), on="n_labeled")
            parts.append(mine.assign(n_pairs=n_pairs))
        return pandas.concat(parts, ignore_index=True)

    def plot(
        self, ax: "Axes | None" = None, *, gain: bool = False, bands: bool = True
    ) -> Self:
        """Draw each strategy's mean with its 95 % interval, and the full-data line.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        gain : bool, default=False
            Draw the differences from the baseline, paired by seed, instead of scores.
        bands : bool, default=True
            Draw the intervals, as far as the score can go; of many strategies they
            hide each other.

        Returns
        -------
        self : LearningCurveDisplay
        """
        ax = self._axes(ax)
        low_end, high_end = score_range(self.score_name)
        if gain:
            low_end, high_end = low_end - high_end, high_end - low_end
        for name, look in looks(self.curves, self.baseline).items():
            n_labeled, _ = self.curves[name]
            mean, (low, high) = self.mean(name), self.interval(name)
            if gain:
                n_labeled, mean, low, high, _ = self.gain(name)
            color = look.color or "black"
            style = {"color": color, "marker": look.marker, "markersize": 4}
            style["linestyle"] = (0, look.dashes) if look.dashes else "-"
            ax.plot(n_labeled, mean, label=name, zorder=2 + (not look.color), **style)
            if bands and not (gain and name == self.baseline):
                edges = np.clip([low, high], low_end, high_end)
                ax.fill_between(n_labeled, *edges, alpha=0.12, color=color, lw=0)
        if self.full_data is not None and not gain:
            style = {"color": "0.4", "linestyle": ":"}
            ax.axhline(self.full_data, label="all labels", **style)
        what = self.score_name.replace("_", " ")
        what += f" minus {self.baseline}'s" if gain else ""
        ax.set(xlabel="labels", ylabel=what)
        ax.grid(alpha=0.3)
        if self.curves:
            ax.legend(frameon=False, handlelength=3.5)
        return self
