import numpy as np
import pytest
import torch
from skorch import NeuralNet
from torch import nn

from skal.models import AdversarialVAE
from skal.net.auxiliary import check_auxiliary, device_of, fit_auxiliary

X = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))


class Layer(nn.Sequential):
    def __init__(self, n_inputs, n_outputs=1):
        super().__init__(nn.Linear(n_inputs, n_outputs), nn.Dropout(0.5))


def make_net(**params):
    params = {"max_epochs": 2, "verbose": 0, "module__n_inputs": 4, **params}
    return NeuralNet(Layer, nn.MSELoss, **params)


def fit(net, seed=0, **params):
    return fit_auxiliary(net, X, X[:, :1], seed=seed, device="cpu", **params)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def test_clone_is_trained_and_the_net_left_alone():
    net = make_net()
    fitted = fit(net)
    assert fitted is not net and not hasattr(net, "module_")
    # All rows train: the default split would hold out six of them.
    assert len(fitted.history) == 2 and "valid_loss" not in fitted.history[-1]


def test_seed_decides_the_bits_and_global_generators_stay():
    net, torch_state = make_net(), torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    first = weights(fit(net))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    torch.rand(3)
    assert torch.equal(weights(fit(net)), first)
    assert not torch.equal(weights(fit(net, seed=1)), first)


def test_defaults_yield_to_the_values_of_the_net_and_others_replace_them():
    defaults = {"module__n_inputs": 99, "module__n_outputs": 1}
    fitted = fit(make_net(), defaults=defaults, max_epochs=3)
    assert fitted.module_[0].in_features == 4
    assert fitted.get_params()["module__n_outputs"] == 1
    assert len(fitted.history) == 3


@pytest.mark.parametrize("given, used", [("cpu", "meta"), ("cuda", "cuda")])
def test_device_is_that_of_the_estimator_unless_named(monkeypatch, given, used):
    monkeypatch.setattr("skal.net.auxiliary.fit_isolated", lambda net, *args: net)
    net = make_net(device=given)
    assert fit_auxiliary(net, X, seed=0, device=torch.device("meta")).device == used


@pytest.mark.parametrize(
    "net, message",
    [
        (make_net(module__breadth=3), "aux__module__breadth: Layer has no.*n_outputs"),
        (AdversarialVAE(discriminator__width=3), "aux__discriminator__width: Discrim"),
        (make_net(device="cpux"), "aux__device='cpux' is no device"),
    ],
)
def test_wrong_arguments_raise(net, message):
    with pytest.raises(ValueError, match=message):
        check_auxiliary(net)


def test_right_arguments_pass():
    check_auxiliary(make_net(device=None))
    check_auxiliary(AdversarialVAE(module__width=3, discriminator__hidden=(3,)))
    check_auxiliary(NeuralNet(Layer(4), nn.MSELoss))
    check_auxiliary(NeuralNet(lambda **anything: Layer(4), nn.MSELoss, module__n=3))


def test_the_device_of_a_net_that_has_none():
    net = make_net(device=None).initialize()
    assert device_of(net) == "cpu"
    net.module_.to("meta")
    assert device_of(net) == "meta"
