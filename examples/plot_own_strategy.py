"""
Your own strategy
=================

A strategy is a class with one method: scores for rows, or positions of rows.
"""

# %%
# `_score` gives a number a row, higher = more wanted; `requires` names what it reads.
from numbers import Real

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop, QueryStrategy, RandomQuery, ScoreQuery
from skal.selection import top_k
from skal.testing import check_strategy
from skal.utils.validation import Interval

torch.set_num_threads(2)


class VariationRatioQuery(ScoreQuery):
    """Take the rows with the largest ``1 - max_c p_c``."""

    requires = ("proba",)

    def _score(self, pool):
        return 1 - pool.proba.amax(1)


# %%
# More freedom: `_query` returns distinct positions. All chance comes from `rng`, so
# equal seeds give equal picks; parameters are keyword-only and stored as they are, and
# `_parameter_constraints` say what they may be.


class EpsilonGreedyQuery(QueryStrategy):
    """Take uncertain rows, but each pick is random with probability `epsilon`."""

    requires = ("proba",)
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "epsilon": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(self, *, epsilon=0.1, random_state=None):
        super().__init__(random_state=random_state)
        self.epsilon = epsilon

    def _query(self, pool, n_samples, rng):
        score = 1 - pool.proba.amax(1).cpu().numpy()
        lucky = rng.random(len(pool)) < self.epsilon
        score[lucky] += rng.random(lucky.sum())
        return top_k(score, n_samples, random_state=rng)


# %%
# The checks that skal's own strategies pass hold for yours, too: they raise where it
# repeats a row, reads more than it says, changes the network, forgets a seed, ...
for strategy in (VariationRatioQuery(), EpsilonGreedyQuery()):
    results = check_strategy(strategy)
    print(type(strategy).__name__, sum(r["status"] == "passed" for r in results))

# %%
# Both work in a loop, next to the built-in ones.
X, y = load_digits(return_X_y=True)
X = X / 16
for strategy in (RandomQuery(), VariationRatioQuery(), EpsilonGreedyQuery(epsilon=0.2)):
    loop = ActiveLearningLoop(
        LogisticRegression(max_iter=1000), strategy, n_rounds=9, random_state=0
    )
    loop.fit(X[:1400], y[:1400], X_test=X[1400:], y_test=y[1400:])
    print(f"{type(strategy).__name__:22}", loop.history_["test_score"].round(3))
