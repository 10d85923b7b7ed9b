import numpy as np
import pytest
import torch
from scipy import sparse

from skal.selection import _herding, herding, kmeans_plusplus
from skal.selection._herding import _Coverage


def kernel_matrix(x, y, width):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    squares = np.stack([((x - row) ** 2).sum(1) for row in y], 1)
    return np.exp(-squares / width**2)


def plain(points, n_select, width, centers=None, weights=None):
    """Picks of the greedy algorithm on the whole matrix, and the gains of each."""
    kernel = kernel_matrix(points, points, width)
    weights = np.ones(len(points)) if weights is None else weights
    covered = np.zeros(len(points))
    if centers is not None and len(centers):
        covered = kernel_matrix(points, centers, width).max(1)
    picked, gains = [], []
    for _ in range(n_select):
        gain = weights @ np.maximum(kernel - covered[:, None], 0)
        gain[picked] = -1
        picked.append(int(gain.argmax()))
        gains.append(gain[picked[-1]])
        covered = np.maximum(covered, kernel[:, picked[-1]])
    return picked, np.array(gains)


def shortfalls(points, picks, width, centers=None, weights=None):
    """Largest gain less that of the pick, for each pick."""
    kernel = kernel_matrix(points, points, width)
    weights = np.ones(len(points)) if weights is None else weights
    covered = np.zeros(len(points))
    if centers is not None and len(centers):
        covered = kernel_matrix(points, centers, width).max(1)
    gaps = []
    for i, pick in enumerate(picks):
        gain = weights @ np.maximum(kernel - covered[:, None], 0)
        gain[picks[:i]] = -1
        gaps.append(gain.max() - gain[pick])
        covered = np.maximum(covered, kernel[:, pick])
    return np.array(gaps)


def make(kind, rng, n=900):
    points = rng.normal(size=(n, 20))
    if kind == "clusters":
        points = 0.3 * points + 4 * rng.normal(size=(8, 20))[rng.integers(0, 8, n)]
    elif kind == "offset":
        points += 1000
    elif kind == "duplicates":
        points = points[rng.integers(0, 120, n)] + 100
    elif kind == "near duplicates":
        points = points[rng.integers(0, 60, n)] + 1e-4 * points
    elif kind == "binary":
        points = (points[:, :9] > 0) + 7.0
    elif kind == "one far row":
        points[7] = 1e6
    elif kind == "far rows on all sides":
        points[:20] *= 1e8
    elif kind == "far groups":
        points += 1e7 * rng.integers(-1, 2, size=(n, 1))
    return points.astype(np.float32)


DISTINCT = ["plain", "clusters", "offset", "one far row"]
TIED = ["duplicates", "near duplicates", "binary", "far rows on all sides"]


@pytest.fixture(params=["kept", "not kept"])
def kernels(request, monkeypatch):
    """Whether kernels are kept, as those of few rows are, or computed again."""
    monkeypatch.setattr(_herding, "N_KEPT", 2**24 if request.param == "kept" else 0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("n_centers, width", [(0, 1.0), (40, 4.0)])
@pytest.mark.parametrize("kind", [*DISTINCT, *TIED, "far groups"])
def test_each_pick_adds_most(kind, n_centers, width):
    # More numbers than products are in double precision for, and several blocks.
    rng = np.random.default_rng(3)
    points = make(kind, rng, n=250 if kind == "far groups" else 900)
    centers = points[rng.integers(0, len(points), n_centers)]
    weights = rng.random(len(points))
    n_select = 15 if kind in ("far groups", "binary") else 40
    known = {"width": width, "centers": centers, "weights": weights}
    picks = herding(points, n_select, **known)
    assert picks.dtype == np.int64
    assert len(set(picks.tolist())) == n_select
    assert shortfalls(points, picks, **known).max() <= 1e-12 * len(points)
    if kind in DISTINCT:
        assert picks.tolist() == plain(points, n_select, **known)[0]


def test_ties_go_by_position_and_are_not_looked_at_one_by_one(monkeypatch):
    exact, looks = _herding._Coverage.exact, []

    def looked(self, row):
        looks.append(row)
        return exact(self, row)

    monkeypatch.setattr(_herding._Coverage, "exact", looked)
    assert herding(np.eye(400), 50).tolist() == list(range(50))
    assert len(looks) == 50


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_centers", [0, 1, 7])
def test_equals_the_plain_loop(dtype, n_centers):
    rng = np.random.default_rng(n_centers)
    for _ in range(25):
        n, d = rng.integers(1, 40), rng.integers(1, 8)
        known = {
            "centers": rng.normal(size=(n_centers, d)).astype(dtype),
            "weights": rng.random(n) + 0.1,
            "width": 10 ** rng.uniform(-0.5, 0.5),
        }
        points = rng.normal(size=(n, d)).astype(dtype)
        picks = herding(points, int(n), **known)
        expected, gains = plain(points, n, **known)
        clear = int((gains > 1e-9).sum())  # Then only rounding is left to compare.
        assert picks[:clear].tolist() == expected[:clear]
        assert sorted(picks) == list(range(n))


def test_line():
    # First 3 and 4 cover each other by exp(-1); then 10 adds 1, 0 adds 1 - exp(-9).
    line = np.array([[0.0], [3], [4], [10]])
    assert herding(line, 4, width=1.0).tolist() == [1, 3, 0, 2]
    assert herding(line, 4, width=1.0, centers=line[3:]).tolist() == [1, 0, 2, 3]


def test_one_pick_is_the_row_of_largest_kernel_mean():
    points = make("clusters", np.random.default_rng(4))
    expected = kernel_matrix(points, points, 3.0).mean(0).argmax()
    assert herding(points, 1, width=3.0).tolist() == [expected]


def test_weights_of_0_and_1_cover_a_subset():
    rng = np.random.default_rng(5)
    points = make("clusters", rng)
    kept = rng.random(len(points)) < 0.3
    covered, width = np.zeros(kept.sum()), 2.0
    kernel = kernel_matrix(points[kept], points, width)
    expected = []
    for _ in range(30):
        gain = np.maximum(kernel - covered[:, None], 0).sum(0)
        gain[expected] = -1
        expected.append(int(gain.argmax()))
        covered = np.maximum(covered, kernel[:, expected[-1]])
    weights = kept.astype(int)
    assert herding(points, 30, weights=weights, width=width).tolist() == expected
    same = herding(points, 30, weights=kept * 7e300, width=width)
    assert same.tolist() == expected


def test_copies_of_centres_come_last():
    points = make("plain", np.random.default_rng(6), n=60)
    points[10:20] = points[0]
    points[40] = points[50] = points[30]
    picks = herding(points, 60, centers=points[:1], width=5.0).tolist()
    assert picks[-13:] == [0, *range(10, 20), 40, 50]
    nothing = herding(points, 3, weights=np.zeros(60), width=1.0)
    assert nothing.tolist() == [0, 1, 2]
    assert herding(np.ones((5, 2)), 5).tolist() == [0, 1, 2, 3, 4]


def test_rows_that_add_nothing_come_by_weight():
    weights = np.array([1.0, 3.0, 0.0, 3.0, 2.0])
    picks = herding(np.ones((5, 2)), 5, centers=np.ones((1, 2)), weights=weights)
    assert picks.tolist() == [1, 3, 4, 0, 2]


def test_points_of_any_type():
    points = np.array([[0], [1], [2], [3], [9]])
    for kind in (np.int8, np.uint16, np.uint64, ">i4", np.float16, np.longdouble):
        assert herding(points.astype(kind), 2, width=2.0).tolist() == [2, 4]
    for kind in (torch.uint8, torch.uint16, torch.int32, torch.bfloat16):
        assert herding(torch.tensor(points).to(kind), 2, width=2.0).tolist() == [2, 4]


@pytest.mark.parametrize("of", [np.asarray, torch.tensor])
def test_integers_that_float32_cannot_hold(of):
    points = 2**24 + np.array([[0], [1], [2], [3], [9]])
    picks = herding(points.astype(float), 2, width=2.0)
    assert herding(of(points), 2, width=2.0).tolist() == picks.tolist() == [2, 4]


def test_rows_too_far_apart_to_tell_apart():
    # All gains are 1: no row needs more than a look, or this takes minutes.
    points = make("plain", np.random.default_rng(13), n=4000)
    picks = herding(points, 30, width=1e-3)
    assert len(set(picks.tolist())) == 30
    assert picks.tolist() == herding(points, 30, width=1e-3).tolist()


def test_width_by_hand():
    # Distances to the nearest centre are 0, 1, 2, 3, 4, 0; the copies do not count.
    rng = np.random.default_rng(7)
    points = np.array([[0.0], [1], [2], [3], [4], [20]])
    centers = np.array([[0.0], [20]])
    weights = rng.random(6)
    known = {"centers": centers, "weights": weights}
    by_hand = herding(points, 4, width=2.5, **known).tolist()
    assert herding(points, 4, **known).tolist() == by_hand
    assert by_hand != herding(points, 4, width=0.5, **known).tolist()


@pytest.mark.parametrize("width", ["median", "smallest"])
def test_named_widths_equal_their_numbers(width):
    rng = np.random.default_rng(8)
    points = make("clusters", rng)
    centers = rng.normal(size=(50, 20)).astype(np.float32)
    centers[1] = centers[0]
    gaps = np.linalg.norm(points[:, None].astype(float) - centers, axis=2).min(1)
    between = np.linalg.norm(centers[:, None].astype(float) - centers, axis=2)
    number = {"median": np.median(gaps), "smallest": between[between > 0].min()}[width]
    expected = plain(points, 20, number, centers)[0]
    assert herding(points, 20, centers=centers, width=width).tolist() == expected


def test_median_width_without_centres():
    points = make("clusters", np.random.default_rng(9))
    draws = points[kmeans_plusplus(points, 20, random_state=1)].astype(float)
    gaps = np.linalg.norm(points[:, None] - draws, axis=2).min(1)
    expected = plain(points, 20, np.median(gaps[gaps > 0]))[0]
    assert herding(points, 20, random_state=1).tolist() == expected


@pytest.mark.usefixtures("kernels")
def test_sampled_references():
    rng = np.random.default_rng(10)
    points = make("clusters", rng)
    more = {"width": 2.0, "max_references": 300, "random_state": 1}
    picks = herding(points, 20, **more)
    assert picks.tolist() == herding(points, 20, **more).tolist()
    assert len(set(picks.tolist())) == 20
    kernel = kernel_matrix(points, points, 2.0)
    best = kernel[:, plain(points, 20, 2.0)[0]].max(1).sum()
    assert kernel[:, picks].max(1).sum() > 0.9 * best
    # Rows without weight are not drawn.
    weights = (np.arange(900) < 300).astype(float)
    expected = plain(points, 20, 2.0, weights=weights)[0]
    assert herding(points, 20, weights=weights, **more).tolist() == expected


def test_tensors_and_scale_do_not_matter():
    points = make("clusters", np.random.default_rng(11))
    expected = herding(points, 20, width=2.0).tolist()
    assert herding(torch.from_numpy(points), 20, width=2.0).tolist() == expected
    assert herding(points * 2.0**-60, 20, width=2.0**-59).tolist() == expected
    assert herding(points * 2.0**40, 20, width=2.0**41).tolist() == expected


def test_nothing_of_the_caller_changes():
    points = make("plain", np.random.default_rng(12))
    points.flags.writeable = False
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    assert herding(points, 0).shape == (0,)
    assert herding(points[:0], 0).shape == (0,)
    herding(points, 3, random_state=0)
    assert np.random.get_state()[1].tolist() == before[0]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"points": np.ones(3)}, "points must be 2-D"),
        ({"points": np.ones((5, 0))}, "points must have one column"),
        ({"points": sparse.csr_array(np.eye(5))}, "points must be dense, got a sparse"),
        ({"points": [[np.nan, 0.0]], "n_select": 1}, "points must be finite"),
        ({"n_select": 6}, "n_select must be an int between 0 and 5"),
        ({"centers": np.ones((2, 3))}, "centers must have 2 columns"),
        ({"centers": [[np.inf, 0.0]]}, "centers must be finite"),
        ({"weights": np.ones(4)}, "weights must have 5 entries"),
        ({"weights": -np.ones(5)}, "weights must be finite and not negative"),
        ({"weights": np.full(5, np.nan)}, "weights must be finite and not negative"),
        ({"width": 0}, "width must be a positive number"),
        ({"width": np.nan}, "width must be a positive number"),
        ({"width": True}, "width must be a positive number"),
        ({"width": "mean"}, "width must be a positive number"),
        ({"width": "smallest"}, "needs two distinct centers"),
        ({"width": "smallest", "centers": np.ones((2, 2))}, "two distinct centers"),
        ({"max_references": 0}, "max_references must be an int of at least 1"),
        ({"random_state": "a"}, "random_state must be"),
    ],
)
def test_bad_input(changed, message):
    known = {"points": np.arange(10.0).reshape(5, 2), "n_select": 2} | changed
    with pytest.raises(ValueError, match=message):
        herding(known.pop("points"), known.pop("n_select"), **known)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_and_losses_hold_and_are_tight(dtype):
    """What rows add is within bounds, and they lost at least what is said."""
    points = torch.randn(1500, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    references, weights = torch.arange(1500), torch.ones(1500, dtype=torch.float64)
    coverage = _Coverage(points, references, weights, 6.0, None)
    kernel = torch.from_numpy(kernel_matrix(points, points, 6.0))
    rows, covered, before = torch.arange(700, 1200), torch.zeros(1500), None
    for pick in (3, 800, 1400):
        coverage.add(coverage.exact(pick)[1])
        covered = torch.maximum(covered, kernel[:, pick])
        gain = (kernel[:, rows] - covered[:, None]).clamp(min=0).sum(0)
        low, high = coverage.bounds(rows, dtype)
        assert (low <= gain).all() and (gain <= high).all()
        assert float((high - low).max()) < 1e-3 * float(gain.max())
        if before is not None:
            losses = coverage.losses(rows)
            assert (losses <= before - gain + 1e-12).all()
            assert float((before - gain - losses).max()) < 1e-3 * float(gain.max())
        if pick != 800:
            before = gain
            coverage.settle()
