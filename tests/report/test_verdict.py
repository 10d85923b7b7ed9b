import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skal.report.verdict import standings, verdict

SEEDS = np.array([0.70, 0.72, 0.75, 0.71, 0.74])
NOISE = np.array([0.01, -0.01, 0.02, 0.0, -0.02])


def areas(**gains):
    """Areas by seed: random's, and those with a gain over it."""
    mine = {k: SEEDS + np.broadcast_to(gain, 5) for k, gain in gains.items()}
    return pd.DataFrame({"random": SEEDS, **mine})


def say(table, n_seeds=5, **saved):
    return verdict(standings(table[:n_seeds]), pd.Series(saved, dtype=float), 0.95)


def test_standings_are_corrected_t_tests():
    table = areas(a=0.02 + NOISE, b=-0.05 + NOISE, c=NOISE)
    found = standings(table)
    p = {k: stats.ttest_rel(table[k], table["random"]).pvalue for k in "abc"}
    assert list(found.index) == ["a", "c", "b"]
    assert found["p"]["b"] == pytest.approx(3 * p["b"])
    assert found["p"]["a"] == pytest.approx(2 * p["a"])
    assert p["a"] < 0.05 < found["p"]["a"]  # alone it would have been ahead
    assert found["side"].to_dict() == {"a": 0, "b": -1, "c": 0}
    half = stats.t.ppf(0.975, 4) * stats.sem(NOISE)
    assert found["half"]["c"] == pytest.approx(half)


def test_who_is_ahead_and_who_behind():
    table = areas(
        badge=0.04 + NOISE / 9, margin=0.05 + NOISE / 9, drop=-0.02, bald=NOISE
    )
    assert say(table, margin=0.284, badge=0.2) == (
        "margin needs 28 % fewer labels than random to reach 0.950; badge is ahead of "
        "random, too; drop is behind random; bald cannot be told from random (5 seeds)."
    )


def test_ahead_but_not_at_the_end():
    for share in (-np.inf, -0.1, np.nan, 0.001):
        text = say(areas(margin=0.05 + NOISE / 9), margin=share)
        assert text.startswith("margin is ahead of random by 0.050 ± 0.00")
    assert "few" not in text


def test_chance_is_said():
    text = say(areas(margin=0.006 + NOISE, bald=-0.05), margin=0.3)
    assert text == (
        "No strategy is ahead of random beyond chance; the best, margin, is at +0.006 "
        "in mean accuracy over the curve, p = 0.44; bald is behind random; margin "
        "cannot be told from random (5 seeds)."
    )


def test_few_seeds_are_said():
    table = areas(margin=0.05 + NOISE / 9)
    assert say(table, 3, margin=0.3).endswith("to reach 0.950 (3 seeds, few).")
    assert say(table, 1, margin=0.3) == (
        "One seed says nothing about chance: margin was +0.051 from random in mean "
        "accuracy over the curve."
    )
    table["bald"] = [np.nan, 0.7, np.nan, 0.9, np.nan]
    assert say(table, margin=0.3).endswith("(2 to 5 seeds, few).")


def test_nothing_to_compare():
    assert say(areas()).startswith("There is nothing to compare")
    table = areas(margin=np.nan)
    assert say(table).startswith("There is nothing to compare: no seed has both")


def test_many_names_are_counted():
    gains = {f"s{k:02}": 0.1 - k / 1000 + NOISE / 99 for k in range(12)}
    text = say(areas(**gains), s00=0.5)
    assert "s01, s02, s03, s04 and 7 more are ahead of random, too" in text
