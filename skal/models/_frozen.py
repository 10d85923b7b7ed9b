"""Features of a pretrained backbone that is never trained."""

from collections.abc import Callable
from numbers import Integral
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from torch import nn

from skal.models._frozen_backbone import load_backbone
from skal.models._frozen_cache import FeatureCache
from skal.models._frozen_items import find_items, refuse_others
from skal.utils.devices import usable_device
from skal.utils.seeds import isolated_rng
from skal.utils.validation import Interval, StrOptions, check_params

# Rows of a chunk of the cache: what a kill loses at most.
_CHUNK = 512


class FrozenFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn images or texts into what a pretrained network makes of them.

    A transformer without state: `fit` does nothing. At the head of a Pipeline inside
    an :class:`~skal.ActiveLearningLoop` it runs once, before the rounds, and strategies
    see its features.

    Parameters
    ----------
    backbone : nn.Module or str
        A network, which is copied and never changed; or a name, whose pretrained
        weights are downloaded on first use:

        * "torchvision:NAME" such as "torchvision:resnet18", with its default weights;
        * "timm:NAME" such as "timm:vit_small_patch14_dinov2.lvd142m", without its head;
          "timm:local-dir:FOLDER" for weights of your own. Needs ``skal[timm]``;
        * "transformers:NAME", an encoder of images or of texts on Hugging Face, or the
          folder of one. Needs ``skal[transformers]``.
    preprocess : callable, default=None
        Called with each image, a tensor of uint8 of shape (n_channels, height, width),
        or with each row of another array as a tensor; gives the tensor that the network
        takes. None: what belongs to the name; for a network of your own nothing, it
        gets the rows as they are, whole numbers of one byte as floats.
    layer : str, default="auto"
        Name of the layer whose *input* is the features, flattened. "auto" is the
        nn.Linear whose output the network returns, or the output itself where there is
        none; "output" always takes the output. Of timm, "auto" is the output. Of
        transformers, "auto", "pooler", "cls" (the first token) and "mean" (of all
        tokens): "auto" is the mean of a text, and of an image the pooler where its
        weights are stored, else the first token where it is one of its own, else the
        mean.
    batch_size : int, default=64
        Rows that the network sees at a time.
    device : str, default="auto"
        Where the network runs; "auto" takes a GPU where there is one.
    cache : path-like, default=None
        Folder that keeps features, of any number of backbones: what is there is not
        computed again. None keeps nothing.
    changed_files : {"raise", "recompute"}, default="raise"
        What to do where image files have another size or time of change than when
        their features were kept in the cache.

    See Also
    --------
    skal.ActiveLearningLoop : Runs it once, before the rounds.

    Notes
    -----
    The network is in evaluation mode, and no gradient is kept.

    In the cache a row is known by its content, a file by its path, size and time of
    change; a backbone by its layers, their weights and attributes, layer and preprocess
    (a function by its code, defaults and closure, not by global variables). So other
    backbones lie side by side, and nothing stale is read; what is computed anew lies
    beside what was kept.
    Chunks of some 512 rows are written whole: after a kill the same call goes on. Two
    processes may use one folder; the second waits for what the first computes.

    The last bits of a feature may depend on the batch that its row was in.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from skal.models import FrozenFeatures
    >>> images = np.zeros((5, 1, 8, 8), dtype=np.uint8)
    >>> backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    >>> FrozenFeatures(backbone).transform(images).shape
    (5, 16)
    """

    _parameter_constraints = {
        "backbone": [nn.Module, str],
        "preprocess": [callable, None],
        "layer": [str],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "cache": [str, PathLike, None],
        "changed_files": [StrOptions({"raise", "recompute"})],
    }

    def __init__(
        self,
        backbone: nn.Module | str,
        *,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        layer: str = "auto",
        batch_size: int = 64,
        device: str = "auto",
        cache: str | PathLike | None = None,
        changed_files: str = "raise",
    ):
        self.backbone = backbone
        self.preprocess = preprocess
        self.layer = layer
        self.batch_size = batch_size
        self.device = device
        self.cache = cache
        self.changed_files = changed_files

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Check the parameters; there is nothing to learn.

        Parameters
        ----------
        X : rows, default=None
            As for `transform`; none is read.
        y : ignored

        Returns
        -------
        self : FrozenFeatures
        """
        check_params(self)
        refuse_others(X)
        return self

    def transform(
        self, X: Any, *, progress: Callable[[int, int], Any] | None = None
    ) -> NDArray[np.float32]:
        """Compute the features, or read those that the cache has.

        Parameters
        ----------
        X : array, list, folder or Dataset
            Images as an array of shape (n_samples, n_channels, height, width),
            (n_samples, height, width, n_channels) or (n_samples, height, width), of
            bytes or of floats in [0, 1]; a list of images of several sizes; the names
            of image files; a folder, whose image files are taken in the order of
            their paths; a map-style Dataset; for an encoder of texts, texts. A network
            of your own takes whatever arrays it can.
        progress : callable, default=None
            Called with the number of computed rows, and of those to compute.

        Returns
        -------
        features : ndarray of float32 of shape (n_samples, n_features)

        Raises
        ------
        FileNotFoundError
            Where weights cannot be had, naming the file and where to put it.
        OSError
            Where the cache cannot be written; what it has is kept.
        ValueError
            For rows that the backbone cannot take, for features that are no finite
            vectors, and for files that have changed since the cache kept theirs.
        """
        check_params(self)
        with isolated_rng(0):
            backbone = self._load()
            items = find_items(X, backbone.takes)
            if len(items) == 0:
                raise ValueError("Found array with 0 sample(s): X has no rows.")
            progress = progress or (lambda n_done, n_rows: None)
            if self.cache is None:
                features = self._compute(backbone, items, range(len(items)), progress)
            else:
                features = self._cached(backbone, items, progress)
        self._n_features_out = features.shape[1]
        return features

    def _load(self):
        """Load the backbone; one by name is kept, yours may have been trained since."""
        key = self.backbone, self.preprocess, self.layer
        if isinstance(self.backbone, nn.Module):
            return load_backbone(*key)
        if self.__dict__.get("_loaded", ())[:1] != (key,):
            self._loaded = key, load_backbone(*key)
        return self._loaded[1]

    def _compute(self, backbone, items, rows, progress, each=None):
        """Run the network over rows; `each` chunk is handed on where that is given."""
        size, features = self.batch_size, None
        chunk = -(-_CHUNK // size) * size if each else len(rows)
        with backbone.running(usable_device(self.device)) as encode:
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                batch = _checked(encode([items.read(row) for row in some], some), some)
                place = start % chunk
                if features is None:
                    n_rows = min(chunk, len(rows))
                    features = np.empty((n_rows, batch.shape[1]), dtype=np.float32)
                features[place : place + len(some)] = batch
                stop = start + len(some)
                if each and (stop % chunk == 0 or stop == len(rows)):
                    each(rows[start - place : stop], features[: place + len(some)])
                progress(stop, len(rows))
        return features

    def _cached(self, backbone, items, progress):
        cache = FeatureCache(self.cache, backbone.fingerprint)
        keys = _numbers(items.key, items)
        if len(rows := cache.missing(keys)):
            files = hasattr(items, "source")
            sources = _numbers(items.source, items) if files else keys
            changed = rows[cache.knows(sources[rows])]
            if len(changed) and self.changed_files == "raise":
                raise ValueError(
                    f"cache={str(self.cache)!r}: {len(changed)} image files, the first "
                    f"{items.paths[changed[0]]!r}, have another size or time of change "
                    "than when their features were kept. Put them back, name another "
                    "folder, or set changed_files='recompute', which computes theirs "
                    "anew and loses nothing that was kept."
                )
            with cache.locked():  # another process may have been at it
                if len(rows := cache.missing(keys)):
                    self._compute(
                        backbone,
                        items,
                        rows,
                        progress,
                        each=lambda rows, features: cache.add(
                            keys[rows], sources[rows], features
                        ),
                    )
        return cache.read(keys)

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __getstate__(self):
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_loaded"}


def _numbers(number_of, items):
    return np.array([number_of(row) for row in range(len(items))], dtype=np.uint64)


def _checked(features, rows):
    """Raise where features of some rows are not finite."""
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        row = rows[int(np.flatnonzero(bad)[0])]
        raise ValueError(
            f"the backbone gives NaN or infinite features of row {row} of X, and of "
            f"{bad.sum()} of {len(bad)} rows beside it; look at these rows, and at "
            "what preprocess makes of them."
        )
    return features
