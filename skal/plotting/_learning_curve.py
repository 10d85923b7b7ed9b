"""Score against the number of labels."""

import numpy as np

from skal.utils.statistics import mean_interval


class LearningCurveDisplay:
    """Learning curves of one or several strategies.

    Use :meth:`from_records`; the numbers stay on the object.

    Parameters
    ----------
    curves : dict of str to (n_labeled, scores)
        By strategy, the numbers of labels, of shape (n_points,), and the scores of
        its runs, of shape (n_runs, n_points).
    score_name : str, default="accuracy"
        What the scores are.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where the curves were drawn.
    figure_ : matplotlib Figure
        Its figure.

    Examples
    --------
    >>> from skal.plotting import LearningCurveDisplay
    >>> curves = {"badge": ([20, 40], [[0.7, 0.9], [0.8, 0.9]])}
    >>> display = LearningCurveDisplay(curves)
    >>> display.mean("badge")
    array([0.75, 0.9 ])
    """

    def __init__(self, curves, *, score_name="accuracy"):
        self.curves = {
            name: (np.asarray(n_labeled), np.atleast_2d(scores))
            for name, (n_labeled, scores) in curves.items()
        }
        self.score_name = score_name

    @classmethod
    def from_records(cls, records, *, score_name="accuracy", ax=None):
        """Draw the rounds of one or several runs.

        Parameters
        ----------
        records : iterable of dict
            One a run and round, with the keys "strategy", "seed", "n_labeled" and
            `score_name`, as in rounds.jsonl.
        score_name : str, default="accuracy"
            Key of the score.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : LearningCurveDisplay
        """
        runs = {}
        for record in sorted(records, key=lambda record: record["n_labeled"]):
            point = record["n_labeled"], record[score_name]
            by_seed = runs.setdefault(record["strategy"], {})
            by_seed.setdefault(record["seed"], []).append(point)
        curves = {}
        for name, by_seed in runs.items():
            labels = {tuple(n for n, _ in points) for points in by_seed.values()}
            if len(labels) > 1:
                raise ValueError(
                    f"The runs of {name!r} differ in their numbers of labels: "
                    f"{sorted(labels)}."
                )
            scores = [[score for _, score in by_seed[seed]] for seed in sorted(by_seed)]
            curves[name] = labels.pop(), scores
        return cls(curves, score_name=score_name).plot(ax=ax)

    def mean(self, name):
        """Compute the mean score of a strategy's runs.

        Parameters
        ----------
        name : str

        Returns
        -------
        mean : ndarray of shape (n_points,)
        """
        return self.curves[name][1].mean(axis=0)

    def interval(self, name):
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

    def frame(self):
        """Give the numbers as a table.

        Returns
        -------
        frame : pandas.DataFrame
            Columns strategy, n_labeled, mean, low, high and n_runs; a row for each
            point of each mean curve.
        """
        import pandas

        parts = []
        for name, (n_labeled, scores) in self.curves.items():
            low, high = self.interval(name)
            columns = {"strategy": name, "n_labeled": n_labeled}
            columns |= {"mean": self.mean(name), "low": low, "high": high}
            parts.append(pandas.DataFrame({**columns, "n_runs": len(scores)}))
        return pandas.concat(parts, ignore_index=True)

    def plot(self, ax=None):
        """Draw the mean of each strategy's runs, and its 95 % interval.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        self : LearningCurveDisplay
        """
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots()
        for name, (n_labeled, _) in self.curves.items():
            ax.plot(n_labeled, self.mean(name), marker="o", markersize=4, label=name)
            ax.fill_between(n_labeled, *self.interval(name), alpha=0.12)
        ax.set(xlabel="labels", ylabel=self.score_name.replace("_", " "))
        ax.grid(alpha=0.3)
        if self.curves:
            ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
