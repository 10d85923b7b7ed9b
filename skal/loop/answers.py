"""A person's answers: written into y, and recognised in the next fit."""

import warnings

import joblib
import numpy as np
from scipy import sparse
from torch import Tensor, as_tensor

from skal.loop.codes import as_labels
from skal.utils.labels import (
    check_labels,
    encode,
    known_labels,
    missing_mask,
    read_labels,
)
from skal.utils.rows import is_dataset, n_rows, take
from skal.utils.validation import check_row_numbers


def fingerprint(X, n_samples=16):
    """Hash a few rows, evenly spread; of a Dataset, whose items may be random, none."""
    if is_dataset(X):
        return f"{type(X).__name__} of {n_rows(X)} items"
    rows = take(X, np.unique(np.linspace(0, n_rows(X) - 1, n_samples).astype(int)))
    if isinstance(rows, Tensor):
        rows = rows.detach().cpu().numpy()
    elif sparse.issparse(rows):
        rows = rows.toarray()
    elif hasattr(rows, "to_numpy"):
        rows = rows.to_numpy()
    return joblib.hash((n_rows(X), rows))


def write_answers(y, rows, answers, *, asked, marks, classes):
    """Check answers, and write them into a copy of `y`.

    Parameters
    ----------
    y, rows, answers
        As in `ActiveLearningLoop.label`.
    asked : bool array of shape (n_samples,)
        Rows that were asked for.
    marks : list
        The mark of a missing label, and that of a skipped row or None.
    classes : array-like or None
        All classes, where the caller named them.

    Returns
    -------
    y : same kind as `y`
    """
    if getattr(y, "ndim", 1) > 1:
        raise TypeError(f"y must be one-dimensional, got shape {tuple(y.shape)}.")
    if len(y) != len(asked):
        raise ValueError(f"y has {len(y)} labels for the {len(asked)} rows of the fit.")
    check_row_numbers(rows, len(asked), "rows")
    rows = np.asarray(rows)
    if not asked[rows].all():
        raise ValueError(
            f"rows {rows[~asked[rows]][:5].tolist()} were not asked for: pass those "
            "of next_query_, and write labels of other rows into y yourself."
        )
    answers = as_labels(answers, rows, "answers must be")
    missing_label, skip_label = marks
    labels = read_labels(y).astype(object)
    labels[rows] = answers
    if skip_label is not None:
        labels[missing_mask(labels, skip_label)] = missing_label
    _, missing = check_labels(labels, missing_label, classes=classes)
    if classes is not None:
        told = known_labels(labels[rows], ~missing[rows])
        encode(told, np.asarray(list(classes), dtype=object), name="answers")
    polars = hasattr(y, "scatter") and hasattr(y, "to_list")
    if isinstance(y, list | tuple) or polars:
        items = y.to_list() if polars else list(y)
        for row, answer in zip(rows.tolist(), answers.tolist(), strict=True):
            items[row] = answer
        return type(y)(y.name, items) if polars else type(y)(items)
    if isinstance(y, Tensor):
        new = y.clone()
        new[as_tensor(rows, device=y.device)] = as_tensor(answers.tolist()).to(new)
        return new
    return _write(y, rows, answers)


def _write(y, rows, answers):
    """Write into the first copy that holds the answers unchanged."""
    for copy in (lambda: y.copy(), lambda: y.astype(object)):
        try:
            new = copy()
            places = getattr(new, "iloc", new)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # older pandas warns, changes the type
                places[rows] = answers
            if [*places[rows].tolist()] == answers.tolist():
                return new
        except (AttributeError, TypeError, ValueError, Warning):
            pass
    items = read_labels(y).astype(object)  # of what cannot be written to
    items[rows] = answers
    try:
        return type(y)(items.tolist())
    except (TypeError, ValueError):
        return items
