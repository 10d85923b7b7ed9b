"""The small networks and pools that strategies are checked with."""

from copy import deepcopy
from functools import cache

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from skal.net.pool_features import PoolFeatures
from skal.pool import PoolView
from skal.utils import isolated_rng

N_POOL, N_LABELED, N_FEATURES, N_CLASSES = 60, 90, 6, 3


class Network(nn.Module):
    """A small network with all that can go wrong: BatchNorm, Dropout, a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(N_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class Certain(ClassifierMixin, BaseEstimator):
    """A classifier without a network that gives class 0 with probability 1."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.eye(len(self.classes_))[np.zeros(len(X), dtype=int)]


@cache
def make_data():
    """Overlapping blobs: labelled rows, their labels, and the rows of the pool."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N_LABELED + N_POOL) % N_CLASSES)
    centers = 1.5 * rng.standard_normal((N_CLASSES, N_FEATURES))
    X = centers[y] + rng.standard_normal((len(y), N_FEATURES))
    X = X.astype(np.float32)
    return X[:N_LABELED], y[:N_LABELED], X[N_LABELED:]


@cache
def _estimator(kind):
    X, y, _ = make_data()
    if kind == "linear":
        return LogisticRegression(max_iter=1000).fit(X, y)
    if kind == "certain":
        return Certain().fit(X, y)
    with isolated_rng(0):
        net = NeuralNetClassifier(
            Network,
            criterion=nn.CrossEntropyLoss,
            max_epochs=5,
            lr=0.1,
            batch_size=32,
            iterator_train__shuffle=True,
            iterator_valid__batch_size=64,
            train_split=None,
            classes=list(range(N_CLASSES)),
            verbose=0,
        ).fit(X, y)
    return net


def make_estimator(kind="net"):
    """Copy of a fitted estimator: "net", "linear" (no network) or "certain".

    Or, in place of its name, a strategy: a net that is trained as this one wants it.
    """
    if not isinstance(kind, str):
        return _prepared(kind) if kind.training_note else make_estimator()
    fitted = _estimator(kind)
    if kind != "net":
        return deepcopy(fitted)
    with isolated_rng(0):  # several times faster than deepcopy
        net = clone(fitted).initialize()
    net.module_.load_state_dict(fitted.module_.state_dict())
    return net


def _prepared(strategy):
    X, y, X_pool = make_data()
    with isolated_rng(0):
        net = clone(_estimator("net"))
        features = PoolFeatures(net, X_pool)
        return clone(strategy).prepare(net, pool_features=features).fit(X, y)


def make_pool(kind="net", X=None, *, estimator=None, **options):
    """View of `X`, by default 60 distinct rows, with nothing computed yet."""
    X_labeled, y_labeled, X_pool = make_data()
    return PoolView(
        make_estimator(kind) if estimator is None else estimator,
        (X_pool if X is None else X).copy(),
        X_labeled=X_labeled.copy(),
        y_labeled=y_labeled.copy(),
        **{"random_state": 0, **options},
    )


def crowded_pool(kind="net"):
    """View whose outputs all go to files, and are read a few rows at a time."""
    pool = make_pool(kind, memory_limit="2K")
    scratch = pool._scratch
    scratch.n_bytes, scratch.n_numbers, scratch.n_rows = scratch.limit, 64, 16
    return pool


def tied_pool(kind="net", random_state=0):
    """View of equal rows whose outputs are equal to the last bit.

    A matrix product may round its last rows another way, so each of the products here
    adds zeros to one number.
    """
    net = make_estimator(kind)
    with torch.no_grad():
        net.module_.head.weight.copy_(torch.eye(N_CLASSES, 8))
    X = np.zeros((N_POOL, N_FEATURES), dtype=np.float32)
    return make_pool(X=X, estimator=net, random_state=random_state)


def make_query(strategy, pool, n_samples, **params):
    """Picks of a fresh clone of `strategy`."""
    return clone(strategy).set_params(**params).fit(pool).query(pool, n_samples)
