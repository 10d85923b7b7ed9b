"""What the kernels share: validation."""

import math
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from scipy import sparse


def check_n_select(n_select, n_rows, name):
    """Return `n_select` as an int in [0, n_rows], or raise."""
    valid = isinstance(n_select, Integral) and not isinstance(n_select, bool)
    if not valid or not 0 <= n_select <= n_rows:
        raise ValueError(
            f"n_select must be an int between 0 and {n_rows}, the number of rows of "
            f"{name}, got {n_select!r}; select fewer rows or pass more."
        )
    return int(n_select)


def check_count(value, name, most=None):
    """Raise unless a value is an int of at least 1, and at most `most`."""
    valid = isinstance(value, Integral) and not isinstance(value, bool) and value >= 1
    if not valid or (most is not None and value > most):
        span = "of at least 1" if most is None else f"between 1 and {most}"
        raise ValueError(f"{name} must be an int {span}, got {value!r}.")


def check_number(value, name, least, most=None, *, above=False):
    """Raise unless a value is a number of at least `least`, or `above` it.

    It is finite where `most` is None.
    """
    valid = isinstance(value, Real) and not isinstance(value, bool)
    valid = valid and (least < value if above else least <= value)
    if not valid or not (value < math.inf if most is None else value <= most):
        span = f"{'above' if above else 'of at least'} {least}"
        span += f" and at most {most}" if most not in (None, math.inf) else ""
        raise ValueError(f"{name} must be a number {span}, got {value!r}.")


def check_matrix(matrix, name, ndim=2):
    """Return an array or tensor as a float tensor; float32 and float64 uncopied.

    Integers that float32 cannot hold become float64.
    """
    if sparse.issparse(matrix):
        raise ValueError(f"{name} must be dense, got a sparse matrix; pass toarray().")
    if not isinstance(matrix, torch.Tensor):
        matrix = np.asarray(matrix)
        if matrix.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be numeric, got dtype {matrix.dtype}.")
        if matrix.dtype.kind == "f":
            double = matrix.dtype.itemsize >= 8
        else:
            double = np.abs(matrix.astype(np.float32)).max(initial=0) >= 2**24
        matrix = np.asarray(matrix, dtype=np.float64 if double else np.float32)
        if any(s < 0 or s % matrix.itemsize for s in matrix.strides):
            matrix = matrix.copy()
        with warnings.catch_warnings():
            # A read-only array is safe here: no kernel writes to its input.
            warnings.filterwarnings("ignore", message=".*not writable")
            matrix = torch.from_numpy(matrix)
    matrix = matrix.detach()
    if matrix.layout != torch.strided or matrix.is_complex():
        raise ValueError(f"{name} must be a dense real tensor; convert it first.")
    if matrix.ndim != ndim:
        raise ValueError(f"{name} must be {ndim}-D, got shape {tuple(matrix.shape)}.")
    if matrix.dtype not in (torch.float32, torch.float64):
        single = matrix.float()
        whole = not matrix.is_floating_point() and matrix.numel() > 0
        double = whole and bool(single.abs().max() >= 2**24)
        matrix = matrix.double() if double else single
    return matrix.cpu() if matrix.device.type == "mps" else matrix  # MPS: no float64


def check_weights(weights, rows, name):
    """Return weights of rows in double precision where these lie, or raise."""
    if weights is None:
        return None
    weights = check_matrix(weights, "weights", 1).to(rows.device).double()
    if len(weights) != len(rows):
        raise ValueError(
            f"weights must have {len(rows)} entries, one for each row of {name}, got "
            f"{len(weights)}."
        )
    if not bool((torch.isfinite(weights) & (weights > 0)).all()):
        raise ValueError("weights must be finite and positive.")
    return weights


def check_points(points, centers, n_select):
    """Return points, centres (none: no rows) and the number to select, or raise."""
    points = check_matrix(points, "points")
    n_rows, n_columns = points.shape
    if n_rows and not n_columns:
        raise ValueError(f"points must have one column at least, got {n_rows} x 0.")
    n_select = check_n_select(n_select, n_rows, "points")
    centers = points[:0] if centers is None else centers
    centers = check_matrix(centers, "centers").to(points.device)
    if centers.shape[1] != n_columns:
        raise ValueError(
            f"centers must have {n_columns} columns like points, got shape "
            f"{tuple(centers.shape)}."
        )
    return points, centers, n_select


def check_norms(norms, name):
    """Raise unless squared norms, or sums that imply them, are finite."""
    if not bool(torch.isfinite(norms).all()):
        raise ValueError(
            f"{name} must be finite, with squared norms that {norms.dtype} can "
            "hold, but it has NaN, infinite or huge entries; clean or rescale it."
        )
