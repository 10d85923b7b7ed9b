from itertools import combinations

import numpy as np
import pytest
import torch

from skal.selection import k_center_greedy


def naive(points, n_select, centers=None):
    points = np.asarray(points, dtype=np.float64)
    picked, nearest = [], np.full(len(points), np.inf)
    for center in np.asarray([] if centers is None else centers, dtype=np.float64):
        nearest = np.minimum(nearest, ((points - center) ** 2).sum(1))
    for _ in range(n_select):
        first = np.isinf(nearest).all()
        if first:
            nearest = ((points - points.mean(0)) ** 2).sum(1)
        picked.append(int(nearest.argmax()))
        distances = ((points - points[picked[-1]]) ** 2).sum(1)
        nearest = distances if first else np.minimum(nearest, distances)
        nearest[picked] = -1
    return picked


def shortfalls(points, picks, centers=None):
    """Distance of the farthest row less that of the pick, for each pick; radii."""
    points = np.asarray(points, dtype=np.float64)
    gaps, radii, nearest = [], [], np.full(len(points), np.inf)
    for center in np.asarray([] if centers is None else centers, dtype=np.float64):
        nearest = np.minimum(nearest, ((points - center) ** 2).sum(1))
    for i, pick in enumerate(picks):
        if i == 0 and centers is None:
            far = ((points - points.mean(0)) ** 2).sum(1)
            gaps.append(far.max() - far[pick])
        else:
            gaps.append(nearest.max() - nearest[pick])
            radii.append(nearest[pick])
        nearest = np.minimum(nearest, ((points - points[pick]) ** 2).sum(1))
        nearest[picks[: i + 1]] = -1
    return np.array(gaps), np.array(radii)


def test_line():
    line = np.array([[0.0], [4], [5], [6], [10]])
    assert k_center_greedy(line, 1, centers=line[:1]).tolist() == [4]
    assert k_center_greedy(line, 2, centers=line[:1]).tolist() == [4, 2]
    _, radii = shortfalls(line, [4, 2], line[:1])
    assert radii[1] == 25  # After the first pick the radius is 5.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_centers", [0, 1, 7])
def test_equals_the_plain_loop(dtype, n_centers):
    rng = np.random.default_rng(n_centers)
    for _ in range(25):
        n, d = rng.integers(1, 60), rng.integers(1, 8)
        points = rng.normal(size=(n, d)).astype(dtype)
        centers = rng.normal(size=(n_centers, d)).astype(dtype)
        picks = k_center_greedy(points, int(n), centers=centers, random_state=rng)
        assert picks.dtype == np.int64
        assert picks.tolist() == naive(points, n, centers)


def make(kind, rng):
    points = rng.normal(size=(1500, 20))
    if kind == "offset":
        points += 1000
    elif kind == "clusters":
        points += 1000 * rng.integers(0, 5, size=(1500, 1))
    elif kind == "scales":
        points *= 10.0 ** rng.integers(-6, 6, size=(1500, 1))
    elif kind == "near duplicates":
        points = points[rng.integers(0, 60, 1500)]
        points[:900] += 1e-4 * rng.normal(size=(900, 20))
    elif kind == "duplicates":
        points = points[rng.integers(0, 150, 1500)] + 100
    elif kind == "binary":
        points = (points[:, :12] > 0) + 7.0
    elif kind == "tiny":
        points *= 1e-30
    elif kind == "one far row":
        points[7] = 1e6
    elif kind == "far rows on all sides":
        points[:20] *= 1e8
    elif kind == "far groups":
        points = points * 1e-2 + 10 * rng.integers(-1, 2, size=(1500, 1)) * 1e5
    return points.astype(np.float32)


KINDS = ["plain", "offset", "clusters", "scales", "near duplicates", "duplicates"]
FAR = ["one far row", "far rows on all sides", "far groups"]


@pytest.mark.parametrize("kind", [*KINDS, *FAR, "binary", "tiny"])
@pytest.mark.parametrize("with_centers", [False, True])
def test_each_pick_is_the_farthest_row(kind, with_centers):
    # More rows than one block of candidates; products in float32 alone would fail.
    rng = np.random.default_rng(3)
    points = make(kind, rng)
    centers = points[rng.integers(0, 1500, 300)] if with_centers else None
    picks = k_center_greedy(points, 350, centers=centers, random_state=0)
    gaps, radii = shortfalls(points, picks, centers)
    assert len(set(picks.tolist())) == 350
    assert gaps.max() <= 1e-14 * radii.max()
    assert (np.diff(radii) <= 1e-14 * radii.max()).all()
    if kind in ("plain", "clusters", "scales", "one far row") and not with_centers:
        assert picks.tolist() == naive(points, 350)


@pytest.mark.parametrize("far", [1e6, 1e9, -1e12])
@pytest.mark.parametrize("as_center", [False, True])
def test_a_far_row_hides_nothing(far, as_center):
    # Products around the mean, or around anything but the other rows, see only it.
    rng = np.random.default_rng(26)
    points = 1e-2 * rng.normal(size=(300, 1))
    if not as_center:
        points[0] = far
    centers = np.array([[far], [0.0], [0.02]]) if as_center else None
    picks = k_center_greedy(points, 40, centers=centers, random_state=0)
    assert picks.tolist() == naive(points, 40, centers)


@pytest.mark.parametrize("groups", [(-1e9, 1e9), (0.0, 1e8, 1e10)])
def test_far_groups_are_told_apart_inside(groups):
    # Whatever the origin, products around it lose one of the groups.
    rng = np.random.default_rng(0)
    points = rng.choice(groups, size=(300, 1)) + rng.normal(size=(300, 2))
    picks = k_center_greedy(points, 60, random_state=0)
    assert picks.tolist() == naive(points, 60)


def test_radius_is_at_most_twice_the_optimum():
    rng = np.random.default_rng(1)
    for _ in range(20):
        points = rng.normal(size=(10, 2))
        centers = rng.normal(size=(2, 2))

        def radius(picks, points=points, centers=centers):
            covers = np.concatenate([centers, points[list(picks)]])
            return np.linalg.norm(points[:, None] - covers, axis=2).min(1).max()

        best = min(radius(c) for c in combinations(range(10), 3))
        assert radius(k_center_greedy(points, 3, centers=centers)) <= 2 * best + 1e-12


def test_copies_of_centres_come_last_in_seeded_random_order():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(40, 6)).astype(np.float32)
    points[10:20] = points[0]
    runs = [k_center_greedy(points, 40, random_state=s) for s in range(40)]
    for picks in runs:
        assert sorted(picks) == list(range(40))
        copies = set(range(10, 20)) | {0}
        assert set(picks[-10:]) < copies
        assert set(picks[:30]) & copies
    assert len({tuple(picks[-10:]) for picks in runs}) > 30
    assert np.array_equal(runs[5], k_center_greedy(points, 40, random_state=5))


def test_ties_are_broken_uniformly():
    points = np.eye(300, 5, k=-10) + 1  # 5 unit vectors among 295 equal rows.
    counts = np.zeros(300)
    for seed in range(300):
        counts[k_center_greedy(points, 1, centers=[[1.0] * 5], random_state=seed)] += 1
    assert counts[10:15].sum() == 300
    # Chi-squared with 4 degrees of freedom: 23.5 has probability 1e-4.
    assert ((counts[10:15] - 60) ** 2 / 60).sum() < 23.5


def test_ties_of_more_rows_than_a_block():
    points = np.eye(400, dtype=np.float32)
    picks = k_center_greedy(points, 400, centers=np.zeros((1, 400)), random_state=0)
    assert sorted(picks) == list(range(400))
    firsts = [
        k_center_greedy(points, 1, centers=np.zeros((1, 400)), random_state=s)[0]
        for s in range(30)
    ]
    assert min(firsts) < 100 and max(firsts) > 300


def test_first_pick_is_farthest_from_the_mean():
    points = [[0.0], [1.0], [2.0], [9.0]]
    assert k_center_greedy(points, 1).tolist() == [3]
    assert k_center_greedy(points, 1, centers=np.empty((0, 1))).tolist() == [3]


def test_kinds_of_input_agree_and_stay_as_they_are():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(300, 8)).astype(np.float32)
    points, centers = wide[::-1, ::2], wide[:5, 1::2]
    before, state = wide.tobytes(), torch.get_rng_state()
    expected = naive(points, 50, centers)
    wide.flags.writeable = False
    for p, c in (
        (points, centers),
        (torch.tensor(points.copy()), centers),
        (torch.tensor(points.copy()).T.contiguous().T, torch.tensor(centers)),
        (points.astype(np.float64), centers.astype(np.float64)),
        (points.astype(np.float64), centers),
        (points, centers.astype(">f8")),
        (torch.tensor(points.copy(), requires_grad=True), centers.tolist()),
    ):
        assert k_center_greedy(p, 50, centers=c).tolist() == expected
    assert wide.tobytes() == before
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, bool])
def test_other_dtypes(dtype):
    points = np.array([[0], [1], [0], [9]]).astype(dtype)
    picks = k_center_greedy(points, 2, centers=[[0.0]]).tolist()
    assert picks[0] in (1, 3) if dtype is bool else picks == [3, 1]
    half = torch.tensor([[0.0], [1], [9]], dtype=torch.bfloat16)
    assert k_center_greedy(half, 1, centers=[[0.0]]).tolist() == [2]


def test_autocast_does_not_change_the_picks():
    points = np.random.default_rng(0).normal(size=(400, 30)).astype(np.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert k_center_greedy(points, 60).tolist() == naive(points, 60)


def test_errors():
    points = np.ones((3, 2))
    for bad in (-1, 4, 2.0, True, "2"):
        message = "n_select must be an int between 0 and 3, the number of rows of poin"
        with pytest.raises(ValueError, match=message):
            k_center_greedy(points, bad)
    for value in (np.nan, np.inf):
        broken = points.copy()
        broken[1, 1] = value
        with pytest.raises(ValueError, match="points must be finite"):
            k_center_greedy(broken, 1)
        with pytest.raises(ValueError, match="centers must be finite"):
            k_center_greedy(points, 1, centers=broken)
    with pytest.raises(ValueError, match="points must be finite.*huge"):
        k_center_greedy([[1e200], [0.0], [1.0]], 0)
    with pytest.raises(ValueError, match="centers must have 2 columns"):
        k_center_greedy(points, 1, centers=np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"points must be 2-D, got shape \(3,\)"):
        k_center_greedy(np.ones(3), 1)
    with pytest.raises(ValueError, match="points must be numeric, got dtype"):
        k_center_greedy([["a"]], 1)
    with pytest.raises(ValueError, match="points must be a dense real tensor"):
        k_center_greedy(torch.eye(3).to_sparse(), 1)
    with pytest.raises(ValueError, match="random_state"):
        k_center_greedy(points, 1, random_state="x")


def test_nothing_to_select():
    for n in (0, 3):
        picks = k_center_greedy(np.ones((n, 2)), 0)
        assert picks.shape == (0,) and picks.dtype == np.int64


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 1000])
def test_equals_the_plain_loop_at_size(offset):
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(6000, 128)) + offset).astype(np.float32)
    centers = (rng.normal(size=(200, 128)) + offset).astype(np.float32)
    picks = k_center_greedy(points, 400, centers=centers, random_state=0)
    assert picks.tolist() == naive(points, 400, centers)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees():
    points = torch.randn(5000, 64, generator=torch.Generator().manual_seed(0))
    picks = k_center_greedy(points, 300, random_state=0)
    on_cuda = k_center_greedy(points.cuda(), 300, random_state=0)
    assert np.array_equal(picks, on_cuda)
