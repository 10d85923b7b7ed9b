"""Sizes of memory, as people write them."""

import re
from numbers import Integral

_UNITS = {unit: 2 ** (10 * power) for power, unit in enumerate(" KMGT")}


def parse_size(size, name="memory_limit"):
    """Read a number of bytes.

    Parameters
    ----------
    size : int, str or None
        As text with a unit, "500M" or "1.5 GB"; K, M, G and T are powers of 1024.
    name : str, default="memory_limit"
        What the error calls it.

    Returns
    -------
    n_bytes : int or None
        None for None.

    Raises
    ------
    ValueError
        Where it is no size, or below one byte.
    """
    if size is None:
        return None
    whole = isinstance(size, Integral) and not isinstance(size, bool)
    found = re.fullmatch(
        r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?",
        str(size) if whole or isinstance(size, str) else "",
        re.IGNORECASE,
    )
    n_bytes = int(float(found[1]) * _UNITS[found[2].upper() or " "]) if found else 0
    if n_bytes < 1:
        raise ValueError(
            f"{name} must be a positive number of bytes, or a size such as '500M' or "
            f"'2G', got {size!r}."
        )
    return n_bytes
