import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet, NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, AsalQuery, PoolView
from skal.models import MLP, Generator, WassersteinGAN
from skal.query._asal import _log_entropy, _nearest
from skal.selection import nearest_distinct
from skal.testing._pools import make_estimator, make_pool
from skal.utils import isolated_rng


def quick(**params):
    return AsalQuery().set_params(**{"aux__max_iter": 4, "n_steps": 3, **params})


def classifier(n_inputs, n_classes, **params):
    params = {"lr": 0.01, "max_epochs": 60, **params}
    return NeuralNetClassifier(
        MLP,
        module__n_inputs=n_inputs,
        module__n_classes=n_classes,
        module__hidden=(32, 32),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        train_split=None,
        verbose=0,
        **params,
    )


def entropy(proba):
    return -(proba * proba.clamp(min=1e-30).log()).sum(1)


@cache
def moons(seed, n_threads=1):
    """Two moons of 600 rows with 10 labels, a network, and a strategy fitted to it."""
    X, y = make_moons(600, noise=0.1, random_state=seed)
    X = X.astype(np.float32)
    labeled = np.concatenate([np.flatnonzero(y == label)[:5] for label in (0, 1)])
    rows = np.setdiff1d(np.arange(600), labeled)
    with isolated_rng(seed):
        net = classifier(2, 2).fit(X[labeled], y[labeled])
    pool = PoolView(net, X[rows], X_labeled=X[labeled], random_state=seed)
    strategy = AsalQuery(prior_weight=0.0)
    strategy.set_params(aux__max_iter=700, aux__lr=1e-3)
    return pool, strategy.fit(pool)


def generated(strategy, pool, n_samples):
    """Rows from noise, before and after its ascent, as the network takes them."""
    noise = np.random.default_rng(0).standard_normal((n_samples, 2))
    z = torch.from_numpy(noise).float()
    with pool.input_gradients() as (batches, logits):
        some = next(batches)

        def as_input(x):
            return strategy._as_input(x, like=some)

        x = strategy._ascend(z, logits, as_input)
        with torch.no_grad():
            return as_input(strategy._generate(z)), as_input(x)


class Noise(nn.Module):
    """A generator without weights: what it generates is the noise."""

    n_latent = 2

    def forward(self, z):
        return z


def test_generated_and_matched_rows_of_two_moons_have_high_entropy(
    training_seed, margin
):
    pool, strategy = moons(training_seed, torch.get_num_threads())
    for name, generator in (("GAN", None), ("noise", Noise())):
        if generator is not None:  # all around the rows, so every ascent succeeds
            strategy = pickle.loads(pickle.dumps(strategy))
            strategy.aux_.module_ = generator
        before, after = generated(strategy, pool, 30)
        proba = [pool.estimator.predict_proba(x) for x in (before, after)]
        before, after = (entropy(torch.from_numpy(p)).mean() for p in proba)
        margin(f"{name}: entropy over that before", after / before, above=1.05)
        if generator is not None:
            margin("noise: entropy", after, above=0.55)  # of log 2, .69
        picks = strategy.query(pool, 20)
        assert len(set(picks)) == 20
    ratio = entropy(pool.proba)[picks].mean() / entropy(pool.proba).mean()
    margin("noise: entropy picked, over the pool's", ratio, above=1.5)


def test_no_row_ends_with_less_entropy_than_it_began():
    pool, strategy = moons(0)
    strategy = pickle.loads(pickle.dumps(strategy))
    strategy.set_params(n_steps=10, step_size=3.0)  # far too large
    strategy.aux_.module_ = Noise()
    proba = [pool.estimator.predict_proba(x) for x in generated(strategy, pool, 30)]
    before, after = (entropy(torch.from_numpy(p).double()) for p in proba)
    assert bool((after > before - 1e-6).all())
    assert bool((after > before + 1e-3).any())


def test_logarithm_of_the_entropy_has_a_gradient_where_a_prediction_is_certain():
    z = torch.tensor([[0.0, 1.0, -2.0], [0.0, 30.0, 0.0], [0.0, 500.0, 0.0]])
    z.requires_grad_()
    values = _log_entropy(z.log_softmax(1))
    values.sum().backward()
    expected = entropy(z.detach().double().softmax(1)).log()
    torch.testing.assert_close(values[:2].double(), expected[:2], rtol=2e-3, atol=0)
    assert values[2].item() == pytest.approx(-500 + np.log(2 * 500), rel=1e-5)
    assert z.grad[1:, 1].tolist() == pytest.approx([-1, -1], rel=0.05)


def test_a_query_changes_no_weights_anywhere():
    pool, strategy = moons(0)

    def bits():
        nets = (pool.estimator, strategy.aux_)
        modules = [getattr(net, f"{n}_") for net in nets for n in net._modules]
        return [v.numpy().tobytes() for m in modules for v in m.state_dict().values()]

    before = bits()
    picks = strategy.query(pool, 9)
    assert bits() == before
    np.testing.assert_array_equal(strategy.query(pool, 9), picks)


class Lookup(Generator):
    """Gives rows of the pool, whatever the noise."""

    def forward(self, z):
        return self.rows[: len(z)] + 0 * z.sum()


def test_rows_of_the_pool_that_are_generated_are_taken():
    pool, strategy = moons(0)
    wanted = [500, 3, 77, 420]
    strategy = pickle.loads(pickle.dumps(strategy))
    lookup = Lookup((2,))
    lookup.rows = torch.from_numpy(pool.features[wanted]).double()
    lookup.rows = ((lookup.rows - strategy.center_) / strategy.scale_).float()
    strategy.aux_.module_ = lookup
    assert sorted(strategy.query(pool, 4)) == sorted(wanted)


def test_weight_of_the_prior_pulls_the_noise_to_where_its_rows_are():
    pool, strategy = moons(0)
    strategy = pickle.loads(pickle.dumps(strategy)).set_params(prior_weight=1e6)
    noise = 9 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    strategy.set_params(n_steps=2000)
    strategy.aux_.module_ = nn.Identity()  # what is generated is the noise
    strategy.low_, strategy.high_ = -9 * torch.ones(2), 9 * torch.ones(2)
    with pool.input_gradients() as (_, logits):
        ascended = strategy._ascend(noise, logits, lambda x: x)
    norms = ascended.norm(dim=1).numpy()
    np.testing.assert_allclose(norms, 2**0.5, rtol=0.05)
    # Each stays on its side.
    assert (torch.cosine_similarity(ascended, noise) > 0.5).all()


def test_flat_rows_are_generated_within_the_range_of_each_column():
    pool, strategy = moons(0)
    x = strategy._generate(1e3 * torch.randn(99, 2)).detach()
    x = strategy._as_input(x, like=torch.ones(1, 2)).numpy()
    X = np.concatenate([pool.features, pool.labeled.features])
    assert (x >= X.min(0) - 1e-5).all() and (x <= X.max(0) + 1e-5).all()
    assert np.abs(x - X.max(0)).min() < 1e-5


def test_points_that_others_take_are_not_ruled_out():
    """All targets want the same points; those that are left are the nearest ones."""
    points = torch.arange(3000.0)[:, None]
    targets = torch.linspace(1500, 1500.4, 50)[:, None]
    sizes = []

    def points_of(positions):
        sizes.append(len(positions))
        return points[positions]

    near = _nearest(points_of, 3000, targets, np.random.default_rng(0))
    assert max(sizes) <= 1024
    picks = near[nearest_distinct(points[near], targets, random_state=0)]
    assert sorted(picks) == sorted(nearest_distinct(points, targets, random_state=0))


# What is kept


def loop_of(X, y, strategy, **params):
    params = {"n_initial": 20, "n_rounds": 3, "random_state": 0, **params}
    return ActiveLearningLoop(classifier(64, 10, max_epochs=2), strategy, **params)


def data(n=120):
    X, y = load_digits(return_X_y=True)
    return X[:n].astype(np.float32), y[:n].copy()


class Counting(WassersteinGAN):
    fits = []

    def fit(self, X, y=None, **fit_params):
        self.fits.append(len(X))
        return super().fit(X, y, **fit_params)


def test_nets_learn_once_from_all_rows(monkeypatch):
    monkeypatch.setattr(Counting, "fits", [])
    X, y = data()
    strategy = AsalQuery(aux=Counting(max_iter=4, max_epochs=3), n_steps=2)
    loop = loop_of(X, y, strategy).fit(X, y)
    assert Counting.fits == [120] and loop.n_iter_ == 3
    np.testing.assert_array_equal(loop.strategy_.rows_, np.arange(120))
    assert not hasattr(strategy.aux, "module_")


def test_a_verbose_loop_says_when_nets_were_trained(capsys):
    X, y = data()
    loop_of(X, y, quick(), verbose=1).fit(X, y)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Asal" in line]
    (line,) = lines
    assert "AsalQuery trained its Generator: 2 epochs, train_loss" in line


def test_asking_step_by_step_buys_what_a_simulation_buys():
    """Each call of fit trains the nets again, with the bits of the first time."""
    X, y = data()
    simulated = loop_of(X, y, quick()).fit(X, y)
    asked = loop_of(X, y, quick(), oracle="ask", classes=range(10))
    labels = np.full(len(y), -1)
    labels[simulated.labeled_indices_[:20]] = y[simulated.labeled_indices_[:20]]
    for number in range(1, 4):
        picks = asked.fit(X, labels).next_query_
        np.testing.assert_array_equal(
            picks, simulated.labeled_indices_[10 * number + 10 : 10 * number + 20]
        )
        labels[picks] = y[picks]


def test_nets_are_trained_again_where_the_rows_are_others(monkeypatch):
    monkeypatch.setattr(Counting, "fits", [])
    X, _ = data()
    net = classifier(64, 10, max_epochs=0).fit(X, np.arange(120) % 10)
    strategy = AsalQuery(aux=Counting(max_iter=2), n_steps=1)
    for size in (100, 100, 90):
        strategy.fit(PoolView(net, X[:size], random_state=0))
    strategy.fit(PoolView(net, X[:80], X_labeled=X[80:90], random_state=0))
    assert Counting.fits == [100, 90]
    images = X.reshape(-1, 8, 8)
    strategy.set_params(aux__module__width=2)
    for _ in range(2):
        strategy.fit(PoolView(net, images[:90], random_state=0))
    assert Counting.fits == [100, 90, 90]


def test_state_of_another_one_is_taken_over(monkeypatch):
    monkeypatch.setattr(Counting, "fits", [])
    strategy = AsalQuery(aux=Counting(max_epochs=3), n_steps=3, space="code")
    assert strategy.get_state() == {}
    strategy.fit(make_pool())
    state = strategy.get_state()
    again = AsalQuery(aux=Counting(max_epochs=3), n_steps=3, space="code")
    again.set_state(state)
    assert again.get_state().keys() == state.keys()
    again.fit(make_pool())
    assert Counting.fits == [150]
    np.testing.assert_array_equal(
        again.query(make_pool(), 20), strategy.query(make_pool(), 20)
    )
    for name in ("train_loss", "reconstruction"):
        assert again.aux_.history[:, name] == strategy.aux_.history[:, name]
    assert all(np.array_equal(again.get_state()[k], v) for k, v in state.items())


def test_state_of_other_nets_is_refused():
    state = quick().fit(make_pool()).get_state()
    other = quick(aux__module__hidden=(5,))
    other.set_state(state)
    with pytest.raises(ValueError, match="stored weights are not those of this net"):
        other.fit(make_pool())


# Rows


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8), (1, 28, 28)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_matched_by_their_code(shape, dtype):
    images = np.random.default_rng(0).integers(3, 250, (30, *shape)).astype(dtype)
    net = classifier(int(np.prod(shape)), 2, max_epochs=0)
    net.fit(images.astype(np.float32), np.arange(30) % 2)
    pool = PoolView(net, images[4:], X_labeled=images[:4], random_state=0)
    strategy = quick(aux__module__width=2, aux__autoencoder__width=2).fit(pool)
    assert len(set(strategy.query(pool, 9))) == 9
    assert hasattr(strategy.aux_, "autoencoder_")
    x = strategy.aux_.module_(torch.randn(50, 100))
    x = strategy._as_input(x, like=torch.ones(1, *shape))
    assert x.shape == (50, *shape)
    assert images.min() <= x.min() and x.max() <= images.max()


@pytest.mark.parametrize("space", ["code", "rows", "embedding"])
def test_spaces(space):
    pool = make_pool()
    strategy = quick(space=space).fit(pool)
    assert hasattr(strategy.aux_, "autoencoder_") == (space == "code")
    assert ("embeddings" in strategy.requires) == (space == "embedding")
    x = strategy._generate(torch.randn(5, 6))
    targets, points_of = strategy._in_space(
        pool, x, lambda x: strategy._as_input(x, torch.ones(1, 6))
    )
    width = {"code": 3, "rows": 6, "embedding": 8}[space]
    assert targets.shape == (5, width)
    assert points_of(np.arange(60)).shape == (60, width)
    some = points_of(np.array([7, 3]))
    torch.testing.assert_close(some, points_of(np.arange(60))[[7, 3]])
    assert len(set(strategy.query(pool, 9))) == 9


@pytest.mark.parametrize("n_pool", [1, 30])
@pytest.mark.parametrize("space", ["rows", "code"])
def test_few_rows_and_no_labelled_ones(n_pool, space):
    X = make_pool().features[:n_pool]
    pool = PoolView(make_estimator(), X, random_state=0)
    assert len(quick(space=space).fit(pool).query(pool, 5)) == min(n_pool, 5)


def test_columns_shifted_and_scaled_by_a_pipeline_change_nothing():
    """A scaler fitted to the labelled rows of each round shifts and scales columns."""
    X, y = data()
    X = X[:, 2:6].astype(np.float64) + np.random.default_rng(0).random((120, 4))
    states = []
    for scaled in (X, X * [1, 5, 1e3, 1] - [0, 7, 0, 1]):
        net = classifier(4, 10, max_epochs=0)
        scaler = StandardScaler().fit(scaled[:30])
        net.fit(scaler.transform(scaled).astype(np.float32), y)
        model = Pipeline([("scaler", scaler), ("net", net)])
        pool = PoolView(model, scaled, random_state=0)
        states.append(quick().fit(pool).get_state()["module.4.weight"])
    np.testing.assert_allclose(*states, atol=1e-4)


def test_rows_of_a_dataset():
    X, y = data()
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    loop = loop_of(X, y, quick(), n_rounds=1).fit(dataset, y)
    same = loop_of(X, y, quick(), n_rounds=1).fit(X, y)
    np.testing.assert_array_equal(loop.labeled_indices_, same.labeled_indices_)


# Bad input


@pytest.mark.parametrize("estimator", ["linear", None])
def test_estimator_without_gradients_raises_before_anything_is_trained(estimator):
    if estimator is None:
        pool = PoolView(None, np.ones((9, 3)))
    else:
        pool = make_pool("linear")
    strategy = quick()
    with pytest.raises(ValueError, match="needs gradients with respect to the input"):
        strategy.fit(pool)
    assert not hasattr(strategy, "aux_")


def test_loop_refuses_an_estimator_without_gradients_before_its_first_fit():
    class Untrained(LogisticRegression):
        def fit(self, X, y):
            raise AssertionError("trained")

    X, y = data()
    loop = ActiveLearningLoop(Untrained(), AsalQuery())
    with pytest.raises(ValueError, match="needs gradients with respect to the input"):
        loop.fit(X, y)


def test_diverged_training_ends_the_loop_and_keeps_what_was_bought():
    X, y = data()
    loop = loop_of(X, y, quick(aux__lr=1e30))
    with pytest.raises(ValueError, match=r"that a strategy trains diverged.*1e\+30"):
        loop.fit(X, y)
    assert len(loop.labeled_indices_) == 20


class Kinked(nn.Module):
    """Finite outputs, gradients that are not numbers."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.cat([x[:, :1], (x[:, :1] - x[:, :1]).sqrt()], 1))


def test_gradients_that_are_not_finite_raise():
    X = make_pool().features
    net = NeuralNetClassifier(Kinked, criterion=nn.CrossEntropyLoss, max_epochs=0)
    pool = PoolView(net.fit(X, np.arange(len(X)) % 2), X, random_state=0)
    strategy = quick().fit(pool)
    with pytest.raises(ValueError, match="not finite, because gradients.*step_size"):
        strategy.query(pool, 3)


def test_code_needs_an_autoencoder():
    strategy = AsalQuery(aux=WassersteinGAN(autoencoder=None), space="code")
    with pytest.raises(ValueError, match="space='code' needs the autoencoder of aux"):
        strategy.fit(make_pool())


def test_query_before_fit_raises():
    with pytest.raises(ValueError, match="not fitted yet"):
        AsalQuery().query(make_pool(), 3)


@pytest.mark.parametrize(
    "name, value",
    [
        ("space", "pixels"),
        ("n_steps", 0),
        ("step_size", 0.0),
        ("prior_weight", -1.0),
        ("aux", NeuralNet(Generator, nn.MSELoss)),
        ("aux", WassersteinGAN),
    ],
)
def test_bad_parameters_raise_before_anything_is_trained(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of AsalQuery must be"):
        AsalQuery(**{name: value}).fit(make_pool())
