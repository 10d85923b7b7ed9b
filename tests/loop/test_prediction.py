"""Predictions leave the caller's rows alone."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, MarginQuery

RNG = np.random.default_rng(0)
Y = np.arange(80) % 2
X = RNG.normal(size=(80, 3)) * 5 + 4 * Y[:, None]


def make_loop(estimator, **kwargs):
    options = {"n_initial": 10, "batch_size": 5, "n_rounds": 2, "random_state": 0}
    return ActiveLearningLoop(estimator, MarginQuery(), **(options | kwargs))


def halve(rows):
    rows *= 0.5
    return rows


def scaled(scaler, **kwargs):
    return make_pipeline(scaler, LogisticRegression(**kwargs))


@pytest.mark.parametrize(
    ("estimator", "twin"),
    [
        (scaled(StandardScaler(copy=False)), scaled(StandardScaler())),
        (
            GridSearchCV(scaled(StandardScaler(copy=False)), {}, cv=2),
            GridSearchCV(scaled(StandardScaler()), {}, cv=2),
        ),
        (
            scaled(FunctionTransformer(halve)),
            scaled(FunctionTransformer(lambda rows: rows * 0.5)),
        ),
        (scaled(MaxAbsScaler(copy=False)), scaled(MaxAbsScaler())),
    ],
)
@pytest.mark.parametrize("container", [np.array, pd.DataFrame, sparse.csr_matrix])
@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_transformers_in_place_change_no_rows(estimator, twin, container, scoring):
    if container is sparse.csr_matrix and "standard" in str(estimator).lower():
        pytest.skip("centres")
    rows, test = container(X), container(X[:40])
    dense = np.array if container is not sparse.csr_matrix else lambda r: r.toarray()
    loop = make_loop(estimator, scoring=scoring)
    loop.fit(rows, Y, X_test=test, y_test=Y[:40])
    expected = make_loop(twin, scoring=scoring)
    expected.fit(container(X), Y, X_test=container(X[:40]), y_test=Y[:40])
    proba = loop.predict_proba(rows)
    loop.predict(rows), loop.score(rows, Y), loop.decision_function(rows)
    assert (dense(rows) == X).all() and (dense(test) == X[:40]).all()
    assert (proba == expected.predict_proba(container(X))).all()
    column = "test_score" if scoring is None else "test_neg_log_loss"
    assert (loop.history_[column] == expected.history_[column]).all()


def test_no_copy_where_nothing_writes(tmp_path):
    seen = []

    class Spy(LogisticRegression):
        def predict(self, X):
            seen.append(X)
            return super().predict(X)

    loop = make_loop(Spy()).fit(X, Y)
    loop.predict(X)
    assert np.shares_memory(seen[-1], X)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    piped = make_loop(make_pipeline(StandardScaler(copy=False), Spy())).fit(mapped, Y)
    assert np.shares_memory(piped._protected(mapped), mapped)
    piped.predict(mapped)
    assert (mapped == X).all()


class InPlace(nn.Linear):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


def test_networks_in_place_change_no_rows():
    net = NeuralNetClassifier(
        InPlace,
        module__in_features=3,
        module__out_features=2,
        criterion=nn.CrossEntropyLoss,
        verbose=0,
    )
    for make in (np.array, torch.tensor):
        rows = make(X.astype(np.float32))
        loop = make_loop(net).fit(rows, Y, X_test=rows, y_test=Y)
        loop.predict(rows)
        assert (np.asarray(rows) == X.astype(np.float32)).all()
