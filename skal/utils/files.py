"""Files that are whole or absent, whatever happens in between."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


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
