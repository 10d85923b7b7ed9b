"""A net whose training ends after a number of steps."""

from collections.abc import Callable, Iterable
from itertools import islice
from math import ceil, isfinite
from numbers import Integral, Real
from typing import Any, Self

import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from torch import nn
from torch.utils.data import DataLoader

from skal.utils.validation import Interval


class CappedNet(NeuralNet):
    """Base of nets with several modules that strategies train for so many steps.

    The dataset it is fitted to makes the training batches: it has `n_batches(size)` and
    `batches(size)`, as `skal.net.auxiliary_rows.AuxiliaryRows`. A subclass writes
    `train_step`, where it updates modules by `_update`; it names in `_extra` the
    modules beside `module`, with their arguments in `_arguments`, in `_curves` what it
    notes beside the loss, and in `_longest_epoch` how many steps an epoch may have.

    Parameters
    ----------
    module : module or type
        The main one, optimised by `optimizer`.
    criterion : module or type, default=nn.MSELoss
        Plays no part; skorch wants one.
    optimizer : type, default=Adam
        For any further module NAME there is a NAME_optimizer; all of them have the
        same learning rate, `lr`, unless NAME_optimizer__lr is set.
    max_iter : int
        No more steps than this, whatever `max_epochs` allows.
    train_split : callable, default=None
        All rows train.
    verbose : int, default=0
        See `skorch.NeuralNet`.
    **params : dict
        See `skorch.NeuralNet`.
    """

    _extra = ()
    _curves = ()
    _longest_epoch = None
    _parameter_constraints = {
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        module: Any,
        criterion: Any = nn.MSELoss,
        *,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        max_iter: int,
        train_split: Any = None,
        verbose: int = 0,
        **params: Any,
    ):
        super().__init__(
            module,
            criterion,
            optimizer=optimizer,
            train_split=train_split,
            verbose=verbose,
            **params,
        )
        self.max_iter = max_iter

    @property
    def cap(self) -> int:
        """Steps that `max_iter` allows."""
        return self.max_iter

    def _validate_params(self):
        """Check names of arguments as skorch does, and values as scikit-learn does."""
        if self._modules:  # which skorch knows when they are made
            super()._validate_params()
        BaseEstimator._validate_params(self)

    @property
    def _default_callbacks(self):
        *callbacks, log = super()._default_callbacks
        curves = [(n, PassthroughScoring(n, on_train=True)) for n in self._curves]
        return [*callbacks, *curves, log]

    def _arguments(self, name):
        """Arguments of a further module that follow from the main one."""
        return {}

    def initialize_module(self) -> Self:
        """Make all modules."""
        super().initialize_module()
        for name in self._extra:
            kwargs = self._arguments(name) | self.get_params_for(name)
            module = self.initialized_instance(getattr(self, name), kwargs)
            setattr(self, f"{name}_", module)
        return self

    def initialize_optimizer(self) -> Self:
        """Make one optimizer for each module."""
        for name in ("module", *self._extra):
            prefix = _optimizer_of(name)
            args, kwargs = self.get_params_for_optimizer(
                prefix, getattr(self, f"{name}_").named_parameters()
            )
            setattr(self, f"{prefix}_", getattr(self, prefix)(*args, **kwargs))
        return self

    def fit_loop(
        self, X: Any, y: Any = None, epochs: int | None = None, **fit_params: Any
    ) -> Self:
        """Train for `max_epochs`, or until `max_iter` steps are done."""
        epochs = self.max_epochs if epochs is None else epochs
        epochs = min(epochs, ceil(self.cap / self._n_batches(X)))
        return super().fit_loop(X, y, epochs=epochs, **fit_params)

    def get_iterator(self, dataset: Any, training: bool = False) -> Iterable[Any]:
        """Let the dataset make the batches that train."""
        if not training:
            return super().get_iterator(dataset, training)
        params = self.get_params_for("iterator_train")
        params = {k: params[k] for k in ("num_workers", "pin_memory") if k in params}
        batches = _Epochs(
            dataset.batches(self._batch_size()), self._n_batches(dataset), self.cap
        )
        return DataLoader(
            dataset, batch_sampler=batches, collate_fn=_as_it_is, **params
        )

    def _n_batches(self, dataset):
        n_batches = dataset.n_batches(self._batch_size())
        return min(n_batches, self._longest_epoch or n_batches)

    def _batch_size(self):
        return self.get_params_for("iterator_train").get("batch_size", self.batch_size)

    def _update(self, name, loss, batch):
        """Update one module, and no other, by the gradient of a loss."""
        named = list(getattr(self, f"{name}_").named_parameters())
        optimizer = getattr(self, f"{_optimizer_of(name)}_")
        optimizer.zero_grad()
        loss.backward(inputs=[p for _, p in named if p.requires_grad])
        self.notify(
            "on_grad_computed", named_parameters=named, batch=batch, training=True
        )
        optimizer.step()

    def _note(self, losses, **values):
        """Keep values of this batch in the history, averaged over each epoch.

        All are read from the device at once. Raises where the loss of a module, given
        by its name, is not finite.
        """
        tensors = [value.detach() for value in (*losses.values(), *values.values())]
        numbers = torch.stack([value.float() for value in tensors]).tolist()
        for name, loss in zip(losses, numbers, strict=False):
            if not isfinite(loss):
                raise ValueError(
                    f"the {type(getattr(self, f'{name}_')).__name__} that a strategy "
                    f"trains diverged: its loss is {loss} in epoch "
                    f"{len(self.history)}; lower the learning rate, aux__lr={self.lr}."
                )
        for name, value in zip(values, numbers[len(losses) :], strict=True):
            self.history.record_batch(name, value)


def _optimizer_of(name):
    return "optimizer" if name == "module" else f"{name}_optimizer"


class _Epochs:
    """Batches epoch by epoch, until there were `max_iter`."""

    def __init__(self, batches, n_batches, max_iter):
        self.batches, self.n_batches, self.left = batches, n_batches, max_iter

    def __len__(self):
        return min(self.n_batches, self.left)

    def __iter__(self):
        n_batches = len(self)
        self.left -= n_batches
        return islice(self.batches, n_batches)


def _as_it_is(batch):
    return batch
