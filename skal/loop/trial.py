"""Try on a few rows, before any label is bought, whether all will work together."""

import inspect
import warnings
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from skorch.dataset import unpack_data
from torch import nn

from skal.net.evaluation import batch_size, check_has_layers, check_has_proba
from skal.net.few_labels import of_xgboost
from skal.net.gradients import check_differentiable
from skal.net.pool_parts import OUTPUTS
from skal.net.training import (
    check_trainable,
    final_estimator,
    fit_isolated,
    is_net,
    label_dtype,
    private_clone,
    transformers_of,
)
from skal.net.wrapped import warn_of_wrapped_nets
from skal.pool import OF_HEAD, PoolView
from skal.posterior import DeepEnsemble, IdenticalMembersError, MCDropout
from skal.utils.discovery import innermost, named_strategies
from skal.utils.rows import (
    dense_rows,
    is_dataset,
    is_frame,
    n_rows,
    stack_rows,
    take,
    telling_rows,
)
from skal.utils.scratch import Scratch
from skal.utils.seeds import isolated_rng
from skal.utils.validation import InvalidParameterError

# Outputs that are the rows themselves where there is no network.
OF_ROWS = {"embeddings", "features"}
# Types of columns, as they begin, that hold text or categories.
OF_TEXT = ("object", "str", "categor", "enum")


def check_choices(estimator, strategy):
    """Say what to pass instead of a bare module, a class, or a name that is none.

    Parameters
    ----------
    estimator, strategy : object
        Parameters of the loop.
    """
    if isinstance(estimator, nn.Module) or (
        inspect.isclass(estimator) and issubclass(estimator, nn.Module)
    ):
        name = getattr(estimator, "__name__", type(estimator).__name__)
        raise InvalidParameterError(
            f"estimator is the torch module {name}; wrap it, as in "
            f"skorch.NeuralNetClassifier({name}, criterion=torch.nn.CrossEntropyLoss)."
        )
    if inspect.isclass(strategy):
        name = strategy.__name__
        raise InvalidParameterError(
            f"strategy is the class {name}; pass an instance, {name}()."
        )
    if isinstance(strategy, str):
        named_strategy(strategy)


def named_strategy(strategy):
    """Make a strategy of its name, such as "badge"; others are given back.

    Parameters
    ----------
    strategy : QueryStrategy or str
        A name is one of `skal list`, see `skal.utils.discovery.named_strategies`.

    Returns
    -------
    strategy : QueryStrategy
    """
    if not isinstance(strategy, str):
        return strategy
    known = named_strategies()
    if strategy not in known:
        raise InvalidParameterError(
            f"strategy={strategy!r} is no strategy; the names are {', '.join(known)}."
        )
    return known[strategy]


def try_estimator(
    estimator,
    X,
    strategy,
    *,
    n_classes,
    embedding_layer,
    random_state,
    X_test=None,
    n_first=None,
    memory_limit=None,
):
    """Raise where a fresh clone cannot give what a strategy reads, before any fit.

    A net is shown two rows, behind transformers that are fitted to a few. Where that
    cannot be done, as in a search, or to so few rows, nothing is said.

    Parameters
    ----------
    estimator : estimator
        Never touched.
    X : rows
        As for `PoolView`.
    strategy : QueryStrategy
        Its `requires` and `active_posterior` say what it will ask for.
    n_classes : int
        Number of classes known, or 0.
    embedding_layer : str
        See `PoolView`.
    random_state : int
        Seed of the clone's weights.
    X_test : rows, default=None
        Shown to a bare net, too.
    n_first : int, default=None
        Rows of the first labelled set, where that is yet to be bought.
    memory_limit : int or str, default=None
        Which a batch of each output must be within.
    """
    check_trainable(estimator)
    _check_folds(estimator, n_first)
    final = final_estimator(estimator)
    reads = {name.removeprefix("labeled.") for name in strategy.requires}
    if "input_gradients" in reads:
        check_differentiable(final)
    if "hidden_means" in reads:
        check_has_layers(final)
    warn_of_wrapped_nets(final, reads)
    posterior = getattr(strategy, "active_posterior", None)
    if posterior is not None:
        posterior.check(estimator)
    prepared = strategy.prepare(private_clone(estimator, n_classes))
    if of_xgboost(final):
        seen = transformers_of(estimator)
        _check_columns(final, _seen_rows(estimator, X, random_state) if seen else X)
    if not is_net(final):
        if reads & {"proba", "log_proba", "logits"}:
            check_has_proba(final, or_decisions="decision_values" in reads)
        if reads & OF_ROWS:
            rows = _seen_rows(estimator, X, random_state)
            if rows is not None:
                check_comparable(rows, f"strategy={type(strategy).__name__}()")
        if isinstance(posterior, DeepEnsemble):
            _try_ensemble(posterior, estimator, X, random_state)
        return
    rows = X if is_net(estimator) else _seen_rows(estimator, X, random_state)
    if rows is None:
        return
    with isolated_rng(random_state):
        net = final_estimator(prepared)
        net = net.initialize()
        _try_outputs(net, take(rows, np.arange(min(2, n_rows(rows)))))
        if rows is X and X_test is not None:
            _try_test_rows(net, take(X_test, np.arange(min(2, n_rows(X_test)))))
    view = PoolView.of_rows(
        net,
        rows,
        np.arange(min(2, n_rows(rows))),
        classes=np.arange(n_classes),
        embedding_layer=embedding_layer,
        random_state=random_state,
    )
    kept = []
    if reads or isinstance(net.criterion_, nn.NLLLoss):
        view.prefetch(reads)
        for name in ["proba", *sorted(reads & OF_HEAD)]:
            value = getattr(view, name)
            kept += [value] if name in OUTPUTS and reads & OUTPUTS else []
        if "rescore" in reads:
            view.rescore(view.embeddings)
        if "hidden_means" in reads:
            kept += view.hidden_means(innermost(strategy).layers).values()
        if "input_gradients" in reads:
            with view.input_gradients() as (batches, logits):
                logits(next(batches).requires_grad_())
    for value in kept:
        n_batch = min(batch_size(net, n_rows(X)), n_rows(X))
        Scratch(memory_limit).check_chunk(value, n_batch)
    if "features" in reads:
        with isolated_rng(random_state):
            stack_rows(view.features)
    if isinstance(posterior, MCDropout):
        with _quiet():
            view.sample_proba(posterior)


def _check_folds(estimator, n_first):
    """Raise where a cross-validation has more folds than the first set has rows.

    A single row is of one class, so that more are bought before anything is fitted.
    """
    for part in [estimator, *estimator.get_params().values()]:
        if not hasattr(part, "cv") or not hasattr(part, "fit"):
            continue
        cv = 5 if part.cv is None and hasattr(part, "refit") else part.cv
        if isinstance(part, CalibratedClassifierCV) and not hasattr(cv, "split"):
            continue  # does with fewer, see `allow_few_labels`
        n_folds = cv.n_splits if isinstance(cv, KFold | StratifiedKFold) else cv
        if isinstance(n_folds, int) and 1 < (n_first or 0) < n_folds:
            raise ValueError(
                f"{type(part).__name__}(cv={cv}) needs {n_folds} labelled rows at "
                f"least, but the first set has n_initial={n_first}; raise n_initial "
                "or lower cv."
            )


def _check_columns(booster, rows):
    """Raise where a booster of XGBoost is given columns that it does not take."""
    if rows is None or not is_frame(rows):
        return
    refused = ("object", "str") if booster.enable_categorical else OF_TEXT
    for name, dtype in zip(rows.columns, rows.dtypes, strict=True):
        if str(dtype).lower().startswith(refused):
            raise ValueError(
                f"X has the column {name!r} of dtype {dtype}, which "
                f"{type(booster).__name__}(enable_categorical="
                f"{booster.enable_categorical}) cannot take; put an encoder before it "
                "in a Pipeline, or make the column categorical and pass "
                "enable_categorical=True."
            )


def check_comparable(rows, name):
    """Raise where rows are to be compared, but are no finite numbers.

    Parameters
    ----------
    rows : rows of any container
    name : str
        Of the parameter, and of the strategy that compares them.
    """
    try:
        finite = bool(dense_rows(rows).isfinite().all())
    except ValueError as error:
        raise ValueError(f"{name} compares rows, but {error}") from error
    if not finite:
        remedy = (
            "pass initial='uniform', which compares none: the first set is chosen "
            "before any transformer is fitted"
            if name.startswith("initial")
            else "put a SimpleImputer before the classifier in a Pipeline where the "
            "strategy sees rows behind it, or take one that compares none, such as "
            "MarginQuery()"
        )
        raise ValueError(
            f"{name} compares rows, but X holds NaN or infinite entries; clean X, or "
            f"{remedy}."
        )


def _seen_rows(estimator, X, seed):
    """Give a few rows as the final estimator sees them; None where that is unknown."""
    inner = estimator
    while isinstance(inner, Pipeline):
        inner = inner.steps[-1][1]
    if inner is not final_estimator(estimator) or is_dataset(X):
        return None  # a search may replace the transformers
    rows = take(X, telling_rows(X))
    with _quiet(), isolated_rng(seed):
        try:
            for transformer in transformers_of(clone(estimator)):
                y = np.arange(n_rows(rows)) % 2
                rows = transformer.fit(rows, y).transform(rows)
        except Exception:  # they may need more rows, or other labels
            return None
    return rows


def _try_ensemble(posterior, estimator, X, seed):
    """Raise where members trained on a few rows come out identical."""
    rows = take(X, telling_rows(X))
    two = clone(posterior).set_params(n_members=2, n_jobs=None)
    ensemble = two.prepare(private_clone(estimator, 2))
    with _quiet():
        try:
            fit_isolated(ensemble, rows, np.arange(n_rows(rows)) % 2, seed)
        except IdenticalMembersError:
            raise
        except Exception:  # they may need more rows, or other labels
            return


def _try_outputs(net, rows):
    """Raise where a network returns what a net cannot learn or predict from."""
    name = type(net.module_).__name__
    try:
        net.predict_proba(rows)
    except TypeError as error:
        raise TypeError(
            f"{name} cannot predict: {error}. Let its forward take X as it is, and "
            "return one tensor of logits, or a tuple that starts with it, of a type "
            "that NumPy has, such as float32."
        ) from error
    dataset = net.get_dataset(rows)
    batch = next(iter(net.get_iterator(dataset, training=False)))
    output = net.evaluation_step(batch)
    if isinstance(output, tuple):
        inputs, _ = unpack_data(batch)
        y = np.zeros(n_rows(rows), dtype=label_dtype(net))
        try:
            net.get_loss(output, torch.from_numpy(y), X=inputs)
        except TypeError as error:
            if "must be Tensor" in str(error):
                raise TypeError(
                    f"{name} returns a tuple, which its criterion cannot take; extend "
                    "get_loss of the net, to take the part that it needs."
                ) from error


def _try_test_rows(net, rows):
    try:
        net.predict_proba(rows)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"X_test cannot be predicted: {error}. Its rows must be like those of X, "
            "which can."
        ) from error


@contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
