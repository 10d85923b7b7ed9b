"""Parts of the rows that a `PoolView` is of, here and in other processes."""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.net.pickling import Parcel
from skal.net.training import final_estimator
from skal.utils.rows import restrict, spread
from skal.utils.scratch import Scratch
from skal.utils.seeds import check_seed

# Outputs of one pass, a row of numbers each.
OUTPUTS = {"proba", "log_proba", "logits", "embeddings"}


class Parts:
    """Mixin of `PoolView`: view some of its rows, in another process, too."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """Row numbers in the loop's `X`, int64 of shape (n_samples,)."""
        if self._numbers is not None:
            return self._numbers.copy()
        return self._at(np.arange(len(self)))

    def part(
        self,
        positions: ArrayLike,
        *,
        random_state: int | None = None,
        known: Mapping[str, Any] | None = None,
        labeled: Any = None,
        weights: ArrayLike | None = None,
    ) -> Self:
        """View some of the rows, as this view does all.

        What this view has computed is not computed again. Pickled, a part takes only
        its own rows along, a dask array the blocks that hold them.

        Parameters
        ----------
        positions : int64 array of shape (n_rows,)
            In this view.
        random_state : int, default=None
            Its own seed; None takes that of this view.
        known : dict, default=None
            What `known` of parts gave for these rows; None takes what this view knows.
        labeled : PoolView, default=None
            Labelled rows, as from `labeled_and`; None takes those of this view, whose
            outputs are shared.
        weights : array-like of shape (n_rows,), default=None
            See the attribute.

        Returns
        -------
        view : PoolView
        """
        positions = np.asarray(positions, dtype=np.int64)
        view = self._view(self._X, self._at(positions), self.estimator)
        if self._numbers is not None:
            view._numbers = self._numbers[positions]
        if random_state is not None:
            view.random_state = check_seed(random_state)
        if self.has_labeled:
            view._labeled_data = self._labeled_data
            vars(view)["labeled"] = self.labeled
        if labeled is not None:
            if not self.has_labeled:
                view._labeled_data = labeled._X, labeled._rows, None
            vars(view)["labeled"] = labeled
        if weights is not None:
            view.weights = torch.as_tensor(weights)
        view._cache.update(self.known(positions) if known is None else known)
        return view

    def spread(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Order positions so that pieces of the order are random parts, cheap to read.

        Parameters
        ----------
        rng : numpy.random.Generator

        Returns
        -------
        positions : int64 array of shape (n_samples,)
            All, in random order; of a dask array block after block.
        """
        return spread(self._X, self._at(np.arange(len(self))), rng)

    def known(self, positions: ArrayLike) -> dict[str, Any]:
        """Give what has been computed of some rows, for `part`.

        Parameters
        ----------
        positions : int64 array of shape (n_rows,)

        Returns
        -------
        known : dict of str to tensor
            And the head of the network, where a pass has found it.
        """
        positions = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        return {
            name: value[positions] if isinstance(value, torch.Tensor) else value
            for name, value in self._cache.items()
            if isinstance(name, str)  # samples have the seed of their view
        }

    def labeled_and(self, positions: ArrayLike) -> Self:
        """View the labelled rows, as if some of this view's were among them.

        Parameters
        ----------
        positions : int64 array of shape (n_rows,)
            In this view.

        Returns
        -------
        view : PoolView
            Of the labelled rows; those of its outputs that are computed here and there
            have further rows, which are no others' to look up. Where nothing is
            labelled, simply of these rows.
        """
        if not self.has_labeled:
            return self.part(positions)
        view = self.labeled.part(np.arange(len(self.labeled)))
        view.y = self.labeled.y
        for name, value in self.known(positions).items():
            own = view._cache.get(name)
            if isinstance(own, torch.Tensor):
                view._cache[name] = torch.cat([own, value])
        return view

    def compute(self, names: Iterable[str]) -> None:
        """Compute now what one pass gives, of this view and its labelled rows.

        Parameters
        ----------
        names : iterable of str
            As in `QueryStrategy.requires`.
        """
        names = {*names}
        self.prefetch(names)
        if "decision_values" in names and self.decision_values is not None:
            names -= {"proba", "log_proba", "logits"}
        for name in sorted(names & OUTPUTS):
            getattr(self, name)
        for_labeled = [n.removeprefix("labeled.") for n in names if "labeled." in n]
        if for_labeled and self.has_labeled:
            self.labeled.compute(for_labeled)

    def _at(self, positions):
        return positions if self._rows is None else self._rows[positions]

    def __getstate__(self):
        state = {**vars(self), "_numbers": self.indices}
        for name in ("_final", "_net", "features"):  # are made again
            state.pop(name, None)
        state["_X"], state["_rows"] = restrict(self._X, self._rows)
        state["_scratch"] = Scratch(self._scratch.limit)
        state["_cache"] = {k: v for k, v in self._cache.items() if isinstance(k, str)}
        state["estimator"] = Parcel(self.estimator)
        if self.has_labeled:
            own = state["labeled"] = copy(self.labeled)  # with its own rows alone
            rows = None if own._rows is None else own._rows.copy()
            state["_labeled_data"] = own._X, rows, self._labeled_data[2]
        return state

    def __setstate__(self, state):
        vars(self).update(state, estimator=state["estimator"].estimator)
        self._final = final_estimator(self.estimator)
