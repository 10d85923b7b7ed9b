import math

import numpy as np
import pytest

from skal.models import AdversarialVAE
from skal.utils import isolated_rng
from skal.utils.auxiliary_rows import AuxiliaryRows

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
    with pytest.raises(ValueError, match="the VAE that.*diverged.*nan.*aux__lr=inf"):
        fit(lr=math.inf)
