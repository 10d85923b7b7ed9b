"""Where the items are: a folder of images, a file of texts, a table."""

import json
import os
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd

from skal.annotate.images import fault_of
from skal.annotate.records import read_records
from skal.experiment.options import UsageError, unknown
from skal.utils.files import find_images

_PART = 2**16
_LARGEST = 1e150  # Squares of larger numbers overflow.
TEXT_FILES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet")


class Listing(NamedTuple):
    """The items that a source has now.

    Parameters
    ----------
    names, contents, stamps : list of str
        Names, hashes of the contents, and what tells that these are as they were.
    """

    names: list
    contents: list
    stamps: list


class ImageSource:
    """A folder of images, of any sizes, read when they are needed.

    Parameters
    ----------
    path : Path
    """

    kind = "images"

    def __init__(self, path):
        self.path = path

    def listing(self, known):
        """List the images; only those that are new or changed are opened.

        Parameters
        ----------
        known : dict of str to tuple
            (stamp, content) by name.

        Returns
        -------
        listing : Listing
        """
        names, contents, stamps = find_images(self.path), [], []
        for name in names:
            try:
                name.encode()
                about = (self.path / name).stat()
                stamp = f"{about.st_size} {about.st_mtime_ns}"
                old_stamp, content = known.get(name, ("", ""))
                if stamp != old_stamp:
                    content = _hash_file(self.path / name, about.st_size)
            except UnicodeEncodeError:
                raise UsageError(
                    f"the file {name!r} has a name that is no UTF-8; rename it."
                ) from None
            except OSError:  # a link to nothing, or not to be read: a fault
                stamp, content = "", f"of {name}"
            contents.append(content)
            stamps.append(stamp)
        return Listing(names, contents, stamps)

    def faults(self, names):
        """Find the files whose head cannot be read.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        faults : dict of str to str
            Reasons by name.
        """
        faults = {name: fault_of(self.path / name) for name in names}
        return {name: fault for name, fault in faults.items() if fault}

    def raw(self, names):
        """Give what a model takes: the paths.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        paths : list of str
        """
        return [os.fspath(self.path / name) for name in names]

    def describe(self, names):
        """Give what a person looks at, as columns of a table.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        columns : DataFrame
        """
        return pd.DataFrame(index=range(len(names)))


def _hash_file(path, size):
    """Hash size, begin and end: large photos are not read whole."""
    digest = blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as file:
        digest.update(file.read(_PART))
        if size > _PART:
            file.seek(max(_PART, size - _PART))
            digest.update(file.read())
    return digest.hexdigest()


class RowSource:
    """A file of rows, held in memory: texts, where a column of them is named.

    Parameters
    ----------
    path : Path
    text_column : str, default=None
        None for a table.
    """

    def __init__(self, path, text_column=None):
        self.path, self.text_column = path, text_column
        self.kind = "table" if text_column is None else "texts"
        self.frame = read_frame(path, text_column)

    def listing(self, known):
        """List the rows, by number from 0; see `ImageSource`."""
        rows = self.frame.itertuples(index=False)
        texts = ("\x1f".join(map(_as_text, row)) for row in rows)
        contents = [blake2b(t.encode(), digest_size=16).hexdigest() for t in texts]
        return Listing(list(map(str, self.frame.index)), contents, [""] * len(contents))

    def faults(self, names):
        """Find empty texts, and numbers no model takes; see `ImageSource`."""
        if self.kind == "table":
            frame = self.frame.loc[list(map(int, names))]
            frame = frame.select_dtypes("number", exclude="timedelta")
            numbers = frame.to_numpy(dtype=float, na_value=np.nan)
            return {
                names[row]: f"the number {float(numbers[row, column])!r} in column "
                f"{frame.columns[column]!r} is too large for a model"
                for row, column in np.argwhere(np.abs(numbers) > _LARGEST)
            }
        texts = zip(names, self.raw(names), strict=True)
        return {name: "the text is empty" for name, text in texts if not text.strip()}

    def raw(self, names):
        """Give what a model takes: a list of texts, or a DataFrame."""
        rows = self.frame.loc[list(map(int, names))]
        if self.kind == "table":
            return rows
        return rows[self.text_column].tolist()

    def sentences(self):
        """List the columns of a table that hold sentences, which no model reads so.

        Returns
        -------
        columns : list of str
        """
        texts = self.frame.select_dtypes(exclude="number").astype(str)
        return [
            name
            for name in texts
            if texts[name].str.count(" ").mean() >= 3
            and texts[name].nunique() > len(texts) / 2
        ]

    def describe(self, names):
        """Give the columns of the file; see `ImageSource`."""
        return self.frame.loc[list(map(int, names))].reset_index(drop=True)


def _as_text(cell):
    """Write a cell, the same whatever else is in its column."""
    try:
        return repr(float(cell))
    except (TypeError, ValueError):
        return str(cell)


def read_frame(path, text_column=None):
    """Read a file of rows.

    Parameters
    ----------
    path : Path
    text_column : str, default=None
        Only that column is read, as text.

    Returns
    -------
    frame : DataFrame
    """
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path).reset_index(drop=True)
        elif kind in (".json", ".jsonl"):
            frame = pd.DataFrame([record for _, record in read_records(path)])
        elif kind == ".txt" and text_column == "text":
            # Other marks than the end of a line are part of a text.
            text = path.read_text(encoding="utf-8-sig")
            lines = text.removesuffix("\n").split("\n") if text else []
            frame = pd.DataFrame({"text": lines}, dtype=object)
        elif text_column is None:
            frame = _read_table(path)
        else:
            frame = pd.DataFrame([record for _, record in read_records(path)])
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8 ({error}); save it so.") from None
    except ImportError as error:
        raise UsageError(f"{path} needs a package: pip install pyarrow.") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not len(frame):
        raise UsageError(f"{path} has no rows; name a file that has some.")
    frame.columns = frame.columns.map(str)
    if text_column is None:
        return frame
    if text_column not in frame:
        raise UsageError(f"--text-column cannot be {unknown(text_column, frame)}.")
    texts = frame[text_column].astype(object)
    return texts.where(texts.notna(), "").map(str).to_frame()


def _read_table(path):
    from skal.datasets import find_dialect, has_header  # loads torch

    dialect, rows = find_dialect(path, None, None)
    header = has_header(rows, dialect.decimal, path)
    return pd.read_csv(
        path,
        sep=dialect.separator,
        decimal=dialect.decimal,
        header=0 if header else None,
        skipinitialspace=True,
        encoding="utf-8-sig",
    )


def find_source(path, text_column=None):
    """Find out what a path holds.

    Parameters
    ----------
    path : Path
    text_column : str, default=None
        Of a file with several columns.

    Returns
    -------
    source : ImageSource or RowSource
    """
    if path.is_dir():
        if text_column is not None:
            raise UsageError(f"{path} is a folder of images; leave out --text-column.")
        return ImageSource(path)
    if not path.exists():
        raise UsageError(f"there is no {path}; name a folder of images or a file.")
    if path.suffix.lower() not in TEXT_FILES:
        raise UsageError(
            f"{path} is neither a folder of images nor a file of rows "
            f"({', '.join(TEXT_FILES)})."
        )
    if path.suffix.lower() == ".txt" and text_column is None:
        text_column = "text"
    return RowSource(path, text_column)


def show_json(value):
    """Write a value of a table as JSON can hold it.

    Parameters
    ----------
    value : object

    Returns
    -------
    value : object
    """
    value = value.item() if isinstance(value, np.generic) else value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return None if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
    return value
