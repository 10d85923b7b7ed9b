"""Strategies that read predictions only, or nothing.

References
----------
.. [Wang2014] Wang and Shang, "A new active labeling method for deep learning",
   IJCNN 2014.
.. [Lewis1994] Lewis and Gale, "A sequential algorithm for training text classifiers",
   SIGIR 1994.
.. [Scheffer2001] Scheffer, Decomain and Wrobel, "Active hidden Markov models for
   information extraction", IDA 2001.
"""

import torch

from skal.query._base import (
    PosteriorQuery,
    QueryStrategy,
    ScoreQuery,
    margin_scores,
    other_proba,
    pool_margins,
)


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

    def _log_proba(self, pool):
        """Logarithms of the probabilities; with a posterior, of their mean over it."""
        if self.posterior is None:
            return pool.log_proba.double()
        (mean,) = self._means(pool, lambda p, _: [p.sum(1, dtype=torch.float64)])
        return mean.log()


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
        return other_proba(self._log_proba(pool))


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
        return margin_scores(self._log_proba(pool))


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
        log_proba = self._log_proba(pool)
        proba = log_proba.exp()
        return -torch.where(proba > 0, proba * log_proba, 0.0).sum(1)
