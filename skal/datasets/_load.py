"""Load a data set by its name."""

import difflib
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from skal.datasets._augment import CropFlip
from skal.datasets._dialect import check_dialect
from skal.datasets._images import load_folder, load_npz
from skal.datasets._openml import load_openml
from skal.datasets._split import check_test_size, moments, split_arrays
from skal.datasets._tabular import load_table
from skal.datasets._torchvision import load_cifar, load_mnist, load_svhn, resolve_root
from skal.utils import check_seed, derive_seed

# The command line reads this tuple without importing the module.
DATASETS = ("digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN")

_ABSENT = dict.fromkeys(
    ("augmentation", "train_indices", "test_indices", "feature_names")
)
_DIGITS = tuple("0123456789")
_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"


def load_dataset(
    name: str | os.PathLike,
    root: str | os.PathLike | None = None,
    *,
    test_path: str | os.PathLike | None = None,
    label_column: int | str = -1,
    header: bool | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    missing_labels: str | Collection[str] | None = None,
    background: str = "white",
    test_size: float = 0.2,
    random_state: int = 0,
) -> Bunch:
    """Load the training and test rows of a data set.

    Parameters
    ----------
    name : str or path-like
        One of

        * "digits", which comes with scikit-learn and is split;
        * "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100" or "SVHN", which have their
          own test rows;
        * "openml:ID", the number of a data set on https://openml.org, which is split;
        * the path of an .npz archive with `images`, uint8 of shape (n, height, width),
          (n, height, width, channels) or (n, channels, height, width), and `labels`;
        * the path of a folder with one folder of image files for each class, as
          torchvision's ImageFolder has it, without hidden files and folders;
        * the path of a .parquet file, for which pyarrow must be installed;
        * the path of a text file of separated columns in UTF-8, whatever its ending.

        Paths are looked up as they are, then below `root`. A name wins over a file:
        write "./digits" for a folder of that name.
    root : path-like, default=None
        Folder in torchvision's layout: `<root>/FashionMNIST/raw`,
        `<root>/cifar-10-batches-py` or `<root>/cifar-10-python.tar.gz`. Archives are
        read where they lie and nothing is written; only a data set that is not there
        is downloaded into `root`. None stands for `~/.cache/skal`.
    test_path : path-like, default=None
        Test rows for a path, of the same kind; None splits them off.
    label_column : int or str, default=-1
        Column of the labels in a table: a position, or a name in its header. For OpenML
        a name, -1 for the target it has itself.
    header : bool, default=None
        Whether the first row of a text file names the columns. None takes it for names
        where it has text over all columns of numbers; or, where none of its words
        comes back in its column, where it has words only, whole numbers over fractions
        only, or whole numbers that count up from 0 or 1 in four columns or more. Where
        it may be such numbers but need not, a warning says so.
    separator : str, default=None
        Character between the columns of a text file, "tab", or "whitespace" for any
        number of blanks and tabs. None takes the one of comma, semicolon, tab, | and
        whitespace that gives all rows the same columns and leaves the fewest of them
        text; where two of them do, it raises.
    decimal : {".", ","}, default=None
        Decimal mark of a text file; the other one, blanks and apostrophes may set off
        thousands. None takes the one that makes numbers of columns, and raises where
        columns disagree or where "1,234" may be either.
    missing_labels : str or collection of str, default=None
        Texts that stand for a missing label, which is an error, in a table or an .npz
        archive. None stands for the usual marks, in any case: an empty cell, ?, -, .,
        NA, N/A, #N/A, <NA>, NaN, NaT, null, None and their like. Where a class has
        such a name, say what the marks are instead: "" for empty cells only.
    background : str, default="white"
        Colour under transparent images of a folder, as Pillow names colours: "black",
        "#8080ff". An image that vanishes on it is an error.
    test_size : float or int, default=0.2
        Share or number of test rows where they are split off, stratified. A class of
        one row goes to the training rows, with a warning.
    random_state : int, default=0
        Seed of the split where one is drawn.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        X_train, X_test : ndarray, or Dataset for a large folder of images
            Images are uint8 of shape (n_samples, n_channels, height, width), float32
            in [0, 1] for "digits". Tables are float32 of shape (n_samples, n_features).
            Folders of more than half a gigabyte are Datasets that read a file when it
            is asked for.
        y_train, y_test : ndarray of int64 of shape (n_samples,)
            Positions in `classes`.
        classes : tuple of str
            Names of the classes: of a file sorted, by value where all are numbers, and
            as they are written: "007", "7" and "7.0" are three classes. Only where all
            are written like 1.0 they are named like 1.
        name : str
            As given.
        image_shape : tuple of int
            Shape of a row: (n_channels, height, width), or (n_features,).
        mean, std : ndarray of shape (n_channels,) or (n_features,)
            Of the training rows, in the units of X: divide by 255 to compare bytes
            with published constants. The `std` of a constant is 1. See
            :class:`skal.models.Standardized`.
        augmentation : CropFlip or None
            What may change the images of a training batch, for skorch's
            `iterator_train__collate_fn`: shifts of colour images, and flips where
            they are known to keep the class, in CIFAR10 and CIFAR100. Where you know
            it of your own images, set ``data.augmentation.flip = True``.
        train_indices, test_indices : ndarray of int64, or None
            Rows of the whole data set, where the split was drawn.
        feature_names : list of str, or None
            Columns of a table; "column=value" where text was encoded.

    Notes
    -----
    A column of text becomes one column of 0 and 1 for each text of the training rows; a
    text that only test rows have becomes zeros. A column of numbers and text is an
    error where at most a twentieth of it is text or it has more than 50 different
    numbers, since this is more likely a slip or a missing value than a category.

    Orientation tags of photos (EXIF) are ignored, as in torchvision.

    Images are kept as bytes, once: a split reorders them in their own memory.

    Examples
    --------
    >>> from skal.datasets import load_dataset
    >>> data = load_dataset("digits")
    >>> data.X_train.shape, data.X_test.shape
    ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    check_test_size(test_size)
    split = test_size, derive_seed(check_seed(random_state), 0, "split")
    dialect = check_dialect(separator, decimal)
    _check_background(background)
    name = os.fspath(name)
    kind, path = _find(name, root)
    options = {
        "header": (header, None, ("text",)),
        "separator": (separator, None, ("text",)),
        "decimal": (decimal, None, ("text",)),
        "label_column": (label_column, -1, ("text", "parquet", "openml")),
        "missing_labels": (missing_labels, None, ("text", "parquet", "openml", "npz")),
        "background": (background, "white", ("folder",)),
        "test_path": (test_path, None, _KINDS),
    }
    for option, (value, default, kinds) in options.items():
        if value != default and kind not in kinds:
            shown = os.fspath(value) if isinstance(value, os.PathLike) else value
            raise ValueError(
                f"{option}={shown!r} does not apply to the data set {name!r}; "
                f"leave it at {default}."
            )
    if test_path is not None:
        test_kind, test_path = _find(os.fspath(test_path), root, "test_path")
        if test_kind != kind:
            raise ValueError(
                f"test_path={str(test_path)!r} must be of the same kind as "
                f"name={name!r}: {_KINDS[kind]}."
            )
    if kind == "named":
        parts = _load_named(name, root, split)
    elif kind == "openml":
        home = resolve_root(root)
        parts = load_openml(name, home, label_column, missing_labels, split)
    elif kind == "npz":
        parts = load_npz(path, test_path, missing_labels, split)
    elif kind == "folder":
        parts = load_folder(path, test_path, background, split)
    else:
        columns = label_column, header, dialect
        parts = load_table(path, test_path, *columns, missing_labels, split)
    X = parts["X_train"]
    mean, std = moments(X)
    return Bunch(
        **{**_ABSENT, **parts},
        name=name,
        image_shape=X.shape[1:] if isinstance(X, np.ndarray) else X.image_shape,
        mean=mean,
        std=std,
    )


def _check_background(background):
    from PIL import ImageColor

    try:
        ImageColor.getrgb(background)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"background={background!r} must be a colour as Pillow names them, such as "
            "'white' or '#8080ff'."
        ) from None


_KINDS = {
    "npz": "an .npz archive",
    "folder": "a folder of images by class",
    "parquet": "a .parquet file",
    "text": "a text file of separated columns",
}


def _find(name, root, parameter="name"):
    """Kind of a data set, and its path where it has one."""
    if parameter == "name" and name in DATASETS:
        return "named", None
    if parameter == "name" and name.startswith("openml:"):
        return "openml", None
    tried = [Path(name).expanduser()]
    if root is not None:
        tried.append(Path(root).expanduser() / tried[0])
    for path in tried if name else ():
        if path.is_dir():
            return "folder", path
        if path.exists():
            ending = path.suffix.lower().removeprefix(".")
            return (ending if ending in ("npz", "parquet") else "text"), path
    if parameter == "name" and not any(mark in name for mark in ("/", os.sep, ".")):
        by_folded = {allowed.casefold(): allowed for allowed in DATASETS}
        near = difflib.get_close_matches(name.casefold(), by_folded, n=1)
        hint = f" Did you mean {by_folded[near[0]]!r}?" if near else ""
        raise ValueError(
            f"Unknown data set {name!r}; name must be one of {DATASETS}, openml:ID or "
            f"the path of a file or folder.{hint}"
        )
    below = f", nor below root={str(root)!r}" if root is not None else ""
    raise FileNotFoundError(
        f"{parameter}={name!r} does not exist{below}. Name a file or folder that does."
    )


def _load_named(name, root, split):
    augmentation = None
    if name == "digits":
        digits = load_digits()
        X = (digits.images / 16).astype(np.float32)[:, None]
        y = digits.target.astype(np.int64)
        return {**split_arrays(X, y, _DIGITS, *split), "classes": _DIGITS}
    if name.startswith("CIFAR"):
        *splits, classes = load_cifar(name, root)
        augmentation = CropFlip(padding=4, flip=True)
    elif name == "SVHN":
        splits, classes = load_svhn(root), _DIGITS
        augmentation = CropFlip(padding=4, flip=False)
    else:
        splits = load_mnist(name, root)
        classes = tuple(_FASHION.split(",")) if name == "FashionMNIST" else _DIGITS
    keys = ("X_train", "y_train", "X_test", "y_test")
    parts = dict(zip(keys, splits, strict=True))
    return {**parts, "classes": classes, "augmentation": augmentation}
