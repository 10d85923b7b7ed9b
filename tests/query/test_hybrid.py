from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binom, chisquare
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    BaitQuery,
    ClusterMarginQuery,
    DropQuery,
    MarginQuery,
    MaxHerdingQuery,
    PoolView,
    UHerdingQuery,
)
from skal.query import _hybrid
from skal.testing._pools import make_pool


def gradient_factors(pool, monkeypatch):
    """The pair whose row-wise outer product BADGE takes as points."""
    seen = []

    def spy(factors, n_select, **kwargs):
        seen.append(factors)
        return np.arange(n_select)

    monkeypatch.setattr(_hybrid, "kmeans_plusplus", spy)
    BadgeQuery().query(pool, 1)
    return [factor.double() for factor in seen[0]]


def gradient_by_autograd(h, head):
    """Gradient of the cross-entropy at the predicted class, bias in the last column."""
    rows = []
    for row in h:
        head.zero_grad()
        logits = head(row[None])
        nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
        bias = [] if head.bias is None else [head.bias.grad[:, None]]
        rows.append(torch.cat([head.weight.grad, *bias], dim=1).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_points_are_the_gradients_of_the_head(fake_pool, monkeypatch, bias, n_classes):
    torch_rng = torch.Generator().manual_seed(0)
    head = nn.Linear(5, n_classes, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(torch.randn(p.shape, generator=torch_rng, dtype=torch.float64))
    h = torch.randn(12, 5, generator=torch_rng, dtype=torch.float64)
    pool = fake_pool(
        embeddings=h,
        logits=head(h).detach(),
        head_weight=head.weight.detach(),
        head_bias=head.bias.detach() if bias else None,
    )
    residual, inputs = gradient_factors(pool, monkeypatch)
    expected = gradient_by_autograd(h, head)
    outer = torch.einsum("nc,nd->ncd", residual, inputs)
    if bias:
        torch.testing.assert_close(inputs[:, -1], torch.ones_like(inputs[:, -1]))
    torch.testing.assert_close(outer.flatten(1), expected)
    # Distances of the factors are those of the points that are never formed.
    squares = (residual @ residual.T) * (inputs @ inputs.T)
    norms = squares.diagonal()
    distances = norms[:, None] + norms - 2 * squares
    np.testing.assert_allclose(
        distances, cdist(expected, expected, "sqeuclidean"), atol=1e-12
    )


def test_points_of_a_net_are_the_gradients_of_its_head(monkeypatch):
    pool = make_pool()
    residual, inputs = gradient_factors(pool, monkeypatch)
    expected = gradient_by_autograd(pool.embeddings, pool.estimator.module_.head)
    outer = torch.einsum("nc,nd->ncd", residual, inputs).flatten(1)
    torch.testing.assert_close(outer.float(), expected, rtol=1e-4, atol=1e-6)


def test_points_of_an_estimator_without_network_have_a_bias(monkeypatch):
    pool = make_pool("linear")
    _, inputs = gradient_factors(pool, monkeypatch)
    assert inputs.shape == (60, pool.embeddings.shape[1] + 1)
    assert bool((inputs[:, -1] == 1).all())


def scalar_pool(fake_pool, values):
    """A pool whose gradients are multiples of one vector by the given numbers."""
    h = torch.tensor(values, dtype=torch.float64)[:, None]
    return fake_pool(
        embeddings=h,
        proba=torch.tensor([[0.75, 0.25]], dtype=torch.float64).expand(len(h), 2),
        head_weight=torch.ones(2, 1),
        head_bias=None,
    )


@pytest.mark.parametrize("kind", ["net", "linear"])
def test_first_pick_has_the_longest_gradient(kind, monkeypatch):
    pool = make_pool(kind)
    for seed in range(3):
        picks = BadgeQuery(random_state=seed).query(pool, 3)
        with monkeypatch.context() as patch:
            left, right = gradient_factors(pool, patch)
        assert picks[0] == int((left.norm(dim=1) * right.norm(dim=1)).argmax())


def test_draws_follow_the_squared_distance(fake_pool):
    """From 3 they are 9 and 4; twice squared they would be 81 and 16."""
    pool = scalar_pool(fake_pool, [0.0, 1.0, 3.0])
    n_seeds = 390
    picks = [BadgeQuery(random_state=s).query(pool, 2) for s in range(n_seeds)]
    assert {first for first, _ in picks} == {2}
    second = Counter(int(second) for _, second in picks)
    assert set(second) == {0, 1}
    expected = [n_seeds * 9 / 13, n_seeds * 4 / 13]
    assert chisquare([second[0], second[1]], expected).pvalue > 1e-3


def test_first_pick_can_be_uniform_as_in_the_paper(fake_pool):
    pool = scalar_pool(fake_pool, [0.0, 1.0, 3.0, 9.0])
    firsts = Counter(
        int(BadgeQuery(first="uniform", random_state=s).query(pool, 1)[0])
        for s in range(200)
    )
    assert chisquare([firsts[row] for row in range(4)]).pvalue > 1e-3


@pytest.mark.parametrize("first", ["norm", "uniform"])
@pytest.mark.parametrize("n_samples", [1, 8, 20])
def test_zero_gradients_give_distinct_rows(fake_pool, first, n_samples):
    pool = fake_pool(
        embeddings=np.random.default_rng(0).standard_normal((20, 3)),
        proba=np.eye(4)[np.arange(20) % 4],
        head_weight=np.ones((4, 3)),
        head_bias=np.zeros(4),
    )
    picks = BadgeQuery(first=first).query(pool, n_samples)
    assert len(set(picks)) == n_samples


def test_copies_are_never_both_drawn_while_others_remain(fake_pool):
    """Also in float32, where |a|^2 + |b|^2 - 2ab of two copies need not be 0."""
    rng = np.random.default_rng(0)
    h = np.repeat(20 + rng.standard_normal((6, 16)), 3, axis=0).astype(np.float32)
    logits = np.repeat(rng.standard_normal((6, 4)), 3, axis=0).astype(np.float32)
    pool = fake_pool(
        embeddings=h,
        logits=logits,
        head_weight=np.zeros((4, 16), np.float32),
        head_bias=np.zeros(4, np.float32),
    )
    for seed in range(40):
        picks = BadgeQuery(random_state=seed).query(pool, 9)
        assert set(picks[:6] // 3) == set(range(6))
        assert len(set(picks)) == 9


@pytest.mark.parametrize("first", ["longest", None, 0])
def test_unknown_first_is_named(pool, first):
    with pytest.raises(ValueError, match="The 'first' parameter of BadgeQuery must be"):
        BadgeQuery(first=first).query(pool, 3)


def margin_pool(fake_pool, margins, places, random_state=0):
    """Rows with the given margins at the given places of a line."""
    margins = np.asarray(margins, dtype=np.float64)
    return fake_pool(
        proba=np.stack([0.5 + margins / 2, 0.5 - margins / 2], 1),
        embeddings=np.asarray(places, dtype=np.float64)[:, None],
        random_state=random_state,
    )


@pytest.mark.parametrize("within", ["random", "margin"])
def test_clusters_are_visited_in_turn_the_smallest_first(fake_pool, within):
    """Eight rows in groups A, BB and CCCCC; the order of six picks is A B C B C C."""
    groups = np.array(list("CBCCABCC"))
    places = [{"A": 0, "B": 100, "C": 200}[group] for group in groups]
    margins = np.linspace(0.1, 0.8, 8)
    strategy = ClusterMarginQuery(min_mean_cluster_size=8 / 3, within=within)
    picks = strategy.query(margin_pool(fake_pool, margins, places), 6)
    assert "".join(groups[picks]) == "ABCBCC"
    if within == "margin":
        assert picks.tolist() == [4, 1, 0, 5, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_counts_fill_the_clusters_like_water(seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 30, 12)))
    sizes = np.bincount(groups)
    for n in (1, 12, 50, len(groups)):
        counts = np.bincount(groups[_hybrid._in_turn(groups, rng)[:n]], minlength=12)
        level = counts.max()
        assert counts.sum() == n
        full = counts == sizes
        # Those not full are at the level; of them the smaller ones come first.
        assert (counts[~full] >= level - 1).all()
        behind = ~full & (counts == level - 1)
        assert not behind.any() or sizes[behind].min() >= sizes[counts == level].max()


def test_groups_of_one_size_go_by_the_smallest_margin():
    assert _hybrid._in_turn(np.array([7, 3, 3, 7, 5])).tolist() == [4, 0, 1, 3, 2]


def test_random_members():
    groups = np.zeros(3, dtype=int)
    firsts = [
        int(_hybrid._in_turn(groups, np.random.default_rng(s))[0]) for s in range(300)
    ]
    assert chisquare(np.bincount(firsts)).pvalue > 1e-3


@pytest.mark.parametrize("within", ["random", "margin"])
def test_picks_are_of_small_margin(within):
    pool = make_pool()
    ranked = MarginQuery().query(pool, 60)
    for multiple, n_small in ((1, 8), (1.3, 11), (3, 24), (10, 60)):
        strategy = ClusterMarginQuery(margin_multiple=multiple, within=within)
        picks = strategy.query(pool, 8)
        assert set(picks) <= set(ranked[:n_small])


def test_clusters_of_one_row_or_of_all_leave_the_margins_to_decide():
    pool = make_pool()
    ranked = MarginQuery().query(pool, 12).tolist()
    for size in (1, 1000):
        strategy = ClusterMarginQuery(min_mean_cluster_size=size, within="margin")
        assert strategy.query(pool, 12).tolist() == ranked


def test_copies_of_one_row_give_one_or_two_picks(fake_pool):
    """Ten copies of an ambiguous row among ten distinct ambiguous ones."""
    rng = np.random.default_rng(0)
    places = np.concatenate([np.full(10, 5.0), 100 + 10 * rng.random(90)])
    margins = np.concatenate([np.full(10, 0.1), np.full(10, 0.1), np.full(80, 0.9)])
    for seed in range(5):
        pool = margin_pool(fake_pool, margins, places, seed)
        strategy = ClusterMarginQuery(margin_multiple=2, min_mean_cluster_size=4)
        assert (strategy.query(pool, 10) < 10).sum() <= 2


@pytest.fixture
def linked(monkeypatch):
    """Numbers of the rows that were clustered."""
    sizes = []
    link = _hybrid.linkage_clusters

    def count(points, *args, **kwargs):
        sizes.append(len(points))
        return link(points, *args, **kwargs)

    monkeypatch.setattr(_hybrid, "linkage_clusters", count)
    return sizes


def test_a_loop_makes_the_clusters_once(linked):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 3)), np.arange(90) % 2
    loop = ActiveLearningLoop(
        LogisticRegression(), ClusterMarginQuery(), n_rounds=5, random_state=0
    ).fit(X, y)
    assert linked == [80]
    assert np.array_equal(
        loop.strategy_.rows_, np.setdiff1d(range(90), loop.labeled_indices_[:10])
    )
    loop.fit(X, y)
    assert linked == [80, 80]


def test_rows_find_their_clusters_again(fake_pool):
    strategy = ClusterMarginQuery(min_mean_cluster_size=2)
    places = np.repeat([0.0, 50.0, 90.0], 2)
    strategy.query(margin_pool(fake_pool, np.full(6, 0.5), places), 1)
    expected = strategy.labels_.copy()
    rest = margin_pool(fake_pool, np.full(4, 0.5), np.zeros(4))
    rest.indices = np.array([5, 1, 2, 3])
    found = strategy._labels(rest, None)
    np.testing.assert_array_equal(found, expected[[5, 1, 2, 3]])


def test_other_rows_are_clustered_again(fake_pool, linked):
    strategy = ClusterMarginQuery()
    for n_rows, indices in (
        (20, None),
        (20, None),
        (12, None),  # a pool of its own: another row 0, perhaps
        (30, None),
        (15, np.arange(10, 25)),
        (15, np.arange(20, 35)),
    ):
        pool = margin_pool(fake_pool, np.full(n_rows, 0.5), np.arange(n_rows))
        if indices is not None:
            pool.indices = indices
        strategy.query(pool, 3)
    assert linked == [20, 12, 30, 15]


def test_picks_do_not_depend_on_who_made_the_clusters(pool):
    first = ClusterMarginQuery(max_linked=20)
    picks = first.query(pool, 9)
    second = ClusterMarginQuery(max_linked=20)
    assert second.get_state() == {}
    second.set_state(first.get_state())
    assert second.query(pool, 9).tolist() == picks.tolist()


@pytest.mark.parametrize(
    "name, value",
    [
        ("margin_multiple", 0.9),
        ("margin_multiple", "10"),
        ("min_mean_cluster_size", 0),
        ("within", "lowest"),
        ("max_linked", 0),
        ("max_linked", 10.0),
    ],
)
def test_bad_parameters_are_named(pool, name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of ClusterMarginQuery"):
        ClusterMarginQuery(**{name: value}).query(pool, 3)


# -- BAIT -----------------------------------------------------------------------------


def binary_fishers(pool):
    """Expected outer products of gradients of the binary loss, by autograd."""
    fishers = []
    for h, proba in zip(pool.embeddings.double(), pool.proba.double(), strict=True):
        p = float(proba.max())
        # Weights under which the predicted class has probability p at h.
        w = (h * np.log(p / (1 - p)) / (h @ h)).requires_grad_()
        fisher = 0
        for label, chance in ((1.0, p), (0.0, 1 - p)):
            loss = nn.functional.binary_cross_entropy_with_logits(
                h @ w, torch.tensor(label).double()
            )
            (g,) = torch.autograd.grad(loss, w)
            fisher = fisher + chance * torch.outer(g, g)
        fishers.append(fisher)
    return torch.stack(fishers)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_bait_lowers_the_trace_of_binary_fishers_most(fake_pool, ridge):
    rng = np.random.default_rng(0)
    pools = []
    for n in (6, 30):
        proba = rng.dirichlet(np.ones(3), n)
        pools.append(fake_pool(embeddings=rng.normal(size=(n, 4)), proba=proba))
    labeled, pool = pools
    pool.has_labeled, pool.labeled = True, labeled
    fishers, known = binary_fishers(pool), ridge * torch.eye(4).double()
    known = known + binary_fishers(labeled).sum(0)
    expected = []
    for _ in range(10):
        traces = torch.linalg.inv(known + fishers) @ fishers.mean(0)
        traces = traces.diagonal(dim1=1, dim2=2).sum(1)
        traces[expected] = torch.inf
        expected.append(int(traces.argmin()))
        known = known + fishers[expected[-1]]
    assert BaitQuery(ridge=ridge).query(pool, 10).tolist() == expected


def test_bait_tells_apart_rows_whose_probability_rounds_to_one(fake_pool):
    logits = torch.tensor([[30.0, 0], [20, 0], [25, 0]])
    pool = fake_pool(embeddings=np.ones((3, 2), np.float32), logits=logits)
    assert bool((pool.proba[:, 0] == 1).all())
    assert BaitQuery().query(pool, 3).tolist() == [1, 2, 0]


def test_bait_does_not_take_what_copies_a_labelled_row(fake_pool):
    """The surest way to waste a label, which margin does not see."""
    h, proba = (
        np.eye(3)[[0, 0, 1, 2]] * 9,
        np.array([[0.5, 0.5]] * 2 + [[0.7, 0.3]] * 2),
    )
    labeled = fake_pool(embeddings=h[:1], proba=proba[:1])
    pool = fake_pool(embeddings=h[1:], proba=proba[1:], labeled=labeled)
    assert set(BaitQuery().query(pool, 2)) == {1, 2}
    assert MarginQuery().query(pool, 1) == [0]


def test_bait_prunes_by_oversample(fake_pool):
    rng = np.random.default_rng(1)
    h, proba = rng.normal(size=(200, 12)) * 5, rng.dirichlet(np.ones(3), 200)
    pool = fake_pool(embeddings=h, proba=proba)
    picks = [BaitQuery(oversample=k).query(pool, 10).tolist() for k in (1, 2)]
    assert len(set(picks[1])) == 10 and picks[0] != picks[1]


def herding_pool(fake_pool, proba, n_labeled=8, **outputs):
    """Pool of random embeddings, of length 1, under the given probabilities."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((len(proba) + n_labeled, 5))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    labeled = fake_pool(embeddings=X[len(proba) :]) if n_labeled else None
    X = X[: len(proba)]
    return X, fake_pool(embeddings=X, proba=proba, labeled=labeled, **outputs)


@pytest.mark.parametrize("temperature", [1.0, 0.25, 4.0])
@pytest.mark.parametrize("width", ["median", "smallest", 0.7])
def test_u_herding_is_the_greedy_on_the_whole_weighted_kernel(
    fake_pool, width, temperature
):
    proba = np.random.default_rng(1).dirichlet(np.full(4, 0.4), 70)
    X, pool = herding_pool(fake_pool, proba)
    labeled = pool.labeled.embeddings.numpy()
    distances = cdist(X, labeled).min(1)
    between = cdist(labeled, labeled)[np.triu_indices(len(labeled), 1)]
    sigma = {"median": np.median(distances), "smallest": between.min()}.get(width, 0.7)
    tempered = proba ** (1 / temperature)
    tempered /= tempered.sum(1, keepdims=True)
    ranked = np.sort(tempered, axis=1)
    weights = 1 - (ranked[:, -1] - ranked[:, -2])
    kernel = np.exp(-((cdist(X, X) / sigma) ** 2))
    covered = np.exp(-((distances / sigma) ** 2))
    expected = []
    for _ in range(12):
        gains = weights @ np.maximum(kernel - covered[:, None], 0)
        gains[expected] = -1
        expected.append(int(gains.argmax()))
        covered = np.maximum(covered, kernel[:, expected[-1]])
    strategy = UHerdingQuery(width=width, temperature=temperature)
    assert strategy.query(pool, 12).tolist() == expected


@pytest.mark.parametrize("kind", ["labeled", "equally unsure", "certain"])
def test_u_herding_is_max_herding_where_all_rows_are_equally_unsure(fake_pool, kind):
    proba = np.full((50, 3), 1 / 3)
    if kind == "certain":
        proba = np.eye(3)[np.arange(50) % 3]
    if kind == "labeled":  # without any, predictions are of no model yet
        proba = np.random.default_rng(2).dirichlet(np.ones(3), 50)
    _, pool = herding_pool(fake_pool, proba, n_labeled=0 if kind == "labeled" else 8)
    picks = MaxHerdingQuery().query(pool, 20)
    assert UHerdingQuery().query(pool, 20).tolist() == picks.tolist()


def test_u_herding_with_a_narrow_kernel_takes_the_smallest_margins(fake_pool):
    proba = np.random.default_rng(3).dirichlet(np.ones(3), 60)
    _, pool = herding_pool(fake_pool, proba)
    picks = UHerdingQuery(width=1e-3).query(pool, 60)
    assert picks.tolist() == MarginQuery().query(pool, 60).tolist()


def test_u_herding_of_parallel_embeddings_takes_the_smallest_margins(fake_pool):
    """No row adds coverage, but some are unsure, as with one positive column."""
    proba = np.random.default_rng(3).dirichlet(np.ones(3), 60)
    _, pool = herding_pool(fake_pool, proba)
    pool.embeddings = torch.linspace(1, 2, 60)[:, None]
    pool.labeled.embeddings = torch.ones(8, 1)
    picks = UHerdingQuery().query(pool, 60)
    assert picks.tolist() == MarginQuery().query(pool, 60).tolist()


def test_u_herding_tells_apart_what_is_all_but_certain(fake_pool):
    # 1 - (p_1 - p_2) is 0 for each of them in double precision.
    logits = np.stack([np.arange(50.0, 90.0), np.zeros(40)], 1)
    _, pool = herding_pool(fake_pool, np.full((40, 2), 0.5))
    pool.log_proba = torch.from_numpy(logits).log_softmax(1)
    picks = UHerdingQuery(width=1e-3).query(pool, 10)
    assert picks.tolist() == list(range(10))


def test_u_herding_takes_decision_values_for_probabilities():
    X = np.random.default_rng(0).standard_normal((80, 4))
    y = (X[:, 0] > 0).astype(int)
    model = LinearSVC(random_state=0).fit(X[:20], y[:20])
    known = {"X_labeled": X[:20], "y_labeled": y[:20]}
    pool = PoolView(model, X[20:], **known)
    picks = UHerdingQuery(width=1e-6, space="features").query(pool, 10)
    assert picks.tolist() == MarginQuery().query(pool, 10).tolist()


def test_u_herding_reads_what_its_space_needs():
    assert set(UHerdingQuery(space="features").requires) == {
        *("log_proba", "decision_values", "features", "labeled.features")
    }
    assert "labeled.embeddings" in UHerdingQuery(space="embeddings").requires


class Overconfident(ClassifierMixin, BaseEstimator):
    """Right as often as class 0 is labelled, but as sure as logits of `scale` say."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def fit(self, X, y):
        self.classes_, self.n_rows_ = np.unique(y), len(y)
        return self

    def predict_proba(self, X):
        share = 1 / (1 + np.exp(-self.scale * np.log(4)))
        return np.tile([share, 1 - share], (len(X), 1))


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_u_herding_calibrates_a_clone_on_labels_held_out(scale):
    # 80 % are of class 0; logits of scale 1 say so.
    y = (np.arange(1000) % 5 == 0).astype(int)
    model = Overconfident(scale).fit(np.zeros((1000, 1)), y)
    pool = PoolView(model, np.zeros((1, 1)), X_labeled=np.zeros((1000, 1)), y_labeled=y)
    found = _hybrid._calibrated_temperature(pool, np.random.default_rng(0))
    assert found == pytest.approx(scale, rel=0.1)
    assert model.n_rows_ == 1000


@pytest.mark.parametrize("kind", ["net", "linear"])
def test_calibrated_u_herding_trains_a_clone_and_leaves_no_trace(kind):
    pool, strategy = make_pool(kind), UHerdingQuery(temperature="calibrated")
    before = pool.proba.clone()
    picks = strategy.query(pool, 10)
    assert picks.tolist() == strategy.query(pool, 10).tolist()
    assert len(set(picks.tolist())) == 10
    assert (make_pool(kind, estimator=pool.estimator).proba == before).all()


def test_calibrated_u_herding_runs_in_a_loop_with_few_labels():
    X = np.random.default_rng(0).standard_normal((60, 3))
    y = np.where(X[:, 0] > 0, "b", "a")
    strategy = UHerdingQuery(temperature="calibrated", space="features")
    loop = ActiveLearningLoop(
        LogisticRegression(),
        strategy,
        initial="balanced",
        n_initial=2,
        batch_size=3,
        n_rounds=3,
        random_state=0,
    )
    assert len(loop.fit(X, y).history_["round"]) == 4


def test_calibration_needs_labels():
    X = np.random.default_rng(0).standard_normal((20, 3))
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    pool = PoolView(model, X, X_labeled=X)
    with pytest.raises(ValueError, match="y_labeled"):
        UHerdingQuery(temperature="calibrated").query(pool, 1)


# -- DropQuery ------------------------------------------------------------------------


def linear_pool(fake_pool, h, weight, bias, **options):
    """A pool whose head has these weights."""
    h, weight, bias = (torch.tensor(x).double() for x in (h, weight, bias))
    logits = nn.functional.linear(h, weight, bias)
    pool = fake_pool(embeddings=h, logits=logits, **options)
    pool.rescore = lambda h: nn.functional.linear(h, weight, bias)
    return pool


@pytest.mark.parametrize("p", [0.25, 0.75])
@pytest.mark.parametrize("value, dropping_changes", [(1.0, True), (0.45, False)])
def test_drop_counts_changed_classes(fake_pool, p, value, dropping_changes):
    """A column alone against a bias of .5: dropped it loses, grown it wins."""
    pool = linear_pool(fake_pool, [[value]] * 4000, [[0], [1]], [0.5, 0])
    changes = DropQuery(p=p)._changes(pool, np.random.default_rng(0))
    expected = binom(3, p if dropping_changes else 1 - p).pmf(range(4)) * 4000
    assert chisquare(np.bincount(changes, minlength=4), expected).pvalue > 1e-3


def test_drop_takes_rows_whose_class_changes(fake_pool):
    """No column of the first rows speaks for another class, as half of the others'."""
    h = np.r_[np.tile([1.0, 1, 0, 0], (60, 1)), np.tile([1.1, 1, 1, 1], (60, 1))]
    pool = linear_pool(fake_pool, h, [[1, 1, 0, 0], [0, 0, 1, 1]], [1e-3, 0])
    assert min(DropQuery(p=0.5).query(pool, 10)) >= 60


@pytest.mark.parametrize(
    "changes, per_pick, threshold",
    [([3, 2, 2, 1, 0], 1, 1), ([3, 1, 1, 1, 0], 1, 0), ([3, 2, 2, 1, 0], 3, 0)],
)
def test_drop_asks_for_fewer_changes_where_they_are_rare(
    fake_pool, monkeypatch, changes, per_pick, threshold
):
    changes = np.repeat(changes, 2)
    seen = []

    def spy(points, n_samples, **options):
        seen.append(points)
        return np.arange(n_samples)

    monkeypatch.setattr(_hybrid, "nearest_to_centroids", spy)
    monkeypatch.setattr(DropQuery, "_changes", lambda *args: changes)
    h = np.random.default_rng(0).normal(size=(10, 3))
    pool = fake_pool(embeddings=h, proba=np.ones((10, 1)))
    DropQuery(candidates_per_pick=per_pick).query(pool, 3)
    h = h[changes > threshold]
    np.testing.assert_allclose(seen[0], h / np.linalg.norm(h, axis=1)[:, None])


def test_drop_fills_up_at_random(fake_pool, monkeypatch):
    changes = np.array([0, 0, 1, 0, 3, 0])
    monkeypatch.setattr(DropQuery, "_changes", lambda *args: changes)
    pool = fake_pool(embeddings=np.ones((6, 2)), proba=np.ones((6, 1)))
    picks = np.array([DropQuery(random_state=s).query(pool, 4) for s in range(400)])
    assert (np.sort(picks[:, :2]) == [2, 4]).all()
    counts = np.bincount(picks[:, 2:].ravel(), minlength=6)[[0, 1, 3, 5]]
    assert chisquare(counts).pvalue > 1e-3


def test_drop_spreads_over_clusters(fake_pool):
    """One row of each of six directions, whatever its length."""
    rng = np.random.default_rng(0)
    h = np.kron(np.eye(6), np.ones((20, 5))) * rng.uniform(0.5, 9, (120, 1))
    pool = linear_pool(fake_pool, h, rng.normal(size=(3, 30)), np.zeros(3))
    picks = DropQuery(p=0.5).query(pool, 6)
    assert sorted(picks // 20) == list(range(6))


@pytest.mark.parametrize("model", [LinearSVC(), LogisticRegression()])
def test_drop_of_estimators_without_a_network(model):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = 2 * rng.standard_normal((3, 8))[y] + rng.standard_normal((90, 8))
    loop = ActiveLearningLoop(model, DropQuery(), n_rounds=3, random_state=0)
    assert len(loop.fit(X, y).labeled_indices_) == 40
    frame = pytest.importorskip("pandas").DataFrame(X, columns=list("abcdefgh"))
    picks = [
        DropQuery(random_state=0).query(PoolView(model.fit(rows, y), rows), 10)
        for rows in (X, frame)
    ]
    np.testing.assert_array_equal(*picks)
