"""Draws of MC dropout beside one plain pass over the pool.

100 draws where the dropout sits before the classifier of a network whose convolutions
take long; 50 draws of the library's own network on images of 8 x 8, whose two dropouts
precede as much arithmetic as is before them.
"""

from functools import partial

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.functional import max_pool2d, relu

from skal import PoolView
from skal.models import ConvNet
from skal.posterior import MCDropout

N_ROWS = {"fast": 500, "regular": 10_000, "large": 60_000}


class LateDropout(nn.Module):
    """The network of Kirsch et al. (2019), with dropout before the classifier only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 5), nn.Conv2d(32, 64, 5)
        self.hidden, self.head = nn.Linear(1024, 128), nn.Linear(128, 10)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = max_pool2d(relu(self.first(x)), 2)
        x = max_pool2d(relu(self.second(x)), 2)
        return self.head(self.drop(relu(self.hidden(x.flatten(1)))))


def make_net(module, batch_size):
    torch.manual_seed(0)
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        classes=list(range(10)),
        batch_size=batch_size,
        verbose=0,
    ).initialize()


@pytest.mark.parametrize(
    "module, size, batch_size, n_draws, goal",
    [
        (LateDropout, 28, 256, 100, "<= 2x"),
        (partial(ConvNet, 1, 10, 8), 8, 128, 50, "<= 5x"),
    ],
)
def test_mc_dropout(
    module,
    size,
    batch_size,
    n_draws,
    goal,
    profile,
    medians_in_turn,
    extra_memory,
    table,
):
    net = make_net(module, batch_size)
    shape = (N_ROWS[profile], 1, size, size)
    X = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def draws():
        return PoolView(net, X, random_state=0).sample_proba(MCDropout(n_draws))

    memory = extra_memory(draws)
    seconds = medians_in_turn({"draws": draws, "pass": lambda: PoolView(net, X).proba})
    table(
        f"MC dropout, {n_draws} draws, {len(X):,} of {size} x {size}",
        seconds["draws"],
        "one plain pass",
        seconds["pass"],
        goal=goal,
        memory=memory,
        n_input=X.nbytes,
        note=f"{memory / draws().nbytes:.1f} times the samples",
    )
