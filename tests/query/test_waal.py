import math
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skal import ActiveLearningLoop, PoolView, RandomQuery, WaalQuery
from skal.models import MLP, ConvNet
from skal.net.pool_features import PoolFeatures
from skal.net.training import fit_isolated, private_clone
from skal.query._waal import _certainty


def make_net(**params):
    return NeuralNetClassifier(
        MLP,
        **{
            "module__n_inputs": 64,
            "module__n_classes": 10,
            "criterion": nn.CrossEntropyLoss,
            "optimizer": torch.optim.Adam,
            "lr": 1e-3,
            "max_epochs": 3,
            "batch_size": 32,
            "verbose": 0,
            **params,
        },
    )


@cache
def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def fit(strategy=None, net=None, n=100, n_pool=300, seed=0):
    X, y = digits()
    net = private_clone(make_net() if net is None else net, 10)
    features = PoolFeatures(net, X, np.arange(n, n + n_pool))
    prepared = (strategy or WaalQuery()).prepare(net, pool_features=features)
    return fit_isolated(prepared, X[:n], y[:n], seed)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


@pytest.mark.slow
def test_labels_in_one_half_only(training_seed, margin):
    """A critic tells the halves of two moons apart; the network brings them together.

    What it learns of fixed features, and by how much the distance falls.
    """
    X, y = make_moons(600, noise=0.1, random_state=training_seed)
    X, left = X.astype(np.float32), X[:, 0] < 0.5
    rng = np.random.default_rng(training_seed)
    labeled = rng.choice(np.flatnonzero(left), 100, replace=False)
    pool = np.setdiff1d(np.arange(600), labeled)
    distances = {}
    for alpha in (0.0, 0.1):
        net = make_net(
            module__n_inputs=2,
            module__n_classes=2,
            module__hidden=(50,),
            module__dropout=0.0,
            lr=5e-3,
            max_epochs=60,
            batch_size=50,
        )
        net = private_clone(net, 2)
        strategy = WaalQuery(alpha=alpha).set_params(aux__n_critic=5)
        strategy.prepare(net, pool_features=PoolFeatures(net, X, pool))
        fit_isolated(net, X[labeled], y[labeled], training_seed)
        view = PoolView(net, X[pool], random_state=0)
        critic = strategy.fit(view).aux_
        distances[alpha] = np.mean(net.history[-10:, "distance"])
        if alpha == 0:
            right = ~left[pool]
            auc = roc_auc_score(right, critic.scores(view.embeddings))
            margin("AUC of the half without labels", auc, above=0.7)
            share = right[strategy.query(view, 50)].mean()
            margin("its share of 50 picks", share, above=0.6)
    margin("distance left", distances[0.1] / distances[0.0], below=0.4)


def test_a_small_alpha_does_not_cost_accuracy(training_seed, margin):
    X, y = digits()
    scores = []
    for strategy in (None, WaalQuery()):
        net = private_clone(make_net(max_epochs=30), 10)
        if strategy is not None:
            features = PoolFeatures(net, X, np.arange(100, 1000))
            strategy.prepare(net, pool_features=features)
        fit_isolated(net, X[:100], y[:100], training_seed)
        scores.append(net.score(X[1000:], y[1000:]))
    margin("accuracy, minus that of a plain fit", scores[1] - scores[0], above=-0.1)


def test_the_uncertainty():
    uniform = torch.full((1, 4), -math.log(4), dtype=torch.float64)
    # 4 log 4 and 2 log 4, halved.
    assert _certainty(uniform).item() == pytest.approx(3 * math.log(4))
    p = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), 200))
    assert (_certainty(p.log()) > 3 * math.log(4)).all()
    torch.testing.assert_close(
        _certainty(p.log()[:, [2, 0, 3, 1]]), _certainty(p.log())
    )
    sure = torch.tensor([[0.0, -math.inf, -math.inf, -math.inf]]).double()
    assert math.inf > _certainty(sure) > _certainty(p.log()).max()


def test_the_score_adds_two_standardized_parts():
    net = fit()
    pool = PoolView(net, digits()[0][100:], random_state=0)
    g = net.waal_critic_.scores(pool.embeddings).double()
    picks = WaalQuery(diversity_weight=1e6).fit(pool).query(pool, 20)
    assert g[picks].min() > g.topk(20).values.min() - 1e-3
    certainty = _certainty(pool.log_proba.double())
    picks = WaalQuery(diversity_weight=0.0).fit(pool).query(pool, 20)
    assert certainty[picks].max() < certainty.sort().values[19] + 0.1
    z = (g - g.mean()) / g.std() * 2 - (certainty - certainty.mean()) / certainty.std()
    score = WaalQuery(diversity_weight=2.0).fit(pool)._score(pool)
    picks = WaalQuery(uncertainty_weight=0.0).fit(pool).query(pool, 20)
    assert g[picks].min() > g.topk(20).values.min() - 1e-3
    torch.testing.assert_close(score, z, atol=5e-3, rtol=1e-3)


def test_without_weights_rows_are_random():
    pool = PoolView(fit(), digits()[0][100:400], random_state=0)
    strategy = WaalQuery(uncertainty_weight=0.0, diversity_weight=0.0).fit(pool)
    picks = [strategy.set_params(random_state=s).query(pool, 30) for s in range(20)]
    counts = np.bincount(np.concatenate(picks), minlength=300)
    assert counts.max() <= 9  # of 20, where 2 are expected
    assert abs(np.concatenate(picks).mean() - 149.5) < 4 * 86.6 / 600**0.5


def test_each_step_reaches_its_own_parameters():
    still = WaalQuery(alpha=0.1).set_params(aux__lr=0.0)
    critic = fit(still, make_net(max_epochs=1)).waal_critic_
    longer = fit(still, make_net(max_epochs=2)).waal_critic_
    for before, after in zip(
        critic.module_.parameters(), longer.module_.parameters(), strict=True
    ):
        assert torch.equal(before, after)
        assert after.requires_grad
    # A network that does not learn keeps its weights whatever the critic does.
    frozen = [fit(WaalQuery(alpha=a), make_net(lr=0.0)) for a in (0.0, 10.0)]
    assert torch.equal(*map(weights, frozen))
    learning = [fit(WaalQuery(alpha=a)) for a in (0.0, 10.0)]
    assert not torch.equal(*map(weights, learning))
    # The head has no part in the distance.
    one = [
        fit(WaalQuery(alpha=a), make_net(max_epochs=1, batch_size=100), n_pool=10)
        for a in (0.0, 10.0)
    ]
    heads = [list(net.module_.parameters())[-2:] for net in one]
    for first, second in zip(*heads, strict=True):
        assert torch.equal(first, second)


class Rows(nn.Module):
    """Notes the rows of each batch that trains."""

    seen = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        if self.training:
            self.seen.append(x.detach().clone())
        return self.head(self.norm(self.body(x)).relu())


@pytest.mark.parametrize(
    "n, n_pool, cap, n_steps",
    [
        (64, 512, 1000, 16),  # the whole pool
        (64, 512, 100, 4),  # the cap
        (64, 3, 1000, 2),  # all there are, again and again
        (192, 100, 1000, 6),  # more batches of labelled rows
        (10, 400, 10**9, 13),  # fewer labels than a batch
        (64, 1, 1000, 2),  # one row
    ],
)
def test_the_batches_of_an_epoch(n, n_pool, cap, n_steps):
    Rows.seen.clear()
    net = NeuralNetClassifier(
        Rows, criterion=nn.CrossEntropyLoss, batch_size=32, max_epochs=2, verbose=0
    )
    net = fit(WaalQuery(max_pool_per_epoch=cap), net, n=n, n_pool=n_pool)
    X = torch.from_numpy(digits()[0])
    assert len(Rows.seen) == 2 * n_steps
    assert net.history[-1, "train_batch_count"] == n_steps
    size = min(n, 32)
    for x in Rows.seen:  # labelled rows first, then those of the pool
        assert (x[:size, None] == X[None, :n]).all(2).any(1).all()
        assert (x[size:, None] == X[None, n : n + n_pool]).all(2).any(1).all()
        assert len(x) - size == min(32, n_pool)
    # No row of the pool comes again before all have come, and no label is left out.
    unlabeled = torch.cat([x[size:] for x in Rows.seen])
    counts = unlabeled.unique(dim=0, return_counts=True)[1]
    assert len(counts) == min(n_pool, len(unlabeled))
    assert counts.max() - counts.min() <= 1
    labeled = torch.cat([x[:size] for x in Rows.seen[:n_steps]])
    assert len(labeled.unique(dim=0)) == n


def test_the_distance_of_rows_that_do_not_train_is_noted():
    split = ValidSplit(0.25, random_state=0)
    net = make_net(max_epochs=5, train_split=split)
    net = fit(net=net, n=100, n_pool=200)
    held_out = net.history[:, "held_out_distance"]
    assert len(held_out) == 5 and np.isfinite(held_out).all()
    X = digits()[0]
    view = PoolView(net, X[100:300])
    valid = X[split(X[:100], np.zeros(100))[1].indices]
    distance = net.waal_critic_.distance(
        view.embeddings, PoolView(net, valid).embeddings
    )
    # There, of a part of the pool.
    assert held_out[-1] == pytest.approx(distance.item(), abs=0.5)


def test_the_embedding_may_be_cut_elsewhere():
    X, y = digits()
    net = private_clone(make_net(module__hidden=(30, 20)), 10)
    features = PoolFeatures(net, X, np.arange(100, 200), embedding_layer="features.3")
    WaalQuery().prepare(net, pool_features=features)
    fit_isolated(net, X[:100], y[:100], 0)
    assert net.waal_critic_.module_[0].in_features == 30
    pool = PoolView(net, X[100:200], embedding_layer="features.3", random_state=0)
    assert len(WaalQuery().fit(pool).query(pool, 5)) == 5


def test_callbacks_and_scores_see_labelled_rows(training_seed, margin):
    callback = EpochScoring(
        "accuracy", name="train_acc", on_train=True, lower_is_better=False
    )
    net = make_net(callbacks=[callback], max_epochs=40)
    net = fit(net=net, n=200, seed=training_seed)
    margin("accuracy in training", net.history[-1, "train_acc"], above=0.8)
    assert all(b["train_batch_size"] <= 34 for b in net.history[-1, "batches"])


@pytest.mark.parametrize(
    "duplicate",
    [lambda net: pickle.loads(pickle.dumps(net)), clone],
    ids=["pickle", "clone"],
)
def test_a_prepared_net_can_be_duplicated(duplicate):
    net = fit(WaalQuery(alpha=0.5))
    other = duplicate(net)
    assert isinstance(other, NeuralNetClassifier)
    assert other.get_params().keys() == net.get_params().keys()
    assert other.matching_.alpha == 0.5
    X, y = digits()
    if other.initialized_:
        np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    fit_isolated(other, X[:50], y[:50], 0)  # without a pool, as any net


def test_the_rows_of_the_pool_are_let_go():
    net = fit()
    assert net.matching_.pool_features is None
    assert net._pool is None and net._probe is None
    assert len(pickle.dumps(net)) < 2_000_000
    critic = net.waal_critic_
    assert len(net.history[:, "distance"]) == 3
    # The critic is no part of what the user's optimizer updates.
    inside = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert not inside & {id(p) for p in critic.module_.parameters()}


def loop(estimator, strategy=None, X=None, y=None, **params):
    X = digits()[0][:400] if X is None else X
    y = digits()[1][:400] if y is None else y
    params = {"n_initial": 40, "batch_size": 10, "n_rounds": 2, **params}
    return ActiveLearningLoop(
        estimator, strategy or WaalQuery(), random_state=0, **params
    ).fit(X, y)


def test_a_loop_repeats_itself_in_every_container():
    X, y = digits()
    X, y = X[:400], y[:400]
    arrays = loop(make_net())
    assert len(arrays.estimator_.history[:, "distance"]) == 3
    again = loop(make_net())
    dataset = loop(make_net(), X=TensorDataset(torch.from_numpy(X)), y=y)
    frozen = X.copy()
    frozen.flags.writeable = False
    nowhere = loop(make_net(device=None))  # skorch leaves the module where it is
    swapped = X.astype(X.dtype.newbyteorder())
    others = [again, dataset, nowhere, loop(make_net(), X=frozen)]
    for other in (*others, loop(make_net(), X=swapped)):
        np.testing.assert_array_equal(arrays.labeled_indices_, other.labeled_indices_)
        np.testing.assert_array_equal(arrays.predict_proba(X), other.predict_proba(X))


def test_a_pipeline_and_its_transformers():
    piped = loop(make_pipeline(StandardScaler(), make_net()))
    assert len(piped.estimator_[-1].history[:, "distance"]) == 3
    # Rows of the pool come scaled, as the labelled ones do.
    net = private_clone(make_pipeline(StandardScaler(), make_net()), 10)
    X, y = digits()
    features = PoolFeatures(net, X, np.arange(100, 200))
    net[0].fit(X[:100])
    np.testing.assert_array_equal(
        features(np.array([5, 0])), net[0].transform(X[[105, 100]])
    )


def test_images_of_three_channels():
    X = np.random.default_rng(0).random((60, 3, 8, 8), dtype=np.float32)
    net = NeuralNetClassifier(
        ConvNet,
        module__n_channels=3,
        module__n_classes=2,
        module__image_size=8,
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        verbose=0,
    )
    fitted = loop(net, X=X, y=np.arange(60) % 2)
    assert len(fitted.labeled_indices_) == 60


def test_a_warm_start_goes_on_with_the_critic():
    fitted = loop(make_net(), warm_start=True)
    assert len(fitted.estimator_.history[:, "distance"]) == 9
    (group,) = fitted.strategy_.aux_.optimizer_.param_groups
    steps = fitted.strategy_.aux_.optimizer_.state[group["params"][0]]["step"]
    assert steps == sum(fitted.estimator_.history[:, "train_batch_count"])


def test_an_exhausted_pool():
    fitted = loop(make_net(), n_rounds=None, batch_size=200)
    assert fitted.termination_condition_ == "pool_exhausted"
    assert len(fitted.labeled_indices_) == 400


def test_the_pool_is_scored_without_a_loader(monkeypatch):
    """As that of any net: the one pass over an array slices it."""
    net = fit()
    monkeypatch.setattr(net, "get_iterator", lambda *args, **kwargs: pytest.fail())
    assert len(PoolView(net, digits()[0], random_state=0).proba) == len(digits()[0])


class Several(MLP):
    """Returns more than logits: nothing, a number, and another row a row."""

    def forward(self, x):
        return super().forward(x), (None, x.sum()), x


class SeveralNet(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, *args, **kwargs):
        logits, (nothing, number), x = y_pred
        assert nothing is None
        assert number.shape == ()
        assert len(x) == len(logits) == len(y_true)
        return super().get_loss(logits, y_true, *args, **kwargs)


def test_a_network_with_several_outputs():
    net = SeveralNet(
        Several,
        module__n_inputs=64,
        module__n_classes=10,
        criterion=nn.CrossEntropyLoss,
        batch_size=32,
        max_epochs=2,
        verbose=0,
    )
    assert len(fit(net=net).history[:, "distance"]) == 2


def test_embeddings_on_a_small_scale():
    class Small(Rows):
        def forward(self, x):
            return self.head(self.body(x).tanh() * 1e-4)

    net = NeuralNetClassifier(
        Small, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    pool = PoolView(fit(net=net), digits()[0][100:300], random_state=0)
    strategy = WaalQuery(uncertainty_weight=0.0).fit(pool)
    assert len(np.unique(strategy._score(pool))) > 150


def test_equal_rows_are_equal_wherever_they_stand():
    same = np.repeat(digits()[0][100:101], 45, axis=0)
    pool = PoolView(fit(), same, random_state=0)
    assert not WaalQuery().fit(pool)._score(pool).any()


def test_the_epochs_that_trained_a_critic_have_a_distance():
    X, y = digits()
    labels = np.full(200, -1)
    labels[:40] = y[:40]
    running = ActiveLearningLoop(
        make_net(), RandomQuery(), warm_start=True, random_state=0
    ).fit(X[:200], labels)
    running.set_params(strategy=WaalQuery()).fit(X[:200], labels)
    batches = [epoch["batches"][0] for epoch in running.estimator_.history]
    assert ["distance" in batch for batch in batches] == [False] * 3 + [True] * 3


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, x):
        return (x * self.scale)[:, :10]


def headless():
    return NeuralNetClassifier(Headless, criterion=nn.CrossEntropyLoss, verbose=0)


@pytest.mark.parametrize(
    "estimator, message",
    [
        (LogisticRegression(), "WaalQuery changes how the network trains"),
        (GridSearchCV(make_net(), {"lr": [0.1]}), "a net or a Pipeline"),
        (headless(), "no embedding layer found"),
        (make_pipeline(StandardScaler(), headless()), "no embedding layer found"),
    ],
)
def test_estimators_that_cannot(estimator, message):
    with pytest.raises(ValueError, match=message):
        loop(estimator)


def test_nan_stops_with_what_was_bought():
    X, y = digits()
    running = ActiveLearningLoop(
        make_net(lr=1e30), WaalQuery(), n_initial=40, random_state=0
    )
    with pytest.raises(ValueError, match=r"training diverged.*lower the learning rate"):
        running.fit(X[:200], y[:200])
    assert len(running.labeled_indices_) == 40
    missing = torch.from_numpy(X[:200].copy())
    missing[running.transduction_ < 0, 3] = math.nan  # not the labelled ones
    with pytest.raises(ValueError, match=r"row \d+ of X.* Clean it"):
        loop(make_net(), X=TensorDataset(missing), y=y[:200])


class OwnLoader(DataLoader):
    pass


def test_a_loader_without_a_batch_raises():
    net = make_net(iterator_train=OwnLoader, iterator_train__drop_last=True)
    with pytest.raises(ValueError, match="makes no batch of 20 rows.*batch_size=32"):
        fit(net=net, n=20)


@pytest.mark.parametrize(
    "params",
    [
        {"alpha": -1.0},
        {"alpha": math.nan},
        {"uncertainty_weight": -0.1},
        {"diversity_weight": -0.1},
        {"max_pool_per_epoch": 0},
        {"aux": make_net()},
    ],
)
def test_wrong_parameters(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        loop(make_net(), WaalQuery(**params))


def test_a_net_that_was_not_prepared_raises():
    X, y = digits()
    net = private_clone(make_net(), 10)
    fit_isolated(net, X[:100], y[:100], 0)
    with pytest.raises(ValueError, match="not prepared for WaalQuery.*before net"):
        WaalQuery().fit(PoolView(net, X[100:200]))
