"""Sizes are read as people write them."""

import numpy as np
import pytest

from skal.utils.sizes import parse_size


@pytest.mark.parametrize(
    "size, n_bytes",
    [
        (None, None),
        (1, 1),
        (np.int64(5000), 5000),
        ("300", 300),
        ("2K", 2048),
        ("1.5 kB", 1536),
        ("500M", 500 * 2**20),
        ("2G", 2**31),
        ("2GiB", 2**31),
        ("1t", 2**40),
    ],
)
def test_sizes(size, n_bytes):
    assert parse_size(size) == n_bytes


@pytest.mark.parametrize(
    "size", ["2X", "", "G", "-1", -1, 0, "0.0001K", True, 1.5, "1e9", "nan", [1]]
)
def test_what_is_no_size_is_named(size):
    with pytest.raises(
        ValueError, match="memory_limit must be a positive number of"
    ) as e:
        parse_size(size)
    assert repr(size) in str(e.value)
