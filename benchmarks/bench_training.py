"""Fits of few labels, and fits that a strategy changes: Learning Loss and WAAL.

Goals: Learning Loss at most 1.3 times a plain fit of a ConvNet, WAAL at most
n_unlabeled / n_labeled + 2 times. Fits whose rows come one by one, as of a DataLoader,
stand beside those of few labels. Images and labels are noise: only the time counts.
"""

from functools import partial

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader

from skal import LearningLossQuery, WaalQuery
from skal.models import MLP, ConvNet
from skal.net.batches import TrainLoader
from skal.net.pool_features import PoolFeatures
from skal.net.training import fit_isolated, private_clone

# Numbers of labelled rows, and of all rows.
SIZES = {
    "fast": ([100], 400),
    "regular": ([100, 200, 400, 600], 1_200),
    "large": ([100, 1_000], 10_000),
}


def make_net(name):
    module = {
        "conv": {"module": ConvNet, "module__n_channels": 1},
        "MLP": {"module": MLP, "module__n_inputs": 64},
    }[name]
    return NeuralNetClassifier(
        **module,
        module__n_classes=10,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        batch_size=64,
        max_epochs={"conv": 10, "MLP": 30}[name],
        verbose=0,
    )


def fit_table(loader, X, y):
    net = private_clone(make_net("MLP"), 10).set_params(iterator_train=loader)
    return fit_isolated(net.set_params(iterator_train__shuffle=True), X, y, 0)


def test_fit_of_few_labels(medians_in_turn, table):
    rng = np.random.default_rng(0)
    for n_labeled in (20, 100, 400):
        X = rng.random((n_labeled, 64), dtype=np.float32)
        y = rng.integers(10, size=n_labeled)
        by_row, at_once = medians_in_turn(
            {each: partial(fit_table, each, X, y) for each in (DataLoader, TrainLoader)}
        ).values()
        table(f"fit, MLP, {n_labeled} labels", at_once, "row by row", by_row)


def fit(name, strategy, X, y):
    net = private_clone(make_net(name), 10)
    if strategy is not None:
        features = PoolFeatures(net, X, np.arange(len(y), len(X)))
        strategy.prepare(net, pool_features=features)
    return fit_isolated(net, X[: len(y)], y, 0)


@pytest.mark.parametrize("name", ["conv", "MLP"])
def test_fit(profile, medians_in_turn, table, name):
    sizes, n_rows = SIZES[profile]
    rng = np.random.default_rng(0)
    shape = {"conv": (1, 28, 28), "MLP": (64,)}[name]
    X = rng.random((n_rows, *shape), dtype=np.float32)
    for n_labeled in sizes:
        y = rng.integers(10, size=n_labeled)
        strategies = {
            "plain": None,
            "Learning Loss": LearningLossQuery(),
            "WAAL": WaalQuery(),
        }
        plain, loss, waal = medians_in_turn(
            {key: partial(fit, name, each, X, y) for key, each in strategies.items()}
        ).values()
        title = f"{name}, {n_labeled:,} of {n_rows:,}"
        goal = "<= 1.3x" if name == "conv" else None
        table(f"Learning Loss, {title}", loss, "plain fit", plain, goal=goal)
        bound = f"<= {(n_rows - n_labeled) / n_labeled + 2:.1f}x"
        table(f"WAAL, {title}", waal, "plain fit", plain, goal=bound)
