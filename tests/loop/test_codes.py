"""Labels, codes and the order of the classes have one owner."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, MarginQuery, RandomQuery
from skal.loop.codes import Labels

RNG = np.random.default_rng(0)
TRUTH = np.arange(90) % 3
CENTERS = np.array([[0, 0], [6, 0], [0, 6]])
X = (CENTERS[TRUTH] + RNG.normal(size=(90, 2))).astype(np.float32)
NEW = "Pass all classes"


def make_net(**kwargs):
    options = {"lr": 0.1, "max_epochs": 40, "verbose": 0, "module__out_features": 3}
    return NeuralNetClassifier(
        nn.Linear,
        module__in_features=2,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        **(options | kwargs),
    )


def make_loop(estimator=None, strategy=None, **kwargs):
    options = {"random_state": 0, "batch_size": 4, "n_initial": 6, "n_rounds": 2}
    estimator = LogisticRegression() if estimator is None else estimator
    return ActiveLearningLoop(estimator, strategy or MarginQuery(), **options | kwargs)


def empty(n=9, **kwargs):
    return Labels(np.full(n, -1), np.ones(n, dtype=bool), -1, any_type=True, **kwargs)


# -- codes --------------------------------------------------------------------------


def test_codes_are_sorted_until_a_model_is_trained_and_stay_afterwards():
    labels = empty()
    labels.buy(np.array([4]), lambda rows: ["m"], 0)
    labels.buy(np.array([2]), lambda rows: ["c"], 0)
    assert labels.classes.tolist() == ["c", "m"]
    rows, codes = labels.labeled()
    assert rows.tolist() == [2, 4] and codes.tolist() == [0, 1]
    with pytest.warns(UserWarning, match=r"\['a', 'z'\] appeared.*" + NEW):
        labels.buy(np.array([8, 0, 1]), lambda rows: ["z", "m", "a"], 1)
    assert labels.classes.tolist() == ["c", "m", "a", "z"]
    rows, codes = labels.labeled()
    assert rows.tolist() == [0, 1, 2, 4, 8] and codes.tolist() == [1, 2, 0, 1, 3]
    assert labels.order.tolist() == [4, 2, 8, 0, 1] and labels.n_seen == 4


def test_fixed_classes_stay_as_they_are():
    labels = empty(classes=np.array([2, 5, 9]))
    labels.buy(np.array([4, 3]), lambda rows: [9, 2], 0)
    assert labels.labeled()[1].tolist() == [0, 2] and labels.n_seen == 2
    with pytest.raises(ValueError, match="answer holds labels outside.*7"):
        labels.buy(np.array([5]), lambda rows: [7], 1)
    assert labels.iteration[5] == 1 and labels.values[5] == 7  # it was paid for


@pytest.mark.parametrize("big", [2**53, 2**60, 2**63 + 1, 2**70])
def test_large_numbers_stay_distinct(big):
    y = np.array([big + int(code) for code in TRUTH], dtype=object)
    loop = make_loop(n_initial=60, n_rounds=0).fit(X, y)
    assert loop.classes_.tolist() == [big, big + 1, big + 2]
    assert loop.score(X, y) > 0.9 and loop.predict(X[:1]).tolist()[0] in y


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float32, bool, "<U2"])
def test_predictions_have_the_type_of_the_labels(dtype):
    y = (TRUTH > 0).astype(int).astype(dtype)
    assert make_loop().fit(X, y).predict(X).dtype == y.dtype


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("estimator", [make_net(), LogisticRegression()])
def test_a_class_that_appears_later_is_appended(
    estimator, warm_start, training_seed, margin
):
    loop = make_loop(estimator, RandomQuery(), oracle="ask", warm_start=warm_start)
    loop.set_params(random_state=training_seed)
    y = np.full(90, -1)
    y[TRUTH != 1] = TRUTH[TRUTH != 1]
    y[60:] = -1
    loop.fit(X, y)
    assert loop.classes_.tolist() == [0, 2]
    y[1] = 1
    with pytest.warns(UserWarning, match=NEW):
        loop = pickle.loads(pickle.dumps(loop)).fit(X, y)
    assert loop.classes_.tolist() == [0, 2, 1]
    margin("recall of 2", (loop.predict(X[TRUTH == 2]) == 2).mean(), above=0.9)
    proba = loop.predict_proba(X)
    assert (loop.classes_[proba.argmax(1)] == loop.predict(X)).all()
    y[4] = 1
    loop.fit(X, y)  # warned of once
    assert loop.classes_.tolist() == [0, 2, 1]


def test_warm_start_goes_on_with_the_same_columns():
    loop = make_loop(make_net(), RandomQuery(), oracle="ask", warm_start=True)
    y = np.where((TRUTH != 1) & (np.arange(90) < 60), TRUTH, -1)
    loop.fit(X, y)
    before = loop.predict_proba(X)
    y[1] = 1
    loop.estimator_.set_params(lr=1e-9, max_epochs=1)
    with pytest.warns(UserWarning, match=NEW):
        loop.fit(X, y)
    after = loop.predict_proba(X)[:, :2]
    after = after / after.sum(1, keepdims=True)
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_a_slip_of_the_pen_leaves_no_class_behind(training_seed, margin):
    net = make_net(module__out_features=4)
    loop = make_loop(net, RandomQuery(), oracle="ask", warm_start=True)
    loop.set_params(random_state=training_seed)
    y = np.array(["cat", "dog", "eel"], dtype=object)[TRUTH]
    y[60:], y[2] = -1, "ele"
    assert loop.fit(X, y).classes_.tolist() == ["cat", "dog", "eel", "ele"]
    y[2] = "eel"
    loop.fit(X, y)
    assert loop.classes_.tolist() == ["cat", "dog", "eel"]
    margin("accuracy", loop.score(X[:60], y[:60]), above=0.9)


def test_scorers_see_sorted_columns():
    truth = np.array(["b", "a", "c"], dtype=object)[TRUTH]
    names = ["neg_log_loss", "roc_auc_ovr", "accuracy"]
    loop = make_loop(oracle="ask", scoring=names)
    loop.fit(X, np.where((TRUTH != 1) & (np.arange(90) < 60), truth, -1))
    with pytest.warns(UserWarning, match=NEW):
        loop.fit(X, np.where(np.arange(90) < 60, truth, -1), X_test=X, y_test=truth)
    assert loop.classes_.tolist() == ["b", "c", "a"]
    assert loop.history_["test_neg_log_loss"][-1] > -0.3
    assert loop.history_["test_roc_auc_ovr"][-1] > 0.95
    assert loop.history_["test_accuracy"][-1] == loop.score(X, truth)


@pytest.mark.parametrize("estimator", [make_net(), LogisticRegression()])
def test_asking_without_classes_equals_an_oracle(estimator):
    """Both learn of the classes in the same purchases, so both give the same codes."""
    options = {"initial": [1, 2, 4], "strategy": RandomQuery(), "batch_size": 9}
    told = make_loop(estimator, oracle=lambda rows: TRUTH[rows], **options)
    asked = make_loop(estimator, oracle="ask", **options)
    y, bought = np.full(90, -1), []
    with pytest.warns(UserWarning, match=NEW):
        told.fit(X)
    with pytest.warns(UserWarning, match=NEW):
        for _ in range(3):
            asked.fit(X, y)
            bought += asked.next_query_.tolist()
            y[asked.next_query_] = TRUTH[asked.next_query_]
        asked.fit(X, y)
    assert bought == told.labeled_indices_.tolist()
    assert asked.classes_.tolist() == told.classes_.tolist() == [1, 2, 0]
    assert (asked.predict_proba(X) == told.predict_proba(X)).all()


# -- going on -----------------------------------------------------------------------


def test_rounds_go_on_over_the_fits_of_ask_mode():
    loop = make_loop(oracle="ask", classes=range(3))
    y, known = np.full(90, -1), []
    for day in range(4):
        loop = pickle.loads(pickle.dumps(loop))
        loop.fit(X, y, X_test=X, y_test=TRUTH)
        known.append((y >= 0).sum())
        assert loop.n_iter_ == max(day - 1, 0)
        y[loop.next_query_] = TRUTH[loop.next_query_]
    loop.fit(X, y, X_test=X, y_test=TRUTH).fit(X, y)  # the same round again
    assert loop.history_["round"].tolist() == [0, 1, 2, 3]
    assert loop.history_["n_labeled"].tolist() == [6, 10, 14, 18]
    assert loop.history_["n_queried"].tolist() == [6, 4, 4, 4]
    assert loop.history_["query_time"][0] == 0 < loop.history_["query_time"][1]
    assert np.bincount(loop.labeled_iter_ + 1).tolist() == [72, 6, 4, 4, 4]
    assert np.isnan(loop.history_["test_score"]).tolist() == [False] * 3 + [True]


def test_curves_of_asking_and_simulating_are_equal():
    simulated = make_loop(make_net(), n_rounds=3)
    simulated.fit(X, TRUTH, X_test=X, y_test=TRUTH)
    asked = make_loop(make_net(), oracle="ask", classes=range(3))
    y = np.full(90, -1)
    for _ in range(5):
        asked.fit(X, y, X_test=X, y_test=TRUTH)
        y[asked.next_query_] = TRUTH[asked.next_query_]
    for name in ("round", "n_labeled", "n_queried", "test_score"):
        assert asked.history_[name].tolist() == simulated.history_[name].tolist()
    assert (asked.labeled_iter_ == simulated.labeled_iter_).all()


@pytest.mark.parametrize("change", ["rows", "fewer rows", "a label lost", "simulation"])
def test_another_job_starts_anew(change):
    y = np.where(np.arange(90) < 30, TRUTH, -1)
    loop = make_loop(oracle=None).fit(X, y)
    y[30:40] = TRUTH[30:40]
    assert loop.fit(X, y).history_["round"].tolist() == [0, 1]
    rows, other = {
        "rows": (X[::-1].copy(), y),
        "fewer rows": (X[:80], y[:80]),
        "a label lost": (X, np.where(np.arange(90) == 3, -1, y)),
        "simulation": (X, TRUTH),
    }[change]
    loop.fit(rows, other)
    fresh = make_loop(oracle=None).fit(rows, other)
    assert loop.history_["n_labeled"].tolist() == fresh.history_["n_labeled"].tolist()
    assert (loop.labeled_iter_ == fresh.labeled_iter_).all()
    assert (loop.next_query_ == fresh.next_query_).all()


def test_corrected_labels_are_the_same_round():
    y = np.where(np.arange(90) < 30, TRUTH, -1)
    loop = make_loop(oracle="ask").fit(X, y)
    y[0] = 1 - y[0]
    loop.fit(X, y)
    assert loop.history_["round"].tolist() == [0] and loop.transduction_[0] == y[0]


def test_scorers_see_a_column_for_each_class_of_the_test_rows():
    """While the oracle gave labels of two classes, the third has probability 0."""
    names = ["neg_log_loss", "roc_auc_ovr", "accuracy"]
    options = {"initial": [1, 4, 2, 5], "strategy": RandomQuery(), "batch_size": 9}
    options |= {"oracle": lambda rows: TRUTH[rows], "scoring": names}
    known = make_loop(LogisticRegression(), classes=[0, 1, 2], **options)
    known.fit(X, X_test=X, y_test=TRUTH)
    found = make_loop(LogisticRegression(), **options)
    with pytest.warns(UserWarning, match=NEW):
        found.fit(X, X_test=X, y_test=TRUTH)
    for name in names:
        expected = known.history_[f"test_{name}"]
        np.testing.assert_allclose(found.history_[f"test_{name}"], expected, rtol=1e-4)
