"""Loaders of the private net: rows in memory come a batch at once, never one alone."""

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from skal.utils.blocks import BlockRows
from skal.utils.rows import check_mapped, native, take


class BatchLoader(DataLoader):
    """DataLoader that takes the rows of a batch at once where they lie in memory.

    Its batches, and what it draws from torch's generators, are those of a DataLoader,
    which fetches and joins rows one by one. That is what happens to all but arrays,
    tensors, CSR matrices and dicts of them: to Datasets of the user, and wherever there
    are workers, pinned memory or a `collate_fn`.
    """

    def __iter__(self):
        """Iterate over the batches."""
        if (
            self.num_workers
            or self.pin_memory
            or self.batch_sampler is None
            or self.collate_fn is not default_collate
            or not _in_memory(self.dataset)
        ):
            return super().__iter__()
        batches = iter(self.batch_sampler)
        # A DataLoader draws the seed of its workers, even if it has none.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return (_fetch(self.dataset, positions) for positions in batches)


def _in_memory(dataset):
    while type(dataset) is Subset:  # of a validation split
        dataset = dataset.dataset
    return (
        type(dataset) is Dataset
        and is_plain(dataset.X)
        and (dataset.y is None or is_plain(dataset.y))
    )


def is_plain(part):
    """Tell whether `batch_of` makes of rows what torch's own collation does."""
    if isinstance(part, dict):
        return all(map(is_plain, part.values()))
    if isinstance(part, torch.Tensor):
        return type(part) is torch.Tensor and part.layout is torch.strided
    if isinstance(part, np.ndarray):
        return not isinstance(part, np.matrix) and part.dtype.kind in "biufc"
    if isinstance(part, BlockRows):
        return part.dtype.kind in "biufc"
    return type(part) is sparse.csr_matrix


def _fetch(dataset, positions):
    while type(dataset) is Subset:
        positions = np.asarray(dataset.indices)[positions]
        dataset = dataset.dataset
    X = batch_of(dataset.X, positions)
    if dataset.y is None:  # what skorch gives instead
        return [X, torch.zeros(len(positions), 1)]
    return [X, batch_of(dataset.y, positions)]


def batch_of(part, positions):
    """Make one batch of rows.

    Parameters
    ----------
    part : array, tensor, CSR matrix, BlockRows or dict of them
    positions : list or array of int, or slice

    Returns
    -------
    batch : tensor, or dict of tensors
        In memory of its own, since the network may write to it.
    """
    if isinstance(part, dict):
        return {name: batch_of(inner, positions) for name, inner in part.items()}
    if isinstance(positions, slice):
        check_mapped(part)
        rows = part[positions]
    else:
        rows = take(part, positions)
    if sparse.issparse(rows):
        rows = rows.toarray()
    if isinstance(rows, np.ndarray):
        rows = torch.from_numpy(native(rows))
    # Torch's own memory: the bits of a matrix product depend on how operands lie.
    return rows.clone(memory_format=torch.contiguous_format)


class TrainLoader(BatchLoader):
    """BatchLoader for few labels: never a last batch of one row, never no batch at all.

    A last batch of one row breaks BatchNorm, and dropping it would lose the same paid
    label every epoch, so it joins the batch before it. `drop_last=True` with fewer rows
    than a batch would train nothing, silently: it raises.
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, sampler=None, **kwargs):
        n_rows = len(sampler if hasattr(sampler, "__len__") else dataset)
        if kwargs.get("drop_last") and n_rows < (batch_size or 0):
            raise ValueError(
                f"drop_last=True with batch_size={batch_size} and {n_rows} rows to "
                "train on gives no batch at all; lower the batch size of the net or "
                "leave drop_last out."
            )
        joins = (
            batch_size is not None
            and 1 < batch_size < n_rows
            and n_rows % batch_size == 1
            and not kwargs.get("drop_last")
            and kwargs.get("batch_sampler") is None
        )
        if joins:
            if sampler is None and shuffle:
                sampler = RandomSampler(dataset, generator=kwargs.get("generator"))
            sampler = SequentialSampler(dataset) if sampler is None else sampler
            kwargs.pop("drop_last", None)
            kwargs["batch_sampler"] = _JoinedBatches(sampler, batch_size)
            super().__init__(dataset, **kwargs)
        else:
            super().__init__(dataset, batch_size, shuffle, sampler, **kwargs)


class _JoinedBatches(BatchSampler):
    """Batches of which a last one of one row joins the one before."""

    def __init__(self, sampler, batch_size):
        super().__init__(sampler, batch_size, drop_last=False)

    def __iter__(self):
        batches = list(super().__iter__())
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [batches[-2] + batches[-1]]
        yield from batches

    def __len__(self):
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > 1) if full else 1
