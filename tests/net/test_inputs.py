"""Networks see what skorch shows them: types, masks, columns, memory of any kind."""

import builtins
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import PrintLog
from torch import nn
from torch.utils.data import Dataset

from skal import ActiveLearningLoop, MarginQuery, PoolView, RandomQuery
from skal.net.inputs import cast_inputs
from skal.net.training import fit_isolated, private_clone
from skal.posterior import MCDropout

N, LENGTH = 40, 5
Named = namedtuple("Named", "first second")


def make_net(module, **params):
    options = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "lr": 0.1}
    options |= {"train_split": None, "verbose": 0} | params
    return NeuralNetClassifier(module, **options)


class Around:
    """Just enough of a net to cast for."""

    def __init__(self, module):
        self.module_ = module


def test_only_floats_of_another_width_are_cast():
    double, ints = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.int64)
    linear = Around(nn.Linear(2, 1))
    assert cast_inputs(double, linear).dtype == torch.float32
    assert cast_inputs(ints, linear) is ints
    assert cast_inputs(ints > 0, linear).dtype == torch.bool
    assert cast_inputs(double, Around(nn.Linear(2, 1).bfloat16())).dtype == (
        torch.bfloat16
    )
    assert cast_inputs(double, Around(nn.ReLU())) is double
    same = torch.ones(2)
    assert cast_inputs(same, linear) is same
    two = Around(nn.Sequential(nn.Linear(2, 1).double(), nn.Linear(2, 1)))
    assert cast_inputs(same, two) is same and cast_inputs(double, two) is double
    nested = cast_inputs({"a": [double, (ints,)], "b": Named(double, "text")}, linear)
    assert nested["a"][0].dtype == torch.float32
    assert nested["a"][1][0] is ints
    assert nested["b"].first.dtype == torch.float32
    assert nested["b"].second == "text"


# -- the log --------------------------------------------------------------------------


def test_the_log_is_printed_where_it_is_wanted(capsys):
    X, y = np.eye(6, dtype=np.float32), np.arange(6) % 2
    net = private_clone(make_net(nn.Linear, verbose=1, module__in_features=6), 2)
    net.set_params(module__out_features=2)
    fit_isolated(net, X, y, 0)
    printed = capsys.readouterr().out
    assert "train_loss" in printed and len(printed.splitlines()) == 4
    lines = []
    net.set_params(verbose=0)
    fit_isolated(net, X, y, 0)
    net.set_params(callbacks__print_log__sink=lines.append)
    fit_isolated(net, X, y, 0)
    assert capsys.readouterr().out == ""
    assert "train_loss" in lines[0] and len(lines) == 4


@pytest.mark.parametrize("other_print", [False, True])
def test_no_table_is_made_for_nobody(monkeypatch, other_print):
    monkeypatch.setattr(PrintLog, "table", None)
    if other_print:  # as ray has one, in every process that it was started in
        given = builtins.print
        monkeypatch.setattr(builtins, "print", lambda *args, **kw: given(*args, **kw))
    X, y = np.eye(6, dtype=np.float32), np.arange(6) % 2
    given = {"module__in_features": 6, "module__out_features": 2}
    net = private_clone(make_net(nn.Linear, **given), 2)
    assert len(fit_isolated(net, X, y, 0).history) == 2


# -- integers and booleans ------------------------------------------------------------


class Attention(nn.Module):
    """A mask of booleans hides places; one of floats would be added to the scores."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x, hidden):
        z, _ = self.attention(x, x, x, key_padding_mask=hidden)
        return self.head((z * ~hidden[..., None]).sum(1))


class Last(nn.Module):
    """Takes the state at the last place of each sequence by its length."""

    def __init__(self):
        super().__init__()
        self.body = nn.GRU(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x, hidden):
        states, _ = self.body(x)
        return self.head(states[torch.arange(len(x)), (~hidden).sum(1) - 1])


class OneHot(nn.Module):
    """Looks numbers up without an nn.Embedding."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(7 * LENGTH, 2)

    def forward(self, x):
        assert not x.is_floating_point()
        return self.head(nn.functional.one_hot(x.long(), 7).flatten(1).float())


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Dropout(0.2), nn.BatchNorm1d(LENGTH))
        self.head = nn.Linear(LENGTH, 2)

    def forward(self, x):
        assert x.is_floating_point()
        return self.head(self.body(x))


class Sequences(Dataset):
    """Sequences of several lengths; `padding` stands behind their ends."""

    def __init__(self, padding=0.0, labels=False):
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((N, LENGTH, 3))
        self.hidden = np.arange(LENGTH) >= rng.integers(2, LENGTH, N)[:, None]
        self.x[self.hidden] = padding
        self.y = (self.x[:, 0, 0] > 0).astype(np.int64)
        self.labels = labels

    def __len__(self):
        return N

    def __getitem__(self, row):
        x = {"x": self.x[row].astype(np.float32), "hidden": self.hidden[row]}
        return (x, self.y[row]) if self.labels else x


@pytest.mark.parametrize("module", [Attention, Last])
def test_padding_plays_no_part_under_a_mask(module):
    runs = []
    for padding in (0.0, 50.0):
        rows = Sequences(padding)
        loop = ActiveLearningLoop(
            make_net(module), MarginQuery(), n_rounds=2, random_state=0
        ).fit(rows, rows.y)
        runs.append((loop.predict_proba(rows), loop.labeled_indices_))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("module", [Attention, Last])
def test_a_pool_view_of_the_users_net_equals_its_predict_proba(module):
    rows = Sequences(50.0, labels=True)
    net = make_net(module, classes=[0, 1]).fit(rows, None)
    before = vars(net).copy()
    proba = PoolView(net, rows).proba
    np.testing.assert_array_equal(proba, net.predict_proba(rows))
    assert vars(net).keys() == before.keys()


def counts(dtype=np.int64):
    X = np.random.default_rng(0).integers(0, 7, (N, LENGTH)).astype(dtype)
    return X, (X[:, 0] > 3).astype(np.int64)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_reach_a_network_that_takes_them(dtype):
    X, y = counts(dtype)
    probas = [
        ActiveLearningLoop(make_net(OneHot), MarginQuery(), n_rounds=1, random_state=0)
        .fit(rows, y)
        .predict_proba(rows)
        for rows in (X, pd.DataFrame(X, columns=list("abcde")), torch.from_numpy(X))
    ]
    np.testing.assert_array_equal(probas[0], probas[1])
    np.testing.assert_array_equal(probas[0], probas[2])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_are_floats_to_a_network_that_takes_none(dtype):
    """Nor does finding out change a bit, under dropout and BatchNorm."""
    X, y = counts(dtype)
    nets = [
        fit_isolated(private_clone(make_net(Dense), 2), rows, y, 0)
        for rows in (X, X.astype(np.float32))
    ]
    for mine, its in zip(*(n.module_.state_dict().values() for n in nets), strict=True):
        assert torch.equal(mine, its)
    np.testing.assert_array_equal(nets[0].predict_proba(X), nets[1].predict_proba(X))
    view = PoolView(nets[0], X)
    np.testing.assert_array_equal(view.proba, nets[0].predict_proba(X))


def test_integers_of_a_pipeline():
    X, y = counts()
    for dtype in (np.int64, np.float64):
        encoder = OrdinalEncoder(categories=[list("0123456")] * LENGTH, dtype=dtype)
        pipe = make_pipeline(encoder, make_net(Dense))
        loop = ActiveLearningLoop(pipe, MarginQuery(), n_rounds=1, random_state=0)
        assert loop.fit(X.astype(str), y).predict_proba(X.astype(str)).shape == (N, 2)


def test_another_module_is_tried_anew():
    X, y = counts()
    net = private_clone(make_net(Dense), 2).fit(X, y)
    assert net.casts_integers_
    net.set_params(module=OneHot).fit(X, y)
    assert not net.casts_integers_


# -- containers and memory ------------------------------------------------------------


class Columns(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, a, b, c=None):
        return self.head(torch.cat([a, b, b if c is None else c], 1))


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(x.flatten(1))


def table(n_columns=6):
    X = np.random.default_rng(0).standard_normal((N, n_columns))
    return X, (X[:, 0] > 0).astype(np.int64)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # skorch
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_columns_that_forward_names(names):
    X, y = table(len(names))
    frame = pd.DataFrame(X.astype(np.float32), columns=list(names))
    net = fit_isolated(private_clone(make_net(Columns), 2), frame, y, 0)
    plain = make_net(Columns, classes=[0, 1]).initialize()
    plain.module_.load_state_dict(net.module_.state_dict())
    np.testing.assert_array_equal(net.predict_proba(frame), plain.predict_proba(frame))
    for rows in (frame, frame.astype(float)):  # float64 is cast
        loop = ActiveLearningLoop(
            make_net(Columns), MarginQuery(), n_rounds=1, random_state=0
        ).fit(rows, y)
        view = PoolView(loop.estimator_, rows)
        np.testing.assert_array_equal(view.proba, loop.predict_proba(rows))


def test_other_columns_are_one_array_also_behind_a_scaler():
    X, y = table()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    expected = None
    for scaler in (
        StandardScaler(),
        StandardScaler().set_output(transform="pandas"),
    ):
        pipe = make_pipeline(scaler, make_net(Flat))
        loop = ActiveLearningLoop(pipe, MarginQuery(), n_rounds=1, random_state=0)
        proba = loop.fit(frame, y).predict_proba(frame)
        expected = proba if expected is None else expected
        np.testing.assert_array_equal(proba, expected)
    pipe = make_pipeline("passthrough", make_net(Flat))
    ActiveLearningLoop(pipe, MarginQuery(), n_rounds=1).fit(frame, y).score(frame, y)


def _read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


@pytest.mark.parametrize(
    "held",
    [
        lambda X: X[:, ::-1].copy()[:, ::-1],
        lambda X: np.flip(np.flip(X, 0).copy(), 0),
        lambda X: X.astype(X.dtype.newbyteorder("S")),
        _read_only,
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
        lambda X: torch.from_numpy(X).requires_grad_(),
        lambda X: sparse.csr_array(X),
    ],
    ids="flipped rows-flipped swapped read-only fortran strided grad csr".split(),
)
def test_memory_of_any_kind_gives_the_same_bits(held):
    X, y = table()
    X = X.astype(np.float32)

    def run(rows):
        loop = ActiveLearningLoop(
            make_net(Flat), RandomQuery(), n_rounds=1, random_state=0
        ).fit(rows, y, X_test=rows, y_test=y)
        return loop.predict_proba(rows)

    np.testing.assert_array_equal(run(held(X)), run(X))


class Flipped(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, row):
        return table()[0].astype(np.float32)[row, ::-1]


def test_items_with_negative_strides():
    X, y = table()
    X = np.ascontiguousarray(X[:, ::-1], dtype=np.float32)
    loops = [
        ActiveLearningLoop(
            make_net(Flat), MarginQuery(), n_rounds=1, random_state=0
        ).fit(rows, y)
        for rows in (Flipped(), X)
    ]
    np.testing.assert_array_equal(*(loop.predict_proba(X) for loop in loops))


class Dropping(Dense):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.head(self.drop(self.body(x)))


def test_draws_of_the_users_net_under_integers():
    """The net is found to need floats before the masks are in place."""
    X, y = counts()
    net = make_net(Dropping).fit(X.astype(np.float32), y)
    draws = [
        PoolView(net, rows, random_state=0).sample_proba(MCDropout(3))
        for rows in (X, X.astype(np.float32))
    ]
    assert torch.equal(*draws)
    assert not hasattr(net, "casts_integers_")


def test_a_view_sees_a_net_that_is_fitted_later():
    X, y = counts(np.float32)
    net = make_net(Dense)
    view = PoolView(net, X)
    net.fit(X, y)
    np.testing.assert_array_equal(view.proba, net.predict_proba(X))
