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
        Names of layers. None finds the nn.Linear and convolutions that run and give one
        row a sample; the last one, the head, is left out, and of the others the last of
        each quarter is taken.
    """

    def __init__(self, module, layers=None):
        super().__init__(module)
        self.layers = layers
        self.caught = {}

    def __enter__(self):
        parts = dict(self.module.named_modules())
        if self.layers is None:
            names = [n for n, p in parts.items() if isinstance(p, _KINDS) and n]
        else:
            names = list(self.layers)
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
        self.caught[name] = _mean(part, output)

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
        caught, self.caught = self.caught, {}
        usable = [n for n, m in caught.items() if m is not None and len(m) == n_samples]
        if self.layers is None:
            inner = [name for name in usable if name != list(caught)[-1]]
            n_layers = min(N_LAYERS, len(inner))
            ends = [-(-len(inner) * i // n_layers) for i in range(1, n_layers + 1)]
            self.layers = tuple(inner[end - 1] for end in ends)
            if self.handles:  # not after the block
                self.__enter__()
        missing = sorted(set(self.layers) - set(usable))
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
        return {name: caught[name] for name in self.layers}


def _mean(part, output):
    """Average over all dimensions but the first and that of the channels."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point():
        return None
    if output.ndim < 2 or 0 in output.shape:
        return None
    if isinstance(part, nn.Linear):
        return output if output.ndim == 2 else output.flatten(1, -2).mean(1)
    if isinstance(part, _CONVOLUTIONS):
        output = output.relu()  # the mean of a linear map would tell next to nothing
    if output.ndim == 2:
        return output
    places = output.flatten(2)
    return places.sum(2) / places.shape[2]  # of mean, the gradient is made in full
