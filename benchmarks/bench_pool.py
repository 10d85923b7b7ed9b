"""One pass for probabilities, logits and embeddings, against `predict_proba`.

Goal: at most 1.15 times, and the network sees every row once.
"""

from statistics import median
from time import perf_counter

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from skal import PoolView
from skal.models import MLP, ConvNet

GOAL = 1.15
N_CLASSES = 10


def in_turn(benchmark, measured, baseline, rounds):
    """Time `measured` and `baseline` in turn; returns the two medians, or None.

    pytest-benchmark times the one, its set-up the other; None where timing is disabled.
    """
    seconds = []

    def run_baseline():
        start = perf_counter()
        baseline()
        seconds.append(perf_counter() - start)

    torch.set_num_threads(2)
    benchmark.pedantic(measured, setup=run_baseline, rounds=rounds, warmup_rounds=1)
    if benchmark.stats is None:
        return None
    return benchmark.stats.stats.median, median(seconds[-rounds:])


def report(table, name, beside, medians, goal=GOAL):
    """Add a row to the table; returns the seconds divided by those of the baseline."""
    if medians is None:
        return 0.0
    measured, baseline = medians
    table(name, measured, beside, baseline, note=f"goal: <= {goal} times")
    return measured / baseline


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
    return make_net(MLP, n_inputs=20, n_classes=N_CLASSES), rows(100_000, 20)


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
def test_outputs_of_a_pool(case, benchmark, table):
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
    medians = in_turn(benchmark, read_all, lambda: net.predict_proba(X), rounds=5)
    name = f"pool, {case.__name__}"
    assert report(table, name, "predict_proba", medians) <= GOAL
