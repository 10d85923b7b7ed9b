"""A network that standardises its input itself."""

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn


class Standardized(nn.Module):
    """Subtract the mean, divide by the deviation, then call another network.

    So images can stay whole numbers of one byte until a batch of them is used.

    Parameters
    ----------
    network : type
        Class of the network to call.
    mean, std : sequence of float
        One value a channel, in the units of the input.
    **params : dict
        Arguments of `network`.

    Examples
    --------
    >>> import torch
    >>> from skal.models import MLP, Standardized
    >>> net = Standardized(MLP, mean=[72.9], std=[90.0], n_inputs=784, n_classes=10)
    >>> net(torch.zeros(5, 1, 28, 28, dtype=torch.uint8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, network: type[nn.Module], mean: ArrayLike, std: ArrayLike, **params: Any
    ):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            values = torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, values)
        self.network = network(**params)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_channels, height, width)

        Returns
        -------
        logits : tensor of shape (n_samples, n_classes)
        """
        return self.network((x.to(self.mean.dtype) - self.mean) / self.std)
