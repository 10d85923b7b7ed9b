"""Classes, splits and channel statistics; what every kind of data shares."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import train_test_split

_BLOCK = 256
_MISSING = ("", "?", "nan", "None")


def label_names(labels):
    """Write each label as text; equal numbers get equal text, as in "1" and "1.0".

    Parameters
    ----------
    labels : array-like of shape (n_samples,)

    Returns
    -------
    names : ndarray of str of shape (n_samples,)
    """
    unique, codes = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    return np.array([_text(str(label).strip()) for label in unique])[codes]


def _text(label):
    number = as_number(label)
    if not np.isfinite(number):
        return label
    return str(int(number)) if number.is_integer() else repr(number)


def as_number(text):
    """Read a number; NaN where there is none.

    Parameters
    ----------
    text : str

    Returns
    -------
    number : float
    """
    try:
        return float(text)
    except ValueError:
        return float("nan")


def find_classes(names, source):
    """Sort the classes, by value where all are numbers.

    Parameters
    ----------
    names : ndarray of str of shape (n_samples,)
        As :func:`label_names` returns them.
    source : str
        What errors call the data.

    Returns
    -------
    classes : tuple of str
    """
    unique, first = np.unique(names, return_index=True)
    for name, row in zip(unique, first, strict=True):
        if name in _MISSING:
            raise ValueError(
                f"{source} has the label {str(name)!r} in row {row}, counted from 0: "
                "labels must be complete; fill it in or remove the row."
            )
    if len(unique) < 2:
        raise ValueError(
            f"{source} must have two classes at least, got {unique.tolist()}."
        )
    if len(unique) > max(20, len(names) / 2):
        raise ValueError(
            f"{source} has {len(unique)} different labels in {len(names)} rows, which "
            "are hardly classes; name another label_column, or group the values."
        )
    values = [as_number(name) for name in unique]
    order = np.argsort(values, kind="stable") if np.isfinite(values).all() else ...
    return tuple(unique[order].tolist())


def encode(names, classes, test_path):
    """Turn labels into positions in `classes`.

    Parameters
    ----------
    names : ndarray of str of shape (n_samples,)
    classes : tuple of str
    test_path : path-like
        Where the labels come from.

    Returns
    -------
    y : ndarray of int64 of shape (n_samples,)
    """
    unique, positions = np.unique(names, return_inverse=True)
    codes = {name: code for code, name in enumerate(classes)}
    unknown = [name for name in unique.tolist() if name not in codes]
    if unknown:
        raise ValueError(
            f"test_path={str(test_path)!r} has the classes {unknown[:5]}, which the "
            f"training data lacks; it has {list(classes[:10])}"
            f"{' and more' * (len(classes) > 10)}. Remove these rows or rename them."
        )
    return np.array([codes[name] for name in unique.tolist()], np.int64)[positions]


def check_test_size(test_size):
    """Raise unless `test_size` is a share in (0, 1) or a whole number from 1.

    Parameters
    ----------
    test_size : float or int
    """
    whole = isinstance(test_size, Integral) and not isinstance(test_size, bool)
    share = isinstance(test_size, Real) and not whole and 0 < test_size < 1
    if not share and not (whole and test_size >= 1):
        raise ValueError(
            "test_size must be a share between 0 and 1 or a number of rows, got "
            f"{test_size!r}."
        )


def split_rows(y, classes, test_size, seed):
    """Draw the rows of the test split, stratified where the sizes permit it.

    Parameters
    ----------
    y : ndarray of int64 of shape (n_samples,)
    classes : tuple of str
    test_size : float or int
        Share or number of test rows.
    seed : int

    Returns
    -------
    train, test : ndarray of int64
        Sorted positions.

    Warns
    -----
    UserWarning
        Where a class has one row, which goes to the training rows, or where the split
        is too small to hold every class.
    """
    rows, counts = np.arange(len(y)), np.bincount(y, minlength=len(classes))
    alone = counts[y] == 1
    free = rows[~alone]
    n_test = test_size if test_size >= 1 else int(np.ceil(test_size * len(free)))
    if not 0 < n_test < len(free):
        raise ValueError(
            f"test_size={test_size!r} must leave rows on both sides of the split, got "
            f"{len(y)} rows, {len(free)} of them in classes of two at least; pass "
            "another test_size, or test_path."
        )
    if alone.any():
        names = [classes[code] for code in np.flatnonzero(counts == 1)]
        warnings.warn(
            f"The classes {names[:10]} have one row each, which goes to the training "
            "rows: the test rows cannot score these classes.",
            stacklevel=2,
        )
    n_classes = np.count_nonzero(counts > 1)
    stratify = y[free]
    if min(n_test, len(free) - n_test) < n_classes:
        stratify = None
        warnings.warn(
            f"test_size={test_size!r} leaves {len(free) - n_test} training and "
            f"{n_test} test rows, too few for {n_classes} classes on both sides: the "
            "split is not stratified.",
            stacklevel=2,
        )
    train, test = train_test_split(
        free, test_size=test_size, stratify=stratify, random_state=seed
    )
    return np.sort(np.r_[train, rows[alone]]), np.sort(test)


def split_arrays(X, y, classes, test_size, seed):
    """Split rows inside the memory of `X`, which is reordered.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)
        Becomes the memory of both parts; only the test rows are ever copied.
    y, classes, test_size, seed
        As in :func:`split_rows`.

    Returns
    -------
    parts : dict
        X_train, y_train, X_test, y_test, train_indices, test_indices.
    """
    train, test = split_rows(y, classes, test_size, seed)
    held = X[test]
    # `train` is sorted, so a row moves forward over rows that have moved already.
    for start in range(0, len(train), _BLOCK):
        stop = min(start + _BLOCK, len(train))
        X[start:stop] = X[train[start:stop]]
    X[len(train) :] = held
    return {
        "X_train": X[: len(train)],
        "y_train": y[train],
        "X_test": X[len(train) :],
        "y_test": y[test],
        "train_indices": train,
        "test_indices": test,
    }


def moments(X):
    """Mean and deviation of each channel or column; 1 for the deviation of a constant.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_channels, ...) or Dataset
        Bytes are counted block by block; a Dataset has `sample`, an iterable of blocks.

    Returns
    -------
    mean, std : ndarray of float64 of shape (n_channels,)
    """
    if isinstance(X, np.ndarray) and X.dtype != np.uint8:
        axes = (0, *range(2, X.ndim))
        mean = X.mean(axis=axes, dtype=np.float64)
        std = X.std(axis=axes, dtype=np.float64)
        return mean, np.where(X.min(axis=axes) == X.max(axis=axes), 1.0, std)
    if isinstance(X, np.ndarray):
        blocks = (X[i : i + _BLOCK] for i in range(0, len(X), _BLOCK))
    else:
        blocks = X.sample()
    counts = 0
    for block in blocks:
        channels = np.moveaxis(block, 1, 0)
        counts = counts + np.array(
            [np.bincount(channel.ravel(), minlength=256) for channel in channels]
        )
    levels = np.arange(256)
    mean = [np.average(levels, weights=n) for n in counts]
    std = [
        np.sqrt(np.average((levels - m) ** 2, weights=n))
        for m, n in zip(mean, counts, strict=True)
    ]
    return np.array(mean), np.array([1.0 if s == 0 else s for s in std])
