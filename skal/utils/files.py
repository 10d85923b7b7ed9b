"""Files that are whole or absent, whatever happens in between; images in folders."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Of torchvision's folders.
IMAGES = tuple(".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp".split())
# What systems leave behind, besides names that begin with a dot.
_LEFT_BEHIND = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN"}


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is not for people, by its name.

    Parameters
    ----------
    name : str

    Returns
    -------
    hidden : bool
    """
    return name[0] == "." or name in _LEFT_BEHIND


def find_images(folder: str | os.PathLike) -> list[str]:
    """List the image files below a folder, hidden ones left out.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    names : list of str
        Relative paths with slashes, sorted.
    """
    names = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for file in files:
            if not is_hidden(file) and file.lower().endswith(IMAGES):
                path = os.path.relpath(os.path.join(here, file), folder)
                names.append(path.replace(os.sep, "/"))
    return sorted(names)


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces it when the block ends well.

    Parameters
    ----------
    path : path-like
        The file to write; its folder must exist.
    mode : {"wb", "w"}, default="wb"
        Binary, or UTF-8 text.

    Yields
    ------
    file : file object
        Flushed, fsynced and moved to `path` at the end; removed after an error.
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def append_line(path: str | os.PathLike, line: str) -> None:
    """Append one line of text and fsync; the caller drops a torn last line on reading.

    Parameters
    ----------
    path : path-like
        The file; created when absent.
    line : str
        Without its newline.
    """
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
