"""Find the inner layers of a running network, and average what they give."""

from functools import partial

import torch
from torch import nn

from skal.net.heads import Hooks

N_LAYERS = 4
_CONVOLUTIONS = nn.Conv1d | nn.Conv2d | nn.Conv3d
_KINDS = nn.Linear | _CONVOLUTIONS


class HiddenMeans(Hooks):
    """Hooks that catch the outputs of inner layers, averaged over all places.

    Parameters
    ----------
    module : nn.Module
    layers : sequence of str, default=None
        Names of layers. None finds the last part that gives maps of each size that a
        convolution gives, such as the stages of a residual network, then the nn.Linear
        after the convolutions; all before the last convolution or nn.Linear, which is
        the head. Of more than four the last of each quarter is taken.
    """

    def __init__(self, module, layers=None):
        super().__init__(module)
        self.layers = layers
        self.caught = {}

    def __enter__(self):
        parts = dict(self.module.named_modules())
        names = [n for n in parts if n] if self.layers is None else list(self.layers)
        unknown = [name for name in names if name not in parts or not name]
        if unknown:
            raise ValueError(
                f"layers: the network has no {unknown}; its layers are "
                f"{[name for name in parts if name]}."
            )
        self.hook({parts[name]: partial(self._catch, name) for name in names})
        return self

    def _catch(self, name, part, args, output):
        self.caught.pop(name, None)  # the last call counts, also in their order
        size = output.shape[2:] if isinstance(output, torch.Tensor) else None
        self.caught[name] = _mean(part, output), part, size

    def _found(self, n_samples):
        """Names of the layers that None stands for, of all that ran."""
        kinds = {name: type(part) for name, (_, part, _) in self.caught.items()}
        weighted = [n for n, kind in kinds.items() if issubclass(kind, _KINDS)]
        ran = list(self.caught)
        ran = ran[: ran.index(weighted[-1])] if weighted else []
        ran = [n for n in ran if self._usable(n, n_samples)]
        maps = [n for n in ran if issubclass(kinds[n], _CONVOLUTIONS)]
        linear = [n for n in ran if issubclass(kinds[n], nn.Linear)]
        last = {self.caught[n][2]: n for n in ran if n not in linear}
        found = {last[self.caught[n][2]] for n in maps}
        after = ran[ran.index(maps[-1]) :] if maps else ran
        return [n for n in ran if n in found or (n in after and n in linear)]

    def _usable(self, name, n_samples):
        mean = self.caught.get(name, (None,))[0]
        return mean is not None and len(mean) == n_samples

    def read(self, n_samples):
        """Give the means of the batch that just ran, and forget them.

        Parameters
        ----------
        n_samples : int
            Rows in the batch.

        Returns
        -------
        means : dict of str to tensor of shape (n_samples, n_channels)
            With their graph; in the order in which the layers ran first.

        Raises
        ------
        ValueError
            Where there are no such layers.
        """
        if self.layers is None:
            inner = self._found(n_samples)
            n_layers = min(N_LAYERS, len(inner))
            ends = [-(-len(inner) * i // n_layers) for i in range(1, n_layers + 1)]
            self.layers = tuple(inner[end - 1] for end in ends)
            if self.handles:  # not after the block
                self.__enter__()
        usable = {n for n in self.caught if self._usable(n, n_samples)}
        caught, self.caught = self.caught, {}
        missing = sorted(set(self.layers) - usable)
        if missing or not self.layers:
            raise ValueError(
                f"layers={missing} of {type(self.module).__name__} gave no tensor of "
                "floating-point numbers with one row a sample; name others."
                if missing
                else f"no inner layer of {type(self.module).__name__} can be used: it "
                "has no nn.Linear or convolution before its last one that gives one "
                "row a sample; use a deeper network, or name layers, as in "
                "layers=['body']."
            )
        return {name: caught[name][0] for name in self.layers}


def _mean(part, output):
    """Average over all dimensions but the first and that of the channels."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point():
        return None
    if output.ndim < 2 or 0 in output.shape:
        return None
    if output.ndim == 2:
        return output
    if isinstance(part, nn.Linear):
        return output.flatten(1, -2).mean(1)
    # The mean of a linear map, such as of a convolution, would tell next to nothing.
    places = output.flatten(2).relu()
    return places.sum(2) / places.shape[2]  # of mean, the gradient is made in full
