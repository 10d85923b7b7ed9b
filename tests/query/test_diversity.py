from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skal import (
    ActiveLearningLoop,
    CoreSetQuery,
    KCenterGreedyQuery,
    KMeansQuery,
    MaxHerdingQuery,
    PoolView,
    ProbCoverQuery,
    RandomQuery,
    TypiClustQuery,
)
from skal.query import _diversity
from skal.testing._pools import make_pool


def blobs(sizes, n_features=4):
    """Separated blobs in random order, and the row nearest to each blob's mean."""
    rng = np.random.default_rng(0)
    centers = 100 * np.eye(len(sizes), n_features)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = centers[y] + rng.standard_normal((len(y), n_features))
    nearest = []
    for k in range(len(sizes)):
        (members,) = np.nonzero(y == k)
        gaps = np.linalg.norm(X[members] - X[members].mean(0), axis=1)
        nearest.append(members[gaps.argmin()])
    return X, nearest


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kmeans_takes_the_row_nearest_to_the_mean_of_each_blob(fake_pool, dtype):
    X, nearest = blobs([5, 30, 10, 20])
    pool = fake_pool(embeddings=X.astype(dtype))
    picks = KMeansQuery().query(pool, 4)
    # Larger clusters first.
    assert picks.tolist() == [nearest[k] for k in (1, 3, 2, 0)]


def test_kmeans_with_one_sample_takes_the_row_nearest_to_the_mean(fake_pool):
    X = np.random.default_rng(0).standard_normal((50, 3))
    picks = KMeansQuery().query(fake_pool(embeddings=X), 1)
    assert picks[0] == np.linalg.norm(X - X.mean(0), axis=1).argmin()


def test_kmeans_takes_the_whole_pool(fake_pool):
    X = np.random.default_rng(0).standard_normal((20, 3))
    assert sorted(KMeansQuery().query(fake_pool(embeddings=X), 20)) == list(range(20))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_kmeans_of_equal_rows_takes_distinct_rows(fake_pool, value):
    pool = fake_pool(embeddings=np.full((20, 3), value, dtype=np.float32))
    assert len(set(KMeansQuery().query(pool, 7))) == 7


@pytest.mark.parametrize("n_samples", [4, 6, 15])
def test_kmeans_with_fewer_distinct_rows_takes_each_kind(fake_pool, n_samples):
    X = np.repeat([[0.0, 1.0], [5.0, 5.0], [-3.0, 2.0]], 5, axis=0)
    picks = KMeansQuery().query(fake_pool(embeddings=X), n_samples)
    assert len(set(picks)) == n_samples
    assert set(picks[:3] // 5) == {0, 1, 2}


def test_k_center_on_a_line(fake_pool):
    pool = fake_pool(
        embeddings=[[4.0], [5.0], [6.0], [10.0]],
        labeled=fake_pool(embeddings=[[0.0]]),
    )
    # 10 leaves a radius of 5; then 5 is farthest, at 5 from both.
    assert KCenterGreedyQuery().query(pool, 1).tolist() == [3]
    assert KCenterGreedyQuery().query(pool, 2).tolist() == [3, 1]


def test_k_center_without_labeled_rows_starts_farthest_from_the_mean():
    X = np.random.default_rng(0).standard_normal((30, 3))
    picks = KCenterGreedyQuery().query(PoolView(None, X), 1)
    assert picks[0] == np.linalg.norm(X - X.mean(0), axis=1).argmax()


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
def test_k_center_takes_near_copies_of_labeled_rows_last(fake_pool, offset):
    """In float32 |a|^2 + |b|^2 - 2ab of near copies is often below 0: no square root.

    A NaN distance would rank these rows first, the opposite of what is wanted.
    """
    rng = np.random.default_rng(0)
    labeled = offset + rng.standard_normal((40, 64))
    far = offset + rng.standard_normal((40, 64))
    X = np.vstack([labeled + 1e-5 * rng.standard_normal(labeled.shape), far])
    pool = fake_pool(
        embeddings=X.astype(np.float32),
        labeled=fake_pool(embeddings=labeled.astype(np.float32)),
    )
    picks = KCenterGreedyQuery().query(pool, 80)
    assert set(picks[:40]) == set(range(40, 80))


def test_k_center_takes_copies_of_labeled_rows_last(fake_pool):
    rng = np.random.default_rng(1)
    labeled = rng.standard_normal((5, 8)).astype(np.float32)
    X = np.vstack([labeled, rng.standard_normal((15, 8)).astype(np.float32)])
    pool = fake_pool(embeddings=X, labeled=fake_pool(embeddings=labeled))
    assert set(KCenterGreedyQuery().query(pool, 20)[15:]) == set(range(5))


@pytest.mark.parametrize("kind", ["net", "linear"])
def test_k_center_is_the_naive_greedy_with_shrinking_distances(kind):
    pool = make_pool(kind)
    points = pool.embeddings.double().numpy()
    nearest = cdist(points, pool.labeled.embeddings.double().numpy()).min(1)
    naive, gaps = [], []
    for _ in range(20):
        naive.append(int(nearest.argmax()))
        gaps.append(nearest.max())
        nearest = np.minimum(nearest, cdist(points, points[naive[-1:]])[:, 0])
    assert KCenterGreedyQuery().query(pool, 20).tolist() == naive
    assert np.all(np.diff(gaps) <= 0)


@pytest.mark.parametrize("seed", range(5))
def test_k_center_radius_is_at_most_twice_the_best_given_the_labeled(fake_pool, seed):
    rng = np.random.default_rng(seed)
    labeled, points = rng.standard_normal((2, 2)), rng.standard_normal((9, 2))
    covered = cdist(points, labeled).min(1)
    between = cdist(points, points)

    def radius(picks):
        return np.minimum(covered, between[:, picks].min(1)).max()

    pool = fake_pool(embeddings=points, labeled=fake_pool(embeddings=labeled))
    picks = KCenterGreedyQuery().query(pool, 3)
    best = min(radius(list(some)) for some in combinations(range(9), 3))
    assert best <= radius(picks) <= 2 * best


def test_core_set_on_a_line(fake_pool):
    labeled = fake_pool(embeddings=[[0.0]])
    pool = fake_pool(embeddings=[[4.0], [5.0], [6.0], [10.0]], labeled=labeled)
    strategy = CoreSetQuery()
    # The greedy pick is 10, and leaves a radius of 5.
    assert strategy.query(pool, 1).tolist() == [2]
    assert strategy.radius_bounds_ == (4.0, 4.0)
    assert strategy.n_candidates_ == 4
    pool = fake_pool(embeddings=[[1.0], [2.0], [3.0], [4.0], [100.0]], labeled=labeled)
    assert strategy.query(pool, 1).tolist() == [4]
    # A fifth is one row: the far one stays out.
    assert strategy.set_params(outlier_fraction=0.2).query(pool, 1).tolist() == [2]
    assert strategy.radius_bounds_ == (1.0, 1.0)


@pytest.mark.parametrize("fraction, n_outliers", [(0.29, 29), (0.0, 0), (0.999, 99)])
def test_core_set_rounds_outliers_down(fake_pool, fraction, n_outliers):
    X = np.zeros((100, 1))
    X[: n_outliers + 1] = 2.0 + np.arange(n_outliers + 1)[:, None]
    pool = fake_pool(embeddings=X, labeled=fake_pool(embeddings=[[0.0]]))
    strategy = CoreSetQuery(outlier_fraction=fraction)
    strategy.query(pool, 1)
    near = np.minimum(X, abs(X - X.T))
    radii = np.sort(near, axis=0)[-1 - n_outliers]
    assert strategy.radius_bounds_ == (radii.min(), radii.min())


@pytest.mark.parametrize("max_points, n_candidates", [(40, 40), (80, 80), (200, 80)])
@pytest.mark.parametrize("outlier_fraction", [0.0, 0.05])
def test_core_set_is_never_worse_than_greedy(
    fake_pool, max_points, n_candidates, outlier_fraction
):
    rng = np.random.default_rng(0)
    X, X_labeled = rng.standard_normal((80, 2)), rng.standard_normal((3, 2))
    pool = fake_pool(embeddings=X, labeled=fake_pool(embeddings=X_labeled))

    def radius(picks):
        near = cdist(X, np.vstack([X_labeled, X[picks]])).min(1)
        return np.sort(near)[-1 - int(outlier_fraction * 80)]

    strategy = CoreSetQuery(outlier_fraction=outlier_fraction, max_points=max_points)
    picks = strategy.query(pool, 8)
    lower, upper = strategy.radius_bounds_
    assert strategy.n_candidates_ == n_candidates
    assert upper == pytest.approx(radius(picks), rel=1e-6)
    assert lower <= upper
    assert (lower == upper) or n_candidates < 80
    assert upper <= radius(KCenterGreedyQuery().query(pool, 8)) * (1 + 1e-6)


def test_core_set_without_time_takes_the_greedy_rows(fake_pool):
    X = np.random.default_rng(0).standard_normal((50, 4))
    pool = fake_pool(embeddings=X, labeled=fake_pool(embeddings=X[:1] + 1))
    picks = CoreSetQuery(time_limit=0).query(pool, 5)
    assert picks.tolist() == KCenterGreedyQuery().query(pool, 5).tolist()
    strategy = CoreSetQuery(time_limit=np.inf)  # until it is proven
    strategy.query(pool, 5)
    lower, upper = strategy.radius_bounds_
    assert lower == upper


@pytest.mark.parametrize(
    "name, value",
    [
        ("outlier_fraction", 1.0),
        ("outlier_fraction", -0.1),
        ("outlier_fraction", np.nan),
        ("outlier_fraction", "0.1"),
        ("time_limit", -1),
        ("time_limit", None),
        ("max_points", 0),
        ("max_points", 1.5),
    ],
)
def test_core_set_refuses_bad_parameters_before_any_output(name, value):
    class Untouchable:
        def __getattr__(self, attribute):
            raise AssertionError(f"asked for {attribute}")

    with pytest.raises(
        (TypeError, ValueError), match=f"'{name}' parameter of CoreSetQuery"
    ):
        CoreSetQuery(**{name: value}).query(Untouchable(), 1)


def greedy_coverage(kernel, covered, n_samples):
    """Picks that add most to the sum of the largest entry in each row."""
    picks = []
    for _ in range(n_samples):
        gains = np.maximum(kernel - covered[:, None], 0).sum(0)
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        covered = np.maximum(covered, kernel[:, picks[-1]])
    return picks


def units(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "width, n_labeled", [(0.5, 0), (0.5, 9), ("median", 1), ("median", 9)]
)
def test_max_herding_is_the_greedy_on_the_whole_kernel(fake_pool, width, n_labeled):
    rng = np.random.default_rng(n_labeled)
    X, X_labeled = rng.standard_normal((80, 5)), rng.standard_normal((n_labeled, 5))
    labeled = fake_pool(embeddings=X_labeled) if n_labeled else None
    X, X_labeled = units(X), units(X_labeled)
    sigma, covered = width, np.zeros(len(X))
    if n_labeled:
        distances = cdist(X, X_labeled).min(1)
        sigma = np.median(distances) if width == "median" else width
        covered = np.exp(-((distances / sigma) ** 2))
    kernel = np.exp(-((cdist(X, X) / sigma) ** 2))
    expected = greedy_coverage(kernel, covered, 15)
    pool = fake_pool(embeddings=3 * X, labeled=labeled)
    assert MaxHerdingQuery(width=width).query(pool, 15).tolist() == expected


def test_max_herding_sees_directions_in_the_space_of_embeddings(fake_pool):
    X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    scale = 2.0 ** np.random.default_rng(1).integers(-90, 90, (40, 1))
    picks = MaxHerdingQuery().query(fake_pool(embeddings=X), 12)
    scaled = fake_pool(embeddings=X * scale.astype(np.float32))
    assert MaxHerdingQuery().query(scaled, 12).tolist() == picks.tolist()


def test_max_herding_takes_rows_of_zeros(fake_pool):
    X = np.zeros((30, 4), dtype=np.float32)
    X[:20] = np.random.default_rng(0).standard_normal((20, 4))
    pool = fake_pool(embeddings=X, labeled=fake_pool(embeddings=X[25:]))
    picks = MaxHerdingQuery().query(pool, 30)
    assert set(picks[20:]) == set(range(20, 30))  # copies of a labelled one


def test_max_herding_of_features_on_a_line():
    # 5 covers its neighbours 4 and 6 by exp(-1/4) each; then 0 adds most.
    X = np.array([[0], [4], [5], [6], [9]])
    strategy = MaxHerdingQuery(space="features", width=2.0)
    assert strategy.query(PoolView(None, X), 2).tolist() == [2, 0]
    pool = PoolView(None, X, X_labeled=np.array([[0]]))
    assert strategy.query(pool, 2).tolist() == [2, 4]


def test_max_herding_sees_features_behind_transformers():
    X = np.random.default_rng(0).standard_normal((60, 3)) * [1, 1, 1e6]
    y = (X[:, 0] > 0).astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    # A seed, since two rows that cover but each other add the same.
    strategy = MaxHerdingQuery(space="features", random_state=0)
    picks = strategy.query(PoolView(model, X[10:], X_labeled=X[:10]), 12)
    Z = model[0].transform(X)
    expected = strategy.query(PoolView(None, Z[10:], X_labeled=Z[:10]), 12)
    assert picks.tolist() == expected.tolist()


@pytest.mark.parametrize("space", ["embeddings", "features"])
def test_max_herding_takes_images_and_items_of_a_dataset_as_rows(space):
    images = np.random.default_rng(0).random((20, 1, 3, 3))
    strategy = MaxHerdingQuery(space=space)
    rows = strategy.query(PoolView(None, images.reshape(20, 9), random_state=0), 5)
    picks = strategy.query(PoolView(None, images, random_state=0), 5)
    assert picks.tolist() == rows.tolist()
    if space == "features":
        items = torch.utils.data.TensorDataset(torch.from_numpy(images))
        picks = strategy.query(PoolView(None, items, random_state=0), 5)
        assert picks.tolist() == rows.tolist()


@pytest.mark.parametrize("space", ["embeddings", "features"])
def test_max_herding_begins_a_loop_without_a_model(space):
    X, nearest = blobs([30, 30, 30, 30])
    y = (X > 50).argmax(1)
    loop = ActiveLearningLoop(
        LogisticRegression(),
        RandomQuery(),
        initial=MaxHerdingQuery(space=space, width=1.0 if space == "embeddings" else 9),
        n_initial=4,
        n_rounds=0,
        random_state=0,
    ).fit(X, y)
    first = np.flatnonzero(loop.labeled_iter_ == 0)
    assert sorted(y[first]) == [0, 1, 2, 3]  # one of each blob


@pytest.mark.parametrize(
    "name, value",
    [("space", "rows"), ("width", 0.0), ("width", "mean"), ("max_references", 0)],
)
def test_max_herding_refuses_bad_parameters(fake_pool, name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of MaxHerdingQuery"):
        MaxHerdingQuery(**{name: value}).query(fake_pool(embeddings=np.eye(3)), 1)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("n_labeled", [0, 6])
def test_prob_cover_adds_most_rows_with_each_pick(fake_pool, n_labeled):
    rng = np.random.default_rng(0)
    X, X_labeled = rng.standard_normal((120, 3)), rng.standard_normal((n_labeled, 3))
    labeled = fake_pool(embeddings=X_labeled, y=None) if n_labeled else None
    pool = fake_pool(embeddings=X, labeled=labeled)
    picks = ProbCoverQuery(delta=0.3).query(pool, 15)
    near = cdist(units(X), units(X)) < 0.3
    open_rows = np.ones(120, dtype=bool)
    if n_labeled:
        open_rows = cdist(units(X), units(X_labeled)).min(1) >= 0.3
    for pick in picks:
        added = near[open_rows].sum(0)
        assert added[pick] == added.max()
        open_rows &= ~near[pick]


def test_prob_cover_finds_the_radius_between_two_blobs():
    # Clusters as there are classes, 1.2 apart; inside no row is farther than .3.
    angles = np.r_[0:0.3:20j, 1.5:1.8:20j]
    X, y = circle(angles), np.repeat([0, 1], 20)
    strategy = ProbCoverQuery(random_state=0)
    pool = PoolView(None, X, X_labeled=X[[0, 39]], y_labeled=y[[0, 39]])
    strategy.query(pool, 2)
    gaps = np.sort(cdist(X, X)[y == 0][:, y == 1].min(1))
    both = np.sort(np.r_[gaps, cdist(X, X)[y == 1][:, y == 0].min(1), 2 * [9.0]])
    assert strategy.delta_ == pytest.approx(both[2])  # 2 of 42 balls may be mixed
    # Without labels, as many clusters as rows are asked for; one covers each blob.
    picks = strategy.query(PoolView(None, X), 2)
    assert sorted(y[picks]) == [0, 1]


def test_prob_cover_begins_a_loop_without_a_model():
    X, _ = blobs([30, 30, 30, 30])
    y = (X > 50).argmax(1)
    loop = ActiveLearningLoop(
        LogisticRegression(), RandomQuery(), initial=ProbCoverQuery(), n_initial=4
    )
    loop.set_params(n_rounds=0, random_state=0).fit(X, y)
    assert sorted(y[loop.labeled_iter_ == 0]) == [0, 1, 2, 3]


@pytest.mark.parametrize("n_labeled", [0, 5])
def test_typi_clust_takes_the_most_typical_row_of_each_cluster(fake_pool, n_labeled):
    X, _ = blobs([40, 30, 20, 10, 8, 7], n_features=6)
    y = (X > 50).argmax(1)
    known = np.concatenate([np.flatnonzero(y == 0)[:3], np.flatnonzero(y == 2)[:2]])
    known = known[:n_labeled]
    rest = np.setdiff1d(np.arange(len(X)), known)
    labeled = fake_pool(embeddings=X[known]) if n_labeled else None
    pool = fake_pool(embeddings=X[rest], labeled=labeled)
    strategy = TypiClustQuery(max_clusters=6, random_state=0)
    picks = rest[strategy.query(pool, 6)]
    # Those without labels first, of these the largest, then by labels.
    order = [1, 3, 4, 5, 2, 0] if n_labeled else [0, 1, 2, 3, 4, 5]
    assert y[picks].tolist() == order
    for pick in picks:
        members = np.setdiff1d(np.flatnonzero(y == y[pick]), known)
        distances = np.sort(cdist(units(X[members]), units(X[members])), axis=1)
        means = distances[:, 1 : 1 + min(20, len(members) // 2)].mean(1)
        assert pick == members[means.argmin()]


def test_typi_clust_leaves_small_clusters_to_the_end(fake_pool):
    X, _ = blobs([30, 7, 5, 4], n_features=4)
    y = (X > 50).argmax(1)
    strategy = TypiClustQuery(max_clusters=4, random_state=0)
    picks = strategy.query(fake_pool(embeddings=X), len(X))
    assert y[picks[:14]].tolist() == 7 * [0, 1]
    assert (y[picks[14:37]] == 0).all()
    assert y[picks[37:]].tolist() == [2, 3, 2, 3, 2, 3, 2, 3, 2]
    # Where all are small, none is.
    small = fake_pool(embeddings=X[y > 1])
    picks = TypiClustQuery(random_state=0).query(small, 2)
    assert sorted(y[y > 1][picks]) == [2, 3]


@pytest.mark.parametrize("max_clusters, n_clusters", [(500, 30), (12, 12)])
def test_typi_clust_makes_a_cluster_for_each_label(
    fake_pool, monkeypatch, max_clusters, n_clusters
):
    seen = []

    def spy(points, n, rng):
        seen.append((len(points), n))
        return np.arange(len(points)) % n

    monkeypatch.setattr(_diversity, "_clusters", spy)
    X = np.random.default_rng(0).standard_normal((100, 3))
    pool = fake_pool(embeddings=X[:80], labeled=fake_pool(embeddings=X[80:]))
    TypiClustQuery(max_clusters=max_clusters).query(pool, 10)
    assert seen == [(100, n_clusters)]


@pytest.mark.parametrize(
    "cls, name, value",
    [
        (ProbCoverQuery, "delta", 0.0),
        (ProbCoverQuery, "delta", "median"),
        (ProbCoverQuery, "max_references", 0),
        (TypiClustQuery, "max_clusters", 0),
        (TypiClustQuery, "min_cluster_size", 0),
        (TypiClustQuery, "n_neighbors", 0),
    ],
)
def test_cluster_strategies_refuse_bad_parameters(fake_pool, cls, name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of {cls.__name__}"):
        cls(**{name: value}).query(fake_pool(embeddings=np.eye(3)), 1)
