"""Data sets of OpenML."""

import numpy as np
from sklearn.datasets import fetch_openml

from skal.datasets._split import encode, find_classes, label_names, split_arrays


def load_openml(name, data_home, label_column, test_size, seed):
    """Fetch a data set of OpenML by its number.

    Parameters
    ----------
    name : str
        "openml:ID".
    data_home : path-like
        Cache of the downloads.
    label_column : int or str
        -1 for OpenML's own target, or a name.
    test_size, seed
        Of the split.

    Returns
    -------
    parts : dict
        As of `skal.datasets._tabular.load_text`, but missing text is zeros in all
        columns of its feature.
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
            as_frame=False,
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
    names = label_names(fetched.target)
    classes = find_classes(names, name)
    X, feature_names = _expand(name, fetched)
    y = encode(names, classes, name)
    parts = split_arrays(X, y, classes, test_size, seed)
    return {**parts, "classes": classes, "feature_names": feature_names}


def _expand(name, fetched):
    """One-hot columns for OpenML's numbered categories."""
    data = fetched.data
    data = data.toarray() if hasattr(data, "toarray") else data
    blocks, feature_names = [], []
    for feature, values in zip(fetched.feature_names, data.T, strict=True):
        categories = (fetched.get("categories") or {}).get(feature)
        if categories is not None:
            blocks.append(values[:, None] == np.arange(len(categories)))
            feature_names += [f"{feature}={category}" for category in categories]
            continue
        block = values[:, None].astype(np.float32)
        if not np.isfinite(block).all():
            n_odd = np.count_nonzero(~np.isfinite(block))
            raise ValueError(
                f"{name} has no finite number in {n_odd} rows of column {feature!r}; "
                "save it as a .csv without them and name that file."
            )
        blocks.append(block)
        feature_names.append(feature)
    return np.hstack(blocks, dtype=np.float32), feature_names
