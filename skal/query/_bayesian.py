"""Strategies that read what the draws of a posterior agree and disagree on.

References
----------
.. [Gal2017] Gal, Islam and Ghahramani, "Deep Bayesian active learning with image
   data", ICML 2017.
.. [Kirsch2019] Kirsch, van Amersfoort and Gal, "BatchBALD: efficient and diverse batch
   acquisition for deep Bayesian active learning", NeurIPS 2019.
.. [BickfordSmith2023] Bickford Smith, Kirsch, Farquhar, Gal, Foster and Rainforth,
   "Prediction-oriented Bayesian active learning", AISTATS 2023.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch

from skal.posterior import DeepEnsemble, MCDropout
from skal.query._base import PosteriorQuery, ScoreQuery
from skal.selection import batch_bald, predictive_information
from skal.utils.rows import as_rows, n_rows
from skal.utils.seeds import check_seed
from skal.utils.validation import HasMethods, Interval, StrOptions


class _BayesianQuery(PosteriorQuery):
    requires = ("sample_proba",)

    @property
    def active_posterior(self) -> MCDropout | DeepEnsemble | None:
        """The parameter, or ``MCDropout(n_draws=100)`` for None."""
        return MCDropout(n_draws=100) if self.posterior is None else self.posterior


@dataclass(kw_only=True, eq=False, repr=False)
class BaldQuery(_BayesianQuery, ScoreQuery):
    """Take the rows on whose labels the draws disagree most: BALD.

    The score is the mutual information of label and model,
    ``H(mean_t p_t) - mean_t H(p_t)`` [1]_ (equation 5 of [2]_).

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Source of sampled predictions; None is ``MCDropout(n_draws=100)``.
    measure : {"mutual_information", "variation_ratio", "mean_std"}, \
default="mutual_information"
        Also the share of draws that do not vote for the most frequent class, and the
        standard deviation over draws, averaged over classes (both in [2]_, section 4).
    random_state : int, default=None
        Breaks ties and seeds the draws; see `QueryStrategy`.

    Notes
    -----
    Each row is scored alone, so near copies are bought together; see `BatchBaldQuery`.
    The draws are averaged as they come: memory is O(n_samples n_classes), whatever
    their number, and less under a `memory_limit` of the pool.

    References
    ----------
    .. [1] Houlsby, Huszar, Ghahramani and Lengyel, "Bayesian active learning for
       classification and preference learning", arXiv:1112.5745, 2011.
    .. [2] Gal, Islam and Ghahramani, "Deep Bayesian active learning with image data",
       ICML 2017.

    Examples
    --------
    >>> from skal import BaldQuery
    >>> from skal.posterior import DeepEnsemble
    >>> BaldQuery(posterior=DeepEnsemble()).requires
    ('sample_proba',)
    """

    posterior: MCDropout | DeepEnsemble | None = None
    measure: str = "mutual_information"
    random_state: int | None = None

    _parameter_constraints = {
        **PosteriorQuery._parameter_constraints,
        "measure": [StrOptions({"mutual_information", "variation_ratio", "mean_std"})],
    }

    def _score(self, pool):
        if self.measure == "variation_ratio":
            (votes,) = self._means(pool, _votes)
            return pool.by_rows(lambda v: 1 - v.amax(1), votes)
        if self.measure == "mean_std":
            return pool.by_rows(_mean_std, *self._means(pool, _Deviations()))
        return pool.by_rows(_information, *self._means(pool, _entropies))


def _mean_std(mean, squares):
    return (squares - mean.square()).clamp_(min=0).sqrt().mean(1)


def _information(mean, entropy):
    return (torch.special.entr(mean).sum(1) - entropy).clamp_(min=0)


def _entropies(proba, rows):
    """Sum distributions, and their entropies, over the draws."""
    proba = proba.clamp(min=0).double()
    proba /= proba.sum(2, keepdim=True)
    return proba.sum(1), torch.special.entr(proba).sum(2).sum(1)


def _votes(proba, rows):
    """Count the draws that vote for each class."""
    votes = proba.new_zeros(proba[:, 0].shape, dtype=torch.float64)
    winners = proba.argmax(2)
    return [votes.scatter_add_(1, winners, torch.ones_like(winners).to(votes))]


class _Deviations:
    """Sum deviations from the first draw, and their squares, over the draws.

    Those of the probabilities themselves would lose a small spread to rounding.
    """

    def __init__(self):
        self.first = {}

    def __call__(self, proba, rows):
        proba = proba.double()
        deviations = proba - self.first.setdefault(rows.start, proba[:, :1].clone())
        return deviations.sum(1), deviations.square().sum(1)


@dataclass(kw_only=True, eq=False, repr=False)
class BatchBaldQuery(_BayesianQuery):
    """Take the rows whose labels together tell most about the model: BatchBALD.

    Greedy maximisation of the mutual information of the labels of the whole batch and
    the model [1]_ (algorithm 1), so that a second copy of a row adds nothing.

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Source of sampled predictions, the same draws for every row; None is
        ``MCDropout(n_draws=100)``.
    max_configurations, n_particles : int, default=10_000
        See :func:`skal.selection.batch_bald`.
    random_state : int, default=None
        Seeds the draws and the particles; see `QueryStrategy`.

    Notes
    -----
    The information of T draws is at most ``log T``, so a large batch exhausts it: what
    is missing then is taken in the order of BALD, with a warning. Use more draws or
    smaller batches.

    All sampled predictions are kept, in memory of 4 bytes for each row, draw and class:
    for many classes take fewer draws, a part of the pool, or a `memory_limit`.

    References
    ----------
    .. [1] Kirsch, van Amersfoort and Gal, "BatchBALD: efficient and diverse batch
       acquisition for deep Bayesian active learning", NeurIPS 2019.

    Examples
    --------
    >>> from skal import BatchBaldQuery
    >>> from skal.posterior import MCDropout
    >>> BatchBaldQuery(posterior=MCDropout(n_draws=50)).max_configurations
    10000
    """

    posterior: MCDropout | DeepEnsemble | None = None
    max_configurations: int = 10_000
    n_particles: int = 10_000
    random_state: int | None = None

    _parameter_constraints = {
        **PosteriorQuery._parameter_constraints,
        "max_configurations": [Interval(Integral, 1, None, closed="left")],
        "n_particles": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        return batch_bald(
            self._sample_proba(pool),
            n_samples,
            max_configurations=self.max_configurations,
            n_particles=self.n_particles,
            random_state=rng,
        )


@dataclass(kw_only=True, eq=False, repr=False)
class EpigQuery(_BayesianQuery, ScoreQuery):
    """Take the rows whose labels tell most about those of the rows that matter: EPIG.

    The score is the mean over targets ``x*`` of the mutual information of the two
    labels, ``H(y) + H(y*) - H(y, y*)`` under the draws [1]_ (equation 5). BALD counts
    all that a label tells about the model, EPIG what of it changes predictions: of an
    outlier, nothing.

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Source of sampled predictions, the same draws for every row; None is
        ``MCDropout(n_draws=100)``.
    target : rows, default=None
        Rows like those that the model will be used for, as given to the loop or the
        `PoolView`. None takes those of the pool.
    n_targets : int, default=100
        So many of them, drawn at random, stand for all.
    random_state : int, default=None
        Breaks ties, draws the targets and seeds the posterior; see `QueryStrategy`.

    Notes
    -----
    Each row is scored alone; for batches, `StochasticQuery` around it spreads them.

    All sampled predictions are kept, in memory of 4 bytes for each row, draw and class;
    the rest is computed in blocks, see `skal.selection.predictive_information`. A
    `DeepEnsemble` trains its members once more for a `target`, except in a loop.

    References
    ----------
    .. [1] Bickford Smith, Kirsch, Farquhar, Gal, Foster and Rainforth,
       "Prediction-oriented Bayesian active learning", AISTATS 2023.

    Examples
    --------
    >>> from skal import EpigQuery
    >>> from skal.posterior import MCDropout
    >>> EpigQuery(posterior=MCDropout(n_draws=50)).n_targets
    100
    """

    posterior: MCDropout | DeepEnsemble | None = None
    target: Any = None
    n_targets: int = 100
    random_state: int | None = None

    row_params = ("target",)
    _parameter_constraints = {
        **PosteriorQuery._parameter_constraints,
        "target": [HasMethods(["__getitem__"]), None],
        "n_targets": [Interval(Integral, 1, None, closed="left")],
    }

    def _score(self, pool):
        rng = self._generator(pool)
        seed, posterior = check_seed(rng), self.active_posterior
        n_there = len(pool) if self.target is None else self._count_targets()
        drawn = np.arange(n_there)
        if n_there > self.n_targets:
            drawn = np.sort(rng.choice(n_there, self.n_targets, replace=False))
        samples = pool.sample_proba(posterior, random_state=seed)
        if self.target is None:
            return predictive_information(samples, samples[drawn])
        try:
            others = pool.of_others(self.target, drawn)
            targets = others.sample_proba(posterior, random_state=seed)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                "target must be rows like those of X, which the model takes, but with "
                f"them it fails: {error}"
            ) from error
        return predictive_information(samples, targets)

    def _count_targets(self):
        try:
            n_there = n_rows(as_rows(self.target))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"target must be rows like those of X, got {self.target!r:.60}: {error}"
            ) from error
        if n_there == 0:
            raise ValueError("target has no rows; pass some, or None for the pool's.")
        return n_there
