"""Pickles of fitted estimators: between processes, and to tell them apart."""

import builtins
import pickle
from io import BytesIO
from types import BuiltinFunctionType

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skal.net.training import empty_net, is_net

try:  # joblib >= 1.6 needs it, older ones bring their own
    from cloudpickle import CloudPickler
except ImportError:
    from joblib.externals.cloudpickle import CloudPickler


class Parcel:
    """Carries a fitted estimator from a process that joblib started.

    The classes of its networks need not be importable there, as those of a notebook or
    a script are not.

    Parameters
    ----------
    estimator : estimator
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def __reduce__(self):
        return _unpack, (_dump(_NetPickler, self.estimator),)


def learned_bytes(estimator):
    """Write what an estimator has learned, and no seed.

    Parameters
    ----------
    estimator : estimator
        Fitted.

    Returns
    -------
    data : bytes
        Equal where the same was learned.
    """
    return _dump(_LearnedPickler, estimator)


def _dump(pickler, value):
    file = BytesIO()
    pickler(file).dump(value)
    return file.getvalue()


def _unpack(data):
    return Parcel(pickle.loads(data))


class _NetPickler(CloudPickler):
    """Takes the attributes of nets as they are; skorch would import their classes."""

    def reducer_override(self, obj):
        if is_net(obj):
            return (*empty_net(obj), vars(obj), None, None, _set_attributes)
        if isinstance(obj, BuiltinFunctionType) and obj.__self__ is builtins:
            if getattr(builtins, obj.__name__) is not obj:  # ray has a print of its own
                return getattr, (builtins, obj.__name__)
        return super().reducer_override(obj)


def _set_attributes(net, attributes):
    vars(net).update(attributes)


class _LearnedPickler(CloudPickler):
    def reducer_override(self, obj):
        if is_net(obj):
            values = obj.module_.state_dict().values()
            values = [v.detach().cpu().flatten().view(torch.uint8) for v in values]
            return bytes, (b"".join(v.numpy().tobytes() for v in values),)
        if isinstance(obj, BaseEstimator):
            skipped = {*obj.get_params(deep=False), "_random_seed"}
            return dict, (), {k: v for k, v in vars(obj).items() if k not in skipped}
        if isinstance(obj, np.random.RandomState | np.random.Generator):
            return dict, ()
        return super().reducer_override(obj)
