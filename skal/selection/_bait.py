"""Forward selection by Fisher information of rank one a row (BAIT), and pruning."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_norms, check_number, check_points
from skal.utils.scratch import Scratch
from skal.utils.seeds import SeedLike, check_generator

# One block of rows in double precision: what a processor keeps at hand.
N_ROWS, N_NUMBERS = 256, 2**16
TIE = 1e-9  # Gains that differ by less of themselves count as equal.
DOUBT = 1e-8  # Of gains, by bounds that are far too wide, before all is computed anew.
ROOM = 1e-6  # Of 1 - a: where less is left, it has too few digits to divide by.
LONGEST = 1e12  # What a row may be of the root of the ridge.


def bait(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    *,
    centers: ArrayLike | torch.Tensor | None = None,
    ridge: float = 1.0,
    oversample: float = 1,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Take, again and again, the row that leaves least expected error over all rows.

    With gradients g as rows, ``F = mean_x g_x g_x^T`` and
    ``M = ridge I + sum_s g_s g_s^T`` over centres and picks, each pick is the row that
    makes ``trace(M^-1 F)`` least.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The gradients: to choose from, and of all rows that matter.
    n_select : int
        How many, from 0 to `n_rows`.
    centers : array or tensor of shape (n_centers, n_columns), default=None
        Those of the labelled rows.
    ridge : float, default=1.0
        Its weight does not depend on the number of rows, centres or picks.
    oversample : float, default=1
        At least 1. That many times `n_select` rows are taken, and then given back one
        by one, each time the one whose loss raises the trace least; 2 in [1]_.
    random_state : None, int, Generator or RandomState
        Breaks ties: gains within 1e-9 of the largest.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        In the order of the picks, distinct.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, an entry is not finite, or a
        row is longer than 1e12 times the root of the ridge.

    Notes
    -----
    A row lowers the trace by ``c / (1 + a)``, where ``a = g^T M^-1 g`` and
    ``c = g^T M^-1 F M^-1 g``. With ``u = M^-1 g_s``, ``k = 1 / (1 + a_s)`` and
    ``v = F u`` a pick s changes them by ``a -= k P^2`` and
    ``c -= 2 k P Q - k^2 (u^T v) P^2``, where ``P = G u`` and ``Q = G M^-1 v``. Rows
    are turned into double precision block by block, which takes no longer than single
    precision: a pick reads the rows once. Where the rounding of these updates might
    decide, since rows are long beside the ridge, all is computed anew from triangular
    factors of M and F, at the cost of `n_columns` updates.

    Memory beyond the input: four numbers a row, some twenty matrices of the square
    of `n_columns`, and blocks of rows: 5 MB at 20,000 x 64, 15 MB at 20,000 x 256.

    References
    ----------
    .. [1] Ash, Goel, Krishnamurthy and Kakade (2021). Gone fishing: neural active
       learning with Fisher embeddings. NeurIPS.

    Examples
    --------
    >>> from skal.selection import bait
    >>> points = [[3.0, 0.0], [2.9, 0.0], [0.0, 2.0], [0.0, 0.1]]
    >>> bait(points, 2).tolist()
    [0, 2]
    """
    points, centers, n_select = check_points(points, centers, n_select)
    n_rows, n_columns = points.shape
    check_number(ridge, "ridge", 0, above=True)
    check_number(oversample, "oversample", 1)
    rng = check_generator(random_state)
    with torch.no_grad():
        for name, rows in (("points", points), ("centers", centers)):
            for part in _blocks(rows):
                norms = part.square().sum(1)
                check_norms(norms, name)
                _check_lengths(norms, name, ridge)
        if n_select == 0:
            return np.empty(0, dtype=np.int64)
        n_taken = math.ceil(min(n_rows, oversample * n_select))
        order = torch.from_numpy(rng.permutation(n_rows)).to(points.device)
        one = torch.eye(n_columns, dtype=torch.float64, device=points.device)
        wanted = _with_rows(0 * one, points) / math.sqrt(n_rows)
        known = _with_rows(math.sqrt(ridge) * one, centers)
        picks = _forward(_Traces(points, known, wanted), n_taken, order)
        if n_taken > n_select:
            traces = _Traces(points[picks], known, wanted, range(n_taken))
            picks = [picks[i] for i in _backward(traces, n_select)]
        return np.array(picks, dtype=np.int64)


def _blocks(rows):
    """Split a matrix in double precision."""
    return (part.double() for part in rows.split(_step(rows)))


def _step(rows):
    return max(N_ROWS, N_NUMBERS // max(1, rows.shape[1]))


def _check_lengths(norms, name, ridge):
    """Raise where the ridge would be lost in the rounding of rows so long."""
    longest = math.sqrt(float(norms.max())) if len(norms) else 0.0
    if longest > LONGEST * math.sqrt(ridge):
        raise ValueError(
            f"{name} has a row of length {longest:.1g}, beside which ridge={ridge!r} "
            "is lost in rounding: standardise the columns, or raise ridge above "
            f"{(longest / LONGEST) ** 2:.1g}."
        )


def _with_rows(root, rows):
    """Make, of an R, one whose ``R^T R`` has the outer products of rows added.

    Sums of products would keep but half of the digits.
    """
    for part in rows.split(max(_step(rows), 4 * rows.shape[1])):
        root = torch.linalg.qr(torch.cat([root, part.double()]), mode="r").R
    return root


def _forward(traces, n_taken, order):
    """Take rows that lower the trace most, of ties the first in an order."""
    for _ in range(n_taken):
        gains = traces.gains()
        best = gains.max()
        if traces.doubt_c + best * traces.doubt_a > DOUBT * best:
            traces.compute()
            gains = traces.gains()
            best = gains.max()
        tied = gains[order] >= best * (1 - TIE)
        traces.change(int(order[tied.int().argmax()]), 1)
    return traces.added


def _backward(traces, n_left):
    """Give back rows that raise the trace least; of ties the last goes."""
    while len(traces.added) > n_left:
        losses, room = traces.losses()
        least = losses.min()
        if traces.doubt_c + least * traces.doubt_a > DOUBT * least * room:
            traces.compute()
            losses, _ = traces.losses()
            least = losses.min()
        tied = losses <= least * (1 + TIE)
        traces.change(traces.added[int(torch.nonzero(tied)[-1])], -1)
    return traces.added


class _Traces:
    """``a = g^T M^-1 g`` and ``c = g^T M^-1 F M^-1 g`` of each row while M changes.

    `known` and `wanted` are R of ``M = R^T R``, without what is `added`, and of F.
    `doubt_a` and `doubt_c` grow with the rounding of a and c since all was computed.
    """

    def __init__(self, points, known, wanted, added=()):
        self._points, self._known, self._wanted = points, known, wanted
        self.added = list(added)
        self._longest = max(part.norm(dim=1).max() for part in _blocks(points))
        self.compute()

    def compute(self):
        """Compute all anew."""
        inverse, pair = self._under(self.added)
        self._inverse = inverse @ inverse.T
        self.a, self.c = self._by_row(pair)
        self.doubt_a = self.doubt_c = 0.0

    def _under(self, added):
        """Invert R where these rows are added; also a function, of rows to a and c."""
        root = _with_rows(self._known, self._points[added])
        one = torch.eye(len(root)).to(root)
        inverse = torch.linalg.solve_triangular(root, one, upper=True)
        effect = (self._wanted @ inverse).T

        def pair(g):
            z = g @ inverse
            return z.square().sum(1), (z @ effect).square().sum(1)

        return inverse, pair

    def gains(self):
        """Say what each row that is not added would lower the trace by."""
        gains = self.c / (1 + self.a)
        gains[self.added] = -torch.inf
        return gains

    def losses(self):
        """Say what each row that is added keeps from the trace; the least of 1 - a.

        Those that leave too little of it are put to all others anew.
        """
        room = 1 - self.a[self.added]
        losses = self.c[self.added] / room
        for i in torch.nonzero(room < ROOM).flatten().tolist():
            _, pair = self._under(self.added[:i] + self.added[i + 1 :])
            a, c = pair(self._points[[self.added[i]]].double())
            losses[i] = c / (1 + a)
        return losses, room.min().clamp(min=ROOM)

    def change(self, row, sign):
        """Add a row to M, or with -1 take it away."""
        self.added.append(row) if sign > 0 else self.added.remove(row)
        if sign < 0 and 1 - self.a[row] < ROOM:
            self.compute()
        else:
            self._update(row, sign)

    def _update(self, row, sign):
        g = self._points[row].double()
        u = self._inverse @ g
        v = self._wanted.T @ (self._wanted @ u)
        w = self._inverse @ v
        p, q = self._by_row(lambda g: (g @ u, g @ w))
        k = sign / (1 + sign * self.a[row])
        r = k * (u @ v)
        self.c.sub_(k * p * (2 * q - r * p)).clamp_(min=0)
        self.a.sub_(k * p.square()).clamp_(min=0)
        # A product with u or w is off by its lengths, as these are by that of M^-1.
        error = 2 * torch.finfo(torch.float64).eps * self._longest * abs(k)
        size, p, q = self._inverse.diagonal().max(), p.abs().max(), q.abs().max()
        self.doubt_a += error * size * g.norm() * p
        self.doubt_c += error * size * (g.norm() * (q + abs(r) * p) + v.norm() * p)
        self._inverse.sub_(k * torch.outer(u, u))

    def _by_row(self, pair):
        """Compute two numbers for each row."""
        points = self._points
        return Scratch().gather(
            len(points), _step(points), lambda place: pair(points[place].double())
        )
