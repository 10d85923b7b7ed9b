"""Multilayer perceptron."""

from collections.abc import Sequence

import torch
from torch import nn


class MLP(nn.Module):
    """Fully connected network; rows of any shape are flattened first.

    Parameters
    ----------
    n_inputs : int
        Number of values in a row, all dimensions but the first multiplied.
    n_classes : int
        Number of logits.
    hidden : tuple of int, default=(128,)
        Widths of the hidden layers; empty for a linear model.
    dropout : float, default=0.0
        Probability of dropping a hidden unit after each hidden layer; 0 adds no
        dropout layer.

    Examples
    --------
    >>> import torch
    >>> from skal.models import MLP
    >>> MLP(64, 10)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        n_inputs: int,
        n_classes: int,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
    ):
        super().__init__()
        layers, width = [nn.Flatten()], n_inputs
        for n_units in hidden:
            layers += [nn.Linear(width, n_units), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = n_units
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)

        Returns
        -------
        logits : tensor of shape (n_samples, n_classes)
        """
        return self.head(self.features(x))
