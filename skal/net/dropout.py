"""Give a network in evaluation mode a fixed set of dropout masks."""

import warnings
from contextlib import nullcontext
from functools import partial
from itertools import chain, islice

import torch
from skorch.utils import to_device
from torch import nn
from torch.overrides import TorchFunctionMode

from skal.net.evaluation import check_count, running
from skal.net.heads import check_distribution
from skal.utils.seeds import derive_seed

# Numbers in one piece of sampled predictions: 4 MB of float32.
PIECE = 2**20
_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
_ALPHA = (nn.AlphaDropout, nn.FeatureAlphaDropout)
_DROPOUTS = (nn.Dropout, nn.AlphaDropout, *_BY_CHANNEL)
# What a dropped unit of a self-normalising network is set to: -scale * alpha of SELU.
_SATURATION = -1.7580993408473766


def active_dropouts(module):
    """List the dropout modules of a network that would drop anything.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    parts : list of nn.Module
    """
    return [p for p in module.modules() if isinstance(p, _DROPOUTS) and p.p > 0]


def sample_dropout(net, batches, n_rows, n_draws, seed, classes, each):
    """Run a net over batches once, and what follows its first dropout for each draw.

    Parameters
    ----------
    net : skorch net
        Fitted.
    batches : iterator of (x, y)
        As of `skal.net.evaluation.predict_batches`.
    n_rows, n_draws, seed : int
        See `DropoutDraws`.
    classes : array or None
        As many as the net has outputs, at most.
    each : callable
        Gets the probabilities in pieces; see `skal.PoolView.sample_proba`.
    """
    nonlinearity, count, differ = net._get_predict_nonlinearity(), 0, False
    with running(net, seed), DropoutDraws(net.module_, n_draws, seed) as draws:
        for batch in batches:
            outputs = draws.outputs(partial(net.evaluation_step, batch))
            outputs = (z[0] if isinstance(z, tuple) else z for z in outputs)
            first, done = next(outputs), 0
            outputs = chain([first], outputs)
            rows = slice(count, count := count + len(first))
            size = max(1, PIECE // max(1, first.numel()))
            while group := list(islice(outputs, size)):
                differ = differ or any(not z.equal(first) for z in group)
                # The nonlinearity runs on the CPU, as in skorch's predict_proba.
                proba = nonlinearity(to_device(torch.cat(group), "cpu"))
                check_distribution(proba, net, classes)
                piece = proba.to(first.device).unflatten(0, (len(group), -1))
                place = rows, slice(done, done := done + len(group))
                if count <= n_rows:
                    each(piece.transpose(0, 1).contiguous(), place, n_draws)
    check_count(net, count, n_rows)
    if not draws.applied:
        raise ValueError(
            "no dropout layer of the network ran in its forward pass, so all draws "
            "are the same; call one there, or use DeepEnsemble."
        )
    if not differ:
        warnings.warn(
            f"all {n_draws} draws gave the same outputs for {n_rows} rows: does what "
            "the network returns use what its dropout layers return? Else take more "
            "draws or a larger p.",
            UserWarning,
            stacklevel=5,
        )


class DropoutDraws:
    """Run a network under `n_draws` sets of dropout masks, the same for every row.

    While it is entered, hooks on the dropout modules apply the masks, so that no module
    leaves evaluation mode. Mask t of a module depends on the seed, on t and on the
    shape of one row, never on the batch.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode while it runs.
    n_draws : int
        Number of sets of masks.
    seed : int
        Of the masks; torch's generators are left alone.

    Attributes
    ----------
    applied : bool
        Whether any mask has been applied.

    Notes
    -----
    What precedes the first dropout of a forward pass is computed once a batch: the
    results of torch's functions up to there are kept, and under the other masks given
    back in turn while the Python code between them runs again. Only where a kept
    tensor is written to after the first dropout, every pass is a full one.

    A tensor whose first dimension is not the batch is taken to have it second, as in
    sequence-first networks, or to hold several entries a row one after another. Where
    a shape allows more than one of these, two rows are passed alone to tell which.

    Memory: `n_draws` masks of the size of one row at each dropout, and the kept
    results of one batch, as many as training would keep.
    """

    def __init__(self, module, n_draws, seed):
        self.module = getattr(module, "_orig_mod", module)
        self.n_draws, self.seed = n_draws, seed
        self.applied = False
        self._parts = active_dropouts(self.module)
        self._masks, self._handles, self._layouts = {}, [], {}
        self._probes = None
        self._replay = _Replay()  # None: every pass is a full one

    def __enter__(self):
        # The fused attention of evaluation mode passes over the dropout modules.
        self._fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        hook = self.module.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._handles = [hook]
        for number, part in enumerate(self._parts):
            hook = part.register_forward_hook(
                lambda part, args, output, number=number: self._drop(
                    number, part, output
                )
            )
            self._handles.append(hook)
        return self

    def __exit__(self, *exc_info):
        torch.backends.mha.set_fastpath_enabled(self._fused)
        for handle in self._handles:
            handle.remove()

    def outputs(self, forward):
        """Run one batch under one set of masks after another.

        Parameters
        ----------
        forward : callable
            Runs the network on the batch and returns its output.

        Yields
        ------
        output : object
            What `forward` returned, `n_draws` times.
        """
        self._replay = self._replay and _Replay()
        for draw in range(self.n_draws):
            self._draw = draw
            try:
                output = self._run(forward)
            except _UnclearRows:
                self._probes = True
                forward()
                self._probes = False
                self._replay = self._replay and _Replay()
                output = self._run(forward)
            if self._replay and not self._replay.sound():
                self._replay = None
                output = self._run(forward)
            if self._replay:
                self._replay.rewind()
            yield output

    def _run(self, forward):
        with self._replay or nullcontext():
            return forward()

    def _begin(self, module, args, kwargs):
        sizes = [len(t) for t in _tensors((args, kwargs)) if t.ndim]
        self._n_rows = sizes[0] if sizes else 0
        self._calls = dict.fromkeys(range(len(self._parts)), 0)
        args, kwargs = _map_tensors(torch.clone, (args, kwargs))  # it may write to them
        if self._probes:
            n_rows, self._n_rows = self._n_rows, 2
            return _map_tensors(
                lambda t: t[:2] if t.ndim and len(t) == n_rows else t, (args, kwargs)
            )
        return args, kwargs

    def _drop(self, number, part, x):
        """Apply mask t of a call of a dropout module to what it would pass on."""
        call = self._calls[number]
        self._calls[number] += 1
        if self._replay:
            self._replay.stop()
        of_x = tuple(x.shape)
        layout = self._layout(number, call, of_x)
        if self._probes:
            return None
        self.applied = True
        shape, rows = _one_row(of_x, self._n_rows, layout)
        if isinstance(part, _BY_CHANNEL):
            n_kept = 2 + (layout == "several")
            shape = (*shape[:n_kept], *[1] * len(shape[n_kept:]))
        key = (self._draw, number, call, shape, x.dtype, x.device)
        if key not in self._masks:
            self._masks[key] = self._make_mask(part, key)
        mask = self._masks[key]
        masked = x.reshape(rows) * mask
        if isinstance(part, _ALPHA):  # keep mean 0 and variance 1 of such networks
            p = part.p
            scale = ((1 - p) * (1 + p * _SATURATION**2)) ** -0.5 if p < 1 else 0.0
            masked = (masked + _SATURATION * (1 - mask)) * scale
            masked = masked - scale * p * _SATURATION
        return masked.reshape(of_x)

    def _layout(self, number, call, shape):
        """Tell where the rows lie in what a dropout module got, by all batches."""
        found = _layouts(shape, self._n_rows)
        known = self._layouts.get((number, call), found)
        found = [layout for layout in found if layout in known] or found
        if len(found) > 1 and self._n_rows > 2 and self._probes is None:
            raise _UnclearRows
        self._layouts[number, call] = found
        return found[0]

    def _make_mask(self, part, key):
        draw, number, call, shape, dtype, device = key
        seed = derive_seed(self.seed, draw, f"dropout {number} {call}")
        # Drawn on the CPU, so that every device has the same.
        random = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        mask = (random >= part.p).to(device, dtype)
        return mask if isinstance(part, _ALPHA) or part.p >= 1 else mask / (1 - part.p)


class _Replay(TorchFunctionMode):
    """Keep what torch's functions give up to the first dropout, and give it back.

    The first pass records: each call of a torch function and its result, in order,
    until `stop`. A later one runs the same Python code, but its calls get the recorded
    results in turn; from `stop` on, or from a call of another function than was
    recorded, it computes. It is `sound` to go on as long as no recorded tensor has been
    written to since `stop`: what comes after the dropout must not change its input.
    """

    def __init__(self):
        super().__init__()
        self._kept, self._n_given = [], None  # None while the first pass records
        self._tensors, self._versions = [], None
        self._live = False

    def rewind(self):
        """Give back, from the first on."""
        self._n_given, self._live = 0, False

    def stop(self):
        """Compute from here on."""
        if not self._live:
            self._live = True
            if self._n_given is None:
                self._tensors = [t for _, kept in self._kept for t in _tensors(kept)]
                # Those of inference mode do not count how often they are written to.
                counted = not any(t.is_inference() for t in self._tensors)
                self._versions = self._count() if counted else None

    def sound(self):
        """Tell whether nothing kept has been written to since `stop`."""
        return self._versions is not None and self._versions == self._count()

    def _count(self):
        return [t._version for t in self._tensors]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        replays = self._n_given is not None
        if replays and not self._live and self._n_given < len(self._kept):
            kept, result = self._kept[self._n_given]
            if kept == func:
                self._n_given += 1
                return list(result) if type(result) is list else result
        result = func(*args, **(kwargs or {}))
        # What gives nothing may set a mode, such as gradients off: done every time.
        if not self._live and (result is not None or func is torch.Tensor.__setitem__):
            if replays:  # this pass goes another way than the first did
                self._live = True
            else:
                self._kept.append((func, result))
        return result


class _UnclearRows(Exception):
    """The shape of a tensor does not tell where its rows lie."""


def _layouts(shape, n_rows):
    """List where the rows of a tensor may lie, the most likely first."""
    if not shape or not n_rows:
        raise ValueError("MCDropout needs dropout on batches, got one single number.")
    found = ["first"] if shape[0] == n_rows else []
    if shape[1:2] == (n_rows,):
        found.append("second")
    if shape[0] != n_rows and shape[0] % n_rows == 0:
        found.append("several")
    if found:
        return found
    raise ValueError(
        f"MCDropout cannot tell the rows apart: a dropout layer got a tensor of shape "
        f"{shape} in a batch of {n_rows} rows; let its first dimension be the batch."
    )


def _one_row(shape, n_rows, layout):
    """Shape of a mask that every row shares, and that of `x` to multiply it with."""
    if layout == "first":
        return (1, *shape[1:]), shape
    if layout == "second":
        return (shape[0], 1, *shape[2:]), shape
    rest = (shape[0] // n_rows, *shape[1:])
    return (1, *rest), (n_rows, *rest)


def _tensors(value):
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _map_tensors(function, value):
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        items = value.items()
        return type(value)({key: _map_tensors(function, v) for key, v in items})
    if isinstance(value, tuple | list):
        mapped = [_map_tensors(function, inner) for inner in value]
        named = hasattr(value, "_fields")
        return type(value)(*mapped) if named else type(value)(mapped)
    return value
