"""Find the head of a running network, and what it gives."""

import torch
from torch import nn


def scores_of(output):
    """Take the first of several outputs of a network, as skorch does in prediction."""
    return output[0] if isinstance(output, tuple) else output


class Hooks:
    """Forward hooks on layers of a network, gone when the block ends."""

    def __init__(self, module):
        self.module = getattr(module, "_orig_mod", module)
        self.handles = []

    def __exit__(self, *exc_info):
        self.hook({})

    def hook(self, catchers):
        """Call these functions, by the part of the network, and no others."""
        for handle in self.handles:
            handle.remove()
        self.handles = [p.register_forward_hook(f) for p, f in catchers.items()]


class HeadProbe(Hooks):
    """Hooks that catch the embedding and find the head while the network runs.

    The head is the nn.Linear whose output the network returns (same storage), or whose
    softmax, log-softmax or sigmoid it returns; once found, only the head is hooked.

    Parameters
    ----------
    module : nn.Module
    layer : str
        Name of the layer whose input is the embedding, or "auto".
    keep_graph : bool, default=False
        Whether gradients flow through the embeddings.
    """

    def __init__(self, module, layer, *, keep_graph=False):
        super().__init__(module)
        self.layer = layer
        self.keep_graph = keep_graph
        self.head = None
        self.site = None
        self.calls = []

    def __enter__(self):
        layers = dict(self.module.named_modules())
        if self.layer != "auto":
            if self.layer not in layers:
                raise ValueError(
                    f"embedding_layer={self.layer!r} is not a layer of the network; "
                    f"its layers are {[name for name in layers if name]}."
                )
            parts = [layers[self.layer]]
        else:
            parts = [p for p in layers.values() if isinstance(p, nn.Linear)]
        self.hook(dict.fromkeys(parts, self._catch))
        return self

    def _catch(self, part, args, output):
        self.calls.append((part, args[0] if args else None, output))

    def read(self, output):
        """Embedding and head output of the batch behind `output`; None if unknown."""
        calls, self.calls = self.calls, []
        if self.site is None:
            self._settle(calls, output)
        mine = [call for call in calls if call[0] is self.site]
        if not mine:
            if self.handles:
                raise ValueError(
                    f"embedding_layer={self.layer!r} did not run in the forward pass; "
                    "name a layer that runs for every batch."
                )
            return None, None
        _, x, y = mine[-1]
        if not isinstance(x, torch.Tensor):
            raise ValueError(
                f"embedding_layer={self.layer!r} takes no tensor as its first input."
            )
        x = (x if self.keep_graph else x.detach()).to(output.dtype)
        return x.reshape(len(x), -1), (None if self.head is None else y)

    def _settle(self, calls, output):
        """Find the head among the calls of the first batch, and hook nothing else."""
        if self.layer != "auto":
            self.site = calls[-1][0] if calls else None
        for part, x, y in reversed(calls):
            if isinstance(part, nn.Linear) and _returns(part, x, y, output):
                self.site = self.head = part
                break
        if self.layer == "auto":
            self.hook({} if self.head is None else {self.head: self._catch})


def missing_head(module):
    """Make the error of a network whose head is not found."""
    names = [name for name, _ in module.named_modules() if name]
    return ValueError(
        "no embedding layer found: the output of the network is not that of one of its "
        "nn.Linear layers (nor its softmax). Name the layer whose input is the "
        f"embedding, as in embedding_layer='fc'; the layers are {names}."
    )


def _returns(linear, x, y, output):
    """Tell whether the network's output is that of a Linear, or a softmax of it."""
    if y.numel() != output.numel():
        return False
    precision = torch.finfo(y.dtype).eps
    shared = y.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    y = y.reshape(output.shape).to(output.dtype)
    if not shared and not torch.equal(y, output):
        flat = output.ndim == 1 or output.shape[-1] == 1
        candidates = [y.sigmoid()] if flat else [y.softmax(-1), y.log_softmax(-1)]
        if not any(torch.allclose(c, output, rtol=1e-5, atol=1e-6) for c in candidates):
            return False
    # An in-place activation would share the storage and yet not be linear.
    with torch.no_grad():
        z = nn.functional.linear(x.to(linear.weight.dtype), linear.weight, linear.bias)
    error = (z.reshape(output.shape).to(output.dtype) - y).abs().max()
    return bool(error <= max(1e-3, 4 * precision) * z.abs().max() + 1e-6)


def find_logits(candidates, proba):
    """Scores whose softmax is `proba`: the head's, the output's, or its logarithm."""
    found = (z for z in map(as_logits, candidates) if explains(z, proba))
    z = next(found, None)
    return log_of(proba).to(candidates[0].device) if z is None else z


def as_logits(z):
    """Give scores a column for each class: one alone stands for two, (0, z)."""
    if z.ndim > 1 and z.shape[-1] > 1:
        return z
    z = z.reshape(-1, 1)
    return torch.cat([torch.zeros_like(z), z], dim=1)


def explains(z, proba):
    """Tell whether probabilities are the softmax of scores."""
    return z.shape == proba.shape and torch.allclose(
        z.softmax(1).to("cpu", proba.dtype), proba, rtol=1e-4, atol=1e-6
    )


def log_of(proba):
    """Logarithms that are finite."""
    return proba.clamp_min(torch.finfo(proba.dtype).tiny).log()


class OddRowError(ValueError):
    """Raised where some rows, not all, have no finite probabilities.

    Parameters
    ----------
    position : int
        Where the first of them stands.
    """

    def __init__(self, position: int):
        super().__init__(position)
        self.position = position


def check_distribution(proba, estimator, classes=None, positions=None):
    """Raise where rows are no finite distributions, or lack columns for `classes`.

    Parameters
    ----------
    proba : tensor of shape (n_rows, n_classes)
    estimator : estimator
    classes : array, default=None
    positions : sequence of int, default=None
        Where the rows stand, for an OddRowError; None raises none.
    """
    name = type(estimator).__name__
    if proba.ndim != 2:
        raise ValueError(
            f"{name} must give one row of probabilities a sample, got outputs of shape "
            f"{tuple(proba.shape)}."
        )
    finite = torch.isfinite(proba).all(1)
    if not bool(finite.all()):
        if positions is not None and bool(finite.any()):
            raise OddRowError(positions[int(finite.int().argmin())])
        raise ValueError(
            f"{name} gives NaN or infinite probabilities: X holds NaN, or training "
            "diverged; clean X or lower the learning rate."
        )
    error = (proba.sum(1) - 1).abs()
    if bool((proba < -1e-3).any()) or float(error.max()) > 1e-3:
        raise ValueError(
            f"the outputs of {name} are no distribution (a row sums to "
            f"{float(proba.sum(1)[error.argmax()]):.4g}); set predict_nonlinearity of "
            "the net to a function that turns its outputs into probabilities, such as "
            "torch.nn.Softmax(dim=-1), or, if the network returns logits, criterion to "
            "torch.nn.CrossEntropyLoss."
        )
    if classes is not None:
        check_outputs(proba, len(classes))


def check_outputs(scores, n_classes):
    """Raise where a network has fewer outputs than there are classes."""
    if scores.shape[1] < n_classes:
        raise ValueError(
            f"the network has {scores.shape[1]} outputs, but there are {n_classes} "
            "classes; give its last layer one output a class."
        )
