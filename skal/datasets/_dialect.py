"""How a text file of rows is written: separator, decimal mark and header."""

import csv
import re
import warnings
from itertools import islice
from typing import NamedTuple

import numpy as np

from skal.datasets._split import is_missing

WHITESPACE = r"\s+"
_SEPARATORS = (";", "\t", "|", ",", WHITESPACE)
_WORDS = {"tab": "\t", "\\t": "\t", "whitespace": WHITESPACE, " ": WHITESPACE}
_N_SNIFFED = 1000
# Groups of three digits are set off by the other mark, blanks or apostrophes.
_NUMBERS = {
    decimal: re.compile(
        rf"[+-]?((\d+|[1-9]\d{{0,2}}([{other}'’ \u00a0\u202f])\d{{3}}(\3\d{{3}})*)"
        rf"{fraction}|[{decimal}]\d+)(e[+-]?\d+)?",
        re.IGNORECASE,
    )
    for decimal, other, fraction in ((".", ",", r"(\.\d*)?"), (",", ".", r"(,\d+)?"))
}


class Dialect(NamedTuple):
    """How a file is written.

    Parameters
    ----------
    separator : str
        One character, or `WHITESPACE`.
    decimal : {".", ","}
    """

    separator: str
    decimal: str


def check_dialect(separator, decimal):
    """Raise unless the marks can be read, and translate their names.

    Parameters
    ----------
    separator : str or None
    decimal : str or None

    Returns
    -------
    separator : str or None
    """
    separator = _WORDS.get(separator, separator)
    if separator not in (None, WHITESPACE) and len(separator) != 1:
        raise ValueError(
            f"separator={separator!r} must be one character, 'tab' or 'whitespace'."
        )
    if decimal not in (None, ".", ",") or decimal == separator == ",":
        raise ValueError(
            f"decimal={decimal!r} must be '.' or ',', and not the separator."
        )
    return separator


def as_numbers(texts, decimal):
    """Read numbers that single precision can hold; NaN for all else.

    Parameters
    ----------
    texts : sequence of str of length n_samples
    decimal : {".", ","}

    Returns
    -------
    values : ndarray of float32 of shape (n_samples,)
    """
    pattern, noise = _NUMBERS[decimal], rf"[^-+\de{decimal}]"
    values = [
        float(re.sub(noise, "", text.lower()).replace(decimal, "."))
        if pattern.fullmatch(text)
        else np.nan
        for text in texts
    ]
    with np.errstate(over="ignore"):
        values = np.array(values, np.float64).astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32("nan"))


def read_rows(path, separator):
    """Read cells as they are written, row by row.

    Parameters
    ----------
    path : path-like
    separator : str

    Yields
    ------
    line : int
        Where the row ends in the file, from 1.
    cells : list of str
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines, delimiter = file, separator
        if separator == WHITESPACE:
            lines, delimiter = (" ".join(line.split()) + "\n" for line in file), " "
        reader = csv.reader(
            lines, delimiter=delimiter, skipinitialspace=True, strict=True
        )
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield reader.line_num, [cell.strip() for cell in row]


def check_rows(path, separator, stop=None):
    """Raise unless all rows have the same number of columns, two at least.

    Parameters
    ----------
    path : path-like
    separator : str
    stop : int, default=None
        How many rows to read.

    Returns
    -------
    rows : list of list of str
        The first ones.
    """
    shown = "whitespace" if separator == WHITESPACE else repr(separator)
    rows, first_line = [], None
    try:
        for line, row in islice(read_rows(path, separator), stop):
            first_line = first_line or line
            if rows and len(row) != len(rows[0]):
                raise ValueError(
                    f"{str(path)!r}, separated by {shown}, has {len(row)} columns in "
                    f"line {line} and {len(rows[0])} in line {first_line}; give every "
                    "row the same columns, or say what separates them, as in "
                    "separator=';'."
                )
            if len(rows) < _N_SNIFFED:
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as text separated by {shown} ({error}). "
            "Save it as UTF-8, with whole quotes. A name may also be a .parquet file, "
            "an .npz archive or a folder of images by class."
        ) from error
    if not rows:
        raise ValueError(f"{str(path)!r} is empty: it must hold rows of data.")
    if len(rows[0]) == 1:
        raise ValueError(
            f"{str(path)!r} has one column only ({rows[0][0][:40]!r}): columns must "
            "be separated by commas, semicolons, tabs, | or whitespace; or say by "
            "what, as in separator=':'."
        )
    return rows


def find_dialect(path, separator, decimal):
    """Find out how a file is written from its first rows.

    Parameters
    ----------
    path : path-like
    separator : str or None
    decimal : str or None
        None finds it out.

    Returns
    -------
    dialect : Dialect
    rows : list of list of str
        The first rows.
    """
    separator = separator or _find_separator(path)
    rows = check_rows(path, separator, _N_SNIFFED)
    decimal = decimal or _find_decimal(path, separator, rows)
    return Dialect(separator, decimal), rows


def _find_separator(path):
    """Take the separator that makes most columns numbers, unless it cuts text."""
    samples, with_commas = {}, False
    for separator in _SEPARATORS:
        try:
            rows = [row for _, row in islice(read_rows(path, separator), _N_SNIFFED)]
        except (UnicodeDecodeError, csv.Error):
            continue
        if separator == ",":
            with_commas = bool(rows) and all(len(row) > 1 for row in rows[1:])
        samples[separator] = rows or [[]]
    fitting = {}
    for separator, rows in samples.items():
        if len(set(map(len, rows))) != 1 or len(rows[0]) < 2:
            continue
        columns = list(zip(*(rows[1:] or rows), strict=True))
        if separator != "," and (with_commas or separator == WHITESPACE):
            cells = [cell for column in columns for cell in column if "," in cell]
            if not all(_are_numbers([cell]) for cell in cells):
                continue
        fitting[separator] = columns
    if fitting.keys() & {";", "\t", "|"}:
        fitting.pop(WHITESPACE, None)
    if len(fitting) > 1:
        return max(
            fitting, key=lambda mark: np.mean([*map(_are_numbers, fitting[mark])])
        )
    # Where none fits, the error names the one that cuts the first row, or the comma.
    widths = {",": np.inf, **{mark: len(rows[0]) for mark, rows in samples.items()}}
    return max(fitting or widths, key=widths.get)


def _are_numbers(cells, marks=".,"):
    cells = [cell for cell in cells if not is_missing(cell)]
    return bool(cells) and any(
        np.isfinite(as_numbers(cells, decimal)).all() for decimal in marks
    )


def _find_decimal(path, separator, rows):
    found = {}
    for column in zip(*(rows[1:] or rows), strict=True):
        cells = [cell for cell in column if "." in cell or "," in cell]
        comma, point = (_are_numbers(column, mark) for mark in ",.")
        if cells and (comma or point):
            commas = comma and point and any("," in cell for cell in cells)
            found["either" if commas else "." if point else ","] = cells[0]
    if "," in found and "." in found and separator != ",":
        raise ValueError(
            f"{str(path)!r} has columns of numbers like {found[',']!r} and like "
            f"{found['.']!r}; say with decimal=',' or decimal='.' which to read as "
            "numbers."
        )
    if "either" in found and not found.keys() & {",", "."}:
        raise ValueError(
            f"{str(path)!r} has numbers like {found['either']!r}: pass decimal=',' "
            "where the comma is the decimal mark, or decimal='.' where it sets off "
            "thousands."
        )
    return "," if "," in found and "." not in found else "."


def has_header(rows, decimal, path):
    """Whether the first row names columns rather than being data.

    Parameters
    ----------
    rows : list of list of str
        The first rows.
    decimal : {".", ","}
    path : path-like

    Returns
    -------
    header : bool
        True where text stands over all columns of numbers or, without such columns,
        where the words of the first row do not come back in their columns; also where
        the first row counts the columns, or has ascending whole numbers over other
        types.

    Warns
    -----
    UserWarning
        Where the first row is read as data but may be such numbers.
    """
    if len(rows) == 1:
        return False
    columns = list(zip(*rows, strict=True))
    over_numbers = [
        not _all_numbers(column[:1], decimal)
        for column in columns
        if _all_numbers(column[1:], decimal)
    ]
    if all(over_numbers or (column[0] not in column[1:] for column in columns)):
        return True
    counts = [int(cell) for cell in rows[0] if cell.isdecimal()]
    words = [column for column in columns if not column[0].isdecimal()]
    if (
        len(counts) < 2
        or sorted(set(counts)) != counts
        or any(_all_numbers(word[:1], decimal) or word[0] in word[1:] for word in words)
    ):
        return False
    n_different = 0
    if len(rows) > 5:
        n_different = len([w for w in words if _all_numbers(w[1:], decimal)])
        counted = (column for column in columns if column[0].isdecimal())
        n_different += sum(not any(map(str.isdecimal, c[1:])) for c in counted)
    in_order = counts == list(range(counts[0], counts[0] + len(counts)))
    if n_different > 1 or (in_order and counts[0] < 2 and len(counts) > 3):
        return True
    if (n_different or (in_order and counts[0] == 0)) and rows[0] not in rows[1:]:
        warnings.warn(
            f"The first row of {str(path)!r}, {rows[0]}, is read as data but looks "
            "like numbers of columns; say header=True if it names them, header=False "
            "if not.",
            stacklevel=2,
        )
    return False


def _all_numbers(cells, decimal):
    return np.isfinite(as_numbers(cells, decimal)).all()
