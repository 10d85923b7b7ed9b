"""Clusters of average linkage with a least mean size, also of very many rows."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster

from skal.selection._average_linkage import average_linkage
from skal.selection._base import check_matrix
from skal.selection._distances import N_ROWS, nearest, working_dtype
from skal.utils.seeds import SeedLike, check_generator


def linkage_clusters(
    points: ArrayLike | torch.Tensor,
    min_mean_size: float,
    *,
    max_linked: int = 50_000,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Cut the tree of average linkage where the clusters have a least mean size.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to cluster, by squared Euclidean distance.
    min_mean_size : float
        The tree is cut at the least height at which the mean size is no less, but into
        one cluster at least. Merges of equal height are all made or none.
    max_linked : int, default=50_000
        Of more rows, so many drawn at random are linked, and each other row joins the
        cluster at the least mean squared distance. So there are no more than
        `max_linked / min_mean_size` clusters, and the mean size grows with `n_rows`.
    random_state : None, int, Generator or RandomState, default=None
        Draws the rows to link, if there are more.

    Returns
    -------
    labels : ndarray of int64, of shape (n_rows,)
        From 0 up.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    References
    ----------
    .. [1] Citovsky et al. (2021). Batch active learning at scale. NeurIPS, algorithm 1.

    Examples
    --------
    >>> from skal.selection import linkage_clusters
    >>> linkage_clusters([[0.0], [1.0], [7.0], [9.0]], 2).tolist()
    [0, 0, 1, 1]
    """
    points = check_matrix(points, "points")
    if not min_mean_size >= 1:
        raise ValueError(f"min_mean_size must be at least 1, got {min_mean_size!r}.")
    if not max_linked >= 1:
        raise ValueError(f"max_linked must be at least 1, got {max_linked!r}.")
    if len(points) <= max_linked:
        return _cut(average_linkage(points), min_mean_size)
    rng = check_generator(random_state)
    linked = np.sort(rng.choice(len(points), max_linked, replace=False))
    index = torch.from_numpy(linked).to(points.device)
    some = _cut(average_linkage(points[index]), min_mean_size)
    with torch.no_grad():
        labels = _nearest_cluster(points, index, torch.from_numpy(some).to(index))
    labels[linked] = some
    return labels


def _cut(linkage, min_mean_size):
    n_rows = len(linkage) + 1
    if n_rows == 1:
        return np.zeros(1, dtype=np.int64)
    n_merges = n_rows - max(1, int(n_rows / min_mean_size))
    height = linkage[n_merges - 1, 2] if n_merges else 0.0
    return fcluster(linkage, height, criterion="distance").astype(np.int64) - 1


def _nearest_cluster(points, linked, labels):
    """Labels of all rows: the cluster of `linked` at the least mean squared distance.

    That is the squared distance to its mean plus its own mean squared deviation.
    """
    sizes = torch.bincount(labels)[:, None].double()
    means = sizes.new_zeros(len(sizes), points.shape[1])
    for rows, part in zip(linked.split(N_ROWS), labels.split(N_ROWS), strict=True):
        means.index_add_(0, part, points[rows].double())
    means /= sizes
    spread = torch.zeros_like(sizes)
    for rows, part in zip(linked.split(N_ROWS), labels.split(N_ROWS), strict=True):
        gaps = points[rows].double() - means[part]
        spread.index_add_(0, part, gaps.square_().sum(1, keepdim=True))
    spread = (spread / sizes).squeeze(1)
    _, labels = nearest(points, means, offset=spread, dtype=working_dtype(points))
    return labels
