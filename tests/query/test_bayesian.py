"""BALD, BatchBALD, and uncertainty of sampled predictions: hand numbers."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetBinaryClassifier
from torch import nn

from skal import (
    BaldQuery,
    BatchBaldQuery,
    EntropyQuery,
    EpigQuery,
    LeastConfidenceQuery,
    MarginQuery,
    PoolView,
    StochasticQuery,
)
from skal.net import dropout
from skal.posterior import DeepEnsemble, MCDropout
from skal.selection import mutual_information, predictive_information
from skal.testing._pools import make_data, make_estimator, make_pool
from skal.utils.scratch import Scratch
from skal.utils.seeds import check_seed

LN2 = np.log(2)


class SampledPool:
    """A pool whose draws are given."""

    by_rows = Scratch().by_rows

    def __init__(self, samples, random_state=0):
        self.samples = torch.as_tensor(samples, dtype=torch.float64)
        self.random_state = random_state

    def __len__(self):
        return len(self.samples)

    def prefetch(self, names):
        pass

    def zeros(self, like):
        return Scratch().rows(like, len(self)).zero_()

    def sample_proba(self, posterior, *, random_state=None, each=None):
        """All at once, or row by row and then draw by draw."""
        if each is None:
            return self.samples
        n_rows, n_draws = self.samples.shape[:2]
        for place in np.ndindex(n_rows, n_draws):
            place = tuple(slice(i, i + 1) for i in place)
            each(self.samples[place], place, n_draws)


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
        MarginQuery(posterior=posterior)._score(pool), [np.inf, np.log(0.4 / 0.6)]
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


# -- in pieces ------------------------------------------------------------------------

MEASURES = [
    (EntropyQuery(), lambda s: -(s.mean(1) * s.mean(1).log()).sum(1)),
    (LeastConfidenceQuery(), lambda s: s.mean(1).sort(1).values[:, :-1].sum(1)),
    (BaldQuery(), mutual_information),
    (BaldQuery(measure="mean_std"), lambda s: s.std(1, correction=0).mean(1)),
    (
        BaldQuery(measure="variation_ratio"),
        lambda s: 1 - nn.functional.one_hot(s.argmax(2)).double().mean(1).amax(1),
    ),
]


@pytest.mark.parametrize("piece", [1, 50, 2**20])
@pytest.mark.parametrize("posterior", [MCDropout(30), DeepEnsemble(3)], ids=str)
@pytest.mark.parametrize(("strategy", "score"), MEASURES)
def test_scores_in_pieces_are_those_of_all_samples(
    strategy, score, posterior, piece, monkeypatch
):
    monkeypatch.setattr(dropout, "PIECE", piece)
    strategy = clone(strategy).set_params(posterior=posterior)
    pool, whole = make_pool(), make_pool()
    seed = check_seed(strategy._generator(whole))
    samples = whole.sample_proba(posterior, random_state=seed)
    scores = strategy._score(pool)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, score(samples.double()), rtol=1e-9, atol=1e-12)
    assert not any("sample_proba" in key for key in pool._cache)  # nothing is kept


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_pieces_make_the_samples_and_stay_small(batch_size, monkeypatch):
    monkeypatch.setattr(dropout, "PIECE", 64)
    net = make_estimator()
    net.iterator_valid__batch_size = batch_size
    posterior, largest = MCDropout(11), max(64, 3 * min(batch_size, 60))
    pool = make_pool(estimator=net)
    samples, filled = torch.full((60, 11, 3), torch.nan), 0

    def each(piece, place, n_draws):
        nonlocal filled
        assert piece.numel() <= largest and n_draws == 11
        assert samples[place].isnan().all()
        samples[place] = piece
        filled += piece.numel()

    assert pool.sample_proba(posterior, each=each) is None
    assert filled == samples.numel()
    assert torch.equal(samples, pool.sample_proba(posterior))


def test_a_small_spread_survives_rounding():
    """Draws differ by 1e-9 around .5, which a difference of squares does not see."""
    gaps = np.array([3e-9, 0, 1e-9, 2e-9])
    samples = np.stack([0.5 + gaps, 0.5 - gaps], 1)
    pool = SampledPool(np.stack([samples, 1 - samples], 2))
    scores = BaldQuery(measure="mean_std")._score(pool)
    np.testing.assert_allclose(scores, gaps, rtol=1e-6)
    np.testing.assert_array_equal(
        BaldQuery(measure="mean_std").query(pool, 4), [0, 3, 2, 1]
    )


# -- EPIG -----------------------------------------------------------------------------


def test_epig_passes_over_the_outlier_that_bald_takes():
    """What only the outlier depends on, no other label depends on."""
    a = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    outlier = [[1.0, 0], [0, 1], [1, 0], [0, 1]]
    pool = SampledPool([*[a] * 9, outlier])
    assert BaldQuery().query(pool, 1) == [9]
    assert sorted(EpigQuery().query(pool, 9)) == list(range(9))


@pytest.mark.parametrize("posterior", [MCDropout(8), DeepEnsemble(2)], ids=str)
def test_epig_draws_the_same_for_targets(posterior):
    """The rows of the pool, given as targets, are those of the pool."""
    pool, X = make_pool(), make_data()[2]
    own = EpigQuery(posterior=posterior)._score(pool)
    given = EpigQuery(posterior=posterior, target=X.copy())._score(pool)
    torch.testing.assert_close(given, own)
    seed = check_seed(EpigQuery()._generator(pool))
    samples = pool.sample_proba(posterior, random_state=seed)
    torch.testing.assert_close(own, predictive_information(samples, samples))
    few = EpigQuery(posterior=posterior, target=X[:3])._score(pool)
    torch.testing.assert_close(few, predictive_information(samples, samples[:3]))


def test_epig_draws_targets_by_its_seed():
    """Of the pool or of those given, the same ones each time, and as many as wanted."""
    X, posterior = make_data()[2], MCDropout(8)
    for target in (None, X):
        strategy = EpigQuery(posterior=posterior, target=target, n_targets=1)
        scores = [
            clone(strategy).set_params(random_state=s)._score(make_pool())
            for s in (0, 0, 1)
        ]
        assert torch.equal(scores[0], scores[1])
        assert not torch.equal(scores[0], scores[2])
        strategy.set_params(n_targets=60)
        several = strategy._score(make_pool())
        strategy.set_params(n_targets=1000)
        torch.testing.assert_close(strategy._score(make_pool()), several)


@pytest.mark.parametrize("target", [np.zeros((0, 6)), "abc", np.zeros((4, 99))])
def test_targets_that_are_no_rows(target):
    strategy = EpigQuery(posterior=MCDropout(8), target=target)
    with pytest.raises(ValueError, match="^target "):
        strategy.query(make_pool(), 2)


class OneOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(x).squeeze(1)


@pytest.mark.parametrize("dtype", [int, bool, float])
def test_an_ensemble_of_a_binary_net_takes_labels_of_any_type(dtype):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = X[:, 0] > 0
    net = NeuralNetBinaryClassifier(OneOutput, train_split=None, verbose=0)
    net.fit(X[:40], y[:40].astype(np.float32))
    pool = PoolView(net, X[40:], X_labeled=X[:40], y_labeled=y[:40].astype(dtype))
    assert len(BaldQuery(posterior=DeepEnsemble(n_members=2)).query(pool, 3)) == 3


def test_power_epig():
    strategy = StochasticQuery(EpigQuery(posterior=MCDropout(8)))
    assert len(set(strategy.query(make_pool(), 12).tolist())) == 12
