"""A Wasserstein GAN with gradient penalty, and an autoencoder beside it."""

from collections.abc import Callable, Sequence
from functools import partial
from math import log2, prod
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_device
from torch import nn

from skal.models._autoencoder import Autoencoder, dense, downwards, halved, upwards
from skal.models._capped import CappedNet
from skal.utils.validation import Interval

# What the method's authors train with.
ADAM = partial(torch.optim.Adam, betas=(0.5, 0.9))
LEAKY = partial(nn.LeakyReLU, 0.2)


class Generator(nn.Sequential):
    """Network from noise to rows: transposed convolutions for images, up to a tanh.

    The image it begins with has 4 to 7 pixels a side, one of 8 x 8 begins with 2.

    Parameters
    ----------
    shape : tuple of int
        Of a row: (n_channels, height, width), at least 4 x 4, or (n_values,).
    n_latent : int, default=None
        Length of the noise. None is 100 for images, else the number of values, at most
        32.
    width : int, default=32
        Channels before the last layer; they double with each layer before, up to
        eightfold.
    hidden : tuple of int, default=(128, 128)
        Widths of the hidden layers for flat rows.

    Examples
    --------
    >>> import torch
    >>> from skal.models import Generator
    >>> Generator((1, 28, 28))(torch.zeros(5, 100)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_latent: int | None = None,
        width: int = 32,
        hidden: Sequence[int] = (128, 128),
    ):
        if n_latent is None:
            n_latent = 100 if len(shape) == 3 else min(32, *shape)
        if len(shape) == 3:
            channels, sizes = _stages(shape, width)
            smallest = (channels[-1], *sizes[-1])
            super().__init__(
                *dense((n_latent, prod(smallest))),
                nn.Unflatten(1, smallest),
                *upwards(channels[::-1], sizes),
                nn.Tanh(),
            )
        else:
            super().__init__(*dense((n_latent, *hidden)), nn.Linear(hidden[-1], *shape))
        self.n_latent = n_latent


class Critic(nn.Sequential):
    """Network with one number a row, the mirror of `Generator` without BatchNorm.

    Parameters
    ----------
    shape : tuple of int
        Of a row: (n_channels, height, width), at least 4 x 4, or (n_values,).
    width : int, default=32
        Channels after the first convolution.
    hidden : tuple of int, default=(128, 128)
        Widths of the hidden layers for flat rows.

    Examples
    --------
    >>> import torch
    >>> from skal.models import Critic
    >>> Critic((1, 28, 28))(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self, shape: Sequence[int], width: int = 32, hidden: Sequence[int] = (128, 128)
    ):
        if len(shape) == 3:
            channels, sizes = _stages(shape, width)
            layers = downwards(channels, LEAKY, norm=False)
            n_features = channels[-1] * prod(sizes[-1])
            super().__init__(*layers, nn.Flatten(), nn.Linear(n_features, 1))
        else:
            layers = dense((*shape, *hidden), activation=LEAKY)
            super().__init__(*layers, nn.Linear(hidden[-1], 1))


def _stages(shape, width):
    """Channels and sizes of the images, from the largest to the smallest."""
    n_stages = max(2, int(log2(min(shape[1:]) / 4)))
    channels = [shape[0], *(width * min(2**i, 8) for i in range(n_stages))]
    return channels, halved(shape[1:], n_stages)


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """Compute the mean squared difference of gradient norms from 1.

    Parameters
    ----------
    critic : callable
        One number a row.
    x : tensor of shape (n_samples, ...)

    Returns
    -------
    penalty : tensor, a scalar
        ``mean((|grad critic(x)| - 1)^2)`` [1]_ (equation 3), with its graph.

    References
    ----------
    .. [1] Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, "Improved training of
       Wasserstein GANs", NeurIPS 2017.

    Examples
    --------
    >>> import torch
    >>> from skal.models import gradient_penalty
    >>> x = torch.zeros(5, 2)
    >>> gradient_penalty(lambda x: x @ torch.tensor([3.0, 4.0]), x)
    tensor(16.)
    """
    x = x.detach().requires_grad_()
    return penalty_of(critic(x), x)


def penalty_of(scores, x):
    """Compute the penalty from what the critic gave for rows that need gradients."""
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


# Steps over which the distance is averaged, to see whether it falls by 1 %.
WINDOW = 500


class StopsByDistance(Callback):
    """End training where the distance of generated and real rows falls no more."""

    def on_train_begin(self, net, **kwargs):
        """Forget the last training."""
        self.distances, self.least, self.waited = [], np.inf, 0

    def on_epoch_end(self, net, **kwargs):
        """Look at the distance, window by window."""
        self.distances += net.history[-1, "batches", :, "distance"]
        if len(self.distances) < WINDOW:
            return
        distance, self.distances = abs(np.mean(self.distances)), []
        if distance < 0.99 * self.least:
            self.least, self.waited = distance, 0
            return
        self.waited += 1
        if self.waited == net.patience:
            raise KeyboardInterrupt  # how skorch stops early


class WassersteinGAN(CappedNet):
    """Net of a generator and a critic, and an autoencoder of the same rows.

    Each step updates the critic ``D`` by ``mean D(G(z)) - mean D(x) + penalty_weight
    mean((|grad D(u)| - 1)^2)``, with ``u`` between generated and real rows [1]_
    (algorithm 1). The first, and each `n_critic`-th after it, also updates the
    generator ``G`` by ``-mean D(G(z))``, and the autoencoder by its squared error,
    summed over a row. `AsalQuery` fits it, to a dataset that makes the batches itself.

    Parameters
    ----------
    module : module or type, default=Generator
        Called with `shape`; has `n_latent`, the length of the noise.
    critic : module or type, default=Critic
        Called with `shape`; gives shape (n_samples, 1).
    autoencoder : module or type, default=Autoencoder
        Called with `shape`; has `encode`. None for none.
    optimizer, critic_optimizer, autoencoder_optimizer : type, default=Adam
        The first two with betas of .5 and .9.
    n_critic : int, default=3
        Steps of the critic for each one of the generator.
    penalty_weight : float, default=10.0
        Weight of the gradient penalty.
    patience : int, default=10
        Training ends where in so many times 500 steps of the critic the mean distance
        of 500 was never 1 % below the least before.
    max_iter : int, default=None
        No more steps of the critic than this. None is 15,000 for flat rows, of a few
        milliseconds each, and 3,000 for images.
    lr, batch_size, max_epochs, **params
        As of `skorch.NeuralNet`.

    References
    ----------
    .. [1] Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, "Improved training of
       Wasserstein GANs", NeurIPS 2017.

    Examples
    --------
    >>> from skal.models import WassersteinGAN
    >>> net = WassersteinGAN(module__shape=(6,), critic__hidden=(9,), autoencoder=None)
    >>> net.initialize().critic_
    Critic(
      (0): Linear(in_features=6, out_features=9, bias=True)
      (1): LeakyReLU(negative_slope=0.2)
      (2): Linear(in_features=9, out_features=1, bias=True)
    )
    """

    _parameter_constraints = {
        **CappedNet._parameter_constraints,
        "n_critic": [Interval(Integral, 1, None, closed="left")],
        "penalty_weight": [Interval(Real, 0, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        module: type[nn.Module] = Generator,
        *,
        critic: type[nn.Module] = Critic,
        autoencoder: type[nn.Module] = Autoencoder,
        optimizer: Callable[..., torch.optim.Optimizer] = ADAM,
        critic_optimizer: Callable[..., torch.optim.Optimizer] = ADAM,
        autoencoder_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        n_critic: int = 3,
        penalty_weight: float = 10.0,
        patience: int = 10,
        max_iter: int | None = None,
        lr: float = 5e-4,
        batch_size: int = 64,
        max_epochs: int = 2000,
        **params: Any,
    ):
        super().__init__(
            module,
            optimizer=optimizer,
            max_iter=max_iter,
            lr=lr,
            batch_size=batch_size,
            max_epochs=max_epochs,
            **params,
        )
        self.critic = critic
        self.autoencoder = autoencoder
        self.critic_optimizer = critic_optimizer
        self.autoencoder_optimizer = autoencoder_optimizer
        self.n_critic = n_critic
        self.penalty_weight = penalty_weight
        self.patience = patience

    @property
    def cap(self) -> int:
        """Steps of the critic that `max_iter` allows."""
        if self.max_iter is not None:
            return self.max_iter
        return 3000 if len(self.get_params_for("module")["shape"]) == 3 else 15_000

    @property
    def _default_callbacks(self):
        *callbacks, log = super()._default_callbacks
        return [*callbacks, ("converged", StopsByDistance()), log]

    @property
    def _extra(self):
        return ("critic",) if self.autoencoder is None else ("critic", "autoencoder")

    @property
    def _curves(self):
        curves = ("distance", "generator_loss")
        return curves if self.autoencoder is None else (*curves, "reconstruction")

    def _arguments(self, name):
        params = self.get_params_for("module")
        return {k: params[k] for k in params if k == "shape"}

    def initialize_module(self) -> Self:
        """Make all modules, and begin to count the steps."""
        self.n_steps_ = 0
        self.last_ = {}
        return super().initialize_module()

    def generate(self, n_samples: int) -> torch.Tensor:
        """Generate rows from fresh noise, of torch's global generator.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        x : tensor of shape (n_samples, ...)
        """
        noise = torch.randn(n_samples, self.module_.n_latent)
        return self.module_(to_device(noise, self.device))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Compute codes of the autoencoder, in evaluation mode.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)

        Returns
        -------
        codes : tensor of shape (n_samples, n_latent)
        """
        self._set_training(False)
        with torch.no_grad():
            return self.autoencoder_.encode(to_device(x, self.device))

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Update the critic and, where it is their turn, generator and autoencoder."""
        self._set_training(True)
        x = to_device(unpack_data(batch)[0], self.device)
        with torch.no_grad():
            fake = self.generate(len(x))
        share = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device)
        distance = self.critic_(x).mean() - self.critic_(fake).mean()
        penalty = gradient_penalty(self.critic_, share * x + (1 - share) * fake)
        loss = self.penalty_weight * penalty - distance
        self._update("critic", loss, batch)
        if self.n_steps_ % self.n_critic == 0:
            generator_loss = -self.critic_(self.generate(len(x))).mean()
            self._update("module", generator_loss, batch)
            self.last_["generator_loss"] = generator_loss.detach()
            if self.autoencoder is not None:
                error = (self.autoencoder_(x) - x).square().flatten(1).sum(1).mean()
                self._update("autoencoder", error, batch)
                self.last_["reconstruction"] = error.detach()
        self.n_steps_ += 1
        losses = zip(("module", "autoencoder"), self.last_.values(), strict=False)
        self._note({"critic": loss, **dict(losses)}, distance=distance, **self.last_)
        return {"loss": loss, "y_pred": fake}
