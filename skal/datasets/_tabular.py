"""Tables: text files and Parquet, read by pandas."""

import os
from dataclasses import dataclass
from itertools import islice
from numbers import Integral

import numpy as np

from skal.datasets._dialect import (
    Dialect,
    as_numbers,
    check_rows,
    find_dialect,
    has_header,
    read_rows,
)
from skal.datasets._split import encode_labels, split_rows

_FEW = 50
_MOST_CATEGORIES = 1000


@dataclass
class Table:
    """Columns of a file.

    Parameters
    ----------
    path : path-like
    dialect : Dialect or None
        None for Parquet.
    header : list of str or None
        Names of all columns.
    frame : DataFrame
        One column a feature, by its position in the file: float32, or text.
    labels : Series
    """

    path: os.PathLike
    dialect: Dialect | None
    header: list | None
    frame: object
    labels: object

    def encode(self, training=None):
        """Decide what each column is, and make its cells plain numbers or text.

        Parameters
        ----------
        training : Table, default=None
            Encoded; what its columns are decides. None looks at the cells.
        """
        import pandas as pd

        decimal = self.dialect.decimal if self.dialect else "."
        for column, values in list(self.frame.items()):
            known = None if training is None else training.frame[column].dtype
            if values.dtype == np.float32:
                if not np.isfinite(values).all():
                    raise self._not_a_number(column, ~np.isfinite(values.to_numpy()))
                continue
            codes, texts = pd.factorize(values)
            texts = np.array([str(text).strip() for text in texts], dtype=object)
            numbers = as_numbers(texts, decimal)
            odd = np.isnan(numbers)
            n_odd = np.bincount(codes, minlength=len(texts))[odd].sum()
            few = n_odd <= 0.05 * len(codes) or len(np.unique(numbers[~odd])) > _FEW
            slips = n_odd and not odd.all() and few
            if known == np.float32 or (known is None and (slips or not n_odd)):
                if n_odd:
                    raise self._not_a_number(column, odd[codes])
                self.frame[column] = numbers[codes]
                continue
            if known is None and len(set(texts)) > _MOST_CATEGORIES:
                raise ValueError(
                    f"{self._name_of(column)} of {str(self.path)!r} has "
                    f"{len(set(texts))} different texts, {_MOST_CATEGORIES} at most "
                    "can be encoded; remove it, or group its values."
                )
            self.frame[column] = texts[codes]

    def _name_of(self, column):
        named = f" ({self.header[int(column)]!r})" if self.header else ""
        return f"column {column}{named}"

    def _not_a_number(self, column, odd):
        row = int(np.argmax(odd))
        where = f"row {row}, counted from 0,"
        cell = "a cell"
        if self.dialect:
            first = row + (self.header is not None)
            rows = read_rows(self.path, self.dialect.separator)
            line, cells = next(islice(rows, first, None))
            where, cell = f"line {line}", repr(cells[int(column)])
        return ValueError(
            f"{self._name_of(column)} of {str(self.path)!r} holds numbers, but {cell} "
            f"in {where} is not a finite one ({np.count_nonzero(odd)} such rows); fill "
            "them in or remove them."
        )


def load_table(
    path,
    test_path,
    label_column,
    header,
    separator,
    decimal,
    missing_labels,
    test_size,
    seed,
):
    """Read a text file of rows, or a Parquet file.

    Parameters
    ----------
    path, test_path : Path
        None for `test_path` splits the rows.
    label_column : int or str
    header : bool or None
    separator, decimal : str or None
    missing_labels : str, collection of str, or None
    test_size, seed
        Of the split.

    Returns
    -------
    parts : dict
        The data; rows are float32 of shape (n_samples, n_features).
    """
    table = read_table(path, label_column, header, Dialect(separator, decimal))
    table.encode()
    where = f"label_column={label_column!r} of {str(path)!r}"
    y, classes = encode_labels(table.labels, where, missing_labels)
    names = table.header or range(table.frame.shape[1] + 1)
    common = {"classes": classes}
    if test_path is None:
        return {
            **split_frame(table.frame, names, y, classes, test_size, seed),
            **common,
        }
    if header is None and table.header is None:
        header = False
    test = read_table(test_path, label_column, header, table.dialect, table)
    test.encode(table)
    where = f"test_path={str(test_path)!r}"
    common["y_test"], _ = encode_labels(test.labels, where, missing_labels, classes)
    encoder = Encoder(table.frame, names)
    common["feature_names"] = encoder.feature_names
    X_train, X_test = map(encoder.transform, (table.frame, test.frame))
    return {"X_train": X_train, "y_train": y, "X_test": X_test, **common}


def split_frame(frame, names, y, classes, test_size, seed):
    """Split rows and encode them.

    Parameters
    ----------
    frame : DataFrame
    names : sequence of str
        As in :class:`Encoder`.
    y, classes, test_size, seed
        As in :func:`skal.datasets._split.split_rows`.

    Returns
    -------
    parts : dict
    """
    train, test = split_rows(y, classes, test_size, seed)
    encoder = Encoder(frame, names, train)
    return {
        "X_train": encoder.transform(frame, train),
        "y_train": y[train],
        "X_test": encoder.transform(frame, test),
        "y_test": y[test],
        "train_indices": train,
        "test_indices": test,
        "feature_names": encoder.feature_names,
    }


class Encoder:
    """Numbers as they are, text one-hot, column by column into one array.

    Parameters
    ----------
    frame : DataFrame
        Columns named by position, "0" and so on: float32, text, or categories, which
        are encoded all.
    names : sequence of str
        Of the positions.
    rows : ndarray of int64, default=slice(None)
        Training rows, whose texts are encoded.

    Attributes
    ----------
    feature_names : list of str
        "column" or "column=text" of each column of the output.
    """

    def __init__(self, frame, names, rows=slice(None)):
        self.feature_names, self._categories = [], {}
        for column, values in frame.items():
            name = str(names[int(column)])
            if values.dtype == np.float32:
                self._categories[column] = None
                self.feature_names.append(name)
                continue
            categories = getattr(values.dtype, "categories", None)
            if categories is None:
                categories = sorted(values.iloc[rows].unique())
            self._categories[column] = categories
            self.feature_names += [f"{name}={text}" for text in categories]

    def transform(self, frame, rows=slice(None)):
        """Encode rows; a text that is not known, or missing, becomes zeros.

        Parameters
        ----------
        frame : DataFrame
        rows : ndarray of int64, default=slice(None)

        Returns
        -------
        X : ndarray of float32 of shape (n_samples, n_features)
        """
        import pandas as pd

        n_rows = len(frame.iloc[rows, :0])
        X, start = np.empty((n_rows, len(self.feature_names)), np.float32), 0
        for column, categories in self._categories.items():
            values, stop = frame[column].iloc[rows].array, start + 1
            if categories is None:
                X[:, start] = values
            else:
                stop = start + len(categories)
                codes = pd.Index(categories).get_indexer(values)
                X[:, start:stop] = codes[:, None] == np.arange(len(categories))
            start = stop
        return X


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
        Encoded; the file must have its columns.

    Returns
    -------
    table : Table
    """
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, label_column, training)
    dialect, rows = find_dialect(path, *dialect)
    if header is None:
        named = isinstance(label_column, str)
        header = named or has_header(rows, dialect.decimal, path)
    names = rows[0] if header else None
    if len(rows) == header:
        raise ValueError(f"{str(path)!r} has no rows of data.")
    label = _label_position(path, label_column, names, len(rows[0]))
    _check_columns(path, names, len(rows[0]), training)
    dtypes = {}
    for column, cells in enumerate(zip(*rows[header:], strict=True)):
        number = np.isfinite(as_numbers(cells, dialect.decimal)).all()
        dtypes[str(column)] = np.float32 if number and column != label else str
    if training is not None:
        text = training.frame.columns[training.frame.dtypes != np.float32]
        dtypes.update(dict.fromkeys(text, str))
    frame = _read_text(path, dialect, header, dtypes)
    return Table(path, dialect, names, frame, frame.pop(str(label)))


def _read_text(path, dialect, header, dtypes):
    """Read float32 where they are numbers, and all other cells as they are written."""
    import pandas as pd

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
        check_rows(path, dialect.separator)
        return pd.read_csv(path, dtype=str, **options)
    # pandas fills short rows up, and forgives stray quotes.
    if (frame.iloc[:, -1] == "").any() or _has_quotes(path):
        check_rows(path, dialect.separator)
    return frame


def _has_quotes(path):
    with open(path, "rb") as file:
        return any(b'"' in block for block in iter(lambda: file.read(2**20), b""))


def _read_parquet(path, label_column, training):
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            f"{str(path)!r} needs pyarrow to be read: pip install pyarrow."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or no Parquet file ({error}). Replace it by a "
            "whole copy."
        ) from error
    names = [str(name) for name in frame.columns]
    label = _label_position(path, label_column, names, len(names))
    _check_columns(path, names, len(names), training)
    frame.columns = [str(column) for column in range(len(names))]
    labels = frame.pop(str(label))
    for column, values in frame.items():
        if is_numeric_dtype(values.dtype):
            frame[column] = values.to_numpy(np.float32, na_value=np.nan)
        else:
            texts = values.astype(object).where(values.notna(), "")
            frame[column] = texts.map(str)
    return Table(path, None, names, frame, labels)


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
    n_known = training.frame.shape[1] + 1
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
