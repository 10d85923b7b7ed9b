import numpy as np
import pytest
import torch
from torch import nn

from skal.models import Critic, Generator, WassersteinGAN, gradient_penalty
from skal.net.auxiliary_rows import AuxiliaryRows
from skal.utils import isolated_rng

X = np.random.default_rng(0).standard_normal((50, 6))


def fit(X=X, **params):
    params = {"module__shape": X.shape[1:], "batch_size": 25, "max_epochs": 2, **params}
    with isolated_rng(0):
        return WassersteinGAN(**params).fit(AuxiliaryRows(X))


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize(
    "shape, n_latent, smallest",
    [
        ((5,), 5, None),
        ((64,), 32, None),
        ((1, 4, 4), 100, 1),
        ((1, 8, 8), 100, 2),
        ((3, 9, 13), 100, 2),
        ((1, 28, 28), 100, 7),
        ((3, 32, 32), 100, 4),
        ((3, 64, 64), 100, 4),
    ],
)
def test_shapes(shape, n_latent, smallest):
    generator = Generator(shape, **({"width": 2} if smallest else {}))
    assert generator.n_latent == n_latent
    x = generator(torch.randn(3, n_latent))
    assert x.shape == (3, *shape)
    critic = Critic(shape, **({"width": 2} if smallest else {}))
    assert critic(x).shape == (3, 1)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic)
    if smallest:
        assert generator[2].unflattened_size[1] == smallest
        assert x.abs().max() <= 1


def test_penalty_of_a_linear_map_is_that_of_its_norm():
    w = torch.tensor([[1.0, 2.0, 2.0]], requires_grad=True)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w.T, torch.randn(7, 1, 3))
    assert penalty.item() == pytest.approx((3 - 1) ** 2)
    penalty.backward()  # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(w.grad, 2 * 2 * w.detach() / 3)


class Shift(nn.Module):
    """Noise around a point, as generator; one value of it, as critic."""

    n_latent = 2

    def __init__(self, shape):
        super().__init__()
        self.point = nn.Parameter(torch.tensor([3.0, 0.0]))

    def forward(self, z):
        return self.point + 0 * z


class First(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.slope * x[:, :1]


def test_losses_by_hand():
    net = fit(
        X[:20, :2],
        module=Shift,
        critic=First,
        autoencoder=None,
        penalty_weight=4.0,
        max_epochs=1,
        lr=0.0,
    )
    distance = 0.5 * X[:20, 0].mean() - 0.5 * 3
    epoch = net.history[0]
    assert epoch["distance"] == pytest.approx(distance, rel=1e-5)
    assert epoch["train_loss"] == pytest.approx(4 * 0.5**2 - distance, rel=1e-5)
    assert epoch["generator_loss"] == pytest.approx(-1.5, rel=1e-5)
    assert "reconstruction" not in epoch and not hasattr(net, "autoencoder_")


@pytest.mark.parametrize(
    "name, prefix",
    [
        ("module", "optimizer"),
        ("critic", "critic_optimizer"),
        ("autoencoder", "autoencoder_optimizer"),
    ],
)
def test_each_loss_moves_its_own_module_only(name, prefix):
    start, frozen = fit(lr=0.0), fit(**{f"{prefix}__lr": 0.0})
    for each in ("module", "critic", "autoencoder"):
        moved = not torch.equal(
            weights(getattr(frozen, f"{each}_")), weights(getattr(start, f"{each}_"))
        )
        assert moved == (each != name)


@pytest.mark.parametrize("n_critic, n_updates", [(1, 6), (3, 2), (4, 2), (9, 1)])
def test_generator_learns_each_so_many_steps(n_critic, n_updates):
    net = fit(n_critic=n_critic, max_epochs=3)

    def count(optimizer):
        return {int(state["step"]) for state in optimizer.state.values()}

    assert count(net.optimizer_) == count(net.autoencoder_optimizer_) == {n_updates}
    assert count(net.critic_optimizer_) == {6}
    for name in ("train_loss", "distance", "generator_loss", "reconstruction"):
        assert np.isfinite(net.history[:, name]).all()


def test_critic_estimates_the_distance_of_two_gaussians(training_seed, margin):
    """The generator stands still 3 away; a wrong sign of the penalty gives 0."""
    rng = np.random.default_rng(training_seed)
    rows = rng.standard_normal((512, 4)) + [3, 0, 0, 0]

    class Fixed(Generator):
        def forward(self, z):
            return z + 0 * self[0].weight.sum()

    with isolated_rng(training_seed):
        net = WassersteinGAN(
            Fixed,
            module__shape=(4,),
            autoencoder=None,
            batch_size=128,
            lr=1e-3,
            max_iter=200,
        ).fit(AuxiliaryRows(rows))
    margin("distance", net.history[-10:, "distance"][0], above=2, below=5)


def test_generated_rows_come_to_the_real_ones(training_seed, margin):
    """They begin more than 2 away."""
    rng, center = np.random.default_rng(training_seed), np.array([2.0, -1.0])
    rows = rng.standard_normal((256, 2)) * 0.3 + center
    with isolated_rng(training_seed):
        net = WassersteinGAN(
            module__shape=(2,), autoencoder=None, max_iter=1500, lr=1e-3
        ).fit(AuxiliaryRows(rows))
        mean = net.generate(1000).mean(0).detach().numpy()
    margin("how far the mean is", np.linalg.norm(mean - center), below=1.6)


def test_training_ends_where_the_distance_falls_no_more(monkeypatch):
    """Nothing learns, so that each window is like the first."""
    monkeypatch.setattr("skal.models._gan.WINDOW", 4)
    params = {"module": Shift, "critic": First, "autoencoder": None, "lr": 0.0}
    params |= {"batch_size": 50, "max_epochs": 99, "patience": 2}
    assert len(fit(X[:, :2], **params).history) == 4 + 2 * 4
    assert len(fit(X[:, :2], max_iter=7, **params).history) == 7


@pytest.mark.parametrize("shape, cap", [((6,), 15_000), ((1, 8, 8), 3000)])
def test_steps_that_pay(shape, cap):
    assert WassersteinGAN(module__shape=shape).cap == cap
    assert WassersteinGAN(module__shape=shape, max_iter=9).cap == 9


def test_betas_are_those_of_the_authors_and_can_be_set():
    net = fit(max_epochs=1, critic_optimizer__betas=(0.1, 0.2))
    assert net.optimizer_.param_groups[0]["betas"] == (0.5, 0.9)
    assert net.critic_optimizer_.param_groups[0]["betas"] == (0.1, 0.2)
    assert net.autoencoder_optimizer_.param_groups[0]["betas"] == (0.9, 0.999)


def test_images_of_one_row():
    image = np.random.default_rng(0).random((1, 1, 8, 8))
    net = fit(image, module__width=2)
    assert net.encode(torch.from_numpy(image).float()).shape == (1, 32)
