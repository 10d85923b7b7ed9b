"""How near picks are to the exact answer, by plain code in double precision."""

from functools import cache

import numpy as np
from cells import WIDTH, Pool, samples


def agreement(job, n, k, picks):
    """Say it in a few words; "" where there is no exact answer to compare with."""
    judge = JUDGES.get(job)
    return judge(n, k, np.asarray(picks)) if judge and len(picks) else ""


def same(picks, exact):
    return f"{len(np.intersect1d(picks, exact)):,} of {len(exact):,} exact"


@cache
def exact_k_center(n, k):
    """Greedy picks in double precision, whose products round by 1e-13 at most."""
    pool = Pool(n)
    rows, nearest = pool.rows.astype(np.float64), np.full(n, np.inf)
    norms = (rows**2).sum(1)

    def cover(row):
        np.minimum(nearest, norms + row @ row - 2 * (rows @ row), out=nearest)

    for row in pool.labeled.astype(np.float64):
        cover(row)
    picks = []
    for _ in range(k):
        picks.append(int(nearest.argmax()))
        cover(rows[picks[-1]])
    return picks


def k_center(n, k, picks):
    return same(picks, exact_k_center(n, k))


def margin(n, k, picks):
    proba = np.sort(Pool(n).proba.astype(np.float64), axis=1)
    return same(picks, np.argsort(proba[:, -1] - proba[:, -2], kind="stable")[:k])


def max_herding(n, k, picks):
    """Say how many picks are exact, where that takes some minutes; the coverage."""
    exact = exact_herding(n, k) if n <= 10_000 else None
    text = f"coverage {coverage(n, picks):.6g}"
    return text if exact is None else f"{same(picks, exact)}, {text}"


def herding_kernel(n, columns):
    pool = Pool(n)
    rows, labeled = (
        pool.unit(each.astype(np.float64)) for each in (pool.rows, pool.labeled)
    )
    covered = np.exp((2 * rows @ labeled.T - 2).max(1) / WIDTH**2)
    return covered, np.exp((2 * rows @ rows[columns].T - 2) / WIDTH**2)


def coverage(n, picks):
    covered, kernel = herding_kernel(n, picks)
    return np.maximum(covered, kernel.max(1)).sum()


@cache
def exact_herding(n, k):
    covered, kernel = herding_kernel(n, slice(None))
    picks = []
    for _ in range(k):
        gains = [
            np.maximum(kernel[:, part] - covered[:, None], 0).sum(0)
            for part in np.array_split(np.arange(n), max(1, n // 500))
        ]
        gains = np.concatenate(gains)
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
        covered = np.maximum(covered, kernel[:, picks[-1]])
    return picks


def potential(n, picks):
    """Sum of squared distances of gradients to the nearest pick: lower is better."""
    pool = Pool(n)
    residual = pool.proba.astype(np.float64)
    residual[np.arange(n), residual.argmax(1)] -= 1
    rows = pool.rows.astype(np.float64)
    norms, nearest = (residual**2).sum(1) * (rows**2).sum(1), np.full(n, np.inf)
    for part in np.array_split(np.unique(picks), -(-len(picks) // 50)):
        products = (rows @ rows[part].T) * (residual @ residual[part].T)
        distances = norms[:, None] + norms[part] - 2 * products
        nearest = np.minimum(nearest, distances.min(1))
    return nearest.clip(0).sum()


@cache
def drawn_exactly(n, k):
    """Potential of k-means++ as published, in double precision, mean of three runs."""
    from cells import CELLS

    return potential(n, CELLS["public code", "BADGE"](n, k)())


def badge(n, k, picks):
    return f"potential {potential(n, picks) / drawn_exactly(n, k):.3f}"


def batch_bald(n, k, picks, n_labels=200_000):
    """Joint information of the labels and the model, by Monte Carlo of its own."""
    rng, log_joint = np.random.default_rng(1), 0
    draws = samples(n)[picks].astype(np.float64)
    n_draws = draws.shape[1]
    own = np.arange(n_labels) % n_draws
    for proba in draws:
        cumulative = proba[own].cumsum(1)
        labels = (rng.random((n_labels, 1)) * cumulative[:, -1:] > cumulative).sum(1)
        log_joint += np.log(proba.T[labels].clip(1e-300))
    largest = log_joint.max(1)
    marginal = np.exp(log_joint - largest[:, None]).mean(1)
    own = log_joint[np.arange(n_labels), own]
    return f"{(own - largest - np.log(marginal)).mean():.2f} nats"


JUDGES = {
    "BADGE": badge,
    "k-center": k_center,
    "MaxHerding": max_herding,
    "margin": margin,
    "BatchBALD": batch_bald,
}
