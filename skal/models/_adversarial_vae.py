"""A variational autoencoder and a discriminator on its code, trained side by side."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback
from skorch.dataset import unpack_data
from skorch.utils import to_device
from torch import nn
from torch.nn.functional import softplus

from skal.models._autoencoder import VAE, dense
from skal.models._capped import CappedNet
from skal.utils.validation import Interval


class Discriminator(nn.Sequential):
    """Fully connected network with one logit a row.

    Parameters
    ----------
    n_inputs : int
        Number of values in a row.
    hidden : tuple of int, default=(512, 512)
        Widths of the hidden layers.

    Examples
    --------
    >>> import torch
    >>> from skal.models import Discriminator
    >>> Discriminator(32)(torch.zeros(5, 32)).shape
    torch.Size([5, 1])
    """

    def __init__(self, n_inputs: int, hidden: Sequence[int] = (512, 512)):
        widths = (n_inputs, *hidden)
        super().__init__(*dense(widths), nn.Linear(widths[-1], 1))


N_SEEN = 256  # training rows of a kind that are compared with those held out


class StopsByHeldOut(Callback):
    """End training where the rows held out are told apart no better; keep the best."""

    def on_train_begin(self, net, X=None, **kwargs):
        """Draw the training rows to compare with, none where none are held out."""
        self.rows, self.least, self.waited, self.best = X, np.inf, 0, None
        self.seen = X.seen(N_SEEN, np.random.default_rng(0)) if len(X.held_out) else ()
        net.aucs_ = {}

    def on_epoch_end(self, net, **kwargs):
        """Note how well both are told apart."""
        if not len(self.seen):
            return
        kinds, aucs = {"seen": self.seen, "held_out": self.rows.held_out}, {}
        for name, positions in kinds.items():
            is_labeled = self.rows.is_labeled[positions]
            logits = self.rows.outputs(lambda x: net.outputs(x)[1], positions).cpu()
            aucs[name] = float(roc_auc_score(is_labeled, logits))
            net.history.record(f"{name}_auc", aucs[name])
        loss = float(net.telling(logits, is_labeled))
        net.history.record("held_out_loss", loss)
        if loss < self.least:
            states = (net.module_.state_dict(), net.discriminator_.state_dict())
            self.least, self.waited, self.best = loss, 0, deepcopy(states)
            net.aucs_ = aucs
            return
        self.waited += 1
        if self.waited == net.patience:
            raise KeyboardInterrupt  # how skorch stops early

    def on_train_end(self, net, **kwargs):
        """Take back the best weights, and let go of the rows."""
        if self.best is not None:
            for module, state in zip(
                (net.module_, net.discriminator_), self.best, strict=True
            ):
                module.load_state_dict(state)
        self.rows = self.seen = self.best = None


class AdversarialVAE(CappedNet):
    """Net of a VAE, and a discriminator that tells labelled from unlabelled codes.

    Each step, on labelled and unlabelled rows, updates the VAE by the sum over both of
    their mean ``|x - reconstruction|^2 + beta KL + adversary_weight BCE(D(mean), 1)``,
    then the discriminator ``D`` by the cross-entropy of 1 for labelled and 0 for
    unlabelled rows [1]_ (equations 1 to 4). `VaalQuery` fits it, to a dataset that
    makes the batches itself. Where the dataset holds rows out, the nets are those of
    the epoch with the smallest cross-entropy of `D` on them.

    Parameters
    ----------
    module : module or type, default=VAE
        Called with `shape`; has `n_latent`, `encode` and a `forward` as of
        `skal.models.VAE`.
    discriminator : module or type, default=Discriminator
        Called with `n_inputs`; gives logits of shape (n_samples, 1).
    discriminator_optimizer : type, default=Adam
    beta : float, default=1.0
        Weight of the divergence of the posterior from the prior.
    adversary_weight : float, default=1.0
        Weight of the VAE's aim that all codes look labelled.
    patience : int, default=4
        Epochs in a row without a smaller cross-entropy of rows held out that end the
        training.
    max_iter : int, default=300
        No more steps than this.
    lr, batch_size, max_epochs, **params
        As of `skorch.NeuralNet`; batches have so many unlabelled rows, and at most as
        many labelled ones. An epoch has 25 steps at most.

    Attributes
    ----------
    aucs_ : dict of str to float
        Areas under the ROC curve by which `D` tells labelled from unlabelled rows, of
        "seen" and "held_out" ones, or nothing where none are held out. By epoch they
        are in `history` as `seen_auc` and `held_out_auc`.

    References
    ----------
    .. [1] Sinha, Ebrahimi and Darrell, "Variational adversarial active learning",
       ICCV 2019.

    Examples
    --------
    >>> from skal.models import AdversarialVAE
    >>> net = AdversarialVAE(module__shape=(64,), discriminator__hidden=(32,), beta=0.5)
    >>> net.initialize().discriminator_
    Discriminator(
      (0): Linear(in_features=32, out_features=32, bias=True)
      (1): ReLU()
      (2): Linear(in_features=32, out_features=1, bias=True)
    )
    """

    _extra = ("discriminator",)
    _curves = ("reconstruction", "divergence", "discriminator_loss")
    _longest_epoch = 25
    _parameter_constraints = {
        **CappedNet._parameter_constraints,
        "beta": [Interval(Real, 0, None, closed="left")],
        "adversary_weight": [Interval(Real, 0, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        module: type[nn.Module] = VAE,
        *,
        discriminator: type[nn.Module] = Discriminator,
        discriminator_optimizer: Callable[
            ..., torch.optim.Optimizer
        ] = torch.optim.Adam,
        beta: float = 1.0,
        adversary_weight: float = 1.0,
        patience: int = 4,
        max_iter: int = 300,
        lr: float = 5e-4,
        batch_size: int = 128,
        max_epochs: int = 100,
        **params: Any,
    ):
        super().__init__(
            module,
            max_iter=max_iter,
            lr=lr,
            batch_size=batch_size,
            max_epochs=max_epochs,
            **params,
        )
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.beta = beta
        self.adversary_weight = adversary_weight
        self.patience = patience

    @property
    def _default_callbacks(self):
        *callbacks, log = super()._default_callbacks
        return [*callbacks, ("held_out", StopsByHeldOut()), log]

    def _arguments(self, name):
        return {"n_inputs": self.module_.n_latent}

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Update the VAE, then the discriminator."""
        self._set_training(True)
        x, is_labeled = unpack_data(batch)
        x, is_labeled = to_device((x, is_labeled), self.device)
        output = reconstruction, mean, log_variance = self.infer(x)
        error = (x - reconstruction).square().flatten(1).sum(1)
        divergence = mean.square() + log_variance.exp() - 1 - log_variance
        divergence = divergence.sum(1) / 2
        fooling = softplus(-self.discriminator_(mean).squeeze(1))
        losses = error + self.beta * divergence + self.adversary_weight * fooling
        loss = losses[is_labeled].mean() + losses[~is_labeled].mean()
        self._update("module", loss, batch)
        logits = self.discriminator_(mean.detach()).squeeze(1)
        telling = self.telling(logits, is_labeled)
        self._update("discriminator", telling, batch)
        self._note(
            {"module": loss, "discriminator": telling},
            reconstruction=error.mean(),
            divergence=divergence.mean(),
            discriminator_loss=telling,
        )
        return {"loss": loss, "y_pred": output}

    def telling(self, logits: torch.Tensor, is_labeled: torch.Tensor) -> torch.Tensor:
        """Compute the cross-entropy of the discriminator, either kind counting alike.

        Parameters
        ----------
        logits, is_labeled : tensors of shape (n_samples,)

        Returns
        -------
        loss : tensor, a scalar
        """
        labeled, unlabeled = logits[is_labeled], logits[~is_labeled]
        return softplus(-labeled).mean() + softplus(unlabeled).mean()

    def outputs(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute codes, and logits of being labelled, in evaluation mode.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)

        Returns
        -------
        codes : tensor of shape (n_samples, n_latent)
        logits : tensor of shape (n_samples,)
        """
        self._set_training(False)
        with torch.no_grad():
            codes = self.module_.encode(to_device(x, self.device))
            return codes, self.discriminator_(codes).squeeze(1)
