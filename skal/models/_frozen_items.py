"""What a backbone is shown, item by item: arrays, image files, a Dataset, texts."""

import os
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from skal.datasets import image_paths, read_image
from skal.utils.rows import (
    DatasetRows,
    as_rows,
    frame_to_array,
    is_dataset,
    is_frame,
    native,
)


def find_items(X, takes):
    """Find out what X is.

    Parameters
    ----------
    X : array, list, folder or Dataset
        As for `FrozenFeatures.transform`.
    takes : {"images", "texts", "rows"}
        What the backbone is made for; "rows" are whatever arrays it can take.

    Returns
    -------
    items : items
        `len` counts them, `read(row)` gives one, `key(row)` a number that tells its
        content, and `source(row)`, of files alone, one that tells the path.
    """
    if isinstance(X, str | os.PathLike):
        if takes == "texts":
            raise ValueError(f"X must be a list of texts, got the one text {X!r}.")
        return _Files(image_paths(X))
    if is_dataset(X):
        if takes == "texts":
            raise ValueError("X must be a list of texts, got a Dataset.")
        return _DatasetItems(X)
    if is_frame(X):
        cells = np.asarray(X)
        names = cells.shape[1:] == (1,) and cells.dtype.kind in "OUT"
        X = frame_to_array(X) if takes == "rows" and not names else cells
    elif hasattr(X, "iloc"):  # a Series, whose index may be any
        X = X.tolist()
    elif not isinstance(X, list | tuple):
        refuse_others(X)
        X = as_rows(X)
        if getattr(X, "shape", None) == ():
            raise ValueError(f"X must have rows, got the one number {X!r}.")
    if getattr(X, "shape", ())[1:] == (1,) and X.dtype.kind in "OUT":
        X = X[:, 0]
    names = len(X) > 0 and isinstance(X[0], str | os.PathLike)
    if takes == "texts":
        if len(X) and not all(isinstance(text, str) for text in X):
            raise ValueError(
                "X must be a list of texts, for the backbone reads texts, got items of "
                f"type {type(X[0]).__name__}."
            )
        return _Texts(X)
    return _Files(X) if names else _Arrays(X)


def refuse_others(X):
    """Raise where X is what no backbone takes."""
    if sparse.issparse(X):
        raise TypeError(
            "X is a sparse matrix, which no backbone takes; pass X.toarray()."
        )
    if isinstance(X, dict):
        raise TypeError("X is a dict, which no backbone takes; pass one of its parts.")


def _number(*parts):
    """Hash bytes and texts to a number of 64 bits."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return int.from_bytes(digest.digest(), "little")


def _number_of_array(x):
    x = np.ascontiguousarray(x)
    return _number(f"{x.dtype.str} {x.shape}", x)


class _Arrays:
    """Rows of an array, or a list of arrays; images come channels first."""

    def __init__(self, X):
        self.X = X
        self.channels_last = getattr(X, "ndim", 0) == 4 and _is_last(X.shape[1:])

    def __len__(self):
        return len(self.X)

    def _row(self, row):
        x = self.X[row]
        x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise ValueError(
                f"row {row} of X is of type {type(self.X[row]).__name__}, dtype "
                f"{x.dtype}, and no array of numbers; pass images, or names of image "
                "files."
            )
        last = self.channels_last or (isinstance(self.X, list) and _is_last(x.shape))
        return x.transpose(2, 0, 1) if last else x

    def read(self, row):
        return torch.from_numpy(native(np.array(self._row(row))))

    def key(self, row):
        return _number_of_array(self._row(row))


def _is_last(shape):
    """Whether an image has its channels last."""
    return len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)


class _Files:
    """Image files, read when they are asked for."""

    def __init__(self, paths):
        self.paths = [str(path) for path in paths]
        for path in self.paths:
            if not os.path.isfile(path):
                shown = path if len(path) <= 60 else path[:60] + "..."
                raise ValueError(
                    f"X holds {shown!r}, which is no file: the backbone takes images, "
                    "so texts must be names of image files. For texts take an encoder "
                    "of texts, transformers:NAME."
                )

    def __len__(self):
        return len(self.paths)

    def read(self, row):
        return torch.from_numpy(read_image(self.paths[row]))

    def key(self, row):
        path = Path(self.paths[row]).resolve()
        about = path.stat()
        return _number(os.fsencode(path), f"{about.st_size} {about.st_mtime_ns}")

    def source(self, row):
        return _number(os.fsencode(Path(self.paths[row]).resolve()))


class _DatasetItems:
    """Items of a Dataset, without their labels; a PIL image becomes a tensor."""

    def __init__(self, X):
        self.rows = DatasetRows(X, np.arange(len(X)))

    def __len__(self):
        return len(self.rows)

    def read(self, row):
        x, _ = self.rows[row]
        if isinstance(x, torch.Tensor):
            return x.detach().clone()  # preprocess may write to it
        x = np.array(x)
        if x.dtype.kind not in "biuf":
            raise ValueError(
                f"item {row} of X is no image, but of type {x.dtype}; let the Dataset "
                "give tensors, arrays or PIL images."
            )
        x = x[None] if x.ndim == 2 else x
        x = x.transpose(2, 0, 1) if _is_last(x.shape) else x
        return torch.from_numpy(native(x))

    def key(self, row):
        return _number_of_array(self.read(row).detach().cpu().numpy())


class _Texts:
    """Texts as they are."""

    def __init__(self, texts):
        self.texts = [str(text) for text in texts]

    def __len__(self):
        return len(self.texts)

    def read(self, row):
        return self.texts[row]

    def key(self, row):
        return _number(self.texts[row])
