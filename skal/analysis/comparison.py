"""Which of several strategies is better: tests paired by seed."""

from collections import namedtuple
from itertools import combinations

import numpy as np
from scipy import stats

from skal.analysis.statistics import mean_curve, scores_at, shared_counts

PenaltyMatrix = namedtuple("PenaltyMatrix", "names wins checkpoints n_seeds")
Ranking = namedtuple("Ranking", "names mean_ranks n_blocks statistic p_value p_pairs")


def doubling_checkpoints(n_labeled, baseline=None, saturation=0.99):
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
    curves, *, checkpoints=None, baseline="random", alpha=0.05, holm=False
):
    """Count how often each strategy is significantly better than each other one.

    At each checkpoint the differences of two strategies, paired by seed, are put to a
    two-sided t test; with p < `alpha` the better one wins 1 / n_checkpoints [1]_.

    Parameters
    ----------
    curves : dict of str to dict of int to Curve
        As :func:`skal.analysis.learning_curves` gives them. Seed k must be the
        same split, initial set and initial model for all strategies.
    checkpoints : array-like of int, default=None
        Numbers of labels at which to compare; None takes :func:`doubling_checkpoints`.
    baseline : str, default="random"
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
        names : list of str; wins : ndarray of shape (n_strategies, n_strategies), where
        wins[i, j] is the share of checkpoints at which i beats j and NaN says that
        the two share fewer than two seeds; checkpoints; n_seeds : ndarray of int of
        shape (n_strategies, n_strategies), the seeds behind each comparison. The mean
        of column j, :func:`penalties`, says how often j is beaten: lower is better.

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
    >>> from skal.analysis import penalty_matrix
    >>> from skal.analysis import learning_curves
    >>> rounds = [(name, seed, n) for name in ("badge", "random")
    ...           for seed in range(5) for n in (20, 40)]
    >>> records = [
    ...     {"strategy": name, "seed": seed, "n_labeled": n,
    ...      "accuracy": 0.5 + seed / 100 + (name == "badge") * (n == 40) / 10}
    ...     for name, seed, n in rounds
    ... ]
    >>> penalty_matrix(learning_curves(records), baseline=None).wins
    array([[0. , 0.5],
           [0. , 0. ]])
    """
    names = list(curves)
    counts = shared_counts(c for runs in curves.values() for c in runs.values())
    if not len(counts):
        raise ValueError("the runs share no number of labels.")
    if checkpoints is None:
        random = None
        if baseline in curves:
            random = scores_at(mean_curve(curves[baseline].values()), counts)
        checkpoints = doubling_checkpoints(counts, random)
    elif len(absent := np.setdiff1d(checkpoints, counts)):
        raise ValueError(
            f"checkpoints must be numbers of labels that all runs have, "
            f"{counts.tolist()}, got {absent.tolist()}."
        )
    wins = np.zeros((len(names), len(names)))
    n_seeds = np.diag([len(curves[name]) for name in names])
    tested, p_values = [], []
    for i, j in combinations(range(len(names)), 2):
        mine, other = curves[names[i]], curves[names[j]]
        seeds = sorted(mine.keys() & other)
        n_seeds[i, j] = n_seeds[j, i] = len(seeds)
        if len(seeds) < 2:
            wins[i, j] = wins[j, i] = np.nan
            continue
        differences = np.array(
            [
                scores_at(mine[seed], checkpoints) - scores_at(other[seed], checkpoints)
                for seed in seeds
            ]
        )
        for column in differences.T:
            tested.append((i, j) if column.mean() > 0 else (j, i))
            p_values.append(_t_test(column))
    adjusted = holm_adjust(p_values) if holm else np.array(p_values)
    for pair, p_value in zip(tested, adjusted, strict=True):
        wins[pair] += p_value < alpha
    return PenaltyMatrix(names, wins / len(checkpoints), checkpoints, n_seeds)


def penalties(wins):
    """Compute how often each strategy is beaten, lower is better.

    Parameters
    ----------
    wins : ndarray of shape (n_strategies, n_strategies)
        As :func:`penalty_matrix` gives it, or a sum over data sets.

    Returns
    -------
    penalties : ndarray of shape (n_strategies,)
        Column means over all n rows, the diagonal's 0 included; what was not tested,
        NaN, is left out. NaN where nothing but the diagonal is left.
    """
    wins = np.asarray(wins, dtype=float)
    tested = np.isfinite(wins).sum(axis=0)
    known = tested > min(1, len(wins) - 1)
    return np.where(known, np.nansum(wins, axis=0) / np.maximum(tested, 1), np.nan)


def _t_test(differences):
    """Two-sided p of a mean of 0; exact where the differences do not vary."""
    mean, spread = differences.mean(), differences.std(ddof=1)
    # Equal decimals differ by their rounding in binary.
    if spread <= 1e-12:
        return float(abs(mean) <= 1e-12)
    n = len(differences)
    return 2 * stats.t.sf(abs(mean) * np.sqrt(n) / spread, n - 1)


def holm_adjust(p_values):
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


def rank_strategies(values):
    """Rank strategies within blocks and test the differences.

    Rank 1 is the highest value, ties share their mean rank. Friedman's test asks
    whether there are differences at all; Wilcoxon's signed-rank test of each pair,
    exact also with ties, is corrected as Holm does [1]_.

    Parameters
    ----------
    values : dict of str to dict of hashable to float
        By strategy and block, such as a data set and seed: the area under the curve.

    Returns
    -------
    ranking : Ranking
        names : list of str; mean_ranks : ndarray of shape (n_strategies,); n_blocks :
        int, the blocks that all strategies have and only they count; statistic,
        p_value : float, Friedman's, NaN with fewer than three strategies or two
        blocks; p_pairs : ndarray of shape (n_strategies, n_strategies).

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
    >>> ranking.mean_ranks
    array([1., 2.])
    """
    names = list(values)
    blocks = [
        block
        for block in next(iter(values.values()))
        if all(block in each for each in values.values())
    ]
    if not blocks:
        raise ValueError("values must have a block that all strategies have.")
    # Rounded: sums in another order must not break a tie.
    table = np.array([[values[n][b] for n in names] for b in blocks]).round(12)
    ranks = stats.rankdata(-table, axis=1)
    statistic = p_value = np.nan
    if len(names) > 2 and len(blocks) > 1:
        statistic, p_value = 0.0, 1.0
        if (np.ptp(table, axis=1) > 0).any():
            statistic, p_value = map(float, stats.friedmanchisquare(*table.T))
    p_pairs = np.ones((len(names), len(names)))
    pairs = list(combinations(range(len(names)), 2))
    gaps = [(table[:, i] - table[:, j]).round(12) for i, j in pairs]
    adjusted = holm_adjust([signed_rank(each) for each in gaps])
    for (i, j), p in zip(pairs, adjusted, strict=True):
        p_pairs[i, j] = p_pairs[j, i] = p
    return Ranking(names, ranks.mean(axis=0), len(blocks), statistic, p_value, p_pairs)


def signed_rank(differences):
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
        chances[rank:] = (chances[rank:] + chances[: len(chances) - rank]) / 2
        chances[:rank] /= 2
    observed = ranks[differences > 0].sum()
    low, high = chances[: observed + 1].sum(), chances[observed:].sum()
    return float(min(1.0, 2 * min(low, high)))
