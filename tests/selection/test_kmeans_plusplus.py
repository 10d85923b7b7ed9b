from itertools import permutations

import numpy as np
import pytest
import torch

from skal.selection import _distances as distances
from skal.selection import _kmeans_plusplus as module
from skal.selection import kmeans_plusplus


def outer(left, right):
    return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)


def sequence_probabilities(points, n_select, first):
    """Exact probability of each sequence of sequential D^2 sampling."""
    distances = ((points[:, None] - points) ** 2).sum(2)
    table = {}
    for sequence in permutations(range(len(points)), n_select):
        if first == "norm":
            p = float(sequence[0] == (points**2).sum(1).argmax())
        else:
            p = 1 / len(points)
        for i in range(1, n_select):
            nearest = distances[list(sequence[:i])].min(0)
            p *= nearest[sequence[i]] / nearest.sum()
        if p > 0:
            table[sequence] = p
    assert abs(sum(table.values()) - 1) < 1e-12
    return table


def chi_squared(draws, table):
    n, statistic = len(draws), 0.0
    counts = {}
    for draw in draws:
        counts[draw] = counts.get(draw, 0) + 1
    assert set(counts) <= set(table)
    for sequence, p in table.items():
        statistic += (counts.get(sequence, 0) - n * p) ** 2 / (n * p)
    # About normal; five standard deviations above the mean.
    degrees = len(table) - 1
    return statistic, degrees + 5 * np.sqrt(2 * degrees) + 10


def test_squared_distances_not_their_squares():
    points = np.array([[0.0], [1.0], [3.0]])
    seconds = []
    for seed in range(1500):
        first, second = kmeans_plusplus(points, 2, random_state=seed)
        assert first == 2
        seconds.append(second)
    share = seconds.count(0) / 1500
    deviation = np.sqrt(9 / 13 * 4 / 13 / 1500)
    assert abs(share - 9 / 13) < 4 * deviation  # D^4 would give 81/97.
    assert 2 not in seconds


@pytest.mark.parametrize("first", ["norm", "uniform"])
@pytest.mark.parametrize("as_factors", [False, True])
def test_sequences_have_the_exact_distribution(first, as_factors):
    # Four picks of five rows out of one block, so most candidates meet a rejection.
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    points = outer(left, right)
    factors = (left, right) if as_factors else points
    table = sequence_probabilities(points, 3, first)
    draws = [
        tuple(kmeans_plusplus(factors, 3, first=first, random_state=s).tolist())
        for s in range(1500)
    ]
    statistic, limit = chi_squared(draws, table)
    assert statistic < limit


def test_blocks_of_one_draw_and_deep_blocks_agree_in_distribution(monkeypatch):
    points = np.array([[0.0], [1.0], [1.5], [4.0], [6.0]])
    table = sequence_probabilities(points, 4, "norm")
    for smallest in (1, 300):
        monkeypatch.setattr(module, "SMALLEST_BLOCK", smallest)
        draws = [
            tuple(kmeans_plusplus(points, 4, random_state=s).tolist())
            for s in range(800)
        ]
        statistic, limit = chi_squared(draws, table)
        assert statistic < limit


@pytest.mark.parametrize("first", ["norm", "uniform"])
def test_factors_equal_their_outer_products(first):
    rng = np.random.default_rng(0)
    for seed in range(20):
        left, right = rng.normal(size=(80, 3)), rng.normal(size=(80, 6))
        kwargs = dict(first=first, random_state=seed)
        picks = kmeans_plusplus((left, right), 40, **kwargs)
        explicit = kmeans_plusplus(outer(left, right), 40, **kwargs)
        assert np.array_equal(picks, explicit)
        assert np.array_equal(picks, kmeans_plusplus([left, right], 40, **kwargs))


def test_more_picks_only_append():
    points = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    many = kmeans_plusplus(points, 300, random_state=1)
    for n in (1, 2, 40, 150):
        assert np.array_equal(many[:n], kmeans_plusplus(points, n, random_state=1))


@pytest.mark.parametrize("rows", [[[0.0], [1]], [[0.0], [0], [1], [1], [1]]])
def test_more_picks_only_append_where_there_are_copies(rows):
    points = np.repeat(rows, 5, axis=0)
    for factors in (points, (points + 1, points + 2)):
        many = kmeans_plusplus(factors, len(points), random_state=0)
        for n in range(len(points)):
            assert np.array_equal(many[:n], kmeans_plusplus(factors, n, random_state=0))


@pytest.mark.parametrize("far", [1e4, 1e7])
@pytest.mark.parametrize("as_factors", [False, True])
def test_sequences_have_the_exact_distribution_below_rounding(
    monkeypatch, far, as_factors
):
    # In single precision all distances but those to the last row are rounding.
    monkeypatch.setattr(distances, "working_dtype", lambda _: torch.float32)
    points = np.array([[0.0, 1], [1, 1], [1.5, 1], [3, 1], [far, 1]])
    factors = points
    if as_factors:
        factors = (points - [far / 2, 0], np.ones((5, 2)))
        points = outer(*factors)
    table = sequence_probabilities(points, 3, "norm")
    table = {s: p for s, p in table.items() if p > 1e-3}
    draws = [
        tuple(kmeans_plusplus(factors, 3, random_state=s).tolist()) for s in range(400)
    ]
    statistic, limit = chi_squared(draws, table)
    assert statistic < limit


@pytest.mark.parametrize("spread", ["groups", "one far row"])
def test_single_precision_draws_as_double(spread):
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 300)
    points = rng.normal(size=(900, 64))
    if spread == "groups":
        points[:, 0] += 1e5 * (group - 1)
    else:
        points[group == 1] *= 3
        points[0] = 1e7
    points, counts = points.astype(np.float32), []
    for kind in (np.float32, np.float64):
        picks = [
            kmeans_plusplus(points.astype(kind), 60, random_state=s) for s in range(3)
        ]
        counts.append(np.bincount(group[np.concatenate(picks)], minlength=3))
    # Deviations of at most about 6 if each draw were on its own; they repel.
    assert abs(counts[0] - counts[1]).max() < 30


def test_an_offset_changes_nothing():
    rng = np.random.default_rng(0)
    points = rng.integers(-8, 8, size=(400, 5)).astype(np.float32)
    picks = kmeans_plusplus(points, 50, first="uniform", random_state=0)
    moved = kmeans_plusplus(points + 2**14, 50, first="uniform", random_state=0)
    assert np.array_equal(picks, moved)


def test_largest_norm_first_lowest_position_of_equals():
    points = np.array([[1.0, 0], [0, -5], [3, 4], [0, 0]])
    assert kmeans_plusplus(points, 1).tolist() == [1]
    assert kmeans_plusplus((points, points[:, ::-1]), 1).tolist() == [1]


def test_uniform_first():
    points = np.arange(4.0)[:, None]
    firsts = [
        kmeans_plusplus(points, 1, first="uniform", random_state=s)[0]
        for s in range(800)
    ]
    counts = np.bincount(firsts, minlength=4)
    assert ((counts - 200) ** 2 / 200).sum() < 21.1  # Probability 1e-4.


def test_copies_are_not_drawn_while_others_are_left():
    rng = np.random.default_rng(0)
    for width in (2, 300):
        base = rng.normal(size=(12, width)).astype(np.float32)
        points = base[rng.permutation(np.repeat(np.arange(12), 30))]
        for factors in (points, (points, np.ones((360, 3), np.float32))):
            picks = kmeans_plusplus(factors, 200, random_state=0)
            assert len(np.unique(points[picks[:12]], axis=0)) == 12
            assert len(set(picks.tolist())) == 200


def test_near_copies_beat_copies():
    # In float32 products the distances inside a group vanish; float64 sees them.
    points = np.zeros((6000, 3), np.float32)
    points[30:] = 1000
    points[:4, 0] = [1e-3, 2e-3, 3e-3, 4e-3]
    picks = kmeans_plusplus(points, 6, random_state=0)
    assert set(range(4)) <= set(picks.tolist())


@pytest.mark.slow
def test_points_that_coincide_are_drawn_uniformly():
    zeros = np.zeros((6, 3), np.float32)
    seconds = np.zeros(6)
    for seed in range(1000):
        picks = kmeans_plusplus((zeros, zeros), 6, random_state=seed)
        assert picks[0] == 0 and sorted(picks) == list(range(6))
        seconds[picks[1]] += 1
    assert ((seconds[1:] - 200) ** 2 / 200).sum() < 23.5  # Probability 1e-4.


@pytest.mark.parametrize("n", [1, 2, 37, 700])
def test_all_rows_are_a_permutation(n):
    points = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    for factors in (points, (points, points[:, :2])):
        assert sorted(kmeans_plusplus(factors, n, random_state=0)) == list(range(n))


def test_kinds_of_input_agree_and_stay_as_they_are():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(300, 8)).astype(np.float32)
    left, right = wide[::-1, ::2], wide[:, 1::2]
    before, state = wide.tobytes(), torch.get_rng_state()
    wide.flags.writeable = False
    copies = left.copy(), right.copy()
    expected = kmeans_plusplus(copies, 50, random_state=3)
    assert expected.dtype == np.int64
    for factors in (
        (left, right),
        (torch.tensor(copies[0]), right),
        tuple(torch.tensor(c).T.contiguous().T for c in copies),
        [torch.tensor(copies[0], requires_grad=True), torch.tensor(copies[1])],
    ):
        picks = kmeans_plusplus(factors, 50, random_state=3)
        assert np.array_equal(picks, expected)
    assert wide.tobytes() == before
    assert torch.equal(state, torch.get_rng_state())


def test_tiny_numbers_keep_their_distances():
    points = np.array([[0.0], [1e-30], [3e-30]], np.float32)
    seconds = [kmeans_plusplus(points, 2, random_state=s)[1] for s in range(400)]
    assert abs(seconds.count(0) / 400 - 9 / 13) < 4 * np.sqrt(36 / 169 / 400)


def test_errors():
    points = np.ones((3, 2))
    for bad in (-1, 4, 2.0, True, "2"):
        message = "n_select must be an int between 0 and 3, the number of rows of fact"
        with pytest.raises(ValueError, match=message):
            kmeans_plusplus(points, bad)
    with pytest.raises(ValueError, match="first must be 'norm' or 'uniform', got 'x'"):
        kmeans_plusplus(points, 1, first="x")
    with pytest.raises(ValueError, match="factors must have equally many rows"):
        kmeans_plusplus((points, points[:2]), 1)
    with pytest.raises(ValueError, match="factors must be finite"):
        kmeans_plusplus((points, points * [np.nan, 1]), 0)
    with pytest.raises(ValueError, match=r"factors must be 2-D, got shape \(3,\)"):
        kmeans_plusplus(np.ones(3), 1)
    with pytest.raises(ValueError, match="factors must be 2-D"):
        kmeans_plusplus((points, points, points), 1)


def test_nothing_to_select():
    picks = kmeans_plusplus(np.ones((3, 2)), 0)
    assert picks.shape == (0,) and picks.dtype == np.int64
    assert kmeans_plusplus(np.ones((0, 2)), 0).shape == (0,)


def blobs(n_rows=3000, n_blobs=40, n_columns=6, seed=0):
    rng = np.random.default_rng(seed)
    centers = 10 * rng.standard_normal((n_blobs, n_columns))
    return centers[rng.integers(n_blobs, size=n_rows)] + rng.standard_normal(
        (n_rows, n_columns)
    )


def mean_potential(X, n_select, **options):
    found = []
    for seed in range(10):
        picks = kmeans_plusplus(X, n_select, random_state=seed, **options)
        assert len(set(picks.tolist())) == n_select
        gaps = ((X[:, None] - X[picks][None]) ** 2).sum(2)
        found.append(gaps.min(1).sum())
    return np.mean(found)


def test_few_passes_give_about_the_potential_of_many():
    X = blobs()
    few = mean_potential(X, 40, first="uniform", oversampling=2)
    assert few < 1.1 * mean_potential(X, 40, first="uniform")


def test_few_passes_over_pairs_are_those_over_their_products():
    rng = np.random.default_rng(0)
    a, h = rng.standard_normal((200, 2)), rng.standard_normal((200, 3))
    points = np.einsum("ni,nj->nij", a, h).reshape(200, 6)
    for seed in range(3):
        options = {"oversampling": 1.5, "random_state": seed}
        np.testing.assert_array_equal(
            kmeans_plusplus((a, h), 12, **options),
            kmeans_plusplus(points, 12, **options),
        )


def test_few_passes_over_few_distinct_rows():
    X = np.repeat(np.eye(3), 5, axis=0)
    for n_select in (0, 1, 2, 3, 9, 15):
        picks = kmeans_plusplus(X, n_select, oversampling=2, random_state=0)
        assert len(set(picks.tolist())) == n_select
        assert len(np.unique(X[picks], axis=0)) == min(n_select, 3)


@pytest.mark.parametrize("oversampling", [0, -1, np.inf, np.nan, True, "2"])
def test_oversampling_is_a_positive_number(oversampling):
    with pytest.raises(ValueError, match="oversampling must be a positive number"):
        kmeans_plusplus(np.eye(3), 2, oversampling=oversampling)


@pytest.mark.parametrize("oversampling", [None, 2])
def test_weights_are_numbers_of_copies(oversampling):
    """The second draw falls on each row as often as its weight and distance say."""
    X, weights = np.array([[9.0], [0.0], [6.0], [8.0]]), np.array([1.0, 1.0, 5.0, 3.0])
    if oversampling is None:
        mass = weights * (X[:, 0] - 9) ** 2
        counts = np.zeros(4)
        for seed in range(1000):
            options = {"weights": weights, "random_state": seed}
            counts[kmeans_plusplus(X, 2, **options)[1]] += 1
        np.testing.assert_allclose(counts / 1000, mass / mass.sum(), atol=0.05)
    uniform = {"first": "uniform", "weights": weights, "oversampling": oversampling}
    firsts = [kmeans_plusplus(X, 1, random_state=s, **uniform)[0] for s in range(1000)]
    shares = np.bincount(firsts, minlength=4) / 1000
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.05)


@pytest.mark.parametrize("weights", [[1.0], [1, 1, 0], [1, 1, np.nan], [[1, 1, 1]]])
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="weights must"):
        kmeans_plusplus(np.eye(3), 2, weights=np.array(weights))
