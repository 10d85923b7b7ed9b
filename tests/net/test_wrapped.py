"""Nets inside calibration, bagging and voting; folds of few labels."""

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, BadgeQuery, MarginQuery, RandomQuery
from skal.net.training import fit_isolated, private_clone
from skal.net.wrapped import FewLabelFolds, SeenClasses, nets_inside

N_CLASSES = 4
SIZES = []


class Normed(nn.Module):
    """BatchNorm refuses a last batch of one row; the sizes of batches are noted."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x):
        if self.training:
            SIZES.append(len(x))
        return self.head(self.body(x))


def make_net(**params):
    params = {"criterion": nn.CrossEntropyLoss, "lr": 0.1, "max_epochs": 10} | params
    return NeuralNetClassifier(Normed, batch_size=8, verbose=0, **params)


def blobs(n=120, dtype=np.float64):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % N_CLASSES)
    centers = 3 * rng.standard_normal((N_CLASSES, 6))
    return (centers[y] + rng.standard_normal((n, 6))).astype(dtype), y


WRAPPED = {
    "voting": lambda net: VotingClassifier([("net", net)], voting="soft"),
    "mixed": lambda net: VotingClassifier(
        [("net", net), ("linear", LogisticRegression())], voting="soft"
    ),
    "bagging": lambda net: BaggingClassifier(net, n_estimators=3),
    "calibrated": lambda net: CalibratedClassifierCV(net, cv=3),
    "one fit": lambda net: CalibratedClassifierCV(net, cv=2, ensemble=False),
    "stacked": lambda net: StackingClassifier([("net", net)], cv=2),
    "one by one": OneVsRestClassifier,
    "pipeline": lambda net: make_pipeline(
        StandardScaler(),
        VotingClassifier([("net", make_pipeline(net))], voting="soft"),
    ),
}


@pytest.mark.filterwarnings("ignore:the net inside", "ignore:Number of classes in")
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_float64_rows_and_a_class_without_labels(wrap, training_seed, margin):
    """Batches of 8 leave one row over; class 1 comes with the second purchase."""
    X, y = blobs()
    initial = np.flatnonzero(y != 1)[:25]
    loop = ActiveLearningLoop(
        wrap(make_net()), MarginQuery(), initial=initial, n_rounds=0,
        random_state=training_seed,
    ).fit(X, y)  # fmt: skip
    proba = loop.predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    assert (proba[:, 1] == 0).all() and (loop.predict(X) != 1).all()
    margin("accuracy of 3 classes", loop.score(X[y != 1], y[y != 1]), above=0.5)
    loop = ActiveLearningLoop(
        wrap(make_net()), RandomQuery(), initial="balanced", n_initial=17,
        n_rounds=1, random_state=training_seed,
    ).fit(X, y)  # fmt: skip
    assert loop.predict_proba(X).shape == (120, 4)
    margin("accuracy of 4 classes", loop.score(X, y), above=0.5)


def test_a_vote_of_one_net_is_that_net():
    """Bit for bit: the same rows in the same batches from the same weights."""
    X, y = blobs(dtype=np.float32)
    bare = fit_isolated(private_clone(make_net(), N_CLASSES), X, y, 0)
    SIZES.clear()
    voting = private_clone(WRAPPED["voting"](make_net()), N_CLASSES)
    fit_isolated(voting, X, y, 0)
    assert sum(SIZES) == 10 * len(X)  # no fifth is held out
    ours, its = voting.estimators_[0].module_, bare.module_
    for name, value in its.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    np.testing.assert_array_equal(voting.predict_proba(X), bare.predict_proba(X))


def test_columns_are_those_of_the_classes_seen(training_seed, margin):
    X, y = blobs()
    X, y = X[y != 1], y[y != 1]
    voting = private_clone(WRAPPED["calibrated"](make_net()), N_CLASSES)
    (net,) = nets_inside(voting)
    assert isinstance(net, SeenClasses)
    net = fit_isolated(net, X.astype(np.float32), y, training_seed)
    proba = net.predict_proba(X)
    assert proba.shape == (len(X), 3) and net.classes_.tolist() == [0, 2, 3]
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    assert set(net.predict(X)) == {0, 2, 3}
    margin("accuracy of 3 classes", np.mean(net.predict(X) == y), above=0.5)


def test_what_is_otherwise_is_said_once():
    X, y = blobs()
    options = {"n_initial": 12, "n_rounds": 2, "random_state": 0}

    def said(estimator, strategy):
        with pytest.warns(UserWarning) as caught:
            ActiveLearningLoop(estimator, strategy, **options).fit(X, y)
        return [str(w.message) for w in caught if "the net inside" in str(w.message)]

    (message,) = said(WRAPPED["calibrated"](make_net()), BadgeQuery())
    assert "inside CalibratedClassifierCV is trained on a part" in message
    assert "gives no embeddings" in message
    (message,) = said(make_pipeline(WRAPPED["voting"](make_net())), BadgeQuery())
    assert "inside VotingClassifier gives no embeddings" in message
    # warnings are errors in these tests
    ActiveLearningLoop(WRAPPED["voting"](make_net()), MarginQuery(), **options).fit(
        X, y
    )


def test_the_estimator_of_the_user_is_left_alone():
    net = make_net()
    estimator = GridSearchCV(WRAPPED["calibrated"](net), {"cv": [2, 3]})
    private = private_clone(estimator, 3)
    assert type(net) is NeuralNetClassifier and estimator.estimator.cv == 3
    assert net.train_split is not None
    assert nets_inside(private.estimator)[0].train_split is None
    assert nets_inside(net) == [] and nets_inside(LogisticRegression()) == []


# -- folds of few labels --------------------------------------------------------------


@pytest.mark.parametrize("n_folds", [2, 5])
def test_folds_of_enough_labels_are_those_of_scikit_learn(n_folds):
    y = np.random.default_rng(0).permutation(np.arange(33) % 3)
    folds = FewLabelFolds(n_folds).split(y, y)
    for ours, its in zip(folds, StratifiedKFold(n_folds).split(y, y), strict=True):
        np.testing.assert_array_equal(ours[0], its[0])
        np.testing.assert_array_equal(ours[1], its[1])


@pytest.mark.parametrize(
    "y", [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [2, 0, 2, 1, 0, 2, 7], [0, 1], [3, 1, 2]]
)
def test_each_fold_trains_on_every_class_and_each_row_is_held_out_once(y):
    y = np.array(y)
    folds = list(FewLabelFolds(5).split(np.zeros(len(y)), y))
    assert len(folds) == FewLabelFolds(5).get_n_splits(y=y)
    for train, _ in folds:
        assert set(y[train]) == set(y)
    held_out = np.concatenate([test for _, test in folds])
    assert sorted(held_out) == list(range(len(y)))


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("cv", [None, 4])
@pytest.mark.parametrize("n_initial", [2, 3, 7])
def test_calibration_of_few_labels(ensemble, cv, n_initial):
    X, y = blobs()
    y = np.minimum(y, 2)
    linear = CalibratedClassifierCV(LogisticRegression(), cv=cv, ensemble=ensemble)
    loop = ActiveLearningLoop(
        linear, MarginQuery(), n_initial=n_initial, initial="balanced", batch_size=20,
        n_rounds=3, random_state=0,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_allclose(loop.predict_proba(X).sum(1), 1)
    assert loop.score(X, y) > 0.8
    rows = np.sort(loop.labeled_indices_)
    again = linear.fit(X[rows], y[rows])  # enough labels for scikit-learn itself
    np.testing.assert_array_equal(again.predict_proba(X), loop.predict_proba(X))
