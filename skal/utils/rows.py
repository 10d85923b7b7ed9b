"""Rows of any container: array, DataFrame, sparse matrix, tensor, list or Dataset."""

import math
import mmap
import os

import numpy as np
import torch
from scipy import sparse
from skorch.helper import SliceDict
from torch import Tensor, as_tensor
from torch.utils.data import Dataset

from skal.utils.blocks import BlockRows, is_lazy_array
from skal.utils.labels import read_labels
from skal.utils.seeds import isolated_rng

# Up to so many items are all compared with `targets`, and a sample of more.
N_COMPARED, N_SAMPLED = 5000, 1000
# Numbers that are looked at at once.
N_NUMBERS = 2**20


class ItemError(RuntimeError):
    """Raised where a Dataset does not give an item; says which."""


class DatasetRows(Dataset):
    """Some rows of a map-style Dataset (or array), with labels of our own.

    Items are loaded when they are asked for, so nothing is stacked in memory; labels
    the Dataset itself holds never get through.

    Parameters
    ----------
    dataset : torch Dataset
        Items are `x` or a tuple that starts with `x`.
    rows : array of int, shape (n_rows,)
        Which items, in which order.
    y : array of shape (n_rows,), default=None
        Labels; None gives 0 for every row.
    alike : bool, default=False
        Raise where an item has another shape than the first of its batch.
    """

    def __init__(self, dataset, rows, y=None, alike=False):
        if isinstance(dataset, DatasetRows):  # so that errors name its items
            dataset, rows = dataset.dataset, np.asarray(dataset.rows)[rows]
        self.dataset = dataset
        self.rows = rows
        self.y = y
        self.alike = alike

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, position):
        return self.__getitems__([position])[0]

    def __getitems__(self, positions):
        """Items of a whole batch, which is how a DataLoader asks for them."""
        dataset, rows = self.dataset, np.asarray(self.rows)[positions].tolist()
        items = _items(dataset, rows)
        if isinstance(items[0], tuple | list):
            items = [item[0] for item in items]
        items = [_plain(x) for x in items]
        if self.alike:
            _check_alike(items, rows)
        if self.y is None:
            return [(x, 0) for x in items]
        return [(x, self.y[p]) for x, p in zip(items, positions, strict=True)]


def _items(dataset, rows):
    """Get items of a Dataset; an error says which."""
    get = dataset.__getitem__
    if not callable(getattr(dataset, "__getitems__", None)):
        return [_item(get, row) for row in rows]
    try:
        return _item(dataset.__getitems__, rows)
    except ItemError:
        if type(dataset).__getitem__ is not Dataset.__getitem__:
            for row in rows:  # to say which of them it is
                _item(get, row)
        raise


def _item(get, row):
    try:
        return get(row)
    except Exception as error:  # the user's code may raise anything
        if type(error).__module__.startswith("skal."):  # says what is wrong itself
            raise
        raise ItemError(
            f"the Dataset raised {type(error).__name__} for item {row}: {error}. "
            "Repair it, or leave it out, as with torch.utils.data.Subset."
        ) from error


def _check_alike(items, rows):
    shapes = [getattr(x, "shape", None) for x in items]
    for row, shape in zip(rows, shapes, strict=True):
        if shape != shapes[0]:
            raise ItemError(
                f"item {row} of the Dataset has shape {shape}, unlike item {rows[0]} "
                f"of shape {shapes[0]}; let all have one, or give the net an "
                "iterator_valid__collate_fn that makes them alike."
            )


def _plain(x):
    """Copy what torch cannot share: read-only memory, negative strides; cut graphs."""
    if isinstance(x, Tensor):
        return x.detach() if x.requires_grad else x
    if isinstance(x, np.ndarray):
        return x if x.flags.writeable and min(x.strides, default=0) >= 0 else x.copy()
    return x


def is_dataset(X):
    """Tell whether `X` is a torch Dataset."""
    return isinstance(X, Dataset)


def is_frame(X):
    """Tell whether `X` is a DataFrame, of pandas, polars or their like."""
    return hasattr(X, "to_numpy") and hasattr(X, "columns")


def as_rows(X):
    """Make a container that can be counted and indexed by row.

    Parameters
    ----------
    X : rows of any container
        A dict holds the parts of an input by name.

    Returns
    -------
    X : the same rows
        Sparse formats as CSR, a dict as a SliceDict, a dask array as BlockRows, lists
        and tables of Arrow as an array.

    Raises
    ------
    TypeError, ValueError
        Where it has no rows, as a lazy frame.
    """
    if sparse.issparse(X):
        return sparse.csr_matrix(X)
    if isinstance(X, dict):
        return SliceDict(**{name: _part(name, part) for name, part in X.items()})
    if is_lazy_array(X):
        return BlockRows(X)
    if is_dataset(X) or is_frame(X):
        return X
    if hasattr(X, "shape") and not hasattr(X, "columns"):
        check_mapped(X)
        return X
    if not isinstance(X, list | tuple) and not hasattr(X, "__array__"):
        raise TypeError(
            f"X is a {type(X).__name__}, whose rows cannot be taken; pass an array, a "
            "DataFrame (collected, if it is lazy), a torch Dataset, or, of Parquet "
            "files, skal.datasets.ParquetRows(files)."
        )
    if isinstance(X, list | tuple) and X and all(map(_is_parquet, X)):
        raise TypeError(
            f"X holds names of Parquet files, such as {str(X[0])!r}, not rows; pass "
            "skal.datasets.ParquetRows(files)."
        )
    return np.asarray(X)


def _is_parquet(row):
    return isinstance(row, str | os.PathLike) and str(row).endswith(".parquet")


def check_mapped(X):
    """Raise where the file of a memory map has shrunk: reading on would be fatal."""
    start = 0
    while isinstance(X, np.ndarray):
        start, X = getattr(X, "offset", start), X.base
    if not isinstance(X, mmap.mmap):
        return
    size = start - start % mmap.ALLOCATIONGRANULARITY + len(X)
    if X.size() < size:
        raise ValueError(
            f"X is a memory map whose file has shrunk from {size} to {X.size()} bytes "
            "or less; write it anew under another name, and map that."
        )


def _part(name, part):
    if isinstance(part, Tensor):
        return part.detach()
    try:
        part = native(np.asarray(part))
    except ValueError:  # of several lengths
        part = np.empty(0, dtype=object)
    if part.ndim == 0 or part.dtype.kind not in "biufc":
        raise ValueError(
            f"X[{name!r}] is no array of numbers with one entry a row; pass one for "
            "each part of a dict."
        )
    return part


def n_rows(X):
    """Count the rows of `X`."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def take(X, rows):
    """Take rows of `X` in the given order, as the same kind of container.

    Parameters
    ----------
    X : array, DataFrame, CSR matrix, tensor, SliceDict, BlockRows, list or Dataset
        A Dataset gives a lazy `DatasetRows`; all else is copied.
    rows : array of int
        Positions.
    """
    if is_dataset(X):
        return DatasetRows(X, rows)
    if hasattr(X, "iloc"):
        return X.iloc[rows].copy()  # else it may share memory, written to in place
    if isinstance(X, Tensor):
        return X[as_tensor(rows, device=X.device)]
    if isinstance(X, list | tuple):
        return [X[row] for row in rows]
    check_mapped(X)
    return X[rows]


def restrict(X, rows):
    """Take rows as they travel to another process: a dask array stays lazy.

    Parameters
    ----------
    X : rows of any container
    rows : int64 array or None
        None is all.

    Returns
    -------
    X : the same kind of container
    rows : int64 array or None
        The same rows, in what is returned.
    """
    if rows is None:
        return X, None
    if isinstance(X, BlockRows):
        return X.restrict(rows)
    return take(X, rows), None


def spread(X, rows, rng):
    """Order rows so that each piece of the order is a random part, cheap to read.

    Parameters
    ----------
    X : rows of any container
    rows : int64 array of shape (n_rows,)
    rng : numpy.random.Generator

    Returns
    -------
    order : int64 array of shape (n_rows,)
        Positions in `rows`, in random order; of a dask array block after block.
    """
    if isinstance(X, BlockRows):
        return X.spread(rows, rng)
    return rng.permutation(len(rows))


def telling_rows(X, n_rows_at_most=40):
    """Choose rows to try something with: evenly spread ones, and some with holes.

    Parameters
    ----------
    X : rows of any container
    n_rows_at_most : int, default=40
        Half as many with NaN or infinite entries may join them.

    Returns
    -------
    rows : int64 array
        Ascending.
    """
    n = n_rows(X)
    rows = np.linspace(0, n - 1, min(n, n_rows_at_most)).astype(np.int64)
    holes = np.zeros(n, dtype=bool)
    if hasattr(X, "isna"):
        holes = X.isna().to_numpy().reshape(n, -1).any(axis=1)  # a Series, too
    elif isinstance(X, np.ndarray) and X.dtype.kind == "f":
        step = max(1, N_NUMBERS // max(1, math.prod(X.shape[1:])))
        for start in range(0, n, step):  # of a memory map no more are in memory
            finite = np.isfinite(X[start : start + step])
            holes[start : start + step] = ~finite.all(axis=tuple(range(1, X.ndim)))
    return np.union1d(rows, np.flatnonzero(holes)[: n_rows_at_most // 2])


def is_numeric(rows):
    """Tell whether rows are an array of numbers."""
    return isinstance(rows, np.ndarray) and rows.dtype.kind in "biuf"


def is_shared(rows):
    """Tell whether `dense_rows` shares the memory of rows."""
    return (
        is_numeric(rows)
        and rows.dtype in (np.float32, np.float64)
        and rows.flags.c_contiguous
        and rows.flags.writeable
    )


def native(rows):
    """Contiguous, writable, native byte order: what torch takes without a warning.

    Floats of more than eight bytes become float64.
    """
    dtype = rows.dtype.newbyteorder("=")
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.float64
    rows = np.ascontiguousarray(rows, dtype=dtype)
    return rows if rows.flags.writeable else rows.copy()


def stack_rows(rows):
    """Make one dense tensor of rows; those of a Dataset are loaded.

    Parameters
    ----------
    rows : array, DataFrame, sparse matrix, tensor, list or Dataset

    Returns
    -------
    stacked : tensor of shape (n_rows, ...)

    Raises
    ------
    ValueError
        Where they are no numbers, or of several shapes.
    """
    if isinstance(rows, Tensor):
        return rows.detach()
    try:
        if is_dataset(rows):
            items = DatasetRows(rows, np.arange(len(rows)))
            items = items.__getitems__(range(len(rows)))
            return torch.stack([as_tensor(x).detach() for x, _ in items])
        rows = rows.toarray() if sparse.issparse(rows) else rows
        rows = frame_to_array(rows) if is_frame(rows) else np.asarray(rows)
        rows = rows if rows.dtype.kind in "biuf" else rows.astype(float)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            "the rows are no arrays of numbers of one shape; put an encoder before the "
            "classifier in a Pipeline, let a Dataset give tensors of one shape, or use "
            "a strategy that reads embeddings or predictions."
        ) from error
    return torch.from_numpy(native(rows))


def flat_rows(rows):
    """Make flat rows of floating-point numbers; those of a Dataset are loaded."""
    rows = stack_rows(rows)
    rows = rows if rows.is_floating_point() else rows.double()
    return rows.reshape(len(rows), -1)


def dense_rows(rows):
    """Make flat rows of numbers that stand for embeddings; raise where they cannot."""
    if is_dataset(rows):
        raise ValueError(
            "X is a Dataset, whose rows are no embeddings; use a skorch net."
        )
    if n_rows(rows) == 0:
        raise ValueError("the pool is empty: X has no rows.")
    if sparse.issparse(rows):
        rows = rows.toarray()
    if not isinstance(rows, Tensor):
        try:
            rows = np.asarray(rows)
            rows = (
                rows if rows.dtype in (np.float32, np.float64) else rows.astype(float)
            )
        except (TypeError, ValueError) as error:
            raise ValueError(
                "the rows are not numeric, so they are no embeddings; put an encoder "
                "before the classifier in a Pipeline."
            ) from error
        rows = torch.from_numpy(native(rows))
    return rows.reshape(len(rows), -1)


def frame_to_array(frame):
    """Turn a DataFrame into a writable array; mixed columns and holes give floats."""
    rows = np.array(frame)
    if rows.dtype.kind in "biuf":
        return rows
    try:
        if hasattr(frame, "iloc"):  # pandas makes NaN of its missing values
            dtypes = {getattr(dtype, "numpy_dtype", dtype) for dtype in frame.dtypes}
            numbers = all(getattr(dtype, "kind", "O") in "biuf" for dtype in dtypes)
            whole = numbers and not frame.isna().to_numpy().any()
            if whole:
                return frame.to_numpy(dtype=np.result_type(*dtypes), copy=True)
            return frame.to_numpy(dtype=np.float64, copy=True, na_value=np.nan)
        return rows.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "X has columns that are not numbers, which a network cannot take; put an "
            "encoder before it in a Pipeline."
        ) from error


def has_targets(dataset):
    """Tell whether a Dataset holds labels of its own."""
    return getattr(dataset, "targets", None) is not None or _is_pair(dataset[0])


def _is_pair(item):
    return isinstance(item, tuple | list) and len(item) > 1


def dataset_targets(dataset):
    """Read the labels that a Dataset gives: the second part of each item.

    `targets`, where there are any, spare loading all items. They may be other labels: a
    `target_transform` or a subclass relabels items, not `targets`. So some items, or
    all where they are few, are compared with them, and at the first that differs all
    are loaded.

    Parameters
    ----------
    dataset : torch Dataset
        With `targets`, up to 5,000 items are loaded once, and 1,000 of more; without,
        or under a `target_transform`, every item.

    Returns
    -------
    y : array of shape (n_rows,)

    Raises
    ------
    ValueError
        Where there are neither `targets` nor pairs.
    """
    n_rows, targets = len(dataset), getattr(dataset, "targets", None)
    with isolated_rng(0):  # augmentation draws from the global generators
        if not has_targets(dataset):
            raise ValueError(
                "y is None and the Dataset has neither `targets` nor items (x, y); "
                "pass y."
            )
        if targets is not None:
            targets = read_labels(targets)
            if not _is_pair(dataset[0]):
                return targets
            if getattr(dataset, "target_transform", None) is None:
                rows = np.arange(n_rows)
                if n_rows > N_COMPARED:
                    rows = np.random.default_rng(0).choice(n_rows, N_SAMPLED, False)
                if len(targets) == n_rows and np.array_equal(
                    _item_labels(dataset, rows), targets[rows]
                ):
                    return targets
        return _item_labels(dataset, range(n_rows))


def _item_labels(dataset, rows):
    labels = [dataset[int(row)][1] for row in rows]
    for label in labels:
        if getattr(label, "ndim", 0) and math.prod(label.shape) > 1:
            raise ValueError(
                f"the Dataset gives labels of shape {tuple(label.shape)}; let its "
                "items hold one label each, such as the number of a class."
            )
    return read_labels([y.item() if hasattr(y, "item") else y for y in labels])
