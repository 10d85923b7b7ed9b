"""Robust k-center as a mixed-integer program, by bisection over the distances."""

import time
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from skal.selection._base import check_matrix, check_n_select
from skal.selection._distances import nearest
from skal.selection._k_center_greedy import k_center_greedy


def k_center_mip(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    centers: ArrayLike | torch.Tensor | None = None,
    n_outliers: int = 0,
    weights: ArrayLike | None = None,
    time_limit: float = 30.0,
    return_bounds: bool = False,
) -> Any:
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
    leaves uncovered are added until it covers all, or there is none. Swaps improve each
    answer. Every set met on the way counts: the best one is returned, never worse than
    `k_center_greedy`.

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
    search = _Search(distances, given, weights, n_select, n_outliers, greedy)
    picks, bounds = search.run(start + time_limit)
    order = k_center_greedy(points[picks], n_select, centers=centers, random_state=0)
    return (picks[order], bounds) if return_bounds else picks[order]


def k_center_mip_subset(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    max_points: int,
    centers: ArrayLike | torch.Tensor | None = None,
    n_outliers: int = 0,
    time_limit: float = 30.0,
) -> tuple[NDArray[np.int64], tuple[float, float]]:
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
    >>> rows, bounds = k_center_mip_subset(line, 1, max_points=5, centers=[[0.0]])
    >>> rows, [round(bound, 6) for bound in bounds]
    (array([4]), [3.0, 4.0])
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
            reach = far.max(initial=0)
            lower = max(lower, below - reach - 1e-12 * (below + reach))
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
    given : array of shape (n_rows,)
        Distance to the nearest given centre.
    weights : array of shape (n_rows,)
    n_select, n_outliers : int
    greedy : array of int
        Rows spread far, `n_select` at least: the first answer, and the rows that
        programs must cover first.
    """

    def __init__(self, distances, given, weights, n_select, n_outliers, greedy):
        self.distances, self.given, self.weights = distances, given, weights
        self.n_select, self.n_outliers, self.greedy = n_select, n_outliers, greedy
        self.rows = np.zeros(len(given), dtype=bool)
        self.rows[greedy] = True
        self.upper = np.inf
        self.picks = self.offer(greedy[:n_select])

    def run(self, deadline):
        """Return the best rows, and bounds on the least radius."""
        if self.n_select == 0 or self.upper == 0:
            return self.picks, (self.upper, self.upper)
        radii = np.append(self.distances.ravel(), self.given)
        radii = radii[(radii >= self.packing_bound()) & (radii <= self.upper)]
        radii = np.unique(radii)
        # radii[proven] is too small, radii[high] is enough; up to `low` nothing is
        # known but that the clock cut it off, so it is the turn of those above.
        proven = low = -1
        high = len(radii) - 1
        while high - proven > 1 and (now := time.monotonic()) < deadline:
            if high - low <= 1:
                low = proven
            middle = (low + high) // 2
            share = 1 if high - proven == 2 else 0.5
            enough = self.covers(radii[middle], now + share * (deadline - now))
            high = int(np.searchsorted(radii, self.upper))
            low = low if enough else middle
            proven = middle if enough is False else proven
            if enough is None and deadline == np.inf:
                break  # Not the clock, but the solver gave up.
        return self.picks, (float(radii[min(proven + 1, high)]), self.upper)

    def packing_bound(self):
        """Half the distance between greedy rows too many to be covered one by one."""
        for n in range(self.n_select + 1, len(self.greedy) + 1):
            *others, last = self.greedy[:n]
            left_out = np.sort(self.weights[self.greedy[:n]])[: n - self.n_select]
            if left_out.sum() > self.n_outliers:
                return _half(min(self.distances[last, others].min(), self.given[last]))
        return 0.0

    def offer(self, picks):
        """Keep `picks` where their radius is less than that of the best so far."""
        near = self.distances[:, picks].min(1, initial=np.inf)
        radius = _radius(np.minimum(near, self.given), self.weights, self.n_outliers)
        if radius < self.upper or self.upper == np.inf:
            self.upper, self.picks = radius, picks
        return self.picks

    def covers(self, radius, deadline):
        """Whether some rows cover the others within `radius`; None: out of time."""
        demand = (self.given > radius) & (self.weights > 0)
        cover, picks = self.distances <= radius, self.picks
        while True:
            picks = self.improve(picks, cover, demand, deadline)
            if self.upper <= radius:
                return True
            rows = np.flatnonzero(self.rows & demand)
            picks, solved = self.program(cover[rows], rows, deadline)
            if picks is None:
                return solved
            rest = self.greedy[~np.isin(self.greedy, picks)]
            picks = np.append(picks, rest[: self.n_select - len(picks)])
            self.offer(picks)
            if self.upper <= radius:
                return True
            near = self.distances[:, picks].min(1)
            near[self.rows | ~demand] = -1
            if near.max() <= radius:
                return None  # The solver's tolerance let too much weight out.
            for _ in range(self.n_select):
                row = near.argmax()
                if near[row] > radius:
                    self.rows[row] = True
                    near = np.minimum(near, self.distances[row])

    def improve(self, picks, cover, demand, deadline):
        """Swap single rows as long as more weight is covered."""
        picks, swapped = picks.copy(), True
        count = cover[:, picks].sum(1)
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

    def program(self, cover, rows, deadline):
        """Cover `rows` by at most `n_select` of the columns of `cover`.

        Returns
        -------
        columns : array of int or None
        solved : bool or None
            False where there is no answer, None where there was not the time.
        """
        if len(rows) == 0:
            return np.empty(0, dtype=np.int64), True
        left = deadline - time.monotonic()
        if left <= 0:
            return None, None
        n_columns, weights = cover.shape[1], self.weights[rows]
        soft = np.flatnonzero(weights <= self.n_outliers)
        count = np.append(np.ones(n_columns), np.zeros(len(soft)))
        lost = np.append(np.zeros(n_columns), weights[soft])
        left_out = sparse.identity(len(rows), format="csc")[:, soft]
        matrix = sparse.csr_array(cover.astype(np.float64))
        matrix = sparse.hstack([matrix, left_out], format="csr")
        limits = [self.n_select, self.n_outliers]
        result = milp(
            # Any answer will do, hence the gap; the count as objective guides the
            # solver, which proves much faster than without that there is none.
            count,
            integrality=count,
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(matrix, 1, np.inf),
                LinearConstraint([count, lost], -np.inf, limits),
            ],
            options={"time_limit": left, "mip_rel_gap": 1e9},
        )
        if result.x is not None:
            return np.flatnonzero(result.x[:n_columns] > 0.5), True
        return None, (False if result.status == 2 else None)
