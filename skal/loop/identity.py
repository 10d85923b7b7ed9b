"""What a fit is of: its parameters and data, in words that are the same tomorrow."""

import re
from functools import partial

import joblib
import numpy as np
from scipy import sparse
from torch import Tensor, nn

from skal.utils.blocks import BlockRows
from skal.utils.labels import known_labels
from skal.utils.rows import is_dataset, is_frame, n_rows, stack_rows, take
from skal.utils.seeds import isolated_rng

# May differ from one fit to the next that goes on from it.
FREE = {"checkpoint", "memory_limit", "n_rounds", "oracle", "verbose"}
_PLAIN = (bool, bytes, complex, float, int, str, type(None))


def identify(loop, data, params):
    """Describe all that decides what a loop buys and trains.

    Parameters
    ----------
    loop : ActiveLearningLoop
    data : Data
    params : dict
        Further ones of its `fit`.

    Returns
    -------
    about : dict of str to str
        By the names of parameters; arrays as checksums.
    """
    about = {"labels come from": {"simulate": "y", "oracle": "the oracle"}[data.mode]}
    for name, value in loop.get_params(deep=False).items():
        if name not in FREE:
            _describe(value, name, about)
    rows, skipped = np.flatnonzero(~data.missing), np.flatnonzero(data.skipped)
    known = known_labels(data.y, rows).tolist()
    about["X"] = digest(data.given)
    about["y"] = f"{len(rows)} labels {joblib.hash((rows, known))}"
    about["skip"] = f"{len(skipped)} rows {joblib.hash(skipped)}"
    if data.test is not None:
        about["X_test"] = digest(data.test[0])
        about["y_test"] = joblib.hash(data.test[1].tolist())
    for name, value in params.items():
        _describe(value, name, about)
    return about


def _describe(value, name, about):
    """Add what a parameter is, and those in it, without addresses in memory."""
    inner = {}
    if isinstance(value, _PLAIN):
        about[name] = repr(value)
        return
    if isinstance(value, np.generic):
        about[name] = repr(value.item())
        return
    if is_dataset(value) or is_frame(value) or hasattr(value, "shape"):
        about[name] = digest(value)
        return
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        about[name] = f"{value.__module__}.{value.__qualname__}"
        return
    about[name] = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, nn.Module):
        weights = {k: digest(v) for k, v in value.state_dict().items()}
        layers = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
        about[name] += f" {joblib.hash((weights, layers))}"
    elif hasattr(value, "get_params"):
        inner = {f"__{k}": v for k, v in value.get_params(deep=False).items()}
    elif isinstance(value, dict):
        inner = {f"[{k!r}]": v for k, v in value.items()}
    elif isinstance(value, set | frozenset):
        about[name] += f" {sorted(map(repr, value))}"
    elif isinstance(value, list | tuple | range):
        if all(isinstance(each, _PLAIN) for each in value) and len(value) > 20:
            about[name] += f" of {len(value)} {joblib.hash(list(value))}"
        else:
            about[name] += f" of {len(value)}"
            inner = {f"[{k}]": each for k, each in enumerate(value)}
    elif isinstance(value, partial):
        inner = {".func": value.func, ".args": value.args, ".keywords": value.keywords}
    elif name.count(".") < 5:  # of what knows nothing of parameters, deep enough
        inner = {f".{k}": v for k, v in getattr(value, "__dict__", {}).items()}
    for place, each in sorted(inner.items()):
        _describe(each, name + place, about)


def digest(X):
    """Compute a checksum of rows.

    Parameters
    ----------
    X : rows of any container
        Of a Dataset some items count, where they are the same each time.

    Returns
    -------
    checksum : str
    """
    if is_dataset(X):
        rows = np.unique(np.linspace(0, n_rows(X) - 1, 16).astype(int))
        return f"{type(X).__name__} of {n_rows(X)} items {_digest_items(take(X, rows))}"
    if isinstance(X, dict):
        return " ".join(f"{name}: {digest(part)}" for name, part in sorted(X.items()))
    shape = tuple(X.shape)
    if isinstance(X, BlockRows):
        parts = list(map(joblib.hash, X.each()))
    elif is_frame(X):
        columns = [(str(name), str(X[name].dtype)) for name in X.columns]
        parts = [columns, *(X[name].to_numpy() for name in X.columns)]
    elif sparse.issparse(X):
        X = sparse.csr_matrix(X)
        parts = [X.indptr, X.indices, X.data]
    else:
        parts = [X.numpy(force=True) if isinstance(X, Tensor) else np.asarray(X)]
    return f"{type(X).__name__} of shape {shape} {joblib.hash(parts)}"


def _digest_items(items):
    found = []
    for _ in range(2):
        with isolated_rng(0):
            try:
                found.append(joblib.hash(stack_rows(items).numpy(force=True)))
            except ValueError:
                return ""
    return found[0] if found[0] == found[1] else ""
