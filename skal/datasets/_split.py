"""Classes, splits and channel statistics; what every kind of data shares."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import train_test_split

from skal.datasets._dialect import as_numbers, is_missing

_BLOCK = 256


def encode_labels(labels, source, missing_labels=None, classes=None):
    """Turn labels into positions in their classes.

    Parameters
    ----------
    labels : array-like of shape (n_samples,)
        Of text, or numbers, whose text is their name. Different names stay different,
        but numbers written like 1.0 throughout are named 1.
    source : str
        What errors call the data.
    missing_labels : str or collection of str, default=None
        Names that stand for a missing label; None for the usual ones.
    classes : tuple of str, default=None
        Where they are known; None finds them.

    Returns
    -------
    y : ndarray of int64 of shape (n_samples,)
    classes : tuple of str
        Sorted, by value where all are numbers.
    """
    import pandas as pd

    if getattr(labels.dtype, "kind", "") == "S":
        labels = labels.astype(str)
    codes, unique = pd.factorize(labels)
    names = [str(name).strip() for name in unique]
    if (codes < 0).any():
        names.append("nan")
    unique, merged = np.unique(np.array(names, dtype=str), return_inverse=True)
    names, codes = unique.tolist(), merged[codes]
    _check_complete(names, codes, source, missing_labels)
    if classes is None or not set(names) <= set(classes):
        names = _whole_names(names)
    if classes is None:
        classes = _sort_classes(names, len(codes), source)
    places = {name: place for place, name in enumerate(classes)}
    unknown = [name for name in names if name not in places]
    if unknown:
        raise ValueError(
            f"{source} has the classes {unknown[:5]}, which the training data lacks; "
            f"it has {list(classes[:10])}{' and more' * (len(classes) > 10)}. Remove "
            "these rows or rename them."
        )
    return np.array([places[name] for name in names], np.int64)[codes], classes


def _check_complete(names, codes, source, missing_labels):
    if isinstance(missing_labels, str):
        missing_labels = (missing_labels,)
    for code, name in enumerate(names):
        if missing_labels is not None:
            missing = name in missing_labels
        else:
            missing = is_missing(name) and not (name == "-" and "+" in names)
        if missing:
            rows = np.flatnonzero(codes == code)
            listed = ", ".join(map(str, rows[:5])) + ", ..." * (len(rows) > 5)
            raise ValueError(
                f"{source} has the label {name!r} in row{'s' * (len(rows) > 1)} "
                f"{listed}, counted from 0 ({len(rows)} in all): labels must be "
                "complete; fill it in or remove the row, or, where a class has this "
                "name, say with missing_labels which texts stand for a missing label."
            )


def _whole_names(names):
    """Name whole numbers written as floats throughout, 1.0 and 2.0, like 1 and 2."""
    values = as_numbers(names)
    if all("." in name for name in names) and not (values % 1).any():
        whole = [str(int(value)) for value in values]
        if len(set(whole)) == len(names):
            return whole
    return names


def _sort_classes(names, n_rows, source):
    if len(names) < 2:
        raise ValueError(f"{source} must have two classes at least, got {names}.")
    if len(names) > max(20, n_rows / 2):
        raise ValueError(
            f"{source} has {len(names)} different labels in {n_rows} rows, which "
            "are hardly classes; name another label_column, or group the values."
        )
    values = as_numbers(names)
    if np.isfinite(values).all():
        # Length and text order the long numbers that are one float.
        order = np.lexsort((np.arange(len(names)), list(map(len, names)), values))
        names = [names[place] for place in order]
    return tuple(names)


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
    n, levels = counts.sum(axis=1), np.arange(256)
    mean = counts @ levels / n
    std = np.sqrt(((levels - mean[:, None]) ** 2 * counts).sum(axis=1) / n)
    return mean, np.where(std == 0, 1.0, std)
