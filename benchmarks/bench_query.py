"""Time and memory of each strategy's query against the size of the pool.

The outputs of the network are there already, and clusters that a first query made, so
this is the cost of choosing alone: embeddings like those after a ReLU, probabilities
like a network's, mostly confident.
"""

import numpy as np
import pytest
import torch
from torch import nn

from skal import PoolView
from skal.utils import all_strategies

SIZES = {"fast": [2_000], "regular": [2_000, 10_000], "large": [10_000, 50_000]}
N_SELECT, N_FEATURES, N_CLASSES, N_LABELED = 100, 512, 10, 100
# Those that run the network while they choose, or train another, have benchmarks of
# their own.
STRATEGIES = [
    (name, cls)
    for name, cls in all_strategies()
    if not {"sample_proba", "input_gradients"} & set(cls().requires)
    and not hasattr(cls(), "aux")
]


class MadePool(PoolView):
    """A pool whose outputs are made, not computed."""

    def __init__(self, n_rows, n_labeled=0):
        labeled = np.zeros((n_labeled, 1)) if n_labeled else None
        super().__init__(None, np.zeros((n_rows, 1)), X_labeled=labeled, random_state=0)
        generator = torch.Generator().manual_seed(n_rows)
        h = torch.randn(n_rows, N_FEATURES, generator=generator).relu_()
        head = nn.Linear(N_FEATURES, N_CLASSES)
        weight = torch.randn(head.weight.shape, generator=generator) * 0.15
        logits = h @ weight.T
        self._made = {
            "embeddings": h,
            "logits": logits,
            "proba": logits.softmax(1),
            "log_proba": logits.log_softmax(1),
            "head_weight": weight,
            "head_bias": torch.zeros(N_CLASSES),
        }
        if n_labeled:
            self.labeled = MadePool(n_labeled)

    embeddings = property(lambda self: self._made["embeddings"])
    logits = property(lambda self: self._made["logits"])
    proba = property(lambda self: self._made["proba"])
    log_proba = property(lambda self: self._made["log_proba"])
    head_weight = property(lambda self: self._made["head_weight"])
    head_bias = property(lambda self: self._made["head_bias"])


@pytest.mark.parametrize("name, cls", STRATEGIES)
def test_query(profile, medians_in_turn, extra_memory, table, name, cls):
    for n_rows in SIZES[profile]:
        pool, strategy = MadePool(n_rows, N_LABELED), cls()

        def query(pool=pool, strategy=strategy):
            return strategy.fit(pool).query(pool, N_SELECT)

        assert len(query()) == N_SELECT
        memory = extra_memory(query)
        seconds = medians_in_turn({"query": query})["query"]
        n_input = n_rows * N_FEATURES * 4
        what = f"{name}, {N_SELECT} of {n_rows:,}"
        table(what, seconds, memory=memory, n_input=n_input)
