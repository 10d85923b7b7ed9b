"""The robust k-center program beside the greedy rows it starts from, on digits.

Goals: proven within 10 s for 500 rows and 20 picks, within 60 s for 1,000 and 40; on
more rows than can be proven, back soon after the time limit.
"""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skal.selection import k_center_greedy, k_center_mip

# Rows, picks, seconds allowed, goal.
SMALL, MIDDLE = (500, 20, 60, "<= 10 s"), (1_000, 40, 120, "<= 60 s")
SIZES = {
    "fast": [(300, 10, 60, "<= 10 s")],
    "regular": [SMALL, MIDDLE],
    "large": [SMALL, MIDDLE, (5_000, 100, 30, "<= 60 s")],
}


def rows(n):
    """Digits, with noise on further copies of them."""
    digits = load_digits().data
    noise = np.random.default_rng(0).normal(size=(n, digits.shape[1]))
    noise[: len(digits)] = 0
    return digits[np.arange(n) % len(digits)] + noise


def radius(points, picks):
    points = torch.from_numpy(points)
    return float(torch.cdist(points, points[picks]).amin(1).max())


def test_k_center_mip(profile, medians_in_turn, extra_memory, table):
    for n, n_select, time_limit, goal in SIZES[profile]:
        points, found = rows(n), {}

        def solve(points=points, n_select=n_select, limit=time_limit, found=found):
            found["picks"], found["bounds"] = k_center_mip(
                points, n_select, time_limit=limit, return_bounds=True
            )

        memory = extra_memory(solve)
        seconds = medians_in_turn({"program": solve})["program"]
        (lower, upper), greedy = found["bounds"], k_center_greedy(points, n_select)
        assert upper == pytest.approx(radius(points, found["picks"]))
        proven = "proven" if lower == upper else f"at least {lower:.2f}"
        table(
            f"k-center program, {n_select} of {n:,} digits",
            seconds,
            goal=goal,
            memory=memory,
            n_input=points.nbytes,
            note=f"radius {upper:.2f}, {proven}; greedy {radius(points, greedy):.2f}",
        )
