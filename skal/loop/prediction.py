"""Predict in the caller's labels with an estimator that was fitted on codes."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils import ClassifierTags, check_consistent_length, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from skal.net.training import final_estimator, is_net, transformers_of
from skal.utils.labels import check_labels, encode, known_labels
from skal.utils.rows import (
    DatasetRows,
    dataset_targets,
    is_dataset,
    n_rows,
    take,
)
from skal.utils.seeds import derive_seed, isolated_rng
from skal.utils.validation import (
    check_is_fitted,
    check_rows,
    routed_params,
    slice_rows,
)


def _estimator_has(name):
    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


class CodedClassifierMixin:
    """Prediction half of a meta-estimator whose `estimator_` knows codes, not labels.

    The host has the parameters `estimator` and `missing_label`. Its `fit` validates
    rows with `_check_rows(X, reset=True)`, gives them to the estimator as
    `_for_estimator` makes them, and sets `seed_` (an int), `_labels` (a `Labels`,
    whose classes the codes number; from then on the host counts as fitted) and
    `estimator_` (fitted on the codes; absent as long as there is no model).
    """

    _columns, _to_come = None, ()

    @property
    def classes_(self) -> NDArray:
        """The classes, one for each column of the probabilities."""
        check_is_fitted(self)
        classes = self._labels.classes
        if self._columns is None:
            return classes
        classes = np.array([*classes.tolist(), *self._to_come], dtype=object)
        return known_labels(classes, self._columns)

    def _sorted_view(self, y):
        """Show the columns as scorers of scikit-learn expect them.

        That is, in sorted order, and one for each class of `y`, known or not yet.
        """
        known = self._labels.classes.tolist()
        to_come = [label for label in dict.fromkeys(y.tolist()) if label not in known]
        classes = np.array([*known, *to_come], dtype=object)
        check_labels(classes, self.missing_label, refuse_text=False)
        order = np.argsort(classes)
        if (order == np.arange(len(known) + len(to_come))).all() and not to_come:
            return self
        view = copy(self)
        view._columns, view._to_come = order, to_come
        return view

    def _check_model(self):
        check_is_fitted(self)
        if not hasattr(self, "estimator_"):
            raise NotFittedError(
                f"there is no model yet: the {len(self._labels)} labels so far are of "
                f"{self._labels.n_seen} of the two classes that it takes at least. "
                "Label more rows, in ask mode those in next_query_, and call fit again."
            )

    def _takes_sparse(self):
        steps = transformers_of(self.estimator)
        if is_net(final_estimator(self.estimator)):  # whose tags know no sparse rows
            return all(get_tags(step).input_tags.sparse for step in steps)
        return get_tags(self.estimator).input_tags.sparse

    def _check_rows(self, X, *, reset=False):
        return check_rows(
            self, X, self.estimator, accept_sparse=self._takes_sparse(), reset=reset
        )

    def _for_estimator(self, X):
        """Rows as the estimator takes them: of a Dataset, without its labels."""
        return DatasetRows(X, np.arange(len(X))) if is_dataset(X) else X

    def _delegate(self, method, X, params):
        """Call a method of the fitted estimator; leave global generators alone."""
        self._check_model()
        params = routed_params(self, method, params)
        X = self._for_estimator(self._protected(self._check_rows(X)))
        with isolated_rng(derive_seed(self.seed_, 0, "predict")):
            return getattr(self.estimator_, method)(X, **params)

    def _protected(self, X):
        """Rows that transformers may write to without changing the caller's."""
        steps = self.estimator.get_params().values()
        read_only = isinstance(X, np.ndarray) and not X.flags.writeable
        if read_only or not any(hasattr(step, "transform") for step in steps):
            return X
        copying = getattr(X, "clone" if isinstance(X, Tensor) else "copy", None)
        return X if copying is None or is_dataset(X) else copying()

    def _by_code(self, known, fill):
        """Give every code its column; columns of unseen classes get `fill`."""
        n_classes = len(self._labels.classes)
        if known.shape[1] >= n_classes:  # further outputs belong to no class
            return known[:, :n_classes]
        codes = np.asarray(final_estimator(self.estimator_).classes_, dtype=np.int64)
        spread = np.full((len(known), n_classes), fill, dtype=known.dtype)
        spread[:, codes] = known
        return spread

    def _shown(self, by_code, fill):
        if self._columns is None:
            return by_code
        to_come = np.full((len(by_code), len(self._to_come)), fill, by_code.dtype)
        return np.hstack([by_code, to_come])[:, self._columns]

    @available_if(_estimator_has("predict"))
    def predict(self, X: Any, **params: Any) -> NDArray:
        """Predict classes.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        y : array of shape (n_samples,)
            In the caller's labels.
        """
        codes = np.asarray(self._delegate("predict", X, params)).astype(np.int64)
        classes = self._labels.classes
        if len(codes) and codes.max() >= len(classes):
            codes = self._by_code(self._delegate("predict_proba", X, {}), 0.0).argmax(1)
        return classes[codes]

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any, **params: Any) -> NDArray:
        """Predict probabilities, a column for each of `classes_`.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        proba : array of shape (n_samples, n_classes)
        """
        known = self._delegate("predict_proba", X, params)
        proba = self._by_code(known, 0.0)
        if known.shape[1] > proba.shape[1]:
            proba = proba / proba.sum(1, keepdims=True)
        return self._shown(proba, 0.0)

    @available_if(_estimator_has("predict_proba"))
    def predict_log_proba(self, X: Any, **params: Any) -> NDArray:
        """Logarithms of `predict_proba`; minus infinity for an unseen class.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on to `predict_proba` by metadata routing.

        Returns
        -------
        log_proba : array of shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, **params))

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any, **params: Any) -> NDArray:
        """Decision values; the smallest float for an unseen class.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        decision : array of shape (n_samples,) or (n_samples, n_classes)
        """
        known = self._delegate("decision_function", X, params)
        n_known = len(final_estimator(self.estimator_).classes_)
        if known.ndim == 1:
            if n_known == len(self._labels.classes) and not self._to_come:
                return known
            known = np.column_stack([-known, known])
        fill = np.finfo(known.dtype).min
        if n_known < len(self._labels.classes):
            known = self._by_code(known, fill)
        return self._shown(known, fill)

    @available_if(_estimator_has("score"))
    def score(self, X: Any, y: Any = None, **params: Any) -> float:
        """Score with the estimator's own `score` (accuracy), over the labelled rows.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        y : array-like of shape (n_samples,), default=None
            Labels; rows whose label is missing are left out. None reads a Dataset's.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            Where every label is missing.
        """
        self._check_model()
        if y is None and is_dataset(X):
            y = dataset_targets(X)
        if y is None:
            raise ValueError("score requires y to be passed, but the target y is None.")
        params = routed_params(self, "score", params)
        X = self._check_rows(X)
        check_consistent_length(X, y)
        classes = self._labels.classes
        y, missing = check_labels(y, self.missing_label, classes=classes)
        if missing.all():
            raise ValueError(
                f"every label of y is missing_label={self.missing_label!r}; there is "
                "nothing to score."
            )
        rows = np.flatnonzero(~missing)
        params = slice_rows(n_rows(X), params, rows)
        codes = encode(known_labels(y, rows), classes, strict=False)
        X = self._protected(X) if len(rows) == n_rows(X) else take(X, rows)
        with isolated_rng(derive_seed(self.seed_, 0, "predict")):
            return self.estimator_.score(self._for_estimator(X), codes, **params)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_labels")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = "classifier"
        tags.classifier_tags = inner.classifier_tags or ClassifierTags()
        tags.input_tags = inner.input_tags
        tags.input_tags.sparse = self._takes_sparse()
        tags.target_tags.required = True
        tags.non_deterministic = inner.non_deterministic
        return tags

    def get_metadata_routing(self) -> Any:
        """Say where parameters go; see scikit-learn's guide to metadata routing.

        Returns
        -------
        router : MetadataRouter
        """
        mapping = MethodMapping()
        for method in ("fit", "predict", "predict_proba", "decision_function", "score"):
            mapping.add(caller=method, callee=method)
        mapping.add(caller="predict_log_proba", callee="predict_proba")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(estimator=self.estimator, method_mapping=mapping)
        )
