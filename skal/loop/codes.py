"""The labels of a loop: who is labelled, as what, under which code, since when."""

import warnings

import numpy as np

from skal.utils.labels import (
    check_labels,
    distinct_labels,
    encode,
    is_no_label,
    known_labels,
    look_up,
    missing_mask,
    text_marks,
)


class Labels:
    """The one owner of labels, codes and the order of the classes.

    Classes that are known in advance are sorted, and so are those of the labels that
    the first model is trained on. From then on a code never changes: classes that
    appear later come last, those of one purchase in sorted order.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Labels of any type; only those that are not `missing` are kept.
    missing : bool array of shape (n_samples,)
        Rows without a label.
    missing_label : object
        The mark of a missing label.
    classes : array of shape (n_classes,), default=None
        All classes, sorted; None takes those of the labels so far.
    any_type : bool, default=False
        Whether labels to come may be of another type than those of `y`.

    Attributes
    ----------
    iteration : int64 array of shape (n_samples,)
        Round in which a row was labelled, -1 never.
    skipped, asked : bool arrays of shape (n_samples,)
        Rows not to ask for, and rows that a person was asked for.
    fixed : bool
        Whether no further class may appear.
    on_purchase : callable or None
        Called with the rows and the round of each purchase once it is booked.
    """

    def __init__(self, y, missing, missing_label, classes=None, *, any_type=False):
        n_samples = len(y)
        self.missing_label = missing_label
        self.values = y.astype(object) if any_type else y.copy()
        if missing.all() and not any_type:
            self.values = _blank(y, missing_label)
        self.iteration = np.full(n_samples, -1, dtype=np.int64)
        self.skipped = np.zeros(n_samples, dtype=bool)
        self.asked = np.zeros(n_samples, dtype=bool)
        self.fixed, self.on_purchase = classes is not None, None
        self._dtype = classes.dtype if self.fixed else self.values.dtype
        self._codes = {} if classes is None else _enumerate(classes.tolist())
        self._settled = self.fixed
        self._code_of_row = np.full(n_samples, -1, dtype=np.int64)
        self._order = np.empty(n_samples, dtype=np.int64)
        self._size = 0
        self._seen = set()
        self._book(np.flatnonzero(~missing), known_labels(y, ~missing), 0)

    def __len__(self):
        return self._size

    # -- classes and codes ----------------------------------------------------------

    @property
    def classes(self):
        """The classes in the order of their codes, of shape (n_classes,)."""
        classes = list(self._codes) if self._settled else sorted(self._codes)
        if self._dtype.kind == "O":
            array = np.empty(len(classes), dtype=object)
            array[:] = classes
            return known_labels(array, slice(None))
        return np.array(classes, dtype=self._dtype)

    @property
    def n_seen(self):
        """Number of classes among the labels so far."""
        return len(self._seen)

    def _settle(self):
        if not self._settled:
            self._recode(sorted(self._codes))
            self._settled = True

    def _recode(self, classes):
        new = _enumerate(classes)
        moved = np.array([*(new[label] for label in self._codes), -1], dtype=np.int64)
        self._code_of_row = moved[self._code_of_row]
        self._seen = {int(moved[code]) for code in self._seen}
        self._codes = new

    def _append(self, labels):
        """Give codes to labels that have none, or raise."""
        new = set(labels) - self._codes.keys()
        if not new:
            return
        together = np.empty(len(new) + len(self._codes), dtype=object)
        together[:] = [*self._codes, *new]
        check_labels(together, self.missing_label, refuse_text=False)
        if self.fixed:
            encode(labels, self.classes, name="the oracle's answer")
        for label in sorted(new):
            self._codes[label] = len(self._codes)

    # -- rows -----------------------------------------------------------------------

    @property
    def order(self):
        """Labelled rows in the order of purchase."""
        return self._order[: self._size].copy()

    @property
    def open(self):
        """Mask of the rows that may be asked for."""
        return (self.iteration < 0) & ~self.skipped

    def pool(self):
        """Rows that may be asked for, ascending."""
        return np.flatnonzero(self.open)

    def labeled(self):
        """Labelled rows, ascending, and their codes; from now on codes stay."""
        self._settle()
        rows = np.sort(self.order)
        return rows, self._code_of_row[rows]

    def transduction(self):
        """Labels so far, the mark elsewhere, of shape (n_samples,)."""
        return known_labels(self.values, slice(None)).copy()

    def _book(self, rows, labels, iteration):
        self.values[rows] = labels
        self.iteration[rows] = iteration
        self._order[self._size : self._size + len(rows)] = rows
        self._size += len(rows)
        n_known = len(self._codes)
        distinct = distinct_labels(labels)
        self._append(distinct)
        self._code_of_row[rows] = look_up(labels, self._codes)
        self._seen.update(self._codes[label] for label in distinct)
        if self._settled and len(self._codes) > n_known:
            _warn_of_new([*self._codes][n_known:], n_known)

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
        given = as_labels(answer(rows.copy()), rows, "oracle must answer with")
        skipped = missing_mask(given, self.missing_label)
        texts = text_marks(self.missing_label) - {str(label) for label in self._codes}
        bad = [is_no_label(k) or (isinstance(k, str) and k in texts) for k in given]
        bad = np.array(bad) & ~skipped
        good = ~(skipped | bad)
        strange = np.zeros_like(good)
        if self.fixed:
            strange[good] = [label not in self._codes for label in given[good]]
        self.skipped[rows[skipped]] = True
        booked = good & ~strange
        self._book(rows[booked], given[booked], iteration)
        if self.on_purchase is not None:
            self.on_purchase(rows, iteration)
        self._book(rows[strange], given[strange], iteration)  # paid for, but raises
        if bad.any():
            raise ValueError(
                f"oracle answered {given[bad][0]!r} for row {rows[bad][0]}: no label. "
                f"To skip a row answer missing_label={self.missing_label!r}; a class "
                f"of that name belongs in `classes`. {good.sum()} good answers of the "
                "batch are in transduction_."
            )
        return int(good.sum())

    # -- asking again ---------------------------------------------------------------

    def continues(self, before):
        """Tell whether no row that was labelled before is unlabelled now."""
        if len(self.values) != len(before.values):
            return False
        return not ((before.iteration >= 0) & self.open).any()

    def go_on(self, before, n_rounds):
        """Take over what an earlier fit knew of the same rows.

        Parameters
        ----------
        before : Labels
            Of the last fit.
        n_rounds : int
            Rounds recorded so far, whose rows keep their number; rows labelled since
            get the next one.

        Returns
        -------
        n_iter : int
            The present round: the next one where rows were labelled since.
        same_codes : bool
            Whether the codes of that fit are valid still. They are not where one of
            its classes is gone, as a corrected slip of the pen.
        """
        labeled = self.iteration >= 0
        known = (before.iteration >= 0) & (before.iteration < n_rounds)
        self.iteration[labeled] = np.where(known, before.iteration, n_rounds)[labeled]
        self.asked |= before.asked
        n_iter = n_rounds if (labeled & ~known).any() else max(n_rounds - 1, 0)
        old = list(before._codes)
        if not before._settled or not set(old) <= self._codes.keys():
            return n_iter, False
        if not self.fixed:
            new = sorted(self._codes.keys() - set(old))
            self._recode([*old, *new])
            self._settled = True
            if new:
                _warn_of_new(new, len(old))
        return n_iter, list(self._codes)[: len(old)] == old


def _enumerate(labels):
    return {label: code for code, label in enumerate(labels)}


def _warn_of_new(new, n_known):
    warnings.warn(
        f"{new} appeared when a model of {n_known} classes had been trained: new "
        "classes come last in classes_, and earlier rounds knew no column for them, so "
        "that models and picks are not those of a simulation. Pass all classes as "
        "`classes`.",
        UserWarning,
        stacklevel=2,
    )


def as_labels(answers, rows, who):
    """Turn answers into an object array with a label for each row, or raise."""
    shape = getattr(answers, "shape", None)
    if (
        answers is None
        or isinstance(answers, str | bytes | dict)
        or not hasattr(answers, "__len__")
        or (shape is not None and len(shape) != 1)
    ):
        raise TypeError(
            f"{who} a list or 1-D array of labels, one for each row it is asked for, "
            f"got {answers!r}."
        )
    answers = list(answers.tolist() if hasattr(answers, "tolist") else answers)
    answers = [k.item() if hasattr(k, "item") else k for k in answers]
    if len(answers) != len(rows):
        raise ValueError(
            f"{who} a label for every row: got {len(answers)} answers to {len(rows)} "
            f"rows: {answers!r}. Answer missing_label where there is none."
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
