"""How strategies look in every picture: told apart in grey, and by the colour-blind."""

import re
from collections import namedtuple
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Okabe and Ito (2008), without the yellow, which white swallows, and the black, which
# is the baseline's; first the four that red-green blindness leaves farthest apart.
_COLORS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
_DASHES = ((), (8, 2, 2, 2), (2, 2), (12, 3), (8, 2, 2, 2, 2, 2))
_MARKERS = "osD^vPX"
_SHARES = "accuracy|balanced_accuracy|score|ece|class.balance|(f1|precision|recall|roc)"
_SHARES += "(_.*)?"

Look = namedtuple("Look", "color dashes marker")


def looks(names: Iterable[str], baseline: str | None = "random") -> dict[str, Look]:
    """Give each strategy a colour, a dash and a marker.

    Parameters
    ----------
    names : iterable of str
        The strategies, those that matter most first: the first four have the colours
        farthest apart, and no two of the first thirty share colour and dash.
    baseline : str, default="random"
        Drawn in the colour of the text, with short dashes and without markers.

    Returns
    -------
    looks : dict of str to Look
        color : str, None for the baseline; dashes : tuple of lengths of dashes and
        gaps, in points, () for a whole line; marker : str, as matplotlib names it.

    Examples
    --------
    >>> from skal.plotting import looks
    >>> looks(["badge", "random"])["badge"]
    Look(color='#0072B2', dashes=(), marker='o')
    """
    found = {}
    for name in names:
        k = len(found.keys() - {baseline})
        column, row = k % len(_COLORS), k // len(_COLORS)
        dashes = _DASHES[(column + row) % len(_DASHES)]
        found[name] = Look(_COLORS[column], dashes, _MARKERS[k % len(_MARKERS)])
        if name == baseline:
            found[name] = Look(None, (5, 3), "")
    return found


def score_range(name: str) -> tuple[float, float]:
    """Give the range that a score cannot leave, though an interval might.

    Parameters
    ----------
    name : str
        Of a column, with or without ``test_``.

    Returns
    -------
    low, high : float
        Infinite where nothing is known.

    Examples
    --------
    >>> from skal.plotting import score_range
    >>> score_range("test_accuracy"), score_range("nll"), score_range("mine")
    ((0.0, 1.0), (0.0, inf), (-inf, inf))
    """
    name = name.removeprefix("test_")
    if re.fullmatch(_SHARES, name):
        return 0.0, 1.0
    return (0.0, np.inf) if name == "nll" else (-np.inf, np.inf)


def limits(values: ArrayLike) -> tuple[float, float]:
    """Leave a margin around values.

    Parameters
    ----------
    values : array-like of shape (n_points,)

    Returns
    -------
    low, high : float
        low < high.
    """
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def ticks(low: float, high: float) -> NDArray:
    """Find round numbers between two numbers, about six.

    Parameters
    ----------
    low, high : float
        low < high.

    Returns
    -------
    ticks : ndarray of shape (n_ticks,)

    Examples
    --------
    >>> ticks(0.47, 0.98).round(6)
    array([0.5, 0.6, 0.7, 0.8, 0.9])
    """
    rough = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= rough)
    return step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
