"""Data sets of OpenML."""

import numpy as np
from sklearn.datasets import fetch_openml

from skal.datasets._split import encode_labels
from skal.datasets._tabular import split_columns


def load_openml(name, data_home, label_column, missing_labels, split):
    """Fetch a data set of OpenML by its number.

    Parameters
    ----------
    name : str
        "openml:ID".
    data_home : path-like
        Cache of the downloads.
    label_column : int or str
        -1 for OpenML's own target, or a name.
    missing_labels : str, collection of str, or None
    split : tuple of (test_size, seed)

    Returns
    -------
    parts : dict
        As of :func:`skal.datasets._tabular.load_table`, but all categories that
        OpenML lists have a column, and missing text is zeros in all of them.
    """
    number = name.removeprefix("openml:")
    if not number.isdecimal():
        raise ValueError(f"name={name!r} must be openml: and a number, as in openml:6.")
    if label_column != -1 and not isinstance(label_column, str):
        raise ValueError(
            f"label_column={label_column!r} must be a name, or -1 for the target that "
            f"{name} has itself."
        )
    target = label_column if isinstance(label_column, str) else "default-target"
    try:
        fetched = fetch_openml(
            data_id=int(number),
            data_home=data_home,
            target_column=target,
            as_frame=False,  # a frame forgets the order of the categories
            parser="liac-arff",
        )
    except OSError as error:
        raise OSError(
            f"{name} could not be fetched ({error}). Check the number, connect to a "
            f"network, or name a root that has it; it was {str(data_home)!r}."
        ) from error
    except (KeyError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise ValueError(
            f"{name} with label_column={label_column!r} cannot be read: {reason}"
        ) from error
    if fetched.target is None or np.ndim(fetched.target) != 1:
        raise ValueError(f"{name} has no single target; name one with label_column.")
    y, classes = encode_labels(np.asarray(fetched.target), name, missing_labels)
    columns, names = _read_columns(name, fetched), fetched.feature_names
    return split_columns(columns, names, y, classes, split, listed=True)


def _read_columns(name, fetched):
    """Columns as float32, and as categories where OpenML numbers them."""
    import pandas as pd

    data = fetched.data
    data = data.toarray() if hasattr(data, "toarray") else data
    columns = {}
    for position, feature in enumerate(fetched.feature_names):
        values = data[:, position].astype(np.float32)
        categories = (fetched.get("categories") or {}).get(feature)
        if categories is not None:
            codes = np.nan_to_num(values, nan=-1).astype(int)
            values = pd.Categorical.from_codes(codes, categories)
        elif not np.isfinite(values).all():
            n_odd = np.count_nonzero(~np.isfinite(values))
            raise ValueError(
                f"{name} has no finite number in {n_odd} rows of column {feature!r}; "
                "save it as a .csv without them and name that file."
            )
        columns[position] = values
    return columns
