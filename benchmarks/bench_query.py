"""Time and memory of each strategy's query against the size of the pool.

The outputs of the network are there already, so this is the cost of choosing alone:
embeddings like those after a ReLU, probabilities like a network's, mostly confident.
"""

import numpy as np
import pytest
import torch
from torch import nn

from skal import PoolView
from skal.utils import all_strategies

SIZES = {"fast": [2_000], "regular": [2_000, 10_000], "large": [10_000, 50_000]}
N_SELECT, N_FEATURES, N_CLASSES, N_LABELED = 100, 512, 10, 100
# Those that run the network while they choose have benchmarks of their own.
STRATEGIES = [
    (name, cls)
    for name, cls in all_strategies()
    if not {"sample_proba", "input_gradients"} & set(cls().requires)
]


class MadePool(PoolView):
    """A pool whose outputs are made, not computed."""

    def __init__(self, n_rows, n_labeled=0):
        super().__init__(None, np.zeros((n_rows, 1)), random_state=0)
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
            self._labeled_data = (np.zeros((n_labeled, 1)), None)
            self._cache["labeled"] = MadePool(n_labeled)

    embeddings = property(lambda self: self._made["embeddings"])
    logits = property(lambda self: self._made["logits"])
    proba = property(lambda self: self._made["proba"])
    log_proba = property(lambda self: self._made["log_proba"])
    head_weight = property(lambda self: self._made["head_weight"])
    head_bias = property(lambda self: self._made["head_bias"])


def test_table(profile, medians_in_turn, extra_memory, capsys):
    lines = [f"{'query of 100':22}{'rows':>8}{'seconds':>10}{'MB':>8}{'% input':>9}"]
    for n_rows in SIZES[profile]:
        pool = MadePool(n_rows, N_LABELED)
        n_bytes = n_rows * N_FEATURES * 4
        for name, cls in STRATEGIES:
            strategy = cls()

            def query(strategy=strategy, pool=pool):
                return strategy.fit(pool).query(pool, N_SELECT)

            memory = extra_memory(query)
            seconds = medians_in_turn({"query": query})["query"]
            lines.append(
                f"{name:22}{n_rows:8}{seconds:10.3f}{memory / 1e6:8.0f}"
                f"{100 * memory / n_bytes:9.0f}"
            )
    with capsys.disabled():
        print("\n" + "\n".join(lines))


@pytest.mark.parametrize("name, cls", STRATEGIES)
def test_query(benchmark, name, cls):
    pool = MadePool(2_000, N_LABELED)
    benchmark.group = "query of 100 from 2,000"
    picks = benchmark(lambda: cls().fit(pool).query(pool, N_SELECT))
    assert len(picks) == N_SELECT
