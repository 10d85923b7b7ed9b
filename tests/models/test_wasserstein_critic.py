import pytest
import torch

from skal.models import WassersteinCritic
from skal.net.auxiliary import fit_auxiliary
from skal.net.auxiliary_rows import AuxiliaryRows


def gaussians(seed, shift, n=500):
    """Two clouds of 4 columns, the first one shifted."""
    rng = torch.Generator().manual_seed(seed)
    unlabeled, labeled = torch.randn(2, n, 4, generator=rng)
    unlabeled[:, 0] += shift
    return unlabeled, labeled


def fitted(unlabeled, labeled, seed=0, **params):
    return fit_auxiliary(
        WassersteinCritic(**{"max_iter": 300, **params}),
        AuxiliaryRows(unlabeled, labeled, paired=True),
        seed=seed,
        device="cpu",
        defaults={"module__shape": (4,), "module__hidden": (50, 50)},
    )


@pytest.mark.parametrize("truth", [1, 3, 10, 30, 100])
def test_a_known_distance_is_estimated(truth, training_seed, margin):
    rows = gaussians(training_seed, shift=truth)
    net = fitted(*rows, seed=training_seed)
    distance = net.distance(*rows).item()
    margin(f"distance over {truth}", distance / truth, above=0.7, below=1.35)
    x = torch.cat(rows).requires_grad_()
    (gradient,) = torch.autograd.grad(net.module_(x).sum(), x)
    norm = gradient.norm(dim=1).mean()
    margin(f"gradient at {truth}", norm, above=0.7, below=1.4)
    # Of the average over an epoch, in which the critic was another one.
    noted = net.history[-1, "distance"] / distance
    margin(f"noted over {truth}", noted, above=0.7, below=1.3)


def test_equal_clouds_are_near(training_seed, margin):
    net = fitted(*gaussians(training_seed, 0.0), seed=training_seed)
    fresh = net.distance(*gaussians(100 + training_seed, 0.0)).item()
    margin("distance of fresh rows", fresh, above=-0.5, below=0.5)


def test_loss_by_hand():
    """-W + weight max(W, 1) (|w| - 1)^2 for a linear critic with weights w."""
    net = WassersteinCritic(torch.nn.Linear, module__in_features=2, lr=0.0)
    net.set_params(module__out_features=1, penalty_weight=7.0).initialize()
    with torch.no_grad():
        net.module_.weight.copy_(torch.tensor([[3.0, 4.0]]))
    unlabeled, labeled = torch.eye(2), torch.tensor([[0.0, 0.0]])
    assert net.distance(unlabeled, labeled).item() == pytest.approx(3.5)
    loss, distance = net.update(unlabeled, labeled)
    assert loss.item() == pytest.approx(7 * 3.5 * 16 - 3.5)
    assert distance.item() == pytest.approx(3.5)
    loss, distance = net.update(labeled, unlabeled)
    assert distance.item() == pytest.approx(-3.5)
    assert loss.item() == pytest.approx(7 * 16 + 3.5)


@pytest.mark.parametrize("sizes", [(5, 2), (2, 5), (1, 1)])
def test_a_step_raises_the_distance_and_reaches_the_critic_only(sizes):
    first, second = torch.ones(sizes[0], 4), -torch.ones(sizes[1], 4)
    first.requires_grad_()
    net = WassersteinCritic(module__shape=(4,), penalty_weight=0.0).initialize()
    before = net.distance(first, second).item()
    net.update(first, second)
    assert net.distance(first, second).item() > before
    assert first.grad is None
    # Every weight learns; the last bias moves no difference.
    gradients = [p.grad.abs().max() > 1e-6 for p in net.module_.parameters()]
    assert gradients == [True] * 5 + [False]


def test_a_shift_of_the_critic_earns_nothing():
    rows = gaussians(0, 3)
    net = WassersteinCritic(module__shape=(4,)).initialize()
    before = net.distance(*rows).item()
    with torch.no_grad():
        list(net.module_.parameters())[-1] += 100.0
    assert net.distance(*rows).item() == pytest.approx(before, abs=1e-4)


@pytest.mark.parametrize(
    "params, fused",
    [
        ({}, True),
        ({"optimizer__fused": False}, False),
        ({"optimizer__foreach": True}, None),
        ({"optimizer": torch.optim.RMSprop}, None),  # has no fused form
    ],
)
def test_adam_is_fused_unless_the_user_wants_otherwise(params, fused):
    net = fitted(*gaussians(0, 3.0), max_iter=3, **params)
    assert net.optimizer_.defaults.get("fused") == fused


def test_a_critic_that_normalizes_batches_still_sees_the_distance():
    """Both ends in one batch: apart, BatchNorm would give them the same mean."""
    critic = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    rows = gaussians(0, shift=3)
    net = WassersteinCritic(critic).initialize()
    with torch.no_grad():
        critic[1].weight.copy_(torch.eye(4)[:1])
    assert net.distance(*rows).item() == pytest.approx(3 / (1 + 9 / 4) ** 0.5, rel=0.1)
