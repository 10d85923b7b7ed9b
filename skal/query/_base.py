"""What every strategy shares: validation, seeds, and the picks of the best scores."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from skorch import NeuralNet

from skal.net.auxiliary import check_auxiliary, fit_auxiliary
from skal.net.pool_features import PoolFeatures
from skal.net.training import final_estimator
from skal.pool import PoolView
from skal.posterior import DeepEnsemble, MCDropout
from skal.selection import herding, top_k
from skal.utils.discovery import innermost
from skal.utils.seeds import check_seed
from skal.utils.validation import (
    HasMethods,
    Interval,
    StrOptions,
    check_n_samples,
    check_params,
)


class QueryStrategy(BaseEstimator, metaclass=ABCMeta):
    """Base of all strategies; a subclass writes `_query`.

    Parameters
    ----------
    random_state : int, default=None
        Together with the seed of the pool (the round's, in a loop) it makes the picks;
        None uses the pool's seed alone.

    Attributes
    ----------
    requires : tuple of str
        The outputs of a `PoolView` that the strategy reads, so that they come in one
        pass: "proba", "log_proba", "logits", "embeddings", "head_bias", "features",
        "labeled.embeddings", ...
    weighs : bool
        Whether it counts the `weights` of a `PoolView`.
    row_params : tuple of str
        Names of parameters that hold rows like those of `X`; a loop applies to them,
        too, what it applies to `X` once, before the rounds.
    training_note : str
        How `prepare` lets the network learn from more than labels, or "".
    """

    requires: tuple[str, ...] = ()
    weighs = False
    row_params: tuple[str, ...] = ()
    training_note = ""
    _parameter_constraints = {
        "random_state": [
            Interval(Integral, 0, None, closed="left"),
            np.random.RandomState,
            np.random.Generator,
            None,
        ]
    }

    def __init__(self, *, random_state: int | None = None):
        self.random_state = random_state

    def set_params(self, **params: Any) -> Self:
        """Set parameters; those of a parameter that is None make its default first.

        As in ``posterior__n_draws=20`` or ``aux__max_epochs=50``.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self : QueryStrategy
        """
        for name in {key.partition("__")[0] for key in params if "__" in key}:
            if params.get(name, getattr(self, name, None)) is None:
                default = self._default(name)
                if default is not None:
                    params[name] = default
        return super().set_params(**params)

    def _default(self, name):
        """Make what None stands for in a parameter, or None where it is itself."""
        return None

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
        """Change how the loop's private clone of the estimator trains; default: not.

        Parameters
        ----------
        estimator : estimator
            An unfitted private clone; with `warm_start`, the last round's.
        pool_features : PoolFeatures, default=None
            Gives pool rows as the network sees them, when asked; see
            `skal.net.pool_features`.

        Returns
        -------
        estimator : estimator
        """
        return estimator

    def fit(self, pool: PoolView) -> Self:
        """Train what the strategy needs; most need nothing.

        Parameters
        ----------
        pool : PoolView

        Returns
        -------
        self : QueryStrategy
        """
        return self

    def query(self, pool: PoolView, n_samples: int) -> NDArray[np.int64]:
        """Choose rows to label.

        Parameters
        ----------
        pool : PoolView
            The unlabelled rows.
        n_samples : int
            At least 1.

        Returns
        -------
        positions : int64 array of shape (min(n_samples, len(pool)),)
            Positions in the pool, best first, distinct.

        Raises
        ------
        TypeError, ValueError
            Where `n_samples` is no integer, or below 1; where a parameter is not what
            `_parameter_constraints` allow.
        """
        check_params(self)
        n_samples = min(check_n_samples(n_samples), len(pool))
        if n_samples == 0:
            return np.empty(0, dtype=np.int64)
        pool.prefetch(self.requires)
        picks = np.asarray(self._query(pool, n_samples, self._generator(pool)))
        if (
            picks.shape != (n_samples,)
            or picks.dtype.kind not in "iu"
            or len(np.unique(picks)) < n_samples
            or picks.min() < 0
            or picks.max() >= len(pool)
        ):
            raise RuntimeError(
                f"{type(self).__name__}._query must give {n_samples} distinct "
                f"positions in a pool of {len(pool)}, got {picks!r}."
            )
        return picks.astype(np.int64)

    def get_state(self) -> dict[str, NDArray]:
        """Give what the strategy keeps over rounds; most keep nothing.

        The experiment stores it with each round, so that a run that was interrupted
        goes on as if it had not been.

        Returns
        -------
        state : dict of str to ndarray
        """
        return {}

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Take over what `get_state` of an equal strategy gave.

        Parameters
        ----------
        state : dict of str to ndarray
        """

    @abstractmethod
    def _query(self, pool, n_samples, rng):
        """Choose `n_samples` positions, 1 <= n_samples <= len(pool)."""

    def _generator(self, pool, *, of_run=False):
        seeds = [pool.run_seed if of_run else pool.random_state]
        if self.random_state is not None:
            seeds.append(check_seed(self.random_state))
        seeds = [seed for seed in seeds if seed is not None]
        return np.random.default_rng(np.random.SeedSequence(seeds or None))


class PosteriorQuery(QueryStrategy):
    """Base of strategies that sample predictions.

    Parameters
    ----------
    posterior : MCDropout or DeepEnsemble, default=None
        Where the samples come from.
    random_state : int, default=None
        Also seeds the draws; see `QueryStrategy`.

    Attributes
    ----------
    active_posterior : MCDropout, DeepEnsemble or None
        The parameter, or what None stands for.
    """

    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "posterior": [HasMethods(["check", "prepare"]), None],
    }

    def __init__(
        self,
        *,
        posterior: MCDropout | DeepEnsemble | None = None,
        random_state: int | None = None,
    ):
        super().__init__(random_state=random_state)
        self.posterior = posterior

    @property
    def active_posterior(self) -> MCDropout | DeepEnsemble | None:
        """The parameter, or what None stands for."""
        return self.posterior

    def _default(self, name):
        return type(self)().active_posterior if name == "posterior" else None

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
        """Let the loop train all that the posterior needs; see `QueryStrategy`."""
        posterior = self.active_posterior
        return estimator if posterior is None else posterior.prepare(estimator)

    def _sample_proba(self, pool, **options):
        seed = check_seed(self._generator(pool))
        return pool.sample_proba(self.active_posterior, random_state=seed, **options)

    def _means(self, pool, statistics):
        """Average over the draws, in memory that does not grow with their number.

        `statistics` gives, of probabilities of shape (n_rows, n_draws, n_classes) of
        some rows (a slice) and some draws, tensors of which each row is a sum over
        these draws.
        """
        means = []

        def add(piece, place, n_draws):
            sums = statistics(piece, place[0])
            if not means:
                means.extend(pool.zeros(s) for s in sums)
            for mean, part in zip(means, sums, strict=True):
                mean[place[0]] += part / n_draws

        self._sample_proba(pool, each=add)
        return means


class ScoreQuery(QueryStrategy):
    """Base of strategies that take the rows with the highest scores.

    A subclass writes `_score`; ties are broken by a seeded random key, because pool
    order may be sorted by class. Where scores come of nets, which give equal rows other
    ones by rounding, it names in `_step` the multiples that scores are rounded to.

    Parameters
    ----------
    random_state : int, default=None
        Breaks ties; see `QueryStrategy`.
    """

    _step = None

    def _query(self, pool, n_samples, rng):
        return top_k(self._checked_score(pool), n_samples, random_state=rng)

    def _checked_score(self, pool):
        scores = self._score(pool)
        if tuple(np.shape(scores)) != (len(pool),):
            raise RuntimeError(
                f"{type(self).__name__}._score must give one score for each of the "
                f"{len(pool)} rows of the pool, got shape {tuple(np.shape(scores))}."
            )
        return self._with_ties(scores)

    def _with_ties(self, scores):
        """Let equal rows tie wherever they stand."""
        step = self._step
        return scores if step is None else (scores / step).round() * step

    @abstractmethod
    def _score(self, pool):
        """Scores of shape (len(pool),), higher = more wanted; array or tensor."""

    def _scale(self, scores):
        """Turn them into those of the paper, in proportion to which rows are drawn."""
        return scores


class AuxiliaryQuery(QueryStrategy):
    """Base of strategies that train a net of their own, afresh in each round.

    A subclass writes `_default_aux`, and in its `fit` calls `_fit_aux`.

    Parameters
    ----------
    aux : skorch.NeuralNet, default=None
        The net; None is the default one. Its parameters are set as in
        ``aux__max_epochs=50``, with None, too. It is trained where the estimator's
        outputs are, unless its `device` is another than skorch's default, "cpu".
    random_state : int, default=None
        Seeds the net, too; see `QueryStrategy`.

    Attributes
    ----------
    aux_ : skorch.NeuralNet
        The net of the last `fit`, with its `history`.
    """

    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "aux": [NeuralNet, None],
    }

    def __init__(
        self, *, aux: NeuralNet | None = None, random_state: int | None = None
    ):
        super().__init__(random_state=random_state)
        self.aux = aux

    @abstractmethod
    def _default_aux(self):
        """Make the unfitted net for ``aux=None``."""

    def _default(self, name):
        return self._default_aux() if name == "aux" else None

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
        """Check the parameters, those of `aux`, too; see `QueryStrategy`."""
        check_params(self)
        if self.aux is not None:
            check_auxiliary(self.aux)
        return super().prepare(estimator, pool_features=pool_features)

    @property
    def _active_aux(self):
        """The parameter, or what None stands for."""
        return self._default_aux() if self.aux is None else self.aux

    def _begin(self, pool):
        """Check parameters and pool, have it read in one pass, and seed the net."""
        check_params(self)
        if not pool.has_labeled or len(pool.labeled) == 0:
            raise ValueError(
                f"{type(self).__name__} tells labelled from unlabelled rows, but there "
                "are no labelled ones; give the PoolView X_labeled, or start with "
                "RandomQuery."
            )
        pool.prefetch(self.requires)
        return int(self._generator(pool).integers(2**32))

    def _fit_aux(self, X, y=None, **params):
        """Fit a fresh net, kept as `aux_`; see `skal.net.auxiliary.fit_auxiliary`."""
        self.aux_ = fit_auxiliary(self._active_aux, X, y, **params)


class SubsetQuery(AuxiliaryQuery, ScoreQuery):
    """Base of strategies that score a random part of the pool by a net of their own.

    A subclass has the parameter `subset`, whose "auto" is `_ratio` times as many rows
    as are asked for; its `_score` takes `positions`, too, and gives the scores of these
    rows alone.

    Parameters
    ----------
    aux : skorch.NeuralNet, default=None
        See `AuxiliaryQuery`.
    random_state : int, default=None
        Seeds the subset, too; see `AuxiliaryQuery`.
    """

    _parameter_constraints = {
        **AuxiliaryQuery._parameter_constraints,
        "subset": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
    }
    _step = 2**-12
    _ratio = 10

    def _query(self, pool, n_samples, rng):
        sizes = {"auto": round(self._ratio * n_samples), None: len(pool)}
        size = max(sizes.get(self.subset, self.subset), n_samples)
        if size >= len(pool):
            return super()._query(pool, n_samples, rng)
        candidates = np.sort(rng.permutation(len(pool))[:size])
        scores = self._with_ties(self._score(pool, candidates))
        return candidates[top_k(scores, n_samples, random_state=rng)]


class WrappingQuery(QueryStrategy):
    """Base of strategies that let another one, their `strategy`, do part of the work.

    Parameters
    ----------
    random_state : int, default=None
        The strategy has its own; see `QueryStrategy`.
    """

    @property
    def active_strategy(self) -> QueryStrategy:
        """The parameter, or what None stands for."""
        return self.strategy

    @property
    def active_posterior(self) -> MCDropout | DeepEnsemble | None:
        """That of the strategy, if it has one."""
        return getattr(self.active_strategy, "active_posterior", None)

    @property
    def requires(self) -> tuple[str, ...]:
        """What the strategy reads."""
        return self.active_strategy.requires

    @property
    def weighs(self) -> bool:
        """Whether the strategy does."""
        return self.active_strategy.weighs

    @property
    def training_note(self) -> str:
        """That of the strategy."""
        return self.active_strategy.training_note

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
        """Train as the strategy wants; see `QueryStrategy`."""
        check_params(self)
        check_params(self.active_strategy)
        return self.active_strategy.prepare(estimator, pool_features=pool_features)

    def fit(self, pool: PoolView) -> Self:
        """Train what the strategy needs.

        Parameters
        ----------
        pool : PoolView

        Returns
        -------
        self : QueryStrategy
        """
        self.active_strategy.fit(pool)
        return self

    def get_state(self) -> dict[str, NDArray]:
        """Give what the strategy keeps over rounds."""
        return self.active_strategy.get_state()

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Take over what the strategy of an equal one gave.

        Parameters
        ----------
        state : dict of str to ndarray
        """
        self.active_strategy.set_state(state)


def trains(strategy):
    """Tell whether a strategy, or the one it wraps, has a `fit` that does something."""
    return type(innermost(strategy)).fit is not QueryStrategy.fit


class HerdingQuery(QueryStrategy):
    """Base of strategies that maximise kernel coverage; a subclass has the parameters.

    Parameters
    ----------
    random_state : int, default=None
        See `QueryStrategy`.
    """

    weighs = True
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "space": [StrOptions({"embeddings", "features"})],
        "width": [
            StrOptions({"median", "smallest"}),
            Interval(Real, 1e-150, 1e150, closed="neither"),
        ],
        "max_references": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def requires(self) -> tuple[str, ...]:
        """The rows of the space, and those labelled."""
        return (self.space, f"labeled.{self.space}")

    def _points(self, pool, order=None):
        """Rows to compare, of shape (n_rows, n_columns)."""
        if self.space == "features":
            return pool.by_rows(torch.clone, pool.flat_features, rows=order)
        return pool.by_rows(unit_rows, pool.embeddings, rows=order)

    def _herd(self, pool, n_samples, rng, weights=None):
        """Choose by `skal.selection.herding`, ties at random."""
        order = rng.permutation(len(pool))
        if pool.weights is not None:
            each = pool.weights
            weights = each if weights is None else weights * each.to(weights.device)
        picks = herding(
            self._points(pool, order),
            n_samples,
            centers=self._points(pool.labeled) if pool.has_labeled else None,
            weights=None if weights is None else weights[order],
            width=self.width,
            max_references=self.max_references,
            random_state=rng,
        )
        return order[picks]


def trained_along(strategy, pool, name):
    """Get what was trained with the network, an attribute of it; raise without."""
    found = getattr(final_estimator(pool.estimator), name, None)
    if found is None:
        raise ValueError(
            f"the network was not prepared for {type(strategy).__name__}, which trains "
            "along with it: use the strategy in an ActiveLearningLoop, or call "
            "strategy.prepare(net) before net.fit."
        )
    return found


def same_rows(rows, known):
    """Tell whether a pool still has the rows that were known, or what is left of them.

    A `PoolView` of its own numbers its rows from 0, so none of them may be missing.
    """
    alone = np.array_equal(rows, np.arange(len(rows)))
    return np.array_equal(rows, known) or (not alone and np.isin(rows, known).all())


def pool_margins(pool):
    """Margin scores of probabilities or, without, differences of decision values."""
    values = pool.decision_values
    if values is None:
        return pool.by_rows(margin_scores, pool.log_proba)
    first, second = two_largest(values)[0].unbind(1)
    return second - first


def two_largest(scores):
    """Find the two largest scores of each row, and their classes."""
    if scores.shape[1] < 2:
        raise ValueError(
            "the model knows one class alone, to which there is no margin; train it on "
            "rows of two, or pass classes to PoolView."
        )
    return scores.topk(2, dim=1)


def margin_scores(log_proba):
    """Log odds ``log((1 - m) / m)`` of the margins ``m = p_(1) - p_(2)``, in float64.

    They keep an order where the first probability rounds to 1 and `m` with it.
    """
    log_proba = log_proba.double()
    values, classes = two_largest(log_proba)
    first, second = values.unbind(1)
    others = log_proba.scatter(1, classes[:, :1], -torch.inf).logsumexp(1)
    return others.logaddexp(second) - first - (-(second - first).expm1()).log()


def other_proba(log_proba):
    """``1 - p_(1)``, in float64, with the digits that the difference loses."""
    proba = log_proba.double().exp()
    return proba.scatter(1, proba.argmax(1, keepdim=True), 0.0).sum(1)


def unit_rows(points):
    """Scale rows to length 1; those of length 0 stay."""
    scale = points.abs().amax(1, keepdim=True)  # squares may overflow or underflow
    points = points / torch.where(scale > 0, scale, 1)
    return torch.nn.functional.normalize(points)
