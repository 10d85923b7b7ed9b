"""Give a network in evaluation mode a fixed set of dropout masks."""

import torch
from torch import nn

from skal.utils.seeds import derive_seed

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
    What runs before the first dropout of a forward pass runs once a batch: the results
    of the outermost submodules that finish before it are recorded, and given back by
    those submodules under the other masks. So any Python code may stand between them.

    A tensor whose first dimension is not the batch is taken to have it second, as in
    sequence-first networks, or to hold several entries a row one after another.

    Memory: `n_draws` masks of the size of one row at each dropout, and the recorded
    results of one batch.
    """

    def __init__(self, module, n_draws, seed):
        self.module = getattr(module, "_orig_mod", module)
        self.n_draws, self.seed = n_draws, seed
        self.applied = False
        self._parts = active_dropouts(self.module)
        self._masks, self._handles, self._records = {}, [], None

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
        for record in self._records or ():
            record.detach()

    def outputs(self, forward):
        """Run one batch under every set of masks.

        Parameters
        ----------
        forward : callable
            Runs the network on the batch and returns its output.

        Returns
        -------
        outputs : list of n_draws objects
            What `forward` returned.
        """
        self._draw = 0
        if self._records is None:
            self._records = self._find_records(forward)
        while True:
            for record in self._records:
                record.start()
            first = forward()
            spoilt = [record for record in self._records if not record.sound()]
            if not spoilt:
                break
            for record in spoilt:  # written to later in the pass: copy it next time
                record.copies = True
        outputs = [first]
        for draw in range(1, self.n_draws):
            self._draw = draw
            for record in self._records:
                record.rewind()
            outputs.append(forward())
        return outputs

    def _find_records(self, forward):
        """Run once, and record the outermost submodules that end before a dropout."""
        finished, opened, handles = [], [], []

        def leave(part, args, output):
            start = opened.pop()
            if not self._dropping:
                del finished[start:]
                finished.append(part)

        for part in self.module.modules():
            if part is not self.module:
                enter = part.register_forward_pre_hook(
                    lambda part, args: opened.append(len(finished))
                )
                handles += [enter, part.register_forward_hook(leave)]
        try:
            forward()
        finally:
            for handle in handles:
                handle.remove()
        return [_Record(part, self) for part in dict.fromkeys(finished)]

    def _begin(self, module, args, kwargs):
        sizes = [len(t) for t in _tensors((args, kwargs)) if t.ndim]
        self._n_rows = sizes[0] if sizes else 0
        self._calls = dict.fromkeys(range(len(self._parts)), 0)
        self._dropping = False

    def _drop(self, number, part, x):
        """Apply mask t of a call of a dropout module to what it would pass on."""
        call = self._calls[number]
        self._calls[number] += 1
        self._dropping = self.applied = True
        shape, rows = _one_row(x, self._n_rows)
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
        return masked.reshape(x.shape)

    def _make_mask(self, part, key):
        draw, number, call, shape, dtype, device = key
        seed = derive_seed(self.seed, draw, f"dropout {number} {call}")
        if isinstance(part, _BY_CHANNEL):
            shape = (*shape[:2], *[1] * len(shape[2:]))
        # Drawn on the CPU, so that every device has the same.
        random = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        mask = (random >= part.p).to(device, dtype)
        return mask if isinstance(part, _ALPHA) or part.p >= 1 else mask / (1 - part.p)


class _Record:
    """Results of a submodule before the first dropout of a batch, to give them back.

    Stands in for `part.forward`. Results that are written to in place later are kept
    as copies.
    """

    def __init__(self, part, draws):
        self.part, self.draws = part, draws
        self.forward, self.copies, self.kept = part.forward, False, []
        self.own = "forward" in vars(part)
        part.forward = self

    def detach(self):
        if self.own:
            self.part.forward = self.forward
        else:
            del self.part.forward

    def start(self):
        self.kept, self.lent, self.recording = [], [], True

    def rewind(self):
        self.recording, self.n_calls = False, 0

    def __call__(self, *args, **kwargs):
        if self.recording:
            result = self.forward(*args, **kwargs)
            if not self.draws._dropping:
                kept = _copy(result) if self.copies else result
                self.kept.append((kept, _versions(kept)))
                self.lent.append((None, None))
            return result
        n = self.n_calls
        self.n_calls += 1
        if n >= len(self.kept):
            return self.forward(*args, **kwargs)
        if not self.copies:
            return self.kept[n][0]
        lent, versions = self.lent[n]
        if lent is None or versions != _versions(lent):
            lent = _copy(self.kept[n][0])
            self.lent[n] = (lent, _versions(lent))
        return lent

    def sound(self):
        return all(versions == _versions(kept) for kept, versions in self.kept)


def _one_row(x, n_rows):
    """Shape of a mask that every row shares, and that of `x` to multiply it with."""
    if x.ndim == 0 or not n_rows:
        raise ValueError("MCDropout needs dropout on batches, got one single number.")
    if len(x) == n_rows:
        return (1, *x.shape[1:]), tuple(x.shape)
    if x.ndim > 1 and x.shape[1] == n_rows:
        return (len(x), 1, *x.shape[2:]), tuple(x.shape)
    if len(x) % n_rows == 0:
        rest = (len(x) // n_rows, *x.shape[1:])
        return (1, *rest), (n_rows, *rest)
    raise ValueError(
        f"MCDropout cannot tell the rows apart: a dropout layer got a tensor of shape "
        f"{tuple(x.shape)} in a batch of {n_rows} rows; let its first dimension be the "
        "batch."
    )


def _tensors(value):
    """Yield the tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _versions(value):
    """Numbers that change when a tensor in `value` is written to."""
    return [0 if t.is_inference() else t._version for t in _tensors(value)]


def _copy(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)({key: _copy(inner) for key, inner in value.items()})
    if isinstance(value, tuple | list):
        copies = [_copy(inner) for inner in value]
        named = hasattr(value, "_fields")
        return type(value)(*copies) if named else type(value)(copies)
    return value
