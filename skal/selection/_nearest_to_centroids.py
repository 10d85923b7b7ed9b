"""The row nearest to each centroid of k-means."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from skal.selection._base import check_matrix, check_n_select, check_norms
from skal.selection._distances import N_ROWS
from skal.selection._k_center_greedy import k_center_greedy
from skal.utils.seeds import SeedLike, check_generator


def nearest_to_centroids(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    spare: torch.Tensor | None = None,
    random_state: SeedLike = None,
    **options: Any,
) -> NDArray[np.int64]:
    """Take the row nearest to each of `n_select` centroids of k-means [1]_.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
    n_select : int
        How many, from 0 to `n_rows`.
    spare : tensor of shape (n_rows, n_columns), default=None
        A copy of `points`, which is spoiled; None makes one.
    random_state : None, int, Generator or RandomState
        Seeds k-means and breaks ties.
    **options : dict
        Of `sklearn.cluster.KMeans`.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        A centroid's row is the nearest of its own members, larger clusters first. Where
        there are fewer distinct rows than clusters, the farthest remaining rows stand
        for the empty ones.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    Memory beyond the input: the rows once, where there is no `spare` copy of them.

    References
    ----------
    .. [1] Lloyd (1982). Least squares quantization in PCM. IEEE Transactions on
       Information Theory 28.

    Examples
    --------
    >>> from skal.selection import nearest_to_centroids
    >>> nearest_to_centroids([[0.0], [1], [2], [50]], 2, random_state=0).tolist()
    [1, 3]
    """
    points = check_matrix(points, "points").cpu()
    n_select = check_n_select(n_select, len(points), "points")
    for part in points.split(N_ROWS):
        check_norms(part.double().square().sum(1), "points")
    points = points.numpy()
    rng = check_generator(random_state)
    if n_select == 0:
        return np.empty(0, dtype=np.int64)
    seed = int(rng.integers(2**31))
    kmeans = KMeans(n_select, random_state=seed, copy_x=spare is None, **options)
    rows = points if spare is None else spare.cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = kmeans.fit(rows).labels_
    blocks = [slice(k, k + N_ROWS) for k in range(0, len(points), N_ROWS)]
    centroids = kmeans.cluster_centers_
    gaps = [np.square(points[b] - centroids[labels[b]]).sum(1) for b in blocks]
    gaps = np.concatenate(gaps)
    order = np.lexsort((rng.random(len(points)), gaps, labels))
    clusters, firsts, sizes = np.unique(
        labels[order], return_index=True, return_counts=True
    )
    picks = order[firsts[np.argsort(-sizes, kind="stable")]]
    if len(picks) == n_select:
        return picks
    rest = np.setdiff1d(np.arange(len(points)), picks)
    extra = k_center_greedy(
        points[rest], n_select - len(picks), centers=points[picks], random_state=rng
    )
    return np.concatenate([picks, rest[extra]])
