"""Rows of a dask array, of which one block at a time is in memory."""

import math
import sys

import numpy as np


def is_lazy_array(X):
    """Tell whether `X` is a dask array, or a collection like it."""
    return hasattr(X, "__dask_graph__")


class BlockRows:
    """Rows of a dask array, computed block by block, never as a whole.

    A block is what the array has of one chunk of rows, all columns. The last one is
    kept, so that rows taken in order cost each block once. How blocks are computed is
    up to dask: here, or on the workers of the client that is active. A task of a
    worker computes its blocks itself, unless the cluster holds them already.

    Parameters
    ----------
    array : dask.array.Array of shape (n_rows, ...)

    Raises
    ------
    TypeError
        Where it is another collection of dask.
    ValueError
        Where it has no rows, or does not know their number.
    """

    def __init__(self, array):
        if not hasattr(array, "blocks") or not hasattr(array, "chunks"):
            raise TypeError(
                f"X is a {type(array).__name__} of dask; pass an array, as "
                "X.to_dask_array(lengths=True) of a DataFrame."
            )
        if not array.ndim or any(map(math.isnan, array.shape)):
            raise ValueError(
                f"X is a dask array of shape {array.shape}, whose rows cannot be "
                "counted; call X.compute_chunk_sizes() first."
            )
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.starts = np.cumsum([0, *array.chunks[0]])
        self._last = None, None
        distributed = sys.modules.get("distributed")
        self.is_persisted = bool(distributed and distributed.futures_of(array))

    def __len__(self):
        return self.shape[0]

    def __getstate__(self):
        return {**vars(self), "_last": (None, None)}

    def __getitem__(self, rows):
        """Take rows, a slice or positions, as an array."""
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            return self[rows[None]][0]
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number, places in self._by_block(rows):
            found[places] = self._block(number)[rows[places] - self.starts[number]]
        return found

    def __array__(self, dtype=None, copy=None):
        return self[:] if dtype is None else self[:].astype(dtype)

    def each(self):
        """Yield all blocks in order, as arrays."""
        yield from map(self._block, range(len(self.starts) - 1))

    def restrict(self, rows):
        """Leave out the blocks in which none of some rows are.

        Parameters
        ----------
        rows : int64 array of shape (n_rows,)

        Returns
        -------
        blocks : BlockRows
        rows : int64 array of shape (n_rows,)
            The same rows, in `blocks`.
        """
        from dask import optimize

        left = [(number, places) for number, places in self._by_block(rows)]
        (array,) = optimize(self.array.blocks[[number for number, _ in left]])
        blocks, moved = BlockRows(array), np.empty_like(rows)
        blocks.is_persisted = self.is_persisted  # which the graph no longer says
        for start, (number, places) in zip(blocks.starts, left, strict=False):
            moved[places] = rows[places] - self.starts[number] + start
        return blocks, moved

    def spread(self, rows, rng):
        """Order rows by their blocks, these at random; see `skal.utils.rows.spread`."""
        blocks = rng.permutation(len(self.starts) - 1)
        return np.argsort(blocks[self._numbers(rows)], kind="stable")

    def _numbers(self, rows):
        return np.searchsorted(self.starts, rows, side="right") - 1

    def _by_block(self, rows):
        """Yield blocks, ascending, and where in `rows` those are that it holds."""
        numbers = self._numbers(rows)
        order = np.argsort(numbers, kind="stable")
        found, starts = np.unique(numbers[order], return_index=True)
        places = np.split(order, starts[1:]) if len(found) else []
        yield from zip(found, places, strict=True)

    def _block(self, number):
        if self._last[0] != number:
            block = self.array.blocks[int(number)]
            # A task that asked its cluster would leave its place to another meanwhile.
            here = _is_worker() and not self.is_persisted
            block = block.compute(**({"scheduler": "synchronous"} if here else {}))
            if not isinstance(block, np.ndarray):
                raise TypeError(
                    f"block {number} of X is a {type(block).__name__}, no array; "
                    "make it one by X.map_blocks."
                )
            self._last = number, block
        return self._last[1]


def _is_worker():
    """Tell whether this is a task of a worker of dask."""
    if "distributed" not in sys.modules:
        return False
    try:
        sys.modules["distributed"].get_worker()
    except ValueError:
        return False
    return True
