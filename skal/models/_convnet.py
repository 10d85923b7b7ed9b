"""Small convolutional network with dropout."""

from collections.abc import Sequence

import torch
from torch import nn


class _MaxPool2d(nn.MaxPool2d):
    """A pooling that a CPU does several times faster, as it reads channels last."""

    def forward(self, x):
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return super().forward(x)
        x = x.movedim(-3, -1).contiguous().movedim(-1, -3)  # as torch.vmap can, too
        return super().forward(x).contiguous()


class ConvNet(nn.Module):
    """Two convolution blocks, a hidden layer and dropout, for small square images.

    Parameters
    ----------
    n_channels : int
        Channels of the images.
    n_classes : int
        Number of logits.
    image_size : int, default=28
        Height and width of the images, at least 4.
    channels : tuple of two int, default=(16, 32)
        Channels after the first and second block; each halves the image.
    hidden : int, default=128
        Width of the last hidden layer: the embedding of an image.
    dropout : float, default=0.5
        Probability of dropping a value before the hidden layer and before the last
        one; 0 adds no dropout layer.

    Notes
    -----
    No dropout between the convolutions, unlike in [1]_: a sampled prediction repeats
    only what follows the first dropout, here two small matrix products.

    References
    ----------
    .. [1] Gal, Islam and Ghahramani (2017). Deep Bayesian active learning with image
       data. ICML.

    Examples
    --------
    >>> import torch
    >>> from skal.models import ConvNet
    >>> ConvNet(3, 10, image_size=32)(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        n_channels: int,
        n_classes: int,
        image_size: int = 28,
        channels: Sequence[int] = (16, 32),
        hidden: int = 128,
        dropout: float = 0.5,
    ):
        super().__init__()
        if image_size < 4:
            raise ValueError(f"image_size must be at least 4, got {image_size!r}.")
        first, second = channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_channels, first, kernel_size=3, padding=1),
            nn.ReLU(),
            _MaxPool2d(2),
            nn.Conv2d(first, second, kernel_size=3, padding=1),
            nn.ReLU(),
            _MaxPool2d(2),
            nn.Flatten(),
        )
        n_values = second * (image_size // 4) ** 2
        layers = [nn.Linear(n_values, hidden), nn.ReLU()]
        if dropout > 0:
            layers = [nn.Dropout(dropout), *layers, nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        Parameters
        ----------
        x : tensor of shape (n_samples, n_channels, image_size, image_size)

        Returns
        -------
        logits : tensor of shape (n_samples, n_classes)
        """
        return self.head(self.hidden(self.convolutions(x)))
