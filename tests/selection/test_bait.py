"""BAIT: picks and trace of inverting every matrix, ties, and what rounding does."""

import numpy as np
import pytest
import torch

from skal.selection import _bait, bait


def trace(points, rows, centers, ridge):
    """The objective, by inversion."""
    known = ridge * np.eye(points.shape[1]) + centers.T @ centers
    known = known + points[rows].T @ points[rows]
    return np.trace(np.linalg.inv(known) @ points.T @ points) / len(points)


def inverting(points, n_select, centers, ridge, n_taken):
    """Picks of the greedy algorithm that inverts a matrix for each row."""
    picks = []
    for _ in range(n_taken):
        left = np.setdiff1d(np.arange(len(points)), picks)
        traces = [trace(points, [*picks, i], centers, ridge) for i in left]
        picks.append(int(left[np.argmin(traces)]))
    while len(picks) > n_select:
        traces = [
            trace(points, picks[:i] + picks[i + 1 :], centers, ridge)
            for i in range(len(picks))
        ]
        del picks[int(np.argmin(traces))]
    return picks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("oversample", [1, 1.5, 2])
@pytest.mark.parametrize("n_centers", [0, 4])
def test_equals_inverting_every_matrix(n_centers, oversample, dtype, monkeypatch):
    for size in ("N_ROWS", "N_NUMBERS"):  # several blocks
        monkeypatch.setattr(_bait, size, 16)
    rng = np.random.default_rng(n_centers)
    for ridge in (1e-2, 1.0, 30.0):
        points = rng.normal(size=(40, 5)) * rng.random((40, 1))
        points, centers = points.astype(dtype), rng.normal(size=(n_centers, 5))
        known = {"centers": centers.astype(dtype), "ridge": ridge}
        picks = bait(points, 8, oversample=oversample, **known)
        expected = inverting(
            points.astype(float),
            8,
            known["centers"].astype(float),
            ridge,
            int(8 * oversample),
        )
        assert picks.dtype == np.int64 and picks.tolist() == expected


def test_by_hand():
    # F = diag(4, 1.25) / 3 and M = I: the gains c / (1 + a) are 16/15, 5/24 and 1/12.
    points = np.array([[2.0, 0], [0, 1], [0, 0.5]])
    assert bait(points, 3).tolist() == [0, 1, 2]
    # Where the first direction is known already, the other matters more.
    assert bait(points, 1, centers=np.array([[3.0, 0]])).tolist() == [1]
    # A copy of the first pick tells less than a shorter row in another direction.
    points = np.array([[2.0, 0], [2.0, 0], [0, 1.5], [0.1, 0]])
    assert sorted(bait(points, 2)) in ([0, 2], [1, 2])


def test_pruning_is_no_worse_than_taking_no_more():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(200, 12)) * rng.random((200, 1))
    none = np.empty((0, 12))
    forward, pruned = bait(points, 10), bait(points, 10, oversample=2)
    assert trace(points, pruned, none, 1.0) < trace(points, forward, none, 1.0)


def test_scale_and_rotation_change_nothing():
    rng = np.random.default_rng(2)
    points, centers = rng.normal(size=(2, 100, 6)) * rng.random((2, 100, 1))
    picks = bait(points, 20, centers=centers)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    known = {"centers": 7 * centers @ rotation, "ridge": 49.0}
    np.testing.assert_array_equal(bait(7 * points @ rotation, 20, **known), picks)


def test_ridge_weighs_the_same_in_every_batch():
    """So the first picks of a batch are those of a smaller one."""
    points = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    np.testing.assert_array_equal(bait(points, 60)[:5], bait(points, 5))


@pytest.mark.parametrize("kind", ["offset", "low rank", "long"])
def test_rounding_does_not_add_up(kind):
    """After 150 picks in single precision the next is still the best."""
    rng = np.random.default_rng(4)
    points = rng.normal(size=(600, 40))
    if kind == "offset":
        points += 10
    elif kind == "low rank":
        points[:, 8:] = points[:, :8] @ rng.normal(size=(8, 32)) + 1e-2 * points[:, 8:]
    else:
        points *= 100
    points = points.astype(np.float32)
    *picks, last = bait(points, 151).tolist()
    points = points.astype(float)
    inverse = np.linalg.inv(np.eye(40) + points[picks].T @ points[picks])
    moved = points @ inverse
    gains = np.einsum("ij,ij->i", moved @ (points.T @ points), moved)
    gains /= 1 + np.einsum("ij,ij->i", moved, points)
    gains[picks] = 0
    assert gains[last] >= gains.max() * (1 - 1e-5)


def precise_gains(points, rows, ridge):
    """What each row lowers the trace by, with sixty digits."""
    mpmath = pytest.importorskip("mpmath")  # torch brings it
    with mpmath.workdps(60):
        points = [mpmath.matrix(row.tolist()) for row in points.astype(float)]
        squares = [g * g.T for g in points]
        known = ridge * mpmath.eye(len(points[0]))
        for row in rows:
            known += squares[row]
        inverse = known**-1
        effect = inverse * sum(squares[1:], squares[0]) * inverse / len(points)
        return np.array([
            float((g.T * effect * g)[0] / (1 + (g.T * inverse * g)[0])) for g in points
        ])  # fmt: skip


@pytest.mark.parametrize("ridge", [1.0, 1e-8])
@pytest.mark.parametrize("kind", ["long", "columns", "nearly parallel"])
def test_rows_that_are_long_beside_the_ridge(kind, ridge):
    """Each pick is the best, however many digits a rank one update would lose."""
    rng = np.random.default_rng(7)
    points = rng.normal(size=(25, 5)) * rng.random((25, 1))
    if kind == "long":
        points *= 3e4
    elif kind == "columns":  # such as an income that nobody standardised
        points[:, 3:] = rng.uniform(2e4, 2e5, size=(25, 2))
    else:
        points = 1e4 * (points[:1] + 1e-3 * points)
    picks = bait(points, 10, ridge=ridge)
    for count, pick in enumerate(picks):
        gains = precise_gains(points, picks[:count], ridge)
        gains[picks[:count]] = 0
        assert gains[pick] >= gains.max() * (1 - 1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e5, 1e8, 1e11])
def test_pruning_of_long_rows(scale):
    """What is given back raises the trace least, of what is left."""
    points = scale * np.random.default_rng(8).normal(size=(20, 4))
    for n_select in (1, 3, 5, 7):
        left = bait(points, 8, random_state=0).tolist()  # with ties
        while len(left) > n_select:
            without = [left[:i] + left[i + 1 :] for i in range(len(left))]
            losses = [precise_gains(points, rest, 1.0)[row]
                      for rest, row in zip(without, left, strict=True)]  # fmt: skip
            del left[int(np.argmin(losses))]
        pruned = bait(points, n_select, oversample=8 / n_select, random_state=0)
        assert pruned.tolist() == left


def test_blocks_change_nothing(monkeypatch):
    points = np.random.default_rng(5).normal(size=(120, 7))
    picks = bait(points, 30, centers=points[:9], oversample=2)
    monkeypatch.setattr("skal.selection._bait.N_NUMBERS", 70)
    np.testing.assert_array_equal(
        bait(points, 30, centers=points[:9], oversample=2), picks
    )


def test_ties_are_seeded_and_zeros_survive():
    points = np.repeat(np.random.default_rng(6).normal(size=(5, 3)), 8, axis=0)
    firsts = {int(bait(points, 1, random_state=seed)[0]) for seed in range(60)}
    assert len({first // 8 for first in firsts}) == 1 and len(firsts) == 8
    assert sorted(bait(points, 40, oversample=3)) == list(range(40))
    firsts = {int(bait(np.zeros((9, 3)), 1, random_state=s)[0]) for s in range(99)}
    assert len(firsts) == 9
    assert bait(points, 0).shape == bait(np.empty((0, 3)), 0).shape == (0,)


def test_input_is_left_alone_and_tensors_do():
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    before = points.clone()
    picks = bait(points, 10, centers=points[:3])
    assert torch.equal(points, before)
    np.testing.assert_array_equal(
        bait(points.numpy(), 10, centers=points[:3].numpy()), picks
    )


@pytest.mark.parametrize(
    "wrong, match",
    [
        ({"ridge": 0}, "ridge must be a number above 0, got 0"),
        ({"ridge": np.nan}, "ridge"),
        ({"ridge": 1e-300}, "ridge=1e-300 is lost in rounding: standardise"),
        ({"oversample": 0.5}, "oversample must be a number of at least 1, got 0.5"),
        ({"oversample": np.inf}, "oversample"),
        ({"centers": np.ones((2, 3))}, "centers must have 2 columns"),
        ({"centers": [[np.nan, 1]]}, "centers must be finite"),
    ],
)
def test_wrong_parameters(wrong, match):
    with pytest.raises(ValueError, match=match):
        bait(np.ones((4, 2)), 2, **wrong)
    with pytest.raises(ValueError, match="n_select"):
        bait(np.ones((4, 2)), 5)
