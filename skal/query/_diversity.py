"""Strategies that read embeddings only: cover the pool, whatever the predictions.

References
----------
.. [Sener2018] Sener and Savarese, "Active learning for convolutional neural networks: a
   core-set approach", ICLR 2018.
"""

import warnings
from numbers import Integral

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from skal.query._base import QueryStrategy
from skal.selection import k_center_greedy
from skal.utils.validation import Interval, StrOptions


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

    requires = ("embeddings",)
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, *, n_init="auto", max_iter=300, random_state=None):
        super().__init__(random_state=random_state)
        self.n_init = n_init
        self.max_iter = max_iter

    def _query(self, pool, n_samples, rng):
        points = pool.embeddings.cpu().numpy()
        kmeans = KMeans(
            n_samples,
            n_init=self.n_init,
            max_iter=self.max_iter,
            random_state=int(rng.integers(2**31)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = kmeans.fit(points).labels_
        gaps = np.square(points - kmeans.cluster_centers_[labels]).sum(1)
        order = np.lexsort((rng.random(len(points)), gaps, labels))
        clusters, firsts, sizes = np.unique(
            labels[order], return_index=True, return_counts=True
        )
        picks = order[firsts[np.argsort(-sizes, kind="stable")]]
        rest = np.setdiff1d(np.arange(len(points)), picks)
        extra = k_center_greedy(
            points[rest],
            n_samples - len(picks),
            centers=points[picks],
            random_state=rng,
        )
        return np.concatenate([picks, rest[extra]])


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
