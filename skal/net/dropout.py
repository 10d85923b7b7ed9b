"""Give a network in evaluation mode a fixed set of dropout masks."""

import warnings
from collections import Counter
from contextlib import nullcontext
from copy import deepcopy
from functools import cache, partial
from itertools import chain, islice

import torch
from skorch.utils import to_device
from torch import nn
from torch.overrides import TorchFunctionMode

from skal.net.evaluation import check_count, mixed, running
from skal.net.heads import Hooks, check_distribution, scores_of
from skal.net.inputs import map_tensors
from skal.utils.seeds import derive_seed

# Numbers in one piece of sampled predictions, and in any result of the draws that run
# at once: 4 MB of float32.
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


def sample_dropout(net, batches, n_rows, n_draws, seed, precision, classes, each):
    """Run a net over batches once, and what follows its first dropout for each draw.

    Parameters
    ----------
    net : skorch net
        Fitted.
    batches : iterator of (x, y)
        As of `skal.net.evaluation.predict_batches`.
    n_rows, n_draws, seed : int
        See `DropoutDraws`.
    precision : {None, "bfloat16", "float16"}
        Of the network's products.
    classes : array or None
        As many as the net has outputs, at most.
    each : callable
        Gets the probabilities in pieces; see `skal.PoolView.sample_proba`.
    """
    nonlinearity, count, differ = net._get_predict_nonlinearity(), 0, False
    draws = DropoutDraws(net.module_, n_draws, seed)
    with running(net, seed), mixed(net, precision) as whole, draws:
        for batch in batches:
            outputs = draws.outputs(partial(_scores, net, batch, whole))
            first, done = next(outputs), 0
            rows = slice(count, count := count + len(first))
            outputs = chain([first], outputs) if count <= n_rows else ()
            size = max(1, PIECE // max(1, first.numel()))
            while group := list(islice(outputs, size)):
                differ = differ or any(not z.equal(first) for z in group)
                # The nonlinearity runs on the CPU, as in skorch's predict_proba.
                proba = nonlinearity(to_device(torch.cat(group), "cpu"))
                at = [*range(rows.start, rows.stop)] * len(group)
                check_distribution(proba, net, classes, at)
                piece = proba.to(first.device).unflatten(0, (len(group), -1))
                place = rows, slice(done, done := done + len(group))
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


def _scores(net, batch, whole):
    return whole(scores_of(net.evaluation_step(batch)))


class DropoutDraws(Hooks):
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

    The first and the last draw run alone. Those between run several at once under
    `torch.vmap`, where what the network does allows it: not if values that depend on a
    mask decide what Python does, nor in recurrent layers. Products of several draws are
    rounded as those of a larger batch are.

    The rows of a tensor are its first dimension, with one entry each or several one
    after another, or its second, as in sequence-first networks. Where a shape allows
    both, two rows are passed alone to tell which.

    Memory: `n_draws` masks of the size of one row at each dropout, and the kept
    results of one batch, as many as training would keep. So many draws run at once
    that no result of a function takes more than 4 MB.
    """

    def __init__(self, module, n_draws, seed):
        super().__init__(module)
        self.n_draws, self.seed = n_draws, seed
        self.applied = False
        self._mask = cache(self._make_mask)
        self._readings = {}  # by module and call
        self._unclear = self._probes = self._probed = False
        self._groups = True  # whether several draws can run at once
        self._replay = _Replay()  # None: every pass is a full one

    def __enter__(self):
        # The fused attention of evaluation mode passes over the dropout modules.
        self._fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        parts = enumerate(active_dropouts(self.module))
        self.hook({part: partial(self._drop, number) for number, part in parts})
        begin = self.module.register_forward_pre_hook(self._begin, with_kwargs=True)
        self.handles.append(begin)
        return self

    def __exit__(self, *exc_info):
        torch.backends.mha.set_fastpath_enabled(self._fused)
        super().__exit__(*exc_info)

    def outputs(self, forward):
        """Run one batch under one set of masks after another.

        Parameters
        ----------
        forward : callable
            Runs the network on the batch and returns its output, a tensor.

        Yields
        ------
        output : tensor
            What `forward` returned, `n_draws` times.
        """
        self._replay = self._replay and _Replay()
        yield self._under_one(forward, 0)
        done, last = 1, self.n_draws - 1
        while self._groups and self._replay:
            stop = min(last, done + PIECE // self._replay.largest)
            if stop - done < 2:
                break
            group = self._under_several(forward, range(done, stop))
            yield from group
            done += len(group)
        # The last one alone: what the network remembers of it is no part of a group.
        for draw in range(done, self.n_draws):
            yield self._under_one(forward, draw)

    def _under_one(self, forward, draw):
        self._asked = {}  # masks, by what `_make_mask` gets but for the draw

        def of_draw(*about):
            return self._asked.setdefault(about, self._mask(draw, *about))

        self._of_draw = of_draw
        output = self._run(forward)
        if self._unclear and not self._probed:
            self._probes = True
            forward()
            self._probes, self._probed = False, True
            self._replay = self._replay and _Replay()
            output = self._run(forward)
        if self._replay and not self._replay.sound():
            self._replay = None
            output = self._run(forward)
        if self._replay:
            self._replay.rewind()
        return output

    def _under_several(self, forward, draws):
        """Run all draws at once; none, now and later, where that does not work."""

        def run(masks):
            self._of_draw = lambda *about: masks[asked.index(about)]
            return self._run(forward)

        asked, unclear = list(self._asked), self._unclear
        masks = [torch.stack([self._mask(t, *about) for t in draws]) for about in asked]
        try:
            with warnings.catch_warnings(action="error"):  # of what vmap does slowly
                outputs = torch.vmap(run)(masks)
        except Exception:  # alone, each draw raises what is not the fault of vmap
            self._groups = False
        if not self._replay.sound():
            self._replay = None
            return ()
        self._replay.rewind()
        self._groups = self._groups and self._unclear == unclear
        return outputs.unbind() if self._groups else ()

    def _run(self, forward):
        with self._replay or nullcontext():
            return forward()

    def _begin(self, module, args, kwargs):
        """Count the rows of a pass, which gets a copy, because it may write to them."""
        n_rows = next((len(t) for t in _tensors((args, kwargs)) if t.ndim), 0)
        self._n_rows, self._calls = n_rows, Counter()
        if self._probes:
            self._n_rows = 2
            args, kwargs = map_tensors(
                lambda t: t[:2] if t.ndim and len(t) == n_rows else t, (args, kwargs)
            )
        return deepcopy((args, kwargs))

    def _drop(self, number, part, args, x):
        """Apply mask t of a call of a dropout module to what it would pass on."""
        call = number, self._calls[number]
        self._calls[number] += 1
        if self._replay:
            self._replay.stop()
        of_x = tuple(x.shape)
        n_entries = self._entries_of_row(call, of_x)
        if self._probes:
            return None
        self.applied = True
        if n_entries:
            row = (n_entries, *of_x[1:])
            by_row, shape, n_kept = (self._n_rows, *row), (1, *row), 3
        else:
            by_row, shape, n_kept = of_x, (of_x[0], 1, *of_x[2:]), 2
        if isinstance(part, _BY_CHANNEL):
            shape = (*shape[:n_kept], *[1] * len(shape[n_kept:]))
        mask = self._of_draw(call, part, shape, x.dtype, x.device)
        masked = x.reshape(by_row) * mask
        if isinstance(part, _ALPHA):  # keep mean 0 and variance 1 of such networks
            p = part.p
            scale = ((1 - p) * (1 + p * _SATURATION**2)) ** -0.5 if p < 1 else 0.0
            masked = (masked + _SATURATION * (1 - mask)) * scale
            masked = masked - scale * p * _SATURATION
        return masked.reshape(of_x)

    def _entries_of_row(self, call, shape):
        """Count a row's entries in the first dimension; 0 where rows are the second.

        All batches together tell, because the number is the same in each.
        """
        n_rows = self._n_rows
        if not shape or not n_rows:
            raise ValueError(
                "MCDropout needs dropout on batches, got one single number."
            )
        found = [shape[0] // n_rows] if shape[0] % n_rows == 0 else []
        found += [0] if shape[1:2] == (n_rows,) else []
        if not found:
            raise ValueError(
                f"MCDropout cannot tell the rows apart: a dropout layer got a tensor "
                f"of shape {shape} in a batch of {n_rows} rows; let its first "
                "dimension be the batch."
            )
        if shape[0] != n_rows:  # then several entries a row are less likely
            found.reverse()
        known = self._readings.get(call, found)
        found = self._readings[call] = [x for x in found if x in known] or found
        self._unclear |= len(found) > 1 and n_rows > 2
        return found[0]

    def _make_mask(self, draw, call, part, shape, dtype, device):
        seed = derive_seed(self.seed, draw, "dropout {} {}".format(*call))
        # Drawn on the CPU, so that every device has the same.
        random = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        mask = (random >= part.p).to(device, dtype)
        return mask if isinstance(part, _ALPHA) or part.p >= 1 else mask / (1 - part.p)


class _Replay(TorchFunctionMode):
    """Keep what torch's functions give up to the first dropout, and give it back.

    The first pass records each call of a function and its result, until `stop`. After
    `rewind` a pass runs the same Python code, but its calls get the recorded results in
    turn; from `stop` on, or from a call of another function than was recorded, it
    computes. It is `sound` to go on as long as nothing recorded has been written to
    since `stop`: what comes after the dropout must not change its input.
    """

    def __init__(self):
        super().__init__()
        self._kept, self._left = [], []  # pairs of function and result
        self._versions = None  # while the first pass records
        self.largest = 1  # numbers in one result after that

    def rewind(self):
        """Give back, from the first on."""
        self._left = self._kept[::-1]

    def stop(self):
        """Compute from here on."""
        self._left = []
        if self._versions is None:
            self._versions = self._count()

    def sound(self):
        """Tell whether nothing kept has been written to since `stop`."""
        return self._versions is not None and self._versions == self._count()

    def _count(self):
        """How often each kept tensor was written to; None in inference mode."""
        kept = _tensors([result for _, result in self._kept])
        unknown = any(t.is_inference() for t in kept)
        return None if unknown else [t._version for t in kept]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self._left and self._left[-1][0] == func:
            _, result = self._left.pop()
            return list(result) if type(result) is list else result
        result = func(*args, **(kwargs or {}))
        if self._versions is not None and isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        # What gives nothing may set a mode, such as gradients off: done every time.
        if result is not None or func is torch.Tensor.__setitem__:
            self._left = []  # this pass goes another way than the first did
            if self._versions is None:
                self._kept.append((func, result))
        return result


def _tensors(value):
    """List the tensors in nested tuples, lists and dicts."""
    found = []
    map_tensors(lambda t: found.append(t) or t, value)
    return found
