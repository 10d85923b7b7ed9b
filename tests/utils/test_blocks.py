"""Rows of a dask array, block by block."""

import pickle

import numpy as np
import pytest

from skal import PoolView
from skal.utils.blocks import BlockRows
from skal.utils.rows import as_rows, n_rows, spread, take

da = pytest.importorskip("dask.array")


def made(shape=(10, 2), chunks=(4, 1)):
    X = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return X, as_rows(da.from_array(X, chunks=chunks))


def test_rows_are_those_of_the_array():
    X, rows = made()
    assert isinstance(rows, BlockRows) and n_rows(rows) == len(rows) == 10
    for index in ([9, 0, 3, 4, 0], [], slice(3, 9), slice(None), [True] * 10):
        index = np.array(index, dtype=int) if index == [] else index
        np.testing.assert_array_equal(take(rows, index), X[index])
    np.testing.assert_array_equal(rows[7], X[7])
    np.testing.assert_array_equal(np.concatenate(list(rows.each())), X)


def test_what_is_left_of_it_has_the_same_rows():
    X, rows = made((20, 3), (3, 3))
    for wanted in ([19, 4, 5, 18, 4], [0], list(range(20))):
        wanted = np.array(wanted)
        blocks, moved = pickle.loads(pickle.dumps(rows.restrict(wanted)))
        np.testing.assert_array_equal(blocks[moved], X[wanted])
        assert len(blocks) <= 3 * len(set(wanted // 3))


def test_pieces_of_the_order_share_few_blocks():
    _, rows = made((100, 2), (10, 2))
    order = spread(rows, np.arange(100), np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    for piece in np.split(order, 5):
        assert len(set(piece // 10)) == 2
    assert (order // 10).tolist() != sorted(order // 10)


def test_unknown_numbers_of_rows_are_refused():
    X = da.from_array(np.arange(10.0)[:, None], chunks=(4, 1))
    with pytest.raises(ValueError, match=r"call X.compute_chunk_sizes\(\) first"):
        PoolView(None, X[X[:, 0] > 3])


def test_other_collections_are_refused():
    bag = pytest.importorskip("dask.bag")
    with pytest.raises(TypeError, match="X is a Bag of dask; pass an array"):
        PoolView(None, bag.from_sequence([1, 2]))
