import pytest
import torch
from torch import nn

from skal.models import MLP, ConvNet, ResNet18, Standardized


def build(name, n_channels, size, n_classes=5):
    if name == "mlp":
        return MLP(n_channels * size**2, n_classes, hidden=(16, 8), dropout=0.1)
    if name == "cnn":
        return ConvNet(n_channels, n_classes, image_size=size)
    return ResNet18(n_channels, n_classes)


@pytest.mark.parametrize("n_channels, size", [(1, 8), (2, 28), (3, 32), (4, 64)])
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_logits_are_the_output_of_the_last_linear(name, n_channels, size):
    model = build(name, n_channels, size).eval()
    linear_outputs = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, x, y: linear_outputs.append(y))
    with torch.no_grad():
        logits = model(torch.rand(3, n_channels, size, size))
    assert logits.shape == (3, 5)
    assert logits is linear_outputs[-1]


@pytest.mark.parametrize(
    "build_with",
    [lambda p: MLP(64, 3, dropout=p), lambda p: ConvNet(1, 3, image_size=8, dropout=p)],
)
def test_dropout_layers_only_where_asked_and_one_before_the_head(build_with):
    def modules(p):
        return [m for m in build_with(p).modules() if not list(m.children())]

    assert not any(isinstance(m, nn.Dropout) for m in modules(0.0))
    last_but_one, last = modules(0.3)[-2:]
    assert isinstance(last_but_one, nn.Dropout) and last_but_one.p == 0.3
    assert isinstance(last, nn.Linear)


def test_convnet_has_no_dropout_before_its_convolutions_end():
    convolutions = ConvNet(1, 3, image_size=8).convolutions
    assert not any(isinstance(m, nn.Dropout) for m in convolutions.modules())


def test_mlp_without_hidden_layer_is_linear():
    model = MLP(4, 3, hidden=())
    x = torch.rand(2, 4)
    torch.testing.assert_close(model(x), model.head(x))


@pytest.mark.parametrize("size", [4, 7, 28])
def test_convnet_gives_the_same_bits_with_and_without_gradients(size):
    net = ConvNet(2, 3, image_size=size).eval()
    x = torch.randn(5, 2, size, size).round()  # many equal pixels
    x[0, 0, 0, 0] = torch.nan
    pool = nn.MaxPool2d(2)
    with torch.no_grad():
        pooled, logits = net.convolutions[2](x), net(x)
    assert pooled.is_contiguous()
    torch.testing.assert_close(pooled, pool(x), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(logits, net(x).detach(), rtol=0, atol=0, equal_nan=True)


def test_images_one_by_one_under_vmap():
    net, images = ConvNet(2, 3, image_size=8).eval(), torch.randn(4, 5, 2, 8, 8)
    with torch.no_grad():
        outputs = torch.vmap(net)(images)
        expected = torch.stack([net(some) for some in images])
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_convnet_refuses_tiny_images():
    with pytest.raises(ValueError, match="image_size must be at least 4, got 3"):
        ConvNet(1, 3, image_size=3)


def test_resnet_keeps_the_resolution_in_its_stem():
    network = ResNet18(2, 3).network
    assert network.relu(network.maxpool(network.conv1(torch.rand(1, 2, 9, 9)))).shape[
        2:
    ] == (9, 9)


def test_standardized_scales_bytes_by_channel():
    model = Standardized(
        MLP, mean=[10.0, 20.0], std=[2.0, 4.0], n_inputs=2, n_classes=3, hidden=()
    )
    x = torch.tensor([[[[14]], [[12]]]], dtype=torch.uint8)
    torch.testing.assert_close(model(x), model.network(torch.tensor([[2.0, -2.0]])))
    torch.testing.assert_close(model(x), model(x.double()))
    assert set(dict(model.named_buffers())) == {"mean", "std"}
