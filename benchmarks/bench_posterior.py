"""100 draws of MC dropout against one plain pass over the pool.

The dropout sits before the classifier. Goal: at most 2 times the plain pass.
"""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.functional import max_pool2d, relu

from skal import PoolView
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


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return NeuralNetClassifier(
        LateDropout,
        criterion=nn.CrossEntropyLoss,
        classes=list(range(10)),
        batch_size=256,
        verbose=0,
    ).initialize()


def test_mc_dropout(net, profile, medians_in_turn, extra_memory, table):
    shape = (N_ROWS[profile], 1, 28, 28)
    X = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def draws():
        return PoolView(net, X, random_state=0).sample_proba(MCDropout(n_draws=100))

    memory = extra_memory(draws)
    seconds = medians_in_turn({"draws": draws, "pass": lambda: PoolView(net, X).proba})
    table(
        f"MC dropout, 100 draws of {len(X):,} images",
        seconds["draws"],
        "one plain pass",
        seconds["pass"],
        memory=memory,
        n_input=X.nbytes,
        note=f"{memory / draws().nbytes:.1f} times the samples",
    )
