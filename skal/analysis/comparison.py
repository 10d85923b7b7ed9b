"""Which of several strategies is better: tests paired by seed."""

from collections import namedtuple
from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from skal.analysis.statistics import mean_curve

if TYPE_CHECKING:
    import pandas as pd

PenaltyMatrix = namedtuple("PenaltyMatrix", "wins checkpoints n_seeds")
Ranking = namedtuple("Ranking", "mean_ranks n_blocks statistic p_value p_pairs")


def doubling_checkpoints(
    n_labeled: ArrayLike, baseline: ArrayLike | None = None, saturation: float = 0.99
) -> NDArray:
    """Choose the rounds at which strategies are compared.

    Those with n_0 and n_0 + 2^(k-1) B labels, k = 1, 2, ..., up to the first round in
    which the baseline has a share `saturation` of its final score: converged rounds
    would dilute the differences.

    Parameters
    ----------
    n_labeled : array-like of int of shape (n_points,)
        Numbers of labels, ascending: n_0, n_0 + B, ...
    baseline : array-like of shape (n_points,), default=None
        Mean scores of random sampling; None never stops.
    saturation : float, default=0.99

    Returns
    -------
    checkpoints : ndarray of shape (n_checkpoints,)
        Numbers of labels.

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford and Agarwal (2020). Deep batch active
       learning by diverse, uncertain gradient lower bounds. ICLR. Appendix E.

    Examples
    --------
    >>> from skal.analysis import doubling_checkpoints
    >>> doubling_checkpoints([20, 30, 40, 50, 60, 70])
    array([20, 30, 40, 60])
    >>> doubling_checkpoints([20, 30, 40, 50, 60], [0.5, 0.7, 0.8, 0.895, 0.9])
    array([20, 30, 40])
    """
    n_labeled = np.asarray(n_labeled)
    last = n_labeled[-1]
    if baseline is not None:
        baseline = np.asarray(baseline)
        last = n_labeled[np.argmax(baseline >= saturation * baseline[-1])]
    bought = (n_labeled - n_labeled[0]) / np.diff(n_labeled, append=np.inf)[0]
    doubled = np.isin(bought, [0, *2.0 ** np.arange(64)])
    return n_labeled[doubled & (n_labeled <= last)]


def penalty_matrix(
    curves: "pd.DataFrame",
    *,
    checkpoints: ArrayLike | None = None,
    baseline: str | None = "random",
    alpha: float = 0.05,
    holm: bool = False,
) -> PenaltyMatrix:
    """Count how often each strategy is significantly better than each other one.

    At each checkpoint the differences of two strategies, paired by seed, are put to a
    two-sided t test; with p < `alpha` the better one wins 1 / n_checkpoints [1]_.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`skal.analysis.learning_curves` gives them. Seed k must be the
        same split, initial set and initial model for all strategies.
    checkpoints : array-like of int, default=None
        Numbers of labels at which to compare; None takes :func:`doubling_checkpoints`.
    baseline : str or None, default="random"
        The strategy whose convergence ends the checkpoints; where it is absent they go
        to the end.
    alpha : float, default=0.05
        Level of each test.
    holm : bool, default=False
        Whether to correct p for the number of tests, all pairs at all checkpoints, as
        Holm does; the published rule does not.

    Returns
    -------
    result : PenaltyMatrix
        wins : pandas.DataFrame of shape (n_strategies, n_strategies), where row i,
        column j is the share of checkpoints at which i beats j and NaN says that the
        two share fewer than two seeds; checkpoints : ndarray of int; n_seeds :
        pandas.DataFrame like wins, the seeds behind each comparison. The mean of
        column j, :func:`penalties`, says how often j is beaten: lower is better.

    Raises
    ------
    ValueError
        Where the curves share no number of labels, or lack a checkpoint.

    Notes
    -----
    All paired seeds are used; the published script takes five.

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford and Agarwal (2020). Deep batch active
       learning by diverse, uncertain gradient lower bounds. ICLR. Section 5.

    Examples
    --------
    >>> from skal.analysis import learning_curves, penalty_matrix
    >>> rounds = [(name, seed, n) for name in ("badge", "random")
    ...           for seed in range(5) for n in (20, 40)]
    >>> records = [
    ...     {"strategy": name, "seed": seed, "n_labeled": n,
    ...      "accuracy": 0.5 + seed / 100 + (name == "badge") * (n == 40) / 10}
    ...     for name, seed, n in rounds
    ... ]
    >>> penalty_matrix(learning_curves(records), baseline=None).wins
            badge  random
    better
    badge     0.0     0.5
    random    0.0     0.0
    """
    import pandas

    names = curves.columns.unique("strategy")
    counts = curves.dropna().index
    if not len(counts):
        raise ValueError("the runs share no number of labels.")
    if checkpoints is None:
        random = None
        if baseline in names:
            random = mean_curve(curves[baseline]).loc[counts]
        checkpoints = doubling_checkpoints(counts, random)
    elif len(absent := np.setdiff1d(checkpoints, counts)):
        raise ValueError(
            f"checkpoints must be numbers of labels that all runs have, "
            f"{counts.tolist()}, got {absent.tolist()}."
        )
    wins = pandas.DataFrame(0.0, index=names.rename("better"), columns=list(names))
    n_seeds = wins.astype(int)
    for name in names:
        n_seeds.loc[name, name] = curves[name].shape[1]
    tested, p_values = [], []
    for pair in combinations(names, 2):
        first, second = pair
        # Of seeds that one of them lacks, NaN.
        gaps = (curves[first] - curves[second]).loc[checkpoints].dropna(axis=1)
        n_seeds.loc[pair] = n_seeds.loc[pair[::-1]] = gaps.shape[1]
        if gaps.shape[1] < 2:
            wins.loc[pair] = wins.loc[pair[::-1]] = np.nan
            continue
        tested += [pair if gap > 0 else pair[::-1] for gap in gaps.mean(axis=1)]
        p_values += paired_t_test(gaps).tolist()
    for pair, p in zip(
        tested, holm_adjust(p_values) if holm else p_values, strict=True
    ):
        wins.loc[pair] += p < alpha
    return PenaltyMatrix(wins / len(checkpoints), np.asarray(checkpoints), n_seeds)


def penalties(wins: "pd.DataFrame | ArrayLike") -> "pd.Series":
    """Compute how often each strategy is beaten, lower is better.

    Parameters
    ----------
    wins : pandas.DataFrame or array-like of shape (n_strategies, n_strategies)
        As :func:`penalty_matrix` gives it, or a sum over data sets.

    Returns
    -------
    penalties : pandas.Series of shape (n_strategies,)
        Column means over all n rows, the diagonal's 0 included; what was not tested,
        NaN, is left out. NaN where nothing but the diagonal is left.

    Examples
    --------
    >>> from skal.analysis import penalties
    >>> penalties([[0, 0.5], [0, 0]]).tolist()
    [0.0, 0.25]
    """
    import pandas

    wins = pandas.DataFrame(wins)
    return wins.mean().where(wins.count() > min(1, len(wins) - 1))


def paired_t_test(differences: ArrayLike) -> NDArray:
    """Compute the two-sided p of Student's t test of a mean of 0.

    As `scipy.stats.ttest_1samp` does, which warns where nothing varies.

    Parameters
    ----------
    differences : array-like of shape (..., n_pairs)
        At least two pairs.

    Returns
    -------
    p_values : ndarray of shape (...)

    Examples
    --------
    >>> from skal.analysis import paired_t_test
    >>> paired_t_test([[0.1, 0.2, 0.3], [-0.1, 0, 0.1]]).round(3)
    array([0.074, 1.   ])
    """
    # Rounded: equal decimals differ by their rounding in binary.
    gaps = np.asarray(differences, dtype=float).round(12)
    errors = np.maximum(stats.sem(gaps, axis=-1), 1e-300)
    t = np.abs(gaps.mean(axis=-1)) / errors
    return 2 * stats.t.sf(t, gaps.shape[-1] - 1)


def holm_adjust(p_values: ArrayLike) -> NDArray:
    """Adjust p values for their number, step by step [1]_.

    Parameters
    ----------
    p_values : array-like of shape (n_tests,)

    Returns
    -------
    adjusted : ndarray of shape (n_tests,)

    References
    ----------
    .. [1] Holm (1979). A simple sequentially rejective multiple test procedure.
       Scandinavian Journal of Statistics 6.

    Examples
    --------
    >>> from skal.analysis import holm_adjust
    >>> holm_adjust([0.04, 0.01, 0.03])
    array([0.06, 0.03, 0.06])
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def rank_strategies(
    values: "pd.DataFrame | Mapping[str, Mapping[Any, float]]",
) -> Ranking:
    """Rank strategies within blocks and test the differences.

    Rank 1 is the highest value, ties share their mean rank. Friedman's test asks
    whether there are differences at all; Wilcoxon's signed-rank test of each pair,
    exact also with ties, is corrected as Holm does [1]_.

    Parameters
    ----------
    values : pandas.DataFrame of shape (n_blocks, n_strategies)
        Such as the areas under the curve by data set and seed; or dicts, by strategy
        and block.

    Returns
    -------
    ranking : Ranking
        mean_ranks : pandas.Series; n_blocks : int, the blocks that all strategies have
        and only they count; statistic, p_value : float, Friedman's, NaN with fewer
        than three strategies or two blocks; p_pairs : pandas.DataFrame of shape
        (n_strategies, n_strategies).

    Raises
    ------
    ValueError
        Where no block has all strategies.

    References
    ----------
    .. [1] Benavoli, Corani and Mangili (2016). Should we really use post-hoc tests
       based on mean-ranks? JMLR 17.

    Examples
    --------
    >>> from skal.analysis import rank_strategies
    >>> ranking = rank_strategies({"badge": {0: 0.8, 1: 0.7}, "random": {0: 0.6, 1: 0}})
    >>> ranking.mean_ranks.to_dict()
    {'badge': 1.0, 'random': 2.0}
    """
    import pandas

    # Rounded: sums in another order must not break a tie.
    table = pandas.DataFrame(values).dropna().round(12)
    if table.empty:
        raise ValueError("values must have a block that all strategies have.")
    names = list(table)
    statistic = p_value = np.nan
    if len(names) > 2 and len(table) > 1:
        statistic, p_value = 0.0, 1.0
        if (table.nunique(axis=1) > 1).any():
            columns = table.to_numpy().T
            statistic, p_value = map(float, stats.friedmanchisquare(*columns))
    p_pairs = pandas.DataFrame(1.0, index=names, columns=names)
    pairs = list(combinations(names, 2))
    p_values = [signed_rank((table[i] - table[j]).round(12)) for i, j in pairs]
    for pair, p in zip(pairs, holm_adjust(p_values), strict=True):
        p_pairs.loc[pair] = p_pairs.loc[pair[::-1]] = p
    ranks = table.rank(axis=1, ascending=False)
    return Ranking(ranks.mean(), len(table), statistic, p_value, p_pairs)


def signed_rank(differences: ArrayLike) -> float:
    """Compute the two-sided p of Wilcoxon's signed-rank test, exactly.

    Parameters
    ----------
    differences : array-like of shape (n_pairs,)
        Zeros are left out.

    Returns
    -------
    p_value : float
        At least 2^(1 - n): with five pairs 0.0625.

    Examples
    --------
    >>> from skal.analysis import signed_rank
    >>> signed_rank([0.1, 0.2, 0.3, 0.4, 0.5])
    0.0625
    """
    differences = np.asarray(differences, dtype=float)
    differences = differences[differences != 0]
    # Twice the ranks are whole numbers, ties included.
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)
    chances = np.zeros(ranks.sum() + 1)
    chances[0] = 1.0
    for rank in ranks:
        # Nothing comes round: no sum so far is above that of the ranks so far.
        chances = (chances + np.roll(chances, rank)) / 2
    observed = ranks[differences > 0].sum()
    low, high = chances[: observed + 1].sum(), chances[observed:].sum()
    return float(min(1.0, 2 * min(low, high)))
