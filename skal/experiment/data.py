"""The rows of a run."""

import re
import zlib

import numpy as np

from skal.datasets import load_dataset
from skal.experiment.options import UsageError
from skal.utils import derive_seed

_BLOCK = 1024
# What errors of `load_dataset` call its arguments, and the command line its options.
_FLAGS = {
    "name=": "--data ",
    "test_path=": "--test-data ",
    "test_path": "--test-data",
    "test_size=": "--test-size ",
    "label_column=": "--label-column ",
    "label_column": "--label-column",
    "header=True": "--header",
    "header=False": "--no-header",
    "header=": "--header ",
    "separator=": "--separator ",
    "decimal=": "--decimal ",
    "missing_labels=": "--missing-labels ",
    "missing_labels": "--missing-labels",
    "background=": "--background ",
    "root=": "--data-root ",
}


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
    try:
        return load_dataset(
            config.data,
            root,
            test_path=config.test_data,
            test_size=config.test_size,
            label_column=config.label_column,
            header=config.header,
            separator=config.separator,
            decimal=config.decimal,
            missing_labels=config.missing_labels,
            background=config.background,
            random_state=config.seed,
        )
    except (ImportError, OSError, ValueError) as error:
        arguments = rf"\b({'|'.join(_FLAGS)})"
        message = re.sub(arguments, lambda found: _FLAGS[found[0]], str(error))
        raise UsageError(message) from error


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
