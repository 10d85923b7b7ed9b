"""Codes with gaps, and splits of few labels."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochScoring
from skorch.dataset import ValidSplit
from torch import nn

from skal import ActiveLearningLoop, BadgeQuery, MarginQuery, PoolView, RandomQuery
from skal.net.few_labels import (
    GapFreeLabels,
    LenientSplit,
    has_gaps,
    is_default_split,
    may_watch_validation,
)
from skal.net.training import fit_isolated, private_clone
from skal.posterior import DeepEnsemble

RNG = np.random.default_rng(0)
Y = np.tile(np.arange(4), 30)
X = (RNG.standard_normal((120, 4)) + 3 * np.eye(4)[Y]).astype(np.float32)


# -- codes without gaps ---------------------------------------------------------------


class Strict(ClassifierMixin, BaseEstimator):
    """Wants labels 0..k-1, as some boosters do, and has `classes_` like XGBoost."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y, sample_weight=None):
        if set(y) != set(range(len(set(y)))):
            raise ValueError(f"Invalid classes: {sorted(set(y))}")
        self.model_ = LogisticRegression(C=self.C).fit(X, y, sample_weight)
        return self

    @property
    def classes_(self):
        return np.arange(len(self.model_.classes_))

    def predict_proba(self, X):
        return self.model_.predict_proba(X)

    def predict(self, X):
        return self.predict_proba(X).argmax(1)


class StrictWithAttribute(Strict):
    """Sets `classes_` in `fit`, and predicts with them."""

    classes_ = None

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


def xgboost(**params):
    xgb = pytest.importorskip("xgboost")
    return xgb.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1, **params)


@pytest.mark.parametrize(
    ("y", "gaps"),
    [
        ([0, 1, 2], False),
        ([2, 0, 1, 0], False),
        ([0, 2], True),
        ([1, 2], True),
        ([3], True),
        ([0.0, 2.0], False),
        (["a", "c"], False),
        ([[0, 2]], False),
        (None, False),
    ],
)
def test_gaps(y, gaps):
    assert has_gaps(y) == gaps


@pytest.mark.parametrize("make", [Strict, StrictWithAttribute, xgboost])
def test_columns_and_predictions_are_codes(make):
    known = np.isin(Y, [1, 3])
    model = fit_isolated(private_clone(make(), 4), X[known], Y[known], 0)
    assert isinstance(model, type(make()))
    assert isinstance(model, GapFreeLabels)
    plain = make().fit(X[known], (Y[known] == 3).astype(int))
    for each in (model, pickle.loads(pickle.dumps(model))):
        assert each.classes_.tolist() == [1, 3]
        np.testing.assert_array_equal(each.predict_proba(X), plain.predict_proba(X))
        np.testing.assert_array_equal(
            each.predict(X), np.array([1, 3])[plain.predict(X)]
        )
        assert each.score(X[known], Y[known]) > 0.9
    assert clone(model).fit(X, Y).classes_.tolist() == [0, 1, 2, 3]
    assert model.fit(X, Y).predict(X).max() == 3


@pytest.mark.parametrize("make", [Strict, StrictWithAttribute, xgboost])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        lambda model: make_pipeline(StandardScaler(), model),
        lambda model: GridSearchCV(model, {}, cv=2),
    ],
)
def test_a_loop_while_a_class_is_missing(make, wrap):
    initial = np.flatnonzero((Y == 1) | (Y == 3))[:20]
    names = np.array(["ant", "bee", "cow", "doe"])[Y]
    options = {"initial": initial, "batch_size": 20, "random_state": 0}
    loop = ActiveLearningLoop(wrap(make()), BadgeQuery(), n_rounds=0, **options)
    loop.fit(X, names)
    proba = loop.predict_proba(X)
    assert (proba[:, [0, 2]] == 0).all()
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert set(loop.predict(X)) == {"bee", "doe"}
    assert loop.score(X, names) == pytest.approx(0.5, abs=0.05)
    loop = ActiveLearningLoop(wrap(make()), RandomQuery(), n_rounds=2, **options)
    assert loop.fit(X, names).score(X, names) > 0.7
    assert type(wrap(make())) is type(loop.estimator)


@pytest.mark.parametrize(
    "params",
    [{"num_class": 4}, {"objective": "multi:softmax"}],
)
def test_xgboost_counts_the_classes_that_have_a_label(params):
    initial = np.flatnonzero((Y == 1) | (Y == 3))[:20]
    options = {"initial": initial, "n_rounds": 2, "random_state": 0}
    models = [
        ActiveLearningLoop(booster, MarginQuery(), **options).fit(X, Y)
        for booster in (xgboost(), xgboost(**params))
    ]
    plain, given = (model.predict_proba(X) for model in models)
    np.testing.assert_array_equal(given, plain)
    assert params.items() <= models[1].estimator.get_params().items()


def test_members_of_an_ensemble_and_views_of_the_pool():
    model = xgboost(subsample=0.5, random_state=0)
    strategy = MarginQuery(posterior=DeepEnsemble(2, predict="mean"))
    initial = np.flatnonzero((Y == 1) | (Y == 3))[:20]
    loop = ActiveLearningLoop(
        model, strategy, initial=initial, n_rounds=0, random_state=0
    ).fit(X, Y)
    assert set(loop.predict(X)) == {1, 3}
    view = PoolView(loop.estimator_, X, classes=range(4))
    assert view.proba.shape == (120, 4) and (view.proba[:, [0, 2]] == 0).all()


def test_other_errors_of_fit_pass():
    class Picky(Strict):
        def fit(self, X, y):
            raise ValueError("no such day")

    with pytest.raises(ValueError, match="no such day"):
        fit_isolated(private_clone(Picky(), 3), X, np.tile([0, 2], 60), 0)
    assert not isinstance(
        fit_isolated(private_clone(LogisticRegression(), 3), X, np.tile([0, 2], 60), 0),
        GapFreeLabels,
    )


# -- splits ---------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(x)


class Reads(Callback):
    """Stops where no validation score is to be read."""

    def on_epoch_end(self, net, dataset_valid=None, **kwargs):
        assert net.history[-1, "valid_loss"] > 0
        assert len(dataset_valid) > 0


class Greets(Callback):
    def on_train_begin(self, net, **kwargs):
        self.greeting = f"hello {net}"


class OwnStopping(EarlyStopping):
    """Monitors as its parent does."""


class Records(Callback):
    """Has a validation score from elsewhere."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("valid_loss", 1.0)


class OwnNet(NeuralNetClassifier):
    def on_train_end(self, net, **kwargs):
        super().on_train_end(net, **kwargs)
        assert net.history[-1, "valid_loss"] > 0


def make_net(kind=NeuralNetClassifier, **params):
    params = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2} | params
    return kind(Net, verbose=0, **params)


@pytest.mark.parametrize(
    ("kind", "split", "default"),
    [
        (NeuralNetClassifier, ValidSplit(5, stratified=True), True),
        (NeuralNetClassifier, ValidSplit(5), False),
        (NeuralNetClassifier, ValidSplit(0.2, stratified=True), False),
        (NeuralNetClassifier, None, False),
        (NeuralNet, ValidSplit(5), True),
        (NeuralNet, ValidSplit(5, stratified=True), False),
    ],
)
def test_what_equals_the_default_of_skorch(kind, split, default):
    assert is_default_split(make_net(kind)) and is_default_split(clone(make_net(kind)))
    assert is_default_split(make_net(kind, train_split=split)) == default


def test_the_nets_own_hooks_may_read_anything():
    assert may_watch_validation(make_net(OwnNet))
    assert not may_watch_validation(make_net())
    assert not may_watch_validation(private_clone(make_net(), 4))


@pytest.mark.parametrize(
    "net",
    [
        make_net(callbacks=[Reads()]),
        make_net(callbacks=[("reads", Reads)]),
        make_net(OwnNet),
        make_net(callbacks=[EarlyStopping(sink=lambda text: None)]),
        make_net(callbacks=[Reads()], train_split=ValidSplit(0.3, stratified=True)),
        make_net(callbacks=[Reads()], train_split=ValidSplit(3)),
        make_net(callbacks=[Reads()], train_split=ValidSplit(StratifiedKFold(3))),
    ],
)
@pytest.mark.parametrize("n_initial", [4, 60])
def test_callbacks_that_need_a_split_have_it_with_few_labels(net, n_initial):
    loop = ActiveLearningLoop(
        net, MarginQuery(), initial="balanced", n_initial=n_initial, n_rounds=1,
        random_state=0,
    ).fit(X, Y)  # fmt: skip
    assert "valid_loss" in loop.estimator_.history[-1]
    assert not isinstance(net.train_split, LenientSplit)


@pytest.mark.parametrize("monitor", ["valid_loss", "valid_acc"])
def test_a_monitor_without_a_split_costs_no_label(monitor):
    asked = []
    callback = EarlyStopping(monitor=monitor, sink=lambda text: None)
    net = make_net(callbacks=[("stop", callback)], train_split=None)
    with pytest.raises(ValueError, match=f"monitors '{monitor}', but train_split=None"):
        ActiveLearningLoop(
            net, MarginQuery(), oracle=asked.append, classes=range(4)
        ).fit(X)
    assert not asked
    net.set_params(callbacks__stop__monitor="train_loss")
    private_clone(net, 4)


@pytest.mark.parametrize(
    ("callbacks", "fine"),
    [
        ([EarlyStopping], False),
        ([EpochScoring("f1_macro"), EarlyStopping("f1_macro")], False),
        ([EpochScoring("f1_macro", on_train=True), EarlyStopping("f1_macro")], True),
        ([EpochScoring("f1_macro", on_train=True), EarlyStopping()], False),
        ([EpochScoring("f1_macro")], True),
        ([Greets, EarlyStopping()], False),
        ([OwnStopping()], False),
        ([Records(), EarlyStopping()], True),
    ],
)
def test_scores_that_no_callback_records(callbacks, fine):
    net = make_net(callbacks=callbacks, train_split=None)
    if fine:
        fit_isolated(private_clone(net, 4), X, Y, 0)
    else:
        with pytest.raises(ValueError, match="Stopping monitors .*train_split="):
            private_clone(net, 4)


def test_a_lenient_split_is_that_of_skorch_where_it_can_be():
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    for options in ({"cv": 5}, {"cv": 0.25, "random_state": 0}):
        ours, its = (
            split(stratified=True, **options)(dataset, Y)
            for split in (LenientSplit, ValidSplit)
        )
        for mine, skorchs in zip(ours, its, strict=True):
            np.testing.assert_array_equal(mine.indices, skorchs.indices)
    few = torch.utils.data.Subset(dataset, range(4))
    train, valid = LenientSplit(5, stratified=True)(few, Y[:4])
    assert sorted([*train.indices, *valid.indices]) == [0, 1, 2, 3]
    assert len(valid.indices) == 1
