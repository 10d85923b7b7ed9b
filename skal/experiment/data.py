"""The rows of a run."""

import re
import zlib
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from skal.datasets import load_dataset
from skal.experiment.options import UsageError, flag
from skal.utils import derive_seed

_BLOCK = 1024
# What `load_dataset` calls otherwise than the options.
_OTHERWISE = {"name": "data", "test_path": "test_data", "root": "data_root"}
_SAME = {"test_size", "label_column", "header", "separator", "decimal"}
_SAME |= {"missing_labels", "background"}
# The grid that runs here, and what it loaded last: its next run often is on the same.
_grid: ContextVar[str | None] = ContextVar("grid", default=None)
_last: dict = {}


@contextmanager
def shared_loads(grid):
    """Let `load_data` give again what it gave last for the same grid.

    Parameters
    ----------
    grid : str
        Tells it from others.
    """
    before = _grid.set(grid)
    try:
        yield
    finally:
        _grid.reset(before)


def forget_loads():
    """Free what was loaded for a grid."""
    _last.clear()


def load_data(config, root=None):
    """Load the data set of a run.

    Parameters
    ----------
    config : RunConfig
    root : path-like, default=None
        See :func:`skal.datasets.load_dataset`.

    Returns
    -------
    data : Bunch
    """
    loaded = config.model_dump_json(include={"data", "test_data", "seed", *_SAME})
    key = _grid.get(), root, loaded
    if _last.get("key") == key:
        return _last["data"]
    forget_loads()
    data = _load(config, root)
    if _grid.get() is not None:
        _last.update(key=key, data=data)
    return data


def _load(config, root):
    try:
        return load_dataset(
            config.data,
            root,
            test_path=config.test_data,
            random_state=config.seed,
            **config.model_dump(include=_SAME),
        )
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(_in_options(str(error))) from error


def _in_options(message):
    """Call arguments of `load_dataset` as the command line does."""
    message = message.replace("header=True", "--header")
    message = message.replace("header=False", "--no-header")
    for name in _SAME | _OTHERWISE.keys():
        option = flag(_OTHERWISE.get(name, name))
        message = re.sub(rf"(?<!-)\b{name}=", f"{option} ", message)
        if "_" in name:
            message = re.sub(rf"\b{name}\b", option, message)
    return message


def fingerprint(data):
    """Compute a checksum of the rows and labels of a data set.

    Parameters
    ----------
    data : Bunch
        Rows of a Dataset are not read for this: names and sizes of its files count,
        where it has a `listing` of them.

    Returns
    -------
    fingerprint : str
    """
    checksum = 0
    for name in ("X_train", "y_train", "X_test", "y_test"):
        rows = data[name]
        if isinstance(rows, np.ndarray):
            for start in range(0, len(rows), _BLOCK):  # never copied as a whole
                block = np.ascontiguousarray(rows[start : start + _BLOCK])
                checksum = zlib.crc32(block, checksum)
        elif hasattr(rows, "listing"):
            for line in rows.listing():
                checksum = zlib.crc32(line, checksum)
    return f"{checksum:08x}"


def pool_rows(config, n_samples):
    """Draw the training rows that can be bought.

    Parameters
    ----------
    config : RunConfig
    n_samples : int
        Number of training rows.

    Returns
    -------
    rows : int64 array of shape (n_pool,)
        Ascending; all rows where `config.pool_size` is None.
    """
    if config.pool_size is None:
        return np.arange(n_samples)
    if config.pool_size > n_samples:
        raise UsageError(
            f"--pool-size {config.pool_size} is larger than the {n_samples} training "
            f"rows of {config.data!r}."
        )
    rng = np.random.default_rng(derive_seed(config.seed, 0, "pool"))
    return np.sort(rng.choice(n_samples, config.pool_size, replace=False))
