import pickle
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet
from torch import nn

from skal import ActiveLearningLoop, PoolView, VaalQuery
from skal.models import VAE, AdversarialVAE, Discriminator
from skal.net.auxiliary_rows import AuxiliaryRows
from skal.testing._pools import make_pool

X, Y = load_digits(return_X_y=True)
# A few steps are no training, and few or random rows tell nothing.
QUIETLY = pytest.mark.filterwarnings("ignore:the posterior of the VAE")
pytestmark = [
    pytest.mark.filterwarnings("ignore:the discriminator of VaalQuery tells"),
    pytest.mark.filterwarnings("ignore:VaalQuery holds out none"),
]


def quick(**params):
    return VaalQuery().set_params(**{"aux__max_iter": 20, **params})


@cache
def digits(seed=0, novel=True, shape=(64,), max_iter=150, n_threads=1, **params):
    """Label 200 digits, below 5 or of all classes alike; pool, its labels, strategy."""
    order = np.random.default_rng(seed).permutation(len(Y))
    every_9th = order[np.argsort(Y[order], kind="stable")][::9]
    labeled = order[Y[order] < 5][:200] if novel else every_9th
    rows = np.setdiff1d(order, labeled)
    images = X.reshape(-1, *shape).astype(np.uint8)
    pool = PoolView(None, images[rows], X_labeled=images[labeled], random_state=seed)
    return pool, Y[rows], quick(aux__max_iter=max_iter, **params).fit(pool)


@pytest.mark.parametrize("shape, max_iter", [((64,), 150), ((8, 8), 40)])
def test_novel_digits_come_first(shape, max_iter, training_seed, margin):
    n_threads = torch.get_num_threads()
    pool, y, strategy = digits(training_seed, True, shape, max_iter, n_threads)
    auc = roc_auc_score(y >= 5, strategy._score(pool))
    margin(f"AUC of novel digits, {len(shape)}-D", auc, above=0.8)
    share = (y[strategy.query(pool, 50)] >= 5).mean()
    margin(f"share of novel digits in 50, {len(shape)}-D", share, above=0.75)
    held_out = strategy.aux_.aucs_["held_out"]
    margin(f"AUC held out, {len(shape)}-D", held_out, above=0.6)


def test_a_uniform_split_tells_nothing(training_seed, margin):
    n_threads = torch.get_num_threads()
    pool, y, strategy = digits(training_seed, False, max_iter=300, n_threads=n_threads)
    auc = roc_auc_score(y >= 5, strategy._score(pool))
    margin("AUC of digits above 4", auc, above=0.25, below=0.75)
    margin("AUC held out", strategy.aux_.aucs_["held_out"], above=0.3, below=0.7)


def test_a_collapsed_posterior_is_told(training_seed, margin):
    """The weight of a sum over 128 rows beside a mean over them and 64 values."""
    n_threads = torch.get_num_threads()
    pool, y, healthy = digits(training_seed, n_threads=n_threads)
    with pytest.warns(UserWarning, match="posterior of the VAE collapsed.*aux__beta"):
        collapsing = {"aux__beta": 8192.0, "aux__lr": 0.005, "held_out": 0.0}
        quick(aux__max_iter=80, **collapsing).fit(pool)
    margin("divergence", healthy.aux_.history[-1, "divergence"], above=1)


# Rows held out, and the subset


def test_what_is_held_out_trains_nothing():
    pool, _, _ = digits()
    rows = AuxiliaryRows(pool, pool.labeled, paired=True)
    assert rows.hold_out(0.2, 100, np.random.default_rng(0))
    assert rows.is_labeled[rows.held_out].sum() == 40 and len(rows.held_out) == 140
    batches = torch.cat(list(islice(rows.batches(64), 50)))
    assert not set(batches.tolist()) & set(rows.held_out.tolist())
    assert len(set(batches.tolist())) == len(rows) - 140
    assert not set(rows.seen(50, np.random.default_rng(0))) & set(rows.held_out)


def test_the_weights_are_those_of_the_best_epoch():
    pool, _, strategy = digits(novel=False, max_iter=300)
    history, aucs = strategy.aux_.history, strategy.aux_.aucs_
    losses = history[:, "held_out_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + strategy.aux_.patience < 300 / 12
    assert aucs == {name: history[best, f"{name}_auc"] for name in ("seen", "held_out")}
    rows = AuxiliaryRows(pool, pool.labeled, paired=True)
    rows.scaled(strategy.center_, strategy.scale_)
    rows.hold_out(0.2, 256, np.random.default_rng(strategy.seed_))
    logits = -strategy._score_of(rows, rows.held_out)
    auc = roc_auc_score(rows.is_labeled[rows.held_out], logits)
    assert auc == pytest.approx(aucs["held_out"])


def test_rows_are_drawn_from_a_subset():
    pool, _, strategy = digits()
    scores = strategy._score(pool)
    everything = clone_of(strategy, subset=None).query(pool, 5)
    assert set(everything) == set(scores.topk(5).indices.tolist())
    assert len(set(clone_of(strategy, subset=1).query(pool, 7))) == 7
    some = clone_of(strategy, subset=20).query(pool, 20)
    ranks = scores.argsort().argsort().double()[some]
    assert abs(ranks.mean() - len(pool) / 2) < 500


@pytest.mark.parametrize("auc, ratio", [(None, 10), (1, 10), (0.75, 5.5), (0.4, 1)])
def test_the_subset_is_as_large_as_the_discriminator_is_good(auc, ratio):
    _, _, strategy = digits()
    again = clone_of(strategy)
    again.aux_.aucs_ = {} if auc is None else {"held_out": auc}
    assert again._ratio == pytest.approx(ratio)


def clone_of(strategy, **params):
    return pickle.loads(pickle.dumps(strategy)).set_params(**params)


@pytest.mark.filterwarnings("error")
def test_it_is_told_once_that_nothing_is_known():
    pool, _, fitted = digits()
    strategy = clone_of(fitted)
    rows = AuxiliaryRows(pool, pool.labeled, paired=True)
    rows.hold_out(0.2, 256, np.random.default_rng(0))  # 40 and 256 rows
    for auc in (0.61, 0.59, 0.59):
        strategy.aux_.aucs_["held_out"] = auc
        if auc == 0.59 and not strategy.told_:  # 1.8 deviations of chance
            with pytest.warns(UserWarning, match="no better than chance may.*aucs_"):
                strategy._check_held_out(rows)
        strategy._check_held_out(rows)
    few = PoolView(None, X, X_labeled=X[:24], random_state=0)
    with pytest.warns(UserWarning, match="holds out none of 24 labelled rows"):
        strategy.fit(few)
    assert strategy.fit(few).aux_.aucs_ == {}
    quick(held_out=0.0).fit(few)


# Rows


class Spy:
    """An array that notes how many rows were taken at once."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype, self.most = rows, rows.shape, rows.dtype, 0

    def __getitem__(self, index):
        taken = self.rows[index]
        self.most = max(self.most, len(taken))
        return taken


def test_the_pool_is_never_copied_as_a_whole():
    spy = Spy(X.astype(np.float32))
    pool = PoolView.of_rows(
        None, spy, np.arange(100, 1700), labeled_rows=np.arange(100), random_state=0
    )
    strategy = quick(subset=None).fit(pool)
    assert len(strategy.query(pool, 9)) == 9 and 256 <= spy.most <= 1024


@QUIETLY
@pytest.mark.parametrize("shape", [(4, 4), (1, 8, 8), (3, 8, 8), (1, 28, 28)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_images_are_encoded_by_convolutions(shape, dtype):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape)).astype(dtype)
    pool = PoolView(None, images[4:], X_labeled=images[:4], random_state=0)
    strategy = quick(aux__max_iter=2, aux__module__width=4).fit(pool)
    assert len(set(strategy.query(pool, 9))) == 9
    assert isinstance(strategy.aux_.module_.encoder[0], nn.Conv2d)
    assert strategy.aux_.discriminator_[0].out_features == 512


@QUIETLY
def test_columns_of_any_scale_count_alike():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 4))
    pools = [
        PoolView(None, Z[9:], X_labeled=Z[:9], random_state=0)
        for Z in (rows, rows * [1, 1e6, 2**-20, 2**70] + [0, 3e6, 0, 0])
    ]
    scores = [quick().fit(pool)._score(pool) for pool in pools]
    np.testing.assert_allclose(*scores, atol=1e-3)


@QUIETLY
def test_rows_come_after_the_transformers_of_a_pipeline():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:99], Y[:99])
    pool = PoolView(model, X[99:], X_labeled=X[:99], random_state=0)
    strategy = quick().fit(pool)
    expected = (X - X[:99].mean(0)) / np.where(np.ptp(X[:99], 0) > 0, X[:99].std(0), 1)
    np.testing.assert_allclose(strategy.center_, expected.mean(0), atol=1e-12)


@QUIETLY
def test_embeddings_may_be_encoded_instead(fake_pool):
    strategy = quick(input="embedding")
    assert strategy.requires == ("embeddings", "labeled.embeddings")
    strategy.fit(make_pool())
    assert strategy.aux_.module_.decoder[-1].out_features == 8  # not 6, as a row
    assert len(set(strategy.query(make_pool(), 9))) == 9


@QUIETLY
@pytest.mark.parametrize("n_labeled", [1, 5])
@pytest.mark.parametrize("n_pool", [1, 30])
def test_fewer_rows_than_a_batch(n_labeled, n_pool):
    pool = PoolView(None, X[:n_pool], X_labeled=X[-n_labeled:], random_state=0)
    assert len(quick().fit(pool).query(pool, 5)) == min(n_pool, 5)


def test_equal_rows_give_no_warning():
    pool = PoolView(None, np.ones((9, 3)), X_labeled=np.ones((4, 3)), random_state=0)
    assert len(set(quick().fit(pool).query(pool, 5))) == 5


# The auxiliary net


def test_defaults_and_parameters_reach_the_net_through_the_loop():
    assert VaalQuery()._default_aux().max_iter == 300
    loop = ActiveLearningLoop(
        LogisticRegression(max_iter=5000),
        VaalQuery(),
        n_initial=30,
        n_rounds=2,
        random_state=0,
    )
    loop.set_params(
        strategy__held_out=0.0,
        strategy__aux__max_epochs=30,
        strategy__aux__batch_size=100,
        strategy__aux__lr=0.002,
        strategy__aux__module__hidden=(20, 10),
        strategy__aux__discriminator__hidden=(11,),
    )
    aux = loop.fit(X[:200], Y[:200]).strategy_.aux_
    assert [len(epoch["batches"]) for epoch in aux.history] == [2] * 30
    assert aux.module_.encoder[0].out_features == 20
    assert aux.discriminator_[0].out_features == 11
    assert aux.optimizer_.param_groups[0]["lr"] == 0.002
    assert aux.discriminator_optimizer_.param_groups[0]["lr"] == 0.002
    assert (np.bincount(loop.labeled_iter_ + 1) == [150, 30, 10, 10]).all()


class Linear(nn.Module):
    n_latent = 2

    def __init__(self, shape):
        super().__init__()
        self.encode, self.decode = nn.Linear(*shape, 2), nn.Linear(2, *shape)

    def forward(self, x):
        mean = self.encode(x)
        return self.decode(mean), mean, torch.zeros_like(mean)


def test_net_of_the_user_is_cloned_and_trained():
    aux = AdversarialVAE(
        Linear, discriminator=Discriminator, discriminator__hidden=(), max_epochs=2
    )
    strategy = VaalQuery(aux=aux).fit(make_pool())
    assert isinstance(strategy.aux_.module_, Linear) and len(strategy.aux_.history) == 2
    assert strategy.aux is aux and not hasattr(aux, "module_")
    assert len(set(strategy.query(make_pool(), 9))) == 9


# Bad input


def test_without_labelled_rows_there_is_an_error():
    for labeled in (None, X[:0]):
        with pytest.raises(ValueError, match="VaalQuery tells.*X_labeled"):
            VaalQuery().fit(PoolView(None, X, X_labeled=labeled))


def test_query_before_fit_raises():
    with pytest.raises(ValueError, match="not fitted yet"):
        VaalQuery().query(make_pool(), 3)


def test_diverged_training_ends_the_loop_and_keeps_what_was_bought():
    loop = ActiveLearningLoop(
        LogisticRegression(max_iter=5000),
        quick(aux__lr=1e30),
        n_initial=30,
        random_state=0,
    )
    with pytest.raises(ValueError, match="VAE that a strategy trains diverged.*1e.30"):
        loop.fit(X[:200], Y[:200])
    assert len(loop.labeled_indices_) == 30


@pytest.mark.parametrize(
    "name, value",
    [
        ("input", "row"),
        ("subset", 0),
        ("held_out", 1.0),
        ("aux", NeuralNet(VAE, nn.MSELoss)),
        ("aux", AdversarialVAE),
    ],
)
def test_bad_parameters_raise_before_anything_is_trained(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of VaalQuery must be"):
        VaalQuery(**{name: value}).fit(make_pool())


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("aux__max_iter", 0, "The 'max_iter' parameter of AdversarialVAE"),
        ("aux__module__breadth", 9, "aux__module__breadth: VAE has no such argument"),
        ("aux__device", "gpu", "aux__device='gpu' is no device"),
    ],
)
def test_bad_parameters_of_the_net_raise_before_anything_is_bought(
    name, value, message
):
    loop = ActiveLearningLoop(
        LogisticRegression(), VaalQuery().set_params(**{name: value}), random_state=0
    )
    with pytest.raises(ValueError, match=message):
        loop.fit(X[:200], Y[:200])
    assert len(getattr(loop, "labeled_indices_", ())) == 0
