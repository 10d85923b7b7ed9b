"""Statistics of learning curves and purchases, over tidy records.

Records are a table with a line for each round of each run and the columns "strategy",
"seed", "n_labeled" and scores, as in rounds.jsonl and results.csv: a pandas DataFrame,
or dicts.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

if TYPE_CHECKING:
    import pandas as pd


def as_frame(
    records: "pd.DataFrame | Iterable[dict[str, Any]]", *columns: str
) -> "pd.DataFrame":
    """Make a table of records.

    Parameters
    ----------
    records : pandas.DataFrame or iterable of dict
    *columns : str
        Those that are needed.

    Returns
    -------
    frame : pandas.DataFrame

    Raises
    ------
    ValueError
        Where one of the columns is not there.

    Examples
    --------
    >>> from skal.analysis import as_frame
    >>> as_frame([{"strategy": "badge", "seed": 0}], "seed")
      strategy  seed
    0    badge     0
    """
    import pandas

    frame = pandas.DataFrame(records)
    if absent := [name for name in columns if name not in frame]:
        raise ValueError(
            f"records must have the column {absent[0]!r}, got "
            f"{', '.join(map(str, frame)) or 'none'}."
        )
    return frame


def learning_curves(
    records: "pd.DataFrame | Iterable[dict[str, Any]]", score_name: str = "accuracy"
) -> "pd.DataFrame":
    """Gather the curves of all runs.

    Parameters
    ----------
    records : pandas.DataFrame or iterable of dict
        In any order; of one data set, network and batch size.
    score_name : str, default="accuracy"
        Column of the score.

    Returns
    -------
    curves : pandas.DataFrame of shape (n_points, n_runs)
        A line for each number of labels, ascending, and a column for each strategy, in
        order of appearance, and seed, ascending. NaN where a run never had as many.

    Raises
    ------
    ValueError
        Where a run has two rounds with as many labels, or a column is not there.

    Examples
    --------
    >>> from skal.analysis import learning_curves
    >>> row = {"strategy": "badge", "seed": 0}
    >>> rows = [{**row, "n_labeled": n, "accuracy": n / 100} for n in (40, 20)]
    >>> learning_curves(rows)["badge"]
    seed         0
    n_labeled
    20         0.2
    40         0.4
    """
    run = ["strategy", "seed"]
    frame = as_frame(records, *run, "n_labeled", score_name)
    twice = frame[frame.duplicated([*run, "n_labeled"])]
    for name, seed, count in twice[[*run, "n_labeled"]].itertuples(index=False):
        raise ValueError(
            f"records has two rounds of {name!r}, seed {seed}, with {count} labels; "
            "give the records of one data set, network and batch size."
        )
    ordered = frame.sort_values("seed", kind="stable")
    curves = ordered.pivot(index="n_labeled", columns=run, values=score_name)
    names = frame["strategy"].drop_duplicates()
    return curves.reindex(columns=names, level="strategy").astype(float)


def mean_curve(curves: "pd.DataFrame") -> "pd.Series":
    """Compute the mean of the curves of several runs.

    Parameters
    ----------
    curves : pandas.DataFrame of shape (n_points, n_runs)
        Such as those of a strategy, ``learning_curves(records)["badge"]``.

    Returns
    -------
    mean : pandas.Series
        At the numbers of labels that all of them have.

    Examples
    --------
    >>> import pandas
    >>> from skal.analysis import mean_curve
    >>> mean_curve(pandas.DataFrame({0: [0.25, 0.5], 1: [0.75, None]}, index=[20, 40]))
    20    0.5
    dtype: float64
    """
    return curves.dropna().mean(axis=1)


def areas_by_seed(curves: "pd.DataFrame") -> "pd.DataFrame":
    """Compute the areas under all learning curves.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`learning_curves` gives them.

    Returns
    -------
    areas : pandas.DataFrame of shape (n_seeds, n_strategies)
        As :func:`area_under_curve` computes them, NaN where there is no run.

    Examples
    --------
    >>> from skal.analysis import areas_by_seed, learning_curves
    >>> records = [
    ...     {"strategy": "badge", "seed": 7, "n_labeled": 20, "accuracy": 0.5},
    ...     {"strategy": "badge", "seed": 7, "n_labeled": 40, "accuracy": 1.0},
    ... ]
    >>> areas_by_seed(learning_curves(records))
    strategy  badge
    seed
    7          0.75
    """
    areas = curves.apply(lambda run: area_under_curve(run.dropna().index, run.dropna()))
    return areas.unstack("strategy")[curves.columns.unique("strategy")]


def mean_interval(
    values: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray, NDArray]:
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
    return mean, stats.t.ppf((1 + confidence) / 2, n - 1) * stats.sem(values)


def area_under_curve(n_labeled: ArrayLike, scores: ArrayLike) -> float:
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


def labels_to_target(n_labeled: ArrayLike, scores: ArrayLike, target: float) -> float:
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
    return float(np.asarray(n_labeled)[reached[0]]) if len(reached) else np.inf


def label_quartiles(labels: ArrayLike) -> NDArray:
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
    labels = np.asarray(labels, dtype=float)
    return np.quantile(labels, [0.25, 0.5, 0.75], method="inverted_cdf")


def labels_saved(
    curve: "pd.Series", baseline: "pd.Series", scores: ArrayLike
) -> NDArray:
    """Compute the share of labels that a strategy saves over another one.

    Equals 1 - n / n_baseline, with the numbers of labels at which the curves first
    reach a score, interpolated between rounds.

    Parameters
    ----------
    curve, baseline : pandas.Series
        Mean curves of the strategy and, usually, of random sampling: scores by numbers
        of labels, ascending, as :func:`mean_curve` gives them.
    scores : array-like of shape (n_scores,)
        Where to compare.

    Returns
    -------
    saved : ndarray of shape (n_scores,)
        Negative where the strategy needs more labels, minus infinity where it never
        gets there; NaN where the baseline does not, which says nothing.

    Examples
    --------
    >>> import pandas
    >>> from skal.analysis import labels_saved
    >>> random = pandas.Series([0.5, 0.6, 0.8], index=[20, 40, 60])
    >>> badge = pandas.Series([0.5, 0.8, 0.9], index=[20, 40, 60])
    >>> labels_saved(badge, random, [0.7, 0.8, 0.9]).round(3)
    array([0.333, 0.333,   nan])
    """
    counts = [
        (_labels_at(curve, s), _labels_at(baseline, s)) for s in np.asarray(scores)
    ]
    return np.array([1 - n / b if b < np.inf else np.nan for n, b in counts])


def _labels_at(curve, score):
    """Interpolate the first number of labels with this score; infinity: never."""
    reached = np.flatnonzero(curve >= score)
    if not len(reached):
        return np.inf
    # From the round before, whose score is less, or the first round alone.
    ends = slice(max(reached[0] - 1, 0), reached[0] + 1)
    return np.interp(score, curve.iloc[ends], curve.index[ends])


def class_balance(class_counts: ArrayLike) -> NDArray:
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


def overlap(picks: Mapping[str, Mapping[int, NDArray]]) -> "pd.DataFrame":
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
    matrix : pandas.DataFrame of shape (n_strategies, n_strategies)
        NaN where two share no seed.

    Examples
    --------
    >>> from skal.analysis import overlap
    >>> overlap({"badge": {0: [1, 2, 3]}, "margin": {0: [2, 3, 4]}})
            badge  margin
    badge     1.0     0.5
    margin    0.5     1.0
    """
    import pandas

    matrix = pandas.DataFrame(np.nan, index=list(picks), columns=list(picks))
    for first, second in product(picks, repeat=2):
        mine, other = picks[first], picks[second]
        shared = [_jaccard(mine[seed], other[seed]) for seed in mine.keys() & other]
        if shared:
            matrix.loc[first, second] = np.mean(shared)
    return matrix


def _jaccard(first, second):
    union = np.union1d(first, second)
    if not len(union):
        return 1.0
    return len(np.intersect1d(first, second)) / len(union)
