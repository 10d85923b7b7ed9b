import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Checkpoint, LRScheduler
from torch import nn

from skal import ActiveLearningLoop, LearningLossQuery, PoolView, RandomQuery
from skal.models import MLP, LossPrediction
from skal.net.training import fit_isolated, private_clone


class FocalLoss(nn.Module):
    def forward(self, output, target):
        return -((output.softmax(1)[:, 0] - target) ** 2).mean()


def make_net(hidden=(32,), **params):
    return NeuralNetClassifier(
        MLP,
        **{
            "module__n_inputs": 10,
            "module__n_classes": 2,
            "module__hidden": hidden,
            "criterion": nn.CrossEntropyLoss,
            "optimizer__momentum": 0.9,
            "lr": 0.05,
            "max_epochs": 5,
            "batch_size": 64,
            "verbose": 0,
            **params,
        },
    )


@cache
def half_noisy(seed=0, n=1400):
    """Rows of which those with a positive first column have random labels."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 10)).astype(np.float32)
    noisy = X[:, 0] > 0
    y = np.where(noisy, rng.integers(2, size=n), X[:, 1] > 0).astype(np.int64)
    return X, y, noisy


def fit(strategy=None, net=None, n=100, seed=0):
    net = private_clone(make_net() if net is None else net, 2)
    prepared = (strategy or LearningLossQuery()).prepare(net)
    X, y, _ = half_noisy()
    return fit_isolated(prepared, X[:n], y[:n], seed)


def test_the_noisy_half_has_the_highest_predicted_losses(training_seed, margin):
    X, y, noisy = half_noisy(training_seed)
    strategy = LearningLossQuery(random_state=0)
    net = private_clone(make_net((64, 64), max_epochs=40), 2)
    fit_isolated(strategy.prepare(net), X[:400], y[:400], training_seed)
    pool = PoolView(net, X[400:], random_state=0)
    scores = strategy.fit(pool)._score(pool)
    margin("AUC of the noisy half", roc_auc_score(noisy[400:], scores), above=0.65)
    share = noisy[400:][strategy.query(pool, 50)].mean()
    margin("share of the noisy half in 50", share, above=0.6)
    order = np.random.default_rng(0).permutation(len(pool))
    permuted = strategy._score(PoolView(net, X[400:][order], random_state=0))
    np.testing.assert_allclose(permuted, scores[order], atol=1e-5)


def test_every_parameter_of_the_module_learns():
    start = fit(net=make_net((16, 16), lr=0.0), n=64)
    after = fit(net=make_net((16, 16), max_epochs=1), n=64)
    assert after.layers_ == ("features.1", "features.3")
    before = start.loss_module_.state_dict()
    changed = {
        name: bool((value != before[name]).any())
        for name, value in after.loss_module_.state_dict().items()
    }
    assert not changed.pop("head.bias")  # no difference of predictions depends on it
    assert len(changed) == 5
    assert all(changed.values())


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def test_the_ranking_trains_the_network_until_it_is_detached():
    plain = weights(fit(LearningLossQuery(weight=0.0)))
    assert torch.equal(weights(fit(LearningLossQuery(detach_at=0.0))), plain)
    short = [
        weights(fit(LearningLossQuery(detach_at=at), make_net(max_epochs=1)))
        for at in (0.0, 0.6)
    ]
    assert not torch.equal(*short)
    # Of 5 epochs the first 3: an end of 0.41 and one of 0.6 are the same.
    ends = [weights(fit(LearningLossQuery(detach_at=at))) for at in (0.41, 0.6, 0.61)]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])


def test_no_hooks_remain():
    net = fit()
    assert net.layers_ == ("features.1",)
    assert not any(part._forward_hooks for part in net.module_.modules())
    other = pickle.loads(pickle.dumps(net))
    assert torch.equal(weights(other), weights(net))


def test_a_checkpoint_within_a_fit_has_no_rows(tmp_path):
    checkpoint = Checkpoint(
        monitor=None,
        dirname=tmp_path,
        f_pickle="net.pkl",
        **dict.fromkeys(["f_params", "f_optimizer", "f_criterion", "f_history"]),
    )
    fit(net=make_net(callbacks=[checkpoint], max_epochs=1))
    with open(tmp_path / "net.pkl", "rb") as file:
        net = pickle.load(file)
    assert net._shown is None
    assert net.layers_ == ("features.1",)


def test_the_history_has_the_ranking_loss():
    net = fit(LearningLossQuery(margin=2.0), make_net(lr=0.0, batch_size=100))
    curve = net.history[:, "ranking_loss"]
    assert len(curve) == 5
    # Predictions of new modules hardly differ, so that all pairs want the margin.
    assert curve[0] == pytest.approx(2.0, abs=0.2)


def test_a_network_that_was_initialized_before_raises():
    X, y, _ = half_noisy()
    net = private_clone(make_net(), 2, warm_start=True).initialize()
    with pytest.raises(ValueError, match=r"initialized before; call fit with warm_st"):
        LearningLossQuery().prepare(net).fit(X[:100], y[:100])
    labels = np.full(200, -1)
    labels[:50] = y[:50]
    loop = ActiveLearningLoop(
        make_net(), RandomQuery(), warm_start=True, random_state=0
    ).fit(X[:200], labels)
    with pytest.raises(ValueError, match="warm_start=False"):
        loop.set_params(strategy=LearningLossQuery()).fit(X[:200], labels)


@pytest.mark.parametrize(
    "duplicate",
    [lambda net: pickle.loads(pickle.dumps(net)), lambda net: clone(net)],
    ids=["pickle", "clone"],
)
def test_a_prepared_net_can_be_duplicated(duplicate):
    strategy = LearningLossQuery(weight=0.5, layers=["features.2"])
    net = fit(strategy.set_params(aux__module__width=8))
    other = duplicate(net)
    assert isinstance(other, NeuralNetClassifier)
    assert other.get_params().keys() == net.get_params().keys()
    if not other.initialized_:
        X, y, _ = half_noisy()
        fit_isolated(other, X[:100], y[:100], 0)
    assert torch.equal(weights(other), weights(net))
    assert other.layers_ == ("features.2",)
    assert other.loss_module_.head.in_features == 8


def test_in_a_loop_with_a_pipeline_and_callbacks():
    X, y, _ = half_noisy()
    callbacks = [("steps", LRScheduler("StepLR", step_size=3, gamma=0.1))]
    pipeline = make_pipeline(StandardScaler(), make_net(callbacks=callbacks))
    loop = ActiveLearningLoop(
        pipeline, LearningLossQuery(), batch_size=20, n_rounds=1, random_state=0
    )
    loop.fit(X[:200], y[:200])
    net = loop.estimator_.steps[-1][1]
    assert loop.strategy_.layers_ == net.layers_ == ("features.1",)
    assert len(net.optimizer_.param_groups[0]["params"]) == 4 + 4
    assert net.optimizer_.param_groups[0]["lr"] < 0.05
    assert type(pipeline.steps[-1][1]) is NeuralNetClassifier


class Images(nn.Module):
    """Six convolutions, a layer that never runs, and a head."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.body = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(6)])
        self.head = nn.Linear(100, 2)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def test_layers_of_images():
    X, y, _ = half_noisy()
    images = X[:100].repeat(10, axis=1).reshape(-1, 1, 10, 10)
    net = NeuralNetClassifier(
        Images, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0
    )
    net = LearningLossQuery().prepare(private_clone(net, 2))
    fit_isolated(net, images, y[:100], 0)
    assert net.layers_ == ("body",)
    means = PoolView(net, images).hidden_means(positions=np.array([7, 3]))
    with torch.no_grad():
        maps = net.module_.body(torch.from_numpy(images[[7, 3]]))
    expected = maps.relu().mean((2, 3))
    np.testing.assert_allclose(means["body"], expected, atol=1e-6)


def test_rows_are_drawn_from_a_subset():
    X, _, _ = half_noisy()
    net = fit()
    pool = PoolView(net, X, random_state=0)
    scores = LearningLossQuery().fit(pool)._score(pool)
    best = set(scores.topk(5).indices.tolist())
    for subset in (len(X), None):
        everything = LearningLossQuery(subset=subset).fit(pool).query(pool, 5)
        assert set(everything.tolist()) == best
    picks = LearningLossQuery().fit(pool).query(pool, 5)
    assert set(picks.tolist()) != best
    assert len(LearningLossQuery(subset=1).fit(pool).query(pool, 7)) == 7


# Bad input


@pytest.mark.parametrize(
    "estimator, message",
    [
        (LogisticRegression(), "inner layers of a network, which LogisticRegression"),
        (GridSearchCV(make_net(), {"lr": [0.1]}), "give the strategy a net or a Pipel"),
        (make_net(()), "no inner layer of MLP can be used"),
        (make_net(criterion=FocalLoss), "loss of each row.*FocalLoss has not"),
    ],
    ids=["no net", "search", "linear", "criterion"],
)
def test_what_cannot_work_raises_before_anything_is_bought(estimator, message):
    X, y, _ = half_noisy()
    loop = ActiveLearningLoop(estimator, LearningLossQuery(), random_state=0)
    with pytest.raises(ValueError, match=message):
        loop.fit(X[:100], y[:100])
    assert not hasattr(loop, "labeled_indices_")


@pytest.mark.parametrize(
    "aux",
    [
        NeuralNet(LossPrediction([32]), criterion=nn.MSELoss),  # an instance
        make_net(),
        NeuralNet(LossPrediction, criterion=nn.MSELoss, module__width="wide"),
    ],
)
def test_a_module_that_predicts_no_losses_raises_before_anything_is_bought(aux):
    X, y, _ = half_noisy()
    loop = ActiveLearningLoop(make_net(), LearningLossQuery(aux=aux), random_state=0)
    with pytest.raises(ValueError, match="aux: the module of LearningLossQuery must"):
        loop.fit(X[:100], y[:100])
    assert not hasattr(loop, "labeled_indices_")


class Norms(nn.Module):
    def forward(self, x):
        return x.norm(dim=1)  # no channels


class WithNorms(MLP):
    def __init__(self, **params):
        super().__init__(**params)
        self.norms = Norms()

    def forward(self, x):
        self.norms(x)
        return super().forward(x)


def test_unknown_and_unusable_layers_raise():
    with pytest.raises(ValueError, match=r"no \['body'\]; its layers are"):
        fit(LearningLossQuery(layers=["body"]))
    net = make_net().set_params(module=WithNorms)
    with pytest.raises(ValueError, match=r"layers=\['norms'\].*name others"):
        fit(LearningLossQuery(layers=["norms"]), net)


def test_divergence_raises():
    with pytest.raises(ValueError, match="diverged: the loss is (nan|inf).*lr=1e"):
        fit(net=make_net(lr=1e30))


def test_a_net_that_was_not_prepared_raises():
    X, y, _ = half_noisy()
    net = private_clone(make_net(), 2).fit(X[:100], y[:100])
    with pytest.raises(ValueError, match=r"was not prepared.*strategy\.prepare"):
        LearningLossQuery().fit(PoolView(net, X[100:]))
