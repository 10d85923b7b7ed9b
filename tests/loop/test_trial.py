"""What can be known before a label is bought is said before a label is bought."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    CoreSetQuery,
    EntropyQuery,
    KCenterGreedyQuery,
    KMeansQuery,
    MarginQuery,
    PoolView,
    RandomQuery,
    VaalQuery,
)
from skal.loop.trial import named_strategy
from skal.posterior import DeepEnsemble, MCDropout

RNG = np.random.default_rng(0)
Y = np.tile([0, 1, 2], 30)
X = RNG.standard_normal((90, 4)) + 2 * np.eye(4)[Y]
HOLES = X.copy()
HOLES[7, 2] = HOLES[80, 0] = np.nan
BOOSTER = HistGradientBoostingClassifier(min_samples_leaf=2, max_iter=3)


class Net(nn.Module):
    def __init__(self, dropout=True, kind=None):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.dropout, self.kind = dropout, kind

    def forward(self, x):
        h = self.body(x).relu()
        z = self.head(self.drop(h) if self.dropout else h)
        kinds = {"dict": {"z": z}, "list": [z, h], "tuple": (z, h)}
        return z.bfloat16() if self.kind == "bfloat16" else kinds.get(self.kind, z)


class TupleNet(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return super().get_loss(y_pred[0], y_true, *args, **kwargs)


def make_net(kind=NeuralNetClassifier, **params):
    params = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2} | params
    return kind(Net, verbose=0, **params)


def bought(estimator, strategy, rows=X, **params):
    """Fit with an oracle; give the number of labels it was asked for, and the error."""
    asked = []

    def oracle(indices):
        asked.extend(indices)
        return Y[indices]

    options = {"n_rounds": 1, "n_initial": 12, "classes": range(3), "random_state": 0}
    loop = ActiveLearningLoop(estimator, strategy, oracle=oracle, **(options | params))
    try:
        loop.fit(rows, np.full(90, -1))
    except (TypeError, ValueError) as error:
        return len(asked), error
    return len(asked), None


@pytest.mark.parametrize(
    ("estimator", "strategy", "message"),
    [
        (
            GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, refit=False),
            RandomQuery(),
            "refit=False",
        ),
        (
            make_pipeline(
                StandardScaler(),
                GridSearchCV(LogisticRegression(), {}, cv=2, refit=False),
            ),
            MarginQuery(),
            "refit=False",
        ),
        (
            VotingClassifier(
                [("a", GridSearchCV(LogisticRegression(), {}, refit=False))]
            ),
            RandomQuery(),
            "refit=False",
        ),
        (
            GridSearchCV(LogisticRegression(), {}, scoring=["accuracy", "f1_macro"]),
            RandomQuery(),
            "set refit to the name of one of its scores",
        ),
        (
            GridSearchCV(LogisticRegression(), {}, scoring="acuracy"),
            RandomQuery(),
            "'scoring' parameter of GridSearchCV",
        ),
        (
            make_pipeline(
                StandardScaler(),
                GridSearchCV(LogisticRegression(), [{"C": [1]}, {"CC": [1]}], cv=2),
            ),
            MarginQuery(),
            "param_grid of GridSearchCV does not fit its estimator: Invalid parameter "
            "'CC'",
        ),
        (
            RandomizedSearchCV(make_pipeline(LogisticRegression()), {"C": [1]}),
            MarginQuery(),
            "param_distributions of RandomizedSearchCV does not fit",
        ),
        (
            GridSearchCV(LogisticRegression(), {}, cv=13),
            MarginQuery(),
            "GridSearchCV(cv=13) needs 13 labelled rows at least, but the first set "
            "has n_initial=12",
        ),
        (
            make_pipeline(LogisticRegressionCV(cv=KFold(13))),
            MarginQuery(),
            "the first set has n_initial=12",
        ),
        (
            CalibratedClassifierCV(FrozenEstimator(LogisticRegression())),
            RandomQuery(),
            "FrozenEstimator keeps a model that does not learn",
        ),
        (
            TunedThresholdClassifierCV(LogisticRegression(), cv="prefit", refit=False),
            RandomQuery(),
            "cv='prefit'",
        ),
        (
            LogisticRegression(),
            EntropyQuery(posterior=DeepEnsemble(3)),
            "came out identical",
        ),
        (
            make_pipeline(StandardScaler(), KNeighborsClassifier()),
            EntropyQuery(posterior=DeepEnsemble()),
            "came out identical",
        ),
        (
            make_net(module__dropout=False),
            EntropyQuery(posterior=MCDropout(3)),
            "no dropout layer of the network ran",
        ),
        (
            make_pipeline(StandardScaler(), make_net(module__dropout=False)),
            EntropyQuery(posterior=MCDropout(3)),
            "no dropout layer of the network ran",
        ),
        (make_net(module__kind="bfloat16"), RandomQuery(), "Net cannot predict"),
        (make_net(module__kind="dict"), RandomQuery(), "one tensor of logits"),
        (make_net(module__kind="list"), BadgeQuery(), "one tensor of logits"),
        (make_net(module__kind="tuple"), RandomQuery(), "extend get_loss"),
        (
            make_pipeline(StandardScaler(), make_net(module__kind="list")),
            RandomQuery(),
            "one tensor of logits",
        ),
    ],
)
def test_what_cannot_work_costs_no_label(estimator, strategy, message):
    n_asked, error = bought(estimator, strategy)
    assert n_asked == 0
    assert message in str(error)


def test_categories_that_an_estimator_cannot_take_cost_no_label():
    frame = pd.DataFrame({"a": np.arange(60.0), "b": pd.Categorical(["u", "v"] * 30)})
    asked = []
    loop = ActiveLearningLoop(
        LogisticRegression(), RandomQuery(), oracle=asked.append, classes=[0, 1]
    )
    with pytest.raises(ValueError, match="columns that are not numbers; put an enc"):
        loop.fit(frame)
    assert not asked


@pytest.mark.filterwarnings("ignore:the initial set of 1 rows held one class")
def test_a_first_set_of_one_row_grows_before_folds_are_made():
    search = GridSearchCV(GaussianNB(), {}, cv=KFold(5))
    assert bought(search, RandomQuery(), n_initial=1) == (11, None)
    n_asked, error = bought(GridSearchCV(GaussianNB(), {}), RandomQuery(), n_initial=4)
    assert n_asked == 0
    assert "GridSearchCV(cv=5) needs 5 labelled rows" in str(error)


@pytest.mark.parametrize(
    ("params", "column", "message"),
    [
        ({"early_stopping_rounds": 2}, Y, "early_stopping_rounds=2) needs an eval_set"),
        ({}, pd.Categorical(Y), "column 'b' of dtype category"),
        ({}, pd.Series(Y, dtype=object), "column 'b' of dtype object"),
        ({"enable_categorical": True}, np.array(list("xyz"))[Y], "column 'b' of dtype"),
    ],
)
@pytest.mark.parametrize("searched", [False, True])
def test_what_xgboost_cannot_take_costs_no_label(params, column, message, searched):
    xgboost = pytest.importorskip("xgboost")
    frame = pd.DataFrame({"a": X[:, 0], "b": column})
    booster = xgboost.XGBClassifier(n_estimators=2, n_jobs=1, **params)
    if searched:
        booster = GridSearchCV(booster, {}, cv=2)
    n_asked, error = bought(booster, MarginQuery(), frame)
    assert n_asked == 0
    assert message in str(error)


def test_categories_that_xgboost_can_take():
    xgboost = pytest.importorskip("xgboost")
    booster = xgboost.XGBClassifier(n_estimators=2, n_jobs=1, enable_categorical=True)
    frame = pd.DataFrame({"a": X[:, 0], "b": pd.Categorical(np.array(list("xyz"))[Y])})
    assert bought(booster, MarginQuery(), frame) == (22, None)


def test_wrong_shapes_cost_no_label():
    asked = []
    pipe = make_pipeline(PCA(2), make_net())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ActiveLearningLoop(
            pipe, MarginQuery(), oracle=lambda rows: asked.append(rows), classes=[0, 1]
        ).fit(X, np.full(90, -1))
    assert asked == []


@pytest.mark.parametrize(
    ("estimator", "strategy"),
    [
        (RandomForestClassifier(3), EntropyQuery(posterior=DeepEnsemble(3))),
        (ExtraTreesClassifier(3), EntropyQuery(posterior=DeepEnsemble(2))),
        (make_net(TupleNet, module__kind="tuple"), BadgeQuery()),
        (make_pipeline(PCA(4), make_net()), EntropyQuery(posterior=MCDropout(3))),
        (
            GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, refit=lambda r: 1),
            MarginQuery(),
        ),
        (make_pipeline(SimpleImputer(), BOOSTER), KMeansQuery()),
        (GridSearchCV(LogisticRegression(), {}, cv=KFold(12)), MarginQuery()),
        (CalibratedClassifierCV(GaussianNB(), cv=13), MarginQuery()),
        (
            GridSearchCV(
                Pipeline([("c", GaussianNB())]),
                {"c": [LogisticRegression()], "c__C": [1, 2]},
                cv=2,
            ),
            MarginQuery(),
        ),
        (
            GridSearchCV(make_net(), {"module__dropout": [True, False]}, cv=2),
            MarginQuery(),
        ),
    ],
)
def test_what_works_is_let_through(estimator, strategy):
    assert bought(estimator, strategy) == (22, None)


# -- rows with holes ------------------------------------------------------------------

COMPARING = [BadgeQuery, KMeansQuery, KCenterGreedyQuery, CoreSetQuery, VaalQuery]


@pytest.mark.parametrize("strategy", COMPARING)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("frame", [False, True])
def test_holes_are_found_before_a_label_is_bought(strategy, scaled, frame):
    estimator = make_pipeline(StandardScaler(), BOOSTER) if scaled else BOOSTER
    rows = pd.DataFrame(HOLES, columns=list("abcd")) if frame else HOLES
    n_asked, error = bought(estimator, strategy(), rows)
    assert n_asked == 0
    assert f"strategy={strategy.__name__}() compares rows, but X holds NaN" in str(
        error
    )
    assert "SimpleImputer" in str(error)


def test_holes_that_nobody_compares_or_that_are_filled():
    assert bought(BOOSTER, MarginQuery(), HOLES) == (22, None)
    filled = make_pipeline(SimpleImputer(), BOOSTER)
    assert bought(filled, KMeansQuery(), HOLES) == (22, None)
    searched = GridSearchCV(
        Pipeline([("fill", "passthrough"), ("boost", BOOSTER)]),
        {"fill": [SimpleImputer()]},
        cv=2,
    )
    assert bought(searched, KMeansQuery(), HOLES) == (22, None)


def test_rows_that_are_no_numbers_cannot_be_compared():
    frame = pd.DataFrame({"a": X[:, 0], "b": pd.Categorical(np.array(list("xyz"))[Y])})
    n_asked, error = bought(BOOSTER, KMeansQuery(), frame)
    assert n_asked == 0
    assert "strategy=KMeansQuery() compares rows, but the rows are not num" in str(
        error
    )
    assert bought(BOOSTER, MarginQuery(), frame) == (22, None)


# -- meta-estimators ------------------------------------------------------------------


class Refitting(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Somebody's own, with the parameters of a search and another way to keep it."""

    def __init__(self, estimator, refit=True):
        self.estimator = estimator
        self.refit = refit

    def fit(self, X, y):
        self.model_ = clone(self.estimator).fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: TunedThresholdClassifierCV(model, cv=2),
        lambda model: TunedThresholdClassifierCV(model, cv=0.5, refit=False),
        lambda model: FixedThresholdClassifier(model, threshold=0.3),
        lambda model: make_pipeline(
            StandardScaler(), TunedThresholdClassifierCV(model, cv=2)
        ),
        Refitting,
    ],
)
@pytest.mark.parametrize("strategy", [MarginQuery(), BadgeQuery(), RandomQuery()])
def test_thresholds_and_others_like_searches(wrap, strategy):
    y = (Y == 1).astype(int)
    estimator = wrap(make_pipeline(StandardScaler(), LogisticRegression()))
    loop = ActiveLearningLoop(
        estimator, strategy, n_initial=30, n_rounds=1, random_state=0
    ).fit(X, y)
    assert loop.score(X, y) > 0.7
    model = loop.estimator_
    np.testing.assert_array_equal(PoolView(model, X).proba, model.predict_proba(X))


# -- first mistakes -------------------------------------------------------------------


@pytest.mark.parametrize("module", [Net, Net()])
def test_a_bare_module(module):
    with pytest.raises(TypeError, match=r"NeuralNetClassifier\(Net, criterion"):
        ActiveLearningLoop(module, MarginQuery()).fit(X, Y)


def test_strategies_by_name():
    assert type(named_strategy("k-means")) is KMeansQuery
    options = {"n_rounds": 1, "random_state": 0}
    by_name = ActiveLearningLoop(LogisticRegression(), "k-means", **options).fit(X, Y)
    given = ActiveLearningLoop(LogisticRegression(), KMeansQuery(), **options).fit(X, Y)
    np.testing.assert_array_equal(by_name.labeled_indices_, given.labeled_indices_)
    assert by_name.strategy == clone(by_name).strategy == "k-means"
    stochastic = ActiveLearningLoop(LogisticRegression(), "power-margin", **options)
    assert isinstance(stochastic.fit(X, Y).strategy_.strategy, MarginQuery)
    with pytest.raises(ValueError, match="'badger' is no strategy.*badge, .*vaal"):
        ActiveLearningLoop(LogisticRegression(), "badger").fit(X, Y)
    with pytest.raises(TypeError, match="the class BadgeQuery; pass an ins"):
        ActiveLearningLoop(LogisticRegression(), BadgeQuery).fit(X, Y)


def test_the_first_set_is_tried_too():
    """Its strategy sees the rows as they are, before any transformer."""
    for estimator in (BOOSTER, make_pipeline(SimpleImputer(), BOOSTER)):
        n_asked, error = bought(
            estimator, RandomQuery(), HOLES, initial=KMeansQuery(), n_rounds=0
        )
        assert n_asked == 0
        assert "initial=KMeansQuery() compares rows, but X holds NaN" in str(error)
    assert bought(BOOSTER, RandomQuery(), X, initial=KMeansQuery()) == (22, None)


@pytest.mark.parametrize("order", ["so", "os", "o"])
@pytest.mark.parametrize("strategy", [MarginQuery(), BadgeQuery(), KMeansQuery()])
def test_samplers_of_a_pipeline_act_in_fit_alone(order, strategy):
    over_sampling = pytest.importorskip("imblearn.over_sampling")
    pipeline = pytest.importorskip("imblearn.pipeline").Pipeline
    steps = {"s": StandardScaler(), "o": over_sampling.RandomOverSampler()}
    pipe = pipeline([(name, steps[name]) for name in order] + [("c", BOOSTER)])
    loop = ActiveLearningLoop(pipe, strategy, n_rounds=1, n_initial=20, random_state=0)
    model = loop.fit(X, Y).estimator_
    view = PoolView(model, X)
    np.testing.assert_array_equal(view.proba, model.predict_proba(X))
    seen = model["s"].transform(X) if "s" in order else X
    np.testing.assert_array_equal(view.embeddings, seen)


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.head(torch.cat([a, b], 1))


PARTS = {"a": np.eye(60, 2, dtype=">f4")[::-1], "b": np.ones((60, 2), np.float32)}


@pytest.mark.parametrize(
    ("strategy", "X_test", "message"),
    [
        (MarginQuery(), {"a": PARTS["a"]}, "the parts \\['a'\\], but fit saw"),
        (MarginQuery(), PARTS | {"b": np.ones((60, 3))}, "X_test cannot be predicted"),
        (VaalQuery(), PARTS, "the rows are no arrays"),
    ],
)
def test_parts_by_name_cost_no_label(strategy, X_test, message):
    net = NeuralNetClassifier(
        TwoParts, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    asked = []

    def oracle(rows):
        asked.extend(rows)
        return rows % 3

    loop = ActiveLearningLoop(net, strategy, oracle=oracle, classes=range(3))
    with pytest.raises(ValueError, match=message):
        loop.fit(PARTS, X_test=X_test, y_test=np.arange(60) % 3)
    assert asked == []
    loop = ActiveLearningLoop(net, MarginQuery(), n_rounds=1, random_state=0)
    loop.fit(PARTS, np.arange(60) % 3, X_test=PARTS, y_test=np.arange(60) % 3)
    proba = PoolView(loop.estimator_, PARTS).proba
    np.testing.assert_array_equal(proba, loop.predict_proba(PARTS))
    inside = VotingClassifier([("net", net)], voting="soft")
    loop.set_params(estimator=inside).fit(SliceDict(**PARTS), np.arange(60) % 3)
    assert loop.predict_proba(PARTS).shape == (60, 3)
