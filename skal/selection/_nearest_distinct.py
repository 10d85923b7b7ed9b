"""The points nearest to given targets, no point twice."""

import numpy as np
import torch

from skal.selection._base import check_matrix
from skal.utils.seeds import check_generator

# Pairs of a target and a point whose distances are held at a time.
N_PAIRS = 2**22


def nearest_distinct(points, targets, *, random_state=None):
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
    Exact, in float64. For each target some nearest points are held, at least 64; a
    target that sees all of its own taken ends the round, and those of all targets left
    are looked for again. So no matrix of all distances is formed, and a round takes
    one matrix product.

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
    for name, matrix in (("points", points), ("targets", targets)):
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError(f"{name} must be finite; clean or rescale them.")
    rng = check_generator(random_state)
    # The order of the points breaks ties, also those that rounding would break.
    free = torch.from_numpy(rng.permutation(len(points))).to(points.device)
    origin = points.double().mean(0)
    open_targets, picks = targets.to(points.device).double() - origin, []
    while len(open_targets):
        distances, places = _nearest(points, free, open_targets, origin)
        pairs, done = _greedy(distances.cpu().numpy(), places.cpu().numpy())
        taken = torch.as_tensor(pairs, dtype=torch.int64, device=free.device)
        picks += free[taken].tolist()
        left = torch.ones(len(free), dtype=torch.bool, device=free.device)
        left[taken] = False
        free = free[left]
        open_targets = open_targets[torch.from_numpy(~done).to(free.device)]
    return np.array(picks, dtype=np.int64)


def _nearest(points, free, targets, origin):
    """Squared distances, ascending, and places in `free` of the nearest points."""
    k = min(len(free), max(64, len(targets) // 8))
    best = targets.new_empty((len(targets), 0))
    places = torch.empty_like(best, dtype=torch.int64)
    start = 0
    for rows in free.split(max(k, N_PAIRS // len(targets))):
        x = points[rows].double() - origin
        here = x.square().sum(1) - 2 * (targets @ x.T)
        where = torch.arange(start, start + len(rows), device=free.device)
        best = torch.cat([best, here], 1)
        places = torch.cat([places, where.expand(len(targets), -1)], 1)
        best, order = best.topk(k, dim=1, largest=False)
        places = places.gather(1, order)
        start += len(rows)
    return best + targets.square().sum(1, keepdim=True), places


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
