from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import chisquare
from strategy_checks import make_pool
from torch import nn

from skal import BadgeQuery
from skal.query import _hybrid


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
