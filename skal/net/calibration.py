"""The temperature at which a classifier says how often it is right."""

import numpy as np

TEMPERATURES = np.geomspace(0.1, 10, 41)
N_BINS = 15


def best_temperature(scores, codes):
    """Find the temperature of least calibration error, of equals the nearest to 1.

    Parameters
    ----------
    scores : tensor of shape (n_rows, n_classes)
        Logits, or logarithms of probabilities.
    codes : int array of shape (n_rows,)
        The true classes.

    Returns
    -------
    temperature : float
        Among 41 from 0.1 to 10, evenly spread by their logarithms.
    """
    errors = [
        calibration_error((scores.double() / t).softmax(1).cpu().numpy(), codes)
        for t in TEMPERATURES
    ]
    best = TEMPERATURES[np.isclose(errors, min(errors))]
    return float(best[np.abs(np.log(best)).argmin()])


def calibration_error(proba, codes):
    """Average the gap of confidence and accuracy over 15 bins of confidence.

    Parameters
    ----------
    proba : array of shape (n_rows, n_classes)
    codes : int array of shape (n_rows,)
        The true classes.

    Returns
    -------
    error : float
    """
    confidence, right = proba.max(1), proba.argmax(1) == codes
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right)
    return float(np.abs(gaps).sum() / len(codes))


def stratified(codes, share, rng):
    """Draw a share of rows, spread evenly over the classes; a lone row is not drawn.

    Parameters
    ----------
    codes : int array of shape (n_rows,)
        The classes.
    share : float
        At most a half, so that of each class a row is left.
    rng : Generator

    Returns
    -------
    drawn : bool array of shape (n_rows,)
    """
    alone = np.bincount(codes)[codes] == 1
    order = np.lexsort((rng.random(len(codes)), codes))
    order = order[~alone[order]]
    steps = np.floor((np.arange(len(order) + 1) + rng.random()) * share)
    drawn = np.zeros(len(codes), dtype=bool)
    drawn[order[np.diff(steps) > 0]] = True
    return drawn
