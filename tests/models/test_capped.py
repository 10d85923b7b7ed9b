import math

import numpy as np
import pytest

from skal.models import AdversarialVAE, WassersteinCritic, WassersteinGAN
from skal.net.auxiliary_rows import AuxiliaryRows
from skal.utils import isolated_rng
from skal.utils.validation import check_params

X = np.random.default_rng(0).standard_normal((60, 6))
ROWS = AuxiliaryRows(X[:50], X[50:], paired=True)


def fit(**params):
    params = {"module__shape": (6,), "batch_size": 16, "max_epochs": 3, **params}
    with isolated_rng(0):
        return AdversarialVAE(**params).fit(ROWS)


@pytest.mark.parametrize(
    "max_iter, n_steps",
    [(1, [1]), (4, [4]), (6, [4, 2]), (8, [4, 4]), (99, [4, 4, 4])],
)
def test_steps_end_at_the_cap_or_with_the_epochs(max_iter, n_steps):
    history = fit(max_iter=max_iter).history
    assert [len(epoch["batches"]) for epoch in history] == n_steps
    for name in ("train_loss", "reconstruction", "divergence", "discriminator_loss"):
        assert np.isfinite(history[:, name]).all()


def test_size_of_the_batches():
    net = fit(iterator_train__batch_size=25, iterator_train__shuffle=True)
    sizes = [batch["train_batch_size"] for batch in net.history[0, "batches"]]
    assert sizes == [35, 35]


def test_same_seed_same_bits():
    one, other = (fit().history[:, "train_loss"] for _ in range(2))
    assert one == other


def test_loss_that_is_not_finite_raises():
    with pytest.raises(ValueError, match=r"the VAE that.*diverged.*aux__lr=1e\+30"):
        fit(lr=1e30, max_epochs=9)


@pytest.mark.parametrize(
    "cls, name, value",
    [
        (AdversarialVAE, "max_iter", 0),
        (AdversarialVAE, "max_epochs", "many"),
        (AdversarialVAE, "batch_size", -1),
        (AdversarialVAE, "lr", -1.0),
        (AdversarialVAE, "beta", math.nan),
        (AdversarialVAE, "adversary_weight", -1.0),
        (WassersteinCritic, "n_critic", 0),
        (WassersteinCritic, "penalty_weight", -1.0),
        (WassersteinGAN, "n_critic", 1.5),
        (WassersteinGAN, "penalty_weight", math.nan),
    ],
)
def test_wrong_values_raise(cls, name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of {cls.__name__}"):
        check_params(cls(module__shape=(6,), **{name: value}))


def test_wrong_values_raise_in_a_fit_of_the_net_alone():
    with pytest.raises(ValueError, match="The 'max_iter' parameter of AdversarialVAE"):
        fit(max_iter=0)


def test_right_values_and_arguments_pass():
    net = WassersteinGAN(module__shape=(6,), critic__hidden=(9,), lr=0.0)
    check_params(net)
    check_params(net.initialize())
