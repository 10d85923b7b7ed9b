"""Load a data set by its name."""

import difflib

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from skal.datasets._augment import CropFlip
from skal.datasets._torchvision import load_cifar10, load_mnist
from skal.utils import check_seed, derive_seed

# The command line reads this tuple without importing the module.
DATASETS = ("digits", "MNIST", "FashionMNIST", "CIFAR10")

_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


def load_dataset(name, root=None, *, random_state=0):
    """Load the training and test images of a data set.

    Parameters
    ----------
    name : {"digits", "MNIST", "FashionMNIST", "CIFAR10"}
        "digits" comes with scikit-learn and is split 80/20, stratified; the others
        have their own test split.
    root : path-like, default=None
        Folder in torchvision's layout: `<root>/FashionMNIST/raw`,
        `<root>/cifar-10-batches-py` or `<root>/cifar-10-python.tar.gz`. Archives are
        read where they lie and nothing is written; only a data set that is not there
        is downloaded into `root`. None stands for `~/.cache/skal`.
    random_state : int, default=0
        Seed of the split where one is drawn.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        X_train, X_test : ndarray of shape (n_samples, n_channels, height, width)
            uint8, or float32 in [0, 1] for "digits".
        y_train, y_test : ndarray of int64 of shape (n_samples,)
            Positions in `classes`.
        classes : tuple of str
            Names of the classes.
        name : str
            As given.
        image_shape : tuple of int
            (n_channels, height, width).
        mean, std : ndarray of shape (n_channels,)
            Of the training images, in the units of X: divide by 255 to compare bytes
            with published constants. See :class:`skal.models.Standardized`.
        augmentation : CropFlip or None
            What may change the images of a training batch, for skorch's
            `iterator_train__collate_fn`; None where a change could change the class.
        train_indices, test_indices : ndarray of int64, or None
            Rows of the whole data set, where the split was drawn.

    Examples
    --------
    >>> from skal.datasets import load_dataset
    >>> data = load_dataset("digits")
    >>> data.X_train.shape, data.X_test.shape
    ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    if name not in DATASETS:
        raise ValueError(_unknown(name))
    if name == "digits":
        return _digits(random_state)
    if name == "CIFAR10":
        splits, classes = load_cifar10(root), _CIFAR10
        augmentation = CropFlip(padding=4, flip=True)
    else:
        splits = load_mnist(name, root)
        classes = _FASHION if name == "FashionMNIST" else _DIGITS
        augmentation = None
    return _bunch(name, *splits, classes=classes, augmentation=augmentation)


def _unknown(name):
    by_folded = {allowed.casefold(): allowed for allowed in DATASETS}
    near = difflib.get_close_matches(str(name).casefold(), by_folded, n=1)
    hint = f" Did you mean {by_folded[near[0]]!r}?" if near else ""
    return f"Unknown data set {name!r}; name must be one of {DATASETS}.{hint}"


def _digits(random_state):
    digits = load_digits()
    X = (digits.images / 16).astype(np.float32)[:, None]
    y = digits.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(X)),
        test_size=0.2,
        stratify=y,
        random_state=derive_seed(check_seed(random_state), 0, "split"),
    )
    train, test = np.sort(train), np.sort(test)
    splits = X[train], y[train], X[test], y[test]
    return _bunch(
        "digits", *splits, classes=_DIGITS, train_indices=train, test_indices=test
    )


def _bunch(
    name,
    X_train,
    y_train,
    X_test,
    y_test,
    *,
    classes,
    augmentation=None,
    train_indices=None,
    test_indices=None,
):
    mean, std = _moments(X_train)
    return Bunch(
        X_train=X_train,
        y_train=y_train,
        X_test=X_test,
        y_test=y_test,
        classes=classes,
        name=name,
        image_shape=X_train.shape[1:],
        mean=mean,
        std=std,
        augmentation=augmentation,
        train_indices=train_indices,
        test_indices=test_indices,
    )


def _moments(X):
    """Mean and standard deviation of each channel, without a float copy of bytes."""
    if X.dtype != np.uint8:
        return (
            X.mean(axis=(0, 2, 3), dtype=np.float64),
            X.std(axis=(0, 2, 3), dtype=np.float64),
        )
    levels = np.arange(256)
    counts = [np.bincount(X[:, c].ravel(), minlength=256) for c in range(X.shape[1])]
    mean = np.array([np.average(levels, weights=n) for n in counts])
    std = [
        np.sqrt(np.average((levels - m) ** 2, weights=n))
        for m, n in zip(mean, counts, strict=True)
    ]
    return mean, np.array(std)
