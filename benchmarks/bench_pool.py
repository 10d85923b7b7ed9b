"""One pass for probabilities, logits and embeddings, beside `predict_proba`.

The network sees every row once.
"""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from skal import PoolView
from skal.models import MLP, ConvNet

N_CLASSES = 10


def make_net(module, **params):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        classes=list(range(N_CLASSES)),
        verbose=0,
        **{f"module__{key}": value for key, value in params.items()},
    ).initialize()


def rows(n, *shape):
    return np.random.default_rng(0).standard_normal((n, *shape), dtype=np.float32)


def mlp_rows():
    return make_net(MLP, n_inputs=20, n_classes=N_CLASSES), rows(30_000, 20)


def mlp_dataset():
    net = make_net(MLP, n_inputs=20, n_classes=N_CLASSES)
    X = torch.from_numpy(rows(10_000, 20))
    return net, TensorDataset(X, torch.zeros(len(X)))


def conv_images():
    net = make_net(ConvNet, n_channels=1, n_classes=N_CLASSES)
    return net, rows(1_000, 1, 28, 28)


def conv_dataset():
    net, X = conv_images()
    return net, TensorDataset(torch.from_numpy(X), torch.zeros(len(X)))


@pytest.mark.parametrize("case", [mlp_rows, mlp_dataset, conv_images, conv_dataset])
def test_outputs_of_a_pool(case, benchmarked, table):
    net, X = case()
    seen = []
    hook = net.module_.register_forward_pre_hook(
        lambda part, args: seen.append(len(args[0]))
    )

    def read_all():
        pool = PoolView(net, X)
        return pool.proba, pool.logits, pool.embeddings

    expected = net.predict_proba(X)
    seen.clear()
    np.testing.assert_array_equal(read_all()[0], expected)
    assert sum(seen) == len(X)
    hook.remove()
    seconds, bare = benchmarked(read_all, lambda: net.predict_proba(X))
    name = f"pool, {case.__name__}"
    table(name, seconds, "predict_proba", bare, goal="<= 1.15x")
