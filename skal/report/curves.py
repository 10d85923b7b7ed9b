"""What changes with the number of labels, as numbers of a drawing."""

from collections import namedtuple

import numpy as np

from skal.analysis import learning_curves, mean_interval
from skal.plotting import limits, score_range, ticks
from skal.report.provenance import BASELINE

WIDTH, HEIGHT = 384, 230  # of what is inside the axes
_TEXTS = {
    "accuracy": ("Accuracy", "Mean over seeds."),
    "gain": ("Accuracy minus random's", "Mean difference, paired by seed."),
    "balanced_accuracy": ("Balanced accuracy", "Mean of the recalls of the classes."),
    "nll": ("Negative log-likelihood", "Of the test rows: lower is better."),
    "ece": ("Expected calibration error", "Lower is better."),
    "class balance": ("Class balance", "Entropy of the classes bought over its most."),
}

Panel = namedtuple("Panel", "title note x_ticks y_ticks curves full zero")
Curve = namedtuple("Curve", "name points band")


def draw_panels(rounds, order, full=None):
    """Draw what changes with the number of labels.

    Parameters
    ----------
    rounds : pandas.DataFrame
        A line for each round of each run.
    order : list of str
        The strategies; the first is drawn last, above the others.
    full : float, default=None
        Accuracy with all labels.

    Returns
    -------
    panels : list of Panel
        title, note : str; x_ticks, y_ticks : list of (place, text); curves : list of
        Curve, whose points and corners of a band are (x, y), right and down in units
        of `WIDTH` and `HEIGHT`; full, zero : where these lines lie, or None.
    """
    names = set(rounds["strategy"])
    kinds = dict.fromkeys(_TEXTS)
    if BASELINE not in names or len(names) < 2:
        del kinds["gain"]
    if (abs(rounds["accuracy"] - rounds["balanced_accuracy"]) <= 0.01).all():
        del kinds["balanced_accuracy"]
    return [_panel(kind, rounds, order, full) for kind in kinds]


def fill(curves):
    """Interpolate curves at the numbers of labels that only other runs have.

    Parameters
    ----------
    curves : pandas.DataFrame
        As :func:`skal.analysis.learning_curves` gives them.

    Returns
    -------
    curves : pandas.DataFrame
        NaN beyond the ends of a run.
    """
    return curves.interpolate(method="index", limit_area="inside")


def _panel(kind, rounds, order, full):
    gain = kind == "gain"
    table = fill(learning_curves(rounds, "accuracy" if gain else kind))
    lowest, highest = (-1.0, 1.0) if gain else score_range(kind)
    found = {}
    for name in order:
        if name not in table or (gain and name == BASELINE):
            continue
        runs = table[name]
        if gain:
            runs = (runs - table[BASELINE]).dropna(axis=1, how="all")
        runs = runs.dropna()
        if runs.size:
            mean, half = mean_interval(runs.T)
            ends = np.clip([mean - half, mean + half], lowest, highest)
            found[name] = runs.index.to_numpy(), mean, ends
    full = full if kind == "accuracy" else None
    lines = [
        full,
        0 if gain else None,
        *(y for _, mean, _ in found.values() for y in mean),
    ]
    lines = [y for y in lines if y is not None] or [0]
    low, high = limits(lines)
    span = high - low
    for _, _, ends in found.values():
        if np.isfinite(ends).all():  # a wide interval must not flatten the curves
            low = min(low, max(ends[0].min(), min(lines) - span / 2))
            high = max(high, min(ends[1].max(), max(lines) + span / 2))
    low, high = max(low, lowest - 0.01), min(high, highest + 0.01)
    left, right = limits(np.concatenate([x for x, *_ in found.values()] or [[0]]))

    def across(x):
        return round(float((x - left) / (right - left) * WIDTH), 1)

    def down(y):
        return round(float((high - y) / (high - low) * HEIGHT), 1)

    def place(x, y):
        return [(across(a), down(b)) for a, b in zip(x, y, strict=True)]

    curves = []
    for name, (x, mean, ends) in reversed(found.items()):
        band = []
        if np.isfinite(ends).all():
            band = place(x, ends[0]) + place(x, ends[1])[::-1]
        curves.append(Curve(name, place(x, mean), band))
    return Panel(
        *_TEXTS[kind],
        [(across(x), f"{x:g}") for x in ticks(left, right)],
        [(down(y), f"{y + 0:.10g}") for y in ticks(low, high)],
        curves,
        None if full is None else down(full),
        down(0) if gain else None,
    )
