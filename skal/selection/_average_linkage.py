"""Average linkage of squared distances, exact, without the matrix of all pairs."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist, squareform

from skal.selection._base import check_matrix, check_norms
from skal.selection._distances import (
    N_ROWS,
    contenders,
    origin_of,
    rounding,
    step_for,
    working_dtype,
)
from skal.utils.scratch import Scratch

N_BYTES = 2**24  # of one block of distances
N_DENSE = 1024  # so many clusters always have a matrix of their distances


def average_linkage(
    points: ArrayLike | torch.Tensor, *, metric: str = "sqeuclidean"
) -> NDArray[np.float64]:
    """Merge, again and again, the two clusters with the least mean distance.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to cluster, one at least.
    metric : {"sqeuclidean"}, default="sqeuclidean"
        The squared Euclidean distance.

    Returns
    -------
    linkage : ndarray of float64, of shape (n_rows - 1, 4)
        As SciPy's: the two clusters merged, their distance, and the size of the new
        one, which is cluster `n_rows` plus the number of its line; in the order of
        the distances. The tree of ``average(pdist(points, "sqeuclidean"))``, up to the
        order among exactly equal distances.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    The mean squared distance between two clusters is the squared distance of their
    means plus the mean squared deviation of each from its own mean. The linkage is
    reducible: no merge brings clusters nearer to others [1]_. So all pairs that are
    each other's nearest are merged in one pass, and a nearest neighbour that is gone is
    only looked for again where it matters. Products in single precision bound the
    distances from below; those that may be the least are summed up from differences in
    double precision. Copies are merged first. Once the matrix of all pairs is as small
    as the input in single precision, chains of nearest neighbours do the rest.

    Time is O(n_rows^2 n_columns), most of it in matrix products, and memory beyond the
    input that of two copies of it in double precision at most, and 60 MB.

    References
    ----------
    .. [1] Muellner (2011). Modern hierarchical, agglomerative clustering algorithms.
       arXiv:1109.2378.

    Examples
    --------
    >>> from skal.selection import average_linkage
    >>> average_linkage([[0.0], [1.0], [4.0]])
    array([[ 0. ,  1. ,  1. ,  2. ],
           [ 2. ,  3. , 12.5,  3. ]])
    """
    points = check_matrix(points, "points")
    if metric != "sqeuclidean":
        raise ValueError(f"metric must be 'sqeuclidean', got {metric!r}.")
    if len(points) == 0:
        raise ValueError("points must have at least one row, got none.")
    with torch.no_grad():
        first, copy_of = _copies(points)
        clusters = _Clusters(points, first, np.bincount(copy_of)[first])
        copies = np.flatnonzero(copy_of != np.arange(len(points)))
        pairs = [np.stack([copy_of[copies], copies], 1)]
        heights = [np.zeros(len(copies))]
        n_dense = max(N_DENSE, math.isqrt(points.numel() // 2))
        while clusters.n_alive > n_dense:
            clusters.look()
            a, b = clusters.reciprocal_pairs()
            pairs.append(torch.stack([clusters.row[a], clusters.row[b]], 1).cpu())
            heights.append(clusters.height[a].cpu())
            clusters.merge(a, b)
        row, size, distance = clusters.finish()
    few, high = _chain(distance, size)
    return _linkage(
        np.concatenate([*pairs, row[few]]), np.concatenate([*heights, high])
    )


def _copies(points):
    """Give the first of equal rows: all such rows, and for each row its own."""
    rows = points.cpu().contiguous().numpy() + 0.0  # -0.0 equals 0.0
    if rows.shape[1] == 0:
        return np.zeros(1, np.int64), np.zeros(len(rows), np.int64)
    # np.unique would make four copies.
    as_bytes = rows.view(np.dtype((np.void, rows.strides[0]))).ravel()
    order = np.argsort(as_bytes, kind="stable")
    new = np.ones(len(rows), dtype=bool)
    for k in range(0, len(rows), N_ROWS):
        part = rows[order[k : k + N_ROWS + 1]]
        new[k + 1 : k + N_ROWS + 1] = (part[1:] != part[:-1]).any(1)
    copy_of = np.empty_like(order)
    copy_of[order] = order[new][np.cumsum(new) - 1]
    return np.sort(order[new]), copy_of


class _Clusters:
    """Means and sizes of the clusters, and the nearest other one where it is known.

    A mean is the sum of `parts`: of one in double precision, or of two in single
    precision, of which the first alone serves for products.
    """

    def __init__(self, points, first, sizes):
        self.dtype = working_dtype(points)
        n_parts = 1 if self.dtype == torch.float64 else 2
        empty, shape = points.new_empty, (len(first), points.shape[1])
        self.parts = [empty(shape, dtype=self.dtype) for _ in range(n_parts)]
        self._step = step_for(shape[1])
        self.row = torch.from_numpy(first).to(points.device)
        self.size = torch.from_numpy(sizes).to(points.device, torch.float64)
        self.spread = torch.zeros_like(self.size)
        self.norm = torch.empty_like(self.size)
        origin = origin_of(points).double()
        slots = torch.arange(len(first), device=points.device)
        for part in slots.split(self._step):
            self._set_means(part, points[self.row[part]] - origin)
        check_norms(self.norm.to(self.dtype), "points")
        self.nearest = torch.zeros_like(self.row)
        self.height = torch.zeros_like(self.size)
        self.known = torch.zeros_like(self.row, dtype=torch.bool)
        self.wanted, self.alive = ~self.known, ~self.known
        self.n_alive = len(first)

    def look(self):
        """Find the nearest clusters of those that are new or the nearest of others."""
        while bool(self.wanted.any()):
            slots = torch.nonzero(self.wanted).squeeze(1)
            self._find(slots, self.dtype)
            self.known[slots] = True
            self._want()

    def reciprocal_pairs(self):
        """Slots of the pairs that are each other's nearest."""
        slots = torch.nonzero(self.known).squeeze(1)
        other = self.nearest[slots]
        found = (self.nearest[other] == slots) & (slots < other)
        if not bool(found.any()):  # rounding made a ring of equal distances
            found[self.height[slots].argmin()] = True
        return slots[found], other[found]

    def merge(self, a, b):
        """Merge pairs of slots, into the first of each."""
        share = self.size[b] / (self.size[a] + self.size[b])
        start = self._means(a)
        gap = self._means(b) - start
        self.size[a] += self.size[b]
        self.spread[a] += share * (self.spread[b] - self.spread[a])
        self.spread[a] += share * (1 - share) * gap.square().sum(1)
        self._set_means(a, start + share[:, None] * gap)
        self.norm[b] = torch.inf
        self.alive[b] = False
        self.n_alive -= len(a)
        gone = torch.zeros_like(self.alive)
        gone[a] = gone[b] = True
        self.known &= ~(gone | gone[self.nearest])
        self.wanted[a] = True
        self._want()
        if 4 * self.n_alive < 3 * len(self.alive):
            self._compact()

    def finish(self):
        """Give rows, sizes and the matrix of distances, and the memory back."""
        keep = torch.nonzero(self.alive).squeeze(1)
        means, spread = self._means(keep), self.spread[keep]
        self.parts = None
        distance = squareform(pdist(means.cpu().numpy(), "sqeuclidean"), checks=False)
        spread = spread.cpu().numpy()
        distance += spread
        distance += spread[:, None]
        return self.row[keep].cpu().numpy(), self.size[keep].cpu().numpy(), distance

    def _want(self):
        self.wanted[self.nearest[self.known]] = True
        self.wanted &= ~self.known

    def _compact(self):
        """Drop the slots of clusters that are part of others."""
        keep = torch.nonzero(self.alive).squeeze(1)
        self.nearest = (torch.cumsum(self.alive, 0) - 1)[self.nearest]
        for i, part in enumerate(self.parts):
            for k in range(0, len(keep), self._step):  # in place: rows only move up
                part[k : k + self._step][: len(keep) - k] = part[
                    keep[k : k + self._step]
                ]
            self.parts[i] = part[: len(keep)]
        for name in "row size spread norm nearest height known wanted alive".split():
            setattr(self, name, getattr(self, name)[keep])

    def _means(self, slots):
        return sum(part[slots].double() for part in self.parts)

    def _set_means(self, slots, means):
        self.norm[slots] = means.square().sum(1) + self.spread[slots]
        for part in self.parts:
            part[slots] = means.to(part.dtype)
            means = means - part[slots]

    def _find(self, slots, dtype):
        """Find the nearest of each of `slots`; of equals that of least ``row ^ row``.

        That order is symmetric, so equals are no one's nearest in a ring, and many
        pairs of them merge at once.
        """
        step = max(1, N_BYTES // (dtype.itemsize * len(self.alive)))
        if len(slots) > step:
            for part in slots.split(step):
                self._find(part, dtype)
            return
        which, other = contenders(*self._lower_bounds(slots, dtype))
        if dtype != torch.float64 and len(which) > 5 * len(slots) + 64:
            self._find(slots, torch.float64)
            return
        distance = self._distances(slots[which], other)
        best = distance.new_full(slots.shape, torch.inf)
        best.scatter_reduce_(0, which, distance, "amin")
        equal = distance == best[which]
        which, other = which[equal], other[equal]
        key = self.row[slots[which]] ^ self.row[other]
        least = torch.full_like(slots, torch.iinfo(torch.int64).max)
        least.scatter_reduce_(0, which, key, "amin")
        first = key == least[which]
        self.nearest[slots[which[first]]] = other[first]
        self.height[slots] = best

    def _lower_bounds(self, slots, dtype):
        """Bounds as from `lower_bounds`; infinite to itself."""
        slack, floor = rounding(self.parts[:1], dtype)
        norm = self.norm.to(dtype)
        columns = norm * (1 - slack) - floor
        left = (-2 * self._means(slots)).to(dtype)
        lower = left.new_empty(len(slots), len(norm))
        for k in range(0, len(norm), self._step):
            chunk = slice(k, k + self._step)
            same = dtype == self.dtype
            means = self.parts[0][chunk] if same else self._means(chunk).to(dtype)
            torch.addmm(columns[chunk], left, means.T, out=lower[:, chunk])
        lower += columns[slots, None]
        lower[torch.arange(len(slots), device=slots.device), slots] = torch.inf
        width = 2 * (slack * norm + floor)
        return lower, width[slots], width

    def _distances(self, slots, others):
        """Distances of pairs of clusters, from differences."""

        def squares(place):
            gap = self._means(others[place]) - self._means(slots[place])
            return gap.square_().sum(1)

        found = Scratch().gather(len(slots), self._step, squares)
        return found + (self.spread[slots] + self.spread[others])


def _chain(distance, size):
    """Merge all clusters along chains of nearest neighbours; spoils `distance`."""
    np.fill_diagonal(distance, np.inf)
    size, chain, start = size.tolist(), [], 0
    pairs = np.empty((len(size) - 1, 2), dtype=np.int64)
    heights = np.empty(len(pairs))
    for i in range(len(pairs)):
        if not chain:
            while size[start] == 0:
                start += 1
            chain = [start]
        while True:
            row = distance[chain[-1]]
            nearest = int(row.argmin())
            if len(chain) > 1 and row[chain[-2]] == row[nearest]:
                break
            chain.append(nearest)
        a, b = chain.pop(), chain.pop()
        pairs[i], heights[i] = (a, b), distance[a, b]
        share = size[b] / (size[a] + size[b])
        merged = (1 - share) * distance[a] + share * distance[b]
        # Rounding must not bring it nearer to others than both were.
        np.maximum(merged, np.minimum(distance[a], distance[b]), out=merged)
        merged[[a, b]] = np.inf
        distance[a] = distance[:, a] = merged
        distance[b] = distance[:, b] = np.inf
        size[a], size[b] = size[a] + size[b], 0
    return pairs, heights


def _linkage(pairs, heights):
    """Make the linkage matrix of merges that are given by a row of each cluster."""
    order = np.argsort(heights, kind="stable")
    n_rows = len(order) + 1
    parent, size = list(range(2 * n_rows - 1)), [1] * (2 * n_rows - 1)
    linkage = np.empty((n_rows - 1, 4))
    linkage[:, 2] = heights[order]
    for i, pair in enumerate(pairs[order].tolist()):
        roots = []
        for node in pair:
            while parent[node] != node:
                parent[node] = node = parent[parent[node]]
            roots.append(node)
        new = n_rows + i
        parent[roots[0]] = parent[roots[1]] = new
        size[new] = size[roots[0]] + size[roots[1]]
        linkage[i, [0, 1, 3]] = min(roots), max(roots), size[new]
    return linkage
