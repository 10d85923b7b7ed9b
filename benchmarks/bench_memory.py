"""Memory of selection kernels beyond their input, each in a process of its own.

What a kernel keeps for each row, and what its blocks of some million numbers take,
which is most of it here. At most 100 MB and five times the input.
"""

import time

import numpy as np
import pytest
import torch
from measuring import in_new_process, peak_growth

from skal.selection import (
    bait,
    ball_cover,
    herding,
    nearest_to_centroids,
    predictive_information,
    pure_radius,
    typicality,
)

SIZES = {
    "fast": [(4_000, 64)],
    "regular": [(10_000, 64), (10_000, 256)],
    "large": [(20_000, 64), (40_000, 256)],
}
N_CLASSES = 8
KERNELS = {
    "bait": lambda x, k: bait(x, k, centers=x[:k]),
    "bait, oversampled": lambda x, k: bait(x, k, centers=x[:k], oversample=2),
    "ball cover": lambda x, k: ball_cover(
        x, k, 1.3 * x.shape[1] ** 0.5, centers=x[:k], random_state=0
    ),
    "herding": lambda x, k: herding(x, k, random_state=0),
    "herding, with centres": lambda x, k: herding(x, k, centers=x[:k], random_state=0),
    "nearest to centroids": lambda x, k: nearest_to_centroids(x, k, random_state=0),
    "predictive information": lambda x, k: predictive_information(x, x[:200]),
    "pure radius": lambda x, k: pure_radius(x, np.arange(len(x)) % 10),
    "typicality": lambda x, k: typicality(x, 20),
}


def growth(name, n, d):
    """Run a kernel on the rows of its kind: seconds, bytes, and those of the rows."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)

    def rows(n):
        x = torch.randn(n, d, generator=generator)
        draws = name == "predictive information"
        return x.view(n, -1, N_CLASSES).softmax(2) if draws else x

    KERNELS[name](rows(300), 10)  # loads what it needs
    x, start = rows(n), time.perf_counter()
    memory = peak_growth(lambda: KERNELS[name](x, 100))
    return time.perf_counter() - start, memory, x.nbytes


@pytest.mark.parametrize("name", KERNELS)
def test_memory(profile, table, name):
    for n, d in SIZES[profile]:
        seconds, memory, n_input = in_new_process(growth, name, n, d)
        goal = f"<= {100 + 5 * n_input // 10**6} MB"
        title = f"{name}, {n:,} x {d}"
        table(title, seconds, goal=goal, memory=memory, n_input=n_input)
