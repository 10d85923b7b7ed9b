"""Choose what people label next while they label, in a process of its own."""

import json
import os
import sys
import threading

import numpy as np
import pandas as pd

from skal.annotate.project import SKIP, LabelProject

MIN_LABELS = 10  # below, an estimate says nothing


class Planner:
    """Keep the queue of a project filled, and tell what its model knows.

    Twice a batch is chosen, so that there is enough while the next choice is made. That
    one follows after half a batch of answers, and replaces what was handed to nobody.

    Parameters
    ----------
    project : LabelProject
    """

    def __init__(self, project):
        self.project = project
        self.batch_size = project.settings.batch_size
        self.known, self.exhausted, self.n_items = None, False, 0
        self.estimate, self.n_estimate = None, 0
        from skal.callbacks import StabilizingPredictions  # loads torch

        self.rule = StabilizingPredictions(patience=project.settings.patience)
        self.n_compared = 0

    def step(self):
        """Choose again where enough was answered since, or nothing is left.

        Returns
        -------
        report : dict or None
            None where there was nothing to do. Else n_items; exhausted, whether all
            that is open was chosen; guesses, the predicted class and its probability by
            number of the chosen items; estimate, of the accuracy; kappas, of successive
            models; and advice.
        """
        store, copies = self.project.store, self.project.settings.copies
        known = store.n_answers, store.answers(last=1).index.tolist()
        if self.exhausted:  # unless there are new items
            self.project.refresh()
            items = store.items()
            self.exhausted = (items["state"] == "").sum() <= self.n_items
        waiting = store.queue(copies)
        is_free = len(waiting) > len(store.queue(copies, handed_out=True))
        if self.known is not None:
            news = abs(known[0] - self.known[0])
            empty = not is_free and (known != self.known or not self.exhausted)
            done = not len(waiting) and known != self.known
            if news < max(1, self.batch_size // 2) and not empty and not done:
                return None
        picks, loop = self.project.learner.choose(2 * self.batch_size, replace=True)
        self.exhausted = len(picks) < 2 * self.batch_size
        # The model that has chosen, though labels came since.
        report = self._report(loop or self.project.learner.train())
        self.known = known  # not where something went wrong: it is tried again
        return report

    def _report(self, loop):
        project = self.project
        numbers, X, y = self.project.learner.rows()
        self.n_items = len(numbers)
        n_labels = int((~pd.isna(y) & (y != SKIP)).sum())
        waiting = project.store.queue(project.settings.copies)
        guesses = {}
        if loop is not None:
            proba = loop.predict_proba(X)
            best, sure = loop.classes_[proba.argmax(axis=1)], proba.max(axis=1)
            here = np.isin(numbers, waiting)
            found = zip(numbers[here], best[here], sure[here], strict=True)
            guesses = {int(n): [str(name), round(float(p), 4)] for n, name, p in found}
            self._compare(numbers, best.astype(str), y)
        if n_labels >= max(MIN_LABELS, 1.1 * self.n_estimate):
            self.n_estimate = n_labels
            estimate = self.project.learner.estimate()
            self.estimate = None if estimate is None else estimate._asdict()
        return {
            "n_items": self.n_items,
            "exhausted": self.exhausted,
            "guesses": guesses,
            "estimate": self.estimate,
            "kappas": [value for value in self.rule.values_ if value == value],
            "advice": self.advice(int(pd.isna(y).sum())),
        }

    def _compare(self, numbers, best, y):
        """Compare a model with the one a batch of labels ago."""
        from skal.callbacks import Round

        known = ~pd.isna(y) & (y != SKIP)
        if self.rule.rounds_ and known.sum() < self.n_compared + self.batch_size:
            return
        self.n_compared = known.sum()
        seen = Round(
            number=len(self.rule.rounds_),
            labeled=numbers[known],
            rows=numbers[~known],
            guesses=best[~known],
        )
        self.rule.update(seen)

    def advice(self, n_left):
        """Say whether to go on, and by which rule.

        Parameters
        ----------
        n_left : int
            Items without an answer.

        Returns
        -------
        advice : str
        """
        if not n_left:
            return "All items have an answer."
        advice = "Go on"
        if self.rule.stopped_:
            advice = "You may stop, more labels will change little"
        return f"{advice}: {self.rule.reason_} (rule: {type(self.rule).__name__})."


def main(folder):
    """Work for the page: a line in asks for a look, a line of JSON out reports.

    Parameters
    ----------
    folder : str
        Of the project.
    """
    os.nice(5)  # the page answers first
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no report
    woken = threading.Event()
    woken.set()

    def listen():
        for _ in sys.stdin:
            woken.set()
        os._exit(0)  # whoever asked is gone; the store is whole at any moment

    threading.Thread(target=listen, daemon=True).start()
    planner = None
    while True:
        woken.wait()
        woken.clear()
        try:
            planner = planner or Planner(LabelProject.open(folder))
            report = planner.step()
        except Exception as error:  # tell it, and try again after the next answer
            report = {"error": f"{type(error).__name__}: {error}"}
        if report is not None:
            out.write(json.dumps(report) + "\n")
            out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
