"""Run a fitted network over rows as prediction does, and leave no trace."""

from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import Dataset as SkorchDataset
from skorch.dataset import unpack_data
from torch import nn
from torch.utils.data import DataLoader

from skal.net.batches import BatchLoader, batch_of, is_plain
from skal.net.inputs import CastInputs, cast_inputs, modes_kept, net_rows
from skal.net.training import is_net
from skal.utils.rows import DatasetRows, is_dataset, is_frame, n_rows, take
from skal.utils.seeds import isolated_rng


def check_has_layers(final):
    """Raise where an estimator is no network."""
    if not is_net(final):
        raise ValueError(
            "this strategy needs inner layers of a network, which "
            f"{type(final).__name__} does not have; use a skorch net."
        )


def has_method(final, name):
    """Tell whether an estimator has a method, or will have it once it is fitted."""
    # Without one, a StackingClassifier takes a LogisticRegression to the end.
    stacks = getattr(final, "final_estimator", "") is None
    return hasattr(final, name) or stacks


def check_has_proba(final, *, or_decisions=False):
    """Raise where an estimator gives no probabilities, nor decision values if allowed.

    Parameters
    ----------
    final : estimator
        Fitted or not.
    or_decisions : bool, default=False
        Whether `decision_function` will do.
    """
    if has_method(final, "predict_proba"):
        return
    name = type(final).__name__
    if not has_method(final, "decision_function"):
        raise ValueError(
            f"{name} has no predict_proba, which this strategy needs; use a "
            "probabilistic classifier."
        )
    if not or_decisions:
        raise ValueError(
            f"{name} has no predict_proba, which this strategy needs; wrap it in "
            "CalibratedClassifierCV, or use a strategy that takes decision values "
            "instead, such as UHerdingQuery, MarginQuery, LeastConfidenceQuery or "
            "BadgeQuery, without a posterior."
        )
    if getattr(final, "decision_function_shape", "ovr") == "ovo":
        raise ValueError(
            f"{name} with decision_function_shape='ovo' gives decision values of pairs "
            "of classes; set decision_function_shape='ovr'."
        )


def check_count(net, n_outputs, n_rows):
    """Raise where a net did not give one output for each row."""
    if n_outputs != n_rows:
        raise ValueError(
            f"{type(net).__name__} gave {n_outputs} rows of outputs for a pool of "
            f"{n_rows} rows; leave drop_last and sampler out of iterator_valid__..., "
            "and let the network give one row a sample."
        )


PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision):
    """Raise where a precision is none; returns it."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"precision must be None, 'bfloat16' or 'float16', got {precision!r}."
        )
    return precision


@contextmanager
def mixed(net, precision):
    """Let a net multiply in a lower precision, where that is not None.

    Parameters
    ----------
    net : skorch net
    precision : {None, "bfloat16", "float16"}

    Yields
    ------
    whole : callable
        Turns what the network gives into float32 where it is of that precision.
    """
    if precision is None:
        yield lambda tensor: tensor
        return
    lower = PRECISIONS[precision]
    with torch.autocast(torch.device(net.device).type, dtype=lower):
        yield lambda tensor: tensor.float() if tensor.dtype == lower else tensor


@contextmanager
def running(net, seed):
    """Leave generators, training flags and compiled code as they are.

    Parameters
    ----------
    net : skorch net
    seed : int
        Of the global generators in the block.

    Yields
    ------
    modules : list of nn.Module
        All of the net, and its criteria: evaluation switches their flags off.
    """
    parts = [getattr(net, f"{name}_") for name in (*net._modules, *net._criteria)]
    parts = [part for part in parts if isinstance(part, nn.Module)]
    with modes_kept(parts) as modules, isolated_rng(seed), _eager(net.module_):
        yield modules


def _eager(module):
    """Keep compiled code out of a hooked pass: it ignores hooks, or compiles anew."""
    compiled = any(
        hasattr(part, "_orig_mod") or part._compiled_call_impl is not None
        for part in module.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def batch_size(net, n_rows):
    """How many of the rows a net predicts at once."""
    size = net.get_params_for("iterator_valid").get("batch_size", net.batch_size)
    return n_rows if size == -1 else size


def predict_batches(net, X, rows=None):
    """Yield the batches of `net.predict_proba`, those of arrays without a loader.

    The net's batch size is kept, because floats depend on batch mates.

    Parameters
    ----------
    net : skorch net
    X : rows of any container
    rows : int64 array of shape (n_samples,), default=None
        Which of them, in which order; None takes all.

    Yields
    ------
    x, y : as the net's own loader gives them, the inputs cast
    """
    options = net.get_params_for("iterator_valid")
    X = net_rows(net, X) if is_frame(X) else X
    X = X.detach() if isinstance(X, torch.Tensor) else X
    if options.get("shuffle"):
        raise ValueError(
            "iterator_valid__shuffle=True would mix up the rows of the pool; leave "
            "it out."
        )
    plain = (
        is_plain(X)
        and net.dataset is SkorchDataset
        and not _overridden(net, "get_dataset", "get_iterator")
        and net.iterator_valid in (DataLoader, BatchLoader)
        and not net.get_params_for("dataset")
        and set(options) <= {"batch_size", "num_workers", "pin_memory"}
    )
    if plain:
        n = n_rows(X) if rows is None else len(rows)
        size = batch_size(net, n)
        for start in range(0, n, size):
            stop = min(start + size, n)
            batch = batch_of(
                X, slice(start, stop) if rows is None else rows[start:stop]
            )
            yield cast_inputs(batch, net), torch.zeros(stop - start)
        return
    if is_dataset(X):
        rows = np.arange(n_rows(X)) if rows is None else rows
        loader = net.iterator_valid in (DataLoader, BatchLoader)
        X = DatasetRows(X, rows, alike=loader and "collate_fn" not in options)
    elif rows is not None:
        X = take(X, rows)
    X = net_rows(net, X)
    for batch in net.get_iterator(net.get_dataset(X), training=False):
        x, y = unpack_data(batch)
        yield cast_inputs(x, net), y


def _overridden(net, *names):
    own = [c for c in type(net).__mro__ if c not in (CastInputs, NeuralNet)]
    return any(name in vars(cls) for cls in own for name in names)
