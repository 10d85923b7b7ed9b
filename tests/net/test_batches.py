"""Loaders of the private net: batches, order and generators of a DataLoader."""

import numpy as np
import pytest
import torch
from scipy import sparse
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import (
    DataLoader,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from skal.net.batches import BatchLoader, TrainLoader
from skal.net.training import fit_isolated, private_clone

N = 23
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 4)).astype(np.float32)
Y = np.arange(N) % 3


class RowByRow(TrainLoader):
    """What TrainLoader was before it took batches at once."""

    __iter__ = DataLoader.__iter__


@pytest.fixture
def at_once(monkeypatch):
    """Fail where a loader fetches row by row."""

    def refuse(self):
        raise AssertionError("row by row")

    monkeypatch.setattr(DataLoader, "__iter__", refuse)


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
        return
    assert one.dtype == other.dtype and one.stride() == other.stride()
    assert torch.equal(one, other)


# -- batches at once ------------------------------------------------------------------

PARTS = {
    "float32": X,
    "float64": X.astype(float),
    "integers": RNG.integers(9, size=(N, 2, 3), dtype=np.uint8),
    "booleans": X > 0,
    "one number a row": X[:, 0].copy(),
    "columns in a row": np.asfortranarray(X),
    "every other row": np.repeat(X, 2, axis=0)[::2],
    "read-only": np.frombuffer(X.tobytes(), np.float32).reshape(N, 4),
    "tensor": torch.from_numpy(X),
    "turned tensor": torch.from_numpy(X.T.copy()).T,
    "sparse": sparse.csr_matrix(np.where(X > 0, X, 0)),
    "one sparse column": sparse.csr_matrix(X[:, :1]),
    "dict": {"x": X, "weight": torch.arange(N), "mask": X[:, 0] > 0},
    "SliceDict": SliceDict(b=X, a=Y),
}


# Of torch's own DataLoader, with older versions of NumPy.
@pytest.mark.filterwarnings("ignore:In future, it will be an error for 'np.bool_'")
@pytest.mark.parametrize("y", [Y, Y.astype(np.float32), torch.from_numpy(Y), None])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_batches_are_those_of_a_data_loader(part, y, monkeypatch):
    dataset = Dataset(PARTS[part], y)
    results = []
    for loader_class in (DataLoader, BatchLoader):
        if loader_class is BatchLoader:
            monkeypatch.setattr(DataLoader, "__iter__", None)
        torch.manual_seed(1)
        loader = loader_class(dataset, batch_size=5, shuffle=True)
        batches = [batch for _ in range(2) for batch in loader]
        results.append((batches, torch.get_rng_state()))
    (batches, state), (expected, state_expected) = results
    assert len(batches) == 10
    assert_same(batches, expected)
    assert torch.equal(state, state_expected)


def test_batches_of_parts_of_parts(at_once):
    inner = Subset(Dataset(X, Y), np.arange(3, N))
    loader = BatchLoader(Subset(inner, [4, 0, 1]), batch_size=2)
    x, y = next(iter(loader))
    assert np.array_equal(x, X[[7, 3]]) and y.tolist() == [1, 0]


def test_a_generator_of_the_user_draws_what_it_would():
    states = []
    for loader_class in (DataLoader, BatchLoader):
        generator = torch.Generator().manual_seed(3)
        before = torch.get_rng_state()
        loader = loader_class(Dataset(X, Y), 5, shuffle=True, generator=generator)
        first = next(iter(loader))[0]
        states.append((first, generator.get_state()))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])


def test_batches_follow_what_a_callback_does_to_the_rows(at_once):
    dataset = Dataset(X.copy(), Y)
    loader = BatchLoader(dataset, batch_size=N)
    first = next(iter(loader))[0]
    first.zero_()
    assert np.array_equal(dataset.X, X)
    dataset.X = dataset.X + 1
    assert np.array_equal(next(iter(loader))[0], X + 1)


class Doubled(Dataset):
    """A dataset of the user, that changes rows."""

    def transform(self, X, y):
        return super().transform(2 * X, y)


def test_what_is_not_plain_comes_row_by_row():
    loader = BatchLoader(Doubled(X, Y), batch_size=N)
    assert np.array_equal(next(iter(loader))[0], 2 * X)
    loader = BatchLoader(
        Dataset(X, Y), N, collate_fn=lambda rows: default_collate(rows[::-1])
    )
    assert np.array_equal(next(iter(loader))[0], X[::-1])
    assert len([*BatchLoader(Dataset(X, Y), batch_size=None)]) == N
    pair = [X, Y]  # a list of parts
    (x, again), y = next(iter(BatchLoader(Dataset(pair, Y), batch_size=N)))
    assert np.array_equal(x, X) and np.array_equal(again, y)
    texts = np.array(["a"] * N)
    x, y = next(iter(BatchLoader(Dataset(texts, Y), batch_size=2)))
    assert list(x) == ["a", "a"]
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(X)  # of which a row is a matrix
    x, y = next(iter(BatchLoader(Dataset(matrix, Y), batch_size=N)))
    assert x.shape == (N, 1, 4)


# -- fits -----------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)
        )

    def forward(self, x, weight=None):
        return self.inner(x.float())


class Weighted(NeuralNetClassifier):
    """Weighs rows by a part of its input."""

    def get_loss(self, y_pred, y_true, X=None, training=False):
        losses = nn.functional.cross_entropy(y_pred, y_true, reduction="none")
        return (losses * X["weight"]).mean()


class OwnStep(NeuralNetClassifier):
    """Trains on every batch twice."""

    def train_step(self, batch, **fit_params):
        super().train_step(batch, **fit_params)
        return super().train_step(batch, **fit_params)


class Batches(Callback):
    """Keeps the batches that it is shown, and adds to them."""

    def on_train_begin(self, net, **kwargs):
        self.seen = []

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        self.seen.append([training, batch[0].clone(), batch[1].clone()])
        batch[0].add_(torch.rand(()))


WEIGHTED = SliceDict(x=X, weight=np.linspace(0, 1, N, dtype=np.float32))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize(
    ("net_class", "rows", "params"),
    [
        (NeuralNetClassifier, X, {}),
        (NeuralNetClassifier, X, {"batch_size": 11}),  # the last row joins
        (NeuralNetClassifier, X, {"batch_size": -1}),
        (NeuralNetClassifier, X.astype(float), {"iterator_train__drop_last": True}),
        (NeuralNetClassifier, torch.from_numpy(X), {"iterator_train__shuffle": False}),
        (
            NeuralNetClassifier,
            X,
            {"iterator_train__sampler": WeightedRandomSampler(np.arange(1.0, N), 15)},
        ),
        (NeuralNetClassifier, X, {"train_split": ValidSplit(0.3, random_state=0)}),
        (NeuralNetClassifier, X, {"callbacks": [("seen", Batches())]}),
        (Weighted, WEIGHTED, {}),
        (OwnStep, sparse.csr_matrix(X), {}),
    ],
)
def test_a_fit_is_bitwise_what_it_is_row_by_row(net_class, rows, params, optimizer):
    net = net_class(
        Net,
        criterion=nn.CrossEntropyLoss,
        optimizer=optimizer,
        **{"batch_size": 5, "max_epochs": 4, "lr": 0.05, "verbose": 0} | params,
    )
    nets = []
    for train, valid in ((TrainLoader, BatchLoader), (RowByRow, DataLoader)):
        private = private_clone(net, 3)
        assert private.iterator_train is TrainLoader
        assert private.iterator_valid is BatchLoader
        private.set_params(iterator_train=train, iterator_valid=valid)
        states = []
        private.on_train_end = lambda *_, s=states, **__: s.append(
            torch.get_rng_state()
        )
        fit_isolated(private, rows, Y, 7)
        nets.append((private, states))
    (net, (state,)), (other, (other_state,)) = nets
    weights, expected = net.module_.state_dict(), other.module_.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert torch.equal(state, other_state)
    for epoch, told in zip(net.history, other.history, strict=True):
        del epoch["dur"], told["dur"]
        assert epoch == told
    assert np.array_equal(net.predict_proba(rows), other.predict_proba(rows))
    seen, expected = (dict(n.callbacks_).get("seen") for n in (net, other))
    if seen is not None:
        assert len(seen.seen) == 4 * 5
        assert_same([b[1:] for b in seen.seen], [b[1:] for b in expected.seen])


@pytest.mark.parametrize("split", [None, ValidSplit(0.3)])
def test_a_private_net_fits_and_predicts_at_once(split, at_once):
    net = NeuralNetClassifier(
        Net, criterion=nn.CrossEntropyLoss, train_split=split, verbose=0, max_epochs=1
    )
    net = fit_isolated(private_clone(net, 3), X, Y, 0)
    assert net.predict(X).shape == (N,)


# -- batches for few labels -----------------------------------------------------------


def sizes(loader):
    return [len(x) for x, y in loader]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size", "expected"),
    [
        (9, 4, [4, 5]),
        (5, 4, [5]),
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (4, 4, [4]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
        (7, 2, [2, 2, 3]),
        (513, 128, [128, 128, 128, 129]),
    ],
)
def test_a_last_single_row_joins_the_batch_before(n, batch_size, expected, shuffle):
    dataset = TensorDataset(torch.arange(n), torch.arange(n))
    loader = TrainLoader(dataset, batch_size=batch_size, shuffle=shuffle)
    for _ in range(2):
        assert sizes(loader) == expected
    assert len(loader) == len(expected)
    seen = torch.cat([x for x, y in loader])
    assert sorted(seen.tolist()) == list(range(n))
    if not shuffle:
        assert seen.tolist() == list(range(n))


def test_joined_batches_come_in_the_order_of_a_data_loader():
    dataset = TensorDataset(torch.arange(9), torch.arange(9))
    orders = []
    for loader_class in (DataLoader, TrainLoader):
        generator = torch.Generator().manual_seed(3)
        loader = loader_class(dataset, batch_size=4, shuffle=True, generator=generator)
        orders.append(torch.cat([x for x, y in loader]).tolist())
    assert orders[0] == orders[1] != sorted(orders[0])


@pytest.mark.parametrize(
    ("n_drawn", "expected"), [(9, [4, 5]), (8, [4, 4]), (5, [5]), (1, [1])]
)
def test_rows_are_counted_by_the_users_sampler(n_drawn, expected):
    dataset = TensorDataset(torch.arange(12), torch.arange(12))
    sampler = SubsetRandomSampler(range(n_drawn))
    loader = TrainLoader(dataset, batch_size=4, sampler=sampler)
    assert sizes(loader) == expected
    assert len(loader) == len(expected)


def test_options_of_the_user_pass():
    dataset = TensorDataset(torch.arange(9), torch.arange(9))
    collate = torch.utils.data.default_collate
    loader = TrainLoader(
        dataset, batch_size=4, collate_fn=lambda items: collate(items[:1])
    )
    assert sizes(loader) == [1, 1]
    loader = TrainLoader(dataset, batch_sampler=[[0], [1, 2]])
    assert sizes(loader) == [1, 2]
    assert len([*TrainLoader(dataset, batch_size=None)]) == 9


def test_drop_last():
    dataset = TensorDataset(torch.arange(9), torch.arange(9))
    assert sizes(TrainLoader(dataset, batch_size=4, drop_last=True)) == [4, 4]
    assert sizes(TrainLoader(dataset, batch_size=9, drop_last=True)) == [9]
    with pytest.raises(ValueError, match="batch_size=10 and 9 rows"):
        TrainLoader(dataset, batch_size=10, drop_last=True)
