"""Labels of any type: which are missing, what the classes are, their codes."""

from numbers import Number

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor


def missing_mask(y, missing_label):
    """Tell which labels are missing.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Labels of any type.
    missing_label : object
        The mark: a number, NaN, None or a string. pandas.NA, which holes of nullable
        columns become, counts as NaN and as None.

    Returns
    -------
    mask : bool array of shape (n_samples,)
    """
    if _is_na(missing_label):
        missing_label = np.nan
    if y.dtype.kind in "iufbU":
        if not isinstance(missing_label, str if y.dtype.kind == "U" else Number):
            return np.zeros(len(y), dtype=bool)
        return y != y if missing_label != missing_label else y == missing_label
    labels = y.tolist()
    try:
        marks = {k for k in set(labels) if _is_missing(k, missing_label)}
    except TypeError:  # some cannot be hashed; they are refused later
        return np.array([_is_missing(k, missing_label) for k in labels], dtype=bool)
    return np.array([label in marks for label in labels], dtype=bool)


def _is_na(label):
    """Recognise pandas.NA, whose comparisons are neither true nor false."""
    return type(label).__name__ == "NAType"


def _is_missing(label, missing_label):
    if _is_na(label):
        label = None if missing_label is None else np.nan
    if missing_label is None or label is None:
        return label is missing_label
    if isinstance(missing_label, Number) != isinstance(label, Number):
        return False
    if missing_label != missing_label:
        return bool(label != label)
    return bool(label == missing_label)


def is_no_label(label):
    """Tell whether something is None, NaN or pandas.NA."""
    return (
        label is None or _is_na(label) or (isinstance(label, Number) and label != label)
    )


def read_labels(y):
    """Make an array of labels of any container, without changing a single one.

    Parameters
    ----------
    y : array, list, tuple, tensor, or column of pandas, polars or Arrow
        Lists, and columns that NumPy has no type for, are read item by item: NumPy
        would turn marks among names into text, and large numbers beside holes into
        floats.

    Returns
    -------
    y : array of shape (n_samples,)
        Of the type of the labels where that holds them all, else of objects.
    """
    if hasattr(y, "columns") and y.shape[1] == 1:
        y = y[y.columns[0]]
    names = [n for n in ("tolist", "to_list", "to_pylist") if hasattr(y, n)]
    plain = isinstance(getattr(y, "dtype", None), np.dtype) or isinstance(y, Tensor)
    foreign = names and (not plain or np.ma.is_masked(y))  # a masked hole gives None
    flat = isinstance(y, list | tuple) and not any(map(_holds_items, set(map(type, y))))
    if foreign or flat:
        items = getattr(y, names[0])() if foreign else list(y)
        array = np.empty(len(items), dtype=object)
        array[:] = items
        y = _natural(array)
    y = column_or_1d(y, warn=True)
    return y if y.dtype.kind in "iufbOU" else y.astype(object)


def _holds_items(cls):
    return hasattr(cls, "__len__") and not issubclass(cls, str | bytes)


def check_labels(y, missing_label, *, classes=None, refuse_text=True):
    """Validate `y` and find its missing entries.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels, some of which may be `missing_label`.
    missing_label : object
        The mark of a missing label.
    classes : array-like, default=None
        Names that are classes for certain, such as "None".
    refuse_text : bool, default=True
        Raise where a label is the text of a mark, such as "-1" or "nan".

    Returns
    -------
    y : array of shape (n_samples,)
    missing : bool array of shape (n_samples,)

    Raises
    ------
    ValueError
        Where known labels are continuous, NaN, None or of mixed types, or the text of
        a mark.
    """
    y = read_labels(y)
    missing = missing_mask(y, missing_label)
    known = known_labels(y, ~missing)
    if missing_mask(known, np.nan).any() or missing_mask(known, None).any():
        raise ValueError(
            f"y holds NaN or None beside missing_label={missing_label!r}; Input y "
            "contains NaN. To mark labels as missing with it, pass it as missing_label."
        )
    if known.dtype.kind == "f" and np.isinf(known).any():
        raise ValueError("y holds infinity; labels must be finite.")
    if len(known):
        try:
            distinct = np.unique(known)
        except TypeError as error:
            raise ValueError(
                "y mixes labels of types that cannot be sorted, such as numbers and "
                "strings; make them all of one type."
            ) from error
        if refuse_text and known.dtype.kind == "U":
            _refuse_text_marks(distinct.tolist(), missing_label, classes)
        if not _are_integers(known):
            check_classification_targets(known)
    return y, missing


def _are_integers(known):
    """Recognise integers that no type of NumPy holds."""
    return known.dtype == object and all(isinstance(k, int) for k in known)


def text_marks(missing_label):
    """List what NumPy turns marks of missing labels into, beside names."""
    marks = {"nan", "None", "<NA>", "NaT", str(missing_label)}
    if isinstance(missing_label, Number):
        marks |= {str(float(missing_label)), f"{missing_label:g}"}
    return marks


def _refuse_text_marks(names, missing_label, classes):
    known = () if classes is None else classes
    found = text_marks(missing_label) & set(names) - {str(name) for name in known}
    found = sorted(found)
    if found:
        raise ValueError(
            f"y holds the text {found[0]!r} beside missing_label={missing_label!r}: a "
            "mark of missing labels that NumPy turned into text? Keep labels and marks "
            "apart with a list or np.array(..., dtype=object), or pass "
            f"missing_label={found[0]!r}. If it is a class, name all classes in "
            "`classes`."
        )


def _natural(labels):
    """Give an object array the type of its labels where that changes none."""
    items = labels.tolist()
    try:
        natural = np.array(items)
        same = natural.ndim == 1 and len(items) and natural.tolist() == items
        same = same and (natural.dtype == bool or bool not in map(type, items))
    except (OverflowError, TypeError, ValueError):
        return labels
    return natural if same else labels


def known_labels(y, mask):
    """Labels of `y` under `mask`, object arrays turned into their natural type."""
    known = y[mask]
    return _natural(known) if known.dtype == object else known


def encode(y, classes, *, name="y", strict=True):
    """Turn labels into codes 0..C-1.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Labels.
    classes : array of shape (n_classes,)
        The classes, in any order.
    name : str, default="y"
        The parameter that an error names.
    strict : bool, default=True
        Raise for labels outside `classes`; otherwise they get the code `n_classes`.

    Returns
    -------
    codes : int64 array of shape (n_samples,)
    """
    y, classes = np.asarray(y), np.asarray(classes).tolist()
    # Python's numbers are compared exactly, whatever their types.
    codes = {label: code for code, label in enumerate(classes)}
    if strict and not codes.keys() >= set(distinct_labels(y)):
        strangers = [k for k in distinct_labels(y) if k not in codes][:5]
        raise ValueError(
            f"{name} holds labels outside classes {classes}: {strangers}. "
            "Pass every class as `classes`, or correct the labels."
        )
    return look_up(y, codes)


def distinct_labels(y):
    """List the distinct labels of an array as Python's own objects."""
    return [*dict.fromkeys(y.tolist())] if y.dtype == object else np.unique(y).tolist()


def look_up(y, codes):
    """Turn an array of labels into int64 codes; those not in the dict get its size."""
    if y.dtype == object:
        found = [codes.get(label, len(codes)) for label in y.tolist()]
        return np.array(found, dtype=np.int64)
    distinct = np.unique(y)
    return look_up(distinct.astype(object), codes)[np.searchsorted(distinct, y)]


def find_classes(y, missing, missing_label, classes, *, simulate, guess):
    """Find the classes, and raise where the labels do not fit them.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Labels.
    missing : bool array of shape (n_samples,)
        Which of them are missing.
    missing_label : object
        The mark of a missing label.
    classes : array-like or None
        The classes the user named.
    simulate : bool
        Whether `y` is complete.
    guess : bool
        Whether nobody said that some labels are missing on purpose.

    Returns
    -------
    classes : array of shape (n_classes,)
        Sorted.
    """
    known = np.unique(known_labels(y, ~missing))
    if classes is not None:
        given = list(classes)
        if any(is_no_label(label) for label in given):
            raise ValueError(f"classes holds None or NaN: {given}; name classes only.")
        classes = known_labels(np.array(given, dtype=object), slice(None))
        try:
            classes = np.unique(classes)
        except TypeError as error:
            raise ValueError(
                f"classes mixes types that cannot be sorted: {given}; make them all of "
                "one type."
            ) from error
        if missing_mask(classes, missing_label).any():
            raise ValueError(
                f"classes holds missing_label={missing_label!r}; pass another "
                "missing_label."
            )
        if len(classes) < 2:
            raise ValueError(
                f"classes must name at least two classes, got {classes.tolist()}."
            )
        encode(known, classes, name="y")
        return classes
    if simulate and len(known) < 2:
        raise ValueError(
            f"y must hold at least two classes, got 1 class: {known.tolist()}."
        )
    is_nan = missing_label is not None and is_no_label(missing_label)
    if guess and is_nan and not len(known):
        raise ValueError(
            "Input y contains NaN only. If nothing is labelled yet, say so with "
            "oracle='ask' or classes=...; otherwise pass the labels."
        )
    marker = isinstance(missing_label, Number) and missing_label == -1
    if guess and not simulate and marker and known.tolist() == [1]:
        raise ValueError(
            "y holds -1 and 1 only, and missing_label=-1: is -1 a class or a missing "
            "label? Pass missing_label=np.nan (or None) if it is a class, oracle='ask' "
            "or classes=... if it marks missing labels."
        )
    return known
