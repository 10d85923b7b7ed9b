import numpy as np
import pytest
import torch

from skal.selection import mutual_information

LN2 = np.log(2)


def make_samples(rng, shape, sharpness=2.0):
    logits = sharpness * rng.normal(size=shape)
    proba = np.exp(logits - logits.max(-1, keepdims=True))
    return proba / proba.sum(-1, keepdims=True)


class TestMutualInformation:
    def test_values_by_hand(self):
        rows = [
            [[1, 0], [0, 1]],
            [[0.5, 0.5], [0.5, 0.5]],
            [[0.9, 0.1], [0.5, 0.5]],
            [[1, 0], [1, 0]],
        ]
        scores = mutual_information(np.array(rows))
        assert scores.dtype == np.float64
        assert np.allclose(scores, [LN2, 0, 0.101749, 0], atol=5e-7)
        assert scores[1] == scores[3] == 0

    def test_mean_divergence_from_the_mean(self):
        samples = make_samples(np.random.default_rng(0), (3000, 12, 4))  # Two blocks.
        mean = samples.mean(1, keepdims=True)
        expected = (samples * np.log(samples / mean)).sum(2).mean(1)
        scores = mutual_information(samples)
        assert np.allclose(scores, expected, rtol=1e-12, atol=1e-14)
        assert (scores < np.log(4)).all()

    def test_kinds_of_input(self):
        samples = make_samples(np.random.default_rng(0), (50, 5, 3))
        expected = mutual_information(samples)
        tensor = mutual_information(torch.tensor(samples, requires_grad=True))
        assert isinstance(tensor, torch.Tensor) and not tensor.requires_grad
        assert np.array_equal(tensor, expected)
        single = mutual_information(samples.astype(np.float32))
        assert single.dtype == np.float64
        assert np.allclose(single, expected, atol=1e-6)
        assert mutual_information(np.ones((0, 2, 3))).shape == (0,)

    def test_errors(self):
        good = np.full((3, 4, 2), 0.5)
        with pytest.raises(ValueError, match=r"proba_samples must be 3-D, got shape"):
            mutual_information(good[0])
        with pytest.raises(ValueError, match=r"at least 2 draws .* \(3, 1, 2\)"):
            mutual_information(good[:, :1])
        with pytest.raises(ValueError, match=r"1 class, got shape \(3, 4, 0\)"):
            mutual_information(good[:, :, :0])
        for value in (np.nan, np.inf):
            broken = good.copy()
            broken[1, 2, 0] = value
            with pytest.raises(ValueError, match="proba_samples must be finite"):
                mutual_information(broken)
        with pytest.raises(ValueError, match="sums to -1.386 .* log-probabilities"):
            mutual_information(np.log(good))
        with pytest.raises(ValueError, match="least entry is -0.5"):
            mutual_information(np.array([[[1.5, -0.5], [1, 0]]]))
