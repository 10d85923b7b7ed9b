"""Rows of Parquet files, read group by group."""

import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class ParquetError(ValueError):
    """Raised where rows of a file are not as they should be; says what is wrong."""


class ParquetRows(Dataset):
    """Rows of numbers in Parquet files, which may be larger than memory.

    A map-style Dataset of float32 vectors: a group of rows is read when one of them is
    asked for, and the last two are kept. Needs pyarrow.

    Parameters
    ----------
    files : path-like, or iterable of path-like
        In the order of the rows; a folder stands for its files ``*.parquet`` by name.
    columns : sequence of str, default=None
        What makes a row, in this order: columns of numbers, or of lists of numbers of
        one length, such as embeddings. None takes all but that of the labels.
    label_column : str, default=None
        Whose values are `targets`.
    n_kept : int, default=20_000
        So many rows that were asked for out of order, as labelled ones are again and
        again, are kept in memory.

    Attributes
    ----------
    targets : array of shape (n_rows,) or None
        Labels, which the loop takes where its `y` is None.
    columns : list of str
        What makes a row.

    Raises
    ------
    ImportError
        Without pyarrow.
    ValueError
        Where there are no files, or they have other columns than the first, or columns
        that are no numbers. Later, where a file has changed, as its footer tells by the
        sizes of its parts and, where they were written, the ranges of its columns.

    Examples
    --------
    >>> from skal.datasets import ParquetRows
    >>> X = ParquetRows("embeddings/", label_column="y")  # doctest: +SKIP
    >>> loop.fit(X)  # doctest: +SKIP
    """

    def __init__(
        self,
        files: str | os.PathLike | Iterable[str | os.PathLike],
        *,
        columns: Sequence[str] | None = None,
        label_column: str | None = None,
        n_kept: int = 20_000,
    ):
        self.files, self.n_kept, self._groups = _list_files(files), n_kept, []
        if columns is not None and (isinstance(columns, str) or not len(columns)):
            raise ValueError(f"columns must be a list of names, got {columns!r}.")
        self.columns = None if columns is None else list(columns)
        every = columns is None
        self._footers = {}
        for path in self.files:
            with _open(path) as file:
                self._footers[path] = _footer(path)
                names = file.schema_arrow.names
                if self.columns is None:
                    self.columns = [name for name in names if name != label_column]
                wanted = {*self.columns, label_column} - {None}
                if not wanted <= set(names) or (every and wanted != set(names)):
                    raise ValueError(
                        f"{path!r} has the columns {names}, but {sorted(wanted)} are "
                        f"wanted of all files as of {self.files[0]!r}; name in columns "
                        "those that all have."
                    )
                self._check_numbers(path, file.schema_arrow)
                for i in range(file.num_row_groups):
                    n_rows = file.metadata.row_group(i).num_rows
                    self._groups += [(path, i, n_rows)] if n_rows else []
        self._starts = [0, *accumulate(n_rows for *_, n_rows in self._groups)]
        self._read, self._kept, self._width = {}, {}, None
        self.targets = None if label_column is None else self._labels(label_column)

    def _check_numbers(self, path, schema):
        from pyarrow import types

        for name in self.columns:
            kind = schema.field(name).type
            lists = types.is_list, types.is_large_list, types.is_fixed_size_list
            if any(is_one(kind) for is_one in lists):
                kind = kind.value_type
            numeric = types.is_floating(kind) or types.is_integer(kind)
            if not numeric and not types.is_boolean(kind):
                raise ValueError(
                    f"{path!r}: column {name!r} is {kind}, no number; name others in "
                    "columns, or label_column."
                )

    def _labels(self, name):
        from pyarrow import types

        parts = []
        for path in self.files:
            with _open(path) as file:
                column = file.read(columns=[name]).column(name)
            if types.is_dictionary(column.type):  # whose holes NumPy would get as names
                column = column.cast(column.type.value_type)
            parts.append(column.to_numpy())
        return np.concatenate(parts)

    def __len__(self):
        return self._starts[-1]

    def __getitem__(self, row):
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows):
        """Give the rows of a whole batch, as a DataLoader asks for them."""
        in_order = all(b == a + 1 for a, b in pairwise(rows))
        found = {row: self._kept[row] for row in rows if row in self._kept}
        for row in sorted(set(rows) - found.keys()):
            group = bisect_right(self._starts, row) - 1
            found[row] = self._group(group)[row - self._starts[group]]
            if not in_order and len(self._kept) < self.n_kept:
                found[row] = self._kept[row] = found[row].clone()
        return [found[row] for row in rows]

    def _group(self, number):
        """Read a group of rows, or find it among the last two."""
        if number not in self._read:
            while len(self._read) > 1:
                del self._read[next(iter(self._read))]
            path, index, n_rows = self._groups[number]
            with _open(path) as file:
                if _footer(path) != self._footers[path]:
                    raise ParquetError(
                        f"{path!r} has changed since its rows were counted; make "
                        "ParquetRows anew."
                    )
                table = file.read_row_group(index, columns=self.columns)
            try:
                parts = [_numbers(table.column(name)) for name in self.columns]
                rows = torch.from_numpy(np.column_stack(parts))
                self._width = self._width or rows.shape[1]
                self._read[number] = rows.view(n_rows, self._width)
            except (RuntimeError, ValueError) as error:
                raise ParquetError(
                    f"{path!r}: the lists in columns {self.columns} are not all of one "
                    "length; pad them, or leave them out of columns."
                ) from error
        return self._read[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": {}, "_kept": {}}


def _list_files(files):
    files = [files] if isinstance(files, str | os.PathLike) else files
    found = []
    for path in map(Path, files):
        found += sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not found:
        raise ValueError(f"files={files!r} names no Parquet files.")
    return [str(path.absolute()) for path in found]


def _open(path):
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(
            "ParquetRows reads Parquet by another package: pip install pyarrow"
        ) from error
    try:
        return ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path!r} is damaged or no Parquet file: {error}.") from error


def _footer(path):
    """Digest what a file says of its groups: their sizes, and the range of columns."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        n_bytes = int.from_bytes(file.read(4), "little")
        file.seek(-8 - n_bytes, os.SEEK_END)
        return blake2b(file.read(n_bytes), digest_size=16).digest()


def _numbers(column):
    """Make float32 of a column, of lists a matrix."""
    from pyarrow import compute

    n_rows = len(column)
    if hasattr(column.type, "value_type"):
        lengths = {*compute.list_value_length(column).to_pylist()}
        if len(lengths) > 1 or None in lengths:
            raise ValueError("lists of several lengths")
        column = compute.list_flatten(column)
    return column.to_numpy().astype(np.float32).reshape(n_rows, -1)
