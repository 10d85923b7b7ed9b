"""Forward selection by Fisher information of rank one a row (BAIT), and pruning."""

import math
from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_norms, check_points
from skal.utils.scratch import Scratch
from skal.utils.seeds import SeedLike, check_generator

# One block of rows in double precision: what a processor keeps at hand.
N_ROWS, N_NUMBERS = 256, 2**16
TIE = 1e-9  # Gains that differ by less of themselves count as equal.


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
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    A row lowers the trace by ``c / (1 + a)``, where ``a = g^T M^-1 g`` and
    ``c = g^T M^-1 F M^-1 g``. With ``u = M^-1 g_s``, ``k = 1 / (1 + a_s)`` and
    ``v = F u`` a pick s changes them by ``a -= k P^2`` and
    ``c -= 2 k P Q - k^2 (u^T v) P^2``, where ``P = G u`` and ``Q = G M^-1 v``. Rows
    are turned into double precision block by block, so that no rounding adds up, which
    takes no longer than single precision: a pick reads the rows once.

    Memory beyond the input: four numbers a row, six matrices of the square of
    `n_columns`, and blocks of rows: 4 MB at 20,000 x 64, 2 MB at 20,000 x 256.

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
    n_rows = len(points)
    _check_number(ridge, "ridge", 0, strict=True)
    _check_number(oversample, "oversample", 1)
    rng = check_generator(random_state)
    with torch.no_grad():
        for name, rows in (("points", points), ("centers", centers)):
            for part in _blocks(rows):
                check_norms(part.square().sum(1), name)
        mean, known = _squares(points) / max(1, n_rows), _squares(centers)
        known.diagonal().add_(float(ridge))
        n_taken = min(n_rows, math.ceil(oversample * n_select))
        order = torch.from_numpy(rng.permutation(n_rows)).to(points.device)
        picks = _forward(_Traces(points, known, mean), n_taken, order)
        if n_taken > n_select:
            chosen = points[picks].double()
            traces = _Traces(chosen, known + chosen.T @ chosen, mean)
            picks = [picks[i] for i in _backward(traces, n_select)]
        return np.array(picks, dtype=np.int64)


def _check_number(value, name, least, strict=False):
    valid = isinstance(value, Real) and not isinstance(value, bool)
    if not valid or not least <= value < math.inf or (strict and value == least):
        above = "above" if strict else "of at least"
        raise ValueError(f"{name} must be a number {above} {least}, got {value!r}.")


def _blocks(rows):
    """Split a matrix in double precision."""
    return (part.double() for part in rows.split(_step(rows)))


def _step(rows):
    return max(N_ROWS, N_NUMBERS // max(1, rows.shape[1]))


def _squares(rows):
    """Sum the outer products of rows with themselves."""
    n_columns = rows.shape[1]
    total = rows.new_zeros(n_columns, n_columns, dtype=torch.float64)
    for part in _blocks(rows):
        total.addmm_(part.T, part)
    return total


def _forward(traces, n_taken, order):
    """Take rows that lower the trace most, of ties the first in an order."""
    picks = []
    for _ in range(n_taken):
        gains = traces.c / (1 + traces.a)
        gains[picks] = -torch.inf
        best = gains.max()
        tied = gains[order] >= best * (1 - TIE)
        picks.append(int(order[tied.int().argmax()]))
        traces.change(picks[-1], 1)
    return picks


def _backward(traces, n_left):
    """Give back rows that raise the trace least; of ties the last goes."""
    left = list(range(len(traces.a)))
    while len(left) > n_left:
        losses = (traces.c / (1 - traces.a))[left]
        tied = losses <= losses.min() * (1 + TIE)
        worst = left.pop(int(torch.nonzero(tied)[-1]))
        traces.change(worst, -1)
    return left


class _Traces:
    """``a = g^T M^-1 g`` and ``c = g^T M^-1 F M^-1 g`` of each row while M changes."""

    def __init__(self, points, known, mean):
        self._points, self._mean = points, mean
        self._inverse = torch.cholesky_inverse(torch.linalg.cholesky(known))
        effect = self._inverse @ mean @ self._inverse
        self.a, self.c = self._by_row(
            lambda g: tuple(((g @ m) * g).sum(1) for m in (self._inverse, effect))
        )

    def change(self, row, sign):
        """Add a row to M, or with -1 take it away."""
        u = self._inverse @ self._points[row].double()
        v = self._mean @ u
        w = self._inverse @ v
        p, q = self._by_row(lambda g: (g @ u, g @ w))
        k = sign / (1 + sign * self.a[row])
        self.c.sub_(k * p * (2 * q - k * (u @ v) * p)).clamp_(min=0)
        self.a.sub_(k * p.square()).clamp_(min=0)
        self._inverse.sub_(k * torch.outer(u, u))

    def _by_row(self, pair):
        """Compute two numbers for each row."""
        points = self._points
        return Scratch().gather(
            len(points), _step(points), lambda place: pair(points[place].double())
        )
