"""Rows of any container."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from skal.net.batches import batch_of
from skal.net.evaluation import predict_batches
from skal.utils.rows import (
    DatasetRows,
    as_rows,
    dataset_targets,
    frame_to_array,
    is_dataset,
    is_frame,
    n_rows,
    stack_rows,
    take,
    telling_rows,
)
from skal.utils.seeds import isolated_rng

X = np.arange(20, dtype=np.float32).reshape(10, 2)
ROWS = np.array([7, 0, 0, 3])


class Items(Dataset):
    def __init__(self, items, targets=None):
        self.items, self.loaded = items, []
        if targets is not None:
            self.targets = targets

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        self.loaded.append(row)
        return self.items[row]


def _memmap(folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda folder: X, np.ndarray),
        (lambda folder: np.asfortranarray(X), np.ndarray),
        (_memmap, np.ndarray),
        (lambda folder: torch.from_numpy(X), torch.Tensor),
        (lambda folder: sparse.csr_array(X), sparse.csr_array),
        (lambda folder: sparse.csr_matrix(X), sparse.csr_matrix),
        (lambda folder: pd.DataFrame(X, index=list("abcdefghij")), pd.DataFrame),
        (lambda folder: X.tolist(), list),
    ],
)
def test_take_keeps_order_repeats_and_kind(make, kind, tmp_path):
    held = make(tmp_path)
    assert n_rows(held) == 10
    assert not is_dataset(held)
    for rows in (ROWS, ROWS.astype(np.int32), ROWS[:0]):
        taken = take(held, rows)
        assert isinstance(taken, kind)
        assert n_rows(taken) == len(rows)
        dense = taken.toarray() if sparse.issparse(taken) else np.asarray(taken)
        np.testing.assert_array_equal(dense.reshape(-1, 2), X[rows])


def test_taken_rows_are_a_copy():
    for held in (X.copy(), torch.from_numpy(X.copy())):
        take(held, ROWS)[:] = -1
        np.testing.assert_array_equal(held, X)


def test_take_leaves_images_whole():
    images = np.arange(120).reshape(5, 2, 3, 4)
    np.testing.assert_array_equal(take(images, [4, 1]), images[[4, 1]])


@pytest.mark.parametrize(
    "item", [lambda x: x, lambda x: (x, 9), lambda x: [x, 9], lambda x: (x, 9, "extra")]
)
def test_a_dataset_is_read_lazily_and_without_its_labels(item):
    dataset = Items([item(x) for x in X])
    taken = take(dataset, ROWS)
    assert is_dataset(taken)
    assert len(taken) == n_rows(taken) == 4
    assert dataset.loaded == []
    x, y = taken[1]
    np.testing.assert_array_equal(x, X[0])
    assert y == 0
    assert dataset.loaded == [0]
    assert type(dataset.loaded[0]) is int


def test_rows_of_a_dataset_with_labels_of_our_own():
    y = np.array([4, 5, 6, 7])
    taken = DatasetRows(TensorDataset(torch.from_numpy(X), torch.zeros(10)), ROWS, y)
    x, labels = next(iter(DataLoader(taken, batch_size=4)))
    np.testing.assert_array_equal(x, X[ROWS])
    np.testing.assert_array_equal(labels, y)


class Batched(Items):
    """Gives whole batches at once."""

    def __getitems__(self, rows):
        self.batches = [*getattr(self, "batches", []), rows]
        return [self.items[row] for row in rows]


def test_a_dataset_that_gives_whole_batches_is_asked_for_them():
    dataset = Batched([(x, 9) for x in X])
    loader = DataLoader(DatasetRows(dataset, ROWS, np.arange(4)), batch_size=3)
    (x, y), (last, _) = loader
    np.testing.assert_array_equal(x, X[ROWS[:3]])
    np.testing.assert_array_equal(last, X[ROWS[3:]])
    assert y.tolist() == [0, 1, 2]
    assert dataset.batches == [[7, 0, 0], [3]]
    assert dataset.loaded == []


def test_read_only_items():
    X.flags.writeable = False
    try:
        x, _ = next(iter(DataLoader(take(Items(list(X)), ROWS), batch_size=4)))
    finally:
        X.flags.writeable = True
    np.testing.assert_array_equal(x, X[ROWS])


def test_rows_of_rows():
    inner = take(Items(list(X)), ROWS)
    np.testing.assert_array_equal(take(inner, [3, 0])[0][0], X[3])


@pytest.mark.parametrize(
    "targets", [[1, 0, 2], np.array([1, 0, 2]), torch.tensor([1, 0, 2])]
)
@pytest.mark.parametrize("pairs", [False, True])
def test_targets_of_a_dataset(targets, pairs):
    items = list(zip(X, [1, 0, 2], strict=False)) if pairs else list(X[:3])
    y = dataset_targets(Items(items, targets))
    assert isinstance(y, np.ndarray)
    assert y.tolist() == [1, 0, 2]


class Relabelled(Items):
    """Items and `targets` of a set, relabelled by a function as torchvision does."""

    def __init__(self, n_items, target_transform, *, hidden=False):
        labels = np.arange(n_items) % 4
        super().__init__(list(labels), labels.tolist())
        self.relabel = target_transform
        if not hidden:
            self.target_transform = target_transform

    def __getitem__(self, row):
        label = super().__getitem__(row)
        return np.zeros(2), self.relabel(label)


@pytest.mark.parametrize("n_items", [20, 6000])
@pytest.mark.parametrize("hidden", [False, True])
def test_labels_are_those_of_the_items_not_of_targets(n_items, hidden):
    dataset = Relabelled(n_items, lambda label: int(label % 2), hidden=hidden)
    y = dataset_targets(dataset)
    assert y.tolist() == [row % 2 for row in range(n_items)]


def test_a_rare_change_counts_under_a_target_transform():
    """One label in 3,000 differs, which a sample would hardly show."""
    calls = []

    def transform(label):
        calls.append(label)
        return 9 if len(calls) == 2700 else int(label)

    assert (dataset_targets(Relabelled(3000, transform)) == 9).sum() == 1


def test_targets_spare_loading_many_items():
    dataset = Relabelled(6000, int, hidden=True)
    assert dataset_targets(dataset).tolist() == [row % 4 for row in range(6000)]
    assert len(dataset.loaded) < 1100


@pytest.mark.parametrize("n_targets", [2, 4])
def test_targets_of_another_length_are_not_those_of_the_items(n_targets):
    """As where a subset keeps the `targets` of the whole."""
    items = list(zip(X[:3], ["a", "b", "a"], strict=True))
    y = dataset_targets(Items(items, list("abab")[:n_targets]))
    assert y.tolist() == ["a", "b", "a"]


def test_reading_labels_leaves_the_global_generators_alone():
    class Augmented(Items):
        def __getitem__(self, row):
            return torch.rand(2), row % 2

    state = torch.get_rng_state()
    assert dataset_targets(Augmented(range(4), [0, 1, 0, 1])).tolist() == [0, 1, 0, 1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "labels", [[1, 0, 2], ["a", "b", "a"], torch.tensor([1, 0, 2]).unbind()]
)
@pytest.mark.parametrize("kind", [tuple, list])
def test_labels_of_items(labels, kind):
    dataset = Items([kind(pair) for pair in zip(X, labels, strict=False)])
    assert dataset_targets(dataset).tolist() == [
        label.item() if isinstance(label, torch.Tensor) else label for label in labels
    ]


@pytest.mark.parametrize("targets", [False, True])
def test_labels_of_items_keep_their_types(targets):
    labels = ["a", -1, "b"]
    items = list(X[:3]) if targets else list(zip(X, labels, strict=False))
    y = dataset_targets(Items(items, labels if targets else None))
    assert y.tolist() == labels
    large = Items(list(zip(X, [2**63, -1, 2**63 + 1], strict=False)))
    assert dataset_targets(large).tolist() == [2**63, -1, 2**63 + 1]


def test_labels_that_are_no_single_ones():
    items = Items([(np.zeros(2), torch.eye(3)[row]) for row in range(3)])
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        dataset_targets(items)


@pytest.mark.parametrize("items", [list(X), [(x,) for x in X]])
def test_a_dataset_without_labels(items):
    with pytest.raises(ValueError, match="pass y"):
        dataset_targets(Items(items))


def test_take_of_named_parts():
    taken = take(SliceDict(a=X, b=torch.from_numpy(X)), ROWS)
    assert n_rows(taken) == 4
    np.testing.assert_array_equal(taken["a"], X[ROWS])
    np.testing.assert_array_equal(taken["b"], X[ROWS])


def test_polars_frames():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(X, schema=["a", "b"])
    assert is_frame(frame) and n_rows(frame) == 10
    taken = take(frame, ROWS)
    assert isinstance(taken, polars.DataFrame)
    np.testing.assert_array_equal(frame_to_array(taken), X[ROWS])
    with pytest.raises(ValueError, match="not numbers"):
        frame_to_array(polars.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]}))
    mixed = polars.DataFrame({"a": [1, None], "b": [1.5, 2.0]})
    np.testing.assert_array_equal(frame_to_array(mixed), [[1, 1.5], [np.nan, 2]])


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"a": pd.array([1, 2], "Int16"), "b": pd.array([3, 4], "Int64")}, "i"),
        ({"a": pd.array([True, False], "boolean")}, "b"),
        ({"a": pd.array([1, None], "Int64"), "b": [3, 4]}, "f"),
        ({"a": pd.array([1, 2], "Int64"), "b": pd.Categorical([1.5, 2])}, "f"),
    ],
)
def test_whole_columns_of_pandas_stay_whole(columns, kind):
    frame = pd.DataFrame(columns)
    array = frame_to_array(frame)
    assert array.dtype.kind == kind and array.flags.writeable
    np.testing.assert_array_equal(array, frame.astype(float))


class Raising(Items):
    def __getitem__(self, row):
        if row == 7:
            raise OSError("no such file")
        return super().__getitem__(row)


def test_an_item_that_raises_is_named():
    with pytest.raises(RuntimeError, match="OSError for item 7: no such file. Repair"):
        list(take(Raising(list(X)), np.array([3, 7])))
    with pytest.raises(RuntimeError, match="item 7: no such") as error:
        next(iter(DataLoader(take(Raising(list(X)), np.array([3, 7])), batch_size=2)))
    assert isinstance(error.value.__cause__, OSError)


@pytest.mark.parametrize("inner", [False, True])
def test_an_item_that_raises_is_named_whoever_asks_for_whole_batches(inner):
    """A Subset does, and rows of rows, as parts of a pool are in other processes."""
    subset = Subset(Raising(list(X)), [1, 2, 7, 5, 6])
    rows = take(subset, np.array([0, 2, 4]))
    rows = take(rows, np.array([2, 1])) if inner else rows
    with pytest.raises(RuntimeError, match="OSError for item 2: no such file. R") as e:
        rows.__getitems__([0, 1])
    assert str(e.value).count("raised") == 1
    assert isinstance(pickle.loads(pickle.dumps(e.value)), RuntimeError)


@pytest.mark.parametrize("odd", [np.zeros(3), torch.zeros(2, 1), None])
def test_an_item_of_another_shape_is_named(odd):
    def batches(**options):
        options |= {"module__in_features": 2, "module__out_features": 2}
        with isolated_rng(0):
            net = NeuralNetClassifier(nn.Linear, batch_size=4, **options).initialize()
        items = Items([*X[:4], odd, *X[5:]])
        return [x for x, _ in predict_batches(net, items, [9, 8, 7, 4, 1, 0])]

    message = r"item 4 of the Dataset has shape .*, unlike item 9 of shape \(2,\)"
    with pytest.raises(RuntimeError, match=message):
        batches()
    # Which may well make something of them.
    collated = batches(iterator_valid__collate_fn=lambda items: (len(items), 0))
    assert collated == [4, 2]


def test_a_batch_that_raises_where_no_item_does():
    class Batches(Items):
        def __getitems__(self, rows):
            raise MemoryError("no room")

    with pytest.raises(RuntimeError, match=r"MemoryError for item \[3, 4\]: no room"):
        take(Batches(list(X)), np.array([3, 4])).__getitems__([0, 1])


@pytest.mark.parametrize("shape", [(100, 3), (100, 3, 2, 1), (100, 0), (100, 2**20)])
def test_telling_rows_are_spread_and_have_holes(shape, monkeypatch):
    monkeypatch.setattr("skal.utils.rows.N_NUMBERS", 20)
    rows = np.broadcast_to(np.float32(0), shape)
    np.testing.assert_array_equal(telling_rows(rows, 2), [0, 99])
    if 0 < rows.size < 1000:
        rows = rows.copy()
        for row, hole in ((17, np.nan), (18, np.inf), (97, np.nan)):
            rows[row, -1] = hole
        np.testing.assert_array_equal(telling_rows(rows, 4), [0, 17, 18, 33, 66, 99])


def test_telling_rows_of_a_series():
    texts = pd.Series(["a", None, "b", "c", "d", "e"], index=[5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(telling_rows(texts, 3), [0, 1, 2, 5])


def test_long_doubles_become_doubles():
    rows = np.array([[1, 2], [3, 0.1]], dtype=np.longdouble)
    assert stack_rows(rows).dtype == torch.float64
    np.testing.assert_array_equal(stack_rows(rows), [[1, 2], [3, 0.1]])


def test_no_mask_of_a_whole_array_is_made_to_find_telling_rows(monkeypatch):
    sizes, isfinite = [], np.isfinite
    monkeypatch.setattr(
        np, "isfinite", lambda rows: sizes.append(rows.size) or isfinite(rows)
    )
    telling_rows(np.zeros((70_000, 64), dtype=np.float32))
    assert sum(sizes) == 70_000 * 64 and max(sizes) <= 2**20


@pytest.mark.parametrize("view", [lambda m: m, lambda m: m[3:], np.asarray])
def test_a_memory_map_whose_file_has_shrunk(view, tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.zeros((10_000, 2), dtype=np.float32))
    held = view(np.load(path, mmap_mode="r"))
    assert as_rows(held) is held
    with open(path, "r+b") as file:
        file.truncate(20_000)
    last = [9_000]
    for use in (
        as_rows,
        lambda rows: take(rows, last),
        lambda rows: batch_of(rows, last),
        lambda rows: batch_of(rows, slice(9_000, 9_010)),
    ):
        with pytest.raises(ValueError, match="shrunk from 80128 to 20000 bytes"):
            use(held)
