"""Rules that say when labels are enough, by what was bought and predicted."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import cohen_kappa_score

from skal.callbacks._base import RoundCallback
from skal.pool import PoolView
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
