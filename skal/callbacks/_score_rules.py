"""Rules that say when labels are enough, by the scores of the rounds."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from skal.callbacks._stopping import StoppingRule
from skal.net.training import fit_isolated
from skal.pool import PoolView
from skal.utils.rows import DatasetRows, is_dataset, take
from skal.utils.validation import Interval


class _ScoreRule(StoppingRule):
    """Base of rules over a score of each round.

    Parameters
    ----------
    monitor : str, default="test_score"
        A column of `history_`, the higher the better.
    cv : int, default=None
        Cross-validate the model on what is labelled, in so many folds, instead of
        reading a column.
    """

    _parameter_constraints = {
        "monitor": [str],
        "cv": [Interval(Integral, 2, None, closed="left"), None],
    }

    def _measure(self, seen):
        self._n_labels = [*getattr(self, "_n_labels", [])][: len(self.values_)]
        self._n_labels.append(len(seen.labeled))
        self._batch_size = seen.batch_size
        if self.cv is not None:
            return cross_validated(seen.pool, self.cv)
        if self.monitor not in seen.scores:
            raise ValueError(
                f"monitor={self.monitor!r} is no column of history_, which has "
                f"{[*seen.scores]}; give fit X_test and y_test, or the rule cv=5."
            )
        return seen.scores[self.monitor]

    def get_state(self) -> dict[str, NDArray]:
        """Give what the rule remembers; see `StoppingRule`."""
        n_labels = np.array(getattr(self, "_n_labels", []), dtype=np.int64)
        return {**super().get_state(), "n_labels": n_labels}

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Take over what `get_state` of an equal rule gave.

        Parameters
        ----------
        state : dict of str to ndarray
        """
        super().set_state(state)
        self._n_labels = state["n_labels"].tolist()


class ScorePlateau(_ScoreRule):
    """Stop when a score has not risen for some rounds.

    Parameters
    ----------
    monitor : str, default="test_score"
        A column of `history_`, the higher the better.
    patience : int, default=3
        So many rounds in a row without a gain end the fit.
    min_gain : float, default=0.0
        What counts as a gain is more than this above the best score so far.
    cv : int, default=None
        Cross-validate the model on what is labelled, in so many folds, instead of
        reading a column: accuracy, of classes with two labels at least. It is on few
        labels, chosen because they are hard, so mostly lower than on other rows.

    Notes
    -----
    The criterion "UP" of early stopping [1]_, over rounds instead of epochs and with a
    least gain; in active learning the gradient of a score is used alike [2]_. A score
    that stops the fit has been trained on in a way: keep other rows for the report.

    References
    ----------
    .. [1] Prechelt, "Early stopping - but when?", in: Neural Networks: Tricks of the
       Trade, 1998.
    .. [2] Laws and Schuetze, "Stopping criteria for active learning of named entity
       recognition", COLING 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.callbacks import Round, ScorePlateau
    >>> rule, rows = ScorePlateau("accuracy", patience=2), np.arange(9)
    >>> for number, accuracy in enumerate([0.7, 0.8, 0.8, 0.79]):
    ...     scores = {"accuracy": accuracy}
    ...     labeled, left = np.split(rows, [number + 2])
    ...     seen = Round(number=number, labeled=labeled, rows=left, scores=scores)
    ...     print(rule.update(seen))
    False
    False
    False
    True
    """

    _parameter_constraints = {
        **_ScoreRule._parameter_constraints,
        "patience": [Interval(Integral, 1, None, closed="left")],
        "min_gain": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        monitor: str = "test_score",
        *,
        patience: int = 3,
        min_gain: float = 0.0,
        cv: int | None = None,
    ):
        self.monitor = monitor
        self.patience = patience
        self.min_gain = min_gain
        self.cv = cv

    def _reached(self):
        best, since = -np.inf, 0
        for value in self.values_:
            gained = value > best + self.min_gain
            best, since = (value, 0) if gained else (best, since + 1)
        self.reason_ = f"no gain over a score of {best:.4g} for {since} rounds"
        return since >= self.patience


class ExpectedGain(_ScoreRule):
    """Stop when the learning curve promises too little for the next batch.

    The power law ``score(n) = a - b n^-c``, with ``b >= 0`` and ``c > 0``, is fitted to
    the scores at ``n`` labels by weighted least squares, where the j-th of m scores has
    the weight ``j / m`` [1]_. The gain of the next batch is what the curve rises over
    it.

    Parameters
    ----------
    monitor : str, default="test_score"
        A column of `history_`, the higher the better.
    min_gain : float, default=0.001
        Stop below.
    min_rounds : int, default=5
        Fit no curve to fewer scores.
    cv : int, default=None
        Cross-validate the model on what is labelled; see `ScorePlateau`.

    Notes
    -----
    In the paper the curve tells how many labels a wanted score takes, and is fitted by
    nl2sol; here `c` is one of 400 values between 0.01 and 10, and the rest is linear.

    References
    ----------
    .. [1] Figueroa, Zeng-Treitler, Kandula and Ngo, "Predicting sample size required
       for classification performance", BMC Medical Informatics and Decision Making,
       2012.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.callbacks._score_rules import expected_gain
    >>> n = np.array([10, 20, 30, 40, 50])
    >>> gain = expected_gain(n, 0.9 - 2 / n, 10)
    >>> print(f"{gain:.4f} {2 / 50 - 2 / 60:.4f}")
    0.0067 0.0067
    """

    _parameter_constraints = {
        **_ScoreRule._parameter_constraints,
        "min_gain": [Interval(Real, 0, None, closed="left")],
        "min_rounds": [Interval(Integral, 3, None, closed="left")],
    }

    def __init__(
        self,
        monitor: str = "test_score",
        *,
        min_gain: float = 0.001,
        min_rounds: int = 5,
        cv: int | None = None,
    ):
        self.monitor = monitor
        self.min_gain = min_gain
        self.min_rounds = min_rounds
        self.cv = cv

    def _reached(self):
        scores, n_labels = np.array(self.values_), np.array(self._n_labels)
        known = ~np.isnan(scores)
        if known.sum() < self.min_rounds:
            self.reason_ = f"{known.sum()} of {self.min_rounds} scores for a curve"
            return False
        gain = expected_gain(n_labels[known], scores[known], self._batch_size)
        self.reason_ = (
            f"the learning curve promises {gain:.2g} for the next {self._batch_size} "
            f"labels, {self.min_gain:g} are wanted"
        )
        return gain < self.min_gain


def expected_gain(
    n_labels: Sequence[int] | NDArray, scores: ArrayLike, batch_size: int
) -> float:
    """How much a power law fitted to scores rises over the next batch.

    Parameters
    ----------
    n_labels : array of int of shape (n_scores,)
        Positive.
    scores : array of shape (n_scores,)
    batch_size : int

    Returns
    -------
    gain : float
        0 at least; see `ExpectedGain`.
    """
    n, scores = np.asarray(n_labels, dtype=float), np.asarray(scores, dtype=float)
    weights = np.sqrt(np.arange(1, len(n) + 1) / len(n))
    least, gain = np.inf, 0.0
    scale = n[-1]  # n / scale is about 1, so that no power is out of range
    for c in np.geomspace(0.01, 10, 400):
        curve = np.column_stack([np.ones(len(n)), -((n / scale) ** -c)])
        found, *_ = np.linalg.lstsq(curve * weights[:, None], scores * weights, None)
        b = found[1]
        if b <= 0:
            continue
        error = (((curve @ found - scores) * weights) ** 2).sum()
        if error < least:
            least = error
            gain = b * (1 - ((n[-1] + batch_size) / scale) ** -c)
    flat = (((scores - np.average(scores, weights=weights**2)) * weights) ** 2).sum()
    return float(gain) if least < flat else 0.0


def cross_validated(pool: PoolView, n_folds: int) -> float:
    """Accuracy of fresh models on labelled rows that they are not trained on.

    Parameters
    ----------
    pool : PoolView
        With labelled rows; its estimator is cloned.
    n_folds : int
        Fewer where the smallest class has fewer labels.

    Returns
    -------
    accuracy : float
        NaN where there are not two classes with two labels each. Classes with one are
        left out.
    """
    X, y = pool.training_set()
    codes, counts = np.unique(y, return_counts=True)
    if (counts > 1).sum() < 2:
        return np.nan
    kept = np.flatnonzero(np.isin(y, codes[counts > 1]))
    y, n_folds = np.asarray(y)[kept], min(n_folds, counts[counts > 1].min())
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=pool.random_state)
    n_right = 0

    def part(places):
        if is_dataset(X):
            return DatasetRows(X, kept[places], y[places])
        return take(X, kept[places])

    for train, test in folds.split(y, y):
        model = clone(pool.estimator)
        fit_isolated(model, part(train), y[train], pool.random_state)
        n_right += int((np.asarray(model.predict(part(test))) == y[test]).sum())
    return n_right / len(y)
