"""Comma-separated files of numbers and text."""

import csv
import os
from numbers import Integral
from typing import NamedTuple

import numpy as np
from sklearn.preprocessing import OneHotEncoder

from skal.datasets._split import (
    as_number,
    encode,
    find_classes,
    label_names,
    split_arrays,
)

_FEW = 50
_MOST_CATEGORIES = 1000
_N_SNIFFED = 1000


class Table(NamedTuple):
    """Cells of a comma-separated file, still as text.

    Parameters
    ----------
    path : path-like
    header : list of str or None
        Names of all columns.
    columns : list of int
        Positions of the features in the file.
    cells : list of tuple of str
        One tuple a feature.
    values : list of ndarray of float32
        Their numbers; NaN where there is none.
    labels : tuple of str
    lines : list of int
        Line of each row in the file.
    """

    path: os.PathLike
    header: list | None
    columns: list
    cells: list
    values: list
    labels: tuple
    lines: list

    def name_of(self, feature):
        """Say which column a feature is.

        Parameters
        ----------
        feature : int

        Returns
        -------
        name : str
        """
        column = self.columns[feature]
        named = f" ({self.header[column]!r})" if self.header else ""
        return f"column {column}{named}"


def load_text(path, test_path, label_column, header, test_size, seed):
    """Read a comma-separated file.

    Parameters
    ----------
    path, test_path : Path
        None for `test_path` splits the rows.
    label_column : int or str
    header : bool or None
    test_size, seed
        Of the split.

    Returns
    -------
    parts : dict
        The data; rows are float32 of shape (n_samples, n_features).
    """
    table = read_table(path, label_column, header)
    encoder = TableEncoder(table)
    names = label_names(table.labels)
    where = f"label_column={label_column!r} of {str(path)!r}"
    classes = find_classes(names, where)
    X, y = encoder.transform(table), encode(names, classes, path)
    common = {"classes": classes, "feature_names": encoder.feature_names}
    if test_path is None:
        return {**split_arrays(X, y, classes, test_size, seed), **common}
    if header is None and table.header is None:
        header = False
    test = read_table(test_path, label_column, header)
    _check_columns(table, test)
    y_test = encode(label_names(test.labels), classes, test_path)
    X_test = encoder.transform(test)
    return {"X_train": X, "y_train": y, "X_test": X_test, "y_test": y_test, **common}


def read_table(path, label_column, header):
    """Read the cells of a comma-separated file.

    Parameters
    ----------
    path : path-like
    label_column : int or str
        Position, negative from the end, or name in the header.
    header : bool or None
        Whether the first row names the columns; None looks at the cells.

    Returns
    -------
    table : Table
    """
    rows, lines = _read_rows(path)
    if header is None:
        header = isinstance(label_column, str) or _has_header(rows)
    names = None
    if header:
        names, rows, lines = rows[0], rows[1:], lines[1:]
    if not rows:
        raise ValueError(f"{str(path)!r} has no rows of data.")
    label = _label_position(path, label_column, names, len(rows[0]))
    columns = [column for column in range(len(rows[0])) if column != label]
    cells = list(zip(*rows, strict=True))
    labels = cells.pop(label)
    return Table(
        path, names, columns, cells, list(map(as_numbers, cells)), labels, lines
    )


def _read_rows(path):
    rows, lines = [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for row in reader:
                if not row or (len(row) == 1 and not row[0].strip()):
                    continue
                if rows and len(row) != len(rows[0]):
                    raise ValueError(
                        f"{str(path)!r} has {len(row)} columns in line "
                        f"{reader.line_num} and {len(rows[0])} in line {lines[0]}; "
                        "give every row the same columns."
                    )
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as comma-separated text ({error}). A name "
            "may also be an .npz archive or a folder of images by class."
        ) from error
    if not rows:
        raise ValueError(f"{str(path)!r} is empty: it must hold rows of data.")
    if len(rows[0]) == 1:
        raise ValueError(
            f"{str(path)!r} has one column only ({rows[0][0][:40]!r}): columns must "
            "be separated by commas."
        )
    return rows, lines


def _has_header(rows):
    """Whether the first row names columns: text over numbers, or words of its own."""
    if len(rows) == 1:
        return False
    columns = list(zip(*rows, strict=True))
    over_numbers = [
        not np.isfinite(as_number(first))
        for first, *below in (column[:_N_SNIFFED] for column in columns)
        if np.isfinite(as_numbers(below)).all()
    ]
    return all(over_numbers or (column[0] not in column[1:] for column in columns))


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


def _check_columns(table, test):
    where = f"test_path={str(test.path)!r}"
    n_columns, n_known = len(test.cells) + 1, len(table.cells) + 1
    if n_columns != n_known:
        raise ValueError(
            f"{where} has {n_columns} columns, {str(table.path)!r} has {n_known}; give "
            "both the same."
        )
    if table.header and test.header and table.header != test.header:
        pairs = zip(table.header, test.header, strict=True)
        known, name = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"{where} has the column {name!r} where {str(table.path)!r} has {known!r}; "
            "give both the same columns in one order."
        )


def as_numbers(cells):
    """Read numbers that single precision can hold; NaN for all else.

    Parameters
    ----------
    cells : sequence of str of length n_samples

    Returns
    -------
    values : ndarray of float32 of shape (n_samples,)
    """
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        unique, positions = np.unique(cells, return_inverse=True)
        values = np.array([as_number(str(cell)) for cell in unique])[positions]
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32("nan"))


class TableEncoder:
    """Numbers as they are, text one-hot, as the training file has them.

    Parameters
    ----------
    table : Table
        The training file.

    Attributes
    ----------
    encoders : list of OneHotEncoder or None
        One a feature; None for numbers.
    feature_names : list of str
        "column" or "column=value" of each column of the output.

    Notes
    -----
    A text that the training file lacks becomes zeros in all columns of its feature.
    """

    def __init__(self, table):
        self.encoders, self.feature_names = [], []
        for feature, cells in enumerate(table.cells):
            column = table.columns[feature]
            name = table.header[column] if table.header else str(column)
            encoder = None
            if _is_text(table, feature):
                encoder = OneHotEncoder(
                    sparse_output=False, dtype=np.float32, handle_unknown="ignore"
                ).fit(_column(cells))
                values = encoder.categories_[0].tolist()
                self.feature_names += [f"{name}={value}" for value in values]
            else:
                self.feature_names.append(name)
            self.encoders.append(encoder)

    def transform(self, table):
        """Encode the rows of a file.

        Parameters
        ----------
        table : Table

        Returns
        -------
        X : ndarray of float32 of shape (n_samples, n_features)
        """
        X = np.empty((len(table.labels), len(self.feature_names)), np.float32)
        start = 0
        for feature, (cells, encoder) in enumerate(
            zip(table.cells, self.encoders, strict=True)
        ):
            if encoder is None:
                block = table.values[feature][:, None]
                if np.isnan(block).any():
                    raise _not_a_number(table, feature, np.isnan(block[:, 0]))
            else:
                block = encoder.transform(_column(cells))
            X[:, start : start + block.shape[1]] = block
            start += block.shape[1]
        return X


def _column(cells):
    return np.array(cells, dtype=object)[:, None]


def _is_text(table, feature):
    """Whether to encode a column; a slip among numbers is an error, not a category."""
    cells, values = table.cells[feature], table.values[feature]
    odd = np.isnan(values)
    if not odd.any():
        return False
    few = odd.sum() <= 0.05 * len(cells)
    if not odd.all() and (few or len(np.unique(values[~odd])) > _FEW):
        raise _not_a_number(table, feature, odd)
    n_categories = len(set(cells))
    if n_categories > _MOST_CATEGORIES:
        raise ValueError(
            f"{table.name_of(feature)} of {str(table.path)!r} has {n_categories} "
            f"different texts, {_MOST_CATEGORIES} at most can be encoded; remove it, "
            "or group its values."
        )
    return True


def _not_a_number(table, feature, odd):
    row = int(np.argmax(odd))
    cell = table.cells[feature][row]
    return ValueError(
        f"{table.name_of(feature)} of {str(table.path)!r} holds numbers, but "
        f"{cell!r} in line {table.lines[row]} is not a finite one "
        f"({np.count_nonzero(odd)} such rows); fill them in or remove them."
    )
