import warnings
from itertools import product

import numpy as np
import pytest
from scipy import stats

from skal.analysis import (
    doubling_checkpoints,
    holm_adjust,
    learning_curves,
    penalties,
    penalty_matrix,
    rank_strategies,
    signed_rank,
)

COUNTS = np.array([100, 200, 300, 500])


def curves_of(scores, n_labeled=COUNTS):
    """Make curves of rows by strategy and seed; a dict has other numbers of labels."""
    return learning_curves(
        {"strategy": name, "seed": seed, "n_labeled": n, "accuracy": score}
        for name, by_seed in scores.items()
        for seed, row in by_seed.items()
        for n, score in (
            row if isinstance(row, dict) else dict(zip(n_labeled, row, strict=True))
        ).items()
    )


def worked_scores():
    """Differences of +0.01 +- 0.001 at two of four checkpoints, five seeds."""
    gain = np.array([0.009, 0.0095, 0.010, 0.0105, 0.011])
    level = 0.5 + np.array([0, 0.1, 0.2, 0.3])
    where = np.array([0, 1, 1, 0])
    noise = np.array([0.05, -0.03, 0, 0.02, -0.04])
    # A difference whose mean is far within its spread, at the other two.
    chance = np.array([0.01, -0.01, 0.02, -0.02, 0.001])
    base = {k: level + noise[k] for k in range(5)}
    better = {k: base[k] + np.where(where, gain[k], [0, 0, 0, chance[k]]) for k in base}
    return {"i": better, "j": base}


def test_worked_example():
    result = penalty_matrix(curves_of(worked_scores()))
    assert list(result.wins) == list(result.wins.index) == ["i", "j"]
    np.testing.assert_array_equal(result.checkpoints, COUNTS)
    np.testing.assert_array_equal(result.wins, [[0, 0.5], [0, 0]])
    np.testing.assert_array_equal(result.n_seeds, np.full((2, 2), 5))
    np.testing.assert_array_equal(penalties(result.wins), [0, 0.25])


def test_pairs_are_by_seed_whatever_the_order():
    scores = worked_scores()
    scores["j"] = dict(reversed(scores["j"].items()))
    wins = penalty_matrix(curves_of(scores)).wins
    np.testing.assert_array_equal(wins, [[0, 0.5], [0, 0]])
    # Seeds vary far more than the strategies differ: wrong pairs find nothing.
    scores["j"] = dict(zip(range(5), scores["j"].values(), strict=True))
    wins = penalty_matrix(curves_of(scores)).wins
    np.testing.assert_array_equal(wins, np.zeros((2, 2)))


def test_only_shared_seeds_count():
    scores = worked_scores()
    scores["k"] = {9: scores["i"][0]}
    scores["i"][7] = np.zeros(4)
    result = penalty_matrix(curves_of(scores))
    nan = np.nan
    np.testing.assert_array_equal(
        result.wins, [[0, 0.5, nan], [0, 0, nan], [nan, nan, 0]]
    )
    np.testing.assert_array_equal(result.n_seeds, [[6, 5, 0], [5, 5, 0], [0, 0, 1]])
    np.testing.assert_array_equal(penalties(result.wins), [0, 0.25, nan])
    np.testing.assert_array_equal(penalties([[0]]), [0])


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_the_test_is_the_two_sided_paired_one(n_seeds):
    rng = np.random.default_rng(n_seeds)
    first, second = rng.normal(size=(2, n_seeds, 40)).round(6)
    second -= 0.5
    counts = np.arange(1, 41)
    curves = curves_of(
        {"a": dict(enumerate(first)), "b": dict(enumerate(second))}, counts
    )
    wins = penalty_matrix(curves, checkpoints=counts).wins.to_numpy()
    test = stats.ttest_rel(first, second)
    assert wins[0, 1] == np.mean((test.pvalue < 0.05) & (test.statistic > 0))
    assert wins[1, 0] == np.mean((test.pvalue < 0.05) & (test.statistic < 0))


def test_differences_without_spread():
    base = {k: np.array([0.1, 0.3, 0.7]) + k / 7 for k in range(3)}
    same = {k: base[k] + [0, 0.1, -0.2] for k in base}
    curves = curves_of({"a": same, "b": base}, np.array([1, 2, 3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wins = penalty_matrix(curves).wins
    np.testing.assert_allclose(wins, [[0, 1 / 3], [1 / 3, 0]])


def test_holm_makes_it_harder():
    gains = np.array([0.01, 0.02, 0.03, 0.02, 0.05])  # p = 0.0189
    base = {k: np.full(4, 0.5) for k in range(5)}
    better = {k: base[k] + gains[k] for k in base}
    curves = curves_of({"a": better, "b": base})
    assert 0.05 / 4 < stats.ttest_1samp(gains, 0).pvalue < 0.05
    assert penalty_matrix(curves).wins.loc["a", "b"] == 1
    assert penalty_matrix(curves, holm=True).wins.loc["a", "b"] == 0


def test_checkpoints_double_and_stop():
    counts = np.arange(100, 1001, 100)
    np.testing.assert_array_equal(
        doubling_checkpoints(counts), [100, 200, 300, 500, 900]
    )
    rising = np.array([0.5, 0.6, 0.7, 0.8, 0.89, 0.892, 0.88, 0.9, 0.9, 0.9])
    np.testing.assert_array_equal(
        doubling_checkpoints(counts, rising), [100, 200, 300, 500]
    )
    # A short last batch is no doubling; a flat curve leaves the first round.
    np.testing.assert_array_equal(doubling_checkpoints([20, 40, 60, 65]), [20, 40, 60])
    np.testing.assert_array_equal(doubling_checkpoints([20, 40], [0.9, 0.9]), [20])
    np.testing.assert_array_equal(doubling_checkpoints([20]), [20])


def test_convergence_is_that_of_the_mean_of_random():
    rows = {k: [0.2, 0.895, 0.8, 0.9] for k in range(2)}
    curves = curves_of({"a": rows, "random": rows})
    np.testing.assert_array_equal(penalty_matrix(curves).checkpoints, [100, 200])
    without = penalty_matrix(curves, baseline="other")
    np.testing.assert_array_equal(without.checkpoints, COUNTS)


def test_checkpoints_that_a_run_lacks_are_refused():
    scores = worked_scores()
    with pytest.raises(ValueError, match=r"checkpoints must be .* got \[150\]"):
        penalty_matrix(curves_of(scores), checkpoints=[100, 150])
    scores["i"][0] = {1: 0.5}
    with pytest.raises(ValueError, match="share no number of labels"):
        penalty_matrix(curves_of(scores))


def test_holm_by_hand():
    # 4 * 0.005, 3 * 0.011, 2 * 0.02 and then no less, 1 * 0.03.
    adjusted = holm_adjust([0.02, 0.005, 0.03, 0.011])
    np.testing.assert_allclose(adjusted, [0.04, 0.02, 0.04, 0.033])
    np.testing.assert_array_equal(holm_adjust([0.9, 0.8]), [1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_equals_brute_force_and_scipy(seed):
    rng = np.random.default_rng(seed)
    tied = rng.integers(-3, 4, size=7).astype(float)
    kept = tied[tied != 0]
    ranks = stats.rankdata(abs(kept))
    sums = np.array([ranks @ np.array(s) for s in product([0, 1], repeat=len(kept))])
    observed = ranks[kept > 0].sum()
    tails = np.mean(sums <= observed), np.mean(sums >= observed)
    assert signed_rank(tied) == pytest.approx(min(1, 2 * min(tails)))
    smooth = rng.normal(0.3, 1, size=9)
    expected = stats.wilcoxon(smooth, method="exact").pvalue
    assert signed_rank(smooth) == pytest.approx(expected)


def test_signed_rank_of_nothing():
    assert signed_rank([0.0, 0.0]) == signed_rank([]) == 1


def test_ranks_by_hand():
    values = {
        "a": {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.9},
        "b": {1: 0.8, 0: 0.7, 3: 0.8, 2: 0.6},
        "c": {0: 0.5, 1: 0.4, 2: 0.65, 3: 0.7, 9: 1.0},
    }
    ranking = rank_strategies(values)
    assert ranking.n_blocks == 4
    # Block 1 has a tie at the top.
    np.testing.assert_allclose(ranking.mean_ranks, [4.5 / 4, 8.5 / 4, 11 / 4])
    columns = [[values[n][k] for k in range(4)] for n in values]
    expected = stats.friedmanchisquare(*columns)
    assert ranking.statistic == pytest.approx(expected.statistic)
    assert ranking.p_value == pytest.approx(expected.pvalue)
    # a beats b in 3 of 3 untied blocks, p = 2 / 8; b against c loses the smallest.
    raw = [0.25, 0.125, 0.25]
    adjusted = holm_adjust(raw)
    np.testing.assert_allclose(
        ranking.p_pairs.to_numpy()[[0, 0, 1], [1, 2, 2]], adjusted
    )
    np.testing.assert_array_equal(ranking.p_pairs, ranking.p_pairs.T)


def test_ties_of_decimals_are_ties():
    """0.3 - 0.1 and 0.7 - 0.5 differ in binary."""
    values = {"a": {0: 0.3, 1: 0.5, 2: 0.9}, "b": {0: 0.1, 1: 0.7, 2: 0.8}}
    # Ranks 2.5, -2.5, 1: sums of 3.5 or more in 5 of 8, of 3.5 or less in 5 of 8.
    assert rank_strategies(values).p_pairs.loc["a", "b"] == 1
    values["a"][3], values["b"][3] = 0.9, 0.0
    # Ranks 2.5, -2.5, 1, 4: sums of 7.5 or more in 4 of 16.
    assert rank_strategies(values).p_pairs.loc["a", "b"] == pytest.approx(0.5)


def test_ranks_of_equal_or_few_strategies():
    equal = rank_strategies({name: {0: 0.5, 1: 0.1 + 0.2} for name in "abc"})
    assert (equal.statistic, equal.p_value) == (0, 1)
    np.testing.assert_array_equal(equal.mean_ranks, [2, 2, 2])
    pair = rank_strategies({"a": {0: 0.3}, "b": {0: 0.1 + 0.2}})
    np.testing.assert_array_equal(pair.mean_ranks, [1.5, 1.5])
    assert np.isnan(pair.p_value)
    with pytest.raises(ValueError, match="a block that all strategies have"):
        rank_strategies({"a": {0: 0.3}, "b": {1: 0.3}})
