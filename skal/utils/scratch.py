"""Room for tensors with a row for each of a pool: in memory, or in files on disk."""

import mmap
import os
import tempfile
import weakref
from math import prod

import torch

from skal.utils.sizes import parse_size


class Scratch:
    """Hands out tensors, which lie in memory up to a limit and in files beyond it.

    A file has no name, so nothing is left of it when its tensor is gone or the process
    ends, by any signal. It is reserved as a whole, so that a full disk is an error
    here and not a crash later.

    Parameters
    ----------
    limit : int, str or None, default=None
        Bytes of all tensors in memory, see `parse_size`; with a limit all tensors are
        on the CPU. None is all that there is.

    Attributes
    ----------
    n_bytes : int
        Of the tensors that lie in memory now; not counted without a limit.
    n_numbers, n_rows : int
        In one chunk, which is worked on in memory: of tensors, and of other rows.

    Examples
    --------
    >>> import torch
    >>> from skal.utils.scratch import Scratch
    >>> scratch = Scratch("1K")
    >>> rows = scratch.empty(torch.zeros(1), 1000, 3)
    >>> rows.shape, scratch.n_bytes
    (torch.Size([1000, 3]), 0)
    """

    n_numbers, n_rows = 2**18, 2**13

    def __init__(self, limit=None):
        self.limit = parse_size(limit)
        self.n_bytes = 0

    def empty(self, like, *shape):
        """Make a tensor of this shape, not filled, with the dtype of another.

        Raises
        ------
        OSError
            Where the disk has no room.
        """
        if self.limit is None:
            return like.new_empty(shape)
        n_bytes = prod(shape) * like.itemsize
        if self.n_bytes + n_bytes > self.limit:
            buffer = _file_map(n_bytes)
            return torch.frombuffer(buffer, dtype=like.dtype).view(shape)
        tensor = torch.empty(shape, dtype=like.dtype)
        self.n_bytes += n_bytes
        weakref.finalize(tensor, self._forget, n_bytes).atexit = False
        return tensor

    def check_chunk(self, like, n_rows):
        """Raise where not even one chunk of what is to be kept is within the limit.

        Parameters
        ----------
        like : tensor of shape (1 or more, ...)
            Whose rows those of the chunk are like.
        n_rows : int
            Of the chunk.
        """
        n_bytes = n_rows * like[:1].numel() * like.itemsize
        if self.limit is not None and n_bytes > self.limit:
            raise ValueError(
                f"memory_limit={self.limit} bytes is less than one batch of outputs, "
                f"{n_bytes} bytes for {n_rows} rows; raise it, or lower the batch "
                "size of the net (iterator_valid__batch_size)."
            )

    def _forget(self, n_bytes):
        self.n_bytes -= n_bytes

    def gather(self, n_rows, step, part_of):
        """Join parts that are made one after the other, each copied when it is made.

        A list of small results, with large temporary tensors in between, may cost the
        memory of all of these: each result lies where the next of them would fit.

        Parameters
        ----------
        n_rows : int
        step : int
            Rows of a part.
        part_of : callable
            Gives the tensor, or tensors, of a slice of the rows.

        Returns
        -------
        joined : tensor of shape (n_rows, ...), or tuple of them
        """
        if n_rows == 0 or (self.limit is None and step >= n_rows):
            return part_of(slice(0, n_rows))
        joined = None
        for start in range(0, n_rows, step):
            place = slice(start, min(start + step, n_rows))
            found = part_of(place)
            parts = found if isinstance(found, tuple) else (found,)
            if joined is None:
                joined = [self.rows(part, n_rows) for part in parts]
            for whole, part in zip(joined, parts, strict=True):
                whole[place] = part
        return tuple(joined) if isinstance(found, tuple) else joined[0]

    def step(self, *tensors):
        """How many rows of all these tensors make a chunk, whatever their number."""
        widths = [prod(tensor.shape[1:]) for tensor in tensors]
        return max(1, self.n_numbers // max(1, *widths))

    def rows(self, like, n_rows):
        """Make room for rows like those of a tensor; single numbers are in memory."""
        if like.ndim == 1:
            return like.new_empty(n_rows)
        return self.empty(like, n_rows, *like.shape[1:])

    def by_rows(self, function, *tensors, rows=None):
        """Call a function with a chunk of the rows of tensors at a time.

        Parameters
        ----------
        function : callable
            Gives, for some rows of each tensor, a tensor with as many rows.
        *tensors : tensors of shape (n_rows, ...)
        rows : int64 array, default=None
            Which of them, in which order; None takes all.

        Returns
        -------
        joined : tensor of shape (n_rows, ...), or a tuple of them
        """

        def part_of(place):
            if rows is None:
                return function(*(t[place] for t in tensors))
            index = torch.from_numpy(rows[place]).to(tensors[0].device)
            return function(*(t[index] for t in tensors))

        n_rows = len(tensors[0] if rows is None else rows)
        return self.gather(n_rows, self.step(*tensors), part_of)

    def stack(self, *parts):
        """Copy tensors below one another; None has no rows."""
        parts = [part for part in parts if part is not None]
        whole = self.empty(parts[0], sum(map(len, parts)), *parts[0].shape[1:])
        for place, part in zip(whole.split([*map(len, parts)]), parts, strict=True):
            place.copy_(part)
        return whole


def _file_map(n_bytes):
    """Map a file that has no name, or that goes with its process."""
    folder = tempfile.gettempdir()
    # Where nobody chose one: on many systems /tmp lies in memory.
    if tempfile.tempdir == "/tmp" and "TMPDIR" not in os.environ:
        folder = "/var/tmp" if os.access("/var/tmp", os.W_OK) else folder
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            _reserve(file, n_bytes)
            return mmap.mmap(file.fileno(), n_bytes)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}: {n_bytes / 2**20:.0f} MB beyond memory_limit do not "
            f"go to a file in {folder}; make room there, set TMPDIR to a folder on a "
            "larger disk, or raise memory_limit",
        ) from error


def _reserve(file, n_bytes):
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return
    block = bytes(min(n_bytes, 2**20))
    while (left := n_bytes - file.tell()) > 0:
        file.write(block[:left])
