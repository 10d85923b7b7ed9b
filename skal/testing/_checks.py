"""The checks: functions of one strategy, named as what they want of it."""

import inspect
import pickle
import random
from unittest import SkipTest

import numpy as np
import torch
from sklearn.base import clone

from skal.pool import PoolView
from skal.query import QueryStrategy
from skal.testing._elsewhere import picks_elsewhere
from skal.testing._pools import (
    N_FEATURES,
    N_POOL,
    crowded_pool,
    make_data,
    make_estimator,
    make_pool,
    make_query,
    tied_pool,
)

PREDICTIONS = {"proba", "log_proba", "logits", "rescore", "sample_proba"}
EMBEDDINGS = {"embeddings", "features", "head_weight", "head_bias"}
# What else a strategy may ask a pool about, outputs aside.
FREE = {
    *("has_labeled", "indices", "labeled", "prefetch", "random_state", "run_seed"),
    *("classes", "of_others", "y", "by_rows", "stack", "zeros"),
    *("part", "spread", "weights"),
}


def assert_picks(picks, n_samples, n_pool):
    assert isinstance(picks, np.ndarray), f"picks are no array but {type(picks)}"
    assert picks.dtype == np.int64, f"picks are {picks.dtype}, not int64"
    assert picks.shape == (n_samples,), f"{n_samples} picks wanted, got {picks.shape}"
    assert len(np.unique(picks)) == n_samples, f"picks repeat: {picks}"
    assert picks.size == 0 or 0 <= picks.min() <= picks.max() < n_pool, (
        f"picks are outside a pool of {n_pool}: {picks}"
    )


def assert_equal_params(again, strategy, what):
    expected, found = (s.get_params(deep=False) for s in (strategy, again))
    assert repr(found) == repr(expected), f"{what} has the parameters {found}"


def trains(strategy):
    """Whether it has a `fit` of its own, so that more than one pass is right."""
    return type(strategy).fit is not QueryStrategy.fit


def needs_network(strategy):
    """Whether outputs are asked for that only a network has."""
    passes = {"sample_proba", "input_gradients", "hidden_means"}
    return bool(passes & set(strategy.requires) or strategy.training_note)


def depends_on_seed(strategy):
    """Whether seeds change the picks where no two rows tie."""
    picks = [
        make_query(strategy, make_pool(strategy, random_state=s), 10) for s in range(5)
    ]
    return any((p != picks[0]).any() for p in picks)


# Numbers of picks


def check_number_of_picks(strategy):
    """As many picks as wanted, or the whole pool: distinct int64 positions."""
    for n_samples in (1, 7, np.int64(7), N_POOL, N_POOL + 5):
        picks = make_query(strategy, make_pool(strategy), n_samples)
        assert_picks(picks, min(n_samples, N_POOL), N_POOL)


def check_n_samples_validated(strategy):
    """An `n_samples` that is no positive integer is refused by name."""
    pool = make_pool(strategy)
    strategy = clone(strategy).fit(pool)
    for n_samples, error in [
        (0, ValueError),
        (-1, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ("3", TypeError),
    ]:
        try:
            strategy.query(pool, n_samples)
        except error as raised:
            assert "n_samples" in str(raised), f"{raised!r} does not name n_samples"
        else:
            raise AssertionError(f"n_samples={n_samples!r} raised no {error.__name__}")


def check_pool_of_one_row(strategy):
    """A pool of one row gives that row."""
    for n_samples in (1, 3):
        picks = make_query(
            strategy, make_pool(strategy, X=make_data()[2][:1]), n_samples
        )
        assert_picks(picks, 1, 1)


def check_empty_pool(strategy):
    """An empty pool gives an empty array."""
    pool = make_pool(strategy, X=make_data()[2][:0])
    # Nothing to train on either: the loop never fits a strategy on an empty pool.
    assert_picks(clone(strategy).query(pool, 3), 0, 0)


# Seeds


def check_same_seed_same_picks(strategy):
    """Equal seeds give equal picks, and a query leaves no trace."""
    for seeds in [(0, None), (0, 1), (None, 1)]:
        first, second = (
            make_query(
                strategy,
                make_pool(strategy, random_state=seeds[0]),
                10,
                random_state=seeds[1],
            )
            for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)
    pool = make_pool(strategy)
    strategy = clone(strategy).fit(pool)
    np.testing.assert_array_equal(
        strategy.query(pool, 10), strategy.query(pool, 10), "a query leaves a trace"
    )


def check_same_picks_in_another_process(strategy):
    """The picks do not depend on the process, as those from a salted hash do."""
    if type(strategy).__module__ == "__main__":
        raise SkipTest("another process cannot import what __main__ defines")
    here = make_query(strategy, make_pool(strategy), 10).tolist()
    elsewhere = picks_elsewhere(strategy, 10)
    assert elsewhere == here, f"picks {here} here, and in another process {elsewhere}"


def check_seed_decides_ties(strategy):
    """Among equal rows each seed, of pool or strategy, picks others."""

    def n_different(seeds):
        picks = [
            make_query(strategy, tied_pool(strategy, a), 10, random_state=b)
            for a, b in seeds
        ]
        return len({tuple(p.tolist()) for p in picks})

    assert n_different([(s, 5) for s in range(4)]) == 4, "the pool's seed is ignored"
    assert n_different([(0, s) for s in range(4)]) == 4, "random_state is ignored"
    assert n_different([(None, None)] * 4) == 4, "no fresh entropy without a seed"


def check_no_position_bias(strategy):
    """Among equal rows, the first pick is in the middle of the pool on average."""
    pool = tied_pool(strategy)
    strategy = clone(strategy).fit(pool)
    firsts = [
        strategy.set_params(random_state=seed).query(pool, 1)[0] for seed in range(100)
    ]
    # Uniform positions have this standard deviation; their mean a tenth of it.
    deviation = ((N_POOL**2 - 1) / 12) ** 0.5
    bias = np.mean(firsts) - (N_POOL - 1) / 2
    assert abs(bias) < 4 * deviation / 10, f"first picks lean by {bias:+.1f} rows"


def check_permuting_the_pool_permutes_the_picks(strategy):
    """The order of the pool does not matter."""
    if depends_on_seed(strategy):
        raise SkipTest("picks depend on the seed, so positions meet other draws")
    order = np.random.default_rng(0).permutation(N_POOL)
    permuted = make_pool(strategy, X=make_data()[2][order])
    np.testing.assert_array_equal(
        order[make_query(strategy, permuted, 10)],
        make_query(strategy, make_pool(strategy), 10),
    )


# Hard pools


def check_duplicate_rows(strategy):
    """A pool of six rows, ten times each, gives distinct positions."""
    X = np.repeat(make_data()[2][:6], 10, axis=0)
    for n_samples in (4, 10, len(X)):
        picks = make_query(strategy, make_pool(strategy, X=X), n_samples)
        assert_picks(picks, n_samples, len(X))


def check_equal_rows(strategy):
    """A pool of equal rows gives distinct positions."""
    for n_samples in (4, N_POOL):
        assert_picks(
            make_query(strategy, tied_pool(strategy), n_samples), n_samples, N_POOL
        )


def check_predictions_of_one_class(strategy):
    """Certain predictions, with probabilities 0 and 1, do no harm."""
    net = make_estimator(strategy)
    with torch.no_grad():
        net.module_.head.weight.mul_(1e-3)
        net.module_.head.bias.copy_(torch.tensor([200.0, 0.0, 0.0]))
    picks = make_query(strategy, make_pool(estimator=net), 10)
    assert_picks(picks, 10, N_POOL)
    if not needs_network(strategy):
        assert_picks(make_query(strategy, make_pool("certain"), 10), 10, N_POOL)


def check_estimator_without_network(strategy):
    """Only a strategy that needs a network refuses another model."""
    try:
        picks = make_query(strategy, make_pool("linear"), 10)
    except ValueError as error:
        assert needs_network(strategy), f"needs no network, but raised {error!r}"
    else:
        assert_picks(picks, 10, N_POOL)


# Nothing changes


def check_global_rng_untouched(strategy):
    """The global generators of python, numpy and torch stay as they are."""

    def states():
        kind, keys, *rest = np.random.get_state()
        torch_state = torch.get_rng_state().tolist()
        return random.getstate(), (kind, keys.tolist(), *rest), torch_state

    pool = make_pool(strategy)
    before = states()
    make_query(strategy, pool, 10)
    names = ("python", "numpy", "torch")
    for name, old, new in zip(names, before, states(), strict=True):
        assert old == new, f"the global generator of {name} was used"


def check_network_untouched(strategy):
    """Weights, modes, gradients and hooks of the network stay as they are."""
    net = make_estimator(strategy)
    module = net.module_
    # A state that no call of train() or eval() would bring back.
    for i, part in enumerate(module.modules()):
        part.training = i % 2 == 0
    for i, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(i % 3 != 0)

    def state():
        return {
            "weights": {
                name: value.numpy().tobytes()
                for name, value in module.state_dict().items()
            },
            "train and eval flags": [part.training for part in module.modules()],
            "requires_grad": [p.requires_grad for p in module.parameters()],
            "gradients": [p.grad is None for p in module.parameters()],
            "hooks": [
                len(part._forward_hooks) + len(part._forward_pre_hooks)
                for part in module.modules()
            ],
        }

    module.zero_grad()
    before = state()
    make_query(strategy, make_pool(estimator=net), 10)
    after = state()
    for name, value in before.items():
        assert value == after[name], f"the network's {name} changed"


def check_rows_untouched(strategy):
    """The rows and labels given stay as they are."""
    X_labeled, y_labeled, X = (array.copy() for array in make_data())
    before = [array.tobytes() for array in (X_labeled, y_labeled, X)]
    pool = PoolView(
        make_estimator(strategy),
        X,
        X_labeled=X_labeled,
        y_labeled=y_labeled,
        random_state=0,
    )
    make_query(strategy, pool, 10)
    after = [array.tobytes() for array in (X_labeled, y_labeled, X)]
    names = ("X_labeled", "y_labeled", "X")
    for name, old, new in zip(names, before, after, strict=True):
        assert old == new, f"{name} changed"


def check_outputs_untouched(strategy):
    """Nothing is written into the outputs of the pool."""
    names = ("proba", "log_proba", "logits", "embeddings")
    pool = make_pool(strategy)
    before = {name: getattr(pool, name).clone() for name in names}
    make_query(strategy, pool, 10)
    for name, value in before.items():
        assert torch.equal(value, getattr(pool, name)), f"pool.{name} changed"


def check_params_untouched(strategy):
    """`fit` returns self and changes no parameter; what it learns ends in _."""
    strategy = clone(strategy).set_params(random_state=3)
    params, pool = strategy.get_params(deep=False), make_pool(strategy)
    assert strategy.fit(pool) is strategy, "fit must return self"
    strategy.query(pool, 10)
    assert repr(strategy.get_params(deep=False)) == repr(params), "parameters changed"
    learned = set(vars(strategy)) - set(params)
    bad = {name for name in learned if name.startswith("_") or not name.endswith("_")}
    assert not bad, f"learned state must end in '_', got {sorted(bad)}"


# Outputs of the pool


class RecordingPool:
    """A PoolView that notes what is asked of it, under `touched`."""

    def __init__(self, pool, prefix="", touched=None):
        self._pool = pool
        self._prefix = prefix
        self.touched = set() if touched is None else touched

    def __len__(self):
        return len(self._pool)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "labeled":
            return RecordingPool(self._pool.labeled, "labeled.", self.touched)
        value = getattr(self._pool, name)
        if name not in FREE:
            name = name.removesuffix("_at").removeprefix("flat_")
            self.touched.add(self._prefix + name)
        return value


def touched_outputs(strategy):
    """Names of the outputs that `strategy` reads from a network's pool."""
    pool = RecordingPool(make_pool(strategy))
    make_query(strategy, pool, 10)
    return pool.touched


def check_reads_only_required_outputs(strategy):
    """Only outputs that `requires` names are read."""
    required = set(strategy.requires)
    unknown = {n for n in required if not hasattr(PoolView, n.removeprefix("labeled."))}
    assert not unknown, f"requires names no outputs of a PoolView: {sorted(unknown)}"
    allowed = required | {name.replace("head_bias", "head_weight") for name in required}
    if trains(strategy):
        allowed |= {"estimator"}
    unlisted = touched_outputs(strategy) - allowed
    assert not unlisted, f"reads {sorted(unlisted)}, requires names {sorted(required)}"


def check_one_pass_over_the_rows(strategy):
    """Each row passes the network once, if any output is required."""
    if needs_network(strategy) or trains(strategy):
        raise SkipTest("samples, differentiates or trains: several passes by nature")
    pool = make_pool(strategy)
    batches = [torch.empty(0, N_FEATURES)]
    pool.estimator.module_.register_forward_pre_hook(
        lambda module, args: batches.append(args[0].clone())
    )
    make_query(strategy, pool, 10)
    seen = torch.cat(batches)
    outputs = PREDICTIONS | EMBEDDINGS - {"features"}
    X_labeled, _, X = make_data()
    for rows, prefix in ((X, ""), (X_labeled, "labeled.")):
        counts = (seen[:, None] == torch.from_numpy(rows)).all(2).sum(0)
        wanted = any(prefix + name in strategy.requires for name in outputs)
        assert (counts == int(wanted)).all(), (
            f"each {prefix}row must pass the network {int(wanted)} times, got "
            f"{counts.tolist()}"
        )


def check_same_picks_under_a_memory_limit(strategy):
    """Outputs in files, read a few rows at a time, give the picks of those in memory.

    A function for `PoolView.by_rows` must know no rows but those that it is given.
    """
    for kind in [strategy] if needs_network(strategy) else [strategy, "linear"]:
        here = make_query(strategy, make_pool(kind), 10).tolist()
        picks = make_query(strategy, crowded_pool(kind), 10).tolist()
        assert picks == here, f"picks {here}, but under a memory limit {picks}"


# Devices


def check_same_picks_on_gpu(strategy):
    """A network on the GPU gives the picks of the same one on the CPU."""
    if not torch.cuda.is_available():
        raise SkipTest("needs a CUDA device")
    if trains(strategy):
        raise SkipTest("trains there, with other draws of weights or dropout")
    net = make_estimator(strategy)
    on_gpu = make_estimator(strategy)
    on_gpu.set_params(device="cuda").initialize()
    on_gpu.module_.load_state_dict(net.module_.state_dict())
    pool = make_pool(estimator=on_gpu)
    np.testing.assert_array_equal(
        make_query(strategy, pool, 10), make_query(strategy, make_pool(strategy), 10)
    )


# Parameters


def check_constructor(strategy):
    """Parameters are keyword-only; `random_state` is one, None by default.

    But a strategy that is wrapped, `strategy`, may come first.
    """
    parameters = inspect.signature(type(strategy)).parameters.values()
    kinds = {p.name: p.kind for p in parameters if p.name != "strategy"}
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}, (
        f"parameters must be keyword-only, got {kinds}"
    )
    defaults = {p.name: p.default for p in parameters}
    assert "random_state" in defaults, "a strategy has a random_state"
    assert defaults["random_state"] is None, "random_state must be None by default"


def check_parameters_validated(strategy):
    """A query says of each parameter what it may be."""
    pool = RecordingPool(make_pool(strategy))
    for name in strategy.get_params(deep=False):
        bad = clone(strategy).set_params(**{name: object()})
        try:
            bad.query(pool, 1)
        except ValueError as error:
            found = str(error)
        else:
            found = "nothing"
        wanted = f"The {name!r} parameter of {type(strategy).__name__} must be"
        assert found.startswith(wanted), (
            f"_parameter_constraints must say what {name!r} may be, so that query "
            f"raises '{wanted} ...'; it raised {found}"
        )
    assert not pool.touched, "parameters must be validated before the pool is read"


def check_pickle(strategy):
    """A fitted strategy survives pickle."""
    strategy = clone(strategy).set_params(random_state=1)
    pool = make_pool(strategy)
    strategy.fit(pool)
    again = pickle.loads(pickle.dumps(strategy))
    assert_equal_params(again, strategy, "a pickled copy")
    np.testing.assert_array_equal(again.query(pool, 10), strategy.query(pool, 10))


def check_clone(strategy):
    """A clone has the parameters and nothing that was learned."""
    strategy = clone(strategy).set_params(random_state=1)
    again = clone(strategy)
    assert type(again) is type(strategy), f"a clone is a {type(again)}"
    assert_equal_params(again, strategy, "a clone")
    pool = make_pool(strategy)
    before = set(vars(again))
    strategy.fit(pool).query(pool, 10)
    assert set(vars(clone(strategy))) == before, "a clone keeps learned state"
