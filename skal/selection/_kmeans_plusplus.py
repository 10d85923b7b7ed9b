"""k-means++ seeding (D^2 sampling), exact, by blocks of candidates."""

from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_matrix, check_n_select, check_weights
from skal.selection._distances import (
    N_NUMBERS,
    N_ROWS,
    Cover,
    at_pairs,
    differences,
    lower_bounds,
)
from skal.selection._kmeans_parallel import candidates
from skal.utils.seeds import SeedLike, check_generator

SMALLEST_BLOCK, LARGEST_BLOCK = 32, 256


def kmeans_plusplus(
    factors: ArrayLike
    | torch.Tensor
    | tuple[ArrayLike | torch.Tensor, ArrayLike | torch.Tensor],
    n_select: int,
    *,
    first: str = "norm",
    weights: ArrayLike | torch.Tensor | None = None,
    oversampling: float | None = None,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Draw rows with probability proportional to the squared distance to those drawn.

    Parameters
    ----------
    factors : array or tensor of shape (n_rows, n_columns), or a pair of them
        The points; or a tuple or list of two 2-D factors with equally many rows,
        whose row-wise outer product is the point. It is never formed.
    n_select : int
        How many, from 0 to `n_rows`.
    first : {"norm", "uniform"}, default="norm"
        The first row: the one of largest norm (the lowest position of equals), or
        any with equal probability.
    weights : array or tensor of shape (n_rows,), default=None
        Of how many rows each stands for, positive: what the probabilities of draws are
        multiplied by. None is 1 each.
    oversampling : float, default=None
        Draw in few passes over the rows, where these are slow to read: k-means|| [3]_.
        In each of five passes (more until there are enough) about `oversampling` times
        `n_select` candidates are drawn at once, 2 is usual; those wanted are drawn
        among them, each standing for the rows nearest to it. None passes over the rows
        as often as the draws need, `n_select` / 100 times or more.
    random_state : None, int, Generator or RandomState, default=None
        The source of the draws. Equal seeds give equal rows on one device, and a
        larger `n_select` only appends to them, unless there is `oversampling`.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        In the order of the draws, distinct. Once every other row is a copy of one
        drawn, the rest is uniform.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or `factors` is not finite.

    Notes
    -----
    Distances to the nearest drawn row only shrink, so stale ones, rounded upwards, can
    propose: a block of candidates is drawn from them, each is accepted with
    probability current over stale, and one matrix product then refreshes all rows.
    This is rejection sampling, so the draws have the distribution of the sequential
    algorithm. Current distances come from differences in double precision; where
    rounding makes most of the stale ones, all rows are refreshed so. Where wide rows
    cluster, as embeddings do, the triangle inequality leaves out most of the product
    [2]_. Beyond the input (and its copy where it is neither float32 nor float64) it
    takes about 100 bytes a row and 20 MB at most for 512 columns.

    References
    ----------
    .. [1] Arthur and Vassilvitskii (2007). k-means++: the advantages of careful
       seeding. SODA.
    .. [2] Raff (2021). Exact acceleration of k-means++ and k-means||. IJCAI.
    .. [3] Bahmani, Moseley, Vattani, Kumar and Vassilvitskii (2012). Scalable
       k-means++. VLDB.

    Examples
    --------
    >>> from skal.selection import kmeans_plusplus
    >>> kmeans_plusplus([[0.0], [0.0], [3.0]], 2, random_state=0)[0].item()
    2
    """
    factors = _check_factors(factors)
    n_rows = len(factors[0])
    n_select = check_n_select(n_select, n_rows, "factors")
    if first not in ("norm", "uniform"):
        raise ValueError(f"first must be 'norm' or 'uniform', got {first!r}.")
    weights = check_weights(weights, factors[0], "factors")
    _check_oversampling(oversampling)
    rng = check_generator(random_state)
    with torch.no_grad():
        cover = Cover(factors, "factors")
        if n_select == 0:
            return np.empty(0, dtype=np.int64)
        start = rng.integers(n_rows) if first == "uniform" else _largest_norm(factors)
        if first == "uniform" and weights is not None:
            share = weights.cumsum(0).cpu().numpy()
            start = np.searchsorted(share, rng.random() * share[-1], side="right")
        cover.add([int(start)])
        if oversampling is None:
            _sample(cover, n_select, weights, rng)
            picked = cover.picked
        else:
            among = candidates(cover, n_select, oversampling, weights, rng)
            picked = _drawn_among(factors, *among, n_select, rng)
    rest = np.delete(np.arange(n_rows), picked)
    fill = rng.permutation(rest)[: n_select - len(picked)]
    return np.concatenate([picked, fill]).astype(np.int64)


def _check_oversampling(oversampling):
    valid = isinstance(oversampling, Real) and not isinstance(oversampling, bool)
    if oversampling is not None and not (valid and 0 < oversampling < np.inf):
        raise ValueError(
            f"oversampling must be a positive number or None, got {oversampling!r}."
        )


def _drawn_among(factors, rows, weights, n_select, rng):
    """Draw of candidates, of which the first is taken, by their weights."""
    index = torch.from_numpy(rows).to(factors[0].device)
    cover = Cover(tuple(factor[index] for factor in factors), "factors")
    cover.add([0])
    _sample(
        cover, min(n_select, len(rows)), torch.from_numpy(weights).to(index.device), rng
    )
    return rows[cover.picked]


def _check_factors(factors):
    pair = isinstance(factors, tuple | list) and len(factors) == 2
    if not pair or any(np.ndim(factor) != 2 for factor in factors):
        return (check_matrix(factors, "factors"),)
    left, right = (check_matrix(f, f"factors[{i}]") for i, f in enumerate(factors))
    if len(left) != len(right) or left.device != right.device:
        raise ValueError(
            "factors must have equally many rows on one device, got shapes "
            f"{tuple(left.shape)} on {left.device} and {tuple(right.shape)} on "
            f"{right.device}."
        )
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype), right.to(dtype)


def _largest_norm(factors):
    norms = torch.ones(len(factors[0]), dtype=torch.float64, device=factors[0].device)
    for factor in factors:
        for norm, x in zip(norms.split(N_ROWS), factor.split(N_ROWS), strict=True):
            norm *= torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)
    return torch.nonzero(norms == norms.amax())[0, 0]


def _sample(cover, n_select, weights, rng):
    """Pick rows of the cover until there are `n_select` or no distance is left."""
    n_draws = SMALLEST_BLOCK
    while len(cover.picked) < n_select:
        cover.refresh()
        stale = cover.upper.clamp(min=0)
        mass = (stale if weights is None else stale * weights).cumsum(0)
        if mass[-1] == 0:
            return
        uniform = torch.from_numpy(rng.random(n_draws)).to(mass.device)
        drawn = torch.searchsorted(mass, uniform * mass[-1], right=True)
        drawn.clamp_(max=len(mass) - 1)
        stale = stale[drawn].cpu().numpy()
        cover.tighten(cover.unsure(drawn))
        current = cover.upper[drawn].cpu().numpy()
        loose = current.sum() < stale.sum() / 2
        fresh = _accept(cover, drawn, current, rng.random(n_draws) * stale)
        cover.add(fresh[: n_select - len(cover.picked)])
        if loose:  # rounding proposes rows that are too near
            cover.tighten(torch.nonzero(cover.upper > 0).squeeze(1))
        grow = len(fresh) > n_draws // 2
        n_draws = min(2 * n_draws, LARGEST_BLOCK) if grow else n_draws // 2
        n_draws = max(n_draws, SMALLEST_BLOCK)


def _accept(cover, drawn, current, bar):
    """Walk through a block of draws; those still above their bar are accepted."""
    between, accepted = _between(cover.take(drawn), cover.origin).cpu().numpy(), []
    for i, row in enumerate(drawn.tolist()):
        if bar[i] < current[i]:
            accepted.append(row)
            np.minimum(current, between[i], out=current)
    return accepted


def _between(x, origin):
    """Squared distances among rows, from differences where products are unsure."""
    if len(x) == 1 and len(x[0]) * x[0].numel() <= N_NUMBERS:  # soon done
        return differences([x[0][:, None]], x)
    between, row_width, column_width = lower_bounds(x, x, origin)
    between.fill_diagonal_(torch.inf)
    unsure = between <= 1000 * (row_width[:, None] + column_width)
    i, j = torch.nonzero(unsure, as_tuple=True)
    if len(i):
        between[i, j] = at_pairs(x, x, i, j)
    return between
