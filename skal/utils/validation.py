"""Checks of parameters and rows; the one file that imports private scikit-learn."""

import sys
import warnings
from contextlib import contextmanager, nullcontext
from functools import wraps
from numbers import Integral
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import _fit_context as fit_context  # noqa: F401
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, get_tags
from sklearn.utils._param_validation import HasMethods as _HasMethods
from sklearn.utils._param_validation import (  # noqa: F401
    Interval,
    InvalidParameterError,
    StrOptions,
)
from sklearn.utils.metadata_routing import (
    _raise_for_params,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.validation import (
    _check_method_params,
    check_is_fitted,
    validate_data,
)
from skorch import NeuralNet
from skorch.helper import SliceDict
from torch import Tensor

from skal.utils.blocks import BlockRows
from skal.utils.rows import as_rows, is_dataset, is_frame, take, telling_rows
from skal.utils.seeds import isolated_rng

try:  # scikit-learn >= 1.9
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # older: what the loop needs of it

    class CallbackSupportMixin:
        """Stand-in where scikit-learn has no callbacks."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Set callbacks of the estimator."""
            self._skl_callbacks = list(callbacks)
            return self

        def _init_callback_context(self, task_name="fit", **kwargs):
            task = _Task(self._skl_callbacks, task_name) if callbacks_of(self) else None
            for callback in callbacks_of(self):
                callback.setup(self, task)
            return task

    class _Task:
        def __init__(self, callbacks, task_name):
            self.callbacks, self.task_name = callbacks, task_name

        def subcontext(self, task_name):
            return _Task(self.callbacks, task_name)

        def call_on_fit_task_begin(self, estimator, **begin):
            for callback in self.callbacks:
                callback.on_fit_task_begin(estimator, self)

        def call_on_fit_task_end(self, estimator, **begin):
            ends = [each.on_fit_task_end(estimator, self) for each in self.callbacks]
            return any(ends)

    def with_callbacks(method):
        """Tear callbacks down after `method`."""

        @wraps(method)
        def managed(estimator, *args, **kwargs):
            try:
                return method(estimator, *args, **kwargs)
            finally:
                for callback in callbacks_of(estimator):
                    callback.teardown(estimator, None)

        return managed


def callbacks_of(estimator):
    """List the callbacks of an estimator."""
    return [*getattr(estimator, "_skl_callbacks", ())]


class HasMethods(_HasMethods):
    """Satisfied by an object with these methods, not by its class."""

    def is_satisfied_by(self, val):
        """Tell whether a value satisfies it."""
        return not isinstance(val, type) and super().is_satisfied_by(val)


@contextmanager
def callback_task(context, owner, sub_estimator=None, **begin):
    """Run a block as one task of the callbacks; yields a list that may get a "stop"."""
    requests = []
    if context is None:
        yield requests
        return
    context.call_on_fit_task_begin(estimator=owner, **begin)
    propagate = (
        context.propagate_callback_context(sub_estimator)
        if hasattr(sub_estimator, "set_callbacks")
        else nullcontext()
    )
    with propagate:
        yield requests
    if context.call_on_fit_task_end(estimator=owner, **begin):
        requests.append("stop")


def routed_params(owner, method, params):
    """Parameters that metadata routing sends to the sub-estimator's `method`."""
    if not _routing_enabled():
        _raise_for_params(params, owner, method)
        return {}
    return process_routing(owner, method, **params).estimator.get(method, {})


def slice_rows(n_samples, params, rows):
    """Cut the parameters that have one entry for each of `n_samples` to `rows`."""
    return _check_method_params(np.empty((n_samples, 0)), params, indices=rows)


def metric_around():
    """Name the metric under which a search or cross-validation fits the caller.

    Returns
    -------
    name : str or None
        Of a metric of scikit-learn, which scores all rows; None outside of
        `sklearn.model_selection`, and for the estimator's own `score` or other code of
        the user, which may leave rows out.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("sklearn.model_selection"):
            scorer = frame.f_locals.get("scorer", frame.f_locals.get("scorers"))
            for each in getattr(scorer, "_scorers", {"score": scorer}).values():
                metric = getattr(each, "_score_func", None)
                if getattr(metric, "__module__", "").startswith("sklearn."):
                    return metric.__name__
        frame = frame.f_back
    return None


def check_params(estimator):
    """Validate the parameters of an estimator, and of estimators among them.

    Parameters
    ----------
    estimator : estimator
        Its `_parameter_constraints`, as in scikit-learn, say what is allowed;
        parameters without an entry are not validated.

    Raises
    ------
    ValueError
        Names the parameter and what is allowed.
    """
    for each in (estimator, *estimator.get_params().values()):
        if hasattr(each, "_parameter_constraints") and not isinstance(each, type):
            each._validate_params()


def check_n_samples(n):
    """Validate a number of rows to pick and return it as an int.

    Raises
    ------
    TypeError
        Where it is no integer.
    ValueError
        Where it is below 1.
    """
    if isinstance(n, bool | np.bool_) or not isinstance(n, Integral):
        raise TypeError(f"n_samples must be an integer >= 1, got {n!r}.")
    if n < 1:
        raise ValueError(f"n_samples must be an integer >= 1, got {n}.")
    return int(n)


def check_row_numbers(rows, n_samples, name):
    """Validate distinct row numbers between 0 and `n_samples - 1`."""
    array = np.asarray(rows)
    if (
        array.ndim != 1
        or len(array) == 0
        or array.dtype.kind not in "iu"
        or len(np.unique(array)) < len(array)
        or array.min() < 0
        or array.max() >= n_samples
    ):
        raise ValueError(
            f"{name} must hold distinct row numbers between 0 and {n_samples - 1}, got "
            f"{rows!r}."
        )


def entry_estimator(estimator):
    """First estimator that rows meet: step one of a Pipeline, inside of a search."""
    while True:
        if isinstance(estimator, Pipeline):
            steps = [s for _, s in estimator.steps if s not in (None, "passthrough")]
            estimator = steps[0]
        elif hasattr(estimator, "refit") and hasattr(estimator, "estimator"):
            estimator = estimator.estimator
        else:
            return estimator


def check_rows(owner, X, estimator, *, accept_sparse, reset):
    """Validate rows before any expensive work, and record features on `owner`.

    Parameters
    ----------
    owner : estimator
        Gets `n_features_in_` and `feature_names_in_` when `reset`.
    X : array-like, DataFrame, sparse matrix, tensor or Dataset
        Rows; images of any number of dimensions pass.
    estimator : estimator
        Its tags say whether NaN, text and sparse rows are welcome.
    accept_sparse : bool
        Whether sparse rows are.
    reset : bool
        True in `fit`, False in `predict`.

    Returns
    -------
    X : the same rows; lists become arrays, sparse formats CSR.
    """
    if is_dataset(X):
        if not hasattr(X, "__getitem__") or not hasattr(X, "__len__"):
            raise TypeError(
                f"X must be a map-style Dataset with len(), got {type(X).__name__}; "
                "an IterableDataset has no rows to choose from."
            )
        return X
    entry = entry_estimator(estimator)
    if not isinstance(X, list | tuple) and not sparse.issparse(X):
        X = as_rows(X)
    if isinstance(X, SliceDict):
        return _check_parts(owner, X, estimator, entry, reset)
    tags = get_tags(entry).input_tags
    if isinstance(X, BlockRows):
        _check_blocks(X, tags)
    composite = hasattr(entry, "transformers") or hasattr(entry, "transformer_list")
    if isinstance(X, Tensor):
        if X.layout != torch.strided:
            raise TypeError(
                f"X is a sparse tensor, {X.layout}, whose rows cannot be taken; pass a "
                "sparse matrix of scipy, or X.to_dense()."
            )
        if (
            X.is_floating_point()
            and not tags.allow_nan
            and not bool(X.isfinite().all())
        ):
            raise ValueError("Input X contains NaN or infinity.")
        if X.ndim < 2:
            raise ValueError(f"X must have at least 2 dimensions, got {X.ndim}.")
        return X.detach()
    lazy = isinstance(X, BlockRows)
    if not (lazy or composite or tags.string or not tags.two_d_array):
        frame = X if is_frame(X) else None
        _check_no_paths(X)
        try:
            X = check_array(
                X,
                accept_sparse="csr" if accept_sparse else False,
                accept_large_sparse=False,
                dtype="numeric" if not tags.categorical else None,
                ensure_all_finite=not tags.allow_nan,
                allow_nd=True,
                estimator=owner,
                input_name="X",
            )
            if X.dtype == object and not tags.categorical:
                raise ValueError(
                    "X has columns that are not numbers; put an encoder before the "
                    "classifier in a Pipeline."
                )
        except (TypeError, ValueError):
            if frame is None or (reset and not _learns_from(estimator, entry, frame)):
                raise
        if frame is not None:
            X = frame
    elif sparse.issparse(X):
        X = X.tocsr()
    if is_frame(X) or getattr(X, "ndim", 0) == 2:
        validate_data(owner, X, reset=reset, skip_check_array=True)
    elif reset:
        for name in ("n_features_in_", "feature_names_in_"):
            owner.__dict__.pop(name, None)
        if getattr(X, "ndim", 0) > 2:
            owner.n_features_in_ = int(X.shape[1])
    return X


def _check_blocks(X, tags):
    if X.dtype.kind not in "biuf" or X.ndim < 2:
        raise ValueError(
            f"X is a dask array of dtype {X.dtype} and shape {X.shape}; make it one of "
            "numbers with at least 2 dimensions."
        )
    if X.dtype.kind == "f" and not tags.allow_nan:
        if not all(np.isfinite(block).all() for block in X.each()):
            raise ValueError("Input X contains NaN or infinity.")


def _check_parts(owner, X, estimator, entry, reset):
    """Validate the parts of an input that a network takes by name."""
    hands_on = get_tags(entry).no_validation
    inner = estimator.get_params().values() if hands_on else entry.get_params().values()
    if not any(isinstance(each, NeuralNet) for each in (entry, *inner)):
        raise TypeError(
            f"X is a dict, which {type(entry).__name__} cannot take; pass an array or "
            "a DataFrame."
        )
    if reset:
        owner._parts = set(X)
    elif set(X) != owner._parts:
        raise ValueError(
            f"X has the parts {sorted(X)}, but fit saw {sorted(owner._parts)}."
        )
    return X


def _check_no_paths(X):
    if isinstance(X, list | tuple | np.ndarray) and len(X):
        if isinstance(X[0], str | PathLike):
            raise ValueError(
                f"X holds text such as {str(X[0])!r}, not rows of numbers. If these "
                "are names of files, pass a torch Dataset that loads them; if they "
                "are texts, put a vectorizer before the classifier in a Pipeline."
            )


def _learns_from(estimator, entry, frame):
    """Tell whether an estimator takes columns that are no numbers, by trying some."""
    kinds = [str(dtype) for dtype in frame.dtypes]
    numbers = all(kind.lower().startswith(("int", "uint", "float")) for kind in kinds)
    if isinstance(entry, NeuralNet) or numbers or not len(frame):
        return False
    rows = telling_rows(frame)
    try:
        with warnings.catch_warnings(), isolated_rng(0):
            warnings.simplefilter("ignore")
            clone(estimator).fit(take(frame, rows), np.arange(len(rows)) % 2)
    except Exception:  # whatever it raises on what it cannot take
        return False
    return True


# Of a parameter `n_jobs`: processes, or with -1 and below all cores but some.
N_JOBS = [
    Interval(Integral, 1, None, closed="left"),
    Interval(Integral, None, -1, closed="right"),
    None,
]

__all__ = [
    "N_JOBS",
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "StrOptions",
    "callback_task",
    "callbacks_of",
    "check_is_fitted",
    "check_n_samples",
    "check_params",
    "check_row_numbers",
    "check_rows",
    "entry_estimator",
    "fit_context",
    "metric_around",
    "routed_params",
    "slice_rows",
    "with_callbacks",
]
