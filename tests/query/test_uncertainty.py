import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chisquare
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    BaldQuery,
    ClusterMarginQuery,
    DeepFoolQuery,
    EntropyQuery,
    FalcunQuery,
    LeastConfidenceQuery,
    MarginQuery,
    PoolView,
    RandomQuery,
    StochasticQuery,
)
from skal.posterior import DeepEnsemble
from skal.query import ScoreQuery
from skal.testing._pools import make_pool

MEASURES = [LeastConfidenceQuery, MarginQuery, EntropyQuery]
HAND = [[0.5, 0.5, 0.0], [0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]]


def order_of(cls, pool):
    return cls().query(pool, len(pool)).tolist()


def log_odds(p):
    return math.log(p / (1 - p))


def random_logits(n_classes, n_rows=40):
    rng = np.random.default_rng(n_classes)
    return 3 * rng.standard_normal((n_rows, n_classes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "cls, scores, order",
    [
        (LeastConfidenceQuery, [0.5, 0.4, 0.6, 0.1], [2, 0, 1, 3]),
        (MarginQuery, [math.inf, *map(log_odds, (0.7, 0.9, 0.15))], [0, 2, 1, 3]),
        (EntropyQuery, [0.693147, 0.897946, 1.088900, 0.394398], [2, 1, 0, 3]),
    ],
)
def test_scores_and_order_by_hand(fake_pool, cls, scores, order, dtype):
    pool = fake_pool(proba=torch.tensor(HAND, dtype=dtype))
    np.testing.assert_allclose(cls()._score(pool), scores, atol=1e-5)
    assert order_of(cls, pool) == order


@pytest.mark.parametrize("gap", [80.0, 95.0, 200.0, 1e4])
def test_entropy_of_an_exact_zero_is_no_nan(fake_pool, gap):
    """In float32 a probability is zero from a gap of about 104 on."""
    logits = torch.tensor([[0, 0, -gap], [0, -gap, -gap], [1, 0, 0]])
    pool = fake_pool(logits=logits)
    scores = EntropyQuery()._score(pool)
    np.testing.assert_allclose(scores[:2], [math.log(2), 0], atol=1e-6)
    assert order_of(EntropyQuery, pool) == [2, 0, 1]


def test_confident_rows_keep_their_order_where_float32_rounds_to_one(fake_pool):
    pool = fake_pool(logits=torch.tensor([[25.0, 0.0], [20.0, 0.0], [30.0, 0.0]]))
    assert bool((pool.proba[:, 0] == 1).all())
    assert order_of(LeastConfidenceQuery, pool) == [1, 0, 2]


def test_measures_agree_on_two_classes(fake_pool):
    pool = fake_pool(logits=random_logits(2))
    first, *others = [order_of(cls, pool) for cls in MEASURES]
    assert all(order == first for order in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_classes", [2, 3, 100])
def test_measures_agree_where_the_first_probability_rounds_to_one(
    fake_pool, n_classes, dtype
):
    # 1 - p and p1 - p2 are told apart in double precision up to a gap of 37.
    gaps = torch.tensor([50.0, 90, 33, 36.5, 40, 80, 60, 36, 70], dtype=dtype)
    logits = torch.zeros(9, n_classes, dtype=dtype)
    logits[:, 1:] = -gaps[:, None]
    pool, order = fake_pool(logits=logits), gaps.argsort().tolist()
    assert all(order_of(cls, pool) == order for cls in MEASURES)


def test_margins_of_rows_that_are_sure_and_of_rows_that_tie(fake_pool):
    # One class alone is surest of all; two equal ones are in doubt, whatever the third.
    proba = [[1.0, 0, 0], [0.5, 0.5, 0], [1 - 1e-12, 1e-12, 0], [0.4, 0.4, 0.2]]
    scores = MarginQuery()._score(fake_pool(proba=torch.tensor(proba).double()))
    assert scores[0] == -math.inf and scores[1] == scores[3] == math.inf
    assert float(scores[2]) == pytest.approx(math.log(2e-12), rel=1e-4)
    logits = torch.tensor([[0.0, -1e-12, -5], [0, -3e-12, -5], [0, 0, -5]]).double()
    assert order_of(MarginQuery, fake_pool(logits=logits)) == [2, 0, 1]


@pytest.mark.parametrize("cls", MEASURES)
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_permuting_classes_changes_nothing(fake_pool, cls, n_classes):
    logits = random_logits(n_classes)
    permuted = logits[:, np.random.default_rng(0).permutation(n_classes)]
    pool, other = fake_pool(logits=logits), fake_pool(logits=permuted)
    torch.testing.assert_close(cls()._score(pool), cls()._score(other))
    assert order_of(cls, pool) == order_of(cls, other)


@pytest.mark.parametrize("cls", MEASURES)
def test_shifting_logits_changes_nothing(fake_pool, cls):
    logits = random_logits(4)
    shift = np.random.default_rng(0).uniform(-50, 50, (len(logits), 1))
    pool, other = fake_pool(logits=logits), fake_pool(logits=logits + shift)
    torch.testing.assert_close(cls()._score(pool), cls()._score(other))
    assert order_of(cls, pool) == order_of(cls, other)


@pytest.mark.parametrize("n_classes", [2, 5, 100])
def test_entropy_is_at_most_that_of_the_uniform(fake_pool, n_classes):
    logits = np.vstack([random_logits(n_classes), np.zeros(n_classes)])
    scores = EntropyQuery()._score(fake_pool(logits=logits))
    assert float(scores.min()) >= 0
    assert float(scores.max()) <= math.log(n_classes) * (1 + 1e-12)
    assert float(scores[-1]) == pytest.approx(math.log(n_classes))


# -- decision values instead of probabilities -----------------------------------------


def svm_data(n_classes):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(120) % n_classes)
    X = 2 * rng.standard_normal((n_classes, 5))[y] + rng.standard_normal((120, 5))
    return X, y


def test_scores_of_decision_values_by_hand(fake_pool):
    values = torch.tensor(
        [[1.0, 0.8, -3], [-0.2, -0.9, -1], [2, -1, -1], [0.5, 0, 0.1]]
    )
    pool = fake_pool(decision_values=values)
    scores = MarginQuery()._score(pool)
    np.testing.assert_allclose(scores, [-0.2, -0.7, -3, -0.4], rtol=1e-6)
    assert order_of(MarginQuery, pool) == [0, 3, 1, 2]
    assert order_of(LeastConfidenceQuery, pool) == [1, 3, 0, 2]
    with pytest.raises(AttributeError):  # reads probabilities, which are not there
        EntropyQuery()._score(pool)


@pytest.mark.parametrize("cls", [MarginQuery, LeastConfidenceQuery])
@pytest.mark.parametrize(
    "model", [LinearSVC(), SGDClassifier(random_state=0)], ids=["svc", "sgd"]
)
def test_two_classes_are_ranked_by_the_distance_to_the_boundary(cls, model):
    X, y = svm_data(2)
    model = make_pipeline(StandardScaler(), model).fit(X, y)
    nearest = np.argsort(np.abs(model.decision_function(X)))
    np.testing.assert_array_equal(cls().query(PoolView(model, X), 10), nearest[:10])


def test_badge_weighs_rows_by_the_softmax_of_decision_values():
    """As a LogisticRegression of the same weights, whose logits they are."""
    X, y = svm_data(3)
    svc, linear = LinearSVC().fit(X, y), LogisticRegression().fit(X, y)
    linear.coef_, linear.intercept_ = svc.coef_, svc.intercept_
    np.testing.assert_array_equal(
        BadgeQuery(random_state=0).query(PoolView(svc, X), 20),
        BadgeQuery(random_state=0).query(PoolView(linear, X), 20),
    )


@pytest.mark.parametrize(
    "strategy",
    [MarginQuery(), LeastConfidenceQuery(), BadgeQuery(), ClusterMarginQuery()],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_loop_over_an_svm(strategy, n_classes):
    """A class is missing from the first labels where there are four."""
    X, y = svm_data(n_classes)
    loop = ActiveLearningLoop(
        LinearSVC(),
        strategy,
        initial=np.flatnonzero(y != 3)[:10],
        n_rounds=3,
        random_state=0,
    ).fit(X, y)
    assert len(loop.labeled_indices_) == 40 and loop.score(X, y) > 0.7


@pytest.mark.parametrize("model", [LinearSVC(), make_pipeline(LinearSVC())])
def test_entropy_of_an_svm_is_refused_before_the_first_purchase(model):
    X, _ = svm_data(2)

    def oracle(rows):
        raise AssertionError("bought")

    loop = ActiveLearningLoop(model, EntropyQuery(), oracle=oracle, classes=[0, 1])
    with pytest.raises(ValueError, match="LinearSVC has no predict_proba.*Calibrated"):
        loop.fit(X)


def test_random_takes_every_row_equally_often():
    n_rows, n_samples, n_seeds = 12, 4, 1500
    pool = PoolView(None, np.zeros((n_rows, 1)), random_state=0)
    included, places = np.zeros(n_rows), np.zeros((n_samples, n_rows))
    for seed in range(n_seeds):
        picks = RandomQuery(random_state=seed).query(pool, n_samples)
        included[picks] += 1
        places[np.arange(n_samples), picks] += 1
    # Draws without replacement: inclusions of a row vary less than independent ones.
    rate = n_samples / n_rows
    statistic = np.square(included - n_seeds * rate).sum()
    statistic *= (n_rows - 1) / n_rows / (n_seeds * rate * (1 - rate))
    assert chi2.sf(statistic, n_rows - 1) > 1e-3
    for counts in places:
        statistic = np.square(counts - n_seeds / n_rows).sum() / (n_seeds / n_rows)
        assert chi2.sf(statistic, n_rows - 1) > 1e-3


def test_random_of_the_whole_pool_is_a_permutation():
    pool = PoolView(None, np.zeros((30, 1)), random_state=0)
    picks = RandomQuery().query(pool, 30)
    assert sorted(picks) == list(range(30))
    assert picks.tolist() != list(range(30))


def test_random_does_not_depend_on_the_model(pool):
    picks = RandomQuery().query(pool, 10)
    for other in (
        make_pool("linear"),
        PoolView(None, np.zeros((60, 2)), random_state=0),
        PoolView(LogisticRegression(), np.ones((60, 2)), random_state=0),
    ):
        np.testing.assert_array_equal(RandomQuery().query(other, 10), picks)


# -- FALCUN ---------------------------------------------------------------------------


def falcun_weights(proba, picks, gamma):
    """Chances of the next row by the formula, with its loops written out."""
    ranked = np.sort(proba, axis=1)
    u = 1 - (ranked[:, -1] - ranked[:, -2])
    left = [i for i in range(len(proba)) if i not in picks]
    d = [min([u[i], *(np.abs(proba[i] - proba[s]).sum() for s in picks)]) for i in left]
    low, high = min(d), max(d)
    scaled = [(x - low) / (high - low) for x in d]
    weights = np.zeros(len(proba))
    weights[left] = (u[left] + scaled) ** gamma
    return weights / weights.sum()


@pytest.mark.parametrize("gamma", [0, 1, 10])
def test_falcun_draws_by_its_formula(fake_pool, gamma):
    """First picks, and second ones after each first."""
    proba = np.array([[0.5, 0.4, 0.1], [0.4, 0.35, 0.25], [0.1, 0.45, 0.45]])
    proba = np.vstack([proba, [[0.3, 0.2, 0.5], [0.9, 0.05, 0.05]]])
    pool, n, rng = fake_pool(proba=proba), 3000, np.random.default_rng(0)
    picks = [FalcunQuery(gamma=gamma)._query(pool, 2, rng) for _ in range(n)]
    counts = np.zeros((5, 5))
    np.add.at(counts, tuple(np.transpose(picks)), 1)
    then = [falcun_weights(proba, [i], gamma) for i in range(5)]
    expected = n * falcun_weights(proba, [], gamma)[:, None] * then
    kept = expected > 5
    counts = [*counts[kept], counts[~kept].sum() + 1e-9]
    expected = [*expected[kept], expected[~kept].sum() + 1e-9]
    assert chisquare(counts, expected).pvalue > 1e-3


def test_falcun_of_large_gamma_takes_the_margin_and_then_what_is_unlike(fake_pool):
    proba = [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0.52, 0.48], [0.9, 0.1, 0]]
    pool = fake_pool(proba=proba)
    for seed in range(20):
        picks = FalcunQuery(gamma=1e4, random_state=seed).query(pool, 2)
        assert picks[0] in (0, 1) and picks[1] == 2


def test_falcun_draws_uniformly_from_certain_rows(fake_pool):
    pool = fake_pool(proba=np.tile([1.0, 0], (6, 1)))
    picks = [FalcunQuery(random_state=seed).query(pool, 6) for seed in range(600)]
    for place in np.transpose(picks):
        assert chisquare(np.bincount(place, minlength=6)).pvalue > 1e-3


@pytest.mark.parametrize("cls", [FalcunQuery, MarginQuery, StochasticQuery])
def test_a_model_of_one_class_has_no_margins(cls):
    X = np.random.default_rng(0).normal(size=(30, 5))
    model = GaussianNB().fit(X[:12], np.zeros(12, dtype=int))
    with pytest.raises(ValueError, match="knows one class alone.*pass classes"):
        cls().query(PoolView(model, X[12:]), 3)
    assert len(cls().query(PoolView(model, X[12:], classes=[0, 1]), 3)) == 3


# -- stochastic batches ---------------------------------------------------------------


class Given(ScoreQuery):
    """Scores that are the embeddings of a pool."""

    requires = ("embeddings",)

    def _score(self, pool):
        return pool.embeddings


SCORES = np.array([0.1, 1.0, 2.0, 0.5])
RANKS = np.array([4, 2, 1, 3])
WEIGHTS = {"power": SCORES, "softmax": np.exp(SCORES), "softrank": 1 / RANKS}


@pytest.mark.parametrize("beta", [0.5, 1, 3])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_stochastic_is_drawing_one_row_after_another(fake_pool, kind, beta):
    """Without replacement, in proportion to the power beta of what is left."""
    pool, n = fake_pool(embeddings=SCORES), 3000
    counts, rng = np.zeros((4, 4)), np.random.default_rng(0)
    strategy = StochasticQuery(Given(), kind=kind, beta=beta)
    for _ in range(n):
        counts[tuple(strategy._query(pool, 2, rng))] += 1
    weights = WEIGHTS[kind] ** beta
    left = weights.sum() - weights
    expected = n * np.outer(weights / weights.sum() / left, weights)
    off = ~np.eye(4, dtype=bool)
    kept = off & (expected > 5)
    counts, expected = (
        [*x[kept], x[off & ~kept].sum() + 1e-9] for x in (counts, expected)
    )
    assert chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("kind", WEIGHTS)
def test_stochastic_of_large_beta_is_the_strategy(kind):
    pool = make_pool()
    for inner in (EntropyQuery(), MarginQuery(), LeastConfidenceQuery()):
        picks = StochasticQuery(inner, kind=kind, beta=1e7).query(pool, 10)
        np.testing.assert_array_equal(picks, inner.query(pool, 10))


def test_power_margin_weighs_by_one_less_the_margin(fake_pool):
    logits = random_logits(3)
    pool = fake_pool(logits=logits)
    ranked = pool.proba.sort(1, descending=True).values
    expected = 1 - (ranked[:, 0] - ranked[:, 1])
    strategy = MarginQuery()
    torch.testing.assert_close(strategy._scale(strategy._score(pool)), expected)


def test_power_takes_scores_of_nothing_last(fake_pool):
    """The logarithm of what rounding left below 0 would be NaN, and come first."""
    pool = fake_pool(embeddings=np.array([0.0, 1e-9, -1e-17, 1, 0]))
    for seed in range(30):
        picks = StochasticQuery(Given(), random_state=seed).query(pool, 5).tolist()
        assert set(picks[:2]) == {1, 3}
    pool = fake_pool(embeddings=np.zeros(5))
    rng = np.random.default_rng(0)
    firsts = {int(StochasticQuery(Given())._query(pool, 1, rng)[0]) for _ in range(99)}
    assert len(firsts) == 5


def test_power_of_negative_scores_is_refused():
    with pytest.raises(ValueError, match="DeepFoolQuery go down.*kind='softrank'"):
        StochasticQuery(DeepFoolQuery()).query(make_pool(), 3)
    picks = StochasticQuery(DeepFoolQuery(), kind="softrank").query(make_pool(), 3)
    assert len(picks) == 3


def test_stochastic_reads_trains_and_clones_as_its_strategy():
    wrapped = StochasticQuery(BaldQuery()).set_params(strategy__posterior__n_draws=7)
    assert wrapped.requires == ("sample_proba",)
    assert wrapped.active_posterior.n_draws == 7
    copy = clone(wrapped)
    assert copy.strategy is not wrapped.strategy
    np.testing.assert_array_equal(
        copy.query(make_pool(), 5), wrapped.query(make_pool(), 5)
    )
    default = StochasticQuery().set_params(strategy__random_state=3)
    assert isinstance(default.strategy, MarginQuery)
    assert repr(default) == "StochasticQuery(strategy=MarginQuery(random_state=3))"
    wrong = StochasticQuery(BaldQuery(measure="votes"))
    for check in (lambda: wrong.query(make_pool(), 1), lambda: wrong.prepare(None)):
        with pytest.raises(ValueError, match="'measure' parameter of BaldQuery"):
            check()


def test_stochastic_passes_the_rows_once():
    pool, seen = make_pool(), []
    pool.estimator.module_.register_forward_pre_hook(
        lambda module, args: seen.append(len(args[0]))
    )
    StochasticQuery().query(pool, 5)
    assert sum(seen) == len(pool)


def test_a_loop_over_a_stochastic_strategy():
    X, y = svm_data(3)
    strategy = StochasticQuery(BaldQuery(), random_state=1)
    strategy.set_params(strategy__posterior=DeepEnsemble(2))
    loop = ActiveLearningLoop(
        SGDClassifier(loss="log_loss"), strategy, n_rounds=2, random_state=0
    ).fit(X, y)
    assert len(loop.labeled_indices_) == 30
