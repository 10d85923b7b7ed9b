"""Rows of all kinds: taken where the estimator takes them, else named."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn

from skal import ActiveLearningLoop, BadgeQuery, MarginQuery, PoolView, RandomQuery

RNG = np.random.default_rng(0)
N = 60
CITY = np.tile(["Oslo", "Bern", "Rome"], 20)
Y = (CITY == "Oslo").astype(int)
BOOSTER = HistGradientBoostingClassifier(min_samples_leaf=2, max_iter=5)
FRAME = pd.DataFrame(
    {
        "age": RNG.normal(40, 10, N),
        "city": pd.Categorical(CITY),
        "member": pd.array(RNG.random(N) > 0.5, dtype="boolean"),
        "visits": pd.array(RNG.integers(0, 9, N), dtype="Int64"),
    }
)
FRAME.loc[3, "visits"] = pd.NA
FRAME.loc[50, "city"] = None


def run(estimator, X, y=Y, strategy=None, test=False, **params):
    options = {"n_rounds": 1, "n_initial": 20, "random_state": 0}
    strategy = MarginQuery() if strategy is None else strategy
    loop = ActiveLearningLoop(estimator, strategy, **(options | params))
    return loop.fit(X, y, X_test=X, y_test=y) if test else loop.fit(X, y)


class ByCity(ClassifierMixin, BaseEstimator):
    """Somebody's own classifier, which takes frames with text and sets no tags."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        share = pd.crosstab(X["city"], y, normalize="index")
        self.share_ = share.reindex(columns=self.classes_, fill_value=0.0)
        return self

    def predict_proba(self, X):
        return self.share_.reindex(X["city"]).fillna(0.5).to_numpy()

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


# -- frames of mixed columns ----------------------------------------------------------


@pytest.mark.parametrize(
    "frame", [FRAME, FRAME[["age", "member"]], FRAME[["city", "visits"]]]
)
@pytest.mark.parametrize("strategy", [MarginQuery(), RandomQuery()])
def test_a_booster_takes_nullable_and_category_columns(frame, strategy):
    loop = run(BOOSTER, frame, strategy=strategy, test=True)
    rows = np.sort(loop.labeled_indices_)
    plain = clone(BOOSTER).fit(frame.iloc[rows], Y[rows])
    np.testing.assert_array_equal(loop.predict_proba(frame), plain.predict_proba(frame))


@pytest.mark.parametrize("dtype", [object, "str", "category"])
def test_text_for_a_classifier_of_ones_own(dtype):
    frame = pd.DataFrame({"city": CITY.astype(object), "n": np.arange(N)})
    frame["city"] = frame["city"].astype(dtype)
    assert run(ByCity(), frame).score(frame, Y) == 1


@pytest.mark.parametrize(
    ("estimator", "frame"),
    [
        (LogisticRegression(), FRAME),
        (LogisticRegression(), FRAME[["age", "visits"]]),
        (LogisticRegression(), FRAME.assign(when=pd.Timestamp("2024-01-01"))),
        (LogisticRegression(), FRAME.assign(age=np.inf)[["age"]]),
    ],
)
def test_what_the_estimator_does_not_take_costs_nothing(estimator, frame):
    asked = []
    with pytest.raises((TypeError, ValueError)):
        run(estimator, frame, np.full(N, -1), oracle=asked.append, classes=[0, 1])
    assert asked == []


def test_a_rare_hole_is_found_by_the_trial():
    """The one missing value is in none of the evenly spread rows."""
    frame = pd.DataFrame(
        {
            "a": np.arange(2000.0),
            "b": pd.array([True, False] * 1000, dtype="boolean"),
        }
    )
    y = np.arange(2000) % 2
    assert run(LogisticRegression(max_iter=1000), frame, y).score(frame, y) >= 0
    frame.loc[1234, "b"] = pd.NA
    with pytest.raises((TypeError, ValueError), match="NA|NaN"):
        run(LogisticRegression(), frame, y)


# -- containers -----------------------------------------------------------------------


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(6, 2)

    def forward(self, ids, x):
        return self.head(torch.cat([self.words(ids).mean(1), x], 1))


def two_parts(module=TwoParts):
    return NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=2, lr=0.1, verbose=0
    )


@pytest.mark.parametrize("strategy", [BadgeQuery(), MarginQuery()])
def test_rows_in_named_parts(strategy):
    ids, x = RNG.integers(0, 9, (N, 5)), RNG.standard_normal((N, 2))
    probas = []
    for X in (
        {"ids": ids, "x": x.astype(np.float32)},
        SliceDict(ids=ids, x=x),
        SliceDict(ids=torch.from_numpy(ids), x=torch.from_numpy(x).requires_grad_()),
    ):
        loop = run(two_parts(), X, strategy=strategy, test=True)
        probas.append(loop.predict_proba(X))
        view = PoolView(loop.estimator_, SliceDict(**X))
        np.testing.assert_array_equal(view.proba, probas[-1])
        assert 0 <= loop.score(X, Y) <= 1
    np.testing.assert_array_equal(probas[0], probas[1])
    np.testing.assert_array_equal(probas[0], probas[2])
    with pytest.raises(TypeError, match="X is a dict, which LogisticRegression"):
        run(LogisticRegression(), {"x": x})
    with pytest.raises(ValueError, match="different lengths"):
        run(two_parts(), {"ids": ids[1:], "x": x})


def test_polars_frames():
    polars = pytest.importorskip("polars")
    x = RNG.standard_normal((N, 2))
    frame = polars.DataFrame({"a": x[:, 0], "b": x[:, 1], "city": CITY})
    pipe = make_pipeline(
        make_column_transformer((StandardScaler(), ["a", "b"])), LogisticRegression()
    )
    by_array = make_pipeline(StandardScaler(), LogisticRegression())
    for strategy in (MarginQuery(), BadgeQuery()):
        # The text of `city` is no feature, so that its rows would begin uniformly.
        loop = run(pipe, frame, strategy=strategy, initial="uniform")
        expected = run(by_array, x, strategy=strategy, initial="uniform")
        np.testing.assert_array_equal(loop.labeled_indices_, expected.labeled_indices_)
        np.testing.assert_allclose(loop.predict_proba(frame), expected.predict_proba(x))
    numbers = frame[["a", "b"]]
    bare = run(LogisticRegression(), numbers)
    expected = run(LogisticRegression(), x)
    np.testing.assert_array_equal(bare.labeled_indices_, expected.labeled_indices_)
    encoded = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city"])), LogisticRegression()
    )
    assert run(encoded, frame).score(frame, Y) == 1
    with pytest.raises(TypeError, match="X is a LazyFrame.*collected"):
        run(pipe, frame.lazy())


class Duck:
    """Has rows, but is no torch Dataset."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        return torch.ones(2), row % 2


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (Duck(), "X is a Duck, whose rows cannot be taken"),
        (map(float, range(N)), "X is a map"),
        ({1, 2}, "X is a set"),
        ([f"img{k}.png" for k in range(N)], "text such as 'img0.png'.*torch Dataset"),
        (np.array([f"img{k}.png" for k in range(N)]), "text such as 'img0.png'"),
    ],
)
@pytest.mark.parametrize("estimator", [LogisticRegression(), two_parts(nn.Linear)])
def test_containers_that_are_named(X, message, estimator):
    with pytest.raises((TypeError, ValueError), match=message):
        run(estimator, X)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_tensors_are_named(layout):
    rows = torch.eye(N).to_sparse(layout=layout)
    with pytest.raises(TypeError, match=f"X is a sparse tensor, {layout}"):
        run(LogisticRegression(), rows)
