"""k-means|| seeding: candidates in a few passes, then k-means++ among them."""

import numpy as np
import torch

from skal.selection._distances import closest, working_dtype

N_PASSES = 5  # as in the paper's experiments


def candidates(cover, n_select, oversampling, weights, rng):
    """Draw candidates in a few passes, and count the rows nearest to each.

    Parameters
    ----------
    cover : Cover
        The rows, of which the first candidate is picked.
    n_select : int
        Rows that will be drawn of the candidates.
    oversampling : float
        Candidates of a pass, in expectation, for each of these.
    weights : float64 tensor of shape (n_rows,) or None
        Of the rows.
    rng : numpy.random.Generator

    Returns
    -------
    rows : int64 array of shape (n_candidates,)
        That picked first; at least `n_select` where so many rows differ.
    weights : float64 array of shape (n_candidates,)
    """
    n_passes = 0
    while n_passes < N_PASSES or len(cover.picked) < n_select:
        cover.refresh()
        cover.tighten(cover.unsure(torch.nonzero(cover.upper > 0).squeeze(1)))
        mass = cover.upper.clamp(min=0)
        mass = mass if weights is None else mass * weights
        total = float(mass.sum())
        if total == 0:
            break
        chance = (mass * (oversampling * n_select / total)).cpu().numpy()
        cover.add(np.flatnonzero(rng.random(len(chance)) < chance).tolist())
        n_passes += 1
    rows = np.array(cover.picked)
    return rows, _counts(cover, rows, weights)


def _counts(cover, rows, weights):
    """Weigh of the rows those that are nearest to each candidate."""
    factors, chosen = cover.factors, cover.take(rows.tolist())
    dtype = working_dtype(factors[0])
    counts = np.zeros(len(rows))
    for start in range(0, len(factors[0]), 1024):
        x = [factor[start : start + 1024] for factor in factors]
        _, owners = closest(x, chosen, cover.origin, dtype=dtype)
        each = None if weights is None else weights[start : start + 1024].cpu().numpy()
        owners = owners[:, 0].cpu().numpy()
        counts += np.bincount(owners, weights=each, minlength=len(rows))
    return counts
