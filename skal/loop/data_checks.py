"""What X, y and the test rows of a loop must be, alone and together."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_consistent_length, get_tags

from skal.loop.class_params import coded_params
from skal.loop.initial import check_initial, initial_size
from skal.loop.stateless import apply_head, is_frozen
from skal.models import FrozenFeatures
from skal.net.training import final_estimator, is_net, transformers_of
from skal.utils.labels import (
    check_labels,
    encode,
    find_classes,
    known_labels,
    missing_mask,
    read_labels,
)
from skal.utils.rows import dataset_targets, has_targets, is_dataset, n_rows
from skal.utils.sizes import parse_size
from skal.utils.validation import check_row_numbers, entry_estimator, metric_around


class Data(NamedTuple):
    """What a fit was given, validated.

    Attributes
    ----------
    X : rows
        As the rounds see them: behind the head of a Pipeline.
    y : array of shape (n_samples,)
        Skipped rows hold the mark of missing labels.
    missing, skipped : bool arrays of shape (n_samples,)
        A skipped row is missing, too.
    mode : {"ask", "oracle", "simulate"}
    classes : array of shape (n_classes,)
        Sorted.
    fixed : bool
        Whether these are all classes.
    test : None or (rows, array of labels)
        Rows behind the head, too.
    head : list of tuple
        Steps of a Pipeline that were applied; see `apply_head`.
    given : rows
        `X` in front of the head.
    n_first : int
        Rows of the first set.
    """

    X: Any
    y: Any
    missing: Any
    skipped: Any
    mode: str
    classes: Any
    fixed: bool
    test: Any
    head: Any
    given: Any
    n_first: int

    @property
    def first(self):
        """Rows that a first set is chosen from: features only of a backbone."""
        return self.X if is_frozen(self.head) else self.given


def check_data(loop, X, y, *, X_test, y_test, skip, skip_label, params):
    """Find out what is meant by the arguments of `ActiveLearningLoop.fit`.

    Parameters
    ----------
    loop : ActiveLearningLoop
        Its parameters are read; it gets `n_features_in_` and `feature_names_in_`.
    X, y, X_test, y_test, skip, skip_label
        As in its `fit`.
    params : dict
        Further ones of its `fit`.

    Returns
    -------
    data : Data

    Raises
    ------
    TypeError, ValueError
        Where they do not fit each other or the parameters.
    """
    oracle, missing_label = loop.oracle, loop.missing_label
    parse_size(loop.memory_limit)
    _check_estimator(loop.estimator, X)
    X = loop._check_rows(X, reset=True)
    n_samples = n_rows(X)
    if n_samples == 0:
        raise ValueError("Found array with 0 sample(s): X has no rows to choose from.")
    y = _find_labels(X, y, oracle)
    if y is None:
        y = np.full(n_samples, missing_label, dtype=object)
    check_consistent_length(X, y)
    labels = read_labels(y)
    complete = skip_label is None and not missing_mask(labels, missing_label).any()
    if callable(oracle) and complete:
        raise ValueError(
            "oracle is a callable, but y is complete: there is nothing to ask. "
            f"Mark unknown labels as {missing_label!r}, or pass oracle=None."
        )
    mode = "ask"
    if callable(oracle):
        mode = "oracle"
    elif oracle is None and complete:
        mode = "simulate"
    skipped = _find_skipped(labels, skip, skip_label)
    if skipped.any():
        labels = labels.astype(object)
        labels[skipped] = missing_label
    labels, missing = check_labels(labels, missing_label, classes=loop.classes)
    classes = find_classes(
        labels,
        missing,
        missing_label,
        loop.classes,
        simulate=mode == "simulate",
        guess=oracle is None,
    )
    if mode != "simulate":
        _warn_of_index(y)
        _warn_of_scoring(missing, missing_label)
    frozen = _begins_with_backbone(loop.estimator)
    if not frozen:
        check_initial(loop.initial, X, mode)
    fixed = loop.classes is not None or mode == "simulate"
    test = _check_test(loop, X_test, y_test, classes if fixed else None)
    coded_params(loop.estimator, classes, given=loop.classes, fixed=fixed)
    head, rows = [], X
    if not params:  # which may be for the head
        limited = loop.memory_limit is not None
        head, rows, X_test = apply_head(
            loop.estimator, X, test and test[0], limited=limited
        )
        test = test and (X_test, test[1])
    n_first = initial_size(loop.initial, loop.n_initial, n_samples)
    about = missing, skipped, mode, classes, fixed, test
    data = Data(rows, labels, *about, head, X, n_first)
    if frozen:
        check_initial(loop.initial, data.first, mode)
    return data


def _begins_with_backbone(estimator):
    return isinstance(entry_estimator(estimator), FrozenFeatures)


def _check_estimator(estimator, X):
    final = final_estimator(estimator)
    kind = get_tags(estimator).estimator_type
    if kind not in (None, "classifier"):
        raise ValueError(
            f"estimator must be a classifier, got a {kind}: {type(final).__name__}."
        )
    if is_net(final) and kind is None:
        raise ValueError(
            f"estimator must be a classifier, got a plain {type(final).__name__}; "
            "use skorch.NeuralNetClassifier."
        )
    if not is_dataset(X) or _begins_with_backbone(estimator):
        return
    if not is_net(final):
        raise TypeError(
            "X is a torch Dataset, which only a skorch net can take, got "
            f"estimator {type(final).__name__}."
        )
    for step in transformers_of(estimator)[:1]:
        own = type(step).__module__.startswith("sklearn.")
        if own and not get_tags(step).no_validation:
            raise TypeError(
                f"X is a torch Dataset, which {type(step).__name__} before the net "
                "cannot take; let the Dataset do what it does, or pass an array or a "
                "memory map."
            )


def _find_labels(X, y, oracle):
    """Take `y`, or the labels that a Dataset holds; None means that none is known."""
    if y is None and is_dataset(X) and not callable(oracle):
        if oracle is None or has_targets(X):
            y = dataset_targets(X)
    if y is None and oracle is None:
        raise ValueError(
            "ActiveLearningLoop requires y to be passed, but the target y is None; "
            "pass labels, or an oracle."
        )
    return y


def _find_skipped(y, skip, skip_label):
    skipped = np.zeros(len(y), dtype=bool)
    if skip_label is not None:
        skipped = missing_mask(y, skip_label)
    if skip is not None and len(skip):
        check_row_numbers(skip, len(y), "skip")
        skipped[np.asarray(skip)] = True
    return skipped


def _warn_of_index(y):
    index = getattr(y, "index", None) if hasattr(y, "iloc") else None
    if index is not None and not np.array_equal(index, np.arange(len(y))):
        warnings.warn(
            "y is a Series whose index is not 0..n-1, but rows are asked for by "
            "position: write answers with `y = loop.label(y, rows, answers)` or "
            "`y.iloc[rows]`, for `y[rows]` takes rows for index labels.",
            UserWarning,
            stacklevel=2,
        )


def _warn_of_scoring(missing, missing_label):
    metric = metric_around() if missing.any() else None
    if metric is not None:
        warnings.warn(
            f"scoring with {metric} takes missing_label={missing_label!r} for a class "
            "of the rows without a label: leave scoring=None, whose `score` skips "
            "them, or pass a function scoring(estimator, X, y) that drops them.",
            UserWarning,
            stacklevel=2,
        )


def _check_test(loop, X_test, y_test, classes):
    """Validate the test rows and labels; `classes` None allows any."""
    if X_test is None:
        if y_test is not None:
            raise ValueError("y_test is given without X_test; pass both.")
        return None
    if y_test is None and is_dataset(X_test):
        y_test = dataset_targets(X_test)
    if y_test is None:
        raise ValueError("X_test is given without y_test; pass both.")
    X_test = loop._check_rows(X_test)
    check_consistent_length(X_test, y_test)
    y_test, missing = check_labels(y_test, loop.missing_label, classes=classes)
    if missing.any():
        raise ValueError(
            f"y_test holds missing_label={loop.missing_label!r}; every test row needs "
            "a label."
        )
    y_test = known_labels(y_test, slice(None))
    if classes is not None:
        encode(y_test, classes, name="y_test")
    return X_test, y_test
