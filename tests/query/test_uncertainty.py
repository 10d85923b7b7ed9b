import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    ClusterMarginQuery,
    EntropyQuery,
    LeastConfidenceQuery,
    MarginQuery,
    PoolView,
    RandomQuery,
)
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
