"""Strategies that read predictions only, or nothing.

References
----------
.. [Wang2014] Wang and Shang, "A new active labeling method for deep learning",
   IJCNN 2014.
.. [Lewis1994] Lewis and Gale, "A sequential algorithm for training text classifiers",
   SIGIR 1994.
.. [Scheffer2001] Scheffer, Decomain and Wrobel, "Active hidden Markov models for
   information extraction", IDA 2001.
.. [Kirsch2023] Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal,
   "Stochastic batch acquisition: a simple baseline for deep active learning", TMLR
   2023.
.. [Gilhuber2024] Gilhuber, Beer, Ma and Seidl, "FALCUN: a simple and efficient deep
   active learning strategy", ECML PKDD 2024.
"""

from dataclasses import dataclass, field
from functools import partial
from numbers import Real

import numpy as np
import torch
from scipy.stats import rankdata

from skal.query._base import (
    PosteriorQuery,
    QueryStrategy,
    ScoreQuery,
    WrappingQuery,
    margin_scores,
    other_proba,
    pool_margins,
    two_largest,
)
from skal.selection import top_k
from skal.utils.validation import Interval, StrOptions, check_params


class RandomQuery(QueryStrategy):
    """Take rows uniformly at random, without replacement: the baseline of all others.

    Parameters
    ----------
    random_state : int, default=None
        See `QueryStrategy`.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import PoolView, RandomQuery
    >>> pool = PoolView(None, np.zeros((10, 2)))
    >>> RandomQuery(random_state=0).fit(pool).query(pool, 3).shape
    (3,)
    """

    def _query(self, pool, n_samples, rng):
        return rng.permutation(len(pool))[:n_samples]


class _UncertaintyQuery(PosteriorQuery, ScoreQuery):
    """Scores of one predicted distribution a row, of the model or of the posterior."""

    _reads = ("log_proba",)

    @property
    def requires(self) -> tuple[str, ...]:
        """Sampled predictions where there is a posterior, else those of the model."""
        return self._reads if self.posterior is None else ("sample_proba",)

    def _by_rows(self, function, pool):
        """Score log probabilities; with a posterior, those of its mean prediction."""
        if self.posterior is None:
            return pool.by_rows(function, pool.log_proba)
        (mean,) = self._means(pool, lambda p, _: [p.sum(1, dtype=torch.float64)])
        return pool.by_rows(lambda p: function(p.log()), mean)


class LeastConfidenceQuery(_UncertaintyQuery):
    """Take the rows whose most probable class is least probable.

    The score is ``1 - max_c p_c`` [1]_. Where the estimator has no `predict_proba`, as
    LinearSVC, it is minus the largest decision value (of two classes, minus half the
    absolute one).

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Score the mean of its sampled predictions [2]_ [3]_; None scores those of the
        model.
    random_state : int, default=None
        Breaks ties and seeds the draws; see `QueryStrategy`.

    References
    ----------
    .. [1] Lewis and Gale, "A sequential algorithm for training text classifiers",
       SIGIR 1994; for deep networks Wang and Shang, IJCNN 2014.
    .. [2] Gal, Islam and Ghahramani, "Deep Bayesian active learning with image data",
       ICML 2017, section 3 (dropout).
    .. [3] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive
       uncertainty estimation using deep ensembles", NIPS 2017, section 2.4.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import LeastConfidenceQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> LeastConfidenceQuery().query(pool, 3)
    array([106,  77, 133])
    """

    _reads = ("log_proba", "decision_values")

    def _score(self, pool):
        values = pool.decision_values if self.posterior is None else None
        if values is not None:
            return -values.amax(1)
        return self._by_rows(other_proba, pool)


class MarginQuery(_UncertaintyQuery):
    """Take the rows whose two most probable classes are closest in probability.

    That is, those of the smallest margin ``m = p_(1) - p_(2)`` [1]_. The score is
    ``log((1 - m) / m)``, which tells rows apart whose margin rounds to 1. Where the
    estimator has no `predict_proba`, as LinearSVC, it is minus the difference of the
    two largest decision values (of two classes, minus the absolute value).

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Score the mean of its sampled predictions [2]_ [3]_; None scores those of the
        model.
    random_state : int, default=None
        Breaks ties and seeds the draws; see `QueryStrategy`.

    References
    ----------
    .. [1] Scheffer, Decomain and Wrobel, "Active hidden Markov models for information
       extraction", IDA 2001; for deep networks Wang and Shang, IJCNN 2014.
    .. [2] Gal, Islam and Ghahramani, "Deep Bayesian active learning with image data",
       ICML 2017, section 3 (dropout).
    .. [3] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive
       uncertainty estimation using deep ensembles", NIPS 2017, section 2.4.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import MarginQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> MarginQuery().query(pool, 3)
    array([106,  77, 133])
    """

    _reads = ("log_proba", "decision_values")

    def _score(self, pool):
        if self.posterior is None:
            return pool_margins(pool)
        return self._by_rows(margin_scores, pool)

    def _scale(self, scores):
        return scores.double().sigmoid()  # 1 - m, of log odds


class EntropyQuery(_UncertaintyQuery):
    """Take the rows whose predicted class distribution has the largest entropy.

    The score is ``-sum_c p_c log p_c`` with ``0 log 0 = 0`` [1]_.

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Score the mean of its sampled predictions [2]_ [3]_; None scores those of the
        model.
    random_state : int, default=None
        Breaks ties and seeds the draws; see `QueryStrategy`.

    References
    ----------
    .. [1] Shannon, "A mathematical theory of communication", 1948; for deep networks
       Wang and Shang, IJCNN 2014.
    .. [2] Gal, Islam and Ghahramani, "Deep Bayesian active learning with image data",
       ICML 2017, section 3 (dropout).
    .. [3] Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive
       uncertainty estimation using deep ensembles", NIPS 2017, section 2.4.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import EntropyQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> EntropyQuery().query(pool, 2)
    array([106,  70])
    """

    def _score(self, pool):
        return self._by_rows(_entropy, pool)


def _entropy(log_proba):
    log_proba = log_proba.double()
    proba = log_proba.exp()
    return -torch.where(proba > 0, proba * log_proba, 0.0).sum(1)


@dataclass(kw_only=True, eq=False, repr=False)
class FalcunQuery(QueryStrategy):
    """Draw rows of small margin whose predictions are unlike those drawn already.

    With ``u = 1 - (p_(1) - p_(2))`` and a distance ``d`` that starts at ``u`` and is
    then the least of it and of ``|p - p_s|_1`` to each row ``s`` drawn, the next row is
    drawn with probability proportional to ``(u + d')^gamma``, where ``d'`` is ``d``
    scaled to [0, 1] among the rows that are left [1]_ (algorithm 1).

    Parameters
    ----------
    gamma : float, default=10
        0 draws uniformly; the larger, the more the best rows are favoured.
    random_state : int, default=None
        See `QueryStrategy`.

    Notes
    -----
    Needs probabilities only, so any classifier that gives them will do. Time is
    O(n_samples n_classes) a pick, memory O(1) a row beyond the probabilities.

    References
    ----------
    .. [1] Gilhuber, Beer, Ma and Seidl, "FALCUN: a simple and efficient deep active
       learning strategy", ECML PKDD 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import FalcunQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> FalcunQuery(random_state=0).query(pool, 3).shape
    (3,)
    """

    gamma: float = 10
    random_state: int | None = None

    requires = ("proba",)
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "gamma": [Interval(Real, 0, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        unsure = pool.by_rows(_closeness, pool.proba).cpu().numpy()
        distance, left, picks = unsure.copy(), np.arange(len(pool)), []
        for _ in range(n_samples):
            far = distance[left] - distance[left].min()
            weights = unsure[left] + far / (far.max() or 1)
            totals = np.cumsum((weights / (weights.max() or 1)) ** self.gamma)
            if totals[-1] == 0:  # all are certain, and alike
                totals = np.arange(1.0, len(left) + 1)
            drawn = np.searchsorted(totals, rng.random() * totals[-1], side="right")
            picks.append(left[drawn])
            left = np.delete(left, drawn)
            gap = partial(_l1_distance, picked=pool.proba[int(picks[-1])])
            gaps = pool.by_rows(gap, pool.proba).cpu().numpy()
            np.minimum(distance, gaps, out=distance)
        return np.array(picks)


def _closeness(proba):
    first, second = two_largest(proba.double())[0].unbind(1)
    return (1 - (first - second)).clamp_(min=0)


def _l1_distance(proba, picked):
    return (proba.double() - picked.double()).abs_().sum(1)


@dataclass(kw_only=True, eq=False, repr=False)
class StochasticQuery(WrappingQuery):
    """Draw rows without replacement, by a power of another strategy's scores.

    Noise ``G`` of the standard Gumbel distribution is added once, and the highest rows
    are taken: of ``log s + G / beta`` for "power", which draws row after row with
    probability proportional to ``s^beta``, of ``s + G / beta`` for "softmax", of
    ``-log rank + G / beta`` for "softrank" [1]_ (table 1). So the batch is spread, as
    the best rows alone are not, at no further cost: PowerBALD is
    ``StochasticQuery(BaldQuery())``.

    Parameters
    ----------
    strategy : ScoreQuery, default=None
        Gives the scores ``s``; None is ``MarginQuery()``. Its parameters are set as in
        ``strategy__posterior``.
    kind : {"power", "softmax", "softrank"}, default="power"
        What the noise is added to. "power" needs scores that are not negative; of no
        score at all, 0, rows come last.
    beta : float, default=1
        0 would be drawing uniformly, infinity the strategy itself.
    random_state : int, default=None
        Draws the noise; see `QueryStrategy`. The strategy has its own.

    Notes
    -----
    The score of `MarginQuery` is the logarithm of odds; ``s`` is ``1 - m`` here. Of
    scores within a rounding error below 0 the logarithm is that of the smallest number;
    where it is NaN, as in public code, such rows are taken first.

    What the strategy learns it keeps itself.

    References
    ----------
    .. [1] Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron and Gal,
       "Stochastic batch acquisition: a simple baseline for deep active learning", TMLR
       2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import EntropyQuery, PoolView, StochasticQuery
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> StochasticQuery(EntropyQuery(), random_state=0).query(pool, 3).shape
    (3,)
    """

    strategy: ScoreQuery | None = field(default=None, kw_only=False)
    kind: str = "power"
    beta: float = 1
    random_state: int | None = None

    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "strategy": [ScoreQuery, None],
        "kind": [StrOptions({"power", "softmax", "softrank"})],
        "beta": [Interval(Real, 0, None, closed="neither")],
    }

    @property
    def active_strategy(self) -> ScoreQuery:
        """The parameter, or what None stands for."""
        return MarginQuery() if self.strategy is None else self.strategy

    def _default(self, name):
        return self.active_strategy if name == "strategy" else None

    def _query(self, pool, n_samples, rng):
        strategy = self.active_strategy
        check_params(strategy)
        scores = strategy._scale(strategy._checked_score(pool))
        scores = torch.as_tensor(scores).detach().double().cpu().numpy()
        if self.kind == "power":
            self._check_not_negative(scores)
            scores = np.log(np.maximum(scores, np.finfo(float).tiny))
        elif self.kind == "softrank":
            scores = -np.log(rankdata(-scores))
        return top_k(
            scores + rng.gumbel(size=len(scores)) / self.beta,
            n_samples,
            random_state=rng,
        )

    def _check_not_negative(self, scores):
        if scores.min() < -1e-6 * np.abs(scores[np.isfinite(scores)]).max(initial=0):
            raise ValueError(
                f"kind='power' takes logarithms of the scores, but those of "
                f"{type(self.active_strategy).__name__} go down to {scores.min():.3g}; "
                "pass kind='softrank'."
            )
