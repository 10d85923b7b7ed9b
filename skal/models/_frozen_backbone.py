"""Pretrained networks by name, and networks of the user's own, ready to run."""

from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cached_property

import torch
from torch import nn

from skal.models._frozen_fingerprint import fingerprint
from skal.models._pretrained import load_pretrained
from skal.net.heads import HeadProbe, scores_of


def load_backbone(backbone, preprocess, layer):
    """Make a backbone ready.

    Parameters
    ----------
    backbone : nn.Module or str
    preprocess : callable or None
    layer : str
        As for `FrozenFeatures`.

    Returns
    -------
    backbone : Backbone
    """
    if isinstance(backbone, nn.Module):
        try:
            module = deepcopy(getattr(backbone, "_orig_mod", backbone))
        except RuntimeError as error:
            raise ValueError(
                f"backbone: the {type(backbone).__name__} cannot be copied ({error}); "
                "detach the tensors that it keeps."
            ) from error
        return Backbone(module, "rows", preprocess, layer)
    found = load_pretrained(backbone, layer)
    if preprocess is None:
        return Backbone(**found)
    if found["takes"] == "texts":
        raise ValueError(
            f"preprocess is for images, and {backbone!r} reads texts; leave it out."
        )
    return Backbone(**{**found, "prepare": preprocess, "collate": None})


class Backbone:
    """A private network, and how its features are read.

    Parameters
    ----------
    module : nn.Module
    takes : {"images", "texts", "rows"}
    prepare : callable or None
        Makes of one item what the network takes.
    layer : str
        See `FrozenFeatures`.
    about : str, default=""
        What else the features depend on.
    collate : callable, default=None
        Makes of a list of items, prepared or not, the keyword arguments of the network.
    pool : callable, default=None
        Makes of the output of the network and of those arguments a tensor.
    """

    def __init__(
        self, module, takes, prepare, layer, about="", collate=None, pool=None
    ):
        self.module = module.eval().requires_grad_(False)
        self.takes = takes
        self.prepare = prepare
        self.layer = layer
        self.about = about
        self.collate = collate
        self.pool = pool

    @cached_property
    def fingerprint(self):
        """Text that is another one where features may be others."""
        return fingerprint(
            self.module, self.prepare, self.takes, self.layer, self.about
        )

    @contextmanager
    def running(self, device):
        """Have the network on a device.

        Parameters
        ----------
        device : str or torch.device

        Yields
        ------
        encode : callable
            Makes of a list of items, and of their row numbers, an array of features.
        """
        self.module.to(device)
        probe = None
        if not self.pool and self.layer != "output":
            probe = HeadProbe(self.module, self.layer)

        def encode(items, rows):
            arguments = self._batch(items, rows)
            if isinstance(arguments, torch.Tensor):
                shape = tuple(arguments.shape[1:])
                arguments = self._cast(arguments).to(device)
                with self._explained(f"items of shape {shape}"):
                    output = scores_of(self.module(arguments))
            else:
                arguments = {k: v.to(device) for k, v in arguments.items()}
                with self._explained("its input"):
                    output = self.module(**arguments)
                output = self.pool(output, arguments)
            if probe is not None and isinstance(output, torch.Tensor):
                with _in_own_words():
                    embedding, _ = probe.read(output)
                output = output if embedding is None else embedding
            return self._vectors(output, len(items))

        with torch.inference_mode(), ExitStack() as stack:
            if probe is not None:
                with _in_own_words():
                    stack.enter_context(probe)
            yield encode

    @contextmanager
    def _explained(self, what):
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a network may raise
            raise ValueError(
                f"the backbone {type(self.module).__name__} fails on {what}: "
                f"{type(error).__name__}: {error}. "
                "Let preprocess make of a row what the network takes."
            ) from error

    def _batch(self, items, rows):
        """Make one batch of items."""
        if self.takes == "images":
            items = [_as_image(x, row) for x, row in zip(items, rows, strict=True)]
        if self.prepare is not None:
            items = [self._prepared(x, row) for x, row in zip(items, rows, strict=True)]
        if self.collate is not None:
            return self.collate(items)
        if self.pool is not None:  # of transformers, prepared by the user
            return {"pixel_values": _stacked(items, rows)}
        return _stacked(items, rows)

    def _prepared(self, x, row):
        try:
            x = self.prepare(x)
        except Exception as error:  # whatever a function may raise
            raise ValueError(
                f"preprocess fails on row {row} of X, a tensor of {x.dtype} of shape "
                f"{tuple(x.shape)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(x, torch.Tensor):
            raise ValueError(
                f"preprocess must give a tensor, got a {type(x).__name__} of row {row}."
            )
        return x

    def _cast(self, x):
        """Make floats of bytes, and floats of the type of the weights."""
        kinds = {p.dtype for p in self.module.parameters() if p.is_floating_point()}
        if x.dtype.itemsize == 1 or x.is_floating_point():
            return x if x.dtype in kinds else x.to(next(iter(kinds), torch.float32))
        return x

    def _vectors(self, output, n_rows):
        shape = getattr(output, "shape", ())
        if not isinstance(output, torch.Tensor) or tuple(shape[:1]) != (n_rows,):
            found = tuple(shape) or f"a {type(output).__name__}"
            raise ValueError(
                f"the backbone must give one vector a row, and gives {found} of "
                f"{n_rows} rows; name the layer whose input is the features."
            )
        if len(shape) != 2 and shape[1:].numel() != max(shape[1:], default=0):
            raise ValueError(
                f"the backbone gives no vector, but shape {tuple(shape[1:])} of each "
                "row; name the layer whose input is the features, or put a pooling "
                "layer and nn.Flatten() behind it."
            )
        return output.reshape(n_rows, -1).float().cpu().numpy()


@contextmanager
def _in_own_words():
    """Call what a network's embedding layer is here by its name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("embedding_layer=", "layer=")) from error


def _stacked(items, rows):
    first = items[0]
    for x, row in zip(items, rows, strict=True):
        if x.shape != first.shape:
            raise ValueError(
                f"row {row} of X has shape {tuple(x.shape)}, row {rows[0]} "
                f"{tuple(first.shape)}: bring images to one size and one number of "
                "channels, or let preprocess do it."
            )
    return torch.stack([x.detach() for x in items])


def _as_image(x, row):
    """Make a colour image of bytes of what may be grey or of floats."""
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[0] not in (1, 3) or x.numel() == 0:
        raise ValueError(
            f"row {row} of X has shape {tuple(x.shape)} and is no image, of shape "
            "(n_channels, height, width) with one or three channels."
        )
    if x.dtype != torch.uint8:
        x = x if x.is_floating_point() else x.long()  # of uint16 there is no minimum
        low, high = float(x.min()), float(x.max())
        top = 1 if x.is_floating_point() else 255
        if not 0 <= low <= high <= top:
            raise ValueError(
                f"row {row} of X is an image with values from {low} to {high}; bring "
                "images to bytes, or to floats in [0, 1]."
            )
        x = (x * (255 / top)).round().to(torch.uint8)
    return x.expand(3, -1, -1)
