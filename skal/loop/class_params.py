"""Parameters of an estimator that speak of classes, in codes instead of labels."""

from numbers import Number

import numpy as np
from torch import nn

# Dicts whose keys are labels; a class that is not named counts 1 in the first two.
WEIGHTS = {"class_weight", "class_weights"}
KEYED = {*WEIGHTS, "sampling_strategy"}
# Values in the order of the classes.
ORDERED = {"priors", "class_prior", "criterion__weight"}


def coded_params(estimator, classes, *, given=None, fixed=True):
    """Translate what the caller says of classes, wherever it is nested.

    Parameters
    ----------
    estimator : estimator
        Never touched; Pipelines, searches and their grids are read, too.
    classes : array of shape (n_classes,)
        In the order of their codes.
    given : array-like, default=None
        The classes as the caller listed them.
    fixed : bool, default=True
        Whether no further class may appear; labels that are no classes are left out
        where one may.

    Returns
    -------
    params : dict
        For `set_params` of a clone.

    Raises
    ------
    ValueError
        Names the parameter whose labels are no classes, or whose order cannot be told.
    """
    codes = {label: code for code, label in enumerate(classes.tolist())}
    params, coded = estimator.get_params(), {}
    for path, value in params.items():
        name = path.rpartition("__")[2]
        if name in KEYED and isinstance(value, dict):
            coded[path] = _coded(path, value, codes, fixed)
        elif name == "pos_label" and path.replace(name, "threshold") in params:
            if value is not None:
                found = _coded(path, {value: value}, codes, fixed)
                coded[path] = next(iter(found), value)
        elif name in ("param_grid", "param_distributions"):
            grids = value if isinstance(value, list | tuple) else [value]
            grids = [_coded_grid(path, grid, codes, fixed) for grid in grids]
            coded[path] = grids if isinstance(value, list | tuple) else grids[0]
        elif any(f"__{path}".endswith(f"__{ordered}") for ordered in ORDERED):
            if value is not None and np.ndim(value) == 1:
                criterion = params.get(path.removesuffix("__weight"))
                _check_order(path, value, criterion, list(codes), given)
    return coded


def _coded(path, value, codes, fixed):
    strangers = [label for label in value if label not in codes]
    kinds = {isinstance(label, Number) for label in [*codes, *strangers]}
    if strangers and (fixed or len(kinds) > 1):
        raise ValueError(
            f"{path}={value!r} names {strangers}, but the classes are {list(codes)}; "
            "its keys are labels as they are in y."
        )
    if path.rpartition("__")[2] in WEIGHTS:
        return {code: value.get(label, 1) for label, code in codes.items()}
    return {codes[label]: each for label, each in value.items() if label in codes}


def _coded_grid(path, grid, codes, fixed):
    return {
        name: [
            _coded(f"{path}: {name}", each, codes, fixed)
            if isinstance(each, dict)
            else each
            for each in values
        ]
        if name.rpartition("__")[2] in KEYED and not hasattr(values, "rvs")
        else values
        for name, values in grid.items()
    }


def _check_order(path, value, criterion, classes, given):
    per_class = isinstance(criterion, type) and issubclass(
        criterion, nn.CrossEntropyLoss | nn.NLLLoss
    )
    if per_class and len(value) != len(classes):
        raise ValueError(
            f"{path} has {len(value)} entries, one a class, but the classes known are "
            f"{classes}; pass them all as `classes`."
        )
    listed = classes if given is None else list(given)
    if per_class or criterion is None:
        if listed != sorted(listed) or classes != sorted(classes):
            raise ValueError(
                f"{path} is read in the sorted order of the classes, "
                f"{sorted(classes)}, but they came as {listed}; pass `classes` and "
                f"{path} in sorted order."
            )
