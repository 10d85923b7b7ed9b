import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import GradientNormClipping
from torch import nn

from skal.models import AdversarialVAE
from skal.net.auxiliary_rows import AuxiliaryRows
from skal.utils import isolated_rng

X = np.random.default_rng(0).standard_normal((50, 6))


def fit(n_unlabeled=40, **params):
    rows = AuxiliaryRows(X[:n_unlabeled], X[n_unlabeled:], paired=True)
    params = {"module__shape": (6,), "batch_size": 16, "max_epochs": 2, **params}
    with isolated_rng(0):
        return AdversarialVAE(**params).fit(rows)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class Halves(nn.Module):
    """A VAE without weights to train: it halves what it gets."""

    n_latent = 2

    def __init__(self, shape):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def encode(self, x):
        return self.scale * x

    def forward(self, x):
        return self.scale * x, self.encode(x), torch.zeros_like(x) + 0 * self.scale


class Constant(nn.Module):
    def __init__(self, n_inputs):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor([0.3]))

    def forward(self, x):
        return self.logit.expand(len(x), 1)


def test_losses_by_hand():
    """Sums over a row, means over each kind of rows."""
    unlabeled, labeled = X[:3, :2], X[3:5, :2]
    with isolated_rng(0):
        net = AdversarialVAE(
            Halves,
            module__shape=(2,),
            discriminator=Constant,
            beta=3.0,
            adversary_weight=0.7,
            max_epochs=1,
        ).fit(AuxiliaryRows(unlabeled, labeled, paired=True))
    loss = 0
    for rows in (unlabeled, labeled):
        squares = (rows**2).sum(1).mean()
        loss += squares / 4 + 3.0 * squares / 8 + 0.7 * np.log1p(np.exp(-0.3))
    epoch = net.history[0]
    assert epoch["train_loss"] == pytest.approx(loss, rel=1e-5)
    squares = (X[:5, :2] ** 2).sum(1).mean()
    assert epoch["reconstruction"] == pytest.approx(squares / 4, rel=1e-5)
    assert epoch["divergence"] == pytest.approx(squares / 8, rel=1e-5)
    telling = np.log1p(np.exp(-0.3)) + np.log1p(np.exp(0.3))
    assert epoch["discriminator_loss"] == pytest.approx(telling, rel=1e-5)


def test_either_loss_moves_its_own_module_only():
    start = fit(lr=0.0)
    frozen = fit(discriminator_optimizer__lr=0.0)
    assert torch.equal(weights(frozen.discriminator_), weights(start.discriminator_))
    for old, new in zip(
        start.module_.parameters(), frozen.module_.parameters(), strict=True
    ):
        assert not torch.equal(old, new)
    frozen = fit(optimizer__lr=0.0)
    assert torch.equal(weights(frozen.module_), weights(start.module_))
    for old, new in zip(
        start.discriminator_.parameters(),
        frozen.discriminator_.parameters(),
        strict=True,
    ):
        assert not torch.equal(old, new)


def test_outputs_are_those_of_evaluation_and_leave_no_trace():
    net = fit()
    before = net.module_.encoder[1].running_mean.clone()
    codes, logits = net.outputs(torch.from_numpy(X).float())
    assert torch.equal(net.module_.encoder[1].running_mean, before)
    assert codes.shape == (50, 3) and logits.shape == (50,)
    again = net.outputs(torch.from_numpy(X[7:9]).float())
    torch.testing.assert_close(again[0], codes[7:9])
    torch.testing.assert_close(again[1], logits[7:9])


@pytest.mark.parametrize("n_unlabeled", [1, 49])
def test_one_row_of_a_kind_is_enough(n_unlabeled):
    net = fit(n_unlabeled)
    assert np.isfinite(net.history[:, "train_loss"]).all()


def test_gradient_clipping_sees_the_gradients():
    clipped = fit(callbacks=[GradientNormClipping(1e-12)], optimizer=torch.optim.SGD)
    start = fit(lr=0.0)
    torch.testing.assert_close(weights(clipped.module_), weights(start.module_))


def test_clone_and_pickle():
    net = fit()
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(weights(again.discriminator_), weights(net.discriminator_))
    params = clone(net.set_params(beta=2.0, discriminator__hidden=(4,))).get_params()
    assert params["beta"] == 2.0 and params["discriminator__hidden"] == (4,)
