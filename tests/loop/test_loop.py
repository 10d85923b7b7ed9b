"""The loop: modes, bookkeeping, containers, scikit-learn's contract."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.utils.data import Dataset, default_collate

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    EntropyQuery,
    KMeansQuery,
    LeastConfidenceQuery,
    MarginQuery,
    RandomQuery,
)

X_DIGITS, Y_DIGITS = load_digits(return_X_y=True)
X_DIGITS = (X_DIGITS[:400] / 16).astype(np.float32)
Y_DIGITS = Y_DIGITS[:400]


class SmallNet(nn.Module):
    def __init__(self, n_classes=10, hidden=16, n_inputs=64):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.hidden(x.flatten(1)))))


def make_net(**kwargs):
    options = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.02,
        "max_epochs": 3,
        "batch_size": 16,
        "verbose": 0,
    }
    return NeuralNetClassifier(**({"module": SmallNet} | options | kwargs))


def make_loop(estimator=None, strategy=None, **kwargs):
    options = {"random_state": 0, "n_rounds": 2, "batch_size": 5, "n_initial": 10}
    estimator = LogisticRegression(max_iter=1000) if estimator is None else estimator
    strategy = MarginQuery() if strategy is None else strategy
    return ActiveLearningLoop(estimator, strategy, **(options | kwargs))


def weights(loop):
    return {k: v.clone() for k, v in loop.estimator_.module_.state_dict().items()}


# -- simulation ---------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [None, make_net()])
def test_simulation_books_every_purchase(estimator):
    loop = make_loop(estimator, BadgeQuery(), n_rounds=3, batch_size=7)
    loop.fit(X_DIGITS, Y_DIGITS, X_test=X_DIGITS[:50], y_test=Y_DIGITS[:50])
    history = pd.DataFrame(loop.history_)
    assert history.columns.tolist() == [
        "round", "n_labeled", "n_queried", "fit_time", "query_time", "test_score"
    ]  # fmt: skip
    assert history["n_labeled"].tolist() == [10, 17, 24, 31]
    assert history["n_queried"].tolist() == [10, 7, 7, 7]
    assert history["query_time"][0] == 0 and (history["query_time"][1:] > 0).all()
    assert loop.n_iter_ == 3 and loop.termination_condition_ == "n_rounds"
    assert len(set(loop.labeled_indices_)) == 31
    assert (loop.labeled_iter_[loop.labeled_indices_] >= 0).all()
    assert np.bincount(loop.labeled_iter_ + 1).tolist() == [369, 10, 7, 7, 7]
    bought = loop.labeled_iter_ >= 0
    assert (loop.transduction_[bought] == Y_DIGITS[bought]).all()
    assert (loop.transduction_[~bought] == -1).all()
    assert len(loop.next_query_) == 0
    assert history["test_score"].iloc[-1] == loop.score(X_DIGITS[:50], Y_DIGITS[:50])


def test_pool_runs_empty_and_the_last_batch_is_short():
    loop = make_loop(n_rounds=None, batch_size=13).fit(X_DIGITS[:50], Y_DIGITS[:50])
    assert loop.history_["n_labeled"].tolist() == [10, 23, 36, 49, 50]
    assert loop.termination_condition_ == "pool_exhausted"
    assert sorted(loop.labeled_indices_) == list(range(50))


def test_unbought_labels_reach_nobody():
    """Labels that are not bought may be anything, and the run is the same."""
    loop = make_loop(make_net(), BadgeQuery()).fit(X_DIGITS, Y_DIGITS)
    other = Y_DIGITS.copy()
    other[loop.labeled_iter_ < 0] = (other[loop.labeled_iter_ < 0] + 1) % 10
    again = make_loop(make_net(), BadgeQuery()).fit(X_DIGITS, other)
    assert (again.labeled_indices_ == loop.labeled_indices_).all()
    assert (again.predict_proba(X_DIGITS) == loop.predict_proba(X_DIGITS)).all()


def test_test_rows_change_nothing():
    plain = make_loop(make_net(), BadgeQuery()).fit(X_DIGITS, Y_DIGITS)
    scored = make_loop(make_net(), BadgeQuery(), scoring=["accuracy", "neg_log_loss"])
    scored.fit(X_DIGITS, Y_DIGITS, X_test=X_DIGITS[300:], y_test=Y_DIGITS[300:])
    assert (plain.labeled_indices_ == scored.labeled_indices_).all()
    assert (plain.predict_proba(X_DIGITS) == scored.predict_proba(X_DIGITS)).all()


def test_test_rows_are_scored_once_a_round():
    seen = []

    def scorer(estimator, X, y):
        seen.append(len(X))
        return 0.5

    loop = make_loop(scoring=scorer)
    loop.fit(X_DIGITS, Y_DIGITS, X_test=X_DIGITS[:30], y_test=Y_DIGITS[:30])
    assert seen == [30, 30, 30] and loop.history_["test_score"].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    "scoring, columns",
    [
        (None, {"test_score"}),
        ("balanced_accuracy", {"test_balanced_accuracy"}),
        (["accuracy", "roc_auc_ovr"], {"test_accuracy", "test_roc_auc_ovr"}),
        ({"acc": "accuracy"}, {"test_acc"}),
    ],
)
def test_scoring(scoring, columns):
    loop = make_loop(scoring=scoring, n_rounds=1)
    loop.fit(X_DIGITS, Y_DIGITS, X_test=X_DIGITS, y_test=Y_DIGITS)
    assert {name for name in loop.history_ if name.startswith("test_")} == columns


@pytest.mark.parametrize("estimator", [None, make_net(), RandomForestClassifier(5)])
@pytest.mark.parametrize("strategy", [BadgeQuery(), RandomQuery()])
def test_same_seed_same_bits(estimator, strategy):
    first, second = (
        make_loop(estimator, strategy).fit(X_DIGITS, Y_DIGITS) for _ in range(2)
    )
    assert (first.labeled_indices_ == second.labeled_indices_).all()
    assert (first.predict_proba(X_DIGITS) == second.predict_proba(X_DIGITS)).all()
    other = make_loop(estimator, strategy, random_state=1).fit(X_DIGITS, Y_DIGITS)
    assert set(first.labeled_indices_) != set(other.labeled_indices_)


def test_strategies_share_the_initial_set_and_model():
    runs = [
        make_loop(make_net(), strategy, n_rounds=0).fit(X_DIGITS, Y_DIGITS)
        for strategy in (BadgeQuery(), RandomQuery(random_state=3))
    ]
    assert (runs[0].labeled_indices_ == runs[1].labeled_indices_).all()
    assert (runs[0].predict_proba(X_DIGITS) == runs[1].predict_proba(X_DIGITS)).all()


def test_network_starts_afresh_each_round_batchnorm_included():
    """No epochs: whatever weights a round ends with, it began with."""
    loop = make_loop(make_net(max_epochs=0), RandomQuery(), n_rounds=0)
    fresh = weights(loop.fit(X_DIGITS, Y_DIGITS))
    trained = weights(make_loop(make_net(), RandomQuery()).fit(X_DIGITS, Y_DIGITS))
    assert int(trained["norm.num_batches_tracked"]) == 3 * 2  # 20 rows, 3 epochs
    assert int(fresh["norm.num_batches_tracked"]) == 0


def test_warm_start_goes_on_from_the_last_round():
    warm = make_loop(make_net(), RandomQuery(), warm_start=True, n_rounds=2)
    warm.fit(X_DIGITS, Y_DIGITS)
    # 10 rows: 1 batch, 15 rows: 1 batch, 20 rows: 2 batches; 3 epochs each.
    assert int(weights(warm)["norm.num_batches_tracked"]) == 3 * (1 + 1 + 2)
    with pytest.raises(ValueError, match="n_estimators|trees"):
        make_loop(RandomForestClassifier(), warm_start=True).fit(X_DIGITS, Y_DIGITS)
    with pytest.raises(ValueError, match="warm_start"):
        make_loop(SVC(), warm_start=True).fit(X_DIGITS, Y_DIGITS)


# -- the initial set ----------------------------------------------------------------


def test_initial_balanced():
    loop = make_loop(initial="balanced", n_initial=20, n_rounds=0)
    loop.fit(X_DIGITS, Y_DIGITS)
    assert np.bincount(Y_DIGITS[loop.labeled_indices_]).tolist() == [2] * 10


def test_initial_rows_and_strategy():
    rows = [5, 3, 390]
    loop = make_loop(initial=rows, n_rounds=0).fit(X_DIGITS, Y_DIGITS)
    assert loop.labeled_indices_.tolist() == rows
    loop = make_loop(initial=KMeansQuery(), n_rounds=0).fit(X_DIGITS, Y_DIGITS)
    assert len(set(loop.labeled_indices_)) == 10
    with pytest.raises(ValueError, match="initial=MarginQuery.*RandomQuery"):
        make_loop(initial=MarginQuery()).fit(X_DIGITS, Y_DIGITS)


def test_one_class_initial_set_grows_and_warns():
    y = (np.arange(400) >= 370).astype(int)
    with pytest.warns(UserWarning, match="initial='balanced'"):
        loop = make_loop(n_initial=2, n_rounds=40, random_state=1).fit(X_DIGITS, y)
    first = y[loop.labeled_iter_ == 0]
    n_first = loop.history_["n_queried"][0]
    assert n_first == len(first) > 2 and (n_first - 2) % 5 == 0 and len(set(first)) == 2
    assert len(set(y[loop.labeled_indices_[: n_first - 5]])) == 1
    assert loop.history_["n_labeled"].tolist() == [*range(n_first, 203, 5)]
    assert loop.termination_condition_ == "n_rounds"


# -- ask and oracle -----------------------------------------------------------------


@pytest.mark.parametrize("estimator", [None, make_net()])
@pytest.mark.parametrize("warm_start", [False, True])
def test_asking_equals_simulating(estimator, warm_start):
    options = {"warm_start": warm_start, "n_initial": 4, "random_state": 2}
    simulated = make_loop(estimator, BadgeQuery(), n_rounds=3, **options)
    simulated.fit(X_DIGITS, Y_DIGITS)
    asked = make_loop(
        estimator, BadgeQuery(), oracle="ask", classes=range(10), **options
    )
    y = np.full(400, -1)
    while (y >= 0).sum() < 19:
        asked.fit(X_DIGITS, y)
        assert asked.termination_condition_ == "query_pending"
        y[asked.next_query_] = Y_DIGITS[asked.next_query_]
    asked.fit(X_DIGITS, y)
    assert asked.labeled_indices_.tolist() == sorted(simulated.labeled_indices_)
    assert (asked.predict_proba(X_DIGITS) == simulated.predict_proba(X_DIGITS)).all()


def test_asking_with_one_class_only():
    y_true = (np.arange(400) >= 370).astype(int)
    with pytest.warns(UserWarning, match="one class"):
        simulated = make_loop(n_initial=2, n_rounds=40, random_state=1)
        simulated.fit(X_DIGITS, y_true)
    asked = make_loop(n_initial=2, random_state=1, oracle="ask")
    y = np.full(400, -1)
    asked.fit(X_DIGITS, y)
    assert len(asked.next_query_) == 2 and not hasattr(asked, "estimator_")
    bought = []
    while not hasattr(asked, "estimator_"):
        bought += asked.next_query_.tolist()
        y[asked.next_query_] = y_true[asked.next_query_]
        asked.fit(X_DIGITS, y)
    assert bought == simulated.labeled_indices_[: len(bought)].tolist()
    assert len(bought) == simulated.history_["n_queried"][0]


def test_ask_mode_with_everything_labelled_never_simulates():
    loop = make_loop(oracle="ask").fit(X_DIGITS, Y_DIGITS)
    assert len(loop.next_query_) == 0
    assert loop.termination_condition_ == "pool_exhausted"
    assert loop.labeled_indices_.tolist() == list(range(400))


@pytest.mark.parametrize("missing", [-1, None, np.nan, "?"])
def test_missing_labels_of_any_kind(missing):
    names = np.array([f"digit {k}" for k in Y_DIGITS], dtype=object)
    y = names.copy()
    y[60:] = missing
    loop = make_loop(missing_label=missing).fit(X_DIGITS, y)
    assert loop.next_query_.min() >= 60 and len(loop.next_query_) == 5
    assert set(loop.predict(X_DIGITS)) <= set(names)
    assert loop.score(X_DIGITS, y) == loop.score(X_DIGITS[:60], y[:60])
    with pytest.raises(ValueError, match="nothing to score"):
        loop.score(X_DIGITS[60:], y[60:])


def test_oracle_equals_simulation():
    calls = []

    def oracle(rows):
        calls.append(rows.tolist())
        return Y_DIGITS[rows]

    asked = make_loop(oracle=oracle, classes=range(10)).fit(X_DIGITS)
    simulated = make_loop().fit(X_DIGITS, Y_DIGITS)
    assert sum(calls, []) == simulated.labeled_indices_.tolist()
    assert (asked.predict_proba(X_DIGITS) == simulated.predict_proba(X_DIGITS)).all()
    assert np.issubdtype(asked.predict(X_DIGITS).dtype, np.integer)


def test_oracle_may_skip_rows():
    def oracle(rows):
        return [-1 if row % 3 == 0 else Y_DIGITS[row] for row in rows]

    options = {"n_rounds": None, "batch_size": 40, "classes": range(10)}
    loop = make_loop(oracle=oracle, **options).fit(X_DIGITS[:90])
    assert (loop.labeled_indices_ % 3 != 0).all() and len(loop.labeled_indices_) == 60
    assert loop.termination_condition_ == "pool_exhausted"


def test_oracle_starts_from_given_labels():
    y = np.full(400, -1)
    y[:25] = Y_DIGITS[:25]
    loop = make_loop(oracle=lambda rows: Y_DIGITS[rows], n_rounds=1).fit(X_DIGITS, y)
    assert loop.labeled_indices_[:25].tolist() == list(range(25))
    assert loop.history_["n_labeled"].tolist() == [25, 30]


def test_no_bought_label_is_lost():
    def oracle(rows):
        if len(loop.labeled_indices_) >= 15:
            raise ConnectionError("the labeller went home")
        return Y_DIGITS[rows]

    loop = make_loop(oracle=oracle, n_rounds=5, classes=range(10))
    with pytest.raises(ConnectionError):
        loop.fit(X_DIGITS)
    assert len(loop.labeled_indices_) == 15
    known = np.array([k != -1 for k in loop.transduction_])
    assert (loop.transduction_[known] == Y_DIGITS[known]).all() and known.sum() == 15
    again = make_loop(oracle=lambda rows: Y_DIGITS[rows], n_rounds=1, classes=range(10))
    again.fit(X_DIGITS, loop.transduction_)
    assert again.history_["n_labeled"].tolist() == [15, 20]


def test_answer_outside_classes_is_booked_then_raised():
    loop = make_loop(oracle=lambda rows: Y_DIGITS[rows] + 5, classes=range(10))
    with pytest.raises(ValueError, match="classes"):
        loop.fit(X_DIGITS)
    assert len(loop.labeled_indices_) == 10


# -- containers ---------------------------------------------------------------------


class Items(Dataset):
    """A map-style Dataset that counts how often its items are loaded."""

    def __init__(self, X, y, targets=False, pairs=True):
        self.X, self.y, self.pairs = X, y, pairs
        if targets:
            self.targets = y.tolist()

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return (self.X[row], int(self.y[row])) if self.pairs else self.X[row]


def reference_proba(net=None, **kwargs):
    loop = make_loop(make_net() if net is None else net, BadgeQuery(), **kwargs)
    return loop.fit(X_DIGITS, Y_DIGITS).predict_proba(X_DIGITS)


def test_tensor_frame_memmap_and_dataset_give_the_same_run(tmp_path):
    expected = reference_proba()
    np.save(tmp_path / "X.npy", X_DIGITS)
    containers = {
        "tensor": (torch.from_numpy(X_DIGITS), Y_DIGITS),
        "frame": (pd.DataFrame(X_DIGITS), pd.Series(Y_DIGITS)),
        "memmap": (np.load(tmp_path / "X.npy", mmap_mode="r"), Y_DIGITS),
        "sparse": (sparse.csr_matrix(X_DIGITS), Y_DIGITS),
        "dok array": (sparse.dok_array(X_DIGITS), Y_DIGITS),
        "items": (Items(X_DIGITS, Y_DIGITS), None),
        "targets": (Items(X_DIGITS, Y_DIGITS, targets=True), None),
        "rows only": (Items(X_DIGITS, Y_DIGITS, pairs=False), Y_DIGITS),
        "list": (X_DIGITS.tolist(), Y_DIGITS.tolist()),
    }
    for name, (X, y) in containers.items():
        if name == "frame":
            X.columns = [f"pixel {k}" for k in X]
        loop = make_loop(make_net(), BadgeQuery()).fit(X, y)
        assert (loop.predict_proba(X) == expected).all(), name
    assert loop.n_features_in_ == 64


def test_dataset_of_images_is_read_lazily_and_needs_a_net():
    images = Items(X_DIGITS.reshape(-1, 1, 8, 8), Y_DIGITS)
    loop = make_loop(make_net(), BadgeQuery(), n_rounds=1).fit(
        images, X_test=images, y_test=None
    )
    assert "test_score" in loop.history_
    assert (loop.predict_proba(images) >= 0).all()
    with pytest.raises(TypeError, match="Dataset.*skorch"):
        make_loop().fit(images)


def test_a_dataset_before_a_transformer_of_scikit_learn():
    net, items = make_net(), Items(X_DIGITS, Y_DIGITS)
    with pytest.raises(TypeError, match="Dataset, which StandardScaler before the net"):
        make_loop(make_pipeline(StandardScaler(), net), BadgeQuery()).fit(items)
    # What takes anything may take a Dataset.
    pipeline = make_pipeline(FunctionTransformer(), net)
    loop = make_loop(pipeline, MarginQuery(), n_rounds=1).fit(items)
    assert loop.n_iter_ == 1


def test_sparse_rows_before_a_net_behind_transformers():
    rows = sparse.csr_array(X_DIGITS)
    loops = [
        make_loop(make_pipeline(Binarizer(), make_net()), BadgeQuery(), n_rounds=1)
        for _ in range(2)
    ]
    dense, csr = loops[0].fit(X_DIGITS, Y_DIGITS), loops[1].fit(rows, Y_DIGITS)
    np.testing.assert_array_equal(dense.labeled_indices_, csr.labeled_indices_)
    np.testing.assert_array_equal(dense.predict(X_DIGITS), csr.predict(rows))
    pipeline = make_pipeline(MinMaxScaler(), make_net())
    with pytest.raises(TypeError, match="Sparse data was passed"):
        make_loop(pipeline, BadgeQuery()).fit(rows, Y_DIGITS)


def test_augmentation_touches_training_only():
    """A collate function that ruins training rows leaves the pool's scores alone."""
    seen = []

    def ruin(batch):
        seen.append(len(batch))
        x, y = default_collate(batch)
        return x * 0, y

    net = make_net(iterator_train__collate_fn=ruin)
    loop = make_loop(net, EntropyQuery(), n_rounds=1).fit(X_DIGITS, Y_DIGITS)
    assert sum(seen) == 3 * (10 + 15)
    assert len(np.unique(loop.predict_proba(X_DIGITS), axis=0)) > 300


def test_text_and_mixed_frames_through_pipelines():
    text = [f"word{k} word{k % 3} common" for k in Y_DIGITS]
    pipe = make_pipeline(CountVectorizer(), LogisticRegression())
    loop = make_loop(pipe, MarginQuery()).fit(text, Y_DIGITS)
    assert loop.predict(text[:3]).shape == (3,)
    frame = pd.DataFrame(
        {"a": X_DIGITS[:, 20], "kind": [f"k{k % 4}" for k in Y_DIGITS]}
    )
    pipe = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["kind"]), remainder="passthrough"
        ),
        LogisticRegression(),
    )
    loop = make_loop(pipe, BadgeQuery()).fit(frame, Y_DIGITS)
    assert loop.feature_names_in_.tolist() == ["a", "kind"]


def test_net_inside_a_pipeline_and_search():
    pipe = Pipeline([("scale", StandardScaler()), ("net", make_net())])
    loop = make_loop(pipe, BadgeQuery()).fit(X_DIGITS.astype(np.float64), Y_DIGITS)
    assert loop.predict_proba(X_DIGITS).shape == (400, 10)
    search = GridSearchCV(make_net(), {"lr": [0.01, 0.02]}, cv=2)
    loop = make_loop(search, BadgeQuery(), initial="balanced", n_initial=30, n_rounds=1)
    loop.fit(X_DIGITS, Y_DIGITS)
    assert loop.estimator_.best_params_["lr"] in (0.01, 0.02)


# -- scikit-learn -------------------------------------------------------------------


class CheckNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.LazyLinear(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.flatten(1))))


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        ActiveLearningLoop(
            LogisticRegression(), MarginQuery(), missing_label=np.nan, random_state=0
        ),
        ActiveLearningLoop(
            NeuralNetClassifier(
                CheckNet,
                criterion=nn.CrossEntropyLoss,
                optimizer=torch.optim.Adam,
                lr=0.02,
                max_epochs=40,
                verbose=0,
            ),
            BadgeQuery(),
            batch_size=30,
            n_rounds=3,
            missing_label=np.nan,
            random_state=0,
        ),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [ActiveLearningLoop(LogisticRegression(), MarginQuery(), random_state=0)],
    expected_failed_checks=lambda _: {
        "check_classifiers_classes": "-1 is a class there, and the default mark here"
    },
)
def test_scikit_learn_contract_with_the_default_mark(estimator, check):
    check(estimator)


def test_grid_search_over_strategies_and_nested_parameters():
    search = GridSearchCV(
        make_loop(make_net(), n_rounds=1),
        {
            "strategy": [RandomQuery(), BadgeQuery(first="uniform")],
            "estimator__lr": [0.01, 0.02],
            "batch_size": [5],
        },
        cv=2,
    ).fit(X_DIGITS, Y_DIGITS)
    assert len(search.cv_results_["params"]) == 4
    nested = make_loop(strategy=BadgeQuery()).set_params(strategy__first="uniform")
    assert nested.strategy.first == "uniform"


def test_grid_search_scores_labelled_rows_only():
    y = Y_DIGITS.copy()
    y[::2] = -1
    loop = make_loop(n_rounds=1, classes=range(10))
    search = GridSearchCV(loop, {"batch_size": [5]}, cv=2).fit(X_DIGITS, y)
    assert search.best_score_ > 0.7


def partly_labelled():
    return np.where(np.arange(len(Y_DIGITS)) % 2, Y_DIGITS, -1)


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("scoring", ["accuracy", ["f1_macro"]])
@pytest.mark.parametrize("piped", [False, True])
def test_scoring_that_counts_marks_is_warned_of(n_jobs, scoring, piped):
    loop = make_loop(n_rounds=1, classes=range(10))
    loop = make_pipeline(MinMaxScaler(), loop) if piped else loop
    refit = True if isinstance(scoring, str) else scoring[0]
    search = GridSearchCV(loop, {}, cv=2, scoring=scoring, refit=refit, n_jobs=n_jobs)
    with pytest.warns(UserWarning, match="_score takes missing_label=-1"):
        search.fit(X_DIGITS, partly_labelled())


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("scoring", [None, lambda loop, X, y: loop.score(X, y)])
def test_scoring_that_skips_marks_is_not_warned_of(n_jobs, scoring):
    y, loop = partly_labelled(), make_loop(n_rounds=1, classes=range(10))
    if n_jobs:  # a lambda cannot be pickled
        scoring = None
    found = cross_val_score(loop, X_DIGITS, y, cv=2, scoring=scoring, n_jobs=n_jobs)
    for score, (train, test) in zip(
        found, StratifiedKFold(2).split(X_DIGITS, y), strict=True
    ):
        loop.fit(X_DIGITS[train], y[train])
        known = test[y[test] >= 0]
        assert score == (loop.predict(X_DIGITS[known]) == y[known]).mean()
    cross_val_score(loop, X_DIGITS, Y_DIGITS, cv=2, scoring="accuracy")


def test_inside_a_pipeline():
    pipe = make_pipeline(MinMaxScaler(), make_loop(make_net(), BadgeQuery()))
    pipe.fit(X_DIGITS, Y_DIGITS)
    assert pipe.score(X_DIGITS, Y_DIGITS) == pipe[-1].score(
        pipe[0].transform(X_DIGITS), Y_DIGITS
    )


def test_test_rows_pass_through_an_outer_pipeline():
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        loop = make_loop(n_rounds=1).set_fit_request(X_test=True, y_test=True)
        pipe = Pipeline(
            [("scale", StandardScaler()), ("loop", loop)], transform_input=["X_test"]
        )
        X_test, y_test = X_DIGITS[300:] * 100, Y_DIGITS[300:]
        pipe.fit(X_DIGITS[:300] * 100, Y_DIGITS[:300], X_test=X_test, y_test=y_test)
        last = pipe["loop"].history_["test_score"][-1]
        assert last == pipe.score(X_test, y_test)


def test_sample_weight_is_routed_and_cut():
    import sklearn

    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            seen.append((len(X), sample_weight.copy()))
            return super().fit(X, y, sample_weight)

    weight = np.arange(400.0)
    with sklearn.config_context(enable_metadata_routing=True):
        spy = Spy().set_fit_request(sample_weight=True)
        loop = make_loop(spy, n_rounds=1).fit(X_DIGITS, Y_DIGITS, sample_weight=weight)
    assert [n for n, _ in seen] == [10, 15]
    assert (seen[1][1] == np.sort(loop.labeled_indices_)).all()
    with pytest.raises(ValueError, match="metadata"):
        make_loop().fit(X_DIGITS, Y_DIGITS, sample_weight=weight)


def test_clone_and_pickle():
    loop = make_loop(make_net(), BadgeQuery()).fit(X_DIGITS, Y_DIGITS)
    copy = pickle.loads(pickle.dumps(loop))
    assert (copy.predict_proba(X_DIGITS) == loop.predict_proba(X_DIGITS)).all()
    again = clone(loop).fit(X_DIGITS, Y_DIGITS)
    assert (again.predict_proba(X_DIGITS) == loop.predict_proba(X_DIGITS)).all()
    assert type(loop.estimator) is NeuralNetClassifier
    assert isinstance(loop.estimator_, NeuralNetClassifier)
    assert not loop.estimator.initialized_ and "classes_inferred_" not in vars(
        loop.estimator
    )


def test_delegation_follows_the_estimator():
    loop = make_loop(RidgeClassifier(), RandomQuery())
    assert not hasattr(loop, "predict_proba") and hasattr(loop, "decision_function")
    loop.fit(X_DIGITS, Y_DIGITS)
    assert loop.decision_function(X_DIGITS).shape == (400, 10)
    assert not hasattr(make_loop(make_net()), "decision_function")
    with pytest.raises(NotFittedError):
        make_loop().predict(X_DIGITS)


@pytest.mark.parametrize("estimator", [None, make_net(), SVC(), RidgeClassifier()])
def test_unseen_classes_have_columns(estimator):
    loop = make_loop(
        estimator, RandomQuery(), initial=[0, 1, 2, 3], n_rounds=0, classes=range(10)
    ).fit(X_DIGITS, Y_DIGITS)
    seen = set(Y_DIGITS[:4])
    if hasattr(loop, "predict_proba"):
        proba = loop.predict_proba(X_DIGITS)
        assert proba.shape == (400, 10)
        np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    else:
        decision = loop.decision_function(X_DIGITS)
        assert decision.shape == (400, 10) and np.isfinite(decision).all()
        assert set(decision.argmax(1)) <= seen
    assert set(loop.predict(X_DIGITS)) <= set(range(10))


def test_more_outputs_than_classes():
    """A person has shown four classes so far; the net has ten outputs."""
    y = np.where(Y_DIGITS < 4, Y_DIGITS, -1)
    loop = make_loop(make_net(), EntropyQuery()).fit(X_DIGITS, y)
    assert loop.predict_proba(X_DIGITS).shape == (400, 4)
    np.testing.assert_allclose(loop.predict_proba(X_DIGITS).sum(1), 1, rtol=1e-5)
    assert set(loop.predict(X_DIGITS)) <= {0, 1, 2, 3}


def test_binary_net(training_seed, margin):
    X, y = load_iris(return_X_y=True)
    X, y = X[y != 2].astype(np.float32), np.where(y[y != 2] == 1, "yes", "no")

    net = NeuralNetBinaryClassifier(
        SmallNet,
        module__n_classes=1,
        module__n_inputs=4,
        max_epochs=20,
        lr=0.1,
        verbose=0,
    )
    loop = make_loop(net, BadgeQuery(), initial="balanced")
    loop.set_params(random_state=training_seed).fit(X, y)
    assert loop.predict_proba(X).shape == (100, 2)
    margin("accuracy", loop.score(X, y), above=0.9)
    assert set(loop.predict(X)) == {"yes", "no"}


def test_callbacks_see_the_rounds():
    callback = pytest.importorskip("sklearn.callback")
    tasks = []

    class Count:
        def setup(self, estimator, context):
            tasks.append("setup")

        def on_fit_task_begin(self, estimator, context):
            tasks.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator, context):
            tasks.append(f"end {context.task_name}")
            return context.task_name == "round" and len(tasks) > 5

        def teardown(self, estimator, context):
            tasks.append("teardown")

    assert isinstance(Count(), callback.FitCallback)
    loop = make_loop(n_rounds=9).set_callbacks(Count()).fit(X_DIGITS, Y_DIGITS)
    assert tasks == (
        ["setup", "begin fit"]
        + ["begin round", "end round"] * 2
        + ["end fit", "teardown"]
    )
    assert loop.termination_condition_ == "callback"
    loop = make_loop(make_net(), n_rounds=1).set_callbacks(callback.ProgressBar())
    loop.fit(X_DIGITS, Y_DIGITS)


def test_verbose_prints_a_line_a_round(capsys):
    make_loop(n_rounds=2, verbose=1).fit(X_DIGITS, Y_DIGITS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "15 labels" in lines[1]


def test_inputs_and_global_generators_are_left_alone():
    X, y = X_DIGITS.copy(), Y_DIGITS.copy()
    np.random.seed(5)
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    loop = make_loop(make_net(), BadgeQuery(), random_state=None)
    loop.fit(X, y, X_test=X, y_test=y).predict(X)
    loop.score(X, y)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (X == X_DIGITS).all() and (y == Y_DIGITS).all()


# -- bad input ----------------------------------------------------------------------

NAN_ROWS = X_DIGITS.copy()
NAN_ROWS[3, 3] = np.nan


@pytest.mark.parametrize(
    "options, X, y, message",
    [
        ({}, X_DIGITS, Y_DIGITS[:-1], "inconsistent numbers of samples"),
        ({"classes": [0, 1, 2]}, X_DIGITS, Y_DIGITS, r"outside classes \[0, 1, 2\]"),
        ({"classes": [3]}, X_DIGITS, Y_DIGITS, "at least two classes"),
        ({"classes": [-1, 0]}, X_DIGITS, Y_DIGITS, "missing_label"),
        ({}, X_DIGITS, np.zeros(400, int), "at least two classes"),
        ({}, NAN_ROWS, Y_DIGITS, "NaN"),
        ({"estimator": make_net()}, NAN_ROWS, Y_DIGITS, "NaN"),
        ({"batch_size": 0}, X_DIGITS, Y_DIGITS, "batch_size"),
        ({"n_rounds": -1}, X_DIGITS, Y_DIGITS, "n_rounds"),
        ({"n_initial": 1.5}, X_DIGITS, Y_DIGITS, "n_initial"),
        ({"strategy": LeastConfidenceQuery}, X_DIGITS, Y_DIGITS, "strategy"),
        ({"strategy": BadgeQuery(first="foo")}, X_DIGITS, Y_DIGITS, "'first'"),
        ({"initial": RandomQuery(random_state=-1)}, X_DIGITS, Y_DIGITS, "random_state"),
        ({"initial": [1, 1]}, X_DIGITS, Y_DIGITS, "initial must hold distinct"),
        ({"initial": [400]}, X_DIGITS, Y_DIGITS, "between 0 and 399"),
        ({"oracle": len}, X_DIGITS, Y_DIGITS, "y is complete"),
        ({"oracle": "ask", "initial": "balanced"}, X_DIGITS, Y_DIGITS, "balanced"),
        ({}, X_DIGITS, None, "requires y"),
        ({}, X_DIGITS, Y_DIGITS + 0.5, "continuous"),
        ({}, X_DIGITS, [None, *Y_DIGITS[1:]], "missing_label"),
        ({}, X_DIGITS, np.array(["a", *Y_DIGITS[1:]], dtype=object), "mixes labels"),
    ],
)
def test_bad_input_is_named_before_any_fit(options, X, y, message):
    options = dict(options)
    estimator = options.pop("estimator", None)

    class Bomb(LogisticRegression):
        def fit(self, X, y):
            raise AssertionError("trained before the input was checked")

    loop = make_loop(Bomb() if estimator is None else estimator, **options)
    with pytest.raises((TypeError, ValueError), match=message):
        loop.fit(X, y)


def test_bad_test_rows():
    for kwargs, message in (
        ({"X_test": X_DIGITS}, "y_test"),
        ({"y_test": Y_DIGITS}, "X_test"),
        ({"X_test": X_DIGITS, "y_test": Y_DIGITS + 5}, "y_test holds labels outside"),
        ({"X_test": X_DIGITS[:9], "y_test": Y_DIGITS}, "inconsistent"),
        ({"X_test": X_DIGITS[:, :9], "y_test": Y_DIGITS}, "features"),
    ):
        with pytest.raises(ValueError, match=message):
            make_loop().fit(X_DIGITS, Y_DIGITS, **kwargs)


def test_regressor_is_refused():
    from sklearn.linear_model import Ridge

    with pytest.raises(ValueError, match="classifier"):
        make_loop(Ridge()).fit(X_DIGITS, Y_DIGITS)


def test_unknown_embedding_layer_is_named():
    loop = make_loop(make_net(), BadgeQuery(), embedding_layer="fc9")
    with pytest.raises(ValueError, match="embedding_layer='fc9'.*hidden"):
        loop.fit(X_DIGITS, Y_DIGITS)


def test_precision_is_that_of_the_pool():
    views = []

    class Looks(BadgeQuery):
        def _query(self, pool, n_samples, rng):
            views.append(pool)
            return super()._query(pool, n_samples, rng)

    loop = make_loop(make_net(), Looks(), n_rounds=1, precision="bfloat16")
    loop.fit(X_DIGITS, Y_DIGITS)
    assert [view.precision for view in views] == ["bfloat16"]
    assert views[0].embeddings.dtype == torch.float32
    with pytest.raises(ValueError, match="'precision' parameter of ActiveLearningLoop"):
        make_loop(make_net(), Looks(), precision="half").fit(X_DIGITS, Y_DIGITS)


@pytest.mark.gpu
def test_loop_on_a_gpu():
    loop = make_loop(make_net(device="cuda"), BadgeQuery()).fit(X_DIGITS, Y_DIGITS)
    again = make_loop(make_net(device="cuda"), BadgeQuery()).fit(X_DIGITS, Y_DIGITS)
    assert (loop.labeled_indices_ == again.labeled_indices_).all()


# -- found by new users -------------------------------------------------------------


def test_oracle_answers_keep_their_length_and_type():
    """They were cut to the type of y: 'category' became 'cat'."""
    names = np.array([f"class number {k}" for k in Y_DIGITS])
    for blank, mark in (("", ""), (-1, -1), (None, None)):
        y = np.full(400, blank, dtype=object if blank is None else None)
        loop = make_loop(
            oracle=lambda rows: names[rows], missing_label=mark, initial="uniform"
        )
        with pytest.warns(UserWarning, match="Pass all classes"):
            loop.fit(X_DIGITS, y)
        bought = loop.labeled_indices_
        assert (loop.transduction_[bought] == names[bought]).all()
        assert set(loop.predict(X_DIGITS)) <= set(names)
    y = np.full(400, -1, dtype=np.int8)
    loop = make_loop(oracle=lambda rows: Y_DIGITS[rows] + 500, n_rounds=0)
    loop.fit(X_DIGITS, y)
    assert loop.classes_.min() >= 500


def test_good_answers_beside_a_bad_one_are_booked():
    def oracle(rows):
        return [None if row == rows[3] else Y_DIGITS[row] for row in rows]

    loop = make_loop(oracle=oracle)
    with pytest.raises(ValueError, match="answered None.*missing_label=-1"):
        loop.fit(X_DIGITS)
    assert len(loop.labeled_indices_) == 9


@pytest.mark.parametrize("mark", [-1, None, np.nan])
@pytest.mark.parametrize("answer", [-1, None, np.nan])
def test_answers_that_numpy_turned_into_text(mark, answer):
    """One mark in an array of names is the name of a class, silently."""
    if answer == -1 and mark != -1:
        pytest.skip("-1 is a mark of nothing there")

    def oracle(rows):
        return np.array([answer, *(f"class {Y_DIGITS[row]}" for row in rows[1:])], str)

    loop = make_loop(oracle=oracle, missing_label=mark)
    with pytest.raises(ValueError, match=f"answered '{answer}'.*belongs in `classes`"):
        loop.fit(X_DIGITS)
    assert len(loop.labeled_indices_) == 9


@pytest.mark.parametrize(
    "answer",
    [lambda rows: None, lambda rows: 3, lambda rows: {}, lambda rows: rows[:, None]],
)
def test_answers_that_are_no_list_are_named(answer):
    with pytest.raises(TypeError, match="oracle must answer"):
        make_loop(oracle=answer).fit(X_DIGITS)
    with pytest.raises(ValueError, match="9 answers to 10 rows"):
        make_loop(oracle=lambda rows: Y_DIGITS[rows][1:]).fit(X_DIGITS)


def test_test_rows_before_any_class_is_known():
    loop = make_loop(oracle=lambda rows: Y_DIGITS[rows], initial="uniform")
    with pytest.warns(UserWarning, match="Pass all classes"):
        loop.fit(X_DIGITS, X_test=X_DIGITS, y_test=Y_DIGITS)
    assert len(loop.history_["test_score"]) == 3
    loop = make_loop(oracle="ask")
    loop.fit(X_DIGITS, np.full(400, -1), X_test=X_DIGITS, y_test=Y_DIGITS)
    assert len(loop.next_query_) == 10


class NoHead(SmallNet):
    def forward(self, x):
        return super().forward(x) * 2


class NotOne(SmallNet):
    def forward(self, x):
        return super().forward(x).sigmoid()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"estimator": make_net(module=NoHead)}, "embedding_layer"),
        ({"embedding_layer": "zz"}, "embedding_layer='zz'"),
        (
            {"estimator": make_net(module=NotOne, predict_nonlinearity=None)},
            "predict_nonlinearity",
        ),
        (
            {"estimator": make_net(criterion=nn.NLLLoss), "strategy": RandomQuery()},
            "CrossEntropyLoss",
        ),
        ({"estimator": make_net(module__n_classes=3)}, "3 outputs.*10 classes"),
        ({"scoring": "nonsense"}, "scoring"),
    ],
)
def test_what_cannot_work_is_said_before_a_label_is_bought(options, message):
    asked = []

    def oracle(rows):
        asked.append(rows)
        return Y_DIGITS[rows]

    options = {"estimator": make_net(), "strategy": BadgeQuery()} | options
    loop = make_loop(oracle=oracle, classes=range(10), **options)
    with pytest.raises(ValueError, match=message):
        loop.fit(X_DIGITS)
    assert not asked


def test_dataset_without_labels_can_be_asked_about():
    rows = Items(X_DIGITS, Y_DIGITS, pairs=False)
    loop = make_loop(make_net(), oracle="ask").fit(rows)
    assert len(loop.next_query_) == 10


def test_nets_that_are_no_multiclass_classifiers():
    binary = NeuralNetBinaryClassifier(SmallNet, module__n_classes=1, verbose=0)
    with pytest.raises(ValueError, match="NeuralNetClassifier"):
        make_loop(binary, RandomQuery()).fit(X_DIGITS, Y_DIGITS)
    with pytest.raises(ValueError, match="plain NeuralNet"):
        make_loop(NeuralNet(SmallNet, nn.CrossEntropyLoss)).fit(X_DIGITS, Y_DIGITS)


def test_frames_of_nullable_columns_reach_a_net():
    frame = pd.DataFrame(X_DIGITS.astype(np.float64)).convert_dtypes()
    frame.columns = [f"pixel {k}" for k in frame]
    loop = make_loop(make_net(), BadgeQuery()).fit(frame, Y_DIGITS)
    assert (loop.predict_proba(frame) == reference_proba()).all()


def test_sample_weight_is_cut_when_scoring_too():
    import sklearn

    weight = np.arange(1.0, 401)
    y = np.where(np.arange(400) < 100, Y_DIGITS, -1)
    with sklearn.config_context(enable_metadata_routing=True):
        inner = LogisticRegression().set_score_request(sample_weight=True)
        inner.set_fit_request(sample_weight=True)
        loop = make_loop(inner).fit(X_DIGITS, Y_DIGITS, sample_weight=weight)
        part = loop.score(X_DIGITS[:100], y[:100], sample_weight=weight[:100])
        assert loop.score(X_DIGITS, y, sample_weight=weight) == part
