"""BALD, BatchBALD, and uncertainty of sampled predictions: hand numbers."""

import numpy as np
import pytest
import torch

from skal import (
    BaldQuery,
    BatchBaldQuery,
    EntropyQuery,
    LeastConfidenceQuery,
    MarginQuery,
)
from skal.posterior import DeepEnsemble, MCDropout
from skal.testing._pools import make_pool

LN2 = np.log(2)


class SampledPool:
    """A pool whose draws are given."""

    def __init__(self, samples, random_state=0):
        self.samples = torch.as_tensor(samples, dtype=torch.float64)
        self.random_state = random_state

    def __len__(self):
        return len(self.samples)

    def prefetch(self, names):
        pass

    def sample_proba(self, posterior, *, random_state=None):
        return self.samples


def hidden_bits():
    """Four draws know two bits; A and its copy show one, B the other with noise."""
    a = [[1, 0], [1, 0], [0, 1], [0, 1]]
    b = [[0.95, 0.05], [0.05, 0.95], [0.95, 0.05], [0.05, 0.95]]
    none = [[0.5, 0.5]] * 4
    return SampledPool([none, a, a, b])


def test_bald_by_hand():
    pool = SampledPool(
        [[[1, 0], [0, 1]], [[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.5, 0.5]]]
    )
    scores = BaldQuery()._score(pool)
    np.testing.assert_allclose(scores, [LN2, 0, 0.101749], atol=1e-6)
    np.testing.assert_array_equal(BaldQuery().query(pool, 3), [0, 2, 1])


def test_other_measures_by_hand():
    pool = SampledPool(
        [[[1, 0], [0, 1]], [[0.9, 0.1], [0.7, 0.3]], [[0.2, 0.8], [0.2, 0.8]]]
    )
    votes = BaldQuery(measure="variation_ratio")._score(pool)
    np.testing.assert_allclose(votes, [0.5, 0, 0])
    spread = BaldQuery(measure="mean_std")._score(pool)
    np.testing.assert_allclose(spread, [0.5, 0.1, 0], atol=1e-12)


def test_nested_parameters_of_the_default_posterior():
    strategy = BaldQuery().set_params(posterior__n_draws=7)
    assert strategy.posterior.n_draws == 7 and BaldQuery().posterior is None
    strategy.set_params(posterior=None, posterior__n_draws=8)
    assert strategy.active_posterior.n_draws == 8
    with pytest.raises(AttributeError):
        EntropyQuery().set_params(posterior__n_draws=7)


def test_posterior_that_is_a_class():
    pool = SampledPool(np.full((3, 2, 2), 0.5))
    with pytest.raises(ValueError, match="'posterior' parameter of BaldQuery.*class"):
        BaldQuery(posterior=MCDropout).query(pool, 1)


def test_unknown_measure():
    with pytest.raises(ValueError, match="'measure' parameter of BaldQuery.*'votes'"):
        BaldQuery(measure="votes").query(hidden_bits(), 1)


@pytest.mark.parametrize("measure", ["mutual_information", "variation_ratio"])
def test_certain_draws_give_no_nan(measure):
    samples = np.eye(3)[np.random.default_rng(0).integers(3, size=(20, 6))]
    scores = BaldQuery(measure=measure)._score(SampledPool(samples))
    assert torch.isfinite(scores).all()


def test_bald_takes_the_copy_and_batch_bald_does_not():
    assert set(BaldQuery().query(hidden_bits(), 2)) == {1, 2}
    picks = BatchBaldQuery().query(hidden_bits(), 2)
    assert picks[0] in (1, 2) and picks[1] == 3


def test_first_pick_of_batch_bald_is_that_of_bald():
    rng = np.random.default_rng(0)
    samples = rng.dirichlet(np.full(4, 0.3), size=(40, 10))
    pool = SampledPool(samples)
    assert BatchBaldQuery().query(pool, 1) == BaldQuery().query(pool, 1)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_batch_beyond_saturation_is_whole():
    picks = BatchBaldQuery().query(hidden_bits(), 4)
    assert sorted(picks) == [0, 1, 2, 3]


def test_scores_of_the_mean_by_hand():
    """Members with opposite answers: the mean knows nothing."""
    pool = SampledPool([[[1.0, 0], [0, 1]], [[0.9, 0.1], [0.7, 0.3]]])
    posterior = MCDropout()
    np.testing.assert_allclose(
        EntropyQuery(posterior=posterior)._score(pool),
        [LN2, -0.8 * np.log(0.8) - 0.2 * np.log(0.2)],
    )
    np.testing.assert_allclose(
        MarginQuery(posterior=posterior)._score(pool), [0, -0.6], atol=1e-12
    )
    np.testing.assert_allclose(
        LeastConfidenceQuery(posterior=posterior)._score(pool), [0.5, 0.2]
    )


@pytest.mark.parametrize("cls", [EntropyQuery, MarginQuery, LeastConfidenceQuery])
def test_equal_members_rank_as_the_model(cls):
    plain = make_pool()
    pool = SampledPool(plain.proba[:, None].expand(-1, 5, -1))
    np.testing.assert_array_equal(
        cls(posterior=DeepEnsemble(), random_state=0).query(pool, 20),
        cls(random_state=0).query(plain, 20),
    )


@pytest.mark.parametrize("cls", [EntropyQuery, BaldQuery, BatchBaldQuery])
def test_order_of_draws_does_not_matter(cls):
    rng = np.random.default_rng(1)
    samples = rng.dirichlet(np.full(3, 0.3), size=(30, 8))
    strategy = cls(posterior=MCDropout(), random_state=0)
    np.testing.assert_array_equal(
        strategy.query(SampledPool(samples), 3),
        strategy.query(SampledPool(samples[:, ::-1].copy()), 3),
    )


@pytest.mark.parametrize("cls", [EntropyQuery, BaldQuery, BatchBaldQuery])
def test_requires_and_reads_sampled_predictions(cls):
    strategy = cls(posterior=MCDropout(n_draws=4), random_state=0)
    assert strategy.requires == ("sample_proba",)
    picks = [strategy.query(make_pool(random_state=s), 10) for s in (0, 0, 1)]
    np.testing.assert_array_equal(picks[0], picks[1])
    assert (picks[0] != picks[2]).any()
