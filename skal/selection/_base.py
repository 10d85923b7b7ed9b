"""What the kernels share: validation, and squared distances by small products."""

import warnings
from numbers import Integral

import numpy as np
import torch

# One product of this many rows and columns stays in a processor's cache.
N_ROWS, N_COLUMNS = 1024, 512


def check_n_select(n_select, n_rows, name):
    """Return `n_select` as an int in [0, n_rows], or raise."""
    valid = isinstance(n_select, Integral) and not isinstance(n_select, bool)
    if not valid or not 0 <= n_select <= n_rows:
        raise ValueError(
            f"n_select must be an int between 0 and {n_rows}, the number of rows of "
            f"{name}, got {n_select!r}; select fewer rows or pass more."
        )
    return int(n_select)


def check_matrix(matrix, name, ndim=2):
    """Return an array or tensor as a float tensor; float32 and float64 uncopied."""
    if not isinstance(matrix, torch.Tensor):
        matrix = np.asarray(matrix)
        if matrix.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be numeric, got dtype {matrix.dtype}.")
        double = matrix.dtype.kind == "f" and matrix.dtype.itemsize >= 8
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
        matrix = matrix.float()
    return matrix.cpu() if matrix.device.type == "mps" else matrix  # MPS: no float64


def working_dtype(tensor):
    """Return float64 for few numbers or where float32 products are cut short.

    TF32, bfloat16 matmul modes and autocast would break the bounds on rounding. They
    have several switches, so the product itself is asked.
    """
    if tensor.dtype == torch.float64 or tensor.numel() < 2**14:
        return torch.float64
    probe = torch.full((32, 32), 1 + 2**-12, device=tensor.device)
    whole = (probe @ probe)[0, 0].double() > 32 * (1 + 2**-12)
    return torch.float32 if whole else torch.float64


def rounding(factors, dtype):
    """Bound on the error of a squared distance, relative to the squared norms.

    Errors of sums grow like the square root of their length [Higham and Mary 2019].
    """
    width = sum(factor.shape[1] ** 0.5 for factor in factors)
    return (width + 4) * torch.finfo(dtype).eps


class SquaredDistances:
    """Squared distances from all rows to a few, never more than a chunk at a time.

    Parameters
    ----------
    factors : tuple of one or two tensors of shape (n_rows, n_columns)
        The points, or two factors whose row-wise outer product is the point.
    name : str
        What errors call them.
    dtype : torch.dtype
        Of the products.
    upper : bool, default=False
        Round upwards, so that no distance is below the exact one.
    """

    def __init__(self, factors, name, dtype, upper=False):
        self.factors, self.dtype = factors, dtype
        n_rows, device = len(factors[0]), factors[0].device
        widest = max(1, *(factor.shape[1] for factor in factors))
        step = max(64, min(N_ROWS, N_ROWS * N_COLUMNS // widest))
        self._step = max(1, min(step, n_rows))
        # Squares of tiny numbers underflow; the least normal number bounds the loss.
        self._scale = 1 + upper * 4 * rounding(factors, dtype)
        self._floor = upper * 4 * widest * torch.finfo(dtype).tiny
        self.origin = None
        if len(factors) == 1:
            # Distances do not depend on the origin, but their rounding does.
            total = sum(x.sum(0, dtype=torch.float64) for (x,) in self._chunks())
            self.origin = (total / max(1, n_rows)).to(dtype)
        self.norms = torch.empty(n_rows, dtype=dtype, device=device)
        for norms, rows in zip(self._split(self.norms), self._chunks(), strict=True):
            norms.copy_(self._norms(self._centered(rows)))
        self._check(self.norms, name)

    def take(self, positions):
        """Rows of the factors at `positions`."""
        index = torch.as_tensor(positions, device=self.norms.device)
        return [factor[index] for factor in self.factors]

    def lower(self, nearest, rows, name="rows"):
        """Lower `nearest`, of shape (n_rows,), to the distances to `rows`, in place."""
        for block in zip(*(x.split(N_COLUMNS) for x in rows), strict=True):
            if len(block[0]):
                self._lower(nearest, self._centered(block), name)

    def between(self, positions):
        """Distances between rows in float64, of shape (n_positions, n_positions)."""
        product = 1
        for x in self.take(positions):
            x = x.double() if self.origin is None else x.double() - self.origin
            product = product * (x @ x.T)
        norms = product.diagonal()[:, None] + product.diagonal()
        distances = norms - 2 * product
        return distances * (distances > rounding(self.factors, torch.float64) * norms)

    def _lower(self, nearest, block, name):
        column_norms = self._norms(block)
        self._check(column_norms, name)
        left, *others = [x.T for x in block]
        left = -2 * left
        empty = self.norms.new_empty
        product, other = (empty(self._step, len(column_norms)) for _ in range(2))
        scratch = empty(self._step, self.factors[0].shape[1])
        for near, norms, rows in zip(
            self._split(nearest), self._split(self.norms), self._chunks(), strict=True
        ):
            n = len(norms)
            first, *more = self._centered(rows, out=scratch[:n])
            if more:
                torch.mm(first, left, out=product[:n])
                torch.mm(more[0], others[0], out=other[:n])
                torch.addcmul(column_norms, product[:n], other[:n], out=product[:n])
            else:
                torch.addmm(column_norms, first, left, out=product[:n])
            lowest = (product[:n].amin(1) + norms).clamp_(min=0)
            near.copy_(torch.minimum(near, lowest))

    def _centered(self, rows, out=None):
        if self.origin is None:
            return [x.to(self.dtype) for x in rows]
        return [torch.sub(rows[0], self.origin, out=out).to(self.dtype)]

    def _norms(self, rows):
        norms = 1
        for x in rows:
            norms = norms * torch.linalg.vector_norm(x, dim=1).square()
        return norms * self._scale + self._floor

    def _check(self, norms, name):
        if not bool(torch.isfinite(norms).all()):
            raise ValueError(
                f"{name} must be finite, with squared norms that {self.dtype} can "
                "hold, but it has NaN, infinite or huge entries; clean or rescale it."
            )

    def _split(self, vector):
        return vector.split(self._step)

    def _chunks(self):
        return zip(*(self._split(factor) for factor in self.factors), strict=True)
