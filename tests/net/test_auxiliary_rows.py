from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, TensorDataset

from skal import (
    ActiveLearningLoop,
    AsalQuery,
    LearningLossQuery,
    VaalQuery,
    WaalQuery,
)
from skal.models import MLP
from skal.net.auxiliary_rows import AuxiliaryRows, image_shape
from skal.utils.rows import DatasetRows

X = np.random.default_rng(0).random((3000, 5)) * [1, 1e-3, 1e6, 1, 0]


@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        torch.from_numpy,
        pd.DataFrame,
        sparse.csr_matrix,
        np.ndarray.tolist,
        lambda X: TensorDataset(torch.from_numpy(X), torch.zeros(len(X))),
        lambda X: DatasetRows(X, np.arange(len(X))),
    ],
)
def test_any_container_gives_the_same_rows(make):
    rows = AuxiliaryRows(make(X[:7]), make(X[7:12]))
    positions = [8, 0, 11, 7, 6]
    assert torch.equal(rows.numbers(positions), torch.from_numpy(X[positions]))
    assert rows.is_labeled.tolist() == [False] * 7 + [True] * 5
    assert rows.shape == rows.row_shape == (5,) and len(rows) == 12


def test_statistics_are_those_of_all_rows_at_once():
    mean, std, low, high = AuxiliaryRows(X[:2900], X[2900:]).statistics()
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, X.std(0), rtol=1e-12)
    np.testing.assert_array_equal(low, X.min(0))
    np.testing.assert_array_equal(high, X.max(0))


def test_constant_columns_have_no_deviation():
    rows = np.full((100, 2), 0.1)
    rows[0, 1] = 0.1 + 1e-15
    _, std, _, _ = AuxiliaryRows(rows).statistics()
    assert std.tolist() == [0, 0]


def test_order_makes_statistics_and_batches_the_same_to_the_bit():
    whole = AuxiliaryRows(X)
    second = np.arange(3000) % 3 == 0
    parts = np.concatenate([np.flatnonzero(~second), np.flatnonzero(second)])
    mixed = AuxiliaryRows(X[~second], X[second], order=np.argsort(parts))
    for one, other in zip(whole.statistics(), mixed.statistics(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whole.numbers([4, 9, 30]), mixed.numbers([4, 9, 30]))
    np.testing.assert_array_equal(mixed.is_labeled, second)


def test_batches_are_shifted_scaled_images():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    rows = AuxiliaryRows(images)
    rows.scaled(torch.full((8, 8), 5.0).double(), torch.tensor(2.0))
    batch, is_labeled = rows.__getitems__([3, 1])
    assert batch.dtype == torch.float32 and batch.shape == (2, 1, 8, 8)
    np.testing.assert_array_equal(batch[:, 0], (images[[3, 1]] - 5.0) / 2)
    one, _ = rows.__getitems__([3])
    assert torch.equal(one[0], batch[0]) and not is_labeled.any()


def test_outputs_come_in_order_and_constant_columns_stay():
    rows = AuxiliaryRows(X).scaled(torch.zeros(5), torch.tensor([2.0, 1, 1, 1, 0]))
    outputs = rows.outputs(lambda x: x[:, [0, 4]])
    np.testing.assert_allclose(outputs, X[:, [0, 4]] / [2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "row_shape, expected",
    [
        ((5,), (5,)),
        ((28, 30), (1, 28, 30)),
        ((3, 32, 32), (3, 32, 32)),
        ((32, 32, 3), (3072,)),
        ((4, 3), (12,)),
        ((2, 3, 4, 5), (120,)),
        ((), (1,)),
    ],
)
def test_shape_a_net_takes(row_shape, expected):
    assert image_shape(row_shape) == expected


def test_an_epoch_of_single_batches_has_each_row_once():
    rows = AuxiliaryRows(X[:30], X[30:65])
    assert rows.n_batches(16) == 5
    batches = list(islice(rows.batches(16), 10))
    assert [len(b) for b in batches] == [13] * 10
    for epoch in (batches[:5], batches[5:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(65))


@pytest.mark.parametrize("n_labeled", [1, 5, 35])
def test_pairs_have_each_unlabelled_row_once_and_labelled_ones_in_turn(n_labeled):
    rows = AuxiliaryRows(X[:40], X[40 : 40 + n_labeled], paired=True)
    assert rows.n_batches(16) == 3
    batches = torch.stack([b[b >= 0] for b in islice(rows.batches(16), 30)][::3])
    assert all(len(set(b.tolist())) == len(b) for b in batches)
    batches = list(islice(rows.batches(16), 30))
    for batch in batches:
        assert int(rows.is_labeled[batch].sum()) == min(16, n_labeled)
    for i in range(0, 30, 3):
        epoch = torch.cat(batches[i : i + 3])
        assert sorted(epoch[epoch < 40].tolist()) == list(range(40))
    counts = np.bincount(torch.cat(batches) - 0)[40:]
    assert counts.max() - counts.min() <= 1


def test_a_single_row_is_doubled():
    assert next(AuxiliaryRows(X[:1]).batches(16)).tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_rows_that_are_not_finite_raise(value):
    rows = X[:9].copy()
    rows[4, 1] = value
    with pytest.raises(ValueError, match="rows have NaN or infinite entries"):
        AuxiliaryRows(X[:5], rows).statistics()


class Ragged(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(index + 1), 0


@pytest.mark.parametrize(
    "rows", [np.array([["a", "b"]] * 4), pd.DataFrame({"a": ["x"] * 4}), Ragged()]
)
def test_rows_that_are_no_numbers_of_one_shape_raise(rows):
    with pytest.raises(ValueError, match="no arrays of numbers of one shape"):
        AuxiliaryRows(rows).statistics()


class Counted(Dataset):
    """Rows that are made when they are asked for; notes how many at a time."""

    def __init__(self, n_rows, n_columns):
        self.n_rows, self.n_columns, self.most = n_rows, n_columns, 0

    def __len__(self):
        return self.n_rows

    def __getitem__(self, row):
        return self.__getitems__([row])[0]

    def __getitems__(self, rows):
        self.most = max(self.most, len(rows))
        rng = np.random.default_rng(rows[0])
        return list(rng.standard_normal((len(rows), self.n_columns), dtype=np.float32))


class Largest(TorchDispatchMode):
    """Notes the most numbers of a tensor that is made."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(made) if isinstance(x, torch.Tensor)]
        self.most = max([self.most, *(tensor.numel() for tensor in tensors)])
        return made


@pytest.mark.parametrize(
    "strategy",
    [
        AsalQuery(n_steps=2).set_params(aux__max_iter=5),
        LearningLossQuery(subset=None),
        VaalQuery(subset=None).set_params(aux__max_iter=5),
        WaalQuery(),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
@pytest.mark.filterwarnings("ignore:the posterior of the VAE")
@pytest.mark.filterwarnings("ignore:VaalQuery holds out none")
def test_a_loop_holds_a_block_of_rows_at_a_time(strategy, monkeypatch):
    n_rows, n_columns, block = 3000, 200, 1024
    monkeypatch.setattr("skal.net.auxiliary_rows.N_NUMBERS", block * n_columns)
    rows, largest = Counted(n_rows, n_columns), Largest()
    net = NeuralNetClassifier(
        MLP,
        module__n_inputs=n_columns,
        module__n_classes=2,
        module__hidden=(8,),
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        verbose=0,
    )
    loop = ActiveLearningLoop(
        net, strategy, initial="uniform", n_rounds=1, batch_size=20, random_state=0
    )
    with largest:
        loop.fit(rows, np.arange(n_rows) % 2)
    assert len(loop.labeled_indices_) == 30
    assert rows.most <= block
    assert largest.most <= 1.2 * block * n_columns
