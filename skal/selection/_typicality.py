"""How typical rows are: near to their nearest neighbours."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_count, check_matrix
from skal.selection._distances import N_PAIRS, closest, origin_of, working_dtype


def typicality(
    points: ArrayLike | torch.Tensor, n_neighbors: int
) -> NDArray[np.float64]:
    """One over the mean distance of each row to its nearest other rows.

    Parameters
    ----------
    points : array or tensor of shape (n_rows, n_columns)
        The rows.
    n_neighbors : int
        How many, from 1 to `n_rows` - 1.

    Returns
    -------
    typicality : ndarray of float64, of shape (n_rows,)
        Infinite where all neighbours are copies.

    Raises
    ------
    ValueError
        If a parameter has the wrong shape, type or range.

    Notes
    -----
    Distances are computed by blocks of a million; memory beyond the input is theirs,
    and that of the rows in double precision, some times over: 39 MB at 20,000 x 64,
    100 MB at 10,000 x 256.

    References
    ----------
    .. [1] Hacohen, Dekel and Weinshall (2022). Active learning on a budget: opposite
       strategies suit high and low budgets. ICML.

    Examples
    --------
    >>> from skal.selection import typicality
    >>> typicality([[0.0], [1.0], [5.0]], 2).round(3).tolist()
    [0.333, 0.4, 0.222]
    """
    points = check_matrix(points, "points")
    check_count(n_neighbors, "n_neighbors", len(points) - 1)
    with torch.no_grad():
        exact, origin = [points.double()], origin_of(points)
        dtype = working_dtype(points)
        parts = [
            closest([x], exact, origin, n_neighbors + 1, dtype=dtype)[0]
            for x in points.split(max(1, N_PAIRS // len(points)))
        ]
        # A row itself, or a copy in its stead, adds 0 to the sum.
        sums = torch.cat(parts).sqrt().sum(1).cpu().numpy()
    with np.errstate(divide="ignore"):
        return n_neighbors / sums
