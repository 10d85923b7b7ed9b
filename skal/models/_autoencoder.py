"""Autoencoders of images and of flat rows, plain and variational."""

from collections.abc import Sequence
from math import log2, prod

import torch
from torch import nn


def halved(size, n_stages):
    """Heights and widths of an image before, between and after `n_stages` halvings."""
    sizes = [tuple(size)]
    for _ in range(n_stages):
        sizes.append(tuple(n // 2 for n in sizes[-1]))
    return sizes


def downwards(channels, activation, norm=True):
    """List the layers of 4 x 4 convolutions that halve an image, rounding down."""
    layers = []
    for n_in, n_out in zip(channels, channels[1:], strict=False):
        layers.append(nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(n_out)] if norm else []
        layers.append(activation())
    return layers


def upwards(channels, sizes):
    """List the layers that undo `downwards`; the last has no activation.

    Parameters
    ----------
    channels : list of int
        From the smallest image to the largest.
    sizes : list of tuple of int
        Heights and widths from the largest image to the smallest, as of `halved`.
    """
    layers, sizes = [], sizes[::-1]
    for i, n_out in enumerate(channels[1:]):
        odd = tuple(n - 2 * m for m, n in zip(sizes[i], sizes[i + 1], strict=True))
        last = i == len(channels) - 2
        layers.append(
            nn.ConvTranspose2d(
                *(channels[i], n_out, 4),
                stride=2,
                padding=1,
                output_padding=odd,
                bias=last,
            )
        )
        layers += [] if last else [nn.BatchNorm2d(n_out), nn.ReLU()]
    return layers


def dense(widths, norm=False, activation=nn.ReLU):
    """List fully connected layers, each with its activation."""
    layers = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers.append(nn.Linear(n_in, n_out))
        layers += [nn.BatchNorm1d(n_out)] if norm else []
        layers.append(activation())
    return layers


class Autoencoder(nn.Module):
    """Autoencoder: convolutions for images, fully connected layers for flat rows.

    An image is halved by 4 x 4 convolutions while 2 x 2 or more is left, a channel
    number of `width` doubles with each, up to eightfold.

    Parameters
    ----------
    shape : tuple of int
        Of a row: (n_channels, height, width), at least 4 x 4, or (n_values,).
    n_latent : int, default=None
        Length of the code. None is half of the number of values, within 2 and 32.
    width : int, default=32
        Channels after the first convolution.
    hidden : tuple of int, default=(128, 64)
        Widths of the hidden layers for flat rows; the decoder has them in reverse.

    Examples
    --------
    >>> import torch
    >>> from skal.models import Autoencoder
    >>> model = Autoencoder((1, 28, 28))
    >>> images = torch.zeros(5, 1, 28, 28)
    >>> model.encode(images).shape, model(images).shape
    (torch.Size([5, 32]), torch.Size([5, 1, 28, 28]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_latent: int | None = None,
        width: int = 32,
        hidden: Sequence[int] = (128, 64),
    ):
        super().__init__()
        if n_latent is None:
            n_latent = min(32, max(2, prod(shape) // 2))
        self.n_latent = n_latent
        if len(shape) == 3:
            n_stages = int(log2(min(shape[1:]) / 2))
            sizes = halved(shape[1:], n_stages)
            channels = [shape[0], *(width * min(2**i, 8) for i in range(n_stages))]
            self.encoder = nn.Sequential(*downwards(channels, nn.ReLU), nn.Flatten())
            smallest = (channels[-1], *sizes[-1])
            self.decoder = nn.Sequential(
                *dense((n_latent, prod(smallest))),
                nn.Unflatten(1, smallest),
                *upwards(channels[::-1], sizes),
            )
            n_features = prod(smallest)
        else:
            self.encoder = nn.Sequential(*dense((*shape, *hidden), norm=True))
            self.decoder = nn.Sequential(
                *dense((n_latent, *hidden[::-1])), nn.Linear(hidden[0], *shape)
            )
            n_features = hidden[-1]
        self.code = nn.Linear(n_features, n_latent)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the code.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)

        Returns
        -------
        code : tensor of shape (n_samples, n_latent)
        """
        return self.code(self.encoder(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the reconstruction.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)

        Returns
        -------
        reconstruction : tensor of shape (n_samples, ...)
        """
        return self.decoder(self.encode(x))


class VAE(Autoencoder):
    """Variational autoencoder; its code is the mean of the posterior.

    Parameters
    ----------
    shape, n_latent, width, hidden
        See `Autoencoder`.

    References
    ----------
    .. [1] Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014.

    Examples
    --------
    >>> import torch
    >>> from skal.models import VAE
    >>> reconstruction, mean, log_variance = VAE((10,))(torch.zeros(7, 10))
    >>> reconstruction.shape, mean.shape, log_variance.shape
    (torch.Size([7, 10]), torch.Size([7, 5]), torch.Size([7, 5]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_latent: int | None = None,
        width: int = 32,
        hidden: Sequence[int] = (128, 64),
    ):
        super().__init__(shape, n_latent, width, hidden)
        self.log_variance = nn.Linear(self.code.in_features, self.n_latent)

    def forward(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute the reconstruction from a draw of the posterior, and its parameters.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)

        Returns
        -------
        reconstruction : tensor of shape (n_samples, ...)
        mean, log_variance : tensors of shape (n_samples, n_latent)
            In evaluation the draw is the mean.
        """
        h = self.encoder(x)
        mean, log_variance = self.code(h), self.log_variance(h)
        z = mean
        if self.training:
            z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(z), mean, log_variance
