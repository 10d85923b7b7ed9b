"""What X, y and the test rows of a loop must be, alone and together."""

import numpy as np
from sklearn.utils import check_consistent_length, get_tags

from skal.net.training import final_estimator, is_net
from skal.utils.labels import check_labels, encode, find_classes, known_labels
from skal.utils.rows import dataset_targets, has_targets, is_dataset, n_rows


class DataChecksMixin:
    """Validate the data of a fit.

    The host has the parameters `estimator`, `oracle`, `missing_label` and `classes`,
    and the method `_check_rows`; it gets the attribute `classes_`.
    """

    def _check_data(self, X, y):
        """Validate X, y and what they mean together; returns X, y, missing, mode."""
        final = final_estimator(self.estimator)
        tags = get_tags(self.estimator)
        if tags.estimator_type not in (None, "classifier"):
            raise ValueError(
                f"estimator must be a classifier, got a {tags.estimator_type}: "
                f"{type(final).__name__}."
            )
        if is_net(final) and tags.estimator_type is None:
            raise ValueError(
                f"estimator must be a classifier, got a plain {type(final).__name__}; "
                "use skorch.NeuralNetClassifier."
            )
        if y is None and is_dataset(X) and not callable(self.oracle):
            if self.oracle is None or has_targets(X):
                y = dataset_targets(X)
        if y is None and self.oracle is None:
            raise ValueError(
                "ActiveLearningLoop requires y to be passed, but the target y is None; "
                "pass labels, or an oracle."
            )
        if is_dataset(X) and not is_net(final):
            raise TypeError(
                "X is a torch Dataset, which only a skorch net can take, got "
                f"estimator {type(final).__name__}."
            )
        X = self._check_rows(X, reset=True)
        n_samples = n_rows(X)
        if n_samples == 0:
            raise ValueError(
                "Found array with 0 sample(s): X has no rows to choose from."
            )
        if y is None:
            y = np.full(n_samples, self.missing_label, dtype=object)
        else:
            check_consistent_length(X, y)
        y, missing = check_labels(y, self.missing_label)
        if callable(self.oracle) and not missing.any():
            raise ValueError(
                "oracle is a callable, but y is complete: there is nothing to ask. "
                f"Mark unknown labels as {self.missing_label!r}, or pass oracle=None."
            )
        if self.oracle == "ask" or (self.oracle is None and missing.any()):
            mode = "ask"
        else:
            mode = "oracle" if callable(self.oracle) else "simulate"
        self.classes_ = find_classes(
            y,
            missing,
            self.missing_label,
            self.classes,
            simulate=mode == "simulate",
            guess=self.oracle is None,
        )
        return X, y, missing, mode

    def _check_test(self, X_test, y_test):
        """Validate the test rows; returns None or (X, y, codes)."""
        if X_test is None:
            if y_test is not None:
                raise ValueError("y_test is given without X_test; pass both.")
            return None
        if y_test is None and is_dataset(X_test):
            y_test = dataset_targets(X_test)
        if y_test is None:
            raise ValueError("X_test is given without y_test; pass both.")
        X_test = self._check_rows(X_test)
        check_consistent_length(X_test, y_test)
        y_test, missing = check_labels(y_test, self.missing_label)
        if missing.any():
            raise ValueError(
                f"y_test holds missing_label={self.missing_label!r}; every test row "
                "needs a label."
            )
        y_test = known_labels(y_test, slice(None))
        if self.classes is not None or (self.oracle is None and len(self.classes_)):
            encode(y_test, self.classes_, name="y_test")
        return X_test, y_test
