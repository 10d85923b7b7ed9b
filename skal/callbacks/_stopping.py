"""Rules that say when labels are enough."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import StratifiedKFold

from skal.callbacks._base import RoundCallback
from skal.net.training import fit_isolated, label_dtype
from skal.pool import PoolView
from skal.utils.rows import DatasetRows, is_dataset, take
from skal.utils.validation import Interval, check_params


@dataclass(kw_only=True)
class Round:
    """What a stopping rule may look at when a model has been trained.

    Parameters
    ----------
    number : int
        Of the round; the same again where nothing was labelled since.
    labeled : int64 array of shape (n_labeled,)
        Numbers of the labelled rows.
    rows : int64 array of shape (n_rows,)
        Numbers of the rows that the model has predicted: those not labelled.
    batch_size : int, default=1
        How many labels would be bought next.
    proba : array of shape (n_rows, n_classes), default=None
        Probabilities of `rows`.
    guesses : array of shape (n_rows,), default=None
        Predicted classes of `rows`; None takes the most probable ones.
    scores : dict of str to float, default={}
        Of the model, by name.
    pool : PoolView, default=None
        The rows under the model; what is None above is read from it.
    """

    number: int
    labeled: NDArray[np.int64]
    rows: NDArray[np.int64]
    batch_size: int = 1
    proba: Any = None
    guesses: Any = None
    scores: Mapping[str, float] = field(default_factory=dict)
    pool: PoolView | None = None

    @cached_property
    def checked_proba(self) -> NDArray:
        """Probabilities of `rows`, or ValueError where some are NaN."""
        proba = self.proba
        if proba is None:
            proba = self.pool.proba.double().numpy(force=True)
        if not np.isfinite(proba).all():
            raise ValueError("the model predicts NaN probabilities; clean X.")
        return proba

    @cached_property
    def predicted(self) -> NDArray:
        """Predicted classes of `rows`."""
        if self.guesses is not None:
            return np.asarray(self.guesses)
        values = None if self.pool is None else self.pool.decision_values
        if values is None:
            return self.checked_proba.argmax(axis=1)
        return values.argmax(dim=1).numpy(force=True)


class StoppingRule(RoundCallback, BaseEstimator):
    """Base of all stopping rules; a subclass writes `_measure` and `_reached`.

    ``loop.set_callbacks(rule)`` lets it end a `fit`; `termination_condition_` then is
    the name of its class. In ask mode a person may go on nevertheless. Several rules
    may be set, of which the first that is met ends the fit.

    A rule looks at a round once its model is trained, and before anything is bought for
    the next. What it reads of the unlabelled rows comes from the pass that the strategy
    reads, too.

    Attributes
    ----------
    rounds_ : list of int
        The rounds looked at so far; in ask mode those of several fits.
    values_ : list of float
        What was measured in each; NaN where nothing could be.
    reason_ : str
        In words, why to stop or to go on.
    stopped_ : bool
        Whether the rule is met.
    """

    _parameter_constraints: dict[str, list] = {}
    reason_, stopped_ = "there is no model yet", False
    rounds_: Sequence[int] = ()
    values_: Sequence[float] = ()

    def update(self, seen: Round) -> bool:
        """Look at a round; of one looked at before the first look is forgotten.

        Parameters
        ----------
        seen : Round
            A number lower than the last begins anew from there.

        Returns
        -------
        stop : bool
        """
        check_params(self)
        pairs = zip(self.rounds_, self.values_, strict=True)
        known = [(n, value) for n, value in pairs if n < seen.number]
        self.rounds_, self.values_ = [n for n, _ in known], [v for _, v in known]
        value = self._measure(seen)
        self.rounds_.append(int(seen.number))
        self.values_.append(float(value))
        self.stopped_ = bool(self._reached())
        return self.stopped_

    @abstractmethod
    def _measure(self, seen):
        """Give a number for a round, or NaN."""

    @abstractmethod
    def _reached(self):
        """Set `reason_`, and tell from `values_` whether to stop."""

    def get_state(self) -> dict[str, NDArray]:
        """Give what the rule remembers, for a checkpoint of the loop.

        Returns
        -------
        state : dict of str to ndarray
        """
        return {
            "rounds": np.array(self.rounds_, dtype=np.int64),
            "values": np.array(self.values_, dtype=float),
        }

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Take over what `get_state` of an equal rule gave.

        Parameters
        ----------
        state : dict of str to ndarray
        """
        self.rounds_ = state["rounds"].tolist()
        self.values_ = state["values"].tolist()

    # -- in a loop --------------------------------------------------------------------

    def setup(self, estimator: Any, context: Any) -> None:
        """Check the parameters before anything is trained."""
        check_params(self)
        if not hasattr(type(estimator), "pool_"):
            raise TypeError(
                f"{type(self).__name__} is a callback of an ActiveLearningLoop, got "
                f"{type(estimator).__name__}."
            )
        self.stopped_ = False

    def on_round(self, loop: Any) -> bool:
        """Look at the round that ends.

        Parameters
        ----------
        loop : ActiveLearningLoop

        Returns
        -------
        stop : bool
        """
        if not len(loop.pool_):
            return False
        seen = Round(
            number=loop.n_iter_,
            labeled=loop.labeled_indices_,
            rows=loop.pool_.indices,
            batch_size=loop.batch_size,
            scores={name: column[-1] for name, column in loop.history_.items()},
            pool=loop.pool_,
        )
        if self.update(seen) and loop.termination_condition_ == "callback":
            loop.termination_condition_ = type(self).__name__
        return self.stopped_


class LabelBudget(StoppingRule):
    """Stop where another batch would cost more than is left.

    Where labels have costs of their own [1]_, the next batch may be of the dearest rows
    that are left, so that no more than the budget is ever spent.

    Parameters
    ----------
    budget : float
        The number of labels, the first set included; with `costs` what they may cost.
    costs : array-like of shape (n_samples,), default=None
        What the label of each row of `X` costs; None is 1 each.

    Notes
    -----
    What is asked and not answered is not counted. The budget is no reason to make a
    batch smaller, and what is left of it may be a part of one.

    References
    ----------
    .. [1] Settles, Craven and Friedland, "Active learning with real annotation costs",
       NIPS workshop on cost-sensitive learning, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.callbacks import LabelBudget, Round
    >>> rule, rows = LabelBudget(25), np.arange(40)
    >>> rule.update(Round(number=0, labeled=rows[:10], rows=rows[10:], batch_size=10))
    False
    >>> rule.update(Round(number=1, labeled=rows[:20], rows=rows[20:], batch_size=10))
    True
    >>> rule.reason_
    'of a budget of 25 20 are spent, and another batch may cost 10'
    """

    _parameter_constraints = {
        "budget": [Interval(Real, 0, None, closed="left")],
        "costs": ["array-like", None],
    }

    def __init__(self, budget: float, *, costs: ArrayLike | None = None):
        self.budget = budget
        self.costs = costs

    def _measure(self, seen):
        batch_size = min(seen.batch_size, len(seen.rows))
        if self.costs is None:
            self._next = batch_size
            return len(seen.labeled)
        costs, n_samples = np.asarray(self.costs, dtype=float), len(seen.labeled)
        known = np.concatenate([seen.labeled, seen.rows])
        if costs.ndim != 1 or known.max(initial=-1) >= len(costs):
            raise ValueError(
                f"costs must have one entry for each row of X, got shape {costs.shape}."
            )
        if not (costs[known] >= 0).all():
            raise ValueError("costs holds negative entries or NaN; give each row one.")
        self._next = float(
            np.sort(costs[seen.rows])[len(seen.rows) - batch_size :].sum()
        )
        return costs[known[:n_samples]].sum()

    def _reached(self):
        self.reason_ = (
            f"of a budget of {self.budget:g} {self.values_[-1]:g} are spent, and "
            f"another batch may cost {self._next:g}"
        )
        return self.values_[-1] + self._next > self.budget


class StabilizingPredictions(StoppingRule):
    """Stop when successive models predict the same classes.

    The predictions of each model are compared with those of the model before by Cohen's
    kappa, and the average over the last `patience` comparisons is to reach `threshold`
    [1]_. If two models agree by a kappa of at least T, their F-measures differ by at
    most ``4 (1 - T) / T`` [2]_.

    Parameters
    ----------
    threshold : float, default=0.99
        1 waits for models that agree on each row.
    patience : int, default=3
        How many comparisons are averaged.

    Notes
    -----
    The rows compared are those of the pool, which neither model has been trained on; in
    the paper they are a fixed sample of rows without labels, the stop set. Where both
    models predict one and the same class for all of them, kappa is 0 / 0 and taken for
    0: such models are mostly ones that know too little.

    References
    ----------
    .. [1] Bloodgood and Vijay-Shanker, "A method for stopping active learning based on
       stabilizing predictions and the need for user-adjustable stopping", CoNLL 2009.
    .. [2] Bloodgood and Grothendieck, "Analysis of stopping active learning based on
       stabilizing predictions", CoNLL 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import ActiveLearningLoop, MarginQuery
    >>> from skal.callbacks import StabilizingPredictions
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(max_iter=5000)
    >>> loop = ActiveLearningLoop(model, MarginQuery(), n_rounds=60, random_state=0)
    >>> loop.set_callbacks(StabilizingPredictions(0.97)).fit(X[:500], y[:500])
    ActiveLearningLoop(...)
    >>> loop.termination_condition_, loop.n_iter_ < 60
    ('StabilizingPredictions', True)
    """

    _parameter_constraints = {
        "threshold": [Interval(Real, 0, 1, closed="right")],
        "patience": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, threshold: float = 0.99, *, patience: int = 3):
        self.threshold = threshold
        self.patience = patience

    def _measure(self, seen):
        # Two rounds are kept: a round looked at again is compared with the one before.
        kept = getattr(self, "_kept", {})
        before = {n: pair for n, pair in kept.items() if n < seen.number}
        self._kept = {seen.number: (np.asarray(seen.rows), seen.predicted)}
        if not before:
            return np.nan
        last = max(before)
        self._kept[last] = before[last]
        return agreement(*before[last], *self._kept[seen.number])

    def _reached(self):
        values = np.array(self.values_)
        last = values[~np.isnan(values)][-self.patience :]
        if not len(last):
            self.reason_ = "there is no earlier model to compare with"
            return False
        self.reason_ = (
            f"kappa of successive models is {last.mean():.3f} on average over "
            f"{len(last)} of {self.patience} comparisons, {self.threshold:g} is enough"
        )
        return len(last) == self.patience and last.mean() >= self.threshold

    def get_state(self) -> dict[str, NDArray]:
        """Give what the rule remembers; see `StoppingRule`."""
        state = super().get_state()
        for number, (rows, guesses) in getattr(self, "_kept", {}).items():
            state |= {f"rows {number}": rows, f"guesses {number}": guesses}
        return state

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Take over what `get_state` of an equal rule gave.

        Parameters
        ----------
        state : dict of str to ndarray
        """
        super().set_state(state)
        numbers = [int(name[5:]) for name in state if name.startswith("rows ")]
        self._kept = {n: (state[f"rows {n}"], state[f"guesses {n}"]) for n in numbers}


class OverallUncertainty(StoppingRule):
    """Stop when the model is sure of the rows that are left.

    That is, when the mean entropy of its predictions is at most `threshold` [1]_.

    Parameters
    ----------
    threshold : float, default=0.05
        Between 0 and 1, the entropy of all classes alike.

    Notes
    -----
    Entropies are divided by the logarithm of the number of classes, unlike in the
    paper, so that a threshold means the same for any. A model may be sure and wrong:
    networks mostly are too sure, above all of rows unlike those labelled.

    References
    ----------
    .. [1] Zhu, Wang, Hovy and Ma, "Confidence-based stopping criteria for active
       learning for data annotation", ACM TSLP 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.callbacks import OverallUncertainty, Round
    >>> rule, proba = OverallUncertainty(0.5), np.array([[0.5, 0.5], [0, 1], [1, 0]])
    >>> rows = np.arange(5)
    >>> rule.update(Round(number=0, labeled=rows[:2], rows=rows[2:], proba=proba))
    True
    >>> rule.reason_
    'the mean entropy of the predictions is 0.333 of 1, 0.5 is enough'
    """

    _parameter_constraints = {"threshold": [Interval(Real, 0, 1, closed="both")]}
    _which, _summary = "mean", staticmethod(np.mean)

    def __init__(self, threshold: float = 0.05):
        self.threshold = threshold

    def _measure(self, seen):
        proba = seen.checked_proba
        if not len(proba) or proba.shape[1] < 2:
            return np.nan
        logs = np.log(proba, where=proba > 0, out=np.zeros_like(proba, dtype=float))
        return self._summary(-(proba * logs).sum(axis=1) / np.log(proba.shape[1]))

    def _reached(self):
        self.reason_ = (
            f"the {self._which} entropy of the predictions is {self.values_[-1]:.3f} "
            f"of 1, {self.threshold:g} is enough"
        )
        return self.values_[-1] <= self.threshold


class MaximumUncertainty(OverallUncertainty):
    """Stop when the model is sure of each row that is left.

    That is, when the highest entropy of its predictions is at most `threshold` [1]_.

    Parameters
    ----------
    threshold : float, default=0.1
        Between 0 and 1, the entropy of all classes alike; see `OverallUncertainty`.

    References
    ----------
    .. [1] Zhu, Wang, Hovy and Ma, "Confidence-based stopping criteria for active
       learning for data annotation", ACM TSLP 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from skal.callbacks import MaximumUncertainty, Round
    >>> rule, proba = MaximumUncertainty(0.5), np.array([[0.5, 0.5], [0, 1], [1, 0]])
    >>> rows = np.arange(5)
    >>> rule.update(Round(number=0, labeled=rows[:2], rows=rows[2:], proba=proba))
    False
    """

    _which, _summary = "highest", staticmethod(np.max)

    def __init__(self, threshold: float = 0.1):
        super().__init__(threshold)


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
    >>> from skal.callbacks._stopping import expected_gain
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


def agreement(
    rows: NDArray, guesses: NDArray, other_rows: NDArray, other_guesses: NDArray
) -> float:
    """Cohen's kappa of two models on the rows that both have predicted.

    Parameters
    ----------
    rows, other_rows : int64 arrays
        Distinct numbers of rows.
    guesses, other_guesses : arrays
        Predicted classes of them.

    Returns
    -------
    kappa : float
        0 where all these predictions are of one class, or there are none.
    """
    _, here, there = np.intersect1d(rows, other_rows, True, return_indices=True)
    first, second = guesses[here], other_guesses[there]
    if len(np.union1d(first, second)) < 2:
        return 0.0
    return float(cohen_kappa_score(first, second))


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
    y_net, n_right = y.astype(label_dtype(pool.estimator)), 0

    def part(places):
        if is_dataset(X):
            return DatasetRows(X, kept[places], y_net[places])
        return take(X, kept[places])

    for train, test in folds.split(y, y):
        model = clone(pool.estimator)
        fit_isolated(model, part(train), y_net[train], pool.random_state)
        n_right += int((np.asarray(model.predict(part(test))) == y[test]).sum())
    return n_right / len(y)
