"""EPIG: equals enumeration of all labels, and lies below BALD."""

import numpy as np
import pytest
import torch

from skal.selection import _predictive_information as module
from skal.selection import mutual_information, predictive_information


def enumerated(samples, targets):
    """The formula, label by label."""
    n_draws, n_classes = samples.shape[1:]
    scores = np.zeros(len(samples))
    for i, row in enumerate(samples):
        for target in targets:
            for a in range(n_classes):
                for b in range(target.shape[1]):
                    joint = sum(row[t, a] * target[t, b] for t in range(n_draws))
                    joint /= n_draws
                    apart = row[:, a].mean() * target[:, b].mean()
                    if joint > 0:
                        scores[i] += joint * np.log(joint / apart) / len(targets)
    return scores


def draws(shape, seed=0, alpha=0.4):
    n_rows, n_draws, n_classes = shape
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(n_classes, alpha), (n_rows, n_draws))


@pytest.mark.parametrize("shape", [(7, 5, 3), (4, 2, 2), (3, 9, 6), (5, 4, 1)])
def test_equals_enumeration(shape, monkeypatch):
    samples, targets = draws(shape), draws((4, *shape[1:]), seed=1)
    samples[0] = np.eye(shape[2])[np.arange(shape[1]) % shape[2]]  # zeros and ones
    expected = enumerated(samples, targets)
    scores = predictive_information(samples, targets)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    monkeypatch.setattr(module, "N_NUMBERS", 1)
    blocks = predictive_information(torch.from_numpy(samples), targets)
    torch.testing.assert_close(blocks, torch.from_numpy(scores))


def test_a_label_tells_no_more_about_a_target_than_about_the_model():
    samples, targets = draws((60, 8, 4)), draws((20, 8, 4), seed=1)
    scores = predictive_information(samples, targets)
    assert (scores >= 0).all() and (scores <= mutual_information(samples)).all()


def test_targets_that_know_the_draw_make_it_bald():
    samples, targets = draws((30, 6, 3)), np.eye(6)[None]
    np.testing.assert_allclose(
        predictive_information(samples, targets), mutual_information(samples)
    )


def test_information_is_mutual():
    a, b = draws((1, 6, 3)), draws((1, 6, 3), seed=1)
    np.testing.assert_allclose(
        predictive_information(a, b), predictive_information(b, a), atol=1e-15
    )


def test_draws_that_agree_on_the_targets_leave_nothing_to_tell():
    scores = predictive_information(draws((9, 5, 3)), np.full((4, 5, 3), 1 / 3))
    np.testing.assert_allclose(scores, 0, atol=1e-14)


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 6, 3)])
def test_targets_of_a_wrong_shape(shape):
    with pytest.raises(ValueError, match="target_samples must have one row.*5 draws"):
        predictive_information(draws((4, 5, 3)), np.full(shape, 1 / 3))
