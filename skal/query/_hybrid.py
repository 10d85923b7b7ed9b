"""Strategies that read predictions and embeddings.

References
----------
.. [Ash2020] Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep batch active
   learning by diverse, uncertain gradient lower bounds", ICLR 2020.
.. [Bae2025] Bae, Oh and Sutherland, "Uncertainty herding: one active learning method
   for all label budgets", ICLR 2025.
.. [Citovsky2021] Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and
   Kumar, "Batch active learning at scale", NeurIPS 2021.
.. [Gupte2024] Gupte, Aklilu, Nirschl and Yeung-Levy, "Revisiting active learning in the
   era of vision foundation models", TMLR 2024.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone

from skal.net.calibration import best_temperature, stratified
from skal.net.training import fit_isolated
from skal.query._base import (
    HerdingQuery,
    QueryStrategy,
    other_proba,
    pool_margins,
    same_rows,
    unit_rows,
)
from skal.selection import (
    bait,
    kmeans_plusplus,
    linkage_clusters,
    nearest_to_centroids,
    top_k,
)
from skal.utils.rows import DatasetRows, is_dataset, take
from skal.utils.seeds import check_seed
from skal.utils.validation import Interval, StrOptions

N_ROWS = 4096  # whose embeddings are changed at once


@dataclass(kw_only=True, eq=False, repr=False)
class BadgeQuery(QueryStrategy):
    """Take rows by k-means++ seeding over the gradients of the last layer.

    With the predicted class as label, the gradient of the cross-entropy with respect to
    the head is ``g = (p - e_argmax(p)) x [h, 1]`` [1]_ (equation 1): long where the
    model is unsure, and spread by D^2 sampling (algorithm 1).

    Parameters
    ----------
    first : {"norm", "uniform"}, default="norm"
        The first pick: the longest gradient, as in the authors' code, or a random one,
        as in the paper. Among equally long ones "norm" takes the lowest position.
    random_state : int, default=None
        See `QueryStrategy`.

    Notes
    -----
    The outer product is never formed: extra memory is one copy of the embeddings, not
    n_classes of them. The 1 stands for the bias and is left out where the head has
    none, as in the authors' network. For an estimator without a network, ``h`` are its
    rows, and the 1 is there. Where it has no `predict_proba` either, as LinearSVC,
    ``p`` is the softmax of its decision values (of two classes, the sigmoid).

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep batch active learning
       by diverse, uncertain gradient lower bounds", ICLR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import BadgeQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> BadgeQuery(random_state=0).query(pool, 3).shape
    (3,)
    """

    first: str = "norm"
    random_state: int | None = None

    requires = ("proba", "decision_values", "embeddings", "head_bias")
    weighs = True
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "first": [StrOptions({"norm", "uniform"})],
    }

    def _query(self, pool, n_samples, rng):
        values, h = pool.decision_values, pool.embeddings
        if values is None:
            residual = pool.by_rows(_residual, pool.proba)
        else:
            residual = pool.by_rows(lambda z: _residual(z.softmax(1)), values)
        if pool.head_bias is not None or pool.head_weight is None:
            h = pool.by_rows(lambda x: torch.cat([x, torch.ones_like(x[:, :1])], 1), h)
        return kmeans_plusplus(
            (residual, h),
            n_samples,
            first=self.first,
            weights=pool.weights,
            random_state=rng,
        )


def _residual(proba):
    residual, top = proba.clone(), proba.argmax(1, keepdim=True)
    return residual.scatter_add_(1, top, -torch.ones_like(proba[:, :1]))


@dataclass(kw_only=True, eq=False, repr=False)
class BaitQuery(QueryStrategy):
    """Take rows whose labels together leave the head least in doubt over the pool.

    With the largest probability ``p`` of a row and its embedding ``h``, its Fisher
    information in the binary task "is it this class?" is ``g g^T``,
    ``g = h sqrt(p (1 - p))`` [2]_. Each pick makes ``trace(M^-1 F)`` least, with
    ``F = mean_pool g g^T`` and ``M = ridge I + sum g g^T`` over labelled and picked
    rows [1]_ (algorithm 1).

    Parameters
    ----------
    ridge : float, default=1.0
        What is known of each weight without labels.
    oversample : float, default=1
        That many times the rows wanted are taken, and those that matter least given
        back; 2 in [1]_.
    random_state : int, default=None
        Breaks ties; see `QueryStrategy`.

    Notes
    -----
    Exact, with rank one updates and no matrix a row; memory is a copy of the embeddings
    and some twenty matrices of the square of their columns; see `skal.selection.bait`.

    The full form of [1]_ has a matrix of rank n_classes a row, and costs as many times
    more. Its code weighs the sum over rows by the size of the batch; here `ridge` has
    the same weight in every batch. Embeddings count as they are, without a bias, as in
    the code; where all are far from 0, or long, choose `ridge` accordingly.

    References
    ----------
    .. [1] Ash, Goel, Krishnamurthy and Kakade, "Gone fishing: neural active learning
       with Fisher embeddings", NeurIPS 2021.
    .. [2] Huseljic, Hahn, Herde, Rauch and Sick, "Fast Fishing: approximating BAIT for
       efficient and scalable deep active image classification", ECML 2024,
       arXiv:2404.08981.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import BaitQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> BaitQuery().query(pool, 3).shape
    (3,)
    """

    ridge: float = 1.0
    oversample: float = 1
    random_state: int | None = None

    requires = ("log_proba", "embeddings", "labeled.log_proba", "labeled.embeddings")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "oversample": [Interval(Real, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        return bait(
            _binary_gradients(pool),
            n_samples,
            centers=_binary_gradients(pool.labeled) if pool.has_labeled else None,
            ridge=self.ridge,
            oversample=self.oversample,
            random_state=rng,
        )


def _binary_gradients(pool):
    """Embeddings times the deviation of "the most probable class or not"."""

    def scaled(log_proba, h):
        q = other_proba(log_proba)
        return h * (q * (1 - q)).sqrt().to(h)[:, None]

    return pool.by_rows(scaled, pool.log_proba, pool.embeddings)


@dataclass(kw_only=True, eq=False, repr=False)
class ClusterMarginQuery(QueryStrategy):
    """Take rows of small margin, in turn from many clusters of the embeddings.

    The pool is clustered once, by average linkage. Each query takes the rows with the
    smallest margins, `margin_multiple` for each one wanted, and visits their clusters
    in turn, the one with the fewest of them first, for one row a visit [1]_
    (algorithm 1).

    Parameters
    ----------
    margin_multiple : float, default=10
        Rows of small margin for each row wanted, at least 1.
    min_mean_cluster_size : float, default=10
        The tree is cut at the least height at which the mean size is no less.
    within : {"random", "margin"}, default="random"
        The row of a cluster that a visit takes: a random one of those of small margin,
        as in the paper, or the one of the smallest.
    max_linked : int, default=50_000
        Of a larger pool, so many rows drawn at random are linked, since that takes time
        with their square; the others join the cluster at the least mean distance.
    random_state : int, default=None
        See `QueryStrategy`.

    Attributes
    ----------
    rows_ : int64 array of shape (n_clustered,)
        The `indices` of the pool that was clustered.
    labels_ : int64 array of shape (n_clustered,)
        The cluster of each.

    Notes
    -----
    Margins are those of `MarginQuery`, of decision values where there are no
    probabilities. Distances are squared Euclidean ones, which need no matrix of all
    pairs; see `skal.selection.linkage_clusters`. Clusters of one size are visited by
    the smallest margin among their rows.

    Clusters are known by the numbers of the loop's rows. They are made again, from the
    embeddings of then, where the pool has other rows; and for a `PoolView` of its own,
    whose rows are numbered from 0, where their number changes. Use a clone for another
    data set. They are of the pool of the first query, so without the initial set: the
    paper's have it, but take no row of it. Where a person is asked, each `fit` of the
    loop makes them again, so it may buy other rows than a simulation.

    References
    ----------
    .. [1] Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar,
       "Batch active learning at scale", NeurIPS 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import ClusterMarginQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> ClusterMarginQuery(random_state=0).query(pool, 3).shape
    (3,)
    """

    margin_multiple: float = 10
    min_mean_cluster_size: float = 10
    within: str = "random"
    max_linked: int = 50_000
    random_state: int | None = None

    requires = ("log_proba", "decision_values", "embeddings")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "margin_multiple": [Interval(Real, 1, None, closed="left")],
        "min_mean_cluster_size": [Interval(Real, 1, None, closed="left")],
        "within": [StrOptions({"random", "margin"})],
        "max_linked": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        labels = self._labels(pool, rng.spawn(1)[0])
        n_small = math.ceil(min(self.margin_multiple * n_samples, len(pool)))
        small = top_k(pool_margins(pool), n_small, random_state=rng)
        within = rng if self.within == "random" else None
        return small[_in_turn(labels[small], within)[:n_samples]]

    def _labels(self, pool, rng):
        """Look up the cluster of each row; make the clusters where there are none."""
        rows, known = pool.indices, getattr(self, "rows_", None)
        if known is None or not same_rows(rows, known):
            self.labels_ = linkage_clusters(
                pool.embeddings,
                self.min_mean_cluster_size,
                max_linked=self.max_linked,
                random_state=rng,
            )
            self.rows_ = known = rows
        order = np.argsort(known)
        return self.labels_[order[np.searchsorted(known, rows, sorter=order)]]

    def get_state(self) -> dict[str, NDArray]:
        """Give `rows_` and `labels_`, or nothing before the first query."""
        names = ("rows_", "labels_")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def set_state(self, state: Mapping[str, NDArray]) -> None:
        """Take over the clusters of another one's `get_state`.

        Parameters
        ----------
        state : dict of str to ndarray
        """
        rows, labels = state["rows_"], state["labels_"]
        if not rows.dtype == labels.dtype == np.int64 or rows.shape != labels.shape:
            raise ValueError("rows_ and labels_ must be int64 arrays of one length.")
        self.rows_, self.labels_ = rows, labels


@dataclass(kw_only=True, eq=False, repr=False)
class DropQuery(QueryStrategy):
    """Take rows from many clusters of those whose class dropout changes.

    Dropout falls on the embeddings that the head is given, `n_draws` times. Rows are
    candidates where more than half of the draws change the predicted class; k-means
    makes as many clusters of them, by direction, as rows are wanted, and the row
    nearest to each centroid is taken [1]_ (section 4).

    Parameters
    ----------
    n_draws : int, default=3
        Draws of dropout.
    p : float, default=0.75
        The part of each embedding that is dropped, at random; the rest grows by
        ``1 / (1 - p)``. .75 is too much for embeddings of less than some hundred
        columns: nearly all rows become candidates.
    candidates_per_pick : int, default=25
        As long as there are fewer candidates for each row wanted, a change less is
        asked for, down to one. As in the authors' code.
    random_state : int, default=None
        Seeds the dropout, too; see `QueryStrategy`.

    Notes
    -----
    No further pass of the network: only its head sees the changed embeddings. An
    estimator without a network is asked for its predictions with columns of its rows
    set to 0, which is meant for rows around 0.

    Clusters are those of `KMeansQuery`, over embeddings of length 1. Where no change at
    all leaves fewer candidates than rows wanted, the rest is drawn at random from the
    others. The paper's first set, the rows nearest to k-means centroids, is
    ``initial=KMeansQuery()`` of the loop.

    References
    ----------
    .. [1] Gupte, Aklilu, Nirschl and Yeung-Levy, "Revisiting active learning in the era
       of vision foundation models", TMLR 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import DropQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> DropQuery(p=0.25, random_state=0).query(pool, 3).shape
    (3,)
    """

    n_draws: int = 3
    p: float = 0.75
    candidates_per_pick: int = 25
    random_state: int | None = None

    requires = ("proba", "decision_values", "embeddings", "rescore")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "p": [Interval(Real, 0, 1, closed="neither")],
        "candidates_per_pick": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        changes = self._changes(pool, rng)
        threshold, n_wanted = self.n_draws // 2, self.candidates_per_pick * n_samples
        while threshold > 0 and (changes > threshold).sum() < n_wanted:
            threshold -= 1
        candidates = np.flatnonzero(changes > threshold)
        if len(candidates) <= n_samples:
            others = rng.permutation(np.flatnonzero(changes <= threshold))
            return np.concatenate([rng.permutation(candidates), others])[:n_samples]
        points = pool.by_rows(unit_rows, pool.embeddings, rows=candidates)
        options = {"spare": pool.stack(points), "random_state": rng}
        return candidates[nearest_to_centroids(points, n_samples, **options)]

    def _changes(self, pool, rng):
        """Count the draws that change the predicted class of each row."""
        values, h = pool.decision_values, pool.embeddings
        classes = (pool.proba if values is None else values).argmax(1)
        # Drawn on the CPU, so that every device has the same.
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        changes = torch.zeros_like(classes)
        for start in range(0, len(h), N_ROWS):
            place = slice(start, start + N_ROWS)
            for _ in range(self.n_draws):
                kept = torch.rand(h[place].shape, generator=generator) >= self.p
                dropped = h[place] * kept.to(h) / (1 - self.p)
                changes[place] += pool.rescore(dropped).argmax(1) != classes[place]
        return changes.cpu().numpy()


def _in_turn(groups, rng=None):
    """Order positions by visits to their groups in turn, the smallest group first.

    A visit takes a random position of the group, or its lowest where `rng` is None.
    """
    _, first, groups, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    key = np.arange(len(groups)) if rng is None else rng.random(len(groups))
    order = np.lexsort((key, groups))
    visit = np.empty_like(order)
    visit[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.lexsort((first[groups], sizes[groups], visit))


@dataclass(kw_only=True, eq=False, repr=False)
class UHerdingQuery(HerdingQuery):
    """Take, again and again, the row that most adds to the coverage of unsure rows.

    Coverage is ``sum_x U(x) max_s exp(-(|x - s| / width)^2)``, ``s`` running over
    labelled and picked rows, with the uncertainty ``U = 1 - (p_(1) - p_(2))`` [1]_.
    Where the kernel is narrow this is uncertainty, where it is wide coverage.

    Parameters
    ----------
    space : {"embeddings", "features"}, default="embeddings"
        Compare embeddings scaled to length 1, or the rows as they are after the
        transformers of a Pipeline.
    width : float, "median" or "smallest", default="median"
        Of the kernel: the median distance to the nearest labelled row, so that it
        shrinks as labels are bought. "smallest" is the paper's, the smallest distance
        of two labelled rows. See `skal.selection.herding`.
    temperature : float or "calibrated", default=1.0
        Logits are divided by it. "calibrated" is the paper's: the one of least
        calibration error on a random, stratified 30 % of the labelled rows under a
        model trained on the others, at the cost of one more training a round.
    max_references : int, default=20_000
        Of a larger pool, coverage is estimated on so many rows drawn at random.
    random_state : int, default=None
        Breaks ties, and seeds the calibration; see `QueryStrategy`.

    Notes
    -----
    Where nothing is labelled ``U`` is 1, as it is where all predictions are certain.

    The median width is not the paper's: over seven data sets it ranked better, and
    embeddings better than features (benchmarks/label_efficiency/proof.md). Features
    need rows of numbers whose distances mean something, so not pixels of large images.

    Where there is no `predict_proba`, as in LinearSVC, ``p`` is the softmax of the
    decision values (of two classes, the sigmoid).

    References
    ----------
    .. [1] Bae, Oh and Sutherland, "Uncertainty herding: one active learning method for
       all label budgets", ICLR 2025.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import PoolView, UHerdingQuery
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=1000).fit(X[::9], y[::9])
    >>> pool = PoolView(model, X, X_labeled=X[::9], y_labeled=y[::9])
    >>> UHerdingQuery().query(pool, 3).shape
    (3,)
    """

    space: str = "embeddings"
    width: float | str = "median"
    temperature: float | str = 1.0
    max_references: int = 20_000
    random_state: int | None = None

    _parameter_constraints = {
        **HerdingQuery._parameter_constraints,
        "temperature": [
            StrOptions({"calibrated"}),
            Interval(Real, 0, None, closed="neither"),
        ],
    }

    @property
    def requires(self) -> tuple[str, ...]:
        """Predictions, the rows of the space, and those labelled."""
        return ("log_proba", "decision_values", *super().requires)

    def _query(self, pool, n_samples, rng):
        weights = self._uncertainty(pool, rng) if pool.has_labeled else None
        return self._herd(pool, n_samples, rng, weights)

    def _uncertainty(self, pool, rng):
        """Sum up what the margin lacks to 1, which keeps digits that 1 - m loses."""
        temperature = self.temperature
        if temperature == "calibrated":
            temperature = _calibrated_temperature(pool, rng.spawn(1)[0])

        def softened(scores):
            proba = (scores.double() / temperature).softmax(1)
            others = proba.scatter(1, proba.argmax(1, keepdim=True), 0.0)
            return others.sum(1) + others.amax(1)

        unsure = pool.by_rows(softened, _scores(pool))
        return unsure if bool(unsure.any()) else None


def _scores(pool):
    values = pool.decision_values
    return pool.log_proba if values is None else values


def _calibrated_temperature(pool, rng):
    """Find the best temperature of a model trained on a part of the labelled rows."""
    codes = pool.labeled.y
    if codes is None:
        raise ValueError(
            "temperature='calibrated' trains a model on some of the labelled rows; "
            "pass X_labeled and y_labeled to PoolView, or temperature=1.0."
        )
    held_out = stratified(codes, 0.3, rng)
    if not held_out.any():
        return 1.0
    (X, y), rest = pool.training_set(), np.flatnonzero(~held_out)
    y = np.asarray(y)[rest]
    X = DatasetRows(X, rest, y) if is_dataset(X) else take(X, rest)
    model = fit_isolated(clone(pool.estimator), X, y, check_seed(rng))
    scores = _scores(pool.labeled.under(model))
    return best_temperature(scores[np.flatnonzero(held_out)], codes[held_out])
