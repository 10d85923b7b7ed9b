"""Transformers without state at the head of a Pipeline: once, before the rounds."""

from copy import copy

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from skorch.helper import SliceDict
from torch import OutOfMemoryError, Tensor

from skal.models import FrozenFeatures
from skal.utils.blocks import BlockRows
from skal.utils.discovery import innermost
from skal.utils.rows import as_rows, is_dataset, is_frame, n_rows, take, telling_rows
from skal.utils.seeds import isolated_rng


def apply_head(estimator, X, X_test=None, *, limited=False):
    """Apply what needs no fit and looks at each row alone, as far as it goes.

    That is `FrozenFeatures`, and others tagged ``requires_fit=False`` where some rows
    come out bit for bit as among all.

    Parameters
    ----------
    estimator : estimator
        Never touched. Only of a Pipeline there is something to apply.
    X, X_test : rows
        Never changed.
    limited : bool, default=False
        Leave to the rounds what would have all rows in memory: not `FrozenFeatures`.

    Returns
    -------
    head : list of tuple
        Names and fitted steps that were applied.
    X, X_test : rows
        As the next step gets them.
    """
    head = []
    if type(X) in (SliceDict, BlockRows) or not isinstance(estimator, Pipeline):
        return head, X, X_test
    if getattr(estimator, "transform_input", None):  # as it is, they go there, too
        return head, X, X_test
    for name, step in estimator.steps[:-1]:
        if step is not None and not isinstance(step, str):  # "passthrough"
            step = clone(step)
            if limited and not isinstance(step, FrozenFeatures):
                break
            with isolated_rng(0):
                found = _applied(step, X, X_test)
            if found is None:
                break
            X, X_test = found
        head.append((name, step))
    return head, X, X_test


def _applied(step, X, X_test):
    """Rows behind a step, or None where it may not be applied once."""
    if isinstance(step, FrozenFeatures):
        step.fit(X)
        return step.transform(X), None if X_test is None else step.transform(X_test)
    if not hasattr(step, "transform") or get_tags(step).requires_fit or is_dataset(X):
        return None
    some = telling_rows(X)[::-2]  # in another order, beside other rows
    try:
        found = step.fit(_copy(X)).transform(_copy(X))
        if not _same(take(found, some), step.transform(take(X, some))):
            return None
        return found, None if X_test is None else step.transform(_copy(X_test))
    except Exception:  # whatever it is, the rounds will say it in their place
        return None


def _copy(X):
    return take(X, np.arange(n_rows(X)))  # some write to what they are given


def _same(rows, others):
    """Whether two containers hold the same bits."""
    if type(rows) is not type(others) or rows.shape != others.shape:
        return False
    if sparse.issparse(rows):
        return rows.dtype == others.dtype and (rows != others).nnz == 0
    if isinstance(rows, Tensor):
        return rows.equal(others)
    if is_frame(rows):
        return rows.equals(others)
    return rows.dtype == others.dtype and rows.tobytes() == others.tobytes()


def rows_behind(head, strategy, X):
    """Apply a head to the rows that a strategy has as parameters; see `row_params`.

    Parameters
    ----------
    head : list of tuple
        As `apply_head` gives it.
    strategy : QueryStrategy
        A private clone, which is changed.
    X : rows
        As the head gave them.

    Raises
    ------
    ValueError
        Where these are no rows like those of `X`.
    """
    strategy = innermost(strategy)
    for name in strategy.row_params:
        rows = getattr(strategy, name)
        if rows is None:
            continue
        try:
            rows = as_rows(rows)
            for _, step in head:
                if hasattr(step, "transform"):  # not "passthrough"
                    frozen = isinstance(step, FrozenFeatures)
                    with isolated_rng(0):
                        rows = step.transform(rows if frozen else _copy(rows))
        except (MemoryError, OSError, OutOfMemoryError):
            raise
        except Exception as error:  # whatever a step may raise
            raise ValueError(
                f"{name} must be rows like those of X, got {rows!r:.60}: {error}"
            ) from error
        shape, wanted = (getattr(each, "shape", (None,)) for each in (rows, X))
        if None not in (*shape, *wanted) and shape[1:] != wanted[1:]:
            raise ValueError(
                f"{name} must be rows like those of X, of shape {tuple(wanted[1:])}, "
                f"got {name} of shape {tuple(shape)}."
            )
        if n_rows(rows) == 0:
            raise ValueError(f"{name} has no rows; pass some, or None.")
        strategy.set_params(**{name: rows})


def behind(head, estimator):
    """Give a Pipeline without its head; the steps are shared.

    Parameters
    ----------
    head : list of tuple
        As `apply_head` gives it.
    estimator : estimator

    Returns
    -------
    estimator : estimator
        Itself where there is no head.
    """
    if not head:
        return estimator
    tail = copy(estimator)
    tail.steps = estimator.steps[len(head) :]
    return tail


def in_front(head, tail):
    """Give a fitted estimator its head again, as a Pipeline; the steps are shared."""
    if not head:
        return tail
    if not isinstance(tail, Pipeline):  # wrapped by a strategy
        return Pipeline([*head, ("estimator", tail)])
    whole = copy(tail)
    whole.steps = [*head, *tail.steps]
    return whole


def is_frozen(head):
    """Tell whether a backbone is among the steps."""
    return any(isinstance(step, FrozenFeatures) for _, step in head)
