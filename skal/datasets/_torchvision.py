"""Read data sets in torchvision's layout, straight from their archives."""

import gzip
import hashlib
import os
import pickle
import tarfile
import zlib
from pathlib import Path

import numpy as np

_MNIST_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR10_FOLDER = "cifar-10-batches-py"
_CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)


def load_mnist(name, root):
    """Read MNIST or FashionMNIST.

    Parameters
    ----------
    name : {"MNIST", "FashionMNIST"}
    root : path-like or None

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        Images are uint8 of shape (n_samples, 1, 28, 28), labels int64.
    """
    root = _resolve(root)
    folder = root / name / "raw"
    if any(_find(folder, stem) is None for stem in _MNIST_STEMS):
        _download(name, root)
    splits = []
    for images_stem, labels_stem in (_MNIST_STEMS[:2], _MNIST_STEMS[2:]):
        images_path, labels_path = (
            _find(folder, stem) for stem in (images_stem, labels_stem)
        )
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28):
            raise _damaged(images_path, f"holds an array of shape {images.shape}")
        if labels.shape != images.shape[:1]:
            raise _damaged(
                labels_path,
                f"holds labels of shape {labels.shape} for {len(images)} images",
            )
        if labels.max(initial=0) > 9:
            raise _damaged(labels_path, f"holds the label {labels.max()}, 9 at most")
        splits += [images[:, None], labels.astype(np.int64)]
    return splits


def load_cifar10(root):
    """Read CIFAR10 from its folder or from the archive.

    Parameters
    ----------
    root : path-like or None

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        Images are uint8 of shape (n_samples, 3, 32, 32), labels int64.
    """
    from torchvision.datasets import CIFAR10

    root = _resolve(root)
    folder, archive = root / _CIFAR10_FOLDER, root / _CIFAR10_ARCHIVE
    if not folder.is_dir() and not archive.is_file():
        _download("CIFAR10", root)
    checksums = {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list)}
    batches = {}
    for path, content in _cifar10_files(folder, archive, list(checksums)):
        # A pickle is opened only when it is known to be the published file.
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != checksums[Path(path).name]:
            raise _damaged(path, "has another checksum than the published file")
        batches[Path(path).name] = pickle.loads(content, encoding="bytes")
    splits = []
    for listing in (CIFAR10.train_list, CIFAR10.test_list):
        parts = [batches.pop(name) for name, _ in listing]
        X = np.concatenate([part[b"data"] for part in parts])
        y = np.concatenate([part[b"labels"] for part in parts])
        splits += [X.reshape(-1, 3, 32, 32), y.astype(np.int64)]
    return splits


def read_idx(path):
    """Read an array in the idx format, gzipped or not.

    Parameters
    ----------
    path : Path
        Read through gzip when it ends in ".gz".

    Returns
    -------
    array : ndarray of uint8
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = bytearray(file.read())
    except _DAMAGE as error:
        raise _damaged(path, str(error)) from error
    n_dimensions = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * n_dimensions
    if content[:3] != b"\x00\x00\x08" or len(content) < start:
        raise _damaged(path, "does not begin like an idx file of bytes")
    shape = np.frombuffer(content, ">u4", n_dimensions, offset=4).tolist()
    if len(content) - start != (size := int(np.prod(shape, dtype=object))):
        raise _damaged(path, f"holds {len(content) - start} bytes instead of {size}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _resolve(root):
    if root is not None:
        return Path(root).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "skal"


def _find(folder, stem):
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    return None


def _cifar10_files(folder, archive, names):
    """Yield (path, content) of each file, from the folder if there is one."""
    if folder.is_dir():
        for name in names:
            path = folder / name
            if not path.is_file():
                raise _damaged(path, "is missing")
            yield path, path.read_bytes()
        return
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in names:
                yield archive / name, tar.extractfile(f"{folder.name}/{name}").read()
    except (
        EOFError,
        KeyError,
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
    ) as error:
        raise _damaged(archive, str(error)) from error


def _download(name, root):
    import torchvision.datasets

    try:
        getattr(torchvision.datasets, name)(root, download=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{name} is not under root={str(root)!r} and could not be downloaded "
            f"into it ({error}). Name a folder in torchvision's layout that has it, "
            "or connect to a network."
        ) from error


def _damaged(path, reason):
    return ValueError(
        f"{str(path)!r} is damaged: {reason}. Replace it by a whole copy, or remove it "
        "and the data set is downloaded again."
    )
