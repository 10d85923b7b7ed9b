"""The labels bought so far."""

import numpy as np

from skal.utils.labels import check_labels, encode, known_labels


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
    """

    def __init__(self, y, missing, missing_label, classes):
        self.missing_label = missing_label
        self.labels = y.copy()
        if missing.all():
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
        ValueError
            Where the answer has another length, or labels outside the classes; they are
            booked all the same, since they were paid for.
        """
        if len(rows) == 0:
            return 0
        answers = answer(rows.copy())
        answers = list(answers.tolist() if hasattr(answers, "tolist") else answers)
        if len(answers) != len(rows):
            raise ValueError(
                f"oracle must answer every row it is asked for: got {len(answers)} "
                f"answers to {len(rows)} rows. Answer missing_label to skip one."
            )
        given = np.empty(len(answers), dtype=object)
        given[:] = answers
        given, skipped = check_labels(given, self.missing_label)
        self.skipped[rows[skipped]] = True
        rows, given = rows[~skipped], given[~skipped]
        self.labels[rows] = given.astype(self.labels.dtype)
        self.iteration[rows] = iteration
        self.order = np.concatenate([self.order, rows])
        if self.growing:
            self.classes = self.known_classes()
        encode(
            known_labels(given, slice(None)), self.classes, name="the oracle's answer"
        )
        return len(rows)


def _blank(y, missing_label):
    """Make an array like `y` with all labels missing, of a type that can hold that."""
    dtype = object
    if y.dtype.kind in "if" and isinstance(missing_label, int | float):
        integers = y.dtype.kind == "i" and missing_label == missing_label
        dtype = np.int64 if integers else np.float64
    return np.full(len(y), missing_label, dtype=dtype)
