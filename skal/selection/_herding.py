"""Greedy maximisation of kernel coverage (herding), lazy, by blocks of candidates."""

import math
from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_count, check_matrix, check_norms, check_points
from skal.selection._distances import (
    N_CANDIDATES,
    N_NUMBERS,
    N_ROWS,
    closest,
    differences,
    lower_bounds,
    nearest,
    origin_of,
    working_dtype,
)
from skal.selection._kmeans_plusplus import kmeans_plusplus
from skal.utils.scratch import Scratch
from skal.utils.seeds import SeedLike, check_generator

TIE = 1e-9  # The first of rows whose gains differ by no more of themselves is taken.
FAR = 40  # Of squared distances by the squared width; kernels beyond it are nothing.
N_KEPT = 2**24  # Kernels of so many pairs of rows are computed once and kept.


def herding(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    centers: ArrayLike | torch.Tensor | None = None,
    weights: ArrayLike | torch.Tensor | None = None,
    width: float | str = "median",
    max_references: int = 20_000,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Take, again and again, the row that adds most to the coverage of all rows.

    A row x is covered by the nearest centre or pick s as much as the Gaussian kernel
    ``exp(-(|x - s| / width)^2)`` says; coverage is the weighted sum over the rows.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to choose from and to cover.
    n_select : int
        How many, from 0 to `n_rows`.
    centers : array or tensor of shape (n_centers, n_columns), default=None
        Rows that cover already.
    weights : array or tensor of shape (n_rows,), default=None
        What it is worth to cover each row, not negative; default 1 each.
    width : float, "median" or "smallest", default="median"
        Of the kernel. "median" is the median distance of the rows to the nearest
        centre; without centres to the nearest of `n_select` draws of k-means++. Copies
        of a centre or draw do not count. "smallest" is the smallest distance of two
        distinct centres, as in [2]_.
    max_references : int, default=20_000
        Up to so many rows with a weight coverage is exact. Of more it is estimated on
        that many drawn at random; all rows may still be chosen. On 10,000 rows, 5,000
        references cost 0.5 % of the coverage by 100 picks, 2,500 cost 2 %, 1,000 7 %.
    random_state : None, int, Generator or RandomState, default=None
        Draws the rows of k-means++ and the references, and nothing else.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        In the order of the picks, distinct. Of copies that may be picked the first
        is; other ties (within 1e-9) fall always the same way. Rows that add nothing,
        such as copies of a centre, come last, by weight and then in ascending order.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    Coverage is monotone and submodular, so the greedy picks reach at least 1 - 1/e of
    the most that is possible [1]_. What a row adds only shrinks, so stale gains are
    upper bounds: blocks of rows are evaluated by matrix product as long as their bounds
    exceed the best. Products carry bounds on their rounding; rows that may be the best
    are compared by sums of squared differences in double precision, so the picks are
    those of the plain algorithm in double precision. That is slow where groups lie
    apart by a million widths and more, or where most rows are such ties. Memory beyond
    the input grows with the number of rows alone: 16 MB at 20,000 x 64. Of up to 4,096
    rows all products are kept, in 64 MB at most.

    References
    ----------
    .. [1] Bae, Noh and Sutherland (2024). Generalized coverage for more robust
       low-budget active learning. ECCV.
    .. [2] Bae, Oh and Sutherland (2025). Uncertainty herding: one active learning
       method for all label budgets. ICLR.

    Examples
    --------
    >>> from skal.selection import herding
    >>> herding([[0.0], [4.0], [5.0], [6.0], [9.0]], 2, width=2.0).tolist()
    [2, 0]
    """
    points, centers, n_select = check_points(points, centers, n_select)
    weights = _check_weights(weights, points)
    _check_width(width)
    check_count(max_references, "max_references")
    rng = check_generator(random_state)
    with torch.no_grad():
        for name, rows in (("points", points), ("centers", centers)):
            for part in rows.split(N_ROWS):
                check_norms(part.double().square().sum(1), name)
        if n_select == 0:
            return np.empty(0, dtype=np.int64)
        distances = None
        if len(centers):
            distances = nearest(points, centers, dtype=working_dtype(points))[0]
        if isinstance(width, str):
            width = _width(points, n_select, centers, width, distances, rng)
        references = torch.nonzero(weights).squeeze(1)
        if len(references) == 0:
            return np.arange(n_select)
        if len(references) > max_references:
            drawn = rng.choice(len(references), max_references, replace=False)
            references = references[torch.from_numpy(np.sort(drawn)).to(points.device)]
        coverage = _Coverage(points, references, weights, float(width), distances)
        return np.array(_greedy(coverage, n_select, weights), dtype=np.int64)


def _check_weights(weights, points):
    if weights is None:
        return points.new_ones(len(points), dtype=torch.float64)
    weights = check_matrix(weights, "weights", 1).to(points.device).double()
    if len(weights) != len(points):
        raise ValueError(
            f"weights must have {len(points)} entries, one for each row of points, "
            f"got {len(weights)}."
        )
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError("weights must be finite and not negative.")
    largest = weights.max() if len(weights) else 0
    return weights / largest if largest > 0 else weights


def _check_width(width):
    if isinstance(width, str) and width in ("median", "smallest"):
        return
    valid = isinstance(width, Real) and not isinstance(width, bool)
    if not valid or not 1e-150 < width < 1e150:
        raise ValueError(
            f"width must be a positive number, 'median' or 'smallest', got {width!r}."
        )


def _width(points, n_select, centers, kind, distances, rng):
    """Width of the kernel by a rule; 1 where all distances are 0."""
    if kind == "smallest":
        distinct = torch.unique(centers.double(), dim=0)
        if len(distinct) < 2:
            raise ValueError(
                "width='smallest' needs two distinct centers, of a strategy the "
                f"labelled rows, and has {len(distinct)}; pass more, or width='median' "
                "or a number."
            )
        origin = origin_of(distinct)
        parts = [
            closest([x], [distinct], origin, 2)[0][:, 1]
            for x in distinct.split(N_CANDIDATES)
        ]
        return math.sqrt(max(float(torch.cat(parts).min()), 1e-299))
    if distances is None:
        draws = kmeans_plusplus(points, n_select, random_state=rng)
        draws = points[torch.from_numpy(draws).to(points.device)]
        distances, _ = nearest(points, draws, dtype=working_dtype(points))
    distances = distances[distances > 1e-299]
    return math.sqrt(np.median(distances)) if len(distances) else 1.0


class _Coverage:
    """What rows add to the coverage: bounds by products, and exact on demand."""

    def __init__(self, points, references, weights, width, distances):
        self.points, self._references = points, references
        self._weights, self._square = weights[references], width * width
        self._origin = origin_of(points)
        # float32 cannot hold all quotients by extreme squares.
        usual = 1e-30 < self._square < 1e30
        self.dtype = working_dtype(points) if usual else torch.float64
        self._covered = torch.zeros_like(self._weights)
        self._kept = None
        if distances is not None:
            distances = torch.from_numpy(distances).to(points.device)
            self._covered = torch.exp(-distances[references] / self._square)
        self.settle()

    def bounds(self, rows, dtype):
        """Bound from below and above what each of a tensor of rows adds."""
        self.work += len(rows) * len(self._references)
        gain, own = self._of_itself(rows)
        doubt = 4 * torch.finfo(torch.float64).eps * gain
        for start in range(0, len(self._references), N_ROWS):
            part = slice(start, min(start + N_ROWS, len(self._references)))
            its_gain, its_doubt = self._sums(
                part, rows, self._covered, None, own, dtype
            )
            gain += its_gain
            doubt += its_doubt
        return gain - doubt, gain + doubt

    def losses(self, rows):
        """Bound from below what rows add less than at the last `settle`."""
        changed = torch.nonzero(self._covered > self._settled).squeeze(1)
        loss = torch.zeros(len(rows), dtype=torch.float64, device=changed.device)
        for part in changed.split(N_ROWS):
            covers = self._settled, self._covered
            its_loss, its_doubt = self._sums(part, rows, *covers, None, self.dtype)
            loss += its_loss - its_doubt
        return loss.clamp_(min=0)

    def settle(self):
        """Count work, and losses, from now on."""
        self.work, self._settled = 0, self._covered.clone()

    def n_changed(self):
        return int((self._covered > self._settled).sum())

    def _sums(self, part, rows, below, above, own, dtype):
        """Sum up how far the kernel with rows lies between two covers of references.

        `part` is which of them, a slice where there is `own`. Returns the weighted
        sums, from which a row's kernel with itself is left out where `own` says its
        place, and what they are too large by, at most. Where the kernel does not reach
        the lower cover there is no doubt that they add nothing.
        """
        error, weights = torch.finfo(dtype), self._weights[part]
        kernel, row_width, column_width = self._kernel(part, rows, dtype)
        if own is not None:
            here = (own >= part.start) & (own < part.stop)
            here = torch.nonzero(here).squeeze(1)
            kernel[own[here] - part.start, here] = 0
        low = (below[part] * (1 - error.eps)).to(dtype)
        kernel.sub_(low[:, None]).clamp_(min=0)
        sides = torch.stack([weights, weights * row_width]).to(dtype)
        total = (sides @ kernel).double()
        gain = between = total[0]
        if above is not None:
            height = above[part].to(dtype) - low
            kernel = torch.minimum(kernel, height[:, None], out=kernel)
            between = (sides[0] @ kernel).double()
        total = total + ((sides * low) @ kernel.sign_()).double()  # of what is reached
        doubt = total[1] + total[0] * (column_width + 3 * _error(dtype))
        doubt += 2 * N_ROWS**0.5 * error.eps * gain  # of the sum over a chunk
        return between, doubt + len(weights) * _least(dtype)

    def _kernel(self, part, rows, dtype):
        """Bound the kernel of references with rows from above; what it is too large by.

        The bounds are a new tensor; the other two, for each of the references and for
        each of the rows, are by what factor above 1 the kernel is too large at most.
        """
        n_pairs = len(self.points) ** 2
        if dtype != self.dtype or n_pairs * dtype.itemsize > 4 * N_KEPT:
            return self._products(part, rows, dtype)
        if self._kept is None or self._kept[0].dtype != dtype:
            self._keep(dtype)
        kernel, row_width, column_width = self._kept
        if isinstance(part, slice):  # much faster
            kernel = kernel[:, part].index_select(0, rows)
        else:
            kernel = kernel[rows[:, None], part]
        return kernel.T, row_width[part], column_width[rows]

    def _keep(self, dtype):
        points, n_rows = self.points, len(self.points)
        kernel = points.new_empty((n_rows, len(self._references)), dtype=dtype)
        column_width = points.new_empty(n_rows, dtype=torch.float64)
        for rows in torch.arange(n_rows, device=points.device).split(N_CANDIDATES):
            its_kernel, row_width, column_width[rows] = self._products(
                slice(None), rows, dtype
            )
            kernel[rows] = its_kernel.T
        self._kept = kernel, row_width, column_width

    def _products(self, part, rows, dtype):
        x, c = self.points[self._references[part]], self.points[rows]
        kernel, *widths = lower_bounds([x], [c], self._origin, dtype=dtype)
        kernel.clamp_(min=0).mul_(-1 / self._square).exp_().mul_(1 + _error(dtype))
        return kernel, *((x.double() / self._square).clamp(max=1) for x in widths)

    def _of_itself(self, rows):
        """Look up what rows add to their own coverage, and their place or -1."""
        own = torch.searchsorted(self._references, rows)
        own.clamp_(max=len(self._references) - 1)
        found = self._references[own] == rows
        gain = self._weights[own] * (1 - self._covered[own]) * found
        return gain, torch.where(found, own, -1)

    def exact(self, row):
        """Sum up what a row adds, 0 if within rounding; also its kernel column."""
        c = self.points[row].double()

        def squares(place):
            x = self.points[self._references[place]]
            return differences([x.double()], [c])

        step = max(1, N_NUMBERS // max(1, len(c)))
        kernel = Scratch().gather(len(self._references), step, squares)
        kernel.div_(-self._square).exp_()
        gain = self._weights @ (kernel - self._covered).clamp_(min=0)
        noise = 16 * torch.finfo(torch.float64).eps * (self._weights @ kernel)
        return float(gain) if gain > noise else 0.0, kernel

    def add(self, kernel):
        """Make a row a centre, given its kernel with the references."""
        torch.maximum(self._covered, kernel, out=self._covered)


def _error(dtype):
    """Relative error of kernels that are not `FAR` away: of the quotient and of exp."""
    return torch.finfo(dtype).eps * (2 * FAR + 16)


def _least(dtype):
    """Error of any kernel that is `FAR` away."""
    error = torch.finfo(dtype)
    return error.tiny - 2 * error.eps * math.log(error.tiny) * math.exp(-FAR)


def _greedy(coverage, n_select, weights):
    n_rows = len(coverage.points)
    upper = torch.full((n_rows,), torch.inf, dtype=torch.float64)
    picked, settled = [], None
    while len(picked) < n_select:
        rows = _contenders(coverage, upper)
        gain, row, kernel = _best(coverage, rows)
        rest = torch.nonzero(upper > -torch.inf).squeeze(1)
        if gain == 0:  # So it is for all others, from now on.
            order = weights.cpu()[rest].argsort(descending=True, stable=True)
            return picked + rest[order][: n_select - len(picked)].tolist()
        if settled is None:
            settled = upper.clone()
            coverage.settle()
        coverage.add(kernel)
        picked.append(row)
        upper[row] = -torch.inf
        # Stale bounds cost about as much by now as lowering all of them does.
        if coverage.work > coverage.n_changed() * len(rest):
            _lower(coverage, upper, settled, rest)
            settled = upper.clone()
            coverage.settle()
    return picked


def _lower(coverage, upper, settled, rows):
    """Lower the bounds of rows by what they lost since they were `settled`."""
    for block in rows.split(2 * N_CANDIDATES):
        losses = coverage.losses(block.to(coverage.points.device)).cpu()
        upper[block] = torch.minimum(upper[block], settled[block] - losses)


def _contenders(coverage, upper):
    """Find the rows that may add most, in ascending order; lowers `upper`."""
    rows = torch.nonzero(upper > -torch.inf).squeeze(1)
    for dtype in dict.fromkeys([coverage.dtype, torch.float64]):
        n_before = len(rows)
        rows, low = _refreshed(coverage, upper, rows, dtype)
        if len(rows) == 1:
            return rows
        if dtype != torch.float64 and len(rows) > 2 * N_CANDIDATES + n_before // 16:
            coverage.dtype = torch.float64  # Others cannot tell these rows apart.
    return rows[:1] if low.min() * (1 + TIE) >= upper[rows].max() else rows


def _refreshed(coverage, upper, rows, dtype):
    """Tighten the largest bounds of `rows`; which may add most, and lower bounds."""
    low = torch.full_like(upper, -torch.inf)
    stale = low.clone()
    stale[rows] = upper[rows]
    best, n = -torch.inf, N_CANDIDATES // 8
    while True:
        top = stale.topk(min(n, len(stale)))
        block = top.indices[top.values > best]
        if len(block) == 0:
            break
        bounds = coverage.bounds(block.to(coverage.points.device), dtype)
        low[block], high = (x.cpu() for x in bounds)
        upper[block] = torch.minimum(upper[block], high)
        stale[block] = -torch.inf
        best = max(best, float(low[block].max()))
        n = min(4 * n, 2 * N_CANDIDATES)
    rows = torch.nonzero((upper >= best) & (low > -torch.inf)).squeeze(1)
    return rows, low[rows]


def _best(coverage, rows):
    """Gain, position and kernel of the row that adds most, of equals the first."""
    best = -1.0, -1, None
    for part in rows.split(N_CANDIDATES):
        if len(part) > 1:  # Copies need no look of their own.
            x = coverage.points[part.to(coverage.points.device)]
            _, same = torch.unique(x, dim=0, return_inverse=True)
            part = part[np.unique(same.cpu().numpy(), return_index=True)[1]]
            part = part.sort().values
        for row in part.tolist():
            gain, kernel = coverage.exact(row)
            if gain > best[0]:
                best = gain, row, kernel
    return best
