"""Which rows may get a nearer centre, by the triangle inequality, in tiles.

A centre at least twice as far from the old centre of a row as the row is cannot be
nearer to it. Embeddings cluster, so that this holds for most rows and most centres, and
what is left falls into tiles once rows of neighbouring centres lie together [1]_.

References
----------
.. [1] Raff (2021). Exact acceleration of k-means++ and k-means||. IJCAI.
"""

import numpy as np
import torch

# Least rows of a tile, and half the most. Smaller ones would need fewer centres, but
# their products are slow.
N_ROWS_OF_TILE = 256
# Products of fewer columns are rounded in another way than large ones.
FEWEST_COLUMNS = 16
# Where more of the product is left, whole blocks of it are faster.
MOST_LEFT = 0.6


def tiles(owners, reach, gaps):
    """Group rows with the centres that may be nearer to them than their owners are.

    Parameters
    ----------
    owners : int64 array of shape (n_rows,)
        A known centre of each row.
    reach : array of shape (n_rows,)
        Not below the squared distance of each row to its owner; below 0 for rows that
        need no centre.
    gaps : array of shape (n_known, n_fresh)
        Not above the squared distances of known to fresh centres.

    Returns
    -------
    found : list of (rows, columns)
        Two int64 tensors each: all pairs that the inequality does not rule out are in
        the product of one of them.
    left : float
        The part of all pairs that are in them.
    """
    ranks = np.argsort(np.argsort(gaps.argmin(1), kind="stable"))
    # By owner, and for each by reach: floats above 0 have the order of their bits.
    bits = reach.clip(0).astype(np.float32).view(np.int32)
    order = np.argsort((ranks[owners] << 32) | bits)
    owners = owners[order]
    rows = np.array_split(order, max(1, len(order) // N_ROWS_OF_TILE))
    begins = np.cumsum([0, *map(len, rows[:-1])])
    starts = np.union1d(begins, np.flatnonzero(owners[1:] != owners[:-1]) + 1)
    farthest = np.maximum.reduceat(reach[order], starts)
    near = gaps[owners[starts]] < 4 * farthest[:, None]
    near = np.logical_or.reduceat(near, np.searchsorted(starts, begins))
    near[near.any(1) & (near.sum(1) < FEWEST_COLUMNS), :FEWEST_COLUMNS] = True
    found = [
        (torch.from_numpy(np.sort(some)), torch.from_numpy(np.flatnonzero(wanted)))
        for some, wanted in zip(rows, near, strict=True)
        if wanted.any()
    ]
    n_left = sum(len(some) * len(columns) for some, columns in found)
    return found, n_left / (len(order) * gaps.shape[1])
