"""Read data sets in torchvision's layout, straight from their archives."""

import gzip
import hashlib
import io
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
_CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
_DAMAGE = (EOFError, KeyError, gzip.BadGzipFile, tarfile.TarError, zlib.error)


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
    root = resolve_root(root)
    folder = root / name / "raw"
    if any(_find(folder, stem) is None for stem in _MNIST_STEMS):
        _download(name, root)
    splits = []
    for images_stem, labels_stem in (_MNIST_STEMS[:2], _MNIST_STEMS[2:]):
        images_path, labels_path = (
            _find(folder, stem) for stem in (images_stem, labels_stem)
        )
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.shape[1:] != (28, 28):
            raise _damaged(images_path, f"holds an array of shape {images.shape}")
        if labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
            reason = (
                f"does not hold a label from 0 to 9 for each of {len(images)} images"
            )
            raise _damaged(labels_path, reason)
        splits += [images[:, None], labels.astype(np.int64)]
    return splits


def load_cifar(name, root):
    """Read CIFAR10 or CIFAR100 from its folder or from the archive.

    Parameters
    ----------
    name : {"CIFAR10", "CIFAR100"}
    root : path-like or None

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        Images are uint8 of shape (n_samples, 3, 32, 32), labels int64.
    classes : tuple of str
    """
    import torchvision.datasets

    listing = getattr(torchvision.datasets, name)
    root = resolve_root(root)
    folder, archive = root / listing.base_folder, root / listing.filename
    if not folder.is_dir() and not archive.is_file():
        _download(name, root)
    checksums = {**dict(listing.train_list), **dict(listing.test_list)}
    meta = listing.meta["filename"]
    if name == "CIFAR100":
        checksums[meta] = listing.meta["md5"]
    batches = _unpickle(_cifar_files(folder, archive, list(checksums)), checksums)
    key = b"labels" if name == "CIFAR10" else b"fine_labels"
    splits = []
    for files in (listing.train_list, listing.test_list):
        splits += _gather(batches, len(files), key)
    if name == "CIFAR10":
        return *splits, _CIFAR10
    names = next(batches)[listing.meta["key"].encode()]
    return *splits, tuple(text.decode() for text in names)


def _unpickle(files, checksums):
    for path, content in files:
        _check_published(path, content, checksums[Path(path).name])
        batch = pickle.loads(content, encoding="bytes")
        del content
        yield batch
        del batch


def _gather(batches, n_files, key):
    """Concatenate files of one length, holding one of them at a time."""
    X, labels = None, []
    for i in range(n_files):
        batch = next(batches)
        n = len(batch[b"data"])
        if X is None:
            X = np.empty((n_files * n, 3072), np.uint8)
        X[i * n : (i + 1) * n] = batch[b"data"]
        labels += batch[key]
        del batch
    return X.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def load_svhn(root):
    """Read SVHN, the cropped digits, without its extra images.

    Parameters
    ----------
    root : path-like or None

    Returns
    -------
    X_train, y_train, X_test, y_test : ndarray
        Images are uint8 of shape (n_samples, 3, 32, 32), labels int64.
    """
    from scipy.io import loadmat
    from torchvision.datasets import SVHN

    root = resolve_root(root)
    listing = {split: SVHN.split_list[split] for split in ("train", "test")}
    if not all((root / file).is_file() for _, file, _ in listing.values()):
        _download("SVHN", root, splits=("train", "test"))
    splits = []
    for _, file, md5 in listing.values():
        content = (root / file).read_bytes()
        _check_published(root / file, content, md5)
        content = loadmat(io.BytesIO(content))
        # (height, width, channels, n) with the rows slowest: transposed in memory.
        images = np.ascontiguousarray(content.pop("X").T)
        for start in range(0, len(images), 1024):
            block = images[start : start + 1024]
            block[...] = block.swapaxes(2, 3).copy()
        splits += [images, content["y"].ravel().astype(np.int64) % 10]
    return splits


def _check_published(path, content, md5):
    """Raise unless bytes are the published ones, which may be unpickled."""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise _damaged(path, "has another checksum than the published file")


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


def resolve_root(root):
    """Folder of the data sets; None stands for the cache of skal.

    Parameters
    ----------
    root : path-like or None

    Returns
    -------
    root : Path
    """
    if root is not None:
        return Path(root).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "skal"


def _find(folder, stem):
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    return None


def _cifar_files(folder, archive, names):
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
    except _DAMAGE as error:
        raise _damaged(archive, str(error)) from error


def _download(name, root, splits=None):
    import torchvision.datasets

    fetch = getattr(torchvision.datasets, name)
    try:
        for options in [{"split": split} for split in splits or ()] or [{}]:
            fetch(root, download=True, **options)
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
