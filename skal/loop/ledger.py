"""The labels bought so far."""

import numpy as np

from skal.utils.labels import (
    check_labels,
    encode,
    is_no_label,
    known_labels,
    missing_mask,
)


class LabelLedger:
    """Which rows are labelled, as what, since which round, and which were skipped.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Labels of any type; only those that are not `missing` are kept.
    missing : bool array of shape (n_samples,)
        Rows without a label.
    missing_label : object
        The mark of a missing label.
    classes : array of shape (n_classes,) or None
        All classes; None takes those of the labels so far.
    any_type : bool, default=False
        Whether labels to come may be of another type than those of `y`.
    """

    def __init__(self, y, missing, missing_label, classes, *, any_type=False):
        self.missing_label = missing_label
        self.labels = y.astype(object) if any_type else y.copy()
        if missing.all() and not any_type:
            self.labels = _blank(y, missing_label)
        self.order = np.flatnonzero(~missing)
        self.iteration = np.where(missing, -1, 0).astype(np.int64)
        self.skipped = np.zeros(len(y), dtype=bool)
        self.growing = classes is None
        self.classes = self.known_classes() if classes is None else classes

    def __len__(self):
        return len(self.order)

    def known_classes(self):
        """Sorted classes of the labels so far."""
        return np.unique(known_labels(self.labels, self.order))

    def pool(self):
        """Rows that may still be asked for, ascending."""
        return np.flatnonzero((self.iteration < 0) & ~self.skipped)

    def labeled(self):
        """Labelled rows, ascending, and their codes 0..n_classes-1."""
        rows = np.sort(self.order)
        return rows, encode(known_labels(self.labels, rows), self.classes)

    def buy(self, rows, answer, iteration):
        """Ask for labels of rows and book them.

        Parameters
        ----------
        rows : int64 array
            Rows to ask for.
        answer : callable
            ``answer(rows) -> labels``, in the same order; some may be missing.
        iteration : int
            The round.

        Returns
        -------
        n_bought : int

        Raises
        ------
        TypeError, ValueError
            Where the answers are no list of one label a row, hold something that is no
            label, or labels outside the classes. Good answers of the batch are booked
            all the same, since they were paid for.
        """
        if len(rows) == 0:
            return 0
        given = _as_labels(answer(rows.copy()), rows)
        skipped = missing_mask(given, self.missing_label)
        bad = np.array([is_no_label(label) for label in given]) & ~skipped
        self.skipped[rows[skipped]] = True
        good = ~(skipped | bad)
        self.labels[rows[good]] = given[good]
        self.iteration[rows[good]] = iteration
        self.order = np.concatenate([self.order, rows[good]])
        if bad.any():
            raise ValueError(
                f"oracle answered {given[bad][0]!r} for row {rows[bad][0]}: no label. "
                f"To skip a row answer missing_label={self.missing_label!r}. "
                f"{good.sum()} good answers of the batch are in transduction_."
            )
        check_labels(known_labels(self.labels, self.order), self.missing_label)
        if self.growing:
            self.classes = self.known_classes()
        encode(given[good], self.classes, name="the oracle's answer")
        return int(good.sum())


def _as_labels(answers, rows):
    """Turn the oracle's answers into an object array with a label for each row."""
    shape = getattr(answers, "shape", None)
    if (
        answers is None
        or isinstance(answers, str | bytes | dict)
        or not hasattr(answers, "__len__")
        or (shape is not None and len(shape) != 1)
    ):
        raise TypeError(
            "oracle must answer with a list or 1-D array of labels, one for each row "
            f"it is asked for, got {answers!r}."
        )
    answers = list(answers.tolist() if hasattr(answers, "tolist") else answers)
    if len(answers) != len(rows):
        raise ValueError(
            f"oracle must answer every row it is asked for: got {len(answers)} answers "
            f"to {len(rows)} rows: {answers!r}. Answer missing_label to skip a row."
        )
    labels = np.empty(len(answers), dtype=object)
    labels[:] = answers
    return labels


def _blank(y, missing_label):
    """Make an array like `y` with all labels missing, of a type that can hold that."""
    dtype = object
    if y.dtype.kind in "if" and isinstance(missing_label, int | float):
        integers = y.dtype.kind == "i" and missing_label == missing_label
        dtype = np.int64 if integers else np.float64
    return np.full(len(y), missing_label, dtype=dtype)
