"""Greedy maximum coverage by balls, and the radius at which they are pure."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_count, check_matrix, check_number, check_points
from skal.selection._distances import (
    N_CANDIDATES,
    N_PAIRS,
    N_ROWS,
    at_pairs,
    lower_bounds,
    nearest,
    origin_of,
    working_dtype,
)
from skal.utils.seeds import SeedLike, check_generator


def ball_cover(
    points: ArrayLike | torch.Tensor,
    n_select: int,
    radius: float,
    *,
    centers: ArrayLike | torch.Tensor | None = None,
    max_references: int = 20_000,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Take, again and again, the row whose ball holds most rows not yet covered.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows to choose from and to cover.
    n_select : int
        How many, from 0 to `n_rows`.
    radius : float
        A row covers those nearer than this. May be infinite.
    centers : array or tensor of shape (n_centers, n_columns), default=None
        Rows that cover already.
    max_references : int, default=20_000
        Of more rows, so many drawn at random are to be covered; all may be chosen.
    random_state : None, int, Generator or RandomState, default=None
        Draws these rows.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)
        In the order of the picks, of equals the first; rows that add nothing, once all
        are covered, come last in ascending order.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range, or an entry is not finite.

    Notes
    -----
    No graph of neighbours is kept: a row is covered once, and then the count of each
    row near it falls by one, so all distances are computed at most twice, by blocks.
    Products decide where their rounding cannot matter, differences in double precision
    elsewhere. Memory beyond the input: some 256 bytes a row, and several blocks
    of a million distances: 75 MB at 20,000 x 64, 105 MB at 20,000 x 256.

    References
    ----------
    .. [1] Yehuda, Dekel, Hacohen and Weinshall (2022). Active learning through a
       covering lens. NeurIPS.

    Examples
    --------
    >>> from skal.selection import ball_cover
    >>> ball_cover([[0.0], [4.0], [5.0], [6.0], [9.0]], 2, 1.5).tolist()
    [2, 0]
    """
    points, centers, n_select = check_points(points, centers, n_select)
    n_rows = len(points)
    check_number(radius, "radius", 0, math.inf, above=True)
    check_count(max_references, "max_references")
    references = torch.arange(n_rows)
    if n_rows > max_references:
        rng = check_generator(random_state)
        drawn = np.sort(rng.choice(n_rows, max_references, replace=False))
        references = torch.from_numpy(drawn)
    with torch.no_grad():
        return _greedy(points, n_select, radius**2, centers, points[references])


def _greedy(points, n_select, square, centers, open_rows):
    """Choose rows; `open_rows` are those to be covered yet."""
    if n_select == 0:
        return np.empty(0, dtype=np.int64)
    if len(centers):
        distances = nearest(open_rows, centers, dtype=working_dtype(points))[0]
        open_rows = open_rows[torch.from_numpy(distances >= square)]
    counts = _counts(points, open_rows, square)
    picked = []
    while len(picked) < n_select and counts.max() > 0:
        picked.append(int(counts.argmax()))
        covered = _near(open_rows, points[picked[-1:]], square)[:, 0]
        counts -= _counts(points, open_rows[covered], square)
        counts[picked] = 0
        open_rows = open_rows[~covered]
    rest = np.setdiff1d(np.arange(len(points)), picked)[: n_select - len(picked)]
    return np.concatenate([picked, rest]).astype(np.int64)


def _counts(points, rows, square):
    """Count for each of `points` the `rows` near it."""
    step = max(1, N_PAIRS // max(1, len(points)))
    counts = np.zeros(len(points), dtype=np.int64)
    for part in rows.split(max(step, N_CANDIDATES)):
        if len(part):
            counts += _near(points, part, square).sum(1).cpu().numpy()
    return counts


def _near(x, c, square):
    """Tell which squared distances of rows of `x` to rows of `c` are less."""
    origin, dtype = origin_of(x), working_dtype(x)
    near = torch.empty(len(x), len(c), dtype=torch.bool, device=x.device)
    start = 0
    for rows in x.split(max(1, N_PAIRS // max(c.shape))):
        part, start = near[start : start + len(rows)], start + len(rows)
        lower, row_width, column_width = lower_bounds([rows], [c], origin, dtype=dtype)
        torch.lt(lower, square, out=part)
        lower += row_width[:, None]
        lower += column_width
        i, j = torch.nonzero(part & (lower >= square), as_tuple=True)
        part[i, j] = at_pairs([rows], [c], i, j) < square
    return near


def pure_radius(
    points: ArrayLike | torch.Tensor,
    labels: ArrayLike,
    *,
    purity: float = 0.95,
    max_references: int = 20_000,
    random_state: SeedLike = None,
) -> float:
    """Find the largest radius at which most balls around rows hold one label.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows, at least one.
    labels : array of shape (n_rows,)
        Such as those of k-means.
    purity : float, default=0.95
        At least this share of the balls, one around each row, is pure: it holds no row
        of another label that is nearer than the radius.
    max_references : int, default=20_000
        Of more rows, the balls of so many drawn at random are looked at.
    random_state : None, int, Generator or RandomState, default=None
        Draws these rows.

    Returns
    -------
    radius : float
        Exact, without a grid: a quantile of the distances of rows to the nearest one
        of another label. Infinite where there is but one label.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range.

    Notes
    -----
    Memory beyond the input: the rows of other labels, some times over: 63 MB at
    20,000 x 64, 64 MB at 10,000 x 256.

    References
    ----------
    .. [1] Yehuda, Dekel, Hacohen and Weinshall (2022). Active learning through a
       covering lens. NeurIPS.

    Examples
    --------
    >>> from skal.selection import pure_radius
    >>> pure_radius([[0.0], [1.0], [3.0], [7.0]], [0, 0, 1, 1], purity=0.5)
    3.0
    """
    points = check_matrix(points, "points")
    labels = np.asarray(labels)
    if labels.shape != (len(points),) or len(points) == 0:
        raise ValueError(
            f"labels must be one for each of the rows of points, at least one, got "
            f"shape {labels.shape} and {len(points)} rows."
        )
    check_number(purity, "purity", 0, 1)
    check_count(max_references, "max_references")
    rows = np.arange(len(points))
    if len(rows) > max_references:
        rows = check_generator(random_state).choice(rows, max_references, replace=False)
    distances = np.full(len(rows), np.inf)
    with torch.no_grad():
        for label in np.unique(labels[rows]):
            (own,) = np.nonzero(labels[rows] == label)
            some, dtype = points[torch.from_numpy(rows[own])], working_dtype(points)
            others = torch.from_numpy(np.flatnonzero(labels != label))
            for part in others.split(N_ROWS) if len(others) else ():
                found = nearest(some, points[part], dtype=dtype)[0]
                distances[own] = np.minimum(distances[own], found)
    allowed = math.floor((1 - purity) * len(rows) + 1e-9)
    return math.sqrt(np.sort(distances)[min(allowed, len(rows) - 1)])
