"""Features on disk: chunks of rows, each file whole or absent."""

import errno
import os
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
from filelock import FileLock

from skal.utils.files import atomic_write

_CHUNKS = "[!.]*.npy"


class FeatureCache:
    """Rows of features by key, in a folder of its own for each backbone.

    A chunk is one .npy file with one record: the fingerprint of the backbone, the keys,
    the sources, and the features, one after the other, so that a memory map reads only
    what is asked for. Its name tells its keys: whoever writes it, it is the same.

    Parameters
    ----------
    folder : path-like
        Of all backbones.
    fingerprint : str
        Of the backbone.

    Raises
    ------
    NotADirectoryError
        Where it is a file.
    ValueError
        Where it is the folder of one backbone.
    """

    def __init__(self, folder, fingerprint):
        if not os.fspath(folder):
            raise ValueError("cache='' names no folder; pass None to keep nothing.")
        folder = Path(folder).expanduser()
        if folder.is_file():
            raise NotADirectoryError(
                f"cache={str(folder)!r} is a file; name a folder that keeps features, "
                "or will."
            )
        if any(folder.glob(_CHUNKS)):
            whose = "this" if folder.name == fingerprint else "another"
            raise ValueError(
                f"cache={str(folder)!r} holds features of {whose} backbone, layer and "
                f"preprocess alone; name the folder above it, {str(folder.parent)!r}, "
                "or another one."
            )
        self.fingerprint = fingerprint
        self.path = folder / fingerprint
        self._chunks, self._sources = {}, {}

    @contextmanager
    def locked(self):
        """Keep other processes from computing the same; a kill frees the lock."""
        with ExitStack() as stack:
            with _explained(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.path / ".lock"))
            for torn in self.path.glob(".*.npy.*"):  # of a process that was killed
                torn.unlink(missing_ok=True)
            yield

    def missing(self, keys):
        """Find what is not there.

        Parameters
        ----------
        keys : uint64 array of shape (n_rows,)

        Returns
        -------
        positions : int64 array
            Ascending; of a key that comes again the first.
        """
        for path in sorted(self.path.glob(_CHUNKS)):
            if path not in self._chunks:
                chunk = self._open(path)
                self._chunks[path] = np.array(chunk["keys"])
                self._sources[path] = np.array(chunk["sources"])
        first = np.unique(keys, return_index=True)[1]
        known = np.concatenate([np.empty(0, np.uint64), *self._chunks.values()])
        return np.sort(first[~np.isin(keys[first], known)])

    def knows(self, sources):
        """Tell of which sources there are features, whatever was in them.

        Parameters
        ----------
        sources : uint64 array of shape (n_rows,)

        Returns
        -------
        known : bool array of shape (n_rows,)
        """
        known = [np.empty(0, np.uint64), *self._sources.values()]
        return np.isin(sources, np.concatenate(known))

    def add(self, keys, sources, features):
        """Write a chunk.

        Parameters
        ----------
        keys : uint64 array of shape (n_rows,)
            Distinct.
        sources : uint64 array of shape (n_rows,)
            What rows are of, that have other keys when they have changed.
        features : float32 array of shape (n_rows, n_features)
        """
        shape = features.shape
        chunk = np.empty(1, dtype=_record(*shape))
        chunk["backbone"], chunk["keys"] = self.fingerprint.encode(), keys
        chunk["sources"], chunk["features"] = sources, features
        path = self.path / f"{blake2b(keys.tobytes(), digest_size=12).hexdigest()}.npy"
        with _explained(self.path), atomic_write(path) as file:
            np.lib.format.write_array(file, chunk, allow_pickle=False)
        self._chunks[path] = keys.copy()

    def read(self, keys):
        """Read rows, all of which are there.

        Parameters
        ----------
        keys : uint64 array of shape (n_rows,)

        Returns
        -------
        features : float32 array of shape (n_rows, n_features)
        """
        paths, known = zip(*self._chunks.items(), strict=True)
        ends = np.cumsum([len(each) for each in known])
        known = np.concatenate(known)
        order = np.argsort(known)
        places = order[np.searchsorted(known, keys, sorter=order)]
        numbers = np.searchsorted(ends, places, side="right")
        features = None
        for number in np.unique(numbers):
            chunk, wanted = self._open(paths[number])["features"], numbers == number
            rows = places[wanted] - (ends[number] - len(chunk))
            if features is None:
                features = np.empty((len(keys), chunk.shape[1]), dtype=np.float32)
            features[wanted] = chunk[rows]
        return features

    def _open(self, path):
        """Map the one record of a chunk into memory."""
        try:
            chunk = np.load(path, mmap_mode="r", allow_pickle=False)
            n_rows, n_features = chunk.dtype["features"].shape
            if chunk.dtype != _record(n_rows, n_features) or chunk.shape != (1,):
                raise ValueError("another layout")
        except (EOFError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"cache: {str(path)!r} is damaged ({error}). Remove it: its rows, and "
                "no others, are computed again."
            ) from error
        if chunk["backbone"][0] != self.fingerprint.encode():
            raise ValueError(
                f"cache: {str(path)!r} holds features of another backbone. Remove it, "
                "or name another folder."
            )
        return {name: chunk[name][0] for name in ("keys", "sources", "features")}


@contextmanager
def _explained(path):
    """Say of an error in writing what is lost, and what to do."""
    try:
        yield
    except OSError as error:
        # NumPy says no more than how much of an array it has written.
        code = error.errno or errno.ENOSPC
        remedy = (
            "make room, and the same call goes on: what is in it is whole"
            if code in (errno.ENOSPC, errno.EDQUOT)
            else "name a folder that can be written"
        )
        raise OSError(
            code,
            f"cache={str(path.parent)!r} cannot be written ({os.strerror(code)}); "
            f"{remedy}.",
        ) from error


def _record(n_rows, n_features):
    """Type of a chunk."""
    return np.dtype(
        [
            ("backbone", "S32"),
            ("keys", "<u8", (n_rows,)),
            ("sources", "<u8", (n_rows,)),
            ("features", "<f4", (n_rows, n_features)),
        ]
    )
