"""Dropout masks: consistent, replayed, and nothing else changed."""

import itertools
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from skal.net.dropout import DropoutDraws, active_dropouts


def draw(module, x, n_draws=8, seed=0, batch_size=None):
    """Outputs of shape (n_rows, n_draws, ...) of a module in evaluation mode."""
    module.eval()
    outputs = []
    with torch.no_grad(), DropoutDraws(module, n_draws, seed) as draws:
        for batch in x.split(batch_size or len(x)):
            outputs.append(torch.stack([*draws.outputs(partial(module, batch))], 1))
    return torch.cat(outputs)


class Products(TorchDispatchMode):
    """Counts the rows in matrix products by the number of their outputs."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default):
            self.counts[result.shape[1]] += len(result)
        return result


def slow_outputs(module, x, n_draws, seed=0):
    """The same draws by full passes: nothing is recorded, and no two run at once.

    Some processors round products of several draws otherwise than those of one.
    """
    module.eval()
    draws = DropoutDraws(module, n_draws, seed)
    draws._replay = None
    with torch.no_grad(), draws:
        return torch.stack([*draws.outputs(partial(module, x))], 1)


def test_masks_are_the_same_for_every_row_and_differ_between_draws():
    x = torch.ones(6, 50)
    outputs = draw(nn.Sequential(nn.Dropout(0.5)), x)
    assert (outputs == outputs[:1]).all()
    assert len({tuple(o.tolist()) for o in outputs[0]}) == 8
    assert set(outputs.unique().tolist()) == {0.0, 2.0}


def test_two_layers_have_masks_of_their_own():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x), self.a(x)], 1)

    outputs = draw(Both(), torch.ones(2, 40))
    a, b, again = outputs.split(40, dim=2)
    assert (a != b).any() and (a != again).any()


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_draws_do_not_depend_on_the_batch_size(batch_size):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 2))
    x = torch.randn(20, 5)
    torch.testing.assert_close(draw(module, x, batch_size=batch_size), draw(module, x))


def test_mean_over_draws_is_that_over_all_masks():
    """Dropout on two inputs of a linear layer: four masks, so the mean is exact."""
    torch.manual_seed(1)
    head = nn.Linear(2, 2)
    x = torch.tensor([[1.0, -2.0]])
    with torch.no_grad():
        probas = torch.stack(
            [
                head(x * torch.tensor(mask) * 2).softmax(1)
                for mask in itertools.product([0.0, 1.0], repeat=2)
            ]
        )
        samples = draw(nn.Sequential(nn.Dropout(0.5), head), x, 4000).softmax(2)
    error = samples.mean(1) - probas.mean(0)
    assert (error.abs() < 4 * probas.std(0, correction=0) / 4000**0.5).all()


@pytest.mark.parametrize(
    "layer, shape, one_of_channel",
    [
        (nn.Dropout1d(0.5), (4, 30, 5), True),
        (nn.Dropout2d(0.5), (4, 30, 3, 3), True),
        (nn.Dropout3d(0.5), (4, 30, 2, 2, 2), True),
        (nn.Dropout(0.5), (4, 30, 3, 3), False),
    ],
)
def test_channel_dropout_drops_whole_channels(layer, shape, one_of_channel):
    outputs = draw(nn.Sequential(layer), torch.ones(shape)).flatten(3)
    assert (outputs[0] == outputs[1]).all()
    whole = (outputs == outputs[..., :1]).all()
    assert bool(whole) == one_of_channel
    assert {0.0, 2.0} == set(outputs.unique().tolist())


@pytest.mark.parametrize("layer", [nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)])
def test_alpha_dropout_keeps_mean_and_variance(layer):
    torch.manual_seed(0)
    x = torch.randn(2000, 100, 2)
    outputs = draw(nn.Sequential(layer), x, n_draws=50)
    assert abs(outputs.mean()) < 0.05
    assert abs(outputs.var() - 1) < 0.05
    torch.manual_seed(0)
    own = layer.train()(x)  # takes the same values as torch's own
    dropped = outputs[0, 0].flatten().unique()
    torch_values = own.flatten().mode().values
    assert torch.isclose(dropped, torch_values, atol=1e-5).any()


def test_rate_of_dropping_is_p():
    outputs = draw(nn.Sequential(nn.Dropout(0.2)), torch.ones(1, 5000), n_draws=4)
    shares = (outputs == 0).float().mean(2)
    assert ((shares - 0.2).abs() < 5 * (0.16 / 5000) ** 0.5).all()


def test_dropping_all_gives_zeros_and_no_nan():
    module = nn.Sequential(nn.Dropout(1.0), nn.Linear(3, 2))
    assert torch.isfinite(draw(module, torch.randn(4, 3))).all()


def test_only_dropout_with_p_above_zero_is_active():
    parts = [nn.Dropout(0.0), nn.Dropout2d(0.1), nn.Linear(2, 2), nn.AlphaDropout(0.5)]
    assert active_dropouts(nn.Sequential(*parts)) == [parts[1], parts[3]]


class TestReplay:
    def test_what_precedes_the_first_dropout_runs_once_a_batch(self):
        module = nn.Sequential(
            nn.Sequential(nn.Linear(5, 9), nn.ReLU()), nn.Dropout(0.3), nn.Linear(9, 2)
        )
        with Products() as products:
            draw(module, torch.randn(20, 5), n_draws=10, batch_size=5)
        assert products.counts == {9: 20, 2: 20 * 10}

    def test_functions_between_modules_run_once_too(self):
        class Functional(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(5, 9), nn.Linear(9, 2)
                self.drop = nn.Dropout(0.5)
                self.weight = nn.Parameter(torch.randn(9, 8))

            def forward(self, x):
                h = torch.relu(self.first(x))
                h = torch.addmm(h[:, :8], h, self.weight)
                h = nn.functional.pad(h, (0, 1))
                return self.last(self.drop(h))

        torch.manual_seed(0)
        module, x = Functional(), torch.randn(6, 5)
        with Products() as products:
            outputs = draw(module, x, n_draws=10)
        assert products.counts == {9: 6, 8: 6, 2: 6 * 10}
        torch.testing.assert_close(outputs, slow_outputs(module, x, 10))

    def test_any_python_may_stand_in_forward(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.relu = nn.Linear(5, 8), nn.ReLU()
                self.second, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)
                self.last = nn.Linear(8, 3)

            def forward(self, x):
                h = self.relu(self.first(x))
                if h.mean() > 0 and len(x) > 1:
                    h = h + self.relu(self.second(h)).mul_(2)  # relu is called twice
                h += x.sum(1, keepdim=True)  # writes to what was recorded
                h = self.relu(self.drop(h))  # and once more, after the dropout
                return self.last(self.drop(h)).view(len(x), -1)

        torch.manual_seed(0)
        module, x = Odd(), torch.randn(6, 5)
        torch.testing.assert_close(draw(module, x, 10), slow_outputs(module, x, 10))

    def test_activations_that_write_in_place(self):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.ReLU(True),
            nn.Linear(8, 3),
        )  # fmt: skip
        x = torch.randn(6, 5)
        torch.testing.assert_close(draw(module, x, 10), slow_outputs(module, x, 10))

    def test_results_that_are_tuples(self):
        class Recurrent(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(3, 8, batch_first=True)
                self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 2)

            def forward(self, x):
                _, (h, c) = self.lstm(x)
                return self.head(self.drop(h[-1] + c[-1]))

        torch.manual_seed(0)
        module, x = Recurrent(), torch.randn(6, 4, 3)
        torch.testing.assert_close(draw(module, x, 10), slow_outputs(module, x, 10))

    def test_branches_that_differ_between_batches(self):
        class Branching(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.drop = nn.Linear(5, 5), nn.Dropout(0.5)
                self.head = nn.Linear(5, 2)

            def forward(self, x):
                if x[0, 0] > 0:  # dropout first: nothing may be recorded then
                    return self.head(self.first(self.drop(x)))
                return self.head(self.drop(self.first(x)))

        torch.manual_seed(0)
        module = Branching()
        x = torch.randn(8, 5)
        x[:, 0] = torch.tensor([-1.0, -1, 1, 1, -1, -1, 1, 1])
        slow = [slow_outputs(module, batch, 6) for batch in x.split(2)]
        torch.testing.assert_close(draw(module, x, 6, batch_size=2), torch.cat(slow))

    def test_dropout_on_the_inputs_leaves_nothing_to_keep(self):
        module = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 2))
        with Products() as products:
            draw(module, torch.randn(4, 5), n_draws=10)
        assert products.counts == {2: 4 * 10}

    def test_a_kept_result_written_to_after_the_dropout(self):
        class Writes(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.drop = nn.Linear(5, 5), nn.Dropout(0.5)

            def forward(self, x):
                x.mul_(0.5)
                h = self.first(x)
                h += self.drop(h)  # replayed, it would grow from draw to draw
                return h

        torch.manual_seed(0)
        module, x = Writes(), torch.randn(6, 5)
        outputs = draw(module, x.clone(), 10)
        expected = [0.5 * x @ module.first.weight.T + module.first.bias] * 10
        ratios = outputs / torch.stack(expected, 1)
        torch.testing.assert_close(ratios, ratios.round())
        assert set(ratios.round().unique().tolist()) == {1.0, 3.0}

    def test_writes_by_index_before_the_dropout(self):
        class Writes(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.drop = nn.Linear(5, 5), nn.Dropout(0.5)

            def forward(self, x):
                scale = float(x[0, 0])
                x[:, 0] = 0.0
                h = self.first(x)
                h[:, :3] = 1.0
                h *= 2
                return scale * self.drop(h)

        torch.manual_seed(0)
        module, x = Writes(), torch.randn(6, 5)
        outputs = draw(module, x, 10)
        torch.testing.assert_close(outputs, slow_outputs(module, x, 10))
        ratios = outputs[:, :, :3] / x[0, 0]
        torch.testing.assert_close(ratios, ratios.round())
        assert set(ratios.round().unique().tolist()) == {0.0, 4.0}

    @pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
    def test_a_write_that_no_function_of_torch_makes(self):
        double = torch.jit.trace(lambda x: x.mul_(2), torch.ones(2, 5))

        class Hidden(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop = nn.Dropout(0.5)

            def forward(self, x):
                h = x.abs()
                double(h)
                return self.drop(h)

        outputs = draw(Hidden(), torch.ones(2, 5))
        assert set(outputs.unique().tolist()) == {0.0, 4.0}

    def test_lists_may_be_taken_apart(self):
        class Takes(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop = nn.Dropout(0.5)

            def forward(self, x):
                sizes = x.sum(1).tolist()
                return self.drop(x) * sizes.pop()

        x = torch.ones(2, 5)
        torch.testing.assert_close(draw(Takes(), x), slow_outputs(Takes(), x, 8))

    def test_gradients_stay_off(self):
        class Grad(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.drop = nn.Linear(5, 5), nn.Dropout(0.5)

            def forward(self, x):
                with torch.enable_grad():
                    h = self.first(x)
                with torch.no_grad():
                    return self.drop(h)

        module = Grad().eval()
        with DropoutDraws(module, 3, 0) as draws:
            outputs = list(draws.outputs(partial(module, torch.randn(6, 5))))
        assert not any(output.requires_grad for output in outputs)
        assert torch.is_grad_enabled()

    def test_a_pass_that_goes_another_way(self):
        class Random(nn.Module):
            def __init__(self):
                super().__init__()
                self.drop, self.n = nn.Dropout(0.5), 0

            def forward(self, x):
                self.n += 1
                x = x.abs()
                x = x.neg() if self.n > 1 else x.exp()
                return self.drop(x.neg())

        x = torch.ones(6, 5)
        outputs = draw(Random(), x, 2)
        assert set(outputs[:, 1].unique().tolist()) == {0.0, 2.0}


class AfterDropout(nn.Module):
    """A layer, dropout, and then a function of its outputs and the inputs."""

    def __init__(self, function):
        super().__init__()
        self.first, self.drop = nn.Linear(5, 6), nn.Dropout(0.5)
        self.last, self.rnn = nn.Linear(6, 3), nn.GRU(6, 3, batch_first=True)
        self.conv = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU())
        self.traced = torch.jit.trace(nn.Linear(6, 3), torch.ones(2, 6))
        self.function, self.n_passes, self.remembered = function, 0, None

    def forward(self, x):
        self.n_passes += 1
        return self.function(self, self.drop(self.first(x)), x)


def remembers(module, h, x):
    module.remembered = h
    return module.last(h)


class Doubled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(h):
        return 2 * h

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass


def writes(module, h, x):
    out = torch.zeros(len(x), 6)
    out += h
    return out


def writes_to_kept(module, h, x):
    return x.add_(h[:, :5])


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
class TestSeveralDrawsAtOnce:
    def compare(self, function, n_rows=7):
        torch.manual_seed(0)
        module, x = AfterDropout(function), torch.randn(n_rows, 5)
        outputs = draw(module, x.clone(), 20, batch_size=4)
        n_passes = module.n_passes
        slow = [slow_outputs(module, rows, 20) for rows in x.split(4)]
        torch.testing.assert_close(outputs, torch.cat(slow))
        assert outputs[0].unique(dim=0).shape[0] > 10
        return module, n_passes

    @pytest.mark.parametrize(
        "function",
        [
            lambda m, h, x: m.last(torch.tanh(h)).view(len(x), -1),
            lambda m, h, x: m.conv(h[:, None]).flatten(1),
            lambda m, h, x: h.new_zeros(len(x), 6).add_(h) + x.sum(1, keepdim=True),
            lambda m, h, x: torch.stack([row.softmax(0) for row in h]),
            lambda m, h, x: m.traced(m.drop(h)),
            lambda m, h, x: Doubled.apply(h),
            lambda m, h, x: m.drop(h @ h.T)[:, :1] * h,
        ],
    )
    @pytest.mark.parametrize("n_rows", [1, 7, 8])
    def test_heads_that_allow_it(self, function, n_rows):
        """The first draw of a batch, the last one, and all others in one pass."""
        _, n_passes = self.compare(function, n_rows)
        n_batches = -(-n_rows // 4)
        assert n_passes in (3 * n_batches, 3 * n_batches + 2)  # two of them to probe

    @pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.AlphaDropout(0.3)])
    def test_masks_keep_their_bits(self, layer):
        module, x = nn.Sequential(layer, nn.ReLU(), layer), torch.randn(7, 50)
        torch.testing.assert_close(draw(module, x, 20), slow_outputs(module, x, 20))

    @pytest.mark.parametrize(
        "function",
        [
            lambda m, h, x: m.rnn(h[:, None])[0][:, 0],
            lambda m, h, x: m.last(h) if h.sum() > 0 else -m.last(h),
            lambda m, h, x: torch.from_numpy(h.numpy() * 2),
            lambda m, h, x: torch.tensor(h.tolist()),
            lambda m, h, x: nn.functional.dropout(h, 1e-9, training=True),
            lambda m, h, x: h[h[:, 0].argsort() >= 0],
            lambda m, h, x: h * h.unique().numel(),
            writes,
            writes_to_kept,
        ],
    )
    def test_heads_that_do_not(self, function):
        _, n_passes = self.compare(function)
        assert n_passes >= 2 * 20

    def test_what_a_network_remembers_is_that_of_the_last_draw(self):
        module, _ = self.compare(remembers)
        expected, module.remembered = module.remembered, None
        torch.manual_seed(0)
        again, x = AfterDropout(remembers), torch.randn(7, 5)
        slow_outputs(again, x[4:], 20)
        torch.testing.assert_close(expected + 0, again.remembered)

    def test_large_batches_run_one_by_one(self, monkeypatch):
        monkeypatch.setattr("skal.net.dropout.PIECE", 4 * 6 * 5)
        _, n_passes = self.compare(lambda m, h, x: m.last(h), 4)
        assert n_passes == 1 + 4 + 1  # 18 draws, 5 at once
        _, n_passes = self.compare(lambda m, h, x: m.last(h.repeat(1, 3)[:, :6]), 4)
        assert n_passes == 20

    def test_shapes_that_change_between_passes(self):
        def grows(module, h, x):
            return module.drop(h.repeat(1, module.n_passes))[:, :6]

        torch.manual_seed(0)
        module, x = AfterDropout(grows), torch.randn(3, 5)
        assert draw(module, x, 6).shape == (3, 6, 6)
        assert module.n_passes > 6


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_layers_drop(batch_first):
    """Their fused form in evaluation mode would pass over the dropout modules."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.5, batch_first=batch_first
            )
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            x = x if batch_first else x.transpose(0, 1)
            return self.head(self.layer(x).mean(1 if batch_first else 0))

    torch.manual_seed(0)
    module, x = Attention(), torch.randn(6, 5, 8)
    outputs = draw(module, x)
    assert (outputs != outputs[:, :1]).any()
    torch.testing.assert_close(draw(module, x, batch_size=3), outputs)
    assert torch.backends.mha.get_fastpath_enabled()


def test_entries_of_a_row_one_after_another():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 2)

        def forward(self, x):
            patches = self.drop(x.reshape(-1, 4))
            return self.head(patches).reshape(len(x), -1)

    torch.manual_seed(0)
    module, x = Patches(), torch.randn(6, 12)
    torch.testing.assert_close(draw(module, x, batch_size=2), draw(module, x))


@pytest.mark.parametrize("batch_size", [2, 3, 4, 5, 8, 9])
def test_shapes_with_two_readings(batch_size):
    """Entries, steps or features may be as many as the batch has rows."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Dropout(0.5) for _ in range(3))

        def forward(self, x):
            assert len(x) > 1
            entries = self.parts[0](x.reshape(-1, 4)).reshape(x.shape)
            x.zero_()
            steps = self.parts[1](torch.ones(5, len(x), 2)).transpose(0, 1).flatten(1)
            features = self.parts[2](torch.ones(len(x), 8))
            return torch.cat([entries, steps, features], 1)

    x = torch.ones(18, 12)
    outputs = draw(Mixed(), x, batch_size=batch_size)
    assert (outputs == outputs[:1]).all()
    torch.testing.assert_close(outputs, draw(Mixed(), x, batch_size=6))
    assert (x == 1).all()


@pytest.mark.parametrize("batch_size", [2, 3, 4, 6, 12])
def test_as_many_steps_as_rows(batch_size):
    """Two rows alone may have several entries each, but not as many as all have."""

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(x.transpose(0, 1)).transpose(0, 1).flatten(1)

    x = torch.ones(24, 6, 4)
    outputs = draw(Steps(), x, batch_size=batch_size)
    assert (outputs == outputs[:1]).all()
    torch.testing.assert_close(outputs, draw(Steps(), x, batch_size=8))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_channel_dropout_of_several_images_a_row(n_steps):
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout2d(0.5)

        def forward(self, x):
            return self.drop(x.flatten(0, 1)).reshape(x.shape)

    outputs = draw(Frames(), torch.ones(4, n_steps, 50, 2, 2))
    assert (outputs == outputs[:1]).all()
    channels = outputs[0].flatten(3)
    assert (channels == channels[..., :1]).all()
    shares = (channels[..., 0] == 0).double().mean(2)
    assert ((shares > 0.2) & (shares < 0.8)).all()


def test_rows_that_cannot_be_told_apart():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(x.flatten()[:-1])

    with pytest.raises(ValueError, match=r"tell the rows apart.*\(29,\).* 6 rows"):
        draw(Mixed(), torch.randn(6, 5))


def test_module_and_generators_are_left_alone():
    module = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)
    )
    module.eval()
    state = {k: v.clone() for k, v in module.state_dict().items()}
    rng = torch.get_rng_state()
    draw(module, torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    for part in module.modules():
        assert not part.training
        assert not part._forward_hooks and not part._forward_pre_hooks


def test_restored_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    module = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5), Fails())
    with pytest.raises(RuntimeError, match="no"):
        draw(module, torch.randn(6, 5))
    for part in module.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks


def test_seed_decides_the_masks():
    module, x = nn.Sequential(nn.Dropout(0.5)), torch.ones(2, 50)
    np.testing.assert_array_equal(draw(module, x, seed=3), draw(module, x, seed=3))
    assert (draw(module, x, seed=3) != draw(module, x, seed=4)).any()
