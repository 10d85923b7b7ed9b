"""Strategies that read embeddings only: cover the pool, whatever the predictions.

References
----------
.. [Bae2024] Bae, Noh and Sutherland, "Generalized coverage for more robust low-budget
   active learning", ECCV 2024.
.. [Hacohen2022] Hacohen, Dekel and Weinshall, "Active learning on a budget: opposite
   strategies suit high and low budgets", ICML 2022.
.. [Sener2018] Sener and Savarese, "Active learning for convolutional neural networks: a
   core-set approach", ICLR 2018.
.. [Yehuda2022] Yehuda, Dekel, Hacohen and Weinshall, "Active learning through a
   covering lens", NeurIPS 2022.
"""

import itertools
import warnings
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from skal.query._base import HerdingQuery, QueryStrategy, unit_rows
from skal.selection import (
    ball_cover,
    k_center_greedy,
    k_center_mip,
    k_center_mip_subset,
    nearest_to_centroids,
    pure_radius,
    typicality,
)
from skal.utils.validation import Interval, StrOptions


@dataclass(kw_only=True, eq=False, repr=False)
class KMeansQuery(QueryStrategy):
    """Take the row nearest to each of `n_samples` k-means centroids of the embeddings.

    Parameters
    ----------
    n_init : int or "auto", default="auto"
        Restarts of k-means.
    max_iter : int, default=300
        Iterations of a run at most.
    random_state : int, default=None
        See `QueryStrategy`.

    Notes
    -----
    A centroid's row is the nearest of its own members, larger clusters first. Where
    there are fewer distinct embeddings than clusters, the empty ones are replaced by
    the farthest remaining rows: public code raises there, or repeats a row.

    References
    ----------
    .. [1] The K-Means baseline of Sener and Savarese, "Active learning for
       convolutional neural networks: a core-set approach", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import KMeansQuery, PoolView
    >>> pool = PoolView(None, np.array([[0.0], [1.0], [2.0], [50.0]]))
    >>> KMeansQuery(random_state=0).query(pool, 2)
    array([1, 3])
    """

    n_init: int | str = "auto"
    max_iter: int = 300
    random_state: int | None = None

    requires = ("embeddings",)
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        return nearest_to_centroids(
            pool.embeddings,
            n_samples,
            spare=pool.stack(pool.embeddings),
            n_init=self.n_init,
            max_iter=self.max_iter,
            random_state=rng,
        )


class KCenterGreedyQuery(QueryStrategy):
    """Take, again and again, the row farthest from all labelled and chosen rows.

    Each pick is ``argmax_i min_j |h_i - h_j|`` over the embeddings ``h``, ``j`` running
    over labelled and picked rows [1]_ (section 5, algorithm 1).

    Parameters
    ----------
    random_state : int, default=None
        Breaks exact ties; see `QueryStrategy`.

    Notes
    -----
    Exact blocked algorithm, extra memory O(n_samples of the pool); see
    `skal.selection.k_center_greedy`. Without labelled rows the first pick is the row
    farthest from the mean, since the paper always has a labelled set.

    References
    ----------
    .. [1] Sener and Savarese, "Active learning for convolutional neural networks: a
       core-set approach", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import KCenterGreedyQuery, PoolView
    >>> X = np.array([[4.0], [5.0], [6.0], [10.0]])
    >>> pool = PoolView(None, X, X_labeled=np.array([[0.0]]))
    >>> KCenterGreedyQuery().query(pool, 2)
    array([3, 1])
    """

    requires = ("embeddings", "labeled.embeddings")

    def _query(self, pool, n_samples, rng):
        centers = pool.labeled.embeddings if pool.has_labeled else None
        return k_center_greedy(
            pool.embeddings, n_samples, centers=centers, random_state=rng
        )


@dataclass(kw_only=True, eq=False, repr=False)
class CoreSetQuery(QueryStrategy):
    """Take the rows that, with the labelled ones, cover the pool in the least radius.

    The robust k-center problem ``min max_i min_j |h_i - h_j|`` over the embeddings
    ``h``, ``j`` running over labelled and chosen rows, ``i`` over all rows of the pool
    but a few outliers [1]_ (section 4.2). `skal.selection.k_center_mip` solves it as a
    mixed-integer program with HiGHS, which comes with SciPy.

    Parameters
    ----------
    outlier_fraction : float, default=1e-4
        Of the rows of the pool, how many may stay uncovered: from 0 to below 1, rounded
        down to a number of rows.
    time_limit : float, default=30
        Seconds for a query, then the best rows met so far are taken; may be infinite.
    max_points : int, default=2000
        Largest pool that is solved as it is, in memory of about 40 bytes times its
        square. Of a larger one, this many spread rows, weighted by those they stand
        for, are the candidates.
    random_state : int, default=None
        Chooses among equally good sets; see `QueryStrategy`.

    Attributes
    ----------
    radius_bounds_ : tuple of two floats
        Of the last query: no choice of as many rows of the pool has a radius below the
        first, the rows taken have the second. Equal where they are proven best.
    n_candidates_ : int
        Rows of the pool that the last query chose from; fewer than the pool has where
        that is above `max_points`.

    Notes
    -----
    Never worse than `KCenterGreedyQuery`, the start of the search. Above `max_points`
    it is often no better: the program sees the pool through its candidates, and
    `radius_bounds_` stay true for the whole pool but far apart. With as many picks as
    candidates, or more, it is the greedy answer.

    Equal seeds give equal picks as long as the time limit cuts nothing off; after that
    they depend on the speed of the machine. Picks come farthest first. The program
    and the search differ from the paper's, see `skal.selection.k_center_mip`.

    References
    ----------
    .. [1] Sener and Savarese, "Active learning for convolutional neural networks: a
       core-set approach", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import CoreSetQuery, PoolView
    >>> X = np.array([[4.0], [5.0], [6.0], [10.0]])
    >>> pool = PoolView(None, X, X_labeled=np.array([[0.0]]))
    >>> strategy = CoreSetQuery()
    >>> strategy.query(pool, 1)
    array([2])
    >>> strategy.radius_bounds_
    (4.0, 4.0)
    """

    outlier_fraction: float = 1e-4
    time_limit: float = 30
    max_points: int = 2000
    random_state: int | None = None

    requires = ("embeddings", "labeled.embeddings")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "outlier_fraction": [Interval(Real, 0, 1, closed="left")],
        "time_limit": [Interval(Real, 0, None, closed="both")],
        "max_points": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        # A random order of the rows breaks ties between optimal sets.
        order = rng.permutation(len(pool))
        points = pool.by_rows(torch.clone, pool.embeddings, rows=order)
        problem = {
            "centers": pool.labeled.embeddings if pool.has_labeled else None,
            "n_outliers": int(self.outlier_fraction * len(pool) + 1e-9),
            "time_limit": self.time_limit,
        }
        self.n_candidates_ = min(len(pool), self.max_points)
        if self.n_candidates_ == len(pool):
            picks, self.radius_bounds_ = k_center_mip(
                points, n_samples, return_bounds=True, **problem
            )
        else:
            picks, self.radius_bounds_ = k_center_mip_subset(
                points, n_samples, max_points=self.max_points, **problem
            )
        return order[picks]


@dataclass(kw_only=True, eq=False, repr=False)
class MaxHerdingQuery(HerdingQuery):
    """Take, again and again, the row that most adds to the coverage of the pool.

    Coverage is ``sum_x max_s exp(-(|x - s| / width)^2)``, ``s`` running over labelled
    and picked rows [1]_. It needs no model, so it also makes a good first set:
    ``ActiveLearningLoop(..., initial=MaxHerdingQuery())``.

    Parameters
    ----------
    space : {"embeddings", "features"}, default="embeddings"
        Compare embeddings scaled to length 1, as in the paper, or the rows as they are
        after the transformers of a Pipeline.
    width : float, "median" or "smallest", default="median"
        Of the kernel: the median distance to the nearest labelled row, so that it
        shrinks as labels are bought; 1 in the paper. See `skal.selection.herding`.
    max_references : int, default=20_000
        Of a larger pool, coverage is estimated on so many rows drawn at random.
    random_state : int, default=None
        Breaks ties; see `QueryStrategy`.

    Notes
    -----
    The picks are those of the plain greedy algorithm, without its n x n matrix.
    Embeddings of length 0 stay where they are. The paper's width is 1 for
    self-supervised features of length 1.

    References
    ----------
    .. [1] Bae, Noh and Sutherland, "Generalized coverage for more robust low-budget
       active learning", ECCV 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import MaxHerdingQuery, PoolView
    >>> pool = PoolView(None, np.array([[0.0], [4.0], [5.0], [6.0], [9.0]]))
    >>> MaxHerdingQuery(space="features", width=2.0).query(pool, 1)
    array([2])
    """

    space: str = "embeddings"
    width: float | str = "median"
    max_references: int = 20_000
    random_state: int | None = None

    def _query(self, pool, n_samples, rng):
        return self._herd(pool, n_samples, rng)


@dataclass(kw_only=True, eq=False, repr=False)
class ProbCoverQuery(QueryStrategy):
    """Take, again and again, the row whose ball holds most rows not yet covered.

    A row covers those nearer than `delta`, among embeddings scaled to length 1;
    labelled rows cover already [1]_ (algorithm 1).

    Parameters
    ----------
    delta : float or "auto", default="auto"
        Radius of the balls. "auto" is the largest at which at least 95 % of the balls
        around rows are pure: all their rows are of one cluster of k-means, with as many
        clusters as classes [1]_ (section 3.2).
    max_references : int, default=20_000
        Of a larger pool, so many rows drawn at random are to be covered.
    random_state : int, default=None
        Seeds k-means and breaks ties; see `QueryStrategy`.

    Attributes
    ----------
    delta_ : float
        The radius of the last query.

    Notes
    -----
    "auto" is exact, where the paper tries radii of a grid, and is found again in each
    query, since embeddings change as the network learns: the paper's are fixed. Where
    nothing is labelled, and classes are not known, there are as many clusters as rows
    are asked for.

    Once all rows are covered, the picks are random; take a smaller `delta`, or
    `MaxHerdingQuery`, whose kernel is smooth.

    References
    ----------
    .. [1] Yehuda, Dekel, Hacohen and Weinshall, "Active learning through a covering
       lens", NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import PoolView, ProbCoverQuery
    >>> angles = np.array([0.0, 0.1, 0.2, 1.5, 1.6])
    >>> pool = PoolView(None, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    >>> ProbCoverQuery(delta=0.15).query(pool, 1)
    array([1])
    """

    delta: float | str = "auto"
    max_references: int = 20_000
    random_state: int | None = None

    requires = ("embeddings", "labeled.embeddings")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "delta": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "max_references": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        order = rng.permutation(len(pool))
        points, centers = pool.by_rows(unit_rows, pool.embeddings, rows=order), None
        if pool.has_labeled:
            centers = unit_rows(pool.labeled.embeddings)
        options = {"max_references": self.max_references, "random_state": rng}
        self.delta_ = self.delta
        if self.delta == "auto":
            n_clusters = max(2, n_samples)
            if pool.has_labeled and pool.labeled.y is not None:
                n_clusters = len(pool.classes)
            rows = pool.stack(points, centers)
            labels = _clusters(pool.stack(rows), n_clusters, rng)
            self.delta_ = pure_radius(rows, labels, **options)
        picks = ball_cover(points, n_samples, self.delta_, centers=centers, **options)
        return order[picks]


@dataclass(kw_only=True, eq=False, repr=False)
class TypiClustQuery(QueryStrategy):
    """Take the most typical row of each cluster that has fewest labels.

    Labelled and unlabelled embeddings, scaled to length 1, are clustered by k-means
    into as many clusters as there will be labels. Clusters are visited in turn, those
    of fewest labels first, of these the largest; a visit takes the row of largest
    typicality, ``1 / mean distance to its nearest rows`` there [1]_.

    Parameters
    ----------
    max_clusters : int, default=500
        At most so many clusters.
    min_cluster_size : int, default=6
        Smaller clusters are visited only once the others have no rows left.
    n_neighbors : int, default=20
        Rows that typicality looks at, but at most half of those in the cluster.
    random_state : int, default=None
        Seeds k-means and breaks ties; see `QueryStrategy`.

    Notes
    -----
    As in the authors' code, neighbours are unlabelled rows of the cluster, and more
    than 50 clusters are made by mini-batch k-means. A cluster without such rows is
    passed over, where that code stops.

    References
    ----------
    .. [1] Hacohen, Dekel and Weinshall, "Active learning on a budget: opposite
       strategies suit high and low budgets", ICML 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skal import PoolView, TypiClustQuery
    >>> angles = np.r_[0:0.6:7j, 1.5:1.58:9j]
    >>> pool = PoolView(None, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    >>> TypiClustQuery(n_neighbors=2, random_state=0).query(pool, 2).shape
    (2,)
    """

    max_clusters: int = 500
    min_cluster_size: int = 6
    n_neighbors: int = 20
    random_state: int | None = None

    requires = ("embeddings", "labeled.embeddings")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "max_clusters": [Interval(Integral, 1, None, closed="left")],
        "min_cluster_size": [Interval(Integral, 1, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def _query(self, pool, n_samples, rng):
        order = rng.permutation(len(pool))
        points, centers = pool.by_rows(unit_rows, pool.embeddings, rows=order), None
        if pool.has_labeled:
            centers = unit_rows(pool.labeled.embeddings)
        n_clusters = n_samples + (0 if centers is None else len(centers))
        n_clusters = min(n_clusters, self.max_clusters)
        labels = _clusters(pool.stack(points, centers), n_clusters, rng)
        sizes = np.bincount(labels)
        n_labeled = np.bincount(labels[len(points) :], minlength=len(sizes))
        labels = labels[: len(points)]
        visits = np.lexsort((-sizes, n_labeled))
        small = sizes[visits] < self.min_cluster_size
        picks = []
        # Small ones once no others have rows left.
        for clusters in (visits[~small], visits[small]):
            left = {c: np.flatnonzero(labels == c) for c in clusters}
            for c in itertools.cycle(clusters):
                if len(picks) == n_samples or not any(map(len, left.values())):
                    break
                if len(left[c]):
                    best = _most_typical(points[left[c]], self.n_neighbors)
                    picks.append(left[c][best])
                    left[c] = np.delete(left[c], best)
        return order[picks]


def _most_typical(points, n_neighbors):
    n_neighbors = min(n_neighbors, len(points) // 2)
    return typicality(points, n_neighbors).argmax() if n_neighbors else 0


def _clusters(points, n_clusters, rng):
    """Label rows by k-means, as TypiClust and ProbCover do; spoils them."""
    few = n_clusters <= 50
    kmeans = partial(KMeans, copy_x=False) if few else MiniBatchKMeans
    kmeans = kmeans(
        min(n_clusters, len(points)),
        n_init="auto",
        random_state=int(rng.integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit_predict(points.cpu().numpy())
