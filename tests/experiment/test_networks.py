import numpy as np
import pytest
import torch
from sklearn.utils import Bunch
from torch import optim

from skal.experiment.config import RunConfig
from skal.experiment.networks import build_estimator
from skal.experiment.options import UsageError
from skal.utils import isolated_rng

MODULES = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, n_classes, image_size, n_channels):
        super().__init__()
        self.flatten = nn.Flatten()
        self.head = nn.Linear(n_channels * image_size**2, n_classes)

    def forward(self, x):
        return self.head(self.flatten(x))


def linear(n_classes, n_inputs=None, **more):
    assert not more, more
    return nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, n_classes))


def softmax(n_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes), nn.Softmax(dim=1))


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class Untrained(Net):
    def forward(self, x):
        if self.training:
            raise RuntimeError("not now")
        return super().forward(x)


class Whole(Net):
    def forward(self, x):
        return super().forward(x).long()


def leave(n_classes):
    raise SystemExit(0)


def wide(n_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(n_classes + 1))


def narrow(n_classes):
    return nn.Linear(5, n_classes)


def fixed():
    return Net(10, 8, 1)


def number(n_classes):
    return n_classes


instance = Net(10, 8, 1)
text = "Net"
"""


def bunch(shape, augmentation=None):
    X = np.random.default_rng(0).normal(3, 2, size=(20, *shape)).astype(np.float32)
    mean, std = (np.array([X.mean()]), np.array([X.std()]))
    if len(shape) == 1:
        X[:, 0] = 7.0
        mean, std = X.mean(axis=0), X.std(axis=0)
    return Bunch(
        X_train=X,
        classes=tuple("abc"),
        image_shape=shape,
        mean=mean,
        std=std,
        augmentation=augmentation,
    )


def build(shape=(1, 8, 8), **options):
    return build_estimator(RunConfig(device="cpu", **options), bunch(shape))


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "modules_of_a_user.py").write_text(MODULES)
    (tmp_path / "ending_of_a_user.py").write_text("raise SystemExit(0)")
    (tmp_path / "broken_of_a_user.py").write_text("import nothing_like_this")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["Net", "linear"])
def test_own_modules_get_the_sizes_they_name(modules, name):
    net = build((3, 4, 4), model=f"modules_of_a_user:{name}").initialize()
    assert net.module_(torch.zeros(5, 3, 4, 4)).shape == (5, 3)


@pytest.mark.parametrize(
    "model, match",
    [
        ("modules_of_a_user:softmax", "must return logits, got probabilities"),
        ("modules_of_a_user:Pair", "must return logits of shape .*, 3.* gave tuple"),
        ("modules_of_a_user:wide", r"two rows gave \(2, 4\)"),
        ("modules_of_a_user:narrow", r"fails on rows of shape \(1, 8, 8\): Runtime"),
        ("modules_of_a_user:fixed", "cannot be made with .*'n_classes': 3.*TypeError"),
        ("modules_of_a_user:number", "must make a torch.nn.Module, got a int"),
        ("modules_of_a_user:Detached", "cannot be trained: .*does not require grad"),
        ("modules_of_a_user:Untrained", "cannot be trained: RuntimeError: not now"),
        ("modules_of_a_user:Whole", "cannot be trained: "),
        ("modules_of_a_user:leave", "cannot be made with .*: SystemExit"),
        ("ending_of_a_user:Net", "cannot be imported: SystemExit"),
        ("modules_of_a_user:instance", "is a Net; name the class"),
        ("modules_of_a_user:text", "is a str; name the class"),
        ("modules_of_a_user:Nothing", "cannot be imported: AttributeError"),
        (
            "broken_of_a_user:Net",
            "cannot be imported: ModuleNotFoundError.*nothing_lik",
        ),
        ("no_such_module:Net", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_bad_modules_are_refused(modules, model, match):
    with pytest.raises(UsageError, match=match):
        build(model=model)


def test_embedding_layer_must_be_there(modules):
    build(model="modules_of_a_user:Net", embedding_layer="head")
    with pytest.raises(UsageError, match="'fc' is not in .*flatten, head"):
        build(model="modules_of_a_user:Net", embedding_layer="fc")


def test_rows_of_a_table_are_standardised_by_column():
    data = bunch((6,))
    net = build_estimator(RunConfig(device="cpu"), data).initialize()
    seen = []
    net.module_.network.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    net.module_(torch.as_tensor(data.X_train))
    assert (seen[0][:, 0] == 0).all()
    np.testing.assert_allclose(seen[0].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen[0].std(0, correction=0)[1:], 1, atol=1e-5)


@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_image_networks_refuse_tables(model):
    with pytest.raises(UsageError, match=rf"--model {model} needs images.*\(6,\)"):
        build((6,), model=model)


def test_image_shape_may_be_unknown():
    data = Bunch(**{**bunch((6,)), "image_shape": None, "mean": None, "std": None})
    net = build_estimator(RunConfig(device="cpu"), data).initialize()
    assert net.module_.network.features[1].in_features == 6


@pytest.mark.parametrize(
    "options, kind, expected",
    [
        ({}, optim.Adam, {"lr": 0.001, "weight_decay": 0}),
        ({"optimizer": "adamw"}, optim.AdamW, {"weight_decay": 0.01}),
        ({"optimizer": "nadam", "lr": 0.5}, optim.NAdam, {"lr": 0.5}),
        (
            {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
            optim.SGD,
            {"momentum": 0.9, "weight_decay": 0.1},
        ),
    ],
)
def test_optimizers(options, kind, expected):
    optimizer = build(**options).initialize().optimizer_
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in expected} == expected


def test_momentum_is_for_sgd():
    with pytest.raises(UsageError, match="--momentum 0.9 needs --optimizer sgd"):
        RunConfig(momentum=0.9).resolve()


def test_patience_watches_the_training_loss(capsys):
    net = build((6,), lr=1e-12, epochs=50, patience=3)
    with isolated_rng(0):  # dropout makes the loss of an epoch a matter of chance
        net.fit(bunch((6,)).X_train, np.arange(20) % 3)
    assert len(net.history) < 20
    assert "valid_loss" not in net.history[-1]
    assert capsys.readouterr().out == ""


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    build()
    assert torch.equal(torch.get_rng_state(), state)


def test_items_of_a_dataset_are_tried_without_their_labels():
    data = bunch((1, 8, 8))
    rows = [(torch.as_tensor(row), 0) for row in data.X_train]
    data.X_train = rows
    build_estimator(RunConfig(device="cpu"), data)
