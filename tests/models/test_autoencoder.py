import pytest
import torch

from skal.models import VAE, Autoencoder

SHAPES = [(5,), (64,), (1, 4, 4), (1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 32, 32)]


@pytest.mark.parametrize("shape", [*SHAPES, (3, 64, 64)])
@pytest.mark.parametrize("cls", [Autoencoder, VAE])
def test_shapes(cls, shape):
    model = cls(shape, width=2)
    x = torch.randn(3, *shape)
    outputs = model(x)
    reconstruction, *parameters = (outputs,) if cls is Autoencoder else outputs
    assert reconstruction.shape == x.shape
    for each in (model.encode(x), *parameters):
        assert each.shape == (3, model.n_latent)
    assert model.n_latent == (2 if shape == (5,) else min(32, x[0].numel() // 2))


@pytest.mark.parametrize(
    "size, smallest", [(4, 2), (8, 2), (28, 3), (32, 2), (64, 2), (63, 3)]
)
def test_images_are_halved_to_two_or_three(size, smallest):
    model = Autoencoder((1, size, size), width=1)
    assert model.encoder[:-1](torch.zeros(2, 1, size, size)).shape[-1] == smallest


def test_widths_are_those_asked_for():
    model = Autoencoder((3, 32, 32), n_latent=7, width=4)
    convolutions = [layer for layer in model.encoder if hasattr(layer, "kernel_size")]
    assert [layer.out_channels for layer in convolutions] == [4, 8, 16, 32]
    assert model.code.out_features == 7
    model = VAE((10,), hidden=(9, 8))
    widths = [
        part.out_features
        for part in model.modules()
        if hasattr(part, "bias") and hasattr(part, "out_features")
    ]
    assert widths == [9, 8, 8, 9, 10, 5, 5]


def test_code_is_the_mean_and_evaluation_draws_nothing():
    torch.manual_seed(0)
    model, x = VAE((6,)).eval(), torch.randn(4, 6)
    reconstruction, mean, _ = model(x)
    assert torch.equal(mean, model.encode(x))
    assert torch.equal(reconstruction, model.decoder(mean))
    assert not torch.equal(model.train()(x)[0], model(x)[0])


def test_draws_have_the_deviation_of_the_posterior():
    torch.manual_seed(0)
    model = VAE((6,), n_latent=2)
    with torch.no_grad():
        model.log_variance.weight.zero_()
        model.log_variance.bias.copy_(torch.tensor([2.0, -2.0]))
    model.decoder = torch.nn.Identity()
    z, mean, _ = model(torch.randn(20_000, 6))
    expected = torch.tensor([1.0, -1.0]).exp()
    torch.testing.assert_close((z - mean).std(0), expected, rtol=0.03, atol=0)
