"""Tables: text files and Parquet, read by pandas."""

import os
from collections import deque
from dataclasses import dataclass
from itertools import islice
from numbers import Integral

import numpy as np

from skal.datasets._dialect import (
    Dialect,
    as_numbers,
    find_dialect,
    has_header,
    read_rows,
)
from skal.datasets._split import encode_labels, split_rows

_FEW = 50
_MOST_CATEGORIES = 1000


@dataclass
class Table:
    """A file in columns.

    Parameters
    ----------
    path : path-like
    dialect : Dialect or None
        None for Parquet.
    header : list of str or None
        Names of all columns.
    columns : dict of int to ndarray of float32 or Categorical
        Features by their position in the file: numbers, or texts.
    labels : Series
    """

    path: os.PathLike
    dialect: Dialect | None
    header: list | None
    columns: dict
    labels: object

    def find_numbers(self, training=None):
        """Make numbers of the columns of text that hold some.

        Parameters
        ----------
        training : Table, default=None
            What its columns are, decides. None looks at the cells.
        """
        decimal = self.dialect.decimal if self.dialect else "."
        for column, values in self.columns.items():
            numeric, numbers = True, values
            if not isinstance(values, np.ndarray):
                found = as_numbers(values.categories, decimal).astype(np.float32)
                numbers = found[values.codes]
                slips = np.isnan(numbers).mean() <= 0.05
                numeric = slips or np.count_nonzero(np.isfinite(found)) > _FEW
                if training:
                    numeric = isinstance(training.columns[column], np.ndarray)
            if numeric:
                self._check_numbers(column, numbers)
                self.columns[column] = numbers
            elif not training and len(values.categories) > _MOST_CATEGORIES:
                raise ValueError(
                    f"{self._name_of(column)} has {len(values.categories)} different "
                    f"texts, {_MOST_CATEGORIES} at most can be encoded; remove it, or "
                    "group its values."
                )

    def _name_of(self, column):
        named = f" ({self.header[column]!r})" if self.header else ""
        return f"column {column}{named} of {str(self.path)!r}"

    def _check_numbers(self, column, numbers):
        odd = np.flatnonzero(~np.isfinite(numbers))
        if not len(odd):
            return
        where = f"a cell in row {odd[0]}, counted from 0,"
        if self.dialect:
            rows = read_rows(self.path, self.dialect.separator)
            row = odd[0] + (self.header is not None)
            line, cells = next(islice(rows, row, None))
            where = f"{cells[column]!r} in line {line}"
        raise ValueError(
            f"{self._name_of(column)} holds numbers, but {where} is not a finite one "
            f"({len(odd)} such rows); fill them in or remove them."
        )


def load_table(path, test_path, label_column, header, dialect, missing_labels, split):
    """Read a text file of rows, or a Parquet file.

    Parameters
    ----------
    path, test_path : Path
        None for `test_path` splits the rows.
    label_column : int or str
    header : bool or None
    dialect : Dialect
        None in place of what is to be found out.
    missing_labels : str, collection of str, or None
    split : tuple of (test_size, seed)

    Returns
    -------
    parts : dict
        The data; rows are float32 of shape (n_samples, n_features).
    """
    table = read_table(path, label_column, header, dialect)
    where = f"label_column={label_column!r} of {str(path)!r}"
    y, classes = encode_labels(table.labels, where, missing_labels)
    names = table.header or range(len(table.columns) + 1)
    if test_path is None:
        return split_columns(table.columns, names, y, classes, split)
    if header is None and table.header is None:
        header = False
    test = read_table(test_path, label_column, header, table.dialect, table)
    where = f"test_path={str(test_path)!r}"
    y_test, _ = encode_labels(test.labels, where, missing_labels, classes)
    rows, test_rows = np.arange(len(y)), np.arange(len(y_test))
    parts = encode(names, (table.columns, rows), (test.columns, test_rows))
    return {**parts, "y_train": y, "y_test": y_test, "classes": classes}


def split_columns(columns, names, y, classes, split, listed=False):
    """Split rows and encode them.

    Parameters
    ----------
    columns : dict of int to ndarray of float32 or Categorical
    names : sequence of str
        As in :func:`encode`.
    y, classes
        As in :func:`skal.datasets._split.split_rows`.
    split : tuple of (test_size, seed)
    listed : bool
        As in :func:`encode`.

    Returns
    -------
    parts : dict
    """
    train, test = split_rows(y, classes, *split)
    return {
        **encode(names, (columns, train), (columns, test), listed),
        "y_train": y[train],
        "y_test": y[test],
        "train_indices": train,
        "test_indices": test,
        "classes": classes,
    }


def encode(names, train, test, listed=False):
    """Put columns into one array: numbers as they are, texts as columns of 0 and 1.

    Parameters
    ----------
    names : sequence of str
        Of the columns, by position.
    train, test : tuple of (dict of int to ndarray or Categorical, ndarray of int64)
        Columns, and the rows to take. A text that is missing, or that the training
        rows lack, becomes zeros.
    listed : bool, default=False
        Whether all categories have a column, not just those of the training rows.

    Returns
    -------
    parts : dict
        X_train, X_test, and feature_names, "column" or "column=text".
    """
    columns, rows = train
    features = []
    for column, values in columns.items():
        texts = [None]
        if not isinstance(values, np.ndarray):
            texts = values.categories if listed else sorted(values[rows].unique())
        features += [(column, text) for text in texts]
    names = [
        str(names[column]) if text is None else f"{names[column]}={text}"
        for column, text in features
    ]
    parts = {"feature_names": names}
    for key, (columns, rows) in (("X_train", train), ("X_test", test)):
        X = parts[key] = np.empty((len(rows), len(features)), np.float32)
        for place, (column, text) in enumerate(features):
            values = columns[column][rows]
            X[:, place] = values if text is None else values == text
    return parts


def read_table(path, label_column, header, dialect, training=None):
    """Read the columns of a file.

    Parameters
    ----------
    path : Path
    label_column : int or str
        Position, negative from the end, or name in the header.
    header : bool or None
        Whether the first row names the columns; None looks at the cells.
    dialect : Dialect
        None in place of what is to be found out.
    training : Table, default=None
        The file must have its columns.

    Returns
    -------
    table : Table
    """
    known = training.columns if training else {}
    texts = [i for i, values in known.items() if not isinstance(values, np.ndarray)]
    if path.suffix.lower() == ".parquet":
        dialect, frame = None, _read_parquet(path)
        names = list(map(str, frame))
        n_columns = len(names)
        label = _label_position(path, label_column, names, n_columns)
        frame.columns = range(n_columns)
    else:
        dialect, rows = find_dialect(path, *dialect)
        if header is None:
            named = isinstance(label_column, str)
            header = named or has_header(rows, dialect.decimal, path)
        if len(rows) == header:
            raise ValueError(f"{str(path)!r} has no rows of data.")
        names, n_columns = rows[0] if header else None, len(rows[0])
        label = _label_position(path, label_column, names, n_columns)
        frame = _read_text(path, dialect, rows[header:], header, {*texts, label})
    _check_columns(path, names, n_columns, training)
    labels = frame.pop(label)
    columns = {i: _convert(frame.pop(i), i in texts) for i in list(frame)}
    table = Table(path, dialect, names, columns, labels)
    table.find_numbers(training)
    return table


def _read_text(path, dialect, rows, header, texts):
    """Read float32 where the first rows are, all other cells as they are written."""
    import pandas as pd

    dtypes = {}
    for column, cells in enumerate(zip(*rows, strict=True)):
        numeric = np.isfinite(as_numbers(cells, dialect.decimal)).all()
        dtypes[column] = np.float32 if numeric and column not in texts else str
    options = {
        "sep": dialect.separator,
        "decimal": dialect.decimal,
        "header": 0 if header else None,
        "names": list(dtypes),
        "index_col": False,
        "na_filter": False,
        "skipinitialspace": True,
    }
    try:
        frame = pd.read_csv(path, dtype=dtypes, **options)
    except ValueError:  # text below the first rows, or rows of another length
        deque(read_rows(path, dialect.separator), maxlen=0)
        return pd.read_csv(path, dtype=str, **options)
    # pandas fills short rows up, and forgives stray quotes.
    if (frame.iloc[:, -1] == "").any() or _has_quotes(path):
        deque(read_rows(path, dialect.separator), maxlen=0)
    return frame


def _has_quotes(path):
    with open(path, "rb") as file:
        return any(b'"' in block for block in iter(lambda: file.read(2**20), b""))


def _read_parquet(path):
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            f"{str(path)!r} needs pyarrow to be read: pip install pyarrow."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or no Parquet file ({error}). Replace it by a "
            "whole copy."
        ) from error


def _convert(values, as_text):
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(values.dtype) and not as_text:
        return values.to_numpy(np.float32, na_value=np.nan)
    values = values.astype(object).where(values.notna(), "")
    return pd.Categorical(values.map(str).str.strip())


def _label_position(path, label_column, header, n_columns):
    if isinstance(label_column, str):
        if header is None:
            raise ValueError(
                f"label_column={label_column!r} is a name, but header=False says that "
                f"{str(path)!r} has none; pass a position, or header=True."
            )
        if header.count(label_column) != 1:
            raise ValueError(
                f"label_column={label_column!r} must be one of the columns of "
                f"{str(path)!r}, got {header}."
            )
        return header.index(label_column)
    whole = isinstance(label_column, Integral) and not isinstance(label_column, bool)
    if not whole or not -n_columns <= label_column < n_columns:
        raise ValueError(
            f"label_column={label_column!r} must be a name in the header or a position "
            f"from {-n_columns} to {n_columns - 1}: {str(path)!r} has {n_columns} "
            "columns."
        )
    return label_column % n_columns


def _check_columns(path, names, n_columns, training):
    if training is None:
        return
    where = f"test_path={str(path)!r}"
    n_known = len(training.columns) + 1
    if n_columns != n_known:
        raise ValueError(
            f"{where} has {n_columns} columns, {str(training.path)!r} has {n_known}; "
            "give both the same."
        )
    if training.header and names and training.header != names:
        pairs = zip(training.header, names, strict=True)
        known, name = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"{where} has the column {name!r} where {str(training.path)!r} has "
            f"{known!r}; give both the same columns in one order."
        )
