"""`Learner`: what is trained on the labels of a project, chooses and predicts."""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from skal.annotate import learning
from skal.annotate.inventory import mark_broken
from skal.annotate.project import SKIP
from skal.experiment.options import UsageError
from skal.selection import herding


class Learner:
    """Read the items of a project, and learn from the labels they have so far.

    Rows and model are kept until the items or the labels are others.

    Parameters
    ----------
    project : LabelProject
    """

    def __init__(self, project):
        self.store, self.source = project.store, project.source
        self.settings, self.folder = project.settings, project.folder
        self._features = self._trained = None

    def rows(self):
        """Give the items that can be read.

        Returns
        -------
        numbers : int64 array of shape (n_items,)
            Of the items in the store.
        X : array of shape (n_items, ...)
        y : array of object of shape (n_items,)
            Labels; None where one is missing, `SKIP` where it is not to be asked for.
        """
        items = self.store.items()
        items = items[items["state"] == ""]
        key = tuple(items.index), tuple(items["content"])
        if self._features is None or self._features[0] != key:
            self._features = self._read(items)
        X = self._features[1]
        numbers = np.array(self._features[0][0], dtype=np.int64)
        return numbers, X, self.store.labels(skip_label=SKIP)[numbers]

    def _read(self, items):
        """Read what the model sees; images that turn out broken are left out."""
        names, cache = items["item"].tolist(), self.folder / "features"
        X = self.source.raw(names)
        self._reader = learning.reader(self.source, self.settings, cache)
        if self.source.kind == "images":
            contents = items["content"].tolist()
            X, faults = learning.read_images(self._reader, X, contents, self.folder)
            mark_broken(self.store, {names[k]: why for k, why in faults.items()})
            items = items.drop(index=items.index[[*faults]])
        elif self._reader is not None:
            X = self._reader.transform(X)
        if len(items) < 2:
            raise UsageError(
                f"{self.source.path} needs two items at least that can be read, got "
                f"{len(items)}; skal label status names those that cannot."
            )
        self._fitted = learning.build_features(self.source, self.settings, len(items))
        if self._fitted is not None:
            X = np.asarray(self._fitted.fit_transform(X), dtype=np.float32)
        return (tuple(items.index), tuple(items["content"])), X

    def choose(self, n_items, replace=False):
        """Choose items and put them in the queue; see `LabelProject.choose`.

        Returns
        -------
        numbers : int64 array
        loop : ActiveLearningLoop or None
            What chose them.
        """
        numbers, X, y = self.rows()
        waiting = self.store.queue(self.settings.copies, handed_out=replace)
        is_open = pd.isna(y)
        skip = np.flatnonzero(np.isin(numbers, waiting) & is_open)
        is_open[skip] = False
        n_items = min(n_items, int(is_open.sum()))
        if n_items == 0:
            return np.empty(0, dtype=np.int64), None
        loop = self._fit(numbers, X, y, n_items, skip)
        if loop is None:
            points = np.asarray(X, dtype=np.float32).reshape(len(X), -1)
            picks = herding(
                points[is_open],
                n_items,
                centers=points[~is_open],
                random_state=self.settings.seed,
            )
            picks, strategy = np.flatnonzero(is_open)[picks], "herding"
        else:
            picks, strategy = loop.next_query_, self.settings.strategy
        self.store.choose(numbers[picks], strategy, replace=replace)
        return numbers[picks], loop

    def train(self):
        """Train on all labels.

        Returns
        -------
        loop : ActiveLearningLoop or None
            None while there are not labels of two classes.
        """
        return self._fit(*self.rows())

    def _fit(self, numbers, X, y, n_items=None, skip=()):
        """Train on all labels, and choose."""
        if len(set(y) - {None, SKIP}) < 2:
            return None
        state, asked = (numbers.tolist(), y.tolist()), (n_items, [*skip])
        known = self._trained
        if known and known[0] == state and (n_items is None or known[1] == asked):
            return known[2]
        loop = learning.build_loop(self.settings, X, self.store.classes, n_items or 1)
        loop.fit(X, y, skip=skip, skip_label=SKIP)
        self._trained = state, asked, loop
        return loop

    def model(self):
        """Give the trained classifier; see `LabelProject.model_`."""
        loop = self.train()
        if loop is None:
            raise UsageError(
                "there is no model yet: it needs labels of two classes at least; label "
                "some more items."
            )
        steps = {"read": self._reader, "features": self._fitted, "classify": loop}
        return Pipeline([step for step in steps.items() if step[1] is not None])

    def predict(self):
        """Predict all items; see `LabelProject.predict`."""
        loop = self.model().steps[-1][1]
        numbers, X, y = self.rows()
        proba = loop.predict_proba(X)
        items = self.store.items().loc[numbers, "item"].to_numpy(object)
        label = loop.classes_[proba.argmax(axis=1)]
        confidence = proba.max(axis=1)
        given = np.where(y == SKIP, None, y)
        is_open = pd.isna(given)
        look = np.where(is_open & (confidence < 0.8), "unsure", "")
        look = np.where(~is_open & (given != label), "disagrees", look)
        look = np.where(np.isin(items, self.store.conflicts()), "conflict", look)
        columns = [items, label, confidence, given, look]
        names = ["item", "label", "confidence", "given", "look"]
        return pd.DataFrame(dict(zip(names, columns, strict=True)))

    def estimate(self):
        """Estimate the accuracy; see `LabelProject.estimate`."""
        _, X, y = self.rows()
        known = ~pd.isna(y) & (y != SKIP)
        return learning.estimate_accuracy(self.settings, X[known], y[known].astype(str))
