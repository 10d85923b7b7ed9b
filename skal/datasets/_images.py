"""Images of the user's own: an .npz archive, or a folder of files by class."""

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from skal.datasets._augment import CropFlip
from skal.datasets._split import encode_labels, split_arrays, split_rows
from skal.utils.files import IMAGES, find_images, is_hidden

_IN_MEMORY = 512 * 2**20
_N_SAMPLED = 5000
_BLOCK = 256
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def load_npz(path, test_path, missing_labels, split):
    """Read `images` and `labels` from an .npz archive.

    Parameters
    ----------
    path, test_path : Path
        None for `test_path` splits the rows.
    missing_labels : str, collection of str, or None
    split : tuple of (test_size, seed)

    Returns
    -------
    parts : dict
        The data; images are uint8 of shape (n_samples, n_channels, height, width).
    """
    X, labels = _read_npz(path)
    y, classes = encode_labels(labels, f"name={str(path)!r}", missing_labels)
    common = {"classes": classes, "augmentation": augmentation_for(X.shape[1:])}
    if test_path is None:
        return {**split_arrays(X, y, classes, *split), **common}
    X_test, labels = _read_npz(test_path)
    if X_test.shape[1:] != X.shape[1:]:
        raise ValueError(
            f"test_path={str(test_path)!r} has images of shape {X_test.shape[1:]} "
            f"(channels, height, width), {str(path)!r} of {X.shape[1:]}; bring them to "
            "one shape."
        )
    where = f"test_path={str(test_path)!r}"
    y_test, _ = encode_labels(labels, where, missing_labels, classes)
    return {"X_train": X, "y_train": y, "X_test": X_test, "y_test": y_test, **common}


def augmentation_for(image_shape):
    """Choose what may change images of unknown content: shifts of coloured ones.

    Parameters
    ----------
    image_shape : tuple of int
        (n_channels, height, width).

    Returns
    -------
    augmentation : CropFlip or None
        Never flips: the images may show letters or signs.
    """
    n_channels, height, width = image_shape
    if n_channels < 3:
        return None
    return CropFlip(padding=max(1, min(height, width) // 8), flip=False)


def channels_first(images):
    """Reorder (n, height, width, channels) inside the memory of `images`.

    Parameters
    ----------
    images : ndarray of shape (n_samples, height, width, n_channels)
        Of contiguous memory, which is overwritten.

    Returns
    -------
    images : ndarray of shape (n_samples, n_channels, height, width)
    """
    n, height, width, n_channels = images.shape
    moved = images.reshape(n, n_channels, height, width)
    for start in range(0, n, _BLOCK):
        block = images[start : start + _BLOCK].transpose(0, 3, 1, 2).copy()
        moved[start : start + _BLOCK] = block
    return moved


def _read_npz(path):
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                stored = archive.files
                lacking = [name for name in ("images", "labels") if name not in stored]
                if not lacking:
                    images, labels = archive["images"], archive["labels"]
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib, struct and numpy raise their own
            if "Object arrays" in str(error):
                raise _unfit(path, "has arrays of Python objects") from error
            raise ValueError(
                f"{str(path)!r} is damaged or no .npz archive ({error}). Replace it by "
                "a whole copy."
            ) from error
    if lacking:
        raise _unfit(path, f"lacks the array {lacking[0]!r}, it has {stored}")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise _unfit(path, f"has images of {images.dtype} of shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise _unfit(path, f"has labels of shape {labels.shape}, {len(images)} images")
    if images.size == 0:
        raise _unfit(path, f"has images of shape {images.shape}")
    if images.ndim == 3:
        return images[:, None], labels
    if images.shape[3] in (1, 3, 4):
        images = channels_first(np.ascontiguousarray(images))
    elif images.shape[1] not in (1, 3, 4):
        raise _unfit(path, f"has images of shape {images.shape}: 1, 3 or 4 channels")
    return images, labels


def _unfit(path, reason):
    return ValueError(
        f"{str(path)!r} {reason}. It must hold `images`, uint8 of shape (n, height, "
        "width), (n, height, width, channels) or (n, channels, height, width), and "
        "`labels`, numbers or text of shape (n,)."
    )


class DamagedImageError(ValueError):
    """An image file that cannot be read."""


def read_image(
    path: str, mode: str = "RGB", background: str = "white"
) -> NDArray[np.uint8]:
    """Read an image file as an array.

    Parameters
    ----------
    path : str
    mode : {"RGB", "L"}, default="RGB"
        Three channels of colours, or one of grey.
    background : str, default="white"
        Ground of transparent images, as Pillow names colours.

    Returns
    -------
    image : ndarray of uint8 of shape (n_channels, height, width)

    Raises
    ------
    DamagedImageError
        Where the file cannot be read.
    ValueError
        Where the image vanishes on the background.
    """
    from PIL import Image

    content = np.full((1, 1, 4), 255)
    try:
        with Image.open(path) as file:
            if file.has_transparency_data:
                file = file.convert("RGBA")
                content = np.array(file)
            if np.any(content[..., 3:] != 255):
                ground = Image.new("RGBA", file.size, background)
                file = Image.alpha_composite(ground, file)
            image = np.array(file.convert(mode))
    except _image_damage() as error:
        raise _damaged(path, error) from error
    varies = np.ptp(content, axis=(0, 1)).any()
    if varies and not np.ptp(image, axis=(0, 1)).any():
        raise ValueError(
            f"{path!r} is transparent and vanishes on background={background!r}; pass "
            "a background of another colour."
        )
    image = image[..., None] if mode == "L" else image
    return image.transpose(2, 0, 1).copy()


def image_paths(folder: str | os.PathLike, at_least: int = 1) -> list[Path]:
    """List the image files below a folder, hidden ones left out.

    Parameters
    ----------
    folder : path-like
    at_least : int, default=1
        Fewer are an error.

    Returns
    -------
    paths : list of Path
        Sorted, as those of the classes of an ImageFolder one after the other.
    """
    folder = Path(folder).expanduser()
    found = sorted(folder / name for name in find_images(folder))
    if len(found) < at_least:
        kind = "has no" if folder.is_dir() else "is no folder of"
        raise ValueError(
            f"{str(folder)!r} {kind} image files ({', '.join(IMAGES)}). Name a "
            "folder that has some."
        )
    return found


class ImageFiles(Dataset):
    """Image files of one size, read when they are asked for.

    Parameters
    ----------
    paths : sequence of path-like
    targets : ndarray of int64 of shape (n_samples,)
        Classes of the images.
    image_shape : tuple of int
        (n_channels, height, width); one channel is grey, three are colours.
    background : str, default="white"
        Ground of transparent images, as Pillow names colours.
    """

    def __init__(self, paths, targets, image_shape, background="white"):
        self.paths = [os.fspath(path) for path in paths]
        self.targets = targets
        self.image_shape = image_shape
        self.background = background

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        """Read one file.

        Parameters
        ----------
        row : int

        Returns
        -------
        image : tensor of uint8 of shape (n_channels, height, width)
        target : int
        """
        return torch.from_numpy(self.read(row)), int(self.targets[row])

    def read(self, row):
        """Read one file as an array.

        Parameters
        ----------
        row : int

        Returns
        -------
        image : ndarray of uint8 of shape (n_channels, height, width)
        """
        mode = "L" if self.image_shape[0] == 1 else "RGB"
        return read_image(self.paths[row], mode, self.background)

    def read_all(self):
        """Read all files into one array.

        Returns
        -------
        images : ndarray of uint8 of shape (n_samples, n_channels, height, width)
        """
        images = np.empty((len(self), *self.image_shape), np.uint8)
        for row in range(len(self)):
            images[row] = self.read(row)
        return images

    def listing(self):
        """List the files, without opening them.

        Yields
        ------
        line : bytes
            Path below the common folder, and size.
        """
        root = os.path.commonpath(self.paths)
        for path in self.paths:
            name, size = os.path.relpath(path, root), os.path.getsize(path)
            yield os.fsencode(f"{name} {size}\n")

    def sample(self):
        """Read evenly spaced images, 5,000 at most, for their mean and deviation.

        Yields
        ------
        image : ndarray of uint8 of shape (1, n_channels, height, width)
        """
        n_sampled = min(len(self), _N_SAMPLED)
        for row in np.linspace(0, len(self) - 1, n_sampled).astype(int):
            yield self.read(row)[None]


def load_folder(path, test_path, background, split):
    """Read a folder with a folder of image files for each class.

    Parameters
    ----------
    path, test_path : Path
        None for `test_path` splits the files.
    background : str
    split : tuple of (test_size, seed)

    Returns
    -------
    parts : dict
        The data; X_train and X_test are arrays where both fit half a gigabyte, else
        :class:`ImageFiles`.
    """
    paths, y, classes = _list_folder(path)
    if len(classes) < 2:
        raise ValueError(
            f"name={str(path)!r} must have two folders of classes at least, got "
            f"{list(classes)}."
        )
    parts = {"classes": classes}
    if test_path is None:
        train, test = split_rows(y, classes, *split)
        parts.update(train_indices=train, test_indices=test)
        lists = (paths[train], y[train]), (paths[test], y[test])
        n_channels, height, width = _check_files(paths)
    else:
        test_paths, codes, names = _list_folder(test_path)
        where = f"test_path={str(test_path)!r}"
        codes = encode_labels(np.array(names), where, (), classes)[0][codes]
        lists = (paths, y), (test_paths, codes)
        n_channels, height, width = _check_files(paths)
        _check_files(test_paths, of=(paths[0], (width, height)))
    shape = n_channels, height, width
    splits = [ImageFiles(*files, shape, background) for files in lists]
    if sum(map(len, splits)) * n_channels * height * width <= _IN_MEMORY:
        parts.update(X_train=splits[0].read_all(), X_test=splits[1].read_all())
    else:
        parts.update(X_train=splits[0], X_test=splits[1])
    parts.update(y_train=splits[0].targets, y_test=splits[1].targets)
    return {**parts, "augmentation": augmentation_for(shape)}


def _list_folder(root):
    """Paths, positions of their classes, and the classes, in torchvision's order."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    folders = sorted(path for path in folders if not is_hidden(path.name))
    classes = tuple(path.name for path in folders)
    if not classes:
        raise ValueError(
            f"{str(root)!r} has no folders: it must have one folder of images for each "
            "class."
        )
    if {name.lower() for name in classes} <= _SPLITS:
        raise ValueError(
            f"{str(root)!r} has the folders {list(classes)}, which are splits rather "
            "than classes; name one of them, and another with test_path."
        )
    paths, y = [], []
    for code, folder in enumerate(folders):
        found = image_paths(folder, at_least=0)
        if not found:
            raise ValueError(
                f"{str(folder)!r} is an empty class: it has no image files "
                f"({', '.join(IMAGES)}). Add some, or remove the folder."
            )
        paths += found
        y += [code] * len(found)
    return np.array(paths, dtype=object), np.array(y), classes


def _check_files(paths, of=None):
    """Find the common (n_channels, height, width) from the heads of the files."""
    from PIL import Image

    first, size = of or (paths[0], None)
    grey = True
    for path in paths:
        try:
            with Image.open(path) as image:
                mode, found = image.mode, image.size
        except _image_damage() as error:
            raise _damaged(path, error) from error
        if mode == "F" or mode.startswith("I"):
            raise ValueError(
                f"{str(path)!r} has more than 8 bits a value (mode {mode}); convert it "
                "to 8 bits."
            )
        size = size or found
        if found != size:
            raise ValueError(
                f"The images must be of one size: {str(first)!r} is {size[0]}x"
                f"{size[1]}, {str(path)!r} is {found[0]}x{found[1]} (width x height). "
                "Resize them."
            )
        grey = grey and mode in ("1", "L", "LA")
    return (1 if grey else 3), size[1], size[0]


def _image_damage():
    from PIL import Image

    # Pillow has no one class for what a damaged file raises.
    return OSError, SyntaxError, ValueError, Image.DecompressionBombError


def _damaged(path, error):
    return DamagedImageError(
        f"{str(path)!r} is a damaged image ({error}). Replace it or remove it."
    )
