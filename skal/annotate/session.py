"""What the page asks of a project: the one place that knows both."""

import threading

import numpy as np

from skal.annotate.sources import show_json
from skal.annotate.votes import majority

N_PACE = 50  # answers whose median tells the pace
N_HISTORY = 200


class NoItemError(LookupError):
    """There is no such item, or no such thing of it."""


class Session:
    """Hand out items, take answers and count, for people at a page.

    Items go by their number in the store; nothing that a page sends becomes a path.
    Several threads may use it at once.

    Parameters
    ----------
    project : LabelProject
    goal : int, default=None
        How many labels are wanted; None for all items.
    """

    def __init__(self, project, goal=None):
        self.project, self.goal = project, goal
        self._lock = threading.Lock()
        self._counted = None, None
        self._list_items()

    def _list_items(self):
        items = self.project.store.items()
        self._names = items["item"].to_dict()
        self.n_items = int((items["state"] == "").sum())

    def _name(self, number):
        """Name an item, which another process may have found under a new one."""
        for again in (False, True):
            if again:
                self._list_items()
            name = self._names.get(number)
            try:
                if name is not None and self.project.store.numbers([name]) == [number]:
                    return name
            except ValueError:
                pass
        raise NoItemError(f"there is no item {number}; it may have been deleted.")

    def item(self, number, annotator=""):
        """Give all that the page shows of an item.

        Parameters
        ----------
        number : int
        annotator : str, default=""

        Returns
        -------
        item : dict
            number, name, kind; text or row, a list of (column, value); answered and
            label, of the annotator.

        Raises
        ------
        NoItemError
            Where there is no such item.
        """
        shown, answers = self._show(number), self._answers(annotator)
        own = answers.loc[answers["item"] == number, "label"].tolist()
        return {**shown, "answered": bool(own), "label": own[0] if own else None}

    def _show(self, number):
        name, source = self._name(number), self.project.source
        shown = {"number": number, "name": name, "kind": source.kind}
        if source.kind == "texts":
            shown["text"] = source.raw([name])[0]
        elif source.kind == "table":
            (row,) = source.describe([name]).to_dict("records")
            shown["row"] = [(str(key), show_json(cell)) for key, cell in row.items()]
        return shown

    def path(self, number):
        """Find the file of an image.

        Parameters
        ----------
        number : int

        Returns
        -------
        path : str

        Raises
        ------
        NoItemError
            Where there is no such item, or it is no image.
        """
        if self.project.source.kind != "images":
            raise NoItemError("the items of this project are no images.")
        return self.project.source.raw([self._name(number)])[0]

    def next(self, annotator=""):
        """Hand out one item, the same again until it is answered.

        Parameters
        ----------
        annotator : str, default=""

        Returns
        -------
        item : dict or None
            As of `item`; None while nothing is chosen.
        """
        copies = self.project.settings.copies
        names = self.project.store.hand_out(1, annotator, copies=copies)
        if not names:
            return None
        (number,) = self.project.store.numbers(names)
        return {**self._show(number), "answered": False, "label": None}

    def answer(self, number, label, annotator="", seconds=None):
        """Record an answer; it is on the disk when this returns.

        Parameters
        ----------
        number : int
        label : str or None
            None skips the item.
        annotator : str, default=""
        seconds : float, default=None

        Returns
        -------
        event : int

        Raises
        ------
        NoItemError
            Where there is no such item.
        ValueError
            Where there is no such class.
        """
        name = self._name(number)
        return self.project.answer(name, label, annotator, seconds=seconds)[0]

    def undo(self, annotator=""):
        """Take back the last answer of somebody.

        Parameters
        ----------
        annotator : str, default=""

        Returns
        -------
        item : dict or None
            What it was about; None where there is nothing to take back.
        """
        taken = self.project.undo(annotator)
        if taken is None:
            return None
        (number,) = self.project.store.numbers([taken.item])
        return self.item(number, annotator)

    def add_class(self, name):
        """Add a class.

        Parameters
        ----------
        name : str

        Raises
        ------
        ValueError
            Where no class can be called so.
        """
        self.project.add_classes([name.strip()])

    def history(self, annotator=""):
        """List the last answers of somebody, the latest first.

        Parameters
        ----------
        annotator : str, default=""

        Returns
        -------
        answers : list of dict
            number, name and label.
        """
        answers = self._answers(annotator).sort_index(ascending=False)[:N_HISTORY]
        pairs = zip(answers["item"], answers["label"], strict=True)
        return [
            {"number": number, "name": self._names.get(number, ""), "label": label}
            for number, label in pairs
        ]

    def _answers(self, annotator=None):
        answers = self.project.store.answers()
        return answers if annotator is None else answers[answers.annotator == annotator]

    def counts(self, annotator=""):
        """Count what is labelled, and guess how long the rest takes.

        Parameters
        ----------
        annotator : str, default=""
            Whose pace.

        Returns
        -------
        counts : dict
            classes (name and number of labels of each), n_items, n_labeled, n_skipped,
            goal, and seconds_left, None before the first answer.
        """
        with self._lock:  # one thread counts, the others take what it found
            version = self.project.store.version
            if self._counted[0] != version:
                self._counted = version, self._count()
            labels, n_skipped, pace = self._counted[1]
        classes = [[name, labels.get(name, 0)] for name in self.project.store.classes]
        n_labeled = sum(labels.values())
        goal = min(self.goal or self.n_items, self.n_items)
        seconds = pace.get(annotator)
        left = None if seconds is None else max(0, goal - n_labeled - n_skipped)
        return {
            "classes": classes,
            "n_items": self.n_items,
            "n_labeled": n_labeled,
            "n_skipped": n_skipped,
            "goal": goal,
            "seconds_left": None if left is None else round(seconds * left),
        }

    def _count(self):
        answers = self._answers()
        labels = answers["label"]
        if answers["annotator"].nunique() > 1:
            labels, _ = majority(answers)
        counts = labels.value_counts().to_dict()  # None, a skip, is left out
        n_skipped = answers["item"].nunique() - sum(counts.values())
        pace = {}
        for annotator, own in answers.sort_index().groupby("annotator"):
            seconds = own["seconds"].dropna().astype(float)
            if len(seconds):
                pace[annotator] = float(np.median(seconds[-N_PACE:]))
        return counts, n_skipped, pace
