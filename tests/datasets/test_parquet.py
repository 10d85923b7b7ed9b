"""Rows of Parquet files come in order, whichever are asked for."""

import pickle
import sys

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier

from skal import ActiveLearningLoop, PoolView
from skal.datasets import ParquetRows
from skal.models import MLP
from skal.utils.rows import take

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
LABELS = np.where(ROWS[:, 0] > 0, "up", "down")


def write(path, rows, size=7, **more):
    columns = dict(zip("abc", rows.T, strict=True)) | more
    pq.write_table(pa.table(columns), path, row_group_size=size)
    return path


@pytest.fixture
def files(tmp_path):
    """Three files of 20, 0 and 30 rows."""
    return [
        write(tmp_path / f"{i}.parquet", ROWS[part], y=LABELS[part])
        for i, part in enumerate((slice(0, 20), slice(20, 20), slice(20, 50)))
    ]


def test_rows_in_any_order(files):
    X = ParquetRows(files, label_column="y")
    assert (len(X), X.columns) == (50, ["a", "b", "c"])
    np.testing.assert_array_equal(torch.stack([X[i] for i in range(50)]), ROWS)
    np.testing.assert_array_equal(X[-1], ROWS[-1])
    order = [49, 0, 0, 20, 19, 33]
    np.testing.assert_array_equal(torch.stack(X.__getitems__(order)), ROWS[order])
    np.testing.assert_array_equal(X.targets, LABELS)
    with pytest.raises(IndexError, match="row 50 of 50"):
        X[50]
    again = pickle.loads(pickle.dumps(X))
    np.testing.assert_array_equal(again[33], ROWS[33])


def test_a_pass_reads_each_group_once_and_training_rows_only_once(files, monkeypatch):
    X = ParquetRows(iter(files), columns=["c", "a"])
    read = []
    group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, *args, **kwargs: read.append(args) or group(self, *args, **kwargs),
    )
    for start in range(0, 50, 4):
        rows = list(range(start, min(start + 4, 50)))
        expected = ROWS[rows][:, [2, 0]]
        np.testing.assert_array_equal(torch.stack(X.__getitems__(rows)), expected)
    assert len(read) == 3 + 5
    X.__getitems__([40, 3, 17])
    n_read = len(read)
    X.__getitems__([17, 40, 3])
    assert len(read) == n_read


def test_columns_of_lists(tmp_path):
    table = pa.table({"h": pa.array(ROWS.tolist()), "b": np.arange(50)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20)
    X = ParquetRows(tmp_path)
    expected = np.column_stack([ROWS, np.arange(50)])
    np.testing.assert_array_equal(torch.stack(X.__getitems__(range(50))), expected)


def net():
    return NeuralNetClassifier(
        MLP,
        module__n_inputs=3,
        module__n_classes=2,
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=2,
        batch_size=16,
        train_split=None,
        verbose=0,
    )


def test_a_loop_buys_what_it_buys_of_an_array(files):
    bought = []
    for X, y, limit in (
        (ROWS, LABELS, None),
        (ParquetRows(files, label_column="y"), None, None),
        (ParquetRows(files, label_column="y"), None, "8K"),
    ):
        loop = ActiveLearningLoop(
            net(),
            "badge",
            initial="uniform",
            batch_size=4,
            n_rounds=2,
            random_state=0,
            memory_limit=limit,
        )
        bought.append(loop.fit(X, y).labeled_indices_)
    np.testing.assert_array_equal(bought[0], bought[1])
    np.testing.assert_array_equal(bought[0], bought[2])


def test_other_columns(files, tmp_path):
    files.append(write(tmp_path / "odd.parquet", ROWS, d=ROWS[:, 0], y=LABELS))
    with pytest.raises(ValueError, match=r"odd.parquet' has the columns .* 'd'"):
        ParquetRows(files, label_column="y")
    assert len(ParquetRows(files, columns=["a", "b"])) == 100
    with pytest.raises(ValueError, match=r"0.parquet' has the columns .*'d'.* wanted"):
        ParquetRows(files, columns=["a", "d"])


def test_what_is_no_number(files):
    with pytest.raises(ValueError, match="column 'y' is string, no number; name"):
        ParquetRows(files)


def test_lists_of_several_lengths(tmp_path):
    pq.write_table(pa.table({"h": [[1.0, 2.0], [3.0]]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="lists in columns .* not all of one"):
        ParquetRows(tmp_path)[0]


def test_no_files_and_what_is_none(tmp_path):
    with pytest.raises(ValueError, match="names no Parquet files"):
        ParquetRows(tmp_path)
    (tmp_path / "a.parquet").write_text("a,b\n")
    with pytest.raises(ValueError, match="a.parquet' is damaged or no Parquet file"):
        ParquetRows(tmp_path)


def test_without_pyarrow(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        ParquetRows(files)


@pytest.mark.parametrize("kind", [list, iter])
def test_names_of_files_are_no_rows(files, kind):
    with pytest.raises(TypeError, match="skal.datasets.ParquetRows"):
        PoolView(None, kind(files))


def test_lists_as_polars_writes_them(tmp_path):
    table = pa.table({"h": pa.array(ROWS.tolist(), pa.large_list(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    np.testing.assert_array_equal(ParquetRows(tmp_path)[7], ROWS[7])


def test_categories_with_holes_are_no_other_categories(tmp_path):
    """pyarrow's own to_numpy takes a hole for the last one."""
    labels = [None if i % 5 else str(LABELS[i]) for i in range(50)]
    table = pa.table({"a": ROWS[:, 0], "y": pa.array(labels).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    X = ParquetRows(tmp_path, label_column="y")
    assert X.targets.tolist() == labels


@pytest.mark.parametrize("again", [{"size": 5}, {"size": 30}, {"sign": -1}])
def test_a_file_that_has_changed(files, again):
    X = ParquetRows(files[:1], label_column="y")
    size, sign = again.get("size", 19), again.get("sign", 1)
    write(files[0], sign * ROWS[: size + 1], again.get("size", 7), y=LABELS[: size + 1])
    with pytest.raises(ValueError, match="0.parquet' has changed since .* anew") as e:
        take(X, np.arange(20)).__getitems__([19])
    assert "item" not in str(e.value)


def test_lists_of_another_length_in_another_group(tmp_path):
    table = pa.table({"h": [[1.0, 2.0], [3.0, 4.0], [5.0], [6.0]]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    X = ParquetRows(tmp_path)
    X[0]
    with pytest.raises(ValueError, match="lists in columns .* not all of one"):
        X[2]


@pytest.mark.parametrize("columns", ["abc", []])
def test_what_are_no_columns(files, columns):
    with pytest.raises(ValueError, match="columns must be a list of names, got"):
        ParquetRows(files, columns=columns)


def test_no_rows(files):
    X = ParquetRows(files[1:2], label_column="y")
    for given in ({}, {"oracle": lambda rows: rows}):
        loop = ActiveLearningLoop(net(), "margin", **given)
        with pytest.raises(ValueError, match="X has no rows"):
            loop.fit(X)
