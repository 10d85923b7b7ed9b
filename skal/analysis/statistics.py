"""Statistics of learning curves and purchases, over tidy records.

A record is one round of one run: a dict with "strategy", "seed", "n_labeled" and
scores, as in rounds.jsonl.
"""

from collections import namedtuple

import numpy as np
from scipy import stats

Curve = namedtuple("Curve", "n_labeled scores")


def learning_curves(records, score_name="accuracy"):
    """Gather the curve of every run.

    Parameters
    ----------
    records : iterable of dict
        In any order; of one data set, network and batch size.
    score_name : str, default="accuracy"
        Key of the score.

    Returns
    -------
    curves : dict of str to dict of int to Curve
        By strategy and seed, with `n_labeled` and `scores` of shape (n_points,). Seeds
        ascend, and so do the numbers of labels; strategies are in order of appearance.

    Raises
    ------
    ValueError
        Where a run has two rounds with as many labels.

    Examples
    --------
    >>> from skal.analysis import learning_curves
    >>> row = {"strategy": "badge", "seed": 0}
    >>> rows = [{**row, "n_labeled": n, "accuracy": n / 100} for n in (40, 20)]
    >>> learning_curves(rows)["badge"][0]
    Curve(n_labeled=array([20, 40]), scores=array([0.2, 0.4]))
    """
    runs = {}
    for record in records:
        points = runs.setdefault(record["strategy"], {}).setdefault(record["seed"], {})
        if record["n_labeled"] in points:
            raise ValueError(
                f"records has two rounds of {record['strategy']!r}, seed "
                f"{record['seed']}, with {record['n_labeled']} labels; give the "
                "records of one data set, network and batch size."
            )
        points[record["n_labeled"]] = float(record[score_name])
    return {
        name: {seed: _curve(by_seed[seed]) for seed in sorted(by_seed)}
        for name, by_seed in runs.items()
    }


def _curve(points):
    n_labeled = sorted(points)
    return Curve(np.array(n_labeled), np.array([points[n] for n in n_labeled]))


def mean_curve(curves):
    """Compute the mean of the curves of several runs.

    Parameters
    ----------
    curves : iterable of Curve

    Returns
    -------
    mean : Curve
        At the numbers of labels that all of them have.
    """
    curves = list(curves)
    common = shared_counts(curves)
    scores = [scores_at(curve, common) for curve in curves]
    return Curve(common, np.mean(scores, axis=0))


def shared_counts(curves):
    """Find the numbers of labels that all curves have.

    Parameters
    ----------
    curves : iterable of Curve

    Returns
    -------
    n_labeled : ndarray of shape (n_points,)
        Ascending.
    """
    counts = [set(curve.n_labeled.tolist()) for curve in curves]
    return np.array(sorted(set.intersection(*counts)), dtype=int)


def scores_at(curve, n_labeled):
    """Look up the scores at numbers of labels that the curve has.

    Parameters
    ----------
    curve : Curve
    n_labeled : array-like of int of shape (n_points,)

    Returns
    -------
    scores : ndarray of shape (n_points,)
    """
    return curve.scores[np.searchsorted(curve.n_labeled, n_labeled)]


def mean_interval(values, confidence=0.95):
    """Compute the mean of independent values and its t interval.

    Parameters
    ----------
    values : array-like of shape (n_values, ...)
    confidence : float, default=0.95

    Returns
    -------
    mean, half : ndarray of shape (...)
        The interval is mean - half to mean + half; with one value `half` is NaN, as
        nothing is known of the spread.

    Examples
    --------
    >>> from skal.analysis import mean_interval
    >>> mean, half = mean_interval([0.7, 0.8, 0.9])
    >>> round(float(mean), 3), round(float(half), 3)
    (0.8, 0.248)
    """
    values = np.asarray(values, dtype=float)
    n, mean = len(values), values.mean(axis=0)
    if n < 2:
        return mean, np.full_like(mean, np.nan)
    quantile = stats.t.ppf((1 + confidence) / 2, n - 1)
    return mean, quantile * values.std(axis=0, ddof=1) / np.sqrt(n)


def area_under_curve(n_labeled, scores):
    """Compute the area under a learning curve by trapezoids, over its width.

    In the units of the score, so that a constant curve gives its constant; a short
    last batch counts by its labels.

    Parameters
    ----------
    n_labeled, scores : array-like of shape (n_points,)
        Numbers of labels, strictly ascending, and their scores.

    Returns
    -------
    area : float
        The score itself where there is one point.

    Examples
    --------
    >>> from skal.analysis import area_under_curve
    >>> area_under_curve([10, 20, 25], [0.5, 0.7, 0.9])  # (10 * 0.6 + 5 * 0.8) / 15
    0.666...
    """
    n_labeled, scores = np.asarray(n_labeled), np.asarray(scores, dtype=float)
    widths = np.diff(n_labeled)
    if np.any(widths <= 0):
        raise ValueError(f"n_labeled must ascend, got {n_labeled.tolist()}.")
    if len(scores) == 1:
        return float(scores[0])
    return float(widths @ (scores[1:] + scores[:-1]) / 2 / widths.sum())


def labels_to_target(n_labeled, scores, target):
    """Find the first number of labels with a score of at least the target.

    Parameters
    ----------
    n_labeled, scores : array-like of shape (n_points,)
        Numbers of labels, ascending, and their scores.
    target : float

    Returns
    -------
    labels : float
        Labels the model was trained on; infinity stands for never.

    Examples
    --------
    >>> from skal.analysis import labels_to_target
    >>> labels_to_target([20, 40, 60], [0.5, 0.9, 0.8], 0.8)
    40.0
    >>> labels_to_target([20, 40, 60], [0.5, 0.9, 0.8], 0.95)
    inf
    """
    reached = np.flatnonzero(np.asarray(scores) >= target)
    return float(n_labeled[reached[0]]) if len(reached) else np.inf


def label_quartiles(labels):
    """Compute the quartiles of labels to target over runs, never included.

    The p-quantile is the smallest value that at least a share p of the runs does not
    exceed: always the number of a run, so never is one too, and nothing lies between
    a number and never.

    Parameters
    ----------
    labels : array-like of shape (n_runs,)
        Infinity stands for never.

    Returns
    -------
    quartiles : ndarray of shape (3,)

    Examples
    --------
    >>> import numpy as np
    >>> from skal.analysis import label_quartiles
    >>> label_quartiles([80, 80, 100, 110, 120, 120])
    array([ 80., 100., 120.])
    >>> label_quartiles([190, 180, np.inf, np.inf])
    array([180., 190.,  inf])
    """
    ordered = np.sort(np.asarray(labels, dtype=float))
    # In integers: 0.75 * n can round up.
    return ordered[[-(-k * len(ordered) // 4) - 1 for k in (1, 2, 3)]]


def labels_saved(curve, baseline, scores):
    """Compute the share of labels that a strategy saves over another one.

    Equals 1 - n / n_baseline, with the numbers of labels at which the curves first
    reach a score, interpolated between rounds.

    Parameters
    ----------
    curve, baseline : Curve
        Mean curves of the strategy and, usually, of random sampling.
    scores : array-like of shape (n_scores,)
        Where to compare.

    Returns
    -------
    saved : ndarray of shape (n_scores,)
        Negative where the strategy needs more labels, minus infinity where it never
        gets there; NaN where the baseline does not, which says nothing.

    Examples
    --------
    >>> from skal.analysis import Curve, labels_saved
    >>> random = Curve([20, 40, 60], [0.5, 0.6, 0.8])
    >>> badge = Curve([20, 40, 60], [0.5, 0.8, 0.9])
    >>> labels_saved(badge, random, [0.7, 0.8, 0.9]).round(3)
    array([0.333, 0.333,   nan])
    """
    needed = _labels_at(curve, scores)
    available = _labels_at(baseline, scores)
    known = np.isfinite(available)
    saved = np.full(len(available), np.nan)
    saved[known] = 1 - needed[known] / available[known]
    return saved


def _labels_at(curve, scores):
    """Interpolate the first number of labels with these scores; infinity: never."""
    n_labeled, values = np.asarray(curve.n_labeled), np.asarray(curve.scores)
    # The best so far ascends; its first occurrences are where it is first reached.
    best, first = np.unique(np.maximum.accumulate(values), return_index=True)
    labels = np.empty(len(scores))
    for k, score in enumerate(scores):
        rank = np.searchsorted(best, score)
        if rank == len(best):
            labels[k] = np.inf
        elif rank == 0:
            labels[k] = n_labeled[0]
        else:
            end = first[rank]
            low, high = values[end - 1], values[end]
            share = (score - low) / (high - low)
            labels[k] = n_labeled[end - 1] + share * np.diff(n_labeled)[end - 1]
    return labels


def class_balance(class_counts):
    """Compute how evenly purchases are spread over the classes.

    The entropy of the shares over its maximum, the logarithm of the number of classes:
    1 is even, 0 is one class only.

    Parameters
    ----------
    class_counts : array-like of int of shape (..., n_classes)
        Labels of each class.

    Returns
    -------
    balance : ndarray of shape (...)

    Examples
    --------
    >>> from skal.analysis import class_balance
    >>> class_balance([[3, 3, 3, 3], [5, 5, 0, 0], [0, 0, 0, 9]])
    array([1. , 0.5, 0. ])
    """
    counts = np.asarray(class_counts, dtype=float)
    entropy = stats.entropy(counts, axis=-1)
    return np.clip(entropy / np.log(counts.shape[-1]), 0, 1)


def overlap(picks):
    """Compute the overlap between the purchases of strategies.

    The Jaccard index, rows that both bought over rows that either did, averaged over
    the seeds that both have.

    Parameters
    ----------
    picks : dict of str to dict of int to ndarray
        By strategy and seed, the rows bought, of shape (n_picks,). Leave the initial
        set out: it is shared.

    Returns
    -------
    matrix : ndarray of shape (n_strategies, n_strategies)
        In the order of `picks`; NaN where two share no seed.

    Examples
    --------
    >>> from skal.analysis import overlap
    >>> overlap({"badge": {0: [1, 2, 3]}, "margin": {0: [2, 3, 4]}})
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    matrix = np.full((len(picks), len(picks)), np.nan)
    for i, mine in enumerate(picks.values()):
        for j, other in enumerate(picks.values()):
            shared = [_jaccard(mine[seed], other[seed]) for seed in mine.keys() & other]
            if shared:
                matrix[i, j] = np.mean(shared)
    return matrix


def _jaccard(first, second):
    union = np.union1d(first, second)
    if not len(union):
        return 1.0
    return len(np.intersect1d(first, second)) / len(union)
