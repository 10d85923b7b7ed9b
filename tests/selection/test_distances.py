import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from skal.selection import _distances
from skal.selection._distances import Cover, closest, differences, nearest, origin_of

KINDS = ["plain", "offset", "one far", "two far groups", "copies", "tiny"]


def make(kind, n, rng):
    rows = rng.normal(size=(n, 7))
    if kind == "offset":
        rows += 1e6
    elif kind == "one far":
        rows = 1e-2 * rows
        rows[0] = 1e9
    elif kind == "two far groups":
        rows += 1e8 * rng.choice([-1, 1], size=(n, 1))
    elif kind == "copies":
        rows = rows[rng.integers(0, 9, n)] + 100
    elif kind == "tiny":
        rows *= 1e-170
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closest_equals_all_differences(kind, k, dtype):
    rng = np.random.default_rng(0)
    rows = make(kind, 230, rng)
    if dtype == torch.float32:
        rows = rows.astype(np.float32).astype(np.float64)
    x, c = (torch.from_numpy(part) for part in (rows[100:], rows[:100]))
    offset = torch.from_numpy(rng.random(100)) if kind == "plain" else None
    found, places = closest([x], [c], origin_of(c), k, offset=offset, dtype=dtype)
    everything = cdist(x, c, "sqeuclidean") + (0 if offset is None else offset.numpy())
    expected = np.sort(everything, 1)[:, :k]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    chosen = np.take_along_axis(everything, places.numpy(), 1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-13)
    assert all(len(set(row)) == k for row in places.tolist())


def test_rows_beyond_the_bound_do_not_count():
    x, c = torch.zeros(2, 1).double(), torch.tensor([[1.0], [2], [3]]).double()
    found, places = closest(
        [x], [c], c[1], 2, bound=torch.tensor([4.0, 0.5], dtype=torch.float64)
    )
    assert found.tolist() == [[1, 4], [torch.inf, torch.inf]]
    assert places[0].tolist() == [0, 1]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    rows, centers = (torch.from_numpy(make("plain", n, rng)) for n in (300, 40))
    whole = nearest(rows, centers)
    monkeypatch.setattr(_distances, "N_PAIRS", 1)
    monkeypatch.setattr(_distances, "N_NUMBERS", 1)
    for one, other in zip(whole, nearest(rows, centers), strict=True):
        np.testing.assert_array_equal(one, other)


def outer(left, right):
    return (left[:, :, None] * right[:, None, :]).flatten(1)


@pytest.mark.parametrize("offset", [0, 1e3, 1e6])
def test_differences_of_factors_are_those_of_their_outer_products(offset):
    rng = np.random.default_rng(0)
    a, b, h, g = (
        torch.from_numpy(rng.normal(size=(50, n))) + offset for n in (3, 3, 5, 5)
    )
    expected = differences([outer(a, h)], [outer(b, g)])
    torch.testing.assert_close(differences([a, h], [b, g]), expected)
    assert bool((differences([a, h], [a.clone(), h.clone()]) == 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True])
def test_bounds_hold_and_rows_are_exact_on_demand(kind, pair, monkeypatch):
    monkeypatch.setattr(_distances, "working_dtype", lambda _: torch.float32)
    rng = np.random.default_rng(1)
    rows = torch.from_numpy(1.0 * make(kind, 200, rng).astype(np.float32))
    if kind == "tiny":
        rows = torch.from_numpy(make("plain", 200, rng).astype(np.float32)) * 1e-20
    factors = [rows.double()] + pair * [torch.from_numpy(rng.normal(size=(200, 3)))]
    points = outer(*factors) if pair else factors[0]
    cover = Cover(factors, "rows")
    picks = [4, 7, 30]
    cover.add(picks[:1])
    cover.refresh()
    cover.tighten(torch.arange(100, 150))
    cover.add(picks[1:])
    cover.refresh()
    exact = torch.stack([differences([points], [points[i]]) for i in picks]).amin(0)
    rest = torch.ones(200, dtype=torch.bool)
    rest[picks] = False
    scale = float(exact.max()) * 1e-14 if pair else 0
    assert bool((cover.upper[rest] >= exact[rest] * (1 - 1e-9) - scale).all())
    rows = torch.arange(31, 180)
    cover.tighten(rows)
    torch.testing.assert_close(cover.upper[rows], exact[rows], rtol=1e-9, atol=scale)


def test_one_far_row_does_not_move_the_origin():
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    points[0] = 1e9
    assert float(origin_of(points).abs().max()) < 1
    assert origin_of(points[:0]).tolist() == [0, 0, 0]
