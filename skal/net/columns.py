"""Give what an estimator predicts a column for each class, also for unknown ones."""

import numpy as np
import torch

from skal.net.heads import check_distribution
from skal.utils.labels import encode


def proba_columns(values, final, classes):
    """Make tensors of probabilities and their logarithms; raise where they are none.

    Parameters
    ----------
    values : array of shape (n_rows, n_known)
    final : estimator
        Knows some of the classes.
    classes : array of shape (n_classes,)

    Returns
    -------
    proba, log_proba : tensors of shape (n_rows, n_classes)
    """
    proba = _spread(values, final, classes, 0)
    check_distribution(proba, final)
    return proba, proba.log()


def decision_columns(values, final, classes):
    """Make a tensor of decision values; see `PoolView.decision_values`.

    Parameters
    ----------
    values : array of shape (n_rows,) or (n_rows, n_known)
    final : estimator
        Knows some of the classes.
    classes : array of shape (n_classes,)

    Returns
    -------
    values : tensor of shape (n_rows, n_classes)
    """
    if values.ndim == 1:
        values = np.column_stack([-values / 2, values / 2])
    if not np.isfinite(values).all():
        raise ValueError(
            f"{type(final).__name__} gives NaN or infinite decision values: clean X."
        )
    return _spread(values, final, classes, -np.inf)


def _spread(known, final, classes, fill):
    own = encode(np.asarray(final.classes_), classes, name="classes_")
    spread = np.full((len(known), len(classes)), fill, dtype=known.dtype)
    spread[:, own] = known
    return torch.from_numpy(spread)
