"""Time and memory of each strategy's query against the size of the pool.

The outputs of the network are there already, and clusters that a first query made, so
this is the cost of choosing alone; strategies that draw predictions or change rows run
the network, which is but dropout and a head. Embeddings are like those after a ReLU,
probabilities like a network's, mostly confident.
"""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from skal import PoolView
from skal.utils import all_strategies

# Rows of the pool, and picks.
SIZES = {
    "fast": [(1_000, 20)],
    "regular": [(2_000, 100), (10_000, 100)],
    "large": [(10_000, 100), (50_000, 100)],
}
N_FEATURES, N_CLASSES, N_LABELED = 512, 10, 100
WRAPPERS = ("PartitionedQuery", "SubsampleQuery")
# Those that train another network have benchmarks of their own.
STRATEGIES = [
    (name, cls)
    for name, cls in all_strategies()
    if name not in WRAPPERS and not hasattr(cls(), "aux")
]
# It would use up its half minute in each call.
OPTIONS = {"CoreSetQuery": {"time_limit": 5}}


def made_pool(n_rows, n_labeled=0):
    """A pool whose rows are embeddings."""
    generator = torch.Generator().manual_seed(n_rows)
    h = torch.randn(n_rows + n_labeled, N_FEATURES, generator=generator).relu_().numpy()
    net = NeuralNetClassifier(
        nn.Sequential(nn.Dropout(0.2), nn.Linear(N_FEATURES, N_CLASSES)),
        criterion=nn.CrossEntropyLoss,
        classes=range(N_CLASSES),
        batch_size=512,
        verbose=0,
    ).initialize()
    with torch.no_grad():
        head = net.module_[1]
        head.weight.normal_(generator=generator).mul_(0.15)
        head.bias.zero_()
    labeled = {}
    if n_labeled:
        y = np.arange(n_labeled) % N_CLASSES
        labeled = {"X_labeled": h[n_rows:], "y_labeled": y}
    return PoolView(net, h[:n_rows], random_state=0, **labeled)


@pytest.mark.parametrize("name, cls", STRATEGIES, ids=lambda value: str(value))
def test_query(profile, medians_in_turn, extra_memory, table, name, cls):
    small = made_pool(200, N_LABELED)
    cls(**OPTIONS.get(name, {})).fit(small).query(small, 10)  # loads what it needs
    for n_rows, n_select in SIZES[profile]:
        pool = made_pool(n_rows, N_LABELED)
        strategy = cls(**OPTIONS.get(name, {}))

        def query(pool=pool, strategy=strategy, n_select=n_select):
            assert len(strategy.fit(pool).query(pool, n_select)) == n_select

        memory = extra_memory(query)
        seconds = medians_in_turn({"query": query})["query"]
        n_input = n_rows * N_FEATURES * 4
        what = f"{name}, {n_select} of {n_rows:,}"
        table(what, seconds, memory=memory, n_input=n_input)
