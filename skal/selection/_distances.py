"""Squared Euclidean distances, exact: products bound them, differences decide.

The product form ``|x|^2 + |c|^2 - 2 x.c`` is fast, but it is rounded like the norms,
not like the distance: far from the origin it cannot tell what is near. So here it only
rules out what is certainly farther; what is left is summed up from differences in
double precision.

Rows come as a list of one or two factors: the points, or two matrices whose row-wise
outer product is the point. It is never formed.
"""

import torch

from skal.selection._base import check_norms
from skal.selection._tiles import MOST_LEFT, N_ROWS_OF_TILE, tiles
from skal.utils.scratch import Scratch

# One product of this many rows and columns stays in a processor's cache.
N_ROWS, N_COLUMNS = 1024, 512
N_CANDIDATES = 256
N_NUMBERS = 2**16  # in one block of differences
N_PAIRS = 2**20  # in one block of bounds
# What tiles need to be worth their while: columns of a row, centres known and fresh.
N_WIDE, N_KNOWN = 256, 32


def working_dtype(tensor):
    """Return float64 for few numbers or where float32 products are cut short.

    TF32, bfloat16 matmul modes and autocast would break the bounds on rounding. They
    have several switches, so the product itself is asked.
    """
    if tensor.dtype == torch.float64 or tensor.numel() < 2**14:
        return torch.float64
    probe = torch.full((32, 32), 1 + 2**-12, device=tensor.device)
    whole = (probe @ probe)[0, 0].double() > 32 * (1 + 2**-12)
    return torch.float32 if whole else torch.float64


def rounding(factors, dtype):
    """Bounds on the error of a squared distance: relative to the norms, and absolute.

    Errors of sums grow like the square root of their length [Higham and Mary 2019];
    squares of tiny numbers underflow. Both bounds are four times too large.
    """
    widths = [factor.shape[1] for factor in factors]
    error = torch.finfo(dtype)
    relative = (sum(width**0.5 for width in widths) + 4) * error.eps
    return 4 * relative, 4 * max(1, *widths) * error.tiny


def step_for(n_columns):
    """How many rows make a block of them whose product stays in a cache."""
    return max(64, min(N_ROWS, N_ROWS * N_COLUMNS // max(1, n_columns)))


def origin_of(points):
    """Find a point amid most rows, where products lose few digits.

    The median of some rows: one far row would draw the mean away from all others.
    """
    some = points[:: max(1, len(points) // 64)]
    if len(some) == 0:
        return points.new_zeros(points.shape[1])
    return some.sort(0).values[len(some) // 2]


def differences(x, c):
    """Squared distances of rows of `x` and `c`, from differences: 0 for copies."""
    if len(x) == 1:
        gap = x[0] - c[0]
        gap *= gap
        return gap.sum(-1)
    # a h' - b g' is half of (a - b)(h + g)' + (a + b)(h - g)'.
    (a, h), (b, g) = x, c
    a, b, h, g = a - b, a + b, h - g, h + g
    squares = (a * a).sum(-1) * (g * g).sum(-1) + (b * b).sum(-1) * (h * h).sum(-1)
    return ((squares + 2 * (a * b).sum(-1) * (h * g).sum(-1)) / 4).clip(0)


def argmin(matrix):
    """Column of the least number of each row."""
    if matrix.is_cpu:  # where that of torch is many times slower
        return torch.from_numpy(matrix.numpy().argmin(1))
    return matrix.argmin(1)


def lower_bounds(x, c, origin, *, offset=0.0, dtype=torch.float64):
    """Bound from below the squared distances of all rows of `x` to all of `c`.

    Parameters
    ----------
    x, c : lists of tensors
        Rows.
    origin : tensor of shape (n_columns,) or None
        Of the products, see `origin_of`; None for two factors.
    offset : tensor of shape (len(c),), default=0.0
        Added to the distances.
    dtype : torch.dtype, default=torch.float64
        Of the products.

    Returns
    -------
    lower : tensor of shape (len(x), len(c))
    row_width, column_width : tensors
        The distances are not above ``lower + row_width[:, None] + column_width``.
    """
    slack, floor = rounding(x, dtype)
    same, x = x is c, _centered(x, origin, dtype)
    c = x if same else _centered(c, origin, dtype)
    rows = _norms(x)
    columns = ((rows if same else _norms(c)) + offset).to(dtype)
    check_norms(torch.cat([rows, columns]), "points")
    factors = [-2 * c[0], *c[1:]]
    lower = _norms_less_products(columns * (1 - slack) - floor, x, factors)
    lower += (rows * (1 - slack) - floor)[:, None]
    return lower, 2 * (slack * rows + floor), 2 * (slack * columns + floor)


def contenders(lower, row_width, column_width, k=1, bound=None):
    """Find the pairs that may be among the `k` nearest of a row; spoils `lower`.

    Parameters
    ----------
    lower, row_width, column_width : tensors
        As from `lower_bounds`.
    k : int, default=1
    bound : tensor of shape (len(lower),), default=None
        Pairs beyond it do not count.

    Returns
    -------
    rows, columns : int64 tensors
        Of the pairs. Without `bound` `k` for each row come first, then the others.
    """
    guess = None
    if bound is None:
        if k == 1:
            guess = argmin(lower)[:, None]
        else:
            guess = lower.topk(k, largest=False)[1].sort(1)[0]
        bound = (lower.gather(1, guess) + column_width[guess]).amax(1) + row_width
        lower.scatter_(1, guess, torch.inf)
    # Most rows have no further ones, and looking for them is slow.
    rows = torch.nonzero(lower.amin(1) <= bound).squeeze(1)
    which, columns = torch.nonzero(lower[rows] <= bound[rows, None], as_tuple=True)
    rows = rows[which]
    if guess is None:
        return rows, columns
    first = torch.arange(len(lower), device=lower.device).repeat_interleave(k)
    return torch.cat([first, rows]), torch.cat([guess.flatten(), columns])


def at_pairs(x, c, i, j):
    """Squared distances of row `i[0]` of `x` to `j[0]` of `c`, and so on, exact."""
    step = max(1, N_NUMBERS // max(1, sum(factor.shape[1] for factor in c)))

    def some(place):
        pairs = [[f[k[place]].double() for f in rows] for rows, k in ((x, i), (c, j))]
        return differences(*pairs)

    return Scratch().gather(len(i), step, some)


def closest(x, c, origin, k=1, *, bound=None, offset=None, dtype=torch.float64):
    """Find the `k` nearest rows of `c` for each row of `x`, exactly.

    Parameters
    ----------
    x, c : lists of tensors
        Rows; `c` in double precision.
    origin : tensor of shape (n_columns,) or None
        Of the products, see `origin_of`; None for two factors.
    k : int, default=1
    bound : tensor of shape (len(x),), default=None
        Rows of `c` beyond it do not count.
    offset : tensor of shape (len(c),), default=None
        Added to the distances.
    dtype : torch.dtype, default=torch.float64
        Of the products.

    Returns
    -------
    distances : float64 tensor of shape (len(x), k)
        Ascending, of equals the first; infinite where there are fewer within `bound`.
    positions : int64 tensor of shape (len(x), k)
        In `c`.
    """
    more = {"offset": 0.0 if offset is None else offset, "dtype": dtype}
    n_rows = len(x[0])
    which, other = contenders(*lower_bounds(x, c, origin, **more), k, bound)
    if dtype != torch.float64 and len(which) > 5 * k * n_rows + 64:
        return closest(x, c, origin, k, bound=bound, offset=offset)
    found = at_pairs(x, c, which, other)
    if offset is not None:
        found += offset[other]
    if bound is None and len(found) == k * n_rows:  # as most often
        found, order = found.view(-1, k).sort(stable=True)
        return found, other.view(-1, k).gather(1, order)
    order = other.argsort()
    for key in (found, which):
        order = order[key[order].argsort(stable=True)]
    which = which[order]
    place = torch.arange(len(which), device=which.device)
    place -= torch.searchsorted(which, which)
    kept = place < k
    order, there = order[kept], (which[kept], place[kept])
    distances = found.new_full((n_rows, k), torch.inf)
    positions = torch.zeros_like(distances, dtype=torch.int64)
    distances[there], positions[there] = found[order], other[order]
    return distances, positions


def nearest(points, centers, *, offset=None, dtype=torch.float64):
    """Squared distance of each row to its nearest centre, and which, as arrays."""
    centers = centers.to(points.device).double()
    origin = origin_of(centers)
    step = max(32, N_PAIRS // max(1, *centers.shape))

    def some(place):
        return closest([points[place]], [centers], origin, offset=offset, dtype=dtype)

    distances, owners = Scratch().gather(len(points), step, some)
    return distances[:, 0].cpu().numpy(), owners[:, 0].cpu().numpy()


class Cover:
    """Squared distances of rows to their nearest centre: bounds, and exact on demand.

    Parameters
    ----------
    factors : list of one or two tensors of shape (n_rows, n_columns)
        The rows.
    name : str
        What errors call them.
    centers : tensor of shape (n_centers, n_columns), default=None
        The first centres; only for one factor.

    Attributes
    ----------
    upper : float64 tensor of shape (n_rows,)
        Not below the distance; -1 for rows that are centres.
    picked : list of int
        The rows that are centres.
    """

    def __init__(self, factors, name, centers=None):
        self.factors = factors
        self.centers = factors[0][:0] if centers is None else centers
        self.picked, self._n_fresh = [], 0
        self.origin = origin_of(factors[0]) if len(factors) == 1 else None
        self._dtype = working_dtype(factors[0])
        self._step = step_for(max(factor.shape[1] for factor in factors))
        self._norms = self._raised_norms(factors, name)
        self.exact = torch.full_like(self._norms, torch.inf, dtype=torch.float64)
        self.upper = self.exact.clone()
        # How many centres `exact` has seen.
        self._n_seen = torch.zeros_like(self.exact, dtype=torch.int64)
        # A centre of each row and a bound on the distance to it, see `tiles`; None
        # where they do not help: small products are slow, or rows do not cluster.
        self._owner = self._reach = None
        if self.upper.is_cpu and max(x.shape[1] for x in factors) >= N_WIDE:
            self._owner = torch.zeros_like(self._n_seen)
            self._reach = torch.full_like(self._norms, torch.inf)
        self._lower([self.centers], self._raised_norms([self.centers], "centers"), 0)

    def take(self, rows):
        """Factors of some rows, in double precision."""
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.upper.device)
        return [factor[index].double() for factor in self.factors]

    def add(self, rows):
        """Make a list of rows centres."""
        self.picked += rows
        self.upper[rows] = -1
        if self._owner is not None:
            self._reach[rows] = -1

    def refresh(self):
        """Lower `upper` to the distances, rounded upwards, to the centres added."""
        fresh = self.picked[self._n_fresh :]
        n_known = len(self.centers) + self._n_fresh
        self._lower(self.take(fresh), self._norms[fresh], n_known)
        self._n_fresh = len(self.picked)

    def unsure(self, rows):
        """Which of a tensor of rows may be nearer by more than a thousandth."""
        slack, _ = rounding(self.factors, self._dtype)
        return rows[self.upper[rows] <= 4096 * slack * self._norms[rows]]

    def tighten(self, rows):
        """Replace the bounds of a tensor of rows, no centres, by exact distances."""
        if len(rows) == 0:
            return
        n_seen = self._n_seen[rows]
        for start in torch.unique(n_seen).tolist():
            for part in rows[n_seen == start].split(N_CANDIDATES):
                x, known = self.take(part), self.exact[part]
                bound = known if start else None
                for centers in self._centers_from(start):
                    found, _ = closest(x, centers, self.origin, bound=bound)
                    bound = known = torch.minimum(known, found[:, 0])
                self.exact[part] = known
        self._n_seen[rows] = len(self.centers) + len(self.picked)
        self.upper[rows] = self.exact[rows]

    def _centers_from(self, start):
        for part in self.centers[start:].split(N_CANDIDATES):
            if len(part):
                yield [part.double()]
        later = self.picked[max(0, start - len(self.centers)) :]
        for i in range(0, len(later), N_CANDIDATES):
            yield self.take(later[i : i + N_CANDIDATES])

    def _lower(self, centers, norms, n_known):
        blocks = zip(*(x.split(N_COLUMNS) for x in centers), strict=True)
        for block, column_norms in zip(blocks, norms.split(N_COLUMNS), strict=True):
            if len(column_norms):
                self._lower_to_block(block, column_norms, n_known)
            n_known += len(column_norms)

    def _lower_to_block(self, block, column_norms, n_known):
        left, *others = _centered(block, self.origin, self._dtype)
        columns = [column_norms, -2 * left, *others]
        n_rows = min(max(self._step, 2 * N_ROWS_OF_TILE), len(self._norms))
        scratch = self._norms.new_empty(n_rows, self.factors[0].shape[1])
        places = [self._norms.new_empty(n_rows * len(left)) for _ in range(2)]
        lowest = torch.full_like(self._norms, torch.inf)
        nearest = torch.zeros_like(self._n_seen)
        for rows, some in self._products(block, n_known):
            norms, *c = columns if some is None else [part[some] for part in columns]
            x = self._centered_rows(rows, scratch)
            shape = len(x[0]), len(norms)
            out = [place[: shape[0] * shape[1]].view(shape) for place in places]
            _norms_less_products(norms, x, c, out=out)
            if self._owner is None:
                lowest[rows] = out[0].amin(1)
                continue
            which = argmin(out[0])
            lowest[rows] = out[0].gather(1, which[:, None])[:, 0]
            nearest[rows] = which if some is None else some[which]
        lowest = (lowest + self._norms).clamp_(min=0)
        if self._owner is not None:
            nearer = lowest < self.upper
            self._owner = torch.where(nearer, nearest + n_known, self._owner)
            self._reach = torch.where(nearer, lowest, self._reach)
        torch.minimum(self.upper, lowest, out=self.upper)

    def _centered_rows(self, rows, scratch):
        first, *others = self.factors
        if isinstance(rows, slice) or first.dtype != scratch.dtype:
            first = first[rows]
        else:  # new memory for each part would be slow
            first = torch.index_select(first, 0, rows, out=scratch[: len(rows)])
        x = [first, *(factor[rows] for factor in others)]
        return _centered(x, self.origin, self._dtype, out=scratch[: len(first)])

    def _products(self, block, n_known):
        """Which rows to compare with which centres of a block; None is all of them."""
        n_rows = len(self._norms)
        if self._owner is not None and min(n_known, len(block[0])) >= N_KNOWN:
            counts = torch.bincount(self._owner)
            owners = self._known(torch.nonzero(counts).squeeze(1))
            gaps, *_ = lower_bounds(owners, block, self.origin, dtype=self._dtype)
            place = ((counts > 0).cumsum(0) - 1)[self._owner]
            found, left = tiles(place.numpy(), self._reach.numpy(), gaps.numpy())
            if left + len(gaps) / n_rows < MOST_LEFT:
                return found
            self._owner = self._reach = None
        step = self._step
        return [(slice(i, i + step), None) for i in range(0, n_rows, step)]

    def _known(self, numbers):
        """Factors of centres by ascending numbers; the given ones have the first."""
        n_given = len(self.centers)
        given = self.centers[numbers[numbers < n_given]].double()
        picked = torch.tensor(self.picked, dtype=torch.int64)
        picked = self.take(picked[numbers[len(given) :] - n_given])
        return [torch.cat([given, picked[0]])] if n_given else picked

    def _raised_norms(self, factors, name):
        def some(place):
            return _norms(
                _centered([x[place] for x in factors], self.origin, self._dtype)
            )

        slack, floor = rounding(self.factors, self._dtype)
        norms = Scratch().gather(len(factors[0]), self._step, some)
        norms = norms * (1 + slack) + floor
        check_norms(norms, name)
        return norms


def _centered(rows, origin, dtype, out=None):
    if origin is None:
        return [x.to(dtype) for x in rows]
    return [torch.sub(rows[0], origin.to(dtype), out=out).to(dtype)]


def _norms(rows):
    norms = 1
    for x in rows:
        norms = norms * torch.linalg.vector_norm(x, dim=1).square()
    return norms


def _norms_less_products(norms, rows, columns, out=(None, None)):
    first, *more = [c.T for c in columns]
    if not more:
        return torch.addmm(norms, rows[0], first, out=out[0])
    product = torch.mm(rows[0], first, out=out[0])
    other = torch.mm(rows[1], more[0], out=out[1])
    return torch.addcmul(norms, product, other, out=out[0])
