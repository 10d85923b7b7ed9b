"""Rows of any container as the batches of float32 that an auxiliary net takes."""

import math
from functools import partial

import numpy as np
import torch
from torch.utils.data import Dataset

from skal.utils.rows import n_rows, stack_rows, take
from skal.utils.scratch import Scratch

# Rows of a block, and numbers in it where it has several rows.
N_AT_ONCE, N_NUMBERS = 1024, 2**16

# Columns that differ by less, relative to their mean, are constant.
LEAST_DEVIATION = 1e-10

LEAST_HELD_OUT = 5  # fewer rows would say nothing


class AuxiliaryRows(Dataset):
    """Unlabelled and labelled rows, shifted and scaled to float32 batch by batch.

    Parameters
    ----------
    unlabeled : rows of any container, or a PoolView
        Never stacked as a whole.
    labeled : the same kind, default=None
        They follow the unlabelled ones.
    order : int64 array of shape (n_rows,), default=None
        Position by position the row that stands there.
    paired : bool, default=False
        Whether each training batch joins labelled rows to unlabelled ones. Otherwise a
        batch has rows of either kind.

    Attributes
    ----------
    row_shape : tuple of int
        Of a row as it comes.
    shape : tuple of int
        Of a row as the net takes it: (n_channels, height, width) where it is an image
        of at least 4 x 4, else (n_values,).
    is_labeled : bool tensor of shape (n_rows,)
    held_out : int64 tensor
        Positions of rows that are in no training batch; none until `hold_out`.
    center, scale : float64 tensors
        Batches are ``(rows - center) / scale``; 0 and 1 until they are set.
    """

    def __init__(self, unlabeled, labeled=None, *, order=None, paired=False):
        parts = [unlabeled] if labeled is None else [unlabeled, labeled]
        self._take = [getattr(p, "features_at", partial(take, p)) for p in parts]
        sizes = [n_rows(part) for part in parts]
        self._first = sizes[0]
        self._order = np.arange(sum(sizes)) if order is None else order
        self.paired = paired
        self.is_labeled = torch.from_numpy(self._order >= self._first)
        self.row_shape = tuple(self.numbers([0]).shape[1:])
        self.shape = image_shape(self.row_shape)
        self._step = rows_at_once(math.prod(self.row_shape))
        self.held_out = torch.empty(0, dtype=torch.int64)
        self.center, self.scale = torch.zeros(()), torch.ones(())

    def __len__(self):
        return len(self._order)

    def __getitems__(self, positions):
        """Make one batch: rows, float32, and whether they are labelled."""
        rows = self.numbers(positions)
        rows = (rows - self.center.to(rows)).div_(self.scale.to(rows)).float()
        return rows.reshape(-1, *self.shape), self.is_labeled[positions]

    def numbers(self, positions):
        """Give rows as they come, float64 of shape (n_positions, *row_shape)."""
        rows = self._order[np.asarray(positions)]
        second = rows >= self._first
        if not second.any():
            return _numbers(self._take[0](rows))
        labeled = _numbers(self._take[1](rows[second] - self._first))
        if second.all():
            return labeled
        joined = labeled.new_empty((len(rows), *labeled.shape[1:]))
        joined[torch.from_numpy(second)] = labeled
        joined[torch.from_numpy(~second)] = _numbers(self._take[0](rows[~second]))
        return joined

    def scaled(self, center, scale):
        """Set `center` and `scale`, a scale of 0 to 1; returns the rows themselves."""
        self.center, self.scale = center, torch.where(scale > 0, scale, 1)
        return self

    def outputs(self, function, positions=None):
        """Call a function with the batches of all rows in order, and join its outputs.

        Parameters
        ----------
        function : callable
            From a float32 tensor to a tensor with as many rows.
        positions : int64 array, default=None
            Of rows; None is all.

        Returns
        -------
        outputs : tensor
        """
        positions = np.arange(len(self)) if positions is None else positions

        def part_of(place):
            return function(self.__getitems__(positions[place])[0])

        return Scratch().gather(len(positions), self._step, part_of)

    def statistics(self):
        """Compute the statistics of all rows; raise where they are not finite.

        Returns
        -------
        mean, std, low, high : float64 tensors of the shape of a row
        """
        count, mean, squares, low, high = 0, 0, 0, math.inf, -math.inf
        for start in range(0, len(self), self._step):
            rows = self.numbers(range(len(self))[start : start + self._step])
            there = rows.mean(0)
            ahead, share = there - mean, len(rows) / (count + len(rows))
            low = torch.clamp(rows.amin(0), max=low)
            high = torch.clamp(rows.amax(0), min=high)
            squares = squares + (rows - there).square_().sum(0)
            squares = squares + ahead.square() * (count * share)
            mean = mean + ahead * share
            count += len(rows)
        std = (squares / count).sqrt()
        if not bool(std.isfinite().all()):
            raise ValueError(
                "the rows have NaN or infinite entries (or ones of 1e150 and more); "
                "impute and rescale them, for instance in a Pipeline."
            )
        std = torch.where(std > LEAST_DEVIATION * mean.abs(), std, 0)
        return mean, std, low, high

    def hold_out(self, share, at_most, rng):
        """Keep rows of either kind from training, where there are enough.

        Parameters
        ----------
        share : float
            Of the rows of each kind.
        at_most : int
            Rows of each kind.
        rng : numpy.random.Generator

        Returns
        -------
        held : bool
            Whether there are at least `LEAST_HELD_OUT` of each kind; else none are.
        """
        kinds = [self._kind(True), self._kind(False)]
        sizes = [min(int(share * len(kind)), at_most) for kind in kinds]
        if min(sizes) < LEAST_HELD_OUT:
            return False
        pairs = zip(kinds, sizes, strict=True)
        self.held_out = torch.cat([some(kind, n, rng) for kind, n in pairs])
        return True

    def seen(self, at_most, rng):
        """Draw the positions of at most so many training rows of each kind."""
        kinds = self._kind(True), self._kind(False)
        return torch.cat([some(kind, at_most, rng) for kind in kinds])

    def _kind(self, is_labeled):
        """Positions of labelled or unlabelled rows that train."""
        trains = self.is_labeled == is_labeled
        trains[self.held_out] = False
        return trains.nonzero().flatten()

    def n_batches(self, size):
        """Count the batches that all rows are in once, unlabelled ones if paired."""
        n = len(self._kind(False)) if self.paired else len(self)
        return math.ceil(n / size)

    def batches(self, size):
        """Yield the positions of one random batch of equal sizes after another.

        Without end, from torch's global generator. Labelled rows of a pair return as
        often as it takes, but never twice in a batch. A single row is doubled, because
        BatchNorm needs two.
        """
        labeled = Cycle(self._kind(True) if self.paired else None)
        rows = self._kind(False) if self.paired else torch.arange(len(self))
        while True:
            shuffled = rows[torch.randperm(len(rows))]
            for batch in shuffled.tensor_split(self.n_batches(size)):
                batch = torch.cat([batch, labeled.take(size)])
                yield batch if len(batch) > 1 else batch.repeat(2)


def rows_at_once(n_values):
    """How many rows of so many values are worked on at a time."""
    return min(N_AT_ONCE, max(1, N_NUMBERS // max(1, n_values)))


def _numbers(rows):
    rows = stack_rows(rows)
    return (rows.cpu() if rows.device.type == "mps" else rows).double()


def some(rows, n, rng):
    """Draw at most `n` rows, none of them twice."""
    return rows[torch.from_numpy(rng.permutation(len(rows))[:n])]


class Cycle:
    """Rows in random order, again and again."""

    def __init__(self, rows):
        self.rows = torch.empty(0, dtype=torch.int64) if rows is None else rows
        self.left = self.rows[:0]

    def take(self, n):
        """Take at most `n` rows, distinct ones."""
        n = min(n, len(self.rows))
        taken, self.left = self.left[:n], self.left[n:]
        if len(taken) < n:
            again = self.rows[torch.randperm(len(self.rows))]
            new = ~torch.isin(again, taken)
            # What this batch has had already waits for the next.
            again = torch.cat([again[new], again[~new]])
            n -= len(taken)
            taken, self.left = torch.cat([taken, again[:n]]), again[n:]
        return taken


def image_shape(row_shape):
    """Say how a net takes a row: as an image of at least 4 x 4, or flat.

    Parameters
    ----------
    row_shape : tuple of int

    Returns
    -------
    shape : tuple of int
        (n_channels, height, width) or (n_values,).
    """
    if len(row_shape) in (2, 3) and min(row_shape[-2:]) >= 4:
        return (1, *row_shape)[-3:]
    return (math.prod(row_shape),)
