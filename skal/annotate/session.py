"""What the page asks of a project: the one place that knows both."""

import time

from skal.annotate.sources import show_json

PATIENCE = 5  # seconds that a person waits for a choice, where there is a model
N_TOP_UP = 5
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
        self._empty_since = None
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
        shown = self._show(number)
        own = self.project.store.answers(annotator=annotator, item=number)["label"]
        label = own.iloc[0] if len(own) else None
        return {**shown, "answered": bool(len(own)), "label": label}

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

        Where the choice takes long, some are drawn at random meanwhile; but not before
        the first answer, as the first items are to be a good choice.

        Parameters
        ----------
        annotator : str, default=""

        Returns
        -------
        item : dict or None
            As of `item`; None while nothing is chosen.
        """
        store, copies = self.project.store, self.project.settings.copies
        names = store.hand_out(1, annotator, copies=copies)
        if names:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = time.monotonic()
        elif time.monotonic() >= self._empty_since + PATIENCE and store.n_answers:
            store.draw(N_TOP_UP)
            names = store.hand_out(1, annotator, copies=copies)
        if not names:
            return None
        (number,) = store.numbers(names)
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
        answers = self.project.store.answers(annotator=annotator, last=N_HISTORY)[::-1]
        pairs = zip(answers["item"], answers["label"], strict=True)
        return [
            {"number": number, "name": self._names.get(number, ""), "label": label}
            for number, label in pairs
        ]

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
        store = self.project.store
        counts, n_answered = store.tally()
        last = store.answers(annotator=annotator, last=N_PACE)["seconds"].dropna()
        goal = min(self.goal or self.n_items, self.n_items)
        left = max(0, goal - n_answered)
        n_labeled = sum(counts.values())
        return {
            "classes": [[name, counts.get(name, 0)] for name in store.classes],
            "n_items": self.n_items,
            "n_labeled": n_labeled,
            "n_skipped": n_answered - n_labeled,
            "goal": goal,
            "seconds_left": round(last.median() * left) if len(last) else None,
        }
