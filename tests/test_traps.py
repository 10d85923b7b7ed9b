"""One test for each trap of the design that the loop handles."""

import random
import signal
import threading

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import default_collate

from skal import ActiveLearningLoop, BadgeQuery, MarginQuery, PoolView, RandomQuery

X, Y = load_digits(return_X_y=True)
X, Y = (X[:300] / 16).astype(np.float32), Y[:300]


class Net(nn.Module):
    def __init__(self, n_classes=10):
        super().__init__()
        self.hidden = nn.Linear(64, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.hidden(x))))


class BatchSpy:
    """A collate function that notes the label of every training row."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append([int(y) for _, y in batch])
        return default_collate(batch)

    def __deepcopy__(self, memo):  # clones report to the same list
        return self


def make_net(**kwargs):
    options = {
        "criterion": nn.CrossEntropyLoss,
        "lr": 0.1,
        "max_epochs": 2,
        "batch_size": 8,
        "verbose": 0,
    }
    return NeuralNetClassifier(Net, **(options | kwargs))


def make_loop(estimator, strategy=None, **kwargs):
    options = {"n_initial": 12, "batch_size": 4, "n_rounds": 1, "random_state": 0}
    strategy = BadgeQuery() if strategy is None else strategy
    return ActiveLearningLoop(estimator, strategy, **(options | kwargs))


def trained_rows(n_rounds=0, **kwargs):
    spy = BatchSpy()
    net = make_net(iterator_train__collate_fn=spy, max_epochs=1, **kwargs)
    make_loop(net, n_rounds=n_rounds).fit(X, Y)
    return spy.batches


def test_default_train_split_takes_scarce_labels():
    assert sum(map(len, trained_rows())) == 12
    kept = trained_rows(train_split=ValidSplit(3, stratified=False))
    assert sum(map(len, kept)) == 8
    watched = make_net(callbacks=[EarlyStopping(monitor="valid_loss", patience=1)])
    loop = make_loop(watched, initial="balanced", n_initial=100).fit(X, Y)
    assert "valid_loss" in loop.estimator_.history[-1]
    two_each = make_loop(make_net(), initial="balanced", n_initial=20).fit(X, Y)
    assert two_each.n_iter_ == 1


@pytest.mark.parametrize("estimator", [make_net(), LogisticRegression()])
def test_labels_lacking_a_class(estimator):
    names = np.array([f"n{k}" for k in Y])
    loop = make_loop(estimator, initial=np.flatnonzero(Y >= 7)[:12]).fit(X, names)
    assert loop.classes_.tolist() == [f"n{k}" for k in range(10)]
    proba = loop.predict_proba(X)
    assert proba.shape == (300, 10)
    assert (loop.predict(X) == loop.classes_[proba.argmax(1)]).all()


@pytest.mark.parametrize("estimator", [make_net(), LogisticRegression()])
def test_labels_of_odd_types(estimator):
    expected = make_loop(estimator).fit(X, Y).predict(X)
    for y in (
        np.array([f"n{k}" for k in Y]),
        np.array([f"n{k}" for k in Y], dtype=object),
        Y.astype(np.float64),
        Y.astype(np.int32),
        np.repeat(Y, 2)[::2],
        Y.tolist(),
    ):
        got = make_loop(estimator).fit(X, y).predict(X)
        kind = np.asarray(y).dtype
        assert got.dtype.kind == np.array(np.asarray(y).tolist()).dtype.kind, kind
        names = [str(k).removeprefix("n").removesuffix(".0") for k in got]
        assert names == [str(k) for k in expected]


def test_label_minus_100_is_not_ignored():
    shifted = np.where(Y == 3, -100, Y)
    loop = make_loop(make_net(max_epochs=20), batch_size=100).fit(X, shifted)
    assert (loop.predict(X) == -100).any()


def test_float64_and_integer_rows():
    plain = make_loop(make_net()).fit(X, Y)
    for rows in (X.astype(np.float64), (X * 16).astype(np.uint8), (X * 16).astype(int)):
        loop = make_loop(make_net()).fit(rows, Y)
        assert loop.predict_proba(rows).dtype == np.float32
    assert (
        make_loop(make_net()).fit(X.astype(float), Y).predict_proba(X)
        == plain.predict_proba(X)
    ).all()
    pipe = make_pipeline(StandardScaler(), make_net())
    make_loop(pipe).fit(X.astype(np.float64), Y).predict(X.astype(np.float64))


def test_last_batch_of_one_row():
    """17 rows in batches of 8 would end in one row, on which BatchNorm raises."""
    spy = BatchSpy()
    net = make_net(iterator_train__collate_fn=spy, max_epochs=1)
    make_loop(net, n_initial=17, n_rounds=0).fit(X, Y)
    assert [len(batch) for batch in spy.batches] == [8, 9]


def test_drop_last_with_too_few_rows():
    net = make_net(iterator_train__drop_last=True, batch_size=64)
    with pytest.raises(ValueError, match="drop_last.*batch_size=64.*12 rows"):
        make_loop(net).fit(X, Y)


def test_training_rows_are_shuffled():
    spy = BatchSpy()
    net = make_net(iterator_train__collate_fn=spy, max_epochs=2, batch_size=12)
    make_loop(net, n_rounds=0).fit(X, Y)
    first, second = spy.batches
    assert sorted(first) == sorted(second) and first != second
    assert len({tuple(b) for b in trained_rows(iterator_train__shuffle=False)}) == 2
    spy.batches.clear()
    net.set_params(iterator_train__shuffle=False)
    make_loop(net, n_rounds=0).fit(X, Y)
    assert spy.batches[0] == spy.batches[1]


class PressCtrlC(Callback):
    def on_epoch_end(self, net, **kwargs):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_not_swallowed():
    handler = signal.getsignal(signal.SIGINT)
    loop = make_loop(make_net(callbacks=[PressCtrlC()]))
    with pytest.raises(KeyboardInterrupt):
        loop.fit(X, Y)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(loop.labeled_indices_) == 12
    early = EarlyStopping(monitor="train_loss", patience=1, threshold=1e9)
    loop = make_loop(make_net(callbacks=[early], max_epochs=50)).fit(X, Y)
    assert len(loop.estimator_.history) < 50
    threads = []
    thread = threading.Thread(
        target=lambda: threads.append(make_loop(make_net()).fit(X, Y))
    )
    thread.start()
    thread.join()
    assert threads[0].n_iter_ == 1


def test_module_instance_is_warned_of():
    net = NeuralNetClassifier(
        Net(), criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    with pytest.warns(UserWarning, match="module is an instance"):
        make_loop(net).fit(X, Y)


@pytest.mark.parametrize(
    "estimator", [make_net(), RandomForestClassifier(3), LogisticRegression()]
)
def test_fits_leave_global_generators_alone(estimator):
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    loop = make_loop(estimator, random_state=None).fit(X, Y, X_test=X, y_test=Y)
    loop.predict(X)
    pool = PoolView(loop.estimator_, X)
    RandomQuery().query(pool, 3)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1][1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.manual_seed(99)
    seeded = [make_loop(estimator).fit(X, Y).predict_proba(X)]
    torch.manual_seed(100)
    np.random.seed(100)
    seeded.append(make_loop(estimator).fit(X, Y).predict_proba(X))
    assert (seeded[0] == seeded[1]).all()


def test_seeds_depend_on_the_number_of_labels_only():
    """Two ways to the same labels give bitwise the same model and the same picks."""
    loop = make_loop(make_net(), n_rounds=3).fit(X, Y)
    y = np.where(loop.labeled_iter_ >= 0, Y, -1)
    asked = make_loop(make_net(), classes=range(10)).fit(X, y)
    longer = make_loop(make_net(), n_rounds=4).fit(X, Y)
    assert (asked.predict_proba(X) == loop.predict_proba(X)).all()
    assert (asked.next_query_ == longer.labeled_indices_[-4:]).all()


def test_unfitted_forest_has_no_truth_value():
    with pytest.raises((AttributeError, TypeError)):
        bool(RandomForestClassifier())
    make_loop(RandomForestClassifier(3), warm_start=False).fit(X, Y)


def test_dok_array_is_a_dict():
    rows = sparse.dok_array(X)
    loop = make_loop(LogisticRegression()).fit(rows, Y)
    assert (
        loop.predict(rows) == make_loop(LogisticRegression()).fit(X, Y).predict(X)
    ).all()
    assert len(PoolView(loop.estimator_, rows).proba) == 300


def test_minus_one_as_class_and_as_mark():
    y = np.where(Y > 4, 1, -1)
    with pytest.raises(ValueError, match="missing_label=np.nan"):
        make_loop(LogisticRegression()).fit(X, y)
    loop = make_loop(LogisticRegression(), missing_label=None).fit(X, y)
    assert set(loop.predict(X)) == {-1, 1}
    asked = make_loop(LogisticRegression(), oracle="ask").fit(X, y)
    assert (y[asked.next_query_] == -1).all()


def test_one_class_initial_set():
    y = (np.arange(300) >= 280).astype(int)
    with pytest.warns(UserWarning, match="balanced"):
        loop = make_loop(make_net(), MarginQuery(), n_initial=3, initial="uniform")
        loop.fit(X, y)
    assert len(set(y[loop.labeled_iter_ == 0])) == 2


def test_label_outside_classes():
    with pytest.raises(ValueError, match=r"outside classes \[0, 1, 2\]: \[3"):
        make_loop(make_net(), classes=[0, 1, 2]).fit(X, Y)


def test_fewer_outputs_than_classes():
    with pytest.raises(ValueError, match="4 outputs.*10 classes"):
        make_loop(make_net(module__n_classes=4)).fit(X, Y)
    narrow = make_net(module__n_classes=4).fit(X[Y < 4], Y[Y < 4].astype(np.int64))
    with pytest.raises(ValueError, match="4 outputs.*10 classes"):
        PoolView(narrow, X, classes=range(10)).proba  # noqa: B018
