"""Nets inside other classifiers (calibration, bagging, voting); few labels there."""

import warnings

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import StratifiedKFold
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier


def nets_inside(estimator):
    """List the skorch classifiers among the parameters of a classifier.

    Parameters
    ----------
    estimator : estimator
        The final one of a Pipeline; a net has none inside.

    Returns
    -------
    nets : list of NeuralNetClassifier or NeuralNetBinaryClassifier
    """
    kinds = NeuralNetClassifier | NeuralNetBinaryClassifier
    if isinstance(estimator, kinds) or not hasattr(estimator, "get_params"):
        return []
    found = {id(v): v for v in estimator.get_params().values() if isinstance(v, kinds)}
    return list(found.values())


class SeenClasses:
    """Mixin of a net inside another classifier: a column for each class it was shown.

    That is what scikit-learn's classifiers give, and so what those around them expect;
    the network may have further outputs, since parts of the labels lack classes.
    """

    def predict_proba(self, X):
        """Give the probabilities of the classes in `classes_`.

        Parameters
        ----------
        X : rows

        Returns
        -------
        proba : array of shape (n_samples, n_classes)
        """
        proba = super().predict_proba(X)
        if proba.shape[1] == len(self.classes_):
            return proba
        proba = proba[:, self.classes_]
        return proba / proba.sum(1, keepdims=True)

    def predict(self, X):
        """Give the most probable of `classes_`.

        Parameters
        ----------
        X : rows

        Returns
        -------
        y : array of shape (n_samples,)
        """
        return self.classes_[self.predict_proba(X).argmax(1)]


class FewLabelFolds:
    """StratifiedKFold that also does where a class has fewer labels than folds.

    There are no more folds than the largest class has labels, and a class with a single
    label is trained on in each of them.

    Parameters
    ----------
    n_folds : int
        With as many labels of each class, the folds of `StratifiedKFold`.
    """

    def __init__(self, n_folds):
        self.n_folds = n_folds

    def get_n_splits(self, X=None, y=None, groups=None):
        """Give the number of folds for labels `y`.

        Parameters
        ----------
        X, groups : object
            Play no part.
        y : array-like of shape (n_samples,)

        Returns
        -------
        n_folds : int
        """
        return min(self.n_folds, int(np.unique(y, return_counts=True)[1].max()))

    def split(self, X, y, groups=None):
        """Yield the rows to train on and those held out.

        Parameters
        ----------
        X, groups : object
            Play no part.
        y : array-like of shape (n_samples,)

        Yields
        ------
        train, test : int64 arrays
            Each row is held out once.
        """
        _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        alone, rows = np.flatnonzero(counts[codes] == 1), np.arange(len(codes))
        n_folds = self.get_n_splits(y=y)
        if n_folds == 1:
            yield rows, rows
            return
        with warnings.catch_warnings():  # of the least populated class
            warnings.simplefilter("ignore", UserWarning)
            for train, test in StratifiedKFold(n_folds).split(rows, codes):
                yield np.union1d(train, alone), test


def allow_few_labels(estimator):
    """Let calibration by cross-validation do with few labels of a class, in place.

    Parameters
    ----------
    estimator : estimator
        A private clone.
    """
    for part in [estimator, *estimator.get_params().values()]:
        if isinstance(part, CalibratedClassifierCV):
            if part.cv is None or isinstance(part.cv, int):
                part.set_params(cv=FewLabelFolds(5 if part.cv is None else part.cv))


def warn_of_wrapped_nets(final, reads):
    """Say what is otherwise than with a bare net, where there is one inside.

    Parameters
    ----------
    final : estimator
        Not fitted, the last step of a Pipeline.
    reads : set of str
        The outputs of a `PoolView` that the strategy reads.
    """
    if not nets_inside(final):
        return
    name, notes = type(final).__name__, []
    if isinstance(final, CalibratedClassifierCV | BaggingClassifier):
        notes.append("is trained on a part of the labelled rows at a time")
    if "embeddings" in reads:
        notes.append("gives no embeddings: the strategy gets the rows for them")
    if notes:
        warnings.warn(
            f"the net inside {name} {', and '.join(notes)}. Give the net itself, or a "
            "Pipeline that ends in it, where you want it otherwise.",
            UserWarning,
            stacklevel=2,
        )
