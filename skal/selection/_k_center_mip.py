"""Robust k-center as a mixed-integer program, by bisection over the distances."""

import time
from bisect import bisect_left
from numbers import Integral, Real

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from skal.selection._base import check_matrix, check_n_select
from skal.selection._distances import nearest
from skal.selection._k_center_greedy import k_center_greedy


def k_center_mip(
    points,
    n_select,
    *,
    centers=None,
    n_outliers=0,
    weights=None,
    time_limit=30.0,
    return_bounds=False,
):
    """Take the rows that cover all others but `n_outliers` within the least radius.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to choose from and to cover, compared by Euclidean distance.
    n_select : int
        How many, from 0 to `n_rows`.
    centers : array or tensor of shape (n_centers, n_columns), default=None
        Further centres that cover already.
    n_outliers : int, default=0
        How many rows of `points` may stay outside the radius.
    weights : array of shape (n_rows,), default=None
        How many rows each row stands for, when outliers are counted; not negative.
        None is one each.
    time_limit : float, default=30.0
        Seconds from the call on. At 0 the rows are those of `k_center_greedy`; inf is
        no limit. A call may take a little longer, see Notes.
    return_bounds : bool, default=False
        Whether to return the bounds too.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        Distinct, each the farthest from those before and the centres.
    (lower, upper) : tuple of two floats
        Only with `return_bounds`: no choice has a radius below `lower`, this one has
        the radius `upper`; they are equal where it is proven best. The radius is inf
        where there is no centre at all.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    The radius is one of the distances. Whether one of them is enough is a covering
    problem with a binary variable per row [1]_ and a continuous one in [0, 1] per row
    that may be left out, without the paper's assignment variables; HiGHS solves it.
    Bisection over the sorted distinct distances finds the least one that is enough.
    It starts from the greedy radius and from a packing bound: of `n_select +
    n_outliers + 1` rows at least 2 r apart, r is needed for one. The paper starts from
    half the greedy radius, which is no bound where rows may be left out.

    Each covering problem is solved for a few far rows first; those that the answer
    leaves uncovered are added until it covers all, or there is none. Dominated rows
    and columns are dropped, and swaps improve each answer. Every set met on the way
    counts: the best one is returned, never worse than `k_center_greedy`.

    While nothing was cut off by the clock, equal calls give equal rows; once a
    problem was, they depend on the speed of the machine. Distances and greedy rows
    are made, and a running step of the solver is ended, whatever the limit. Memory:
    about 40 bytes for each pair of rows, 1 GB for 5,000.

    References
    ----------
    .. [1] Sener and Savarese (2018). Active learning for convolutional neural
       networks: a core-set approach. ICLR. Section 4.2 and appendix.
    .. [2] Chen and Chen (2009). New relaxation-based algorithms for the optimal
       solution of the continuous and discrete p-center problems. Computers &
       Operations Research 36.

    Examples
    --------
    >>> from skal.selection import k_center_mip
    >>> line = [[0.0], [1.0], [2.0], [3.0], [4.0], [100.0]]
    >>> k_center_mip(line, 1, centers=[[0.0]], return_bounds=True)
    (array([5]), (4.0, 4.0))
    >>> k_center_mip(line, 1, centers=[[0.0]], n_outliers=1, return_bounds=True)
    (array([3]), (1.0, 1.0))
    """
    start = time.monotonic()
    points = check_matrix(points, "points")
    n_rows = len(points)
    n_select = check_n_select(n_select, n_rows, "points")
    _check_limits(n_outliers, time_limit)
    weights = _check_weights(weights, n_rows)
    centers = points[:0] if centers is None else check_matrix(centers, "centers")
    # One more than centres and outliers together: of these one must be covered.
    n_apart = min(n_select + int(n_outliers) + 1, n_rows)
    greedy = k_center_greedy(points, n_apart, centers=centers, random_state=0)
    given, _ = _nearest(points, centers)
    with torch.no_grad():
        x = points.double()
        # Differences, not products: copies are at distance 0, ties stay ties.
        mode = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(x, x, compute_mode=mode).cpu().numpy()
    search = _Search(distances, given, weights, n_select, n_outliers)
    picks, bounds = search.run(greedy, start + time_limit)
    order = k_center_greedy(points[picks], n_select, centers=centers, random_state=0)
    return (picks[order], bounds) if return_bounds else picks[order]


def k_center_mip_subset(
    points, n_select, *, max_points, centers=None, n_outliers=0, time_limit=30.0
):
    """`k_center_mip` over `max_points` spread rows, weighted by those they stand for.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to choose from and to cover.
    n_select : int
        How many, from 0 to `n_rows`.
    max_points : int
        How many rows, taken by `k_center_greedy`, are candidates. Where it is not
        above `n_select` the greedy rows are the answer.
    centers : array or tensor of shape (n_centers, n_columns), default=None
        Further centres that cover already.
    n_outliers : int, default=0
        How many rows of `points` may stay outside the radius.
    time_limit : float, default=30.0
        Seconds for the program; see `k_center_mip`.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        As from `k_center_mip`, or the greedy rows where their radius is not larger.
    (lower, upper) : tuple of two floats
        Bounds on the least radius over *all* rows of `points`, `upper` that of this
        choice. The lower one is half the distance between greedy rows, or, without
        outliers, that of the subset less the distance of any row to the subset.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    References
    ----------
    .. [1] Sener and Savarese (2018). Active learning for convolutional neural
       networks: a core-set approach. ICLR. Section 4.2.

    Examples
    --------
    >>> from skal.selection import k_center_mip_subset
    >>> line = [[0.0], [1.0], [4.0], [5.0], [6.0], [10.0]]
    >>> k_center_mip_subset(line, 1, max_points=5, centers=[[0.0]])
    (array([4]), (3.0, 4.0))
    """
    start = time.monotonic()
    points = check_matrix(points, "points")
    n_rows = len(points)
    n_select = check_n_select(n_select, n_rows, "points")
    _check_limits(n_outliers, time_limit)
    integral = isinstance(max_points, Integral) and not isinstance(max_points, bool)
    if not integral or max_points < 1:
        raise ValueError(f"max_points must be an int of 1 or more, got {max_points!r}.")
    centers = points[:0] if centers is None else check_matrix(centers, "centers")
    n_apart = min(max(max_points, n_select + int(n_outliers) + 1), n_rows)
    greedy = k_center_greedy(points, n_apart, centers=centers, random_state=0)
    given, _ = _nearest(points, centers)

    def radius(picks):
        near, _ = _nearest(points, points[picks])
        return _radius(np.minimum(near, given), np.ones(n_rows), n_outliers)

    lower = 0.0
    if n_select + n_outliers < n_apart:
        *others, last = greedy[: n_select + n_outliers + 1]
        near, _ = _nearest(points[[last]], points[others])
        lower = _half(min(near[0], given[last]))
    picks = greedy[:n_select]
    best = radius(picks)
    if n_select < max_points:
        subset = greedy[:max_points]
        far, owner = _nearest(points, points[subset])
        others, (below, _) = k_center_mip(
            points[subset],
            n_select,
            centers=centers,
            n_outliers=n_outliers,
            weights=np.bincount(owner, minlength=len(subset)),
            time_limit=max(0.0, start + time_limit - time.monotonic()),
            return_bounds=True,
        )
        others = subset[others]
        if radius(others) < best:
            picks, best = others, radius(others)
        if n_outliers == 0:
            lower = max(lower, below - far.max(initial=0))
    return picks, (float(min(lower, best)), best)


def _nearest(points, centers):
    """Distance of each row to its nearest centre, inf without any, and which."""
    if len(centers) == 0:
        return np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)
    with torch.no_grad():
        squares, owners = nearest(points, centers)
    return np.sqrt(squares), owners


def _check_limits(n_outliers, time_limit):
    integral = isinstance(n_outliers, Integral) and not isinstance(n_outliers, bool)
    if not integral or n_outliers < 0:
        raise ValueError(
            f"n_outliers must be an int of 0 or more, got {n_outliers!r}; pass 0 to "
            "cover every row."
        )
    real = isinstance(time_limit, Real) and not isinstance(time_limit, bool)
    if not real or not time_limit >= 0:
        raise ValueError(
            f"time_limit must be a number of seconds, 0 or more, got {time_limit!r}; "
            "pass float('inf') for no limit."
        )


def _check_weights(weights, n_rows):
    if weights is None:
        return np.ones(n_rows)
    if isinstance(weights, torch.Tensor):
        weights = weights.detach().cpu().numpy()
    weights = np.asarray(weights)
    if (
        weights.shape != (n_rows,)
        or weights.dtype.kind not in "biuf"
        or not np.isfinite(weights).all()
        or (weights < 0).any()
    ):
        raise ValueError(
            f"weights must be {n_rows} finite numbers, one for each row of points, "
            f"none negative, got {weights!r}."
        )
    return weights.astype(np.float64)


def _half(distance):
    """Half a distance, less what rounding may have added."""
    return float(distance) / 2 * (1 - 1e-12)


def _radius(near, weights, n_outliers):
    """Least radius outside of which rows of weight `n_outliers` at most remain."""
    order = np.argsort(-near, kind="stable")
    beyond = np.cumsum(weights[order]) > n_outliers
    return float(near[order[beyond.argmax()]]) if beyond.any() else 0.0


class _Search:
    """Bisection over the radius, with the best rows met so far.

    Parameters
    ----------
    distances : array of shape (n_rows, n_rows)
    nearest : array of shape (n_rows,)
        Distance to the nearest given centre.
    weights : array of shape (n_rows,)
    n_select, n_outliers : int
    """

    def __init__(self, distances, nearest, weights, n_select, n_outliers):
        self.distances, self.nearest, self.weights = distances, nearest, weights
        self.n_select, self.n_outliers = n_select, n_outliers

    def run(self, greedy, deadline):
        """Return the best rows, and bounds on the least radius."""
        self.picks, self.upper = greedy[: self.n_select], np.inf
        self.offer(self.picks)
        if self.n_select == 0 or self.upper == 0:
            return self.picks, (self.upper, self.upper)
        # Rows that the programs must cover: only ever more, for any radius.
        self.rows = np.zeros(len(self.nearest), dtype=bool)
        self.rows[greedy] = True
        lower, upper = self.packing_bound(greedy), self.upper
        radii = np.unique(
            np.concatenate(
                [d[(d >= lower) & (d <= upper)] for d in (self.nearest, self.distances)]
            )
        )
        # radii[low] is too small, radii[high] is enough; up to `tried` nothing is known
        # but that the clock cut it off, so it is the turn of those above.
        low = tried = -1
        high = len(radii) - 1
        while high - low > 1 and (now := time.monotonic()) < deadline:
            tried = low if high - tried <= 1 else tried
            middle = (tried + high) // 2
            share = 1 if high - low == 2 else 0.5
            enough = self.covers(radii[middle], now + share * (deadline - now))
            high = int(np.searchsorted(radii, self.upper))
            if enough is False:
                low = max(low, min(self.same_until(radii, middle), high - 1))
            tried = max(low, middle if enough is None else tried)
            if enough is None and deadline == np.inf:
                break  # Not the clock, but the solver gave up.
        return self.picks, (float(radii[low + 1]), self.upper)

    def packing_bound(self, greedy):
        """Half the distance between greedy rows too many to be covered one by one."""

        def too_many(n):
            weights = np.sort(self.weights[greedy[:n]])
            return weights[: n - self.n_select].sum() > self.n_outliers

        counts = range(len(greedy) + 1)
        n = bisect_left(counts, True, lo=self.n_select + 1, key=too_many)
        if n > len(greedy):
            return 0.0
        last = greedy[n - 1]
        gaps = self.distances[last, greedy[: n - 1]]
        return _half(min(gaps.min(), self.nearest[last]))

    def same_until(self, radii, i):
        """Largest position whose program has the same rows and columns as that of i."""
        known = self.distances[self.rows].ravel(), self.nearest[self.rows]
        next_one = min(d[d > radii[i]].min(initial=np.inf) for d in known)
        return int(np.searchsorted(radii, next_one)) - 1

    def offer(self, picks):
        """Keep `picks` where their radius is less than that of the best so far."""
        near = self.distances[:, picks].min(1, initial=np.inf)
        radius = _radius(np.minimum(near, self.nearest), self.weights, self.n_outliers)
        if radius < self.upper:
            self.upper, self.picks = radius, picks.copy()

    def covers(self, radius, deadline):
        """Whether some rows cover the others within `radius`; None: out of time."""
        demand = (self.nearest > radius) & (self.weights > 0)
        cover = self.distances <= radius
        picks = self.picks
        while True:
            picks = self.improve(picks, cover, demand, deadline)
            if self.upper <= radius:
                return True
            rows = np.flatnonzero(self.rows & demand)
            columns, solved = self.program(cover[rows], self.weights[rows], deadline)
            if columns is None:
                return solved
            near = self.distances[:, columns].min(1, initial=np.inf)
            picks = self.fill(columns, np.minimum(near, self.nearest))
            self.offer(picks)
            if self.upper <= radius:
                return True
            near[self.rows | ~demand] = -1
            if near.max() <= radius:
                return None  # The solver's tolerance let too much weight out.
            for _ in range(self.n_select):
                row = near.argmax()
                if near[row] <= radius:
                    break
                self.rows[row] = True
                near = np.minimum(near, self.distances[row])

    def fill(self, picks, near):
        """Add the farthest rows to `picks`, up to `n_select`."""
        picks = list(picks)
        near[picks] = -1
        while len(picks) < self.n_select:
            picks.append(int(near.argmax()))
            near = np.minimum(near, self.distances[picks[-1]])
            near[picks[-1]] = -1
        return np.array(picks, dtype=np.int64)

    def improve(self, picks, cover, demand, deadline):
        """Swap single rows as long as more weight is covered."""
        picks = picks.copy()
        self.offer(picks)
        count = cover[:, picks].sum(1)
        swapped = True
        while swapped:
            swapped = False
            for i, old in enumerate(picks):
                if time.monotonic() >= deadline:
                    return picks
                free = np.flatnonzero(demand & (count == cover[:, old]))
                gain = self.weights[free] @ cover[free]
                new = gain.argmax()
                if gain[new] > gain[old]:
                    count += cover[:, new]
                    count -= cover[:, old]
                    picks[i], swapped = new, True
        self.offer(picks)
        return picks

    def program(self, cover, weights, deadline):
        """Cover the rows of `cover` by at most `n_select` of its columns.

        Returns
        -------
        columns : array of int or None
        solved : bool or None
            False where there is no answer, None where there was not the time.
        """
        if len(cover) == 0:
            return np.empty(0, dtype=np.int64), True
        cover, weights, columns = _reduce(cover, weights, self.n_outliers)
        left = deadline - time.monotonic()
        if left <= 0:
            return None, None
        n_columns = cover.shape[1]
        soft = np.flatnonzero(weights <= self.n_outliers)
        n_soft = len(soft)
        count = np.concatenate([np.ones(n_columns), np.zeros(n_soft)])
        lost = np.concatenate([np.zeros(n_columns), weights[soft]])
        ones = (np.ones(n_soft), (soft, np.arange(n_soft)))
        matrix = sparse.hstack(
            [
                sparse.csr_array(cover.astype(np.float64)),
                sparse.csr_array(ones, shape=(len(cover), n_soft)),
            ]
        )
        result = milp(
            # Any answer will do, hence the gap; the count as objective guides the
            # solver, which proves much faster than without that there is none.
            count,
            integrality=count,
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(matrix, 1, np.inf),
                LinearConstraint(
                    [count, lost], -np.inf, [self.n_select, self.n_outliers]
                ),
            ],
            options={"time_limit": left, "mip_rel_gap": 1e9},
        )
        if result.x is not None:
            return columns[result.x[:n_columns] > 0.5], True
        return None, (False if result.status == 2 else None)


def _reduce(cover, weights, n_outliers):
    """Drop columns inside another, and rows covered whenever another one is.

    Equal rows are merged. A row heavier than `n_outliers` must be covered.
    """
    columns = np.arange(cover.shape[1])
    shape = None
    while cover.shape != shape:
        shape = cover.shape
        first, _ = _distinct(cover)
        keep = first[~_inside(cover[:, first]).any(1)]
        cover, columns = cover[:, keep], columns[keep]
        first, owner = _distinct(cover.T)
        cover, weights = cover[first], np.bincount(owner, weights)
        must = weights > n_outliers
        keep = ~_inside(~cover.T)[:, must].any(1)
        cover, weights = cover[keep], weights[keep]
    return cover, weights, columns


def _distinct(matrix):
    """First position of each distinct column, and for each column which it is."""
    packed = np.ascontiguousarray(np.packbits(matrix, axis=0).T)
    _, first, owner = np.unique(
        packed.view(f"V{packed.shape[1]}").ravel(),
        return_index=True,
        return_inverse=True,
    )
    return first, owner


def _inside(matrix):
    """Whether column i is a proper subset of column j, at (i, j)."""
    columns = matrix.astype(np.float32)
    common = columns.T @ columns
    size = common.diagonal()
    return (common == size[:, None]) & (size > size[:, None])
