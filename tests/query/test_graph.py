import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet
from torch import nn

from skal import ActiveLearningLoop, CoreGcnQuery, PoolView, UncertainGcnQuery
from skal.models import GCN, GCNLoss
from skal.testing._pools import make_pool

BOTH = pytest.mark.parametrize("cls", [UncertainGcnQuery, CoreGcnQuery])


def quick(cls, **params):
    return cls().set_params(aux__max_epochs=5, **params)


@cache
def seen_and_novel(centred, seed=0, n_threads=1):
    """100 labelled digits below 5, a pool with all ten, and a strategy fitted to it."""
    X, y = load_digits(return_X_y=True)
    X = (X - centred * X.mean(0)).astype(np.float32) / 16
    order = np.random.default_rng(seed).permutation(len(y))[:800]
    labeled = order[y[order] < 5][:100]
    rows = np.setdiff1d(order, labeled)
    pool = PoolView(None, X[rows], X_labeled=X[labeled], random_state=seed)
    strategy = UncertainGcnQuery().set_params(aux__max_epochs=80, aux__lr=0.003)
    return pool, y[rows], strategy.fit(pool)


@pytest.mark.parametrize("centred", [False, True])
def test_network_tells_labelled_from_unlabelled_and_seen_from_novel(
    centred, training_seed, margin
):
    """Centred rows break the graph of all similarities; "auto" does not take it."""
    n_threads = torch.get_num_threads()
    pool, y, strategy = seen_and_novel(centred, training_seed, n_threads)
    _, logits, _ = strategy._outputs(pool, 1)
    is_labeled = np.arange(len(logits)) >= len(pool)
    auc = roc_auc_score(is_labeled, logits)
    margin(f"AUC of labelled, centred {centred}", auc, above=0.65)
    auc = roc_auc_score(y < 5, logits[: len(pool)])
    margin(f"AUC of seen, centred {centred}", auc, above=0.75)
    loss = strategy.aux_.history[:, "train_loss"]
    assert len(loss) == 80 and loss[-1] < loss[0]


@pytest.mark.parametrize("centred", [False, True])
def test_core_gcn_finds_the_novel_digits(centred, training_seed, margin):
    n_threads = torch.get_num_threads()
    pool, y, trained = seen_and_novel(centred, training_seed, n_threads)
    strategy = CoreGcnQuery()
    strategy.aux_, strategy.seed_ = trained.aux_, trained.seed_
    picks = strategy.query(pool, 30)
    share = (y[picks] >= 5).mean() - (y >= 5).mean()
    margin(f"share of novel, minus pool's, centred {centred}", share, above=0)
    margin(f"digits found, centred {centred}", len(set(y[picks])), above=4)


@pytest.mark.parametrize("centred", [False, True])
def test_quantile_finds_the_novel_digits(centred, training_seed, margin):
    n_threads = torch.get_num_threads()
    pool, y, strategy = seen_and_novel(centred, training_seed, n_threads)
    again = UncertainGcnQuery(s_margin="quantile")
    again.aux_, again.seed_ = strategy.aux_, strategy.seed_
    share = (y[again.query(pool, 30)] >= 5).mean()
    margin(f"share of novel, centred {centred}", share, above=0.65)


@BOTH
def test_permuting_the_pool_permutes_the_picks_of_one_network(cls):
    pool, _, trained = seen_and_novel(True)
    strategy = cls()
    strategy.aux_, strategy.seed_ = trained.aux_, trained.seed_
    order = np.random.default_rng(1).permutation(len(pool))
    X, X_labeled = pool.features[order], pool.labeled.features
    permuted = PoolView(None, X, X_labeled=X_labeled, random_state=0)
    picks = strategy.query(permuted, 20)
    np.testing.assert_array_equal(order[picks], strategy.query(pool, 20))


class Table(nn.Module):
    """Gives the outputs it was made with, of pool and labelled rows."""

    def __init__(self, logits, hidden):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.hidden = torch.tensor(hidden)

    def forward(self, averaged, similarity, own, scale):
        return self.logits, self.hidden


def with_outputs(strategy, logits, hidden):
    outputs = {"module__logits": logits, "module__hidden": hidden}
    strategy.aux_, strategy.seed_ = NeuralNet(Table, GCNLoss, **outputs), 0
    strategy.aux_.initialize()
    return strategy


def pool_of(n_rows, fake_pool):
    labeled = fake_pool(embeddings=torch.ones(1, 2))
    return fake_pool(embeddings=torch.ones(n_rows, 2), labeled=labeled)


def test_uncertain_gcn_takes_what_is_nearest_to_the_margin(fake_pool):
    proba = np.array([0.02, 0.15, 0.9, 0.11, 0.5, 0.99])
    logits = np.log(proba / (1 - proba)).tolist()
    pool = pool_of(5, fake_pool)

    def picks(s_margin):
        strategy = UncertainGcnQuery(s_margin=s_margin)
        return with_outputs(strategy, logits, [[0.0]] * 6).query(pool, 5).tolist()

    assert picks(0.1) == [3, 1, 0, 4, 2]
    assert picks(1.0) == [2, 4, 1, 3, 0]
    # The .1-quantile of the five is .02 + .4 (.11 - .02) = .056.
    assert picks("quantile") == [0, 3, 1, 4, 2]


def test_core_gcn_is_greedy_from_the_labelled_rows(fake_pool):
    hidden = [[4.0], [5.0], [6.0], [10.0], [0.0]]
    pool = pool_of(4, fake_pool)
    strategy = with_outputs(CoreGcnQuery(), [0.0] * 5, hidden)
    assert strategy.query(pool, 2).tolist() == [3, 1]
    # The logit is a coordinate like the hidden units.
    strategy = with_outputs(CoreGcnQuery(), [0.0, 20.0, 0.0, 0.0, 0.0], hidden)
    assert strategy.query(pool, 2).tolist() == [1, 3]


def test_rows_with_equal_embeddings_have_equal_outputs():
    X = np.repeat(np.random.default_rng(0).random((7, 64)), 9, axis=0)
    pool = PoolView(None, X, X_labeled=np.random.default_rng(1).random((20, 64)))
    strategy = quick(UncertainGcnQuery).fit(pool)
    _, logits, hidden = strategy._outputs(pool, 1)
    for part in (logits[:63], hidden[:63].flatten(1)):
        for same in part.split(9):
            assert (same == same[0]).all()


def test_larger_weight_of_the_unlabelled_lowers_the_probabilities():
    means = []
    for weight in (0.3, 1.2, 5.0):
        strategy = quick(UncertainGcnQuery, aux__criterion__unlabeled_weight=weight)
        strategy.set_params(aux__lr=0.01, aux__max_epochs=30).fit(make_pool())
        means.append(strategy._outputs(make_pool(), 1)[1].sigmoid().mean())
    assert means[0] > means[1] > means[2]


@BOTH
def test_network_depends_on_the_seeds_and_nothing_else(cls):
    def weights(strategy, pool):
        module = strategy.fit(pool).aux_.module_
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    strategy = quick(cls, random_state=0)
    first = weights(strategy, make_pool(random_state=1))
    torch.manual_seed(5)
    assert torch.equal(weights(strategy, make_pool(random_state=1)), first)
    assert not torch.equal(weights(strategy, make_pool(random_state=2)), first)
    strategy.random_state = 1
    assert not torch.equal(weights(strategy, make_pool(random_state=1)), first)


# The auxiliary net


def test_parameters_of_the_default_net_are_reached_through_the_loop():
    X, y = load_digits(return_X_y=True)
    loop = ActiveLearningLoop(
        LogisticRegression(max_iter=5000),
        UncertainGcnQuery(),
        n_initial=30,
        n_rounds=2,
        random_state=0,
    )
    loop.set_params(
        strategy__aux__max_epochs=3,
        strategy__aux__module__n_hidden=7,
        strategy__aux__module__dropout=0.0,
        strategy__aux__lr=0.02,
    )
    aux = loop.fit(X[:200], y[:200]).strategy_.aux_
    assert len(aux.history) == 3 and aux.optimizer_.param_groups[0]["lr"] == 0.02
    assert aux.module_.hidden.out_features == 7 and aux.module_.dropout.p == 0
    assert aux.optimizer_.param_groups[0]["weight_decay"] == 5e-4
    assert (np.bincount(loop.labeled_iter_ + 1) == [150, 30, 10, 10]).all()


def test_defaults_are_those_of_the_paper():
    pool = make_pool()
    aux = UncertainGcnQuery().fit(pool).aux_
    assert len(aux.history) == 200
    assert aux.module_.hidden.out_features == 128 and aux.module_.dropout.p == 0.3
    assert aux.criterion_.unlabeled_weight == 1.2
    group = aux.optimizer_.param_groups[0]
    assert isinstance(aux.optimizer_, torch.optim.Adam)
    assert (group["lr"], group["weight_decay"]) == (1e-3, 5e-4)


class Shallow(nn.Module):
    """One layer, no graph."""

    def __init__(self, n_inputs):
        super().__init__()
        self.layer = nn.Linear(n_inputs, 1)

    def forward(self, averaged, similarity, own, scale):
        return self.layer(averaged).squeeze(1), averaged


@BOTH
def test_net_of_the_user_is_cloned_and_trained(cls):
    aux = NeuralNet(Shallow, GCNLoss, max_epochs=2, verbose=0)  # with a train_split
    strategy = cls(aux=aux).fit(make_pool())
    assert isinstance(strategy.aux_.module_, Shallow)
    assert len(strategy.aux_.history) == 2
    assert strategy.aux is aux and not hasattr(aux, "module_")
    assert aux.train_split is not None
    assert len(set(strategy.query(make_pool(), 9))) == 9


def test_set_params_makes_a_net_only_where_there_is_none():
    strategy = UncertainGcnQuery().set_params(s_margin=0.3)
    assert strategy.aux is None
    aux = NeuralNet(GCN, GCNLoss, max_epochs=3)
    strategy.set_params(aux=aux, aux__lr=0.5)
    assert strategy.aux is aux and aux.lr == 0.5
    assert strategy.set_params(aux=None, aux__lr=0.7).aux.max_epochs == 200
    with pytest.raises(ValueError, match="nothing"):
        UncertainGcnQuery().set_params(aux__nothing=1)


def test_trained_strategy_keeps_no_rows():
    X = np.random.default_rng(0).random((2000, 64), dtype=np.float32)
    pool = PoolView(None, X, X_labeled=X[:5])
    strategy = quick(UncertainGcnQuery, aux__module__n_hidden=4).fit(pool)
    assert len(pickle.dumps(strategy)) < X.nbytes / 10


# The subset


@BOTH
def test_subset_bounds_the_candidates_but_never_the_picks(cls):
    X = np.random.default_rng(0).random((200, 5))
    pool = PoolView(None, X, X_labeled=X[:9], random_state=0)
    strategy = quick(cls, subset=20).fit(pool)
    candidates, logits, _ = strategy._outputs(pool, 5)
    assert len(candidates) == 20 and len(logits) == 29
    assert set(strategy.query(pool, 5)) <= set(candidates)
    assert set(strategy.query(pool, 20)) == set(candidates)
    assert len(set(strategy.query(pool, 50))) == 50
    others = quick(cls, subset=20, random_state=1).fit(pool)._outputs(pool, 5)[0]
    assert set(others) != set(candidates)


def test_subset_as_large_as_the_pool_changes_nothing():
    whole = quick(UncertainGcnQuery).fit(make_pool()).query(make_pool(), 9)
    subset = quick(UncertainGcnQuery, subset=60).fit(make_pool()).query(make_pool(), 9)
    np.testing.assert_array_equal(whole, subset)


# Hard rows and bad input


@pytest.mark.parametrize("graph", ["gram", "knn"])
@pytest.mark.parametrize("kind", ["zero", "some zero", "equal", "huge", "tiny"])
@BOTH
def test_hard_rows_give_distinct_picks(cls, graph, kind):
    rng = np.random.default_rng(0)
    X = rng.random((40, 5), dtype=np.float32)
    if kind in ("zero", "some zero"):
        X[:: 1 if kind == "zero" else 3] = 0
    elif kind == "equal":
        X[:] = X[0]
    else:
        X *= 1e30 if kind == "huge" else 1e-38
    pool = PoolView(None, X, X_labeled=X[:3], random_state=0)
    picks = quick(cls, graph=graph).fit(pool).query(pool, 12)
    assert len(set(picks)) == 12


@BOTH
def test_scale_of_a_row_plays_no_part(cls):
    X = np.random.default_rng(0).random((40, 5))
    scales = 2.0 ** np.random.default_rng(1).integers(-100, 100, (40, 1))
    picks = [
        (lambda p: quick(cls).fit(p).query(p, 9))(
            PoolView(None, rows, X_labeled=X[:3], random_state=0)
        )
        for rows in (X, X * scales)
    ]
    np.testing.assert_array_equal(*picks)


@BOTH
def test_without_labelled_rows_there_is_an_error(cls, fake_pool):
    X = np.random.default_rng(0).random((9, 2))
    for labeled in (None, X[:0]):
        with pytest.raises(ValueError, match=f"{cls.__name__} tells.*X_labeled"):
            cls().fit(PoolView(None, X, X_labeled=labeled))


def test_gram_of_negative_embeddings_raises():
    X = np.random.default_rng(0).standard_normal((40, 5))
    pool = PoolView(None, X, X_labeled=X[:3])
    with pytest.raises(ValueError, match="graph='gram' needs embeddings without"):
        UncertainGcnQuery(graph="gram").fit(pool)
    assert len(quick(UncertainGcnQuery).fit(pool).query(pool, 5)) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_raise(value):
    X = np.random.default_rng(0).random((9, 2))
    X[4, 1] = value
    with pytest.raises(ValueError, match="embeddings have NaN or infinite entries"):
        CoreGcnQuery().fit(PoolView(None, X, X_labeled=X[:3]))


@BOTH
def test_diverged_network_raises(cls):
    pool = make_pool()
    strategy = quick(cls, aux__lr=1e30).fit(pool)
    with pytest.raises(ValueError, match="diverged.*aux__lr"):
        strategy.query(pool, 3)


@BOTH
def test_query_before_fit_raises(cls):
    with pytest.raises(ValueError, match="not fitted yet"):
        cls().query(make_pool(), 3)


@pytest.mark.parametrize(
    "name, value",
    [
        ("graph", "full"),
        ("n_neighbors", 0),
        ("n_neighbors", 2.0),
        ("n_neighbors", None),
        ("subset", 0),
        ("s_margin", -0.1),
        ("s_margin", 1.5),
        ("s_margin", "median"),
        ("s_margin", float("nan")),
        ("aux", "net"),
        ("aux", NeuralNet),
        ("aux", LogisticRegression()),
    ],
)
def test_bad_parameters_raise_before_anything_is_trained(name, value):
    strategy = UncertainGcnQuery(**{name: value})

    class Untrained(LogisticRegression):
        def fit(self, X, y):
            raise AssertionError("trained")

    X, y = load_digits(return_X_y=True)
    for call in (
        lambda: strategy.fit(make_pool()),
        lambda: ActiveLearningLoop(Untrained(), strategy).fit(X[:99], y[:99]),
    ):
        with pytest.raises(ValueError, match=f"'{name}' parameter of .* must be"):
            call()
