import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from skal import ActiveLearningLoop, DeepFoolQuery, PoolView
from skal.models import ConvNet
from skal.testing._pools import Network, make_estimator, make_pool


def make_net(module, cls=NeuralNetClassifier, **params):
    if cls is NeuralNetClassifier:
        params = {"criterion": nn.CrossEntropyLoss} | params
    return cls(module, verbose=0, **params).initialize()


def affine_pool(W, b, X, *, scale=1.0, **params):
    """Rows under the logits `scale (W x + b)`, in double precision."""
    linear = nn.Linear(len(W[0]), len(W), dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(scale * torch.as_tensor(W))
        linear.bias.copy_(scale * torch.as_tensor(b))
    return PoolView(make_net(linear, **params), np.asarray(X, dtype=np.float64))


def lengths(pool, **params):
    return (-DeepFoolQuery(**params)._score(pool)).numpy()


# Logits 1, 0.5 and -1.2; the boundary of class 2 is at 0.983870.
BY_HAND = [[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]], [0.0, 0.1, 0.0], [[1.0, 0.2]]


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [2, 0, 1], [1, 2, 0]])
def test_affine_length_by_hand(order):
    W, b, X = (np.asarray(array) for array in BY_HAND)
    np.testing.assert_allclose(
        lengths(affine_pool(W[order], b[order], X)), 0.223607, atol=5e-7
    )


def affine(n_classes, n_features=5, n_rows=30):
    rng = np.random.default_rng(n_classes)
    W, b = rng.standard_normal((n_classes, n_features)), rng.standard_normal(n_classes)
    return W, b, rng.standard_normal((n_rows, n_features))


def affine_lengths(W, b, X):
    """The smallest |f_k - f_y| / |w_k - w_y| of each row."""
    expected = []
    for z in X @ W.T + b:
        y = z.argmax()
        rivals = np.delete(np.arange(len(z)), y)
        gaps = np.linalg.norm(W[rivals] - W[y], axis=1)
        expected.append(((z[y] - z[rivals]) / gaps).min())
    return np.array(expected)


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_affine_lengths_take_one_step(n_classes, scale):
    """Also where the probabilities are 0 and 1 to the last bit."""
    W, b, X = affine(n_classes)
    pool = affine_pool(W, b, X, scale=scale)
    np.testing.assert_allclose(lengths(pool, max_iter=1), affine_lengths(W, b, X))
    shifted = affine_pool(W, b + 7, X, scale=scale)
    np.testing.assert_allclose(lengths(shifted), affine_lengths(W, b, X))


def test_smallest_lengths_first():
    W, b, X = affine(4)
    expected = np.argsort(affine_lengths(W, b, X))
    picks = DeepFoolQuery().query(affine_pool(W, b, X), 30)
    np.testing.assert_array_equal(picks, expected)


def test_binary_order_is_that_of_the_margin():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3)).astype(np.float32)
    torch.manual_seed(0)
    net = make_net(nn.Linear(3, 1), NeuralNetBinaryClassifier)
    with torch.no_grad():
        z = net.module_(torch.from_numpy(X)).numpy().ravel()
    norm = np.linalg.norm(net.module_.weight.detach())
    pool = PoolView(net, X)
    np.testing.assert_allclose(lengths(pool), np.abs(z) / norm, rtol=1e-4)
    picks = DeepFoolQuery().query(pool, 20)
    np.testing.assert_array_equal(picks, np.argsort(np.abs(z)))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_logits_before_a_softmax_do_not_saturate(scale):
    W, b, X = affine(3)
    linear = affine_pool(W, b, X, scale=scale).estimator.module_
    net = make_net(nn.Sequential(linear, nn.Softmax(dim=1)), criterion=nn.NLLLoss)
    np.testing.assert_allclose(lengths(PoolView(net, X)), affine_lengths(W, b, X))


class Curved(nn.Module):
    """One feature, three classes, nothing linear."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(2 * x))


@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_the_class_changes_beyond_the_boundary(overshoot):
    """In one dimension the length leaves only two places to look at."""
    torch.manual_seed(3)
    net = make_net(Curved)
    X = np.linspace(-2, 2, 41, dtype=np.float32)[:, None]
    old = net.predict(X)
    assert len(np.unique(old)) > 1
    found = lengths(PoolView(net, X), overshoot=overshoot)
    met = np.isfinite(found)
    assert met.sum() > 10
    step = (1 + overshoot) * np.where(met, found, 0)[:, None].astype(np.float32)
    changed = (net.predict(X + step) != old) | (net.predict(X - step) != old)
    assert changed[met].all()


class OneFeature(nn.Module):
    """Logits 0 and a function of the only feature; skorch asks for a parameter."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), self.function(x)], dim=1)


def one_feature_pool(function, X):
    net = make_net(OneFeature(function))
    return PoolView(net, np.array(X, dtype=np.float32)[:, None])


def test_steps_are_taken_until_the_class_changes():
    """The slope of tanh falls, so each step from the left is too short."""
    pool = one_feature_pool(lambda x: x.tanh() - 0.99, [0.0])
    for max_iter in (1, 2):
        assert np.isinf(lengths(pool, max_iter=max_iter))
    np.testing.assert_allclose(lengths(pool), np.arctanh(0.99), rtol=0.02)


def test_rows_without_a_gradient_rank_last():
    pool = one_feature_pool(lambda x: x.relu() - 1, [-1.0, 0.4, -2.0, 0.9, 1.7])
    found = lengths(pool, max_iter=10**9)  # they are not tried again and again
    np.testing.assert_allclose(found, [np.inf, 0.6, np.inf, 0.1, 0.7], rtol=1e-5)
    for seed in range(5):
        picks = DeepFoolQuery(random_state=seed).query(pool, 5)
        assert picks[:3].tolist() == [3, 1, 4]
        assert set(picks[3:]) == {0, 2}


def test_a_step_that_overflows_ranks_last():
    """The slope at 1e-5 is so small that the step leads to inf - inf."""
    found = lengths(one_feature_pool(lambda x: 1 + x**4 - 2 * x**4, [1e-5, 0.5]))
    np.testing.assert_allclose(found, [np.inf, 1.875])


def test_a_row_on_the_boundary_has_length_zero():
    pool = affine_pool(np.eye(3), np.zeros(3), [[1.0, 1.0, 0.0], [1.0, 0.9, 0.0]])
    np.testing.assert_allclose(lengths(pool), [0.0, 0.1 / 2**0.5])


def test_a_rival_that_never_differs_is_no_boundary():
    """Two equal outputs: the tie between them has no gradient."""
    W, b = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.0, 0.0, 0.0]
    np.testing.assert_allclose(lengths(affine_pool(W, b, [[2.0, 0.0]])), 2**0.5)


class Masked(nn.Module):
    """The last class is ruled out."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        z = self.linear(x)
        return torch.cat([z[:, :-1], torch.full_like(z[:, -1:], -np.inf)], dim=1)


def test_a_class_that_is_ruled_out_is_no_rival():
    W, b, X = affine(4)
    masked = Masked(affine_pool(W, b, X).estimator.module_)
    expected = affine_lengths(W[:-1], b[:-1], X)
    np.testing.assert_allclose(lengths(PoolView(make_net(masked), X)), expected)


def test_n_classes_leaves_out_classes_of_small_logits():
    """The second logit is nearer to the first, but the boundary of the third is."""
    W, b, X = [[1.0, 0.0], [0.9, 0.0], [0.0, 9.0]], [0.0, 0.0, 0.0], [[1.0, 0.0]]
    np.testing.assert_allclose(lengths(affine_pool(W, b, X)), 1 / 82**0.5)
    np.testing.assert_allclose(lengths(affine_pool(W, b, X), n_classes=2), 1.0)
    for n_classes in (3, 99):
        pool = affine_pool(W, b, X)
        np.testing.assert_allclose(lengths(pool, n_classes=n_classes), 1 / 82**0.5)


def images(n=40):
    return np.random.default_rng(0).standard_normal((n, 1, 12, 12)).astype(np.float32)


def image_net(**params):
    torch.manual_seed(0)
    net = make_net(
        ConvNet,
        module__n_channels=1,
        module__n_classes=4,
        module__image_size=12,
        **params,
    )
    net.module_.head.weight.data.mul_(5)
    return net


def assert_close_lengths(found, expected):
    assert np.isfinite(expected).sum() > len(expected) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [7, -1])
def test_a_batch_gives_the_lengths_of_single_images(size):
    alone = lengths(PoolView(image_net(iterator_valid__batch_size=1), images()))
    batched = PoolView(image_net(iterator_valid__batch_size=size), images())
    assert_close_lengths(lengths(batched), alone)


def test_batch_norm_and_dropout_are_in_evaluation_mode():
    pool = make_pool(X=make_pool().features[:20])
    expected = [lengths(PoolView(make_estimator(), x)) for x in pool.features[:, None]]
    pool.estimator.module_.train()
    assert_close_lengths(lengths(pool), np.concatenate(expected))


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 0, 2]])
def test_permuting_the_classes_changes_nothing(order):
    pool, permuted = make_pool(), make_pool()
    head = permuted.estimator.module_.head
    with torch.no_grad():
        head.weight.copy_(head.weight[order].clone())
        head.bias.copy_(head.bias[order].clone())
    assert_close_lengths(lengths(permuted), lengths(pool))


def test_a_dataset_of_images_and_a_compiled_network():
    expected = lengths(PoolView(image_net(), images()))
    compiled = image_net(compile=True, compile__backend="eager")
    pool = PoolView(compiled, TensorDataset(torch.from_numpy(images())))
    assert_close_lengths(lengths(pool), expected)


def test_lengths_are_in_the_units_of_the_networks_input():
    X = 5 + 3 * make_pool().features.astype(np.float64)
    scaler = StandardScaler().fit(X)
    pool = PoolView(make_pipeline(scaler, make_estimator()), X)
    inside = PoolView(make_estimator(), scaler.transform(X).astype(np.float32))
    assert_close_lengths(lengths(pool), lengths(inside))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.embedding(x).mean(1))


class Rounded(Network):
    def forward(self, x):
        return super().forward(x.detach().round())


@pytest.mark.parametrize(
    "estimator, dtype, message",
    [
        (LogisticRegression(), np.float32, "LogisticRegression.*use a skorch net"),
        (
            make_pipeline(StandardScaler(), LogisticRegression()),
            np.float32,
            "LogisticRegression.*use a skorch net",
        ),
        (make_net(Words), np.int64, "Words takes torch.int64"),
        (make_net(Rounded), np.float32, "Rounded do not depend on its input"),
    ],
    ids=["no_net", "pipeline", "tokens", "detached"],
)
def test_what_has_no_gradient_is_said_before_a_label_is_bought(
    estimator, dtype, message
):
    asked = []
    loop = ActiveLearningLoop(
        estimator, DeepFoolQuery(), oracle=asked.append, classes=range(3)
    )
    with pytest.raises(ValueError, match=message):
        loop.fit(np.ones((40, 6), dtype=dtype))
    assert not asked


def test_loop():
    X, y = make_pool().features, np.arange(60) % 3
    loop = ActiveLearningLoop(
        make_estimator(), DeepFoolQuery(), n_rounds=2, random_state=0
    ).fit(X, y)
    assert loop.history_["n_labeled"].tolist() == [10, 20, 30]
