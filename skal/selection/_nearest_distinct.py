"""The points nearest to given targets, no point twice."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skal.selection._base import check_matrix, check_norms
from skal.selection._distances import N_PAIRS, closest, origin_of
from skal.utils.seeds import SeedLike, check_generator


def nearest_distinct(
    points: ArrayLike | torch.Tensor,
    targets: ArrayLike | torch.Tensor,
    *,
    random_state: SeedLike = None,
) -> NDArray[np.int64]:
    """Take one point for each target, of all pairs the nearest first.

    Greedy: of all targets without a point and all points without a target, the pair
    with the smallest Euclidean distance is next.

    Parameters
    ----------
    points : array or tensor of shape (n_points, n_features)
        To choose from.
    targets : array or tensor of shape (n_targets, n_features)
        At most as many as there are points.
    random_state : None, int, Generator or RandomState, default=None
        Breaks ties between points.

    Returns
    -------
    positions : ndarray of int64, of shape (n_targets,)
        Of the points, the smallest distance first.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an entry is not finite.

    Notes
    -----
    Exact: distances are sums of squared differences in float64, of the points that a
    matrix product does not rule out. For each target some nearest points are held, 32
    at first; a target that sees all of its own taken ends the round, and twice as many
    are looked for again for all targets left. So no matrix of all distances is formed.

    References
    ----------
    .. [1] Mayer and Timofte, "Adversarial sampling for active learning", WACV 2020.

    Examples
    --------
    >>> from skal.selection import nearest_distinct
    >>> nearest_distinct([[0.0], [1.0], [5.0]], [[0.2], [0.1]]).tolist()
    [0, 1]
    """
    points, targets = check_matrix(points, "points"), check_matrix(targets, "targets")
    if points.shape[1] != targets.shape[1] or len(targets) > len(points):
        raise ValueError(
            f"targets must be at most as many as the {len(points)} points, with as "
            f"many columns, {points.shape[1]}, got shape {tuple(targets.shape)}."
        )
    rng = check_generator(random_state)
    targets = targets.to(points.device).double()
    check_norms(targets.square().sum(1), "targets")
    # The order of the points breaks ties, also those that rounding would break.
    free = torch.from_numpy(rng.permutation(len(points))).to(points.device)
    origin, picks, k = origin_of(points), [], 32
    while len(targets):
        distances, places = _nearest(points, free, targets, origin, k)
        pairs, done = _greedy(distances.cpu().numpy(), places.cpu().numpy())
        taken = torch.as_tensor(pairs, dtype=torch.int64, device=free.device)
        picks += free[taken].tolist()
        left = torch.ones(len(free), dtype=torch.bool, device=free.device)
        left[taken] = False
        free = free[left]
        targets = targets[torch.from_numpy(~done).to(free.device)]
        k *= 2
    return np.array(picks, dtype=np.int64)


def _nearest(points, free, targets, origin, k):
    """Squared distances, ascending, and places in `free` of the `k` nearest points."""
    n_targets = len(targets)
    k = min(k, len(free), max(N_PAIRS // n_targets, n_targets // 8))
    best = targets.new_empty((n_targets, 0))
    places, bound = torch.empty_like(best, dtype=torch.int64), None
    step = max(k, N_PAIRS // n_targets)
    for start in range(0, len(free), step):
        x = points[free[start : start + step]].double()
        here, there = closest([targets], [x], origin, min(k, len(x)), bound=bound)
        best, order = torch.cat([best, here], 1).sort(dim=1, stable=True)
        places = torch.cat([places, there + start], 1).gather(1, order)[:, :k]
        best = best[:, :k]
        bound = best[:, -1]
    return best, places


def _greedy(distances, places):
    """Pair targets and places, nearest first, while it is sure which is nearest.

    Returns
    -------
    pairs : list of int
        The places taken, in order.
    done : bool array of shape (n_targets,)
        Which targets have one.
    """
    n_targets, k = distances.shape
    done, taken, pairs = np.zeros(n_targets, dtype=bool), set(), []
    for pair in np.argsort(distances, axis=None, kind="stable"):
        target, place = pair // k, int(places.flat[pair])
        if done[target]:
            continue
        if place not in taken:
            done[target] = True
            taken.add(place)
            pairs.append(place)
        elif pair % k == k - 1:  # the next point of this target is not known
            break
    return pairs, done
