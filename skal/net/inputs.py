"""Rows and batches as the user's network takes them."""

import inspect
from contextlib import contextmanager

import numpy as np
import torch
from scipy import sparse
from skorch.callbacks import PrintLog
from skorch.helper import SliceDict

from skal.net.heads import check_outputs, scores_of
from skal.utils.rows import DatasetRows, frame_to_array, is_frame, native
from skal.utils.seeds import isolated_rng


def cast_inputs(x, net):
    """Cast a batch to the float type of a net's parameters.

    Only floats of a width that no parameter has are cast, as nothing else would be what
    skorch shows the network: masks stay booleans, token ids and lengths integers. A
    private net may have found out that it cannot take its integers; see `CastInputs`.
    """
    if getattr(net, "casts_integers_", False) and isinstance(x, torch.Tensor):
        return x.to(next(_float_types(net), x.dtype))

    def cast(part):
        casts = part.is_floating_point() and part.dtype not in _float_types(net)
        return part.to(next(_float_types(net), part.dtype)) if casts else part

    return map_tensors(cast, x)


def _float_types(net):
    """Yield the float types of the parameters; the first will do for most batches."""
    return (p.dtype for p in net.module_.parameters() if p.is_floating_point())


def map_tensors(function, value):
    """Call a function with each tensor in nested tuples, lists and dicts.

    Parameters
    ----------
    function : callable
    value : object

    Returns
    -------
    mapped : object
        Of the same structure; whatever else is in it is left alone.
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [map_tensors(function, part) for part in value]
        named = hasattr(value, "_fields")
        return type(value)(*parts) if named else type(value)(parts)
    return value


_PRINT = PrintLog().sink  # ray puts another print in its place


class QuietLog(PrintLog):
    """PrintLog that makes no table where nothing is printed."""

    def on_epoch_end(self, net, **kwargs):
        """Print a row of the table, where that is wanted."""
        if net.verbose or self.sink is not _PRINT:
            super().on_epoch_end(net, **kwargs)


class CastInputs:
    """Mixin of the private net: rows of any container, inputs cast, outputs compared.

    Where X is one tensor of integers (counts, pixels), the first batch is shown to the
    network as it is. If it fails on that, but not on floats, X is cast, here and in all
    that follows: as skorch cannot train such a network at all, nothing is changed that
    would have worked. Inputs of several parts are never cast, since a mask or a length
    would become something else.
    """

    @property
    def _default_callbacks(self):
        return [
            (name, QuietLog() if type(callback) is PrintLog else callback)
            for name, callback in super()._default_callbacks
        ]

    def initialize(self):
        """Forget what another network could take, then initialize."""
        vars(self).pop("casts_integers_", None)
        return super().initialize()

    def get_dataset(self, X, y=None):
        """Bring rows into a form that skorch takes, then make its dataset."""
        return super().get_dataset(net_rows(self, X, copy=y is not None), y)

    def infer(self, x, **fit_params):
        """Cast the batch, then infer."""
        x = cast_inputs(x, self)
        if (
            isinstance(x, torch.Tensor)
            and not (x.is_floating_point() or x.is_complex())
            and not hasattr(self, "casts_integers_")
        ):
            as_it_is = self._runs(x, fit_params)
            self.casts_integers_ = True
            if as_it_is or not self._runs(cast_inputs(x, self), fit_params):
                self.casts_integers_ = False
            x = cast_inputs(x, self)
        return super().infer(x, **fit_params)

    def _runs(self, x, fit_params):
        """Tell whether the network takes a batch, without leaving a trace in it."""
        try:
            with modes_kept([self.module_]), isolated_rng(0), torch.no_grad():
                self.module_.eval()
                super().infer(x.clone(), **fit_params)
            return True
        except Exception:  # whatever the user's code raises on what it cannot take
            return False

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Raise where the net has fewer outputs than classes, then get the loss."""
        scores = scores_of(y_pred)
        if getattr(scores, "ndim", 0) == 2:
            check_outputs(scores, len(getattr(self, "classes", None) or ()))
        return super().get_loss(y_pred, y_true, *args, **kwargs)


@contextmanager
def modes_kept(modules):
    """Leave training flags as they are; yields the modules, with all inside them."""
    modes = {part: part.training for module in modules for part in module.modules()}
    try:
        yield list(modes)
    finally:
        for part, training in modes.items():
            part.training = training


def net_rows(net, X, *, copy=False):
    """Bring rows into a form that skorch takes.

    Parameters
    ----------
    net : skorch net
        Initialized.
    X : rows of any container
    copy : bool, default=False
        Whether read-only arrays are copied; else they are read row by row.

    Returns
    -------
    rows : array, tensor, CSR matrix, dict or Dataset
        A DataFrame gives one array, or, where its columns are the arguments of the
        network's `forward`, a dict of them, each of shape (n_rows, 1).
    """
    if is_frame(X):
        if not _takes_columns(net, X):
            return frame_to_array(X)
        columns = {name: native(np.asarray(X[name])) for name in X.columns}
        return SliceDict(**{k: v.reshape(-1, 1) for k, v in columns.items()})
    if sparse.issparse(X):
        return sparse.csr_matrix(X)  # skorch cannot index sparse arrays by row
    if isinstance(X, np.ndarray):
        # torch takes no negative strides and no foreign byte order.
        if min(X.strides, default=0) < 0 or not X.dtype.isnative:
            X = native(X)
        if not X.flags.writeable:
            return native(X) if copy else DatasetRows(X, np.arange(len(X)))
    return X


def _takes_columns(net, frame):
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names):
        return False
    module = getattr(net.module_, "_orig_mod", net.module_)
    try:
        inspect.signature(module.forward).bind(**dict.fromkeys(names))
    except TypeError:
        return False
    return True
