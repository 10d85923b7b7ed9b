"""The rows of a run as a frozen backbone gives them."""

from pathlib import Path

import numpy as np
from sklearn.preprocessing import normalize
from sklearn.utils import Bunch

from skal.experiment.options import UsageError
from skal.models import FrozenFeatures
from skal.utils.rows import take

_CACHE = "~/.cache/skal/features"


def with_features(config, data, rows, *, cache=None, progress=None):
    """Replace the images of a run by their features, where it has a backbone.

    Parameters
    ----------
    config : RunConfig
        With a resolved device.
    data : Bunch
        As :func:`skal.datasets.load_dataset` returns it.
    rows : int64 array of shape (n_pool,)
        Training rows that can be bought: no others are shown to the backbone.
    cache : path-like, default=None
        Folder of the features; None is one in the home of the user, "" none.
    progress : callable, default=None
        See :meth:`skal.models.FrozenFeatures.transform`.

    Returns
    -------
    data : Bunch
        With a backbone, `X_train` has a row for each of `rows`, and no others; all are
        of length ``sqrt(n_features)``.
    """
    if config.backbone is None:
        return data
    if len(data.image_shape) != 3:
        raise UsageError(
            f"--backbone {config.backbone!r} takes images, and the rows of --data "
            f"{config.data!r} are those of a table; leave it out."
        )
    if cache is None:
        cache = Path(_CACHE).expanduser()
    features = FrozenFeatures(
        config.backbone, device=config.device, cache=cache if cache != "" else None
    )
    try:
        X_train, X_test = (
            features.transform(X, progress=progress)
            for X in (take(data.X_train, rows), data.X_test)
        )
    except (ImportError, OSError, ValueError) as error:
        message = getattr(error, "strerror", None) or str(error)
        message = message.replace("backbone=", "--backbone ")
        raise UsageError(message.replace("cache=", "--backbone-cache ")) from error
    n_features = X_train.shape[1]
    return Bunch(
        **{
            **data,
            # Of one length; with few labels better than columns of one deviation.
            "X_train": normalize(X_train) * np.float32(n_features**0.5),
            "X_test": normalize(X_test) * np.float32(n_features**0.5),
            "image_shape": (n_features,),
            "mean": np.zeros(n_features),
            "std": np.ones(n_features),
            "augmentation": None,
        }
    )


def few_rows(data, n_rows=2):
    """Keep the first test rows only, to try a backbone with."""
    return Bunch(**{**data, "X_test": take(data.X_test, range(n_rows))})
