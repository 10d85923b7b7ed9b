"""A run of the loop beside the bare fits and one pass over the pool a round."""

import numpy as np
import pytest
from bench_pool import make_net
from sklearn.base import clone
from sklearn.datasets import make_classification

from skal import ActiveLearningLoop, MarginQuery, PoolView, RandomQuery
from skal.models import MLP, ConvNet

N_ROWS, N_ROUNDS, BATCH = 5_000, 3, 100


def mlp():
    X, y = make_classification(
        N_ROWS, 20, n_informative=15, n_classes=10, random_state=0
    )
    net = make_net(MLP, n_inputs=20, n_classes=10)
    return net.set_params(max_epochs=20), X.astype(np.float32), y


def conv():
    X = np.random.default_rng(0).standard_normal((N_ROWS, 1, 12, 12), np.float32)
    net = make_net(ConvNet, n_channels=1, n_classes=10, image_size=12)
    return net.set_params(max_epochs=5), X, np.arange(N_ROWS) % 10


@pytest.mark.parametrize("strategy", [RandomQuery(), MarginQuery()], ids=type)
@pytest.mark.parametrize("case", [mlp, conv])
def test_a_run_of_the_loop(case, strategy, benchmarked, table):
    net, X, y = case()
    loop = ActiveLearningLoop(
        net,
        strategy,
        batch_size=BATCH,
        n_initial=BATCH,
        initial="uniform",
        n_rounds=N_ROUNDS,
        random_state=0,
    ).fit(X, y)
    bought = loop.labeled_indices_

    def bare():
        """Fit to the same rows; pass once over the pool where the loop does."""
        for k in range(1, N_ROUNDS + 2):
            labeled = np.sort(bought[: k * BATCH])
            model = clone(net).set_params(
                train_split=None, iterator_train__shuffle=True
            )
            model.fit(X[labeled], y[labeled])
            if k <= N_ROUNDS and not isinstance(strategy, RandomQuery):
                pool = np.setdiff1d(np.arange(N_ROWS), labeled)
                PoolView.of_rows(model, X, pool).log_proba  # noqa: B018

    seconds, fits = benchmarked(lambda: loop.fit(X, y), bare)
    name = f"loop, {case.__name__}, {type(strategy).__name__}"
    table(name, seconds, "bare fits and passes", fits, goal="<= 1.1x")
