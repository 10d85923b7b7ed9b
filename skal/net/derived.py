"""What strategies derive from outputs of a `PoolView`, in memory or in files."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Derived:
    """Mixin of `PoolView`: tensors beside its outputs, within its `memory_limit`."""

    def by_rows(
        self,
        function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
        *tensors: torch.Tensor,
        rows: NDArray[np.int64] | None = None,
    ) -> Any:
        """Compute what depends on each row alone, in memory of a chunk of the rows.

        Parameters
        ----------
        function : callable
            Gives, for some rows of each tensor, a tensor with as many rows, or several.
        *tensors : tensors of shape (n_samples, ...)
            Outputs of this pool.
        rows : int64 array of shape (n_rows,), default=None
            Which of them, in which order; None takes all.

        Returns
        -------
        results : tensor of shape (n_rows, ...), or a tuple of them
            In memory or in a file, as `memory_limit` says.
        """
        return self._scratch.by_rows(function, *tensors, rows=rows)

    def zeros(self, like: torch.Tensor) -> torch.Tensor:
        """Make a row of zeros for each of the pool, in memory or in a file.

        Parameters
        ----------
        like : tensor of shape (n_rows, ...)
            Whose rows they are like.

        Returns
        -------
        zeros : tensor of shape (n_samples, ...)
        """
        return self._scratch.rows(like, len(self)).zero_()

    def stack(self, *parts: torch.Tensor | None) -> torch.Tensor:
        """Copy tensors below one another, in memory or in a file, as for `by_rows`.

        Parameters
        ----------
        *parts : tensors of shape (n_rows, ...)
            None has no rows.

        Returns
        -------
        stacked : tensor
        """
        return self._scratch.stack(*parts)
