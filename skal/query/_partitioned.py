"""Strategies that let another one choose from parts of a pool too large for it.

References
----------
.. [Citovsky2021] Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and
   Kumar, "Batch active learning at scale", NeurIPS 2021.
.. [Mirzasoleiman2013] Mirzasoleiman, Karbasi, Sarkar and Krause, "Distributed
   submodular maximization: identifying representative elements in massive data",
   NeurIPS 2013.
"""

import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone

from skal.net.pool_features import PoolFeatures
from skal.net.pool_parts import OUTPUTS
from skal.pool import PoolView
from skal.query._base import QueryStrategy, WrappingQuery, trains
from skal.utils.discovery import innermost
from skal.utils.parallel import call_all
from skal.utils.seeds import check_seed
from skal.utils.validation import N_JOBS, Interval


@dataclass(kw_only=True, eq=False, repr=False)
class PartitionedQuery(WrappingQuery):
    """Let a strategy choose from parts of the pool, then from what it chose there.

    Each random part gives as many rows as are wanted, and the strategy takes from their
    union what is wanted: GreeDi [1]_ (algorithm 2). Two things are added, without which
    much is lost. A first part, half as large as the others, joins the union whole, as
    the union alone lacks the density of the pool; its rows count as many times as they
    stand for others in `BadgeQuery` and where there is herding. Any other strategy that
    looks at labelled rows first takes three quarters of what is wanted from the first
    part; these count as labelled for the other parts and the union, which give the last
    quarter.

    Parts are seen, and chosen from, wherever `joblib.parallel_config` says: in this
    process one after another, in others by joblib's loky, on a cluster by dask or ray.

    Parameters
    ----------
    strategy : QueryStrategy
        Chooses. Its parameters are set as in ``strategy__first``. One that trains a net
        of its own is refused; see `SubsampleQuery`.
    n_parts : int, default=8
        As many are made beside the first, and fewer where one would have less than
        twice the rows wanted.
    n_jobs : int, default=None
        Parts at a time. None is one, in this process, or what a surrounding
        `joblib.parallel_config` says.
    random_state : int, default=None
        Makes the parts and seeds the strategy in each; see `QueryStrategy`.

    Attributes
    ----------
    n_parts_ : int
        Of the last query; 1 where it was the strategy's own.

    See Also
    --------
    SubsampleQuery : Choose from one random part only.

    Notes
    -----
    A row passes the network once, in its part; outputs that the pool already has are
    used. The first part is seen in this process, and memory is that of a part for each
    that is worked at. The labelled rows go along with each part. Picks depend on the
    seeds and on `n_parts`, not on where parts are worked at, but for the last bits
    that other numbers of threads change.

    A dask array travels as what computes its blocks, to be computed where its part is
    worked at; its parts are of whole blocks but for two each. Where similar rows share
    a block, shuffle them first. A Dataset travels whole: let it read files.

    Of a strategy that scores each row for itself, such as `EntropyQuery`, the picks are
    those it would make of the whole. What others lose is measured in
    ``benchmarks/large_pools``: with 8 parts of 200,000 rows less than 1 % of the radius
    of k-center and of the potential of k-means++, on average, or nothing.
    What a strategy would keep over rounds, as
    `ClusterMarginQuery` its clusters, is made anew in each part and round. A part whose
    worker process ended is chosen from again.

    References
    ----------
    .. [1] Mirzasoleiman, Karbasi, Sarkar and Krause, "Distributed submodular
       maximization: identifying representative elements in massive data", NeurIPS 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import BadgeQuery, PartitionedQuery, PoolView
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(max_iter=5000).fit(X[:100], y[:100])
    >>> strategy = PartitionedQuery(BadgeQuery(), n_parts=4, random_state=0)
    >>> strategy.query(PoolView(model, X[100:]), 10).shape
    (10,)
    """

    strategy: QueryStrategy = field(kw_only=False)
    n_parts: int = 8
    n_jobs: int | None = None
    random_state: int | None = None

    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "strategy": [QueryStrategy],
        "n_parts": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": N_JOBS,
    }

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
        """Refuse what cannot choose in parts; else train as the strategy wants."""
        estimator = super().prepare(estimator, pool_features=pool_features)
        self._check_parts_suffice()
        return estimator

    # What a strategy needs is made in each part, and nothing is kept over rounds.
    fit, get_state = QueryStrategy.fit, QueryStrategy.get_state
    set_state = QueryStrategy.set_state

    def _check_parts_suffice(self):
        if trains(self.strategy):
            name = type(innermost(self.strategy)).__name__
            raise ValueError(
                f"{name} trains a net on the whole pool, which parts cannot spare; "
                f"use SubsampleQuery({name}(...), max_rows=...)."
            )

    def _query(self, pool, n_samples, rng):
        self._check_parts_suffice()
        most = max(1, (len(pool) // n_samples - 1) // 2)
        self.n_parts_ = min(self.n_parts, most)
        if self.n_parts_ == 1:
            return clone(self.strategy).query(pool, n_samples)
        parts = _cut(pool.spread(rng), self.n_parts_)
        seeds = rng.integers(2**32, size=self.n_parts_ + 2).tolist()
        first, chosen, labeled = pool.part(parts[0], random_state=seeds[0]), [], None
        if self._sees_chosen(pool):
            n_last = math.ceil(n_samples / 4)
            labeled, chosen = self._choose_first(first, n_samples - n_last)
            n_samples = n_last
        else:
            first.compute(self.requires)

        def arguments(number):
            place, seed = parts[number + 1], seeds[number + 1]
            view = pool.part(place, random_state=seed, labeled=labeled)
            return clone(self.strategy), view, n_samples

        found = call_all(_choose, arguments, self.n_parts_, n_jobs=self.n_jobs)
        rest = np.delete(np.arange(len(first)), chosen)
        known = [first.known(rest), *(known for _, known in found)]
        others = [
            part[picks] for part, (picks, _) in zip(parts[1:], found, strict=True)
        ]
        union = np.concatenate([parts[0][rest], *others])
        weights = np.ones(len(union))
        weights[: len(rest)] += (len(pool) - len(chosen) - len(union)) / len(rest)
        view = pool.part(
            union,
            random_state=seeds[-1],
            known=_joined(known),
            labeled=labeled,
            weights=weights,
        )
        picks = clone(self.strategy).query(view, n_samples)
        return np.concatenate([parts[0][chosen], union[picks]]).astype(np.int64)

    def _sees_chosen(self, pool):
        """Tell whether rows that are chosen already may count as labelled."""
        if self.strategy.weighs:  # what it takes of the first part stands for others
            return False
        compares = {n for n in self.requires if n.startswith("labeled.")}
        if not pool.has_labeled:  # what reads predictions, too, may do otherwise then
            return set(self.requires) == {"embeddings", *compares} and bool(compares)
        return (
            bool(compares) and {n.removeprefix("labeled.") for n in compares} <= OUTPUTS
        )

    def _choose_first(self, pool, n_samples):
        """Choose from the first part; labelled rows, and those chosen, as one view."""
        pool.compute(self.requires)
        chosen = np.empty(0, dtype=np.int64)
        if n_samples:
            chosen = clone(self.strategy).query(pool, n_samples)
        return pool.labeled_and(chosen), chosen


def _cut(order, n_parts):
    """Cut an order of rows in parts, and a first one that is half as large."""
    size = len(order) / (2 * n_parts + 1)
    cuts = [round(size * (2 * number + 1)) for number in range(n_parts)]
    return [np.sort(part) for part in np.split(order, cuts)]


def _joined(known):
    """Join what is known of the rows of several parts, if it is of all of them."""
    return {
        name: torch.cat([part[name] for part in known])
        if isinstance(value, torch.Tensor)
        else value
        for name, value in known[0].items()
        if all(name in part for part in known)
    }


def _choose(strategy, pool, n_samples):
    """Choose from a part; also what is known of the rows chosen."""
    picks = strategy.query(pool, n_samples)
    return picks, pool.known(picks)


@dataclass(kw_only=True, eq=False, repr=False)
class SubsampleQuery(WrappingQuery):
    """Let a strategy choose from rows of the pool drawn at random.

    Of a pool of up to `max_rows` rows it chooses as it would alone. Other rows are not
    seen, and pass no network: the cheapest way to choose from a pool of any size.

    Parameters
    ----------
    strategy : QueryStrategy
        Chooses. Its parameters are set as in ``strategy__first``.
    max_rows : int, default=20_000
        How many it may choose from; at least as many as are asked for.
    random_state : int, default=None
        Draws the rows, others in each round; see `QueryStrategy`. The strategy has its
        own.

    Attributes
    ----------
    rows_ : int64 array of shape (max_rows,)
        The `indices` that a strategy which trains a net of its own was shown in `fit`,
        and chooses from.

    See Also
    --------
    PartitionedQuery : All rows are seen, in parts.

    Notes
    -----
    Parts drawn at random, from which to choose so many, are also how BADGE was scaled
    in [1]_. A strategy that draws by density, such as `BadgeQuery`, loses next to
    nothing by it; one that looks for the farthest rows, such as `KCenterGreedyQuery`,
    does not see all of them. Figures are in ``benchmarks/large_pools``.

    References
    ----------
    .. [1] Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar,
       "Batch active learning at scale", NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import KCenterGreedyQuery, PoolView, SubsampleQuery
    >>> pool = PoolView(None, np.arange(100.0)[:, None])
    >>> SubsampleQuery(KCenterGreedyQuery(), max_rows=10).query(pool, 3).shape
    (3,)
    """

    strategy: QueryStrategy = field(kw_only=False)
    max_rows: int = 20_000
    random_state: int | None = None

    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "strategy": [QueryStrategy],
        "max_rows": [Interval(Integral, 1, None, closed="left")],
    }

    def fit(self, pool: PoolView) -> Self:
        """Train what the strategy needs, on the rows it will choose from.

        Parameters
        ----------
        pool : PoolView

        Returns
        -------
        self : SubsampleQuery
        """
        if trains(self.strategy):
            pool, positions = self._drawn(pool, self._generator(pool))
            self.rows_ = pool.indices
        return super().fit(pool)

    def _query(self, pool, n_samples, rng):
        if self.max_rows < n_samples:
            raise ValueError(
                f"max_rows={self.max_rows} is less than the {n_samples} rows asked "
                "for; raise it, or ask for fewer."
            )
        part, positions = self._drawn(pool, rng)
        if trains(self.strategy) and hasattr(self, "rows_"):
            shown = np.flatnonzero(np.isin(pool.indices, self.rows_))
            if len(shown) == len(self.rows_):
                part, positions = pool.part(shown), shown
        return positions[self.strategy.query(part, n_samples)]

    def _drawn(self, pool, rng):
        """View the rows that are drawn; also their positions."""
        if len(pool) <= self.max_rows:
            return pool, np.arange(len(pool))
        positions = np.sort(rng.permutation(len(pool))[: self.max_rows])
        return pool.part(positions, random_state=check_seed(rng)), positions
