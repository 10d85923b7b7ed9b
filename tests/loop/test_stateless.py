import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.utils import get_tags
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    EntropyQuery,
    EpigQuery,
    KMeansQuery,
    MarginQuery,
    StochasticQuery,
)
from skal.loop.stateless import apply_head
from skal.models import FrozenFeatures
from skal.posterior import DeepEnsemble, MCDropout
from skal.utils.scratch import Scratch

SEEN = []
Y = np.arange(60) % 3


class Backbone(nn.Module):
    """Notes the rows it is shown."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 8)

    def forward(self, x):
        SEEN.extend(x.flatten(1)[:, 0].tolist())
        return self.head(x.flatten(1)).relu()


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(x)


@pytest.fixture
def backbone():
    SEEN.clear()
    torch.manual_seed(0)
    return FrozenFeatures(Backbone(), device="cpu")


def images(n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3, 2, 2)).astype(np.float32)
    X[:, 0] += 2 * np.eye(4, dtype=np.float32)[np.arange(n) % 3].reshape(n, 2, 2)
    return X


def net():
    return NeuralNetClassifier(
        Linear, criterion=nn.CrossEntropyLoss, max_epochs=3, lr=0.1, verbose=0
    )


def logistic():
    return LogisticRegression(max_iter=1000)


def run(estimator, X, strategy=None, y=Y, **params):
    params = {"n_initial": 6, "n_rounds": 3, "batch_size": 4} | params
    test = {"X_test": params.pop("X_test", None), "y_test": params.pop("y_test", None)}
    strategy = strategy or MarginQuery()
    loop = ActiveLearningLoop(estimator, strategy, random_state=0, **params)
    return loop.fit(X, y, **test)


@pytest.mark.parametrize("head", [logistic, net])
def test_each_row_is_passed_once_a_run(backbone, head):
    X, X_test = images(), images(20, seed=1)
    loop = run(
        make_pipeline(backbone, StandardScaler(), head()),
        X,
        BadgeQuery(),
        X_test=X_test,
        y_test=np.arange(20) % 3,
    )
    first = np.concatenate([X, X_test])[:, 0, 0, 0]
    assert sorted(SEEN) == sorted(first.tolist())
    assert loop.n_iter_ == 3
    SEEN.clear()
    score = loop.score(X_test, np.arange(20) % 3)
    assert score == loop.history_["test_score"][-1] and len(SEEN) == 20


@pytest.mark.parametrize(
    "head, posterior",
    [(logistic, None), (net, None), (net, DeepEnsemble(n_members=2))],
)
def test_the_run_is_that_over_the_features(backbone, head, posterior):
    X = images()
    features = backbone.transform(X)
    strategy, inner = EntropyQuery(posterior=posterior), [StandardScaler(), head()]
    whole = run(make_pipeline(backbone, *inner), X, strategy)
    apart = run(make_pipeline(*inner), features, strategy)
    assert np.array_equal(whole.labeled_indices_, apart.labeled_indices_)
    assert np.array_equal(whole.predict_proba(X), apart.predict_proba(features))
    again = pickle.loads(pickle.dumps(whole))
    assert np.array_equal(again.predict_proba(X), whole.predict_proba(X))


def test_the_first_set_is_chosen_from_the_features(backbone):
    X = images()
    features = backbone.transform(X)
    whole = run(make_pipeline(backbone, logistic()), X, initial=KMeansQuery())
    apart = run(logistic(), features, initial=KMeansQuery())
    assert np.array_equal(whole.labeled_indices_, apart.labeled_indices_)


def test_a_dataset_for_a_classifier_without_a_net(backbone):
    X = images()
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    pipeline = make_pipeline(backbone, logistic())
    loop, arrays = run(pipeline, dataset, y=None), run(pipeline, X)
    assert np.array_equal(loop.labeled_indices_, arrays.labeled_indices_)
    assert np.array_equal(loop.predict(dataset), arrays.predict(X))


def test_asking_goes_on_and_trains_on(backbone):
    X, y = images(), np.full(60, -1)
    loop = ActiveLearningLoop(
        make_pipeline(backbone, net()),
        MarginQuery(),
        **{"n_initial": 6, "batch_size": 4, "warm_start": True, "random_state": 0},
    )
    for number in range(4):
        y = loop.fit(X, y).label(y, loop.next_query_, Y[loop.next_query_])
        assert len(SEEN) == 60 * (number + 1)
    assert loop.history_["n_labeled"].tolist() == [6, 10, 14]
    assert len(loop.estimator_[-1].history) == 9


def test_errors_of_a_backbone_come_before_anything_is_bought(backbone):
    X = images()
    X[7] = np.nan
    bought = []
    with pytest.raises(ValueError, match="NaN or infinite features of row 7"):
        run(
            make_pipeline(backbone, logistic()),
            X,
            y=None,
            classes=[0, 1, 2],
            oracle=lambda rows: bought.append(rows),
        )
    assert bought == []


def centred(X):
    return X - X.mean(0)


def noisy(X):
    return X + np.random.normal(size=X.shape)


CALLS = []


def doubled(X):
    CALLS.append(len(X))
    return 2 * X


ROWS = images().reshape(60, -1).astype(np.float64)


@pytest.mark.parametrize(
    "step, X, n_applied",
    [
        (Normalizer(), ROWS, 1),
        (Normalizer(copy=False), ROWS, 1),
        (Normalizer(), sparse.csr_matrix(np.maximum(ROWS, 0)), 1),
        (Normalizer().set_output(transform="pandas"), pd.DataFrame(ROWS), 1),
        (FunctionTransformer(doubled), ROWS, 1),
        (FunctionTransformer(doubled), pd.DataFrame(ROWS), 1),
        (HashingVectorizer(n_features=8), np.array([f"a{i % 5} b" for i in Y]), 1),
        # What they make of a row depends on others, or on nothing.
        (FunctionTransformer(centred), ROWS, 0),
        (FunctionTransformer(noisy), ROWS, 0),
        (FunctionTransformer(lambda X: X[:30]), ROWS, 0),
        (StandardScaler(), ROWS, 0),
        ("passthrough", ROWS, 1),
    ],
)
def test_which_steps_are_applied(step, X, n_applied):
    if isinstance(step, HashingVectorizer):  # its tag is younger than itself
        n_applied = int(not get_tags(step).requires_fit)
    before = X.copy()
    head, rows, _ = apply_head(make_pipeline(step, StandardScaler(), logistic()), X)
    assert len(head) == n_applied
    if not n_applied or step == "passthrough":
        assert rows is X
    else:
        expected = step.fit(X.copy()).transform(X.copy())
        assert (rows != expected).sum().sum() == 0
    assert (before != X).sum() == 0 if not isinstance(X, pd.DataFrame) else True


@pytest.mark.parametrize("step", [Normalizer(), FunctionTransformer(doubled)])
@pytest.mark.parametrize("head", [LogisticRegression, None])
def test_runs_with_steps_of_scikit_learn_are_unchanged(step, head, monkeypatch):
    X = ROWS[:, :8]
    pipeline = make_pipeline(step, logistic() if head else net())
    test = {"X_test": X[:30], "y_test": Y[:30]}
    once = run(pipeline, X, BadgeQuery() if head is None else None, **test)
    CALLS.clear()
    monkeypatch.setattr(
        "skal.loop.data_checks.apply_head",
        lambda estimator, X, X_test, limited: ([], X, X_test),
    )
    each_round = run(pipeline, X, BadgeQuery() if head is None else None, **test)
    assert np.array_equal(once.labeled_indices_, each_round.labeled_indices_)
    assert np.array_equal(once.predict_proba(X), each_round.predict_proba(X))
    scores = [each.history_["test_score"] for each in (once, each_round)]
    assert np.array_equal(*scores)


def test_under_a_memory_limit_no_transformed_copy_of_the_rows_is_made(monkeypatch):
    """Rows pass the step in each round, a chunk at a time; purchases are the same."""
    monkeypatch.setattr(Scratch, "n_rows", 16)
    step, loops = FunctionTransformer(doubled), []
    for limit in (None, "16K"):
        CALLS.clear()
        loops.append(run(make_pipeline(step, net()), ROWS[:, :8], memory_limit=limit))
        largest = max(CALLS)
    assert largest < 60
    assert np.array_equal(*(loop.labeled_indices_ for loop in loops))
    assert np.array_equal(*(loop.predict_proba(ROWS[:, :8]) for loop in loops))


def test_a_backbone_is_applied_once_under_a_memory_limit(backbone):
    pipeline = make_pipeline(backbone, net())
    run(pipeline, images(), memory_limit="16K")
    assert len(SEEN) == 60


# -- rows that a strategy has as a parameter -------------------------------------------


class Dropping(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(8, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3))


def bought(step, target, X, wrap=lambda strategy: strategy, **options):
    strategy = wrap(EpigQuery(posterior=MCDropout(8), target=target, n_targets=20))
    net = NeuralNetClassifier(
        Dropping,
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        verbose=0,
    )
    options = {"n_rounds": 1, "batch_size": 9, "random_state": 0} | options
    loop = ActiveLearningLoop(make_pipeline(step, net), strategy, **options)
    y = None if "oracle" in options else Y
    return loop.fit(X, y).labeled_indices_.tolist()


@pytest.mark.parametrize("wrap", [lambda strategy: strategy, StochasticQuery])
def test_a_target_passes_through_the_head(wrap):
    X = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    target = 100 * X[:5] ** 2
    found = bought(Normalizer(), target, X, wrap)
    assert found == bought(Normalizer(), Normalizer().transform(target), X, wrap)
    assert found == bought(Normalizer(), target, X, wrap, memory_limit="10M")
    assert found != bought(Normalizer(), X[:5], X, wrap)
    assert np.array_equal(target, 100 * X[:5] ** 2)


def test_a_target_of_images_passes_through_the_backbone(backbone):
    X = np.random.default_rng(0).random((60, 3, 2, 2), dtype=np.float32)
    found = bought(backbone, X[7:12], X)
    assert found == bought(backbone, list(X[7:12]), X)


@pytest.mark.parametrize(
    "target, match",
    [
        (np.zeros(8, dtype=np.float32), "^target must be rows like "),
        (np.zeros((4, 7), dtype=np.float32), "^target must be rows like those of X"),
        (np.zeros((0, 8), dtype=np.float32), "^target (has no rows|must be rows like)"),
    ],
)
@pytest.mark.parametrize("step", [Normalizer(), StandardScaler()])
def test_a_target_that_is_no_rows_is_told_before_anything_is_bought(
    step, target, match
):
    X = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)

    def oracle(rows):
        raise AssertionError("a label was bought")

    with pytest.raises(ValueError, match=match):
        bought(step, target, X, oracle=oracle, classes=[0, 1, 2])
