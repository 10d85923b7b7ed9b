"""Photos as they come: of any size and mode, turned, broken."""

import os

import numpy as np
from PIL import Image, ImageDraw, ImageOps

# Pillow has no one class for what a damaged file raises.
DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def fault_of(path):
    """Say why a file is no image that can be read, by its head, or "".

    Parameters
    ----------
    path : path-like

    Returns
    -------
    fault : str
    """
    try:
        with Image.open(path):
            return ""
    except DAMAGE as error:
        return _fault(error)


def _fault(error):
    return " ".join(str(error).split()) or type(error).__name__


def open_upright(path, size):
    """Read an image, turned as its camera says, on white, in colours.

    Parameters
    ----------
    path : path-like
    size : int
        Larger than the image is needed; a JPEG is read no larger than twice that.

    Returns
    -------
    image : PIL.Image.Image
        Of mode RGB.
    """
    with Image.open(path) as file:
        file.draft("RGB", (2 * size, 2 * size))
        image = ImageOps.exif_transpose(file)
        if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits
            values = np.asarray(image, dtype=np.float64)
            values = (values - values.min()) * (255 / max(np.ptp(values), 1e-9))
            image = Image.fromarray(values.astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            ground = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(ground, image)
        return image.convert("RGB")


def thumbnails(paths, size=32, faults=None):
    """Read images as small squares.

    Parameters
    ----------
    paths : sequence of path-like
    size : int, default=32
    faults : dict, default=None
        Is given the reasons by position of files that cannot be read, whose squares are
        left black; None: they raise.

    Returns
    -------
    images : ndarray of uint8 of shape (n_images, 3, size, size)

    Raises
    ------
    ValueError
        For a path alone, and for the first file that cannot be read.
    """
    if isinstance(paths, str | os.PathLike):
        raise ValueError(f"images are named by a list of paths, got {str(paths)!r}.")
    images = np.zeros((len(paths), 3, size, size), dtype=np.uint8)
    for place, path in enumerate(paths):
        try:
            image = open_upright(path, size)
            image = image.resize(
                (size, size), Image.Resampling.BILINEAR, reducing_gap=2
            )
        except DAMAGE as error:
            if faults is None:
                raise ValueError(
                    f"{str(path)!r} cannot be read ({_fault(error)}); replace it by a "
                    "whole copy, or remove it."
                ) from error
            faults[place] = _fault(error)
            continue
        images[place] = np.asarray(image).transpose(2, 0, 1)
    return images


def contact_sheet(paths, captions, size=160, n_columns=5):
    """Draw images beside each other, with captions.

    Parameters
    ----------
    paths : sequence of path-like
    captions : sequence of str
    size : int, default=160
        Of the square for an image.
    n_columns : int, default=5

    Returns
    -------
    sheet : PIL.Image.Image
    """
    n_columns = max(1, min(n_columns, len(paths)))
    n_rows, height = -(-len(paths) // n_columns), size + 18
    sheet = Image.new("RGB", (n_columns * size, max(1, n_rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (path, caption) in enumerate(zip(paths, captions, strict=True)):
        image = open_upright(path, size)
        image.thumbnail((size - 4, size - 4))
        row, column = divmod(place, n_columns)
        x, y = column * size, row * height
        sheet.paste(image, (x + (size - image.width) // 2, y + 2))
        while caption and draw.textlength(caption) > size - 4:
            caption = "…" + caption[2:] if len(caption) > 2 else ""
        draw.text((x + 2, y + size), caption, fill="black")
    return sheet
