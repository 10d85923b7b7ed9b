import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu
from torchvision.models import densenet121, mobilenet_v3_small, resnet34

from skal.models import MLP, ConvNet
from skal.net.hidden import HiddenMeans


class Block(nn.Module):
    """A residual block; the shortcut runs last, and the sum is a plain function."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x):
        return relu(self.second(relu(self.first(x))) + self.shortcut(x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 1, 1)
        self.stages = nn.ModuleList(Block(4, 4, s) for s in (1, 2, 2))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = relu(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        return self.head(x.mean((2, 3)))


class Plain(nn.Module):
    """Convolutions with functions between them, hidden units, and a head."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.three = nn.Conv2d(4, 4, 3, padding=1)
        self.squeeze = nn.Linear(1, 2)  # before the last convolution
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = max_pool2d(relu(self.one(x)), 2)
        self.squeeze(x.mean((2, 3))[:, :1])
        x = relu(self.three(relu(self.two(x))))
        return self.head(self.body(x[:, :, :2, :2]))


def found(module, x):
    module.eval()
    probe = HiddenMeans(module)
    with torch.no_grad(), probe:
        module(x)
        means = probe.read(len(x))
        module(x)
        again = probe.read(len(x))  # of the hooks on these layers alone
    for name, mean in means.items():
        assert torch.equal(mean, again[name])
    return means


IMAGES = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "module, x, names",
    [
        (Residual(), IMAGES, ["stages.0", "stages.1", "stages.2"]),
        (Plain(), IMAGES, ["one", "three", "body.1"]),
        (ConvNet(1, 3, image_size=12), IMAGES, None),
        (MLP(144, 3, hidden=(7, 6)), IMAGES, ["features.1", "features.3"]),
        (
            resnet34(num_classes=3),
            torch.rand(2, 3, 64, 64),
            ["layer1", "layer2", "layer3", "layer4"],
        ),
        (
            densenet121(num_classes=3),
            torch.rand(2, 3, 64, 64),
            [*(f"features.transition{i}.conv" for i in (1, 2, 3)), "features"],
        ),
        (mobilenet_v3_small(num_classes=3), torch.rand(2, 3, 64, 64), None),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)),
            IMAGES,
            ["1"],  # the head is a convolution
        ),
        (
            nn.Sequential(nn.Conv1d(1, 4, 3, 2), nn.Conv1d(4, 4, 3, 2), nn.Flatten())
            .append(nn.Linear(140, 3)),
            IMAGES.flatten(2),
            ["0", "1"],
        ),
    ],
    ids="residual plain conv mlp resnet densenet mobilenet fully conv1d".split(),
)  # fmt: skip
def test_layers_are_the_last_outputs_of_each_size(module, x, names):
    means = found(module, x)
    assert 1 <= len(means) <= 4
    if names is not None:
        assert list(means) == names
    assert all(mean.shape[0] == len(x) and mean.ndim == 2 for mean in means.values())


def test_a_block_is_read_after_its_shortcut_is_added():
    module = Residual().eval()
    means = found(module, IMAGES)
    with torch.no_grad():
        expected = module.stages[0](relu(module.stem(IMAGES))).mean((2, 3))
    torch.testing.assert_close(means["stages.0"], expected)


def test_what_is_negative_in_an_image_does_not_count():
    module = Plain().eval()
    with torch.no_grad():
        expected = relu(module.one(IMAGES)).mean((2, 3))
    torch.testing.assert_close(found(module, IMAGES)["one"], expected)
