import warnings

import numpy as np
import pytest
import torch

from skal.selection import _batch_bald as module
from skal.selection import batch_bald, mutual_information

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


def joint_information(samples, rows):
    """Mutual information of the draw and the labels of `rows`, by enumeration."""
    joint = np.ones((1, samples.shape[1]))  # Of shape (n_configurations, n_draws).
    for proba in samples[list(rows)]:
        joint = (joint[:, None] * proba.T).reshape(-1, samples.shape[1])
    return entropy(joint.mean(1)) - entropy(joint.T).mean()


def entropy(proba):
    return -(proba * np.log(np.where(proba > 0, proba, 1))).sum(-1)


def make_labels(samples, n_particles=None, seed=0):
    """Labels with so many particles from the start, or exact."""
    limits = (10_000, 1) if n_particles is None else (1, n_particles)
    rng = np.random.default_rng(seed)
    return module._Labels(torch.as_tensor(samples), *limits, rng)


def all_gains(labels):
    """Gains of all rows, without bounds."""
    rows = torch.arange(len(labels.samples))
    entropies = labels._entropy(rows, labels.weights, labels.posterior)
    return (entropies - labels._conditional).numpy()


def bits(*columns):
    """Rows that are certain of a label, given here for each draw."""
    return np.eye(2)[np.array(columns)]


class TestGains:
    def test_equal_brute_force(self):
        rng = np.random.default_rng(0)
        for _ in range(40):
            shape = rng.integers([5, 2, 2], [9, 6, 4])
            samples = make_samples(rng, shape, rng.choice([0.3, 2, 10]))
            labels, before, taken = make_labels(samples), 0.0, []
            for row in rng.permutation(shape[0])[:4].tolist():
                gains = all_gains(labels)
                for other in range(shape[0]):
                    after = joint_information(samples, [*taken, other])
                    assert abs(gains[other] - (after - before)) < 1e-12
                labels.add(row)
                taken.append(row)
                before = joint_information(samples, taken)

    def test_values_by_hand(self):
        rows = np.array([[[0.9, 0.1], [0.5, 0.5]]] * 2 + [[[1, 0], [0, 1]]] * 2)
        for row, total in ((0, 0.185949), (2, LN2)):
            labels = make_labels(rows)
            first = labels.scores[row].item()
            labels.add(row)
            assert abs(first + all_gains(labels)[row + 1] - total) < 5e-7

    def test_groups_bound_them_from_above(self):
        samples = make_samples(np.random.default_rng(0), (30, 10, 4))
        for n_particles in (None, 300):
            labels, last = make_labels(samples, n_particles), np.inf
            for row in range(5):
                labels.add(row)
                gains = all_gains(labels)
                levels = labels._levels()
                sizes = [len(weights) for weights, _ in levels]
                assert sizes == sorted(sizes) and sizes[-1] == len(labels.weights)
                assert row < 4 or len(levels) == (2 if n_particles else 3)
                for weights, posterior in levels:
                    assert torch.allclose(weights.sum(), labels.weights.sum())
                    rows = torch.arange(30)
                    bound = labels._entropy(rows, weights, posterior)
                    assert (
                        bound - labels._conditional >= torch.tensor(gains) - 1e-12
                    ).all()
                if n_particles is None:
                    assert (gains <= last + 1e-12).all()
                last = gains

    def test_particles_are_unbiased_and_close(self):
        samples = make_samples(np.random.default_rng(0), (8, 10, 3))
        exact, errors = make_labels(samples), []
        for row in range(6):
            exact.add(row)
        assert len(exact.weights) == 3**6
        for seed in range(200):
            labels = make_labels(samples, 100, seed)
            for row in range(6):
                labels.add(row)
            assert len(labels.weights) == 100
            errors.append(all_gains(labels) - all_gains(exact))
        errors = np.array(errors)
        deviation = errors.std(0, ddof=1)
        assert (np.abs(errors.mean(0)) < 4 * deviation / np.sqrt(200)).all()
        # Independent draws of 100 configurations would have these deviations.
        entropies = entropy(np.einsum("mk,nkc->nmc", exact.posterior, samples))
        mean = entropies @ exact.weights.numpy()
        variance = (entropies - mean[:, None]) ** 2 @ exact.weights.numpy()
        assert (deviation < 0.75 * np.sqrt(variance / 100)).all()

    def test_thinning_keeps_the_heavy_and_is_unbiased(self):
        weights = torch.tensor(
            [0.05, 0.4, 0.02, 0.0301, 0.3, 0.08, 0.1199], dtype=float
        )
        total = torch.zeros_like(weights)
        for i in range(500):
            chosen, new = module._thin(weights, 4, (i + 0.5) / 500)
            assert len(chosen) == 4 and {1, 4} <= set(chosen.tolist())
            assert abs(new.sum() - 1) < 1e-12
            total[chosen] += new
        assert torch.allclose(total / 500, weights, atol=1e-3)
        assert torch.equal(new[(chosen == 1) | (chosen == 4)], weights[[1, 4]])
        equal = torch.full((10,), 0.1, dtype=float)
        chosen, new = module._thin(equal, 5, 0.3)
        assert len(chosen) == 5 and torch.allclose(new, torch.full_like(new, 0.2))


class TestBatchBald:
    def test_equals_greedy_brute_force(self):
        rng = np.random.default_rng(1)
        for _ in range(25):
            shape = rng.integers([6, 4, 2], [12, 9, 4])
            samples = make_samples(rng, shape)
            limits = dict(max_configurations=int(rng.choice([1, 81])))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                picks = batch_bald(samples, 4, **limits, random_state=0).tolist()
            for i in range(4):
                totals = np.array(
                    [
                        joint_information(samples, [*picks[:i], j])
                        for j in range(len(samples))
                    ]
                )
                totals[picks[:i]] = 0
                gain = totals.max() - joint_information(samples, picks[:i])
                if gain > 0.01:
                    assert totals[picks[i]] >= totals.max() - 1e-12

    @pytest.mark.parametrize("n_particles", [None, 500])
    def test_bounds_skip_no_better_row(self, n_particles):
        rng = np.random.default_rng(0)
        samples = make_samples(rng, (700, 20, 4), rng.choice([0.5, 3], (700, 1, 1)))
        labels, rows = make_labels(samples, n_particles), torch.arange(700)
        for _ in range(6):
            row, gain = labels.best(rows)
            gains = all_gains(labels)
            best = gains[rows].max()
            assert abs(gain - gains[row]) < 1e-12
            # Stale gains of particles bound the present ones up to noise only.
            assert gain >= best - (1e-3 if n_particles else 1e-12)
            rows = rows[rows != row]
            labels.add(row)

    def test_first_pick_has_the_largest_score(self):
        for seed in range(20):
            samples = make_samples(np.random.default_rng(seed), (40, 6, 3))
            assert batch_bald(samples, 1)[0] == mutual_information(samples).argmax()

    def test_an_independent_bit_beats_a_copy(self):
        exact = bits([0, 0, 1, 1], [0, 0, 1, 1])
        noisy = [[[0.95, 0.05], [0.05, 0.95], [0.95, 0.05], [0.05, 0.95]]]
        samples = np.concatenate([exact, noisy])
        scores = mutual_information(samples)
        assert np.allclose(scores, [LN2, LN2, 0.494632], atol=5e-7)
        picks = batch_bald(samples, 2)
        assert picks[0] in (0, 1) and picks[1] == 2
        assert abs(joint_information(samples, picks) - 1.187779) < 5e-7

    @pytest.mark.parametrize("limit", [10_000, 3])
    def test_no_copy_while_another_row_informs(self, limit):
        codes = np.arange(32)
        distinct = bits(*[(codes >> i) & 1 for i in range(5)])
        samples = np.repeat(distinct, 10, axis=0)
        limits = dict(max_configurations=limit, n_particles=limit)
        for seed in range(5):
            picks = batch_bald(samples, 5, **limits, random_state=seed)
            assert sorted(picks // 10) == list(range(5))
            with pytest.warns(UserWarning, match="saturated after 5 of 6 rows"):
                more = batch_bald(samples, 6, **limits, random_state=seed)
            assert np.array_equal(more[:5], picks) and more[5] not in picks

    def test_order_of_draws_and_classes_is_irrelevant(self):
        rng = np.random.default_rng(0)
        samples = make_samples(rng, (60, 12, 4))
        picks = batch_bald(samples, 5, random_state=0)
        moved = batch_bald(samples[:, rng.permutation(12)], 5, random_state=0)
        assert np.array_equal(picks, moved)
        moved = batch_bald(samples[:, :, rng.permutation(4)], 5, random_state=0)
        assert np.array_equal(picks, moved)

    def test_particles_choose_nearly_as_well(self):
        samples = make_samples(np.random.default_rng(5), (60, 12, 4))
        best = joint_information(samples, batch_bald(samples, 5))
        limits = dict(max_configurations=50, n_particles=50)
        for seed in range(5):
            picks = batch_bald(samples, 5, **limits, random_state=seed)
            assert joint_information(samples, picks) > 0.98 * best

    def test_saturation_warns_once_and_goes_on_in_order_of_scores(self):
        rng = np.random.default_rng(0)
        samples = make_samples(rng, (30, 3, 4), 4)
        with pytest.warns(UserWarning, match=r"3 draws can tell 1.1 nats") as record:
            picks = batch_bald(samples, 30, random_state=0)
        assert len(record) == 1 and record[0].filename == __file__
        assert sorted(picks) == list(range(30))
        n_joint = int(str(record[0].message).split()[5])
        assert 2 <= n_joint < 15
        assert joint_information(samples, picks[:n_joint]) > np.log(3) - 0.15
        rest = mutual_information(samples)[picks[n_joint:]]
        assert (np.diff(rest) <= 0).all()

    def test_small_scores_are_no_saturation(self):
        samples = 0.5 + 0.01 * (bits([0, 0, 1, 1], [0, 1, 0, 1]) - 0.5)
        assert mutual_information(samples).max() < 1e-4
        assert sorted(batch_bald(samples, 2)) == [0, 1]  # Warnings are errors.

    def test_equal_draws_tell_nothing(self):
        row = make_samples(np.random.default_rng(0), (50, 1, 3)).astype(np.float32)
        samples = row.repeat(7, axis=1)
        orders = []
        for seed in range(3):
            with pytest.warns(UserWarning, match="saturated after 0 of 50") as record:
                orders.append(batch_bald(samples, 50, random_state=seed).tolist())
            assert len(record) == 1
        assert all(sorted(order) == list(range(50)) for order in orders)

    def test_zeros_ones_and_long_batches_stay_finite(self):
        rng = np.random.default_rng(0)
        weak = 0.5 + 0.05 * rng.normal(size=(80, 50, 1)).clip(-3, 3)
        samples = np.concatenate([weak, 1 - weak], 2)
        limits = dict(max_configurations=100, n_particles=100)
        picks = batch_bald(samples, 60, **limits, random_state=0)
        assert len(set(picks.tolist())) == 60
        labels = make_labels(samples, 100)
        for row in picks:
            labels.add(int(row))
        assert np.isfinite(all_gains(labels)).all()
        assert torch.allclose(labels.posterior.sum(1), torch.ones(100, dtype=float))
        certain = np.eye(3)[rng.integers(3, size=(40, 9))]
        certain[::2] = make_samples(rng, (20, 9, 3), 30)
        with pytest.warns(UserWarning, match="saturated"):
            picks = batch_bald(certain, 40)
        assert sorted(picks) == list(range(40))

    def test_equal_seeds_give_equal_picks(self):
        samples = make_samples(np.random.default_rng(0), (200, 10, 4))
        limits = dict(max_configurations=20, n_particles=20)
        state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
        runs = [batch_bald(samples, 6, **limits, random_state=s) for s in (0, 0, 1, 2)]
        assert np.array_equal(runs[0], runs[1])
        assert len({tuple(run) for run in runs}) > 1
        assert np.array_equal(np.random.get_state()[1], state)
        assert torch.equal(torch.get_rng_state(), torch_state)

    def test_ties_are_broken_at_random(self):
        samples = np.repeat(bits([0, 1]), 40, axis=0)
        firsts = {int(batch_bald(samples, 1, random_state=s)[0]) for s in range(60)}
        assert len(firsts) > 20

    def test_kinds_of_input_agree_and_stay_as_they_are(self):
        wide = make_samples(np.random.default_rng(0), (100, 8, 3))
        samples = wide.astype(np.float32)[::-1, ::2]
        before = samples.tobytes()
        expected = batch_bald(samples, 5, random_state=0)
        assert expected.dtype == np.int64
        tensor = torch.tensor(samples.copy())
        samples.flags.writeable = False
        for same in (samples, tensor, tensor.double(), tensor.clone().requires_grad_()):
            assert np.array_equal(batch_bald(same, 5, random_state=0), expected)
        double = tensor.double() * 1.0003  # Sums that far from one are taken.
        copy = double.clone()
        assert np.array_equal(batch_bald(double, 5, random_state=0), expected)
        assert torch.equal(double, copy)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert np.array_equal(batch_bald(tensor, 5, random_state=0), expected)
        assert samples.tobytes() == tensor.numpy().tobytes() == before

    def test_none_or_one_class(self):
        samples = np.full((3, 2, 2), 0.5)
        for n in (0, 3):
            picks = batch_bald(samples[:n], 0)
            assert picks.shape == (0,) and picks.dtype == np.int64
        with pytest.warns(UserWarning, match="saturated after 0 of 3"):
            assert sorted(batch_bald(np.ones((3, 2, 1)), 3)) == [0, 1, 2]

    def test_errors(self):
        samples = np.full((3, 4, 2), 0.5)
        for bad in (-1, 4, 2.0, True):
            message = "between 0 and 3, the number of rows of proba_samples, got"
            with pytest.raises(ValueError, match=message):
                batch_bald(samples, bad)
        for name in ("max_configurations", "n_particles"):
            for bad in (0, 1e4, True, None):
                with pytest.raises(ValueError, match=name + " must be an int of at le"):
                    batch_bald(samples, 1, **{name: bad})
        with pytest.raises(ValueError, match="random_state"):
            batch_bald(samples, 1, random_state="x")
        with pytest.raises(ValueError, match="at least 2 draws"):
            batch_bald(samples[:, :1], 1)
        with pytest.raises(ValueError, match="neither logits nor log-probabilities"):
            batch_bald(np.log(samples), 1)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_cuda_agrees(self):
        samples = torch.tensor(make_samples(np.random.default_rng(0), (300, 12, 4)))
        picks = batch_bald(samples, 5, random_state=0)
        assert np.array_equal(batch_bald(samples.cuda(), 5, random_state=0), picks)
