"""Pickles of fitted estimators."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from skal.net.pickling import Parcel, learned_bytes
from skal.net.training import final_estimator, fit_isolated, private_clone


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(60) % 3)
    return (rng.standard_normal((60, 4)) + y[:, None]).astype(np.float32), y


@pytest.mark.parametrize(
    ("estimator", "random"),
    [
        (RandomForestClassifier(3), True),
        (HistGradientBoostingClassifier(max_iter=2, max_features=0.3), True),
        (HistGradientBoostingClassifier(max_iter=2), False),
        (AdaBoostClassifier(GaussianNB(), n_estimators=3), False),
    ],
)
def test_learned_bytes_differ_where_training_is_random(estimator, random, blobs):
    first, same, other = (
        learned_bytes(clone(estimator).set_params(random_state=seed).fit(*blobs))
        for seed in (0, 0, 1)
    )
    assert first == same and (first != other) == random


def test_learned_bytes_of_a_network_are_its_state(blobs):
    net = NeuralNetClassifier(nn.BatchNorm1d, module__num_features=4, max_epochs=1)
    net.initialize()
    before = learned_bytes(net)
    net.set_params(max_epochs=2)
    assert learned_bytes(net) == before
    net.module_.running_mean[0] += 1
    assert learned_bytes(net) != before
    net.module_.bfloat16()
    assert learned_bytes(net) != before


@pytest.mark.parametrize("wrap", [lambda net: net, make_pipeline])
def test_parcel_carries_classes_that_cannot_be_imported(wrap, blobs):
    class Local(nn.Linear):
        def __init__(self):
            super().__init__(4, 3)

    X, y = blobs
    net = wrap(
        private_clone(
            NeuralNetClassifier(
                Local,
                criterion=nn.CrossEntropyLoss,
                optimizer=torch.optim.Adam,
                max_epochs=2,
                verbose=0,
            ),
            3,
        )
    )
    net = fit_isolated(net, X, y, 0)
    with pytest.raises((AttributeError, pickle.PicklingError), match="Local"):
        pickle.dumps(net)
    again = pickle.loads(pickle.dumps(Parcel(net))).estimator
    assert type(final_estimator(again)) is type(final_estimator(net))
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))
    for model in (net, again):
        fit_isolated(final_estimator(model).set_params(warm_start=True), X, y, 1)
    np.testing.assert_array_equal(again.predict_proba(X), net.predict_proba(X))


def test_parcel_of_an_estimator_without_a_network(blobs):
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3)).fit(*blobs)
    again = pickle.loads(pickle.dumps(Parcel(model))).estimator
    np.testing.assert_array_equal(
        again.predict_proba(blobs[0]), model.predict_proba(blobs[0])
    )
