"""The rows with the largest scores."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_n_select
from skal.utils.seeds import SeedLike, check_generator


def top_k(
    scores: ArrayLike | torch.Tensor, n_select: int, *, random_state: SeedLike = None
) -> NDArray[np.int64]:
    """Take the positions of the largest scores, best first.

    Ties are broken by a random key: position would prefer some classes where the rows
    are sorted by class.

    Parameters
    ----------
    scores : array or tensor of shape (n_rows,)
        Higher is better; infinite scores rank first or last.
    n_select : int
        How many, from 0 to `n_rows`.
    random_state : None, int, Generator or RandomState, default=None
        Breaks ties.

    Returns
    -------
    positions : ndarray of int64, of shape (n_select,)

    Raises
    ------
    ValueError
        If `scores` is not 1-D or has NaN, or `n_select` is not an int in range.

    Examples
    --------
    >>> from skal.selection import top_k
    >>> top_k([0.1, 0.7, 0.4], 2).tolist()
    [1, 2]
    """
    if isinstance(scores, torch.Tensor):
        scores = scores.detach().double().cpu()
    try:
        scores = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("scores must be numbers, one for each row.") from error
    if scores.ndim != 1:
        raise ValueError(f"scores must be 1-D, got shape {scores.shape}.")
    n_nan = int(np.isnan(scores).sum())
    if n_nan:
        raise ValueError(
            f"scores must not be NaN, but {n_nan} of {len(scores)} are; rank such "
            "rows last with -inf."
        )
    n_select = check_n_select(n_select, len(scores), "scores")
    key = check_generator(random_state).random(len(scores))
    rows = np.arange(len(scores))
    if 0 < n_select < len(scores):  # sort those alone that may be among the first
        rows = np.flatnonzero(scores >= np.partition(scores, -n_select)[-n_select])
    return rows[np.lexsort((key[rows], -scores[rows]))[:n_select]].astype(np.int64)
