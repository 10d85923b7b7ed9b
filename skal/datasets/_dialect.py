"""How a text file of rows is written: separator, decimal mark and header."""

import csv
import os
import re
import warnings
from itertools import islice
from typing import NamedTuple

import numpy as np

WHITESPACE = r"\s+"
_SEPARATORS = (",", ";", "\t", "|", WHITESPACE)
_WORDS = {"tab": "\t", "\\t": "\t", "whitespace": WHITESPACE, " ": WHITESPACE}
_N_SNIFFED = 1000
_THOUSANDS = "[,'’ \u00a0\u202f]"
_NUMBER = re.compile(
    rf"[+-]?(\d+|[1-9]\d{{0,2}}({_THOUSANDS})\d{{3}}(\2\d{{3}})*|(?=\.\d))(\.\d*)?"
    r"(e[+-]?\d+)?",
    re.IGNORECASE,
)
_SWAPPED = str.maketrans(".,", ",.")
# Casefolded; what pandas, R, SQL and spreadsheets write.
_MISSING = frozenset(
    "|?|-|--|.|na|n/a|n.a.|#n/a|#na|#n/a n/a|<na>|nan|-nan|nat|null|<null>|#null!|none"
    "|\\n".split("|")
)


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
    dialect : Dialect
        None in place of what is to be found out.
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
    return Dialect(separator, decimal)


def is_missing(text):
    """Whether a text usually stands for a missing value.

    Parameters
    ----------
    text : str

    Returns
    -------
    missing : bool
    """
    return text.casefold() in _MISSING


def as_numbers(texts, decimal="."):
    """Read numbers in the range of single precision; NaN for all else.

    Parameters
    ----------
    texts : sequence of str of length n_samples
    decimal : {".", ","}, default="."
        The other one, a blank or an apostrophe may set off groups of three digits.

    Returns
    -------
    values : ndarray of float64 of shape (n_samples,)
    """
    if decimal == ",":
        texts = [text.translate(_SWAPPED) for text in texts]
    values = np.array(
        [
            float(re.sub(_THOUSANDS, "", text)) if _NUMBER.fullmatch(text) else np.nan
            for text in texts
        ]
    )
    return np.where(abs(values) <= np.finfo(np.float32).max, values, np.nan)


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
        As many as in the first row, or it raises.
    """
    shown = "whitespace" if separator == WHITESPACE else repr(separator)
    first = None
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines, delimiter = file, separator
            if separator == WHITESPACE:
                lines, delimiter = (" ".join(line.split()) + "\n" for line in file), " "
            reader = csv.reader(
                lines, delimiter=delimiter, skipinitialspace=True, strict=True
            )
            for row in reader:
                if not row or row == [""]:
                    continue
                first = first or (reader.line_num, len(row))
                if len(row) != first[1]:
                    raise ValueError(
                        f"{str(path)!r}, separated by {shown}, has {len(row)} columns "
                        f"in line {reader.line_num} and {first[1]} in line {first[0]}; "
                        "give every row the same columns, or say what separates them, "
                        "as in separator=';'."
                    )
                yield reader.line_num, [cell.strip() for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as text separated by {shown} ({error}). "
            "Save it as UTF-8, with whole quotes. A name may also be a .parquet file, "
            "an .npz archive or a folder of images by class."
        ) from error


def find_dialect(
    path: str | os.PathLike, separator: str | None, decimal: str | None
) -> tuple[Dialect, list[list[str]]]:
    """Find out how a file is written from its first rows.

    Parameters
    ----------
    path : path-like
    separator : str or None
        None takes the one that gives all rows the same columns, two at least, and
        leaves the fewest of them text, where text with another such separator in it
        counts twice. Blanks yield to all others but a comma with more text.
    decimal : str or None
        None takes the one that makes numbers of columns.

    Returns
    -------
    dialect : Dialect
    rows : list of list of str
        The first rows.
    """
    samples, faults = {}, []
    for mark in (separator,) if separator else _SEPARATORS:
        try:
            rows = [row for _, row in islice(read_rows(path, mark), _N_SNIFFED)]
        except ValueError as error:
            faults.append(error)
            continue
        if not rows:
            raise ValueError(f"{str(path)!r} is empty: it must hold rows of data.")
        if len(rows[0]) > 1:
            samples[mark] = rows
    if faults and not samples:
        raise faults[0]
    if not samples:
        raise ValueError(
            f"{str(path)!r} has one column only ({rows[0][0][:40]!r}): columns must "
            "be separated by commas, semicolons, tabs, | or whitespace; or say by "
            "what, as in separator=':'."
        )
    if samples.keys() - {",", WHITESPACE}:
        samples.pop(WHITESPACE, None)
    columns = {
        mark: list(zip(*(rows[1:] or rows), strict=True))
        for mark, rows in samples.items()
    }
    costs = {}
    for mark in columns:
        texts = [cells for cells in columns[mark] if not _marks(cells)]
        costs[mark] = len(texts)
        costs[mark] += sum(any(m in "".join(cells) for m in samples) for cells in texts)
    best = [mark for mark in costs if costs[mark] == min(costs.values())]
    if best[1:] and best[1:] != [WHITESPACE]:
        raise ValueError(
            f"{str(path)!r} may be separated by {best[0]!r} or by {best[1]!r}; say "
            f"which it is, as in separator={best[0]!r}."
        )
    decimal = decimal or _find_decimal(path, columns[best[0]])
    return Dialect(best[0], decimal), samples[best[0]]


def _marks(cells):
    """Decimal marks that make numbers of all cells, but for missing ones."""
    cells = [cell for cell in cells if not is_missing(cell)]
    return [m for m in ".," if cells and np.isfinite(as_numbers(cells, m)).all()]


def _find_decimal(path, columns):
    found = {}
    for cells in columns:
        cells = [cell for cell in cells if "," in cell or "." in cell]
        if cells and (marks := _marks(cells)):
            either = len(marks) == 2 and any("," in cell for cell in cells)
            found["either" if either else marks[0]] = cells[0]
    if {",", "."} <= found.keys() or found.keys() == {"either"}:
        numbers = " and like ".join(map(repr, found.values()))
        raise ValueError(
            f"{str(path)!r} has numbers like {numbers}: pass decimal=',' where the "
            "comma is the decimal mark, or decimal='.' where it sets off thousands."
        )
    return "," if "," in found else "."


def has_header(rows: list[list[str]], decimal: str, path: str | os.PathLike) -> bool:
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
        True for text over all columns of numbers. Else, where none of its words comes
        back in its column, for words only, for whole numbers over fractions, and where
        the whole numbers count from 0 or 1, in a row of four cells at least.

    Warns
    -----
    UserWarning
        Where the first row is read as data but may be such numbers.
    """
    top, *below = rows
    columns = list(zip(*below, strict=True))
    numeric = [i for i, cells in enumerate(columns) if decimal in _marks(cells)]
    numbers = [i for i in numeric if _marks([top[i]])]
    if numeric and not numbers:
        return True
    words = [i for i in range(len(columns)) if i not in numeric]
    # "0.0,1.0,2.0" count, too: pandas writes column numbers that once were floats.
    counts = {i: cell.removesuffix(".0") for i, cell in enumerate(top)}
    counts = {i: int(cell) for i, cell in counts.items() if cell.isdecimal()}
    whole = [i for i in numbers if i in counts]
    if (
        top in below
        or not below
        or whole != numbers
        or any(top[i] in columns[i] for i in words)
    ):
        return False
    over_fractions = [
        i
        for i in whole
        if top[i].isdecimal() and not any(map(str.isdecimal, columns[i]))
    ]
    numbered = list(counts.values())
    start = numbered[0] if set(np.diff(numbered)) == {1} else None
    if over_fractions == whole or (start in (0, 1) and len(top) > 3):
        return True
    if over_fractions or start == 0:
        warnings.warn(
            f"The first row of {str(path)!r}, {top}, is read as data but looks like "
            "numbers of columns; say header=True if it names them, header=False if "
            "not.",
            stacklevel=2,
        )
    return False
