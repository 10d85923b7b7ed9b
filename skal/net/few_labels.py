"""What estimators need to learn from few labels, some classes of which are missing."""

import warnings

import numpy as np
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit


class GapFreeLabels:
    """Mixin of a private classifier that wants codes without gaps, as XGBoost does.

    While a class has no label its code is missing among those to learn from. Where the
    classifier refuses that, it learns codes 0..k-1, and `classes_` says which they are.
    """

    def fit(self, X, y, *args, **kwargs):
        """Fit to the codes as they are, or else to codes without gaps."""
        vars(self).pop("_known_codes", None)
        try:
            return super().fit(X, y, *args, **kwargs)
        except ValueError:
            known, codes = np.unique(y, return_inverse=True)
            if not has_gaps(y) or not hasattr(self, "predict_proba"):
                raise
            super().fit(X, codes, *args, **kwargs)
        self._known_codes = known
        return self

    @property
    def classes_(self):
        """Codes of the columns of `predict_proba`."""
        inner = vars(self)
        classes = inner["classes_"] if "classes_" in inner else super().classes_
        return inner["_known_codes"] if "_known_codes" in inner else classes

    @classes_.setter
    def classes_(self, classes):
        vars(self)["classes_"] = classes

    def predict(self, X, *args, **kwargs):
        """Predict codes."""
        if "_known_codes" not in vars(self):
            return super().predict(X, *args, **kwargs)
        return self._known_codes[self.predict_proba(X, *args, **kwargs).argmax(1)]


def count_classes_anew(estimator):
    """Let boosters of XGBoost count the classes that have a label, in place.

    A `num_class`, or an objective that needs one, breaks where there are two; the
    default objective turns to softmax where there are more.

    Parameters
    ----------
    estimator : estimator
        A private clone.
    """
    for part in [estimator, *estimator.get_params().values()]:
        if not of_xgboost(part):
            continue
        if getattr(part, "kwargs", None):
            part.kwargs = {k: v for k, v in part.kwargs.items() if k != "num_class"}
        if part.objective in ("multi:softmax", "multi:softprob"):
            part.objective = "binary:logistic"


def of_xgboost(estimator):
    """Tell whether an estimator is a classifier of XGBoost."""
    names = {f"{cls.__module__}.{cls.__name__}" for cls in type(estimator).__mro__}
    return "xgboost.sklearn.XGBClassifier" in names


def has_gaps(y):
    """Tell whether codes are integers, but not 0..k-1."""
    y = np.asarray(y)
    return y.dtype.kind in "iu" and y.ndim == 1 and len(np.unique(y)) <= y.max()


class LenientSplit(ValidSplit):
    """A stratified split that is a plain one where classes have too few labels."""

    def __call__(self, dataset, y=None, groups=None):
        """Split a dataset in two."""
        try:
            with warnings.catch_warnings():  # of the least populated class
                warnings.simplefilter("ignore", UserWarning)
                return super().__call__(dataset, y, groups)
        except ValueError:
            n_splits = getattr(self.cv, "get_n_splits", lambda: self.cv)()
            if y is None or not isinstance(n_splits, int | float):
                raise
            share = n_splits if n_splits < 1 else 1 / n_splits
            return ValidSplit(share, random_state=self.random_state)(dataset, y)


def is_default_split(net):
    """Tell whether `train_split` equals what skorch gives such a net by default."""
    split = net.train_split
    stratified = isinstance(net, NeuralNetClassifier | NeuralNetBinaryClassifier)
    return type(split) is ValidSplit and vars(split) == vars(
        ValidSplit(5, stratified=stratified)
    )


def may_watch_validation(net):
    """Tell whether a callback reads validation scores, or cannot be read itself.

    Callbacks of skorch say by their parameters what they read; other callbacks,
    callables, and methods `on_...` of the net's own class may read anything.
    """
    params = net.get_params(deep=False).items()
    params = [(key, value) for key, value in params if key.startswith("callbacks__")]
    callbacks = _callbacks(net)
    callbacks += _instances(value for key, value in params if key.count("__") == 1)
    monitors = [value for key, value in params if key.endswith("__monitor")]
    own = (
        name for cls in type(net).__mro__ if not _of_skorch(cls) for name in vars(cls)
    )
    return (
        any(map(_unclear, monitors))
        or any(map(_callback_watches, callbacks))
        or any(name.startswith("on_") for name in own)
    )


def check_validation(net):
    """Raise where callbacks read validation scores, but there is no validation set."""
    callbacks = _callbacks(net)
    if net.train_split is not None or any(map(_may_record, callbacks)):
        return
    on_train = {_score_name(c): c.on_train for c in callbacks if hasattr(c, "on_train")}
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        score = str(monitor).removesuffix("_best")
        if not on_train.get(score, not score.startswith("valid")):
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, but train_split=None "
                "gives no validation set; pass monitor='train_loss', or a split such "
                "as train_split=ValidSplit(5)."
            )


def _callbacks(net):
    callbacks = net.callbacks if isinstance(net.callbacks, list | tuple) else ()
    return _instances(c[1] if isinstance(c, tuple) else c for c in callbacks)


def _instances(callbacks):
    # skorch takes classes, too, and instantiates them with their defaults.
    return [c() if isinstance(c, type) else c for c in callbacks if c is not None]


def _may_record(callback):
    """Tell whether a method that is not skorch's reads or writes the history."""
    own = [cls for cls in type(callback).__mro__[:-1] if not _of_skorch(cls)]
    codes = [getattr(m, "__code__", None) for cls in own for m in vars(cls).values()]
    return any("history" in code.co_names for code in codes if code)


def _score_name(callback):
    scoring = getattr(callback, "scoring", None)
    return callback.name or getattr(scoring, "__name__", str(scoring))


def _callback_watches(callback):
    return (
        not _of_skorch(type(callback))
        or _unclear(getattr(callback, "monitor", ""))
        or callable(getattr(callback, "schedule", None))
        or "valid" in str(getattr(callback, "name", ""))
        or getattr(callback, "on_train", None) is False
    )


def _unclear(monitor):
    return callable(monitor) or "valid" in str(monitor)


def _of_skorch(cls):
    return cls is Callback or cls.__module__.partition(".")[0] in ("skorch", "skal")
