"""Private clones of an estimator, and fits that leave no trace behind."""

import math
import signal
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    FixedThresholdClassifier,
    ParameterSampler,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader

from skal.net.batches import BatchLoader, TrainLoader
from skal.net.few_labels import (
    GapFreeLabels,
    LenientSplit,
    check_validation,
    count_classes_anew,
    has_gaps,
    is_default_split,
    may_watch_validation,
    of_xgboost,
)
from skal.net.inputs import CastInputs
from skal.net.wrapped import SeenClasses, allow_few_labels, nets_inside
from skal.utils.seeds import isolated_rng

_THRESHOLDS = (FixedThresholdClassifier, TunedThresholdClassifierCV)


def final_estimator(estimator):
    """Peel off all that hands its rows on, down to the estimator that predicts.

    That is Pipelines, searches, thresholds and ensembles, which name a `first_member`.
    """
    return list(_levels(estimator))[-1]


def transformers_of(estimator):
    """List the fitted transformers on the way to the final estimator, in order.

    Samplers of imbalanced-learn change what is learnt from, not what is predicted.
    """
    return [
        step
        for level in _levels(estimator)
        if isinstance(level, Pipeline)
        for _, step in level.steps[:-1]
        if step not in (None, "passthrough") and not hasattr(step, "fit_resample")
    ]


def _levels(estimator):
    """Yield an estimator and those inside it that see all rows it sees, in turn."""
    while True:
        yield estimator
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif isinstance(estimator, _THRESHOLDS):
            estimator = getattr(estimator, "estimator_", estimator.estimator)
        elif hasattr(estimator, "first_member"):
            estimator = estimator.first_member
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif _will_search(estimator):
            estimator = estimator.estimator
        else:
            return


def _will_search(estimator):
    return (
        hasattr(estimator, "refit")
        and hasattr(estimator, "estimator")
        and not any(name.endswith("_") for name in vars(estimator))  # not fitted
    )


def check_trainable(estimator):
    """Raise where an estimator cannot be fitted and then predict."""
    for part in [estimator, *estimator.get_params().values()]:
        name, cv = type(part).__name__, getattr(part, "cv", None)
        prefit = isinstance(cv, str) and cv == "prefit"
        if prefit or (isinstance(part, FrozenEstimator) and is_classifier(part)):
            raise ValueError(
                f"{name}{'(cv=' + repr(cv) + ')' if prefit else ''} keeps a model that "
                "does not learn from new labels; pass an unfitted estimator"
                f"{' and a number as cv' if prefit else ''}."
            )
        if of_xgboost(part) and part.early_stopping_rounds is not None:
            if not part.get_metadata_routing().fit.requests.get("eval_set"):
                raise ValueError(
                    f"{name}(early_stopping_rounds={part.early_stopping_rounds}) needs "
                    "an eval_set, and gets none; leave early_stopping_rounds out."
                )
        searches = hasattr(part, "estimator") and hasattr(part, "scoring")
        if not searches or isinstance(part, _THRESHOLDS):
            continue
        for grid in ("param_grid", "param_distributions"):
            _check_settable(part, grid)
        refit = getattr(part, "refit", None)
        several = isinstance(part.scoring, list | tuple | set | dict)
        if refit is False or (refit is True and several):
            raise ValueError(
                f"{name}(refit={refit}) leaves no model to predict with; set refit to "
                f"{'the name of one of its scores' if several else 'True'}."
            )


def _check_settable(search, name):
    """Raise where a search would set parameters that its estimator does not have."""
    grids = getattr(search, name, {})
    for grid in [grids] if isinstance(grids, dict) else grids:
        for candidate in ParameterSampler(grid, 1, random_state=0):
            try:
                clone(search.estimator).set_params(**clone(candidate, safe=False))
            except ValueError as error:
                raise ValueError(
                    f"{name} of {type(search).__name__} does not fit its estimator: "
                    f"{error}"
                ) from error


def is_net(estimator):
    """Tell whether an estimator is a skorch net."""
    return isinstance(estimator, NeuralNet)


_EXTENDED = {}


def extend_net(net, mixin):
    """Put a mixin before the class of a net, in place; pickle and clone still work.

    Parameters
    ----------
    net : skorch.NeuralNet
        A private clone.
    mixin : class
        Importable by name; a net that has it already is left alone.

    Returns
    -------
    net : the same net
    """
    if not isinstance(net, mixin):
        net.__class__ = _extended_class(mixin, type(net))
    return net


def _extended_class(mixin, base):
    if (mixin, base) not in _EXTENDED:
        origin, mixins = getattr(base, "_skal_recipe", (base, ()))
        recipe = (origin, (*mixins, mixin))
        _EXTENDED[mixin, base] = type(
            base.__name__,
            (mixin, base),
            {
                "_skal_recipe": recipe,
                "__module__": base.__module__,
                "__doc__": base.__doc__,
                "__reduce_ex__": lambda self, protocol: (
                    *empty_net(self),
                    self.__getstate__(),
                ),
            },
        )
    return _EXTENDED[mixin, base]


def empty_net(net):
    """Give a function and its arguments that make such a net without attributes."""
    return _rebuild, getattr(net, "_skal_recipe", (type(net), ()))


def _rebuild(cls, mixins):
    for mixin in mixins:
        cls = _extended_class(mixin, cls)
    return cls.__new__(cls)


def casting_view(net):
    """Give a fitted net that casts its inputs and shares all else with the given one.

    Parameters
    ----------
    net : skorch.NeuralNet
        Never touched; one that casts already is given back.
    """
    if isinstance(net, CastInputs):
        return net
    make, args = empty_net(net)
    view = make(*args)
    vars(view).update(vars(net))
    return extend_net(view, CastInputs)


def private_clone(estimator, n_classes, warm_start=False):
    """Clone an estimator and make its net fit for few, encoded labels.

    Parameters
    ----------
    estimator : estimator
        A classifier, Pipeline or search object; never touched.
    n_classes : int
        Labels will be 0..n_classes-1.
    warm_start : bool, default=False
        Let a second `fit` go on from the first.

    Returns
    -------
    private : estimator
        An unfitted clone. In a skorch net a `train_split` that equals the default is
        gone unless a callback may watch validation scores, a stratified one is plain
        where classes are too few, training rows are shuffled unless the user chose
        otherwise, inputs are cast, and `classes` is set. Nets inside another classifier
        are treated alike, but know the classes that they are shown.
    """
    private = clone(estimator)
    allow_few_labels(private)
    count_classes_anew(private)
    final = final_estimator(private)
    if warm_start:
        _check_warm_start(final)
        final.set_params(warm_start=True)
    if is_net(final):
        _make_private(final, n_classes)
    for net in nets_inside(final):
        _make_private(net, None)
        if isinstance(net, NeuralNetClassifier):
            extend_net(net, SeenClasses)
    return private


def _make_private(net, n_classes):
    """Make a net fit for few, encoded labels, in place; None finds the classes."""
    if isinstance(net, NeuralNetBinaryClassifier) and (n_classes or 0) > 2:
        raise ValueError(
            f"a NeuralNetBinaryClassifier cannot learn {n_classes} classes; use "
            "skorch.NeuralNetClassifier."
        )
    check_validation(net)
    params = {}
    if is_default_split(net) and not may_watch_validation(net):
        params["train_split"] = None
    elif type(net.train_split) is ValidSplit and (
        net.train_split.stratified or not isinstance(net.train_split.cv, int | float)
    ):
        params["train_split"] = LenientSplit(**vars(net.train_split))
    if "classes" in net.get_params(deep=False):
        params["classes"] = None if n_classes is None else list(range(n_classes))
    if net.iterator_train is DataLoader:
        params["iterator_train"] = TrainLoader
        given = net.get_params_for("iterator_train")
        if not {"shuffle", "sampler", "batch_sampler"} & set(given):
            params["iterator_train__shuffle"] = True
    if net.iterator_valid is DataLoader:
        params["iterator_valid"] = BatchLoader
    net.set_params(**params)
    extend_net(net, CastInputs)


def _check_warm_start(final):
    if "warm_start" not in final.get_params(deep=False):
        raise ValueError(
            f"warm_start=True needs an estimator with a warm_start parameter, "
            f"{type(final).__name__} has none; pass warm_start=False."
        )
    if hasattr(final, "n_estimators"):
        raise ValueError(
            f"warm_start=True would keep the old trees of {type(final).__name__} and "
            "learn nothing from new labels; pass warm_start=False."
        )


def warn_of_instances(estimator):
    """Warn where a net was given a module instance, whose weights every clone keeps."""
    final = final_estimator(estimator)
    if is_net(final) and isinstance(final.module, nn.Module):
        warnings.warn(
            "module is an instance: every round starts from its present weights, "
            "trained or not. Pass the class and module__... parameters to start each "
            "round afresh.",
            UserWarning,
            stacklevel=3,
        )


def net_to_prepare(estimator, name):
    """Find the net of a Pipeline, for a strategy that changes how it trains.

    Its `compile` is switched off: compiled code leaves out hooks.

    Parameters
    ----------
    estimator : estimator
        A private clone.
    name : str
        Of the strategy.

    Returns
    -------
    net : skorch.NeuralNet

    Raises
    ------
    ValueError
        Where the estimator is something else, such as a search.
    """
    net = estimator
    while isinstance(net, Pipeline):
        net = net.steps[-1][1]
    if not is_net(net):
        raise ValueError(
            f"{name} changes how the network trains, which a {type(net).__name__} does "
            "not let it do; give the strategy a net or a Pipeline that ends in one."
        )
    return net.set_params(compile=False) if net.compile else net


def note_finite(net, loss, **values):
    """Keep values of this batch in the history, read from the device at once.

    Raises where the loss or one of them is not finite.
    """
    tensors = [value.detach() for value in (loss, *values.values())]
    numbers = torch.stack([tensor.float() for tensor in tensors]).tolist()
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(
                f"training diverged: the loss is {number} in epoch "
                f"{len(net.history)}; clean X, or lower the learning rate, lr={net.lr}."
            )
    for name, number in zip(values, numbers[1:], strict=True):
        net.history.record_batch(name, number)


def label_dtype(estimator):
    """Type of the encoded labels an estimator trains on."""
    binary = isinstance(final_estimator(estimator), NeuralNetBinaryClassifier)
    return np.float32 if binary else np.int64


def fit_isolated(estimator, X, y, seed, **fit_params):
    """Fit with global generators seeded and restored, and Ctrl-C not swallowed.

    Parameters
    ----------
    estimator : estimator
        Fitted in place.
    X, y : rows and labels
        As the estimator takes them.
    seed : int
        Seeds Python's, NumPy's and torch's generators for the fit.
    **fit_params : dict
        Passed on to `fit`.

    Returns
    -------
    estimator : the same estimator

    Raises
    ------
    KeyboardInterrupt
        After a Ctrl-C that skorch took for an early stop.
    """
    final = final_estimator(estimator)
    known = type(final).__module__.partition(".")[0] in ("sklearn", "skal")
    if not known and not is_net(final) and has_gaps(y):
        extend_net(final, GapFreeLabels)
    with isolated_rng(seed), _interrupts_raised():
        return estimator.fit(X, y, **fit_params)


@contextmanager
def _interrupts_raised():
    # skorch ends training at a KeyboardInterrupt, because EarlyStopping raises one.
    handler = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or handler is not signal.default_int_handler:
        yield
        return
    hits = []

    def record(signum, frame):
        hits.append(signum)
        handler(signum, frame)

    signal.signal(signal.SIGINT, record)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if hits:
        raise KeyboardInterrupt
