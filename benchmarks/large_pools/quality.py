"""What parts and random subsets of a large pool lose against the whole.

    python benchmarks/large_pools/quality.py --rows 200000 --seeds 3

writes quality.md beside this file. The data are made: embedding-like rows of 500
clusters of unequal size, in three kinds. "gauss" has round clusters, "tails" flat ones
with rows far out, "relu" is a random layer of a network over these.
"""

import argparse
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from skal import (
    KCenterGreedyQuery,
    MaxHerdingQuery,
    PartitionedQuery,
    PoolView,
    SubsampleQuery,
)
from skal.query import QueryStrategy
from skal.selection import kmeans_plusplus

N_CLUSTERS, N_COLUMNS, N_PARTS = 500, 64, 8
KINDS = ["gauss", "tails", "relu"]
WIDTH = 0.8  # of the kernel, over rows of length 1


def make_rows(kind, n_rows, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.dirichlet(np.full(N_CLUSTERS, 0.5))
    centers = rng.standard_normal((N_CLUSTERS, N_COLUMNS))
    labels = rng.choice(N_CLUSTERS, n_rows, p=sizes)
    noise = rng.standard_normal((n_rows, N_COLUMNS), dtype=np.float32)
    if kind == "gauss":
        return (centers[labels] + 0.5 * noise).astype(np.float32)
    flat = rng.standard_normal((N_CLUSTERS, 8, N_COLUMNS)) / 32**0.5
    X = np.empty((n_rows, N_COLUMNS), dtype=np.float32)
    for part in np.array_split(np.arange(n_rows), 20):
        far = np.exp(rng.normal(0, 0.3, (len(part), 1)))
        within = far * rng.standard_normal((len(part), 8))
        within = np.einsum("nr,nrd->nd", within, flat[labels[part]])
        X[part] = centers[labels[part]] + within + 0.1 * noise[part]
    if kind == "relu":
        layer = rng.standard_normal((N_COLUMNS, 2 * N_COLUMNS)) / 8
        X = np.maximum(X @ layer.astype(np.float32), 0)
    return X


def nearest(X, picks):
    """Squared distance of each row to its nearest pick."""
    X = torch.from_numpy(X)
    found = [torch.cdist(x, X[picks]).amin(1) for x in X.split(4096)]
    return torch.cat(found).double() ** 2


class PlusPlus(QueryStrategy):
    """k-means++ over the embeddings, as BADGE over its gradients."""

    requires = ("embeddings",)

    def _query(self, pool, n_samples, rng):
        return kmeans_plusplus(
            pool.embeddings, n_samples, weights=pool.weights, random_state=rng
        )


def radius(X, picks):
    return float(nearest(X, picks).max()) ** 0.5


def potential(X, picks):
    return float(nearest(X, picks).sum())


def uncovered(X, picks):
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    return float(torch.exp(-nearest(X, picks) / WIDTH**2).sum())


# Strategy, figure, whether more of it is better, and picks.
CASES = {
    "k-center, radius": (KCenterGreedyQuery, radius, False, 500),
    "k-means++, potential": (PlusPlus, potential, False, 500),
    "herding, coverage": (partial(MaxHerdingQuery, width=WIDTH), uncovered, True, 100),
}


def losses(kind, case, n_rows, seed):
    """Percent lost by parts and by subsets; seconds of all three."""
    make, figure, more, n_samples = CASES[case]
    X, strategy = make_rows(kind, n_rows, seed), make()
    ways = {
        "whole": strategy,
        "parts": PartitionedQuery(strategy, n_parts=N_PARTS),
        "1/8 at random": SubsampleQuery(strategy, max_rows=n_rows // 8),
        "20,000 at random": SubsampleQuery(strategy, max_rows=20_000),
    }
    found, seconds = {}, {}
    for way, each in ways.items():
        start = perf_counter()
        picks = each.query(PoolView(None, X, random_state=seed), n_samples)
        seconds[way] = perf_counter() - start
        found[way] = figure(X, picks)
    whole = found.pop("whole")
    signs = -1 if more else 1
    return {k: 100 * signs * (v / whole - 1) for k, v in found.items()}, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for case in options.cases:
        for kind in options.kinds:
            found = [
                losses(kind, case, options.rows, seed) for seed in range(options.seeds)
            ]
            ways = list(found[0][0])
            cells = [case, kind]
            for way in ways:
                values = [lost[way] for lost, _ in found]
                cells.append(f"{np.mean(values):+.2f} ({max(values):+.2f})")
            for way in ("whole", "parts"):
                cells.append(f"{np.median([s[way] for _, s in found]):.1f}")
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    head = f"""# Parts and random subsets of a pool against the whole

`python benchmarks/large_pools/quality.py --rows {options.rows} --seeds {options.seeds}`

Percent lost against the strategy on the whole pool, the mean of {options.seeds} seeds
and in brackets the worst; below 0 it is better than the whole. {options.rows:,} x 64
made rows ("relu": 128) of 500 clusters, nothing labelled; {N_PARTS} parts. k-center and
k-means++ take 500 rows, herding 100 with a kernel of width {WIDTH}. Seconds: the
median, one thread, in one process.

| | rows | {N_PARTS} parts | 1/8 at random | 20,000 at random | s, whole | s, parts |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
"""
    path = Path(__file__).with_suffix(".md")
    path.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
