"""The model of a round: made or gone on with, trained, scored."""

from copy import copy

import numpy as np
from sklearn.metrics import check_scoring

from skal.loop.class_params import KEYED, coded_params
from skal.loop.stateless import behind
from skal.net.pool_features import PoolFeatures
from skal.net.training import (
    final_estimator,
    fit_isolated,
    is_net,
    label_dtype,
    private_clone,
)
from skal.utils.rows import DatasetRows, is_dataset, n_rows, take
from skal.utils.seeds import isolated_rng
from skal.utils.validation import slice_rows


def train_model(loop, X, labels, *, fit_params, seed):
    """Fit a private clone, or the last round's model, on all labels so far.

    Parameters
    ----------
    loop : ActiveLearningLoop
        Its parameters, `strategy_` and, where there is one, `estimator_` are used.
    X : rows
    labels : Labels
    fit_params : dict
        Values with one entry a row are cut to the labelled rows.
    seed : int

    Returns
    -------
    estimator : estimator
        Fitted on codes; without the head of a Pipeline.
    """
    rows, codes = labels.labeled()
    estimator = _last_model(loop, labels, codes)
    if estimator is None:
        classes, fixed = labels.classes, labels.fixed
        estimator = behind(loop._head, loop.estimator)
        estimator = private_clone(estimator, len(classes), loop.warm_start)
        params = coded_params(loop.estimator, classes, given=loop.classes, fixed=fixed)
        known = set(codes.tolist())  # some refuse weights of other classes
        for path, value in params.items():
            if isinstance(value, dict) and path.rpartition("__")[2] in KEYED:
                params[path] = {k: v for k, v in value.items() if k in known}
        estimator.set_params(**params)
    features = PoolFeatures(
        estimator, X, labels.pool(), embedding_layer=loop.embedding_layer
    )
    estimator = loop.strategy_.prepare(estimator, pool_features=features)
    y_train = codes.astype(label_dtype(estimator))
    if is_dataset(X):
        X_train = DatasetRows(X, rows, y_train)
    else:
        X_train = loop._for_estimator(take(X, rows))
    params = slice_rows(n_rows(X), fit_params, rows)
    return fit_isolated(estimator, X_train, y_train, seed, **params)


def _last_model(loop, labels, codes):
    """Get the last round's model where training goes on from it, else None."""
    if not (loop.warm_start and hasattr(loop, "estimator_")):
        return None
    last = loop._tail
    final = final_estimator(last)
    if is_net(final):
        if "classes" in final.get_params(deep=False):
            final.classes = list(range(len(labels.classes)))
        return last
    # Others have one column a class seen, and must start afresh for a new one.
    return last if np.array_equal(final.classes_, np.unique(codes)) else None


def score_model(loop, X_test, y_test, seed):
    """Score the model of a loop on the test rows.

    Parameters
    ----------
    loop : ActiveLearningLoop
        With a model.
    X_test, y_test : rows and labels
        Rows behind the head of a Pipeline.
    seed : int

    Returns
    -------
    scores : dict of str to float
        By the name of the column in `history_`.
    """
    if loop._head:
        loop = copy(loop)
        loop.estimator, loop.estimator_ = behind(loop._head, loop.estimator), loop._tail
        loop._check_rows = lambda X: X  # those of the caller were checked
    with isolated_rng(seed):
        if loop.scoring is None:
            return {"test_score": loop.score(X_test, y_test)}
        scorer = check_scoring(loop, scoring=loop.scoring)
        scores = scorer(loop._sorted_view(y_test), X_test, y_test)
    if not isinstance(scores, dict):
        name = loop.scoring if isinstance(loop.scoring, str) else "score"
        scores = {name: scores}
    return {f"test_{name}": score for name, score in scores.items()}


def print_training(strategy, aux, seconds):
    """Print that a strategy trained a network of its own.

    Parameters
    ----------
    strategy : QueryStrategy
    aux : skorch net
        Fitted, with at least one epoch.
    seconds : float
    """
    print(
        f"[ActiveLearningLoop] {type(strategy).__name__} trained its "
        f"{type(aux.module_).__name__}: {len(aux.history)} epochs, train_loss "
        f"{aux.history[-1, 'train_loss']:.4f}, {seconds:.1f} s"
    )


def print_round(record):
    """Print what is in `history_` of a round.

    Parameters
    ----------
    record : dict
    """
    scores = [f"{k} {v:.4f}" for k, v in record.items() if k[:5] == "test_"]
    print(
        f"[ActiveLearningLoop] round {record['round']}: "
        + ", ".join([f"{record['n_labeled']} labels", *scores])
        + f", {record['fit_time']:.1f} s to train, "
        f"{record['query_time']:.1f} s to query"
    )
