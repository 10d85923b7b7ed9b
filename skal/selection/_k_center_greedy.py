"""Greedy k-center (farthest-first traversal), exact, by blocks of candidates."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_points
from skal.selection._distances import (
    N_CANDIDATES,
    Cover,
    differences,
    lower_bounds,
)
from skal.utils.scratch import Scratch
from skal.utils.seeds import SeedLike, check_generator


def k_center_greedy(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    centers: ArrayLike | torch.Tensor | None = None,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Take, again and again, the row farthest from its nearest centre.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to choose from, compared by Euclidean distance.
    n_select : int
        How many, from 0 to `n_rows`.
    centers : array or tensor of shape (n_centers, n_columns), default=None
        Rows covered already. Without them the first row taken is the one farthest
        from the mean.
    random_state : None, int, Generator or RandomState, default=None
        Breaks exact ties, and nothing else.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        In the order of the picks, distinct. Copies of a centre come last, in random
        order.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    The radius is at most twice the least possible for as many further centres [1]_.

    Distances to the nearest centre only shrink, so stale ones are upper bounds: picks
    are made among the rows with the largest as long as the best is not below the
    largest of the others, then one matrix product refreshes all rows. That product is
    rounded upwards; rows that may be the best are compared by sums of squared
    differences in double precision, so the picks are those of the plain algorithm in
    double precision. Where wide rows cluster, as embeddings do, the triangle inequality
    leaves out most of the product. Beyond the input (and its copy where it is neither
    float32 nor float64) it takes about 100 bytes a row and 20 MB at most for 512
    columns.

    References
    ----------
    .. [1] Gonzalez (1985). Clustering to minimize the maximum intercluster distance.
       Theoretical Computer Science 38.
    .. [2] Sener and Savarese (2018). Active learning for convolutional neural
       networks: a core-set approach. ICLR.

    Examples
    --------
    >>> from skal.selection import k_center_greedy
    >>> k_center_greedy([[0.0], [4.0], [5.0], [10.0]], 2, centers=[[0.0]]).tolist()
    [3, 2]
    """
    points, centers, n_select = check_points(points, centers, n_select)
    n_rows = len(points)
    rng = check_generator(random_state)
    with torch.no_grad():
        cover = Cover([points], "points", centers)
        if n_select == 0:
            return np.empty(0, dtype=np.int64)
        # Ties fall to the first row in a random order.
        order = torch.from_numpy(rng.permutation(n_rows)).to(points.device)
        if len(centers) == 0:
            cover.add([_farthest_from_mean(points, order)])
        while len(cover.picked) < n_select:
            cover.refresh()
            rows, ceiling = _candidates(cover, order)
            n_left = n_select - len(cover.picked)
            if cover.upper[rows].max() == 0:
                rest = order[cover.upper[order] == 0]
                cover.picked += rest[:n_left].tolist()
            else:
                cover.add(_walk(cover, rows, ceiling, n_left))
    return np.array(cover.picked, dtype=np.int64)


def _farthest_from_mean(points, order):
    parts = points.split(N_CANDIDATES)
    mean = sum(x.sum(0, dtype=torch.float64) for x in parts) / len(points)

    def squares(place):
        return (points[place].double() - mean).square().sum(1)

    distances = Scratch().gather(len(points), N_CANDIDATES, squares)
    farthest = torch.nonzero(distances[order] == distances.amax())
    return int(order[farthest[0, 0]])


def _candidates(cover, order):
    """Rows with the largest bounds, made exact, and a bound for all the others."""
    n_left = len(order) - len(cover.picked)
    while True:
        top = torch.topk(cover.upper[order], min(N_CANDIDATES + 1, n_left))
        rows = order[top.indices[:N_CANDIDATES].sort().values]
        ceiling = float(top.values[-1]) if n_left > N_CANDIDATES else -1.0
        cover.tighten(rows)
        best = cover.upper[rows].max()
        if best >= ceiling:
            return rows, ceiling
        cover.tighten(torch.nonzero(cover.upper > best).squeeze(1))


def _walk(cover, rows, ceiling, n_left):
    """Pick greedily among `rows` until another row may be farther."""
    x, picks = cover.take(rows), []
    lower, *_ = lower_bounds(x, x, cover.origin)
    x, lower, current = (t.cpu().numpy() for t in (*x, lower, cover.upper[rows]))
    while len(picks) < n_left:
        best = current.argmax()
        if current[best] < ceiling:
            break
        picks.append(best)
        near = np.flatnonzero(lower[best] < current)
        current[near] = np.minimum(current[near], differences([x[near]], [x[best]]))
        current[best] = -1
    return rows.cpu().numpy()[picks].tolist()
