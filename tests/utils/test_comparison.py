"""Tests paired by seed: worked examples, brute force, SciPy."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from skal.utils.comparison import (
    doubling_checkpoints,
    holm_adjust,
    penalties,
    penalty_matrix,
    rank_strategies,
    signed_rank,
)
from skal.utils.statistics import Curve

COUNTS = np.array([10, 20, 30, 40])


def runs(scores):
    """Curves of seeds 0, 1, ... from their scores, (n_seeds, n_points)."""
    return {k: Curve(COUNTS, np.asarray(row, float)) for k, row in enumerate(scores)}


def worked_example():
    """Five seeds; a is 0.01 better, give or take 0.001, at two checkpoints of four."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.05, size=(5, 4))  # varies more than the difference
    better = np.array([0.009, 0.0095, 0.01, 0.0105, 0.011])[:, None]
    noise = 1e-3 * np.array([-1, 1, 0, 1, -1])[:, None]
    gain = np.hstack([noise, better, noise, better])
    return {"a": runs(base + gain), "b": runs(base)}


def test_penalty_matrix_of_the_worked_example():
    result = penalty_matrix(worked_example(), checkpoints=COUNTS)
    np.testing.assert_array_equal(result.wins, [[0, 0.5], [0, 0]])
    # Rows win and columns are beaten: b is worse, and so its penalty is higher.
    np.testing.assert_array_equal(penalties(result.wins), [0, 0.25])
    np.testing.assert_array_equal(result.n_seeds, 5)


def test_penalties_pair_by_seed_and_not_by_position():
    curves = worked_example()
    curves["a"] = dict(reversed(curves["a"].items()))
    result = penalty_matrix(curves, checkpoints=COUNTS)
    np.testing.assert_array_equal(result.wins, [[0, 0.5], [0, 0]])
    # Other seeds are other splits: nothing is paired, and nothing is tested.
    curves["a"] = {seed + 10: curve for seed, curve in curves["a"].items()}
    result = penalty_matrix(curves, checkpoints=COUNTS)
    assert np.isnan(result.wins[0, 1]) and result.n_seeds[0, 1] == 0


def test_holm_makes_the_penalty_matrix_stricter():
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.05, size=(5, 4))
    curves = {"a": runs(base + rng.normal(0.004, 0.003, base.shape)), "b": runs(base)}
    plain, holm = (
        penalty_matrix(curves, checkpoints=COUNTS, holm=holm).wins.sum()
        for holm in (False, True)
    )
    assert 0 < plain and holm < plain


def test_constant_differences():
    base = np.full((3, 4), 0.5)
    curves = {"a": runs(base + 0.1), "b": runs(base), "c": runs(base)}
    wins = penalty_matrix(curves, checkpoints=COUNTS).wins
    np.testing.assert_array_equal(wins, [[0, 1, 1], [0, 0, 0], [0, 0, 0]])


def test_checkpoints_double_and_stop_where_random_has_converged():
    counts = np.arange(100, 1001, 100)
    np.testing.assert_array_equal(
        doubling_checkpoints(counts), [100, 200, 300, 500, 900]
    )
    random = [0.5, 0.6, 0.7, 0.8, 0.895, 0.9, 0.9, 0.9, 0.9, 0.9]
    np.testing.assert_array_equal(
        doubling_checkpoints(counts, random), [100, 200, 300, 500]
    )


def test_unknown_checkpoints():
    with pytest.raises(ValueError, match=r"\[10, 20, 30, 40\], got \[15\]"):
        penalty_matrix(worked_example(), checkpoints=[10, 15])


def test_holm_by_hand():
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, and 0.04 raised to the one before it.
    adjusted = holm_adjust([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_equals_brute_force_and_scipy(seed):
    rng = np.random.default_rng(seed)
    tied = rng.integers(-3, 4, size=7).astype(float)
    kept = tied[tied != 0]
    ranks = stats.rankdata(abs(kept))
    sums = [ranks @ np.array(s) for s in product([0, 1], repeat=len(kept))]
    observed = ranks[kept > 0].sum()
    tails = np.mean(np.array(sums) <= observed), np.mean(np.array(sums) >= observed)
    assert signed_rank(tied) == pytest.approx(min(1, 2 * min(tails)))
    smooth = rng.normal(0.3, 1, size=9)
    expected = stats.wilcoxon(smooth, method="exact").pvalue
    assert signed_rank(smooth) == pytest.approx(expected)


def test_ranks_by_hand():
    values = {
        "a": {0: 0.9, 1: 0.8, 2: 0.7, 9: 0.0},
        "b": {0: 0.8, 1: 0.8, 2: 0.9},
        "c": {0: 0.7, 1: 0.6, 2: 0.5},
    }
    ranking = rank_strategies(values)
    assert ranking.names == ["a", "b", "c"] and ranking.n_blocks == 3
    np.testing.assert_allclose(ranking.mean_ranks, [4.5 / 3, 4.5 / 3, 3])
    columns = [[each[k] for k in range(3)] for each in values.values()]
    expected = stats.friedmanchisquare(*columns)
    assert ranking.statistic == pytest.approx(expected.statistic)
    assert ranking.p_value == pytest.approx(expected.pvalue)
    # Three pairs, of which the least p possible is 0.25, times three.
    np.testing.assert_allclose(ranking.p_pairs[0, 2], 0.75)


def test_nothing_to_rank():
    with pytest.raises(ValueError, match="a block that all strategies have"):
        rank_strategies({"a": {0: 1.0}, "b": {1: 1.0}})
