import numpy as np
import pytest
import torch

from skal.selection import top_k


def test_order_is_best_first():
    assert top_k([0.1, 0.7, 0.4, -np.inf, np.inf], 5).tolist() == [4, 1, 2, 0, 3]


def test_equals_a_sort():
    rng = np.random.default_rng(0)
    for _ in range(30):
        scores = rng.normal(size=rng.integers(1, 40))
        n = int(rng.integers(0, len(scores) + 1))
        expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:n]
        picks = top_k(scores, n, random_state=rng)
        assert picks.dtype == np.int64
        assert picks.tolist() == expected


def test_ties_are_uniform_and_seeded():
    scores = np.array([1.0, 2.0, 1.0, 1.0, 1.0])
    seconds = [top_k(scores, 2, random_state=s)[1] for s in range(2000)]
    counts = np.bincount(seconds, minlength=5)
    assert counts[1] == 0
    # Chi-squared with 3 degrees of freedom: 21.1 has probability 1e-4.
    assert ((counts[[0, 2, 3, 4]] - 500) ** 2 / 500).sum() < 21.1
    assert np.array_equal(
        top_k(scores, 5, random_state=7), top_k(scores, 5, random_state=7)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_tensors(dtype):
    scores = torch.tensor([3, 1, 2]).to(dtype)
    assert top_k(scores, 3).tolist() == [0, 2, 1]


def test_input_and_global_generators_are_untouched():
    scores = np.array([0.5, 0.5, 0.1])
    before, state = scores.copy(), np.random.get_state()[1].copy()
    top_k(scores, 2)
    assert np.array_equal(scores, before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_errors():
    with pytest.raises(ValueError, match="scores must not be NaN, but 2 of 3 are"):
        top_k([np.nan, 1, np.nan], 1)
    with pytest.raises(ValueError, match=r"scores must be 1-D, got shape \(2, 1\)"):
        top_k([[1], [2]], 1)
    with pytest.raises(ValueError, match="scores must be numbers"):
        top_k(["a", "b"], 1)
    for bad in (-1, 4, 1.0, True, None):
        with pytest.raises(ValueError, match="n_select must be an int between 0 and 3"):
            top_k([1, 2, 3], bad)
    assert top_k([1, 2, 3], 0).shape == (0,)
    assert top_k([], 0).dtype == np.int64


@pytest.mark.parametrize("n_select", [0, 1, 7, 40, 99, 100])
def test_equals_a_sort_of_all_rows(n_select):
    scores = np.random.default_rng(0).integers(0, 12, 100).astype(float)
    scores[[3, 50]] = np.inf
    scores[[4, 51]] = -np.inf
    key = np.random.default_rng(1).random(100)
    expected = np.lexsort((key, -scores))[:n_select]
    picks = top_k(scores, n_select, random_state=np.random.default_rng(1))
    assert picks.tolist() == expected.tolist()
