"""What every strategy must do: plain functions `check_*(strategy)`.

A strategy that is not skal's own can be held to the same contract:

    for check in yield_checks():
        check(MyQuery())
"""

import inspect
import json
import os
import pickle
import random
import subprocess
import sys
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import estimator_checks
from skorch import NeuralNetClassifier
from torch import nn

from skal.pool import PoolView
from skal.utils import all_strategies, isolated_rng

N_POOL, N_LABELED, N_FEATURES, N_CLASSES = 60, 90, 6, 3

# Strategies that train a network are checked with few epochs.
QUICK = {
    "AsalQuery": {"aux__max_epochs": 3, "n_steps": 3},
    "CoreGcnQuery": {"aux__max_epochs": 3},
    "LearningLossQuery": {"aux__max_epochs": 3},
    "UncertainGcnQuery": {"aux__max_epochs": 3},
    "VaalQuery": {"aux__max_epochs": 3},
    "WaalQuery": {"aux__max_epochs": 3},
}
# Files of strategies that train a network, exempt where it says so.
TRAINED = {"_learning_loss", "_vaal", "_waal", "_asal", "_graph"}
PREDICTIONS = {"proba", "log_proba", "logits", "sample_proba"}
EMBEDDINGS = {"embeddings", "features", "head_weight", "head_bias"}
# What else a strategy may ask a pool about, outputs aside.
FREE = {
    *("has_labeled", "indices", "labeled", "prefetch", "random_state", "run_seed"),
    *("classes", "y"),
}

_SKLEARN_CHECKS = """
check_estimator_cloneable check_estimator_repr check_no_attributes_set_in_init
check_do_not_raise_errors_in_init_or_set_params check_mixin_order
check_parameters_default_constructible check_get_params_invariance check_set_params
check_valid_tag_types
""".split()


class Network(nn.Module):
    """A small network with all that can go wrong: BatchNorm, Dropout, a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(N_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class Certain(ClassifierMixin, BaseEstimator):
    """A classifier without a network that gives class 0 with probability 1."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.eye(len(self.classes_))[np.zeros(len(X), dtype=int)]


@cache
def _data():
    """Overlapping blobs: labelled rows, their labels, and the rows of the pool."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N_LABELED + N_POOL) % N_CLASSES)
    centers = 1.5 * rng.standard_normal((N_CLASSES, N_FEATURES))
    X = centers[y] + rng.standard_normal((len(y), N_FEATURES))
    X = X.astype(np.float32)
    return X[:N_LABELED], y[:N_LABELED], X[N_LABELED:]


@cache
def _estimator(kind):
    X, y, _ = _data()
    if kind == "linear":
        return LogisticRegression(max_iter=1000).fit(X, y)
    if kind == "certain":
        return Certain().fit(X, y)
    with isolated_rng(0):
        net = NeuralNetClassifier(
            Network,
            criterion=nn.CrossEntropyLoss,
            max_epochs=5,
            lr=0.1,
            batch_size=32,
            iterator_train__shuffle=True,
            iterator_valid__batch_size=64,
            train_split=None,
            classes=list(range(N_CLASSES)),
            verbose=0,
        ).fit(X, y)
    return net


def make_estimator(kind="net"):
    """Copy of a fitted estimator: "net", "linear" (no network) or "certain"."""
    fitted = _estimator(kind)
    if kind != "net":
        return deepcopy(fitted)
    with isolated_rng(0):  # several times faster than deepcopy
        net = clone(fitted).initialize()
    net.module_.load_state_dict(fitted.module_.state_dict())
    return net


def make_pool(kind="net", X=None, *, estimator=None, random_state=0):
    """View of `X`, by default 60 distinct rows, with nothing computed yet."""
    X_labeled, y_labeled, X_pool = _data()
    return PoolView(
        make_estimator(kind) if estimator is None else estimator,
        (X_pool if X is None else X).copy(),
        X_labeled=X_labeled.copy(),
        y_labeled=y_labeled.copy(),
        random_state=random_state,
    )


def tied_pool(random_state=0):
    """View of equal rows whose outputs are equal to the last bit.

    A matrix product may round its last rows another way, so each of the products here
    adds zeros to one number.
    """
    net = make_estimator()
    with torch.no_grad():
        net.module_.head.weight.copy_(torch.eye(N_CLASSES, 8))
    X = np.zeros((N_POOL, N_FEATURES), dtype=np.float32)
    return make_pool(X=X, estimator=net, random_state=random_state)


def make_strategy(cls):
    """Make a strategy of `cls` with the parameters that it is checked with."""
    return cls().set_params(**QUICK.get(cls.__name__, {}))


def make_query(strategy, pool, n_samples, **params):
    """Picks of a fresh clone of `strategy`."""
    return clone(strategy).set_params(**params).fit(pool).query(pool, n_samples)


def assert_picks(picks, n_samples, n_pool):
    assert isinstance(picks, np.ndarray), f"picks are no array but {type(picks)}"
    assert picks.dtype == np.int64, f"picks are {picks.dtype}, not int64"
    assert picks.shape == (n_samples,), f"{n_samples} picks wanted, got {picks.shape}"
    assert len(np.unique(picks)) == n_samples, f"picks repeat: {picks}"
    assert picks.size == 0 or 0 <= picks.min() <= picks.max() < n_pool, (
        f"picks are outside a pool of {n_pool}: {picks}"
    )


def home(strategy):
    """Name of the file that the class of `strategy` sits in."""
    return type(strategy).__module__.rpartition(".")[2]


def needs_network(strategy):
    passes = {"sample_proba", "input_gradients", "hidden_means"}
    return bool(passes & set(strategy.requires))


def depends_on_seed(strategy):
    """Whether seeds change the picks where no two rows tie."""
    picks = [make_query(strategy, make_pool(random_state=s), 10) for s in range(5)]
    return any((p != picks[0]).any() for p in picks)


# Numbers of picks


def check_number_of_picks(strategy):
    for n_samples in (1, 7, np.int64(7), N_POOL, N_POOL + 5):
        picks = make_query(strategy, make_pool(), n_samples)
        assert_picks(picks, min(n_samples, N_POOL), N_POOL)


def check_n_samples_validated(strategy):
    pool = make_pool()
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
    for n_samples in (1, 3):
        picks = make_query(strategy, make_pool(X=_data()[2][:1]), n_samples)
        assert_picks(picks, 1, 1)


def check_empty_pool(strategy):
    pool = make_pool(X=_data()[2][:0])
    # Nothing to train on either: the loop never fits a strategy on an empty pool.
    assert_picks(clone(strategy).query(pool, 3), 0, 0)


# Seeds


def check_same_seed_same_picks(strategy):
    for seeds in [(0, None), (0, 1), (None, 1)]:
        first, second = (
            make_query(
                strategy, make_pool(random_state=seeds[0]), 10, random_state=seeds[1]
            )
            for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)
    pool = make_pool()
    strategy = clone(strategy).fit(pool)
    np.testing.assert_array_equal(
        strategy.query(pool, 10), strategy.query(pool, 10), "a query leaves a trace"
    )


# Further strategies for the one process that all of skal's share: it starts slowly.
ALSO_ELSEWHERE = []


def check_same_picks_in_another_process(strategy):
    cls = type(strategy)
    shared = cls in [*dict(all_strategies()).values(), *map(type, ALSO_ELSEWHERE)]
    if shared and repr(strategy) == repr(make_strategy(cls)):
        elsewhere = _picks_of_all_elsewhere()[cls.__name__]
    else:
        elsewhere = _picks_elsewhere([strategy])[cls.__name__]
    assert elsewhere == make_query(strategy, make_pool(), 10).tolist()


_CHILD = """
import json, pickle, sys
pool, strategies = pickle.load(sys.stdin.buffer)
from strategy_checks import make_query
picks = {}
for strategy in strategies:
    view = pickle.loads(pickle.dumps(pool))
    try:
        picks[type(strategy).__name__] = make_query(strategy, view, 10).tolist()
    except Exception as error:
        picks[type(strategy).__name__] = repr(error)
print(json.dumps(picks))
"""


def _picks_elsewhere(strategies):
    salt = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    path = os.pathsep.join(filter(None, sys.path))
    changes = {"PYTHONHASHSEED": salt, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=pickle.dumps((make_pool(), strategies)),
        env={**os.environ, **changes},
        capture_output=True,
    )
    assert child.returncode == 0, child.stderr.decode()
    return json.loads(child.stdout)


@cache
def _picks_of_all_elsewhere():
    shipped = [make_strategy(cls) for _, cls in all_strategies()]
    return _picks_elsewhere(shipped + ALSO_ELSEWHERE)


def check_seed_decides_ties(strategy):
    def n_different(seeds):
        picks = [
            make_query(strategy, tied_pool(a), 10, random_state=b) for a, b in seeds
        ]
        return len({tuple(p.tolist()) for p in picks})

    assert n_different([(s, 5) for s in range(4)]) == 4, "the pool's seed is ignored"
    assert n_different([(0, s) for s in range(4)]) == 4, "random_state is ignored"
    assert n_different([(None, None)] * 4) == 4, "no fresh entropy without a seed"


def check_no_position_bias(strategy):
    """Among equal rows, the first pick is in the middle of the pool on average."""
    pool = tied_pool()
    strategy = clone(strategy).fit(pool)
    firsts = [
        strategy.set_params(random_state=seed).query(pool, 1)[0] for seed in range(100)
    ]
    # Uniform positions have this standard deviation; their mean a tenth of it.
    deviation = ((N_POOL**2 - 1) / 12) ** 0.5
    bias = np.mean(firsts) - (N_POOL - 1) / 2
    assert abs(bias) < 4 * deviation / 10, f"first picks lean by {bias:+.1f} rows"


def check_permuting_the_pool_permutes_the_picks(strategy):
    if depends_on_seed(strategy):
        pytest.skip("picks depend on the seed, so positions meet other draws")
    order = np.random.default_rng(0).permutation(N_POOL)
    permuted = make_pool(X=_data()[2][order])
    np.testing.assert_array_equal(
        order[make_query(strategy, permuted, 10)], make_query(strategy, make_pool(), 10)
    )


# Hard pools


def check_duplicate_rows(strategy):
    X = np.repeat(_data()[2][:6], 10, axis=0)
    for n_samples in (4, 10, len(X)):
        picks = make_query(strategy, make_pool(X=X), n_samples)
        assert_picks(picks, n_samples, len(X))


def check_equal_rows(strategy):
    for n_samples in (4, N_POOL):
        assert_picks(make_query(strategy, tied_pool(), n_samples), n_samples, N_POOL)


def check_predictions_of_one_class(strategy):
    net = make_estimator()
    with torch.no_grad():
        net.module_.head.weight.mul_(1e-3)
        net.module_.head.bias.copy_(torch.tensor([200.0, 0.0, 0.0]))
    picks = make_query(strategy, make_pool(estimator=net), 10)
    assert_picks(picks, 10, N_POOL)
    if not needs_network(strategy):
        assert_picks(make_query(strategy, make_pool("certain"), 10), 10, N_POOL)


def check_estimator_without_network(strategy):
    try:
        picks = make_query(strategy, make_pool("linear"), 10)
    except ValueError as error:
        assert needs_network(strategy), f"needs no network, but raised {error!r}"
    else:
        assert_picks(picks, 10, N_POOL)


# Nothing changes


def check_global_rng_untouched(strategy):
    def states():
        kind, keys, *rest = np.random.get_state()
        torch_state = torch.get_rng_state().tolist()
        return random.getstate(), (kind, keys.tolist(), *rest), torch_state

    pool = make_pool()
    before = states()
    make_query(strategy, pool, 10)
    names = ("python", "numpy", "torch")
    for name, old, new in zip(names, before, states(), strict=True):
        assert old == new, f"the global generator of {name} was used"


def check_network_untouched(strategy):
    net = make_estimator()
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
    X_labeled, y_labeled, X = (array.copy() for array in _data())
    before = [array.tobytes() for array in (X_labeled, y_labeled, X)]
    pool = PoolView(
        make_estimator(), X, X_labeled=X_labeled, y_labeled=y_labeled, random_state=0
    )
    make_query(strategy, pool, 10)
    after = [array.tobytes() for array in (X_labeled, y_labeled, X)]
    names = ("X_labeled", "y_labeled", "X")
    for name, old, new in zip(names, before, after, strict=True):
        assert old == new, f"{name} changed"


def check_outputs_untouched(strategy):
    names = ("proba", "log_proba", "logits", "embeddings")
    pool = make_pool()
    before = {name: getattr(pool, name).clone() for name in names}
    make_query(strategy, pool, 10)
    for name, value in before.items():
        assert torch.equal(value, getattr(pool, name)), f"pool.{name} changed"


def check_params_untouched(strategy):
    strategy = clone(strategy).set_params(random_state=3)
    params, pool = strategy.get_params(deep=False), make_pool()
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
            self.touched.add(self._prefix + name)
        return value


def touched_outputs(strategy):
    """Names of the outputs that `strategy` reads from a network's pool."""
    pool = RecordingPool(make_pool())
    make_query(strategy, pool, 10)
    return pool.touched


def check_reads_only_required_outputs(strategy):
    required = set(strategy.requires)
    unknown = {n for n in required if not hasattr(PoolView, n.removeprefix("labeled."))}
    assert not unknown, f"requires names no outputs of a PoolView: {sorted(unknown)}"
    allowed = required | {name.replace("head_bias", "head_weight") for name in required}
    if home(strategy) in TRAINED:
        allowed |= {"estimator"}
    unlisted = touched_outputs(strategy) - allowed
    assert not unlisted, f"reads {sorted(unlisted)}, requires names {sorted(required)}"


def check_one_pass_over_the_rows(strategy):
    if needs_network(strategy) or home(strategy) in TRAINED:
        pytest.skip("samples, differentiates or trains: more than one pass by nature")
    pool = make_pool()
    batches = [torch.empty(0, N_FEATURES)]
    pool.estimator.module_.register_forward_pre_hook(
        lambda module, args: batches.append(args[0].clone())
    )
    make_query(strategy, pool, 10)
    seen = torch.cat(batches)
    outputs = PREDICTIONS | EMBEDDINGS - {"features"}
    X_labeled, _, X = _data()
    for rows, prefix in ((X, ""), (X_labeled, "labeled.")):
        counts = (seen[:, None] == torch.from_numpy(rows)).all(2).sum(0)
        wanted = any(prefix + name in strategy.requires for name in outputs)
        assert (counts == int(wanted)).all(), (
            f"each {prefix}row must pass the network {int(wanted)} times, got "
            f"{counts.tolist()}"
        )


def check_sits_in_its_file(strategy):
    """The first yes wins, as in the table of the design."""
    if home(strategy) in TRAINED:
        return
    touched = {name.removeprefix("labeled.") for name in touched_outputs(strategy)}
    if "input_gradients" in touched:
        file = "_adversarial"
    elif touched & PREDICTIONS and touched & EMBEDDINGS:
        file = "_hybrid"
    elif "sample_proba" in touched:
        file = "_bayesian"
    elif touched & EMBEDDINGS:
        file = "_diversity"
    else:
        file = "_uncertainty"
    module = type(strategy).__module__
    assert module == f"skal.query.{file}", (
        f"reads {sorted(touched)}, so its place is {file}.py, not {module}"
    )


# Devices


def check_same_picks_on_gpu(strategy):
    if home(strategy) in TRAINED:
        pytest.skip("trains there, with other draws of weights or dropout")
    net = make_estimator()
    on_gpu = make_estimator()
    on_gpu.set_params(device="cuda").initialize()
    on_gpu.module_.load_state_dict(net.module_.state_dict())
    pool = make_pool(estimator=on_gpu)
    np.testing.assert_array_equal(
        make_query(strategy, pool, 10), make_query(strategy, make_pool(), 10)
    )


# Parameters


def check_constructor(strategy):
    parameters = inspect.signature(type(strategy)).parameters.values()
    kinds = {p.name: p.kind for p in parameters}
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}, (
        f"parameters must be keyword-only, got {kinds}"
    )
    defaults = {p.name: p.default for p in parameters}
    assert "random_state" in defaults, "a strategy has a random_state"
    assert defaults["random_state"] is None, "random_state must be None by default"


def check_parameters_validated(strategy):
    pool = RecordingPool(make_pool())
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
    strategy = clone(strategy).set_params(random_state=1)
    pool = make_pool()
    strategy.fit(pool)
    again = pickle.loads(pickle.dumps(strategy))
    assert repr(again.get_params(deep=False)) == repr(strategy.get_params(deep=False))
    np.testing.assert_array_equal(again.query(pool, 10), strategy.query(pool, 10))


def check_clone(strategy):
    strategy = clone(strategy).set_params(random_state=1)
    again = clone(strategy)
    assert type(again) is type(strategy)
    assert repr(again.get_params(deep=False)) == repr(strategy.get_params(deep=False))
    pool = make_pool()
    before = set(vars(again))
    strategy.fit(pool).query(pool, 10)
    assert set(vars(clone(strategy))) == before, "a clone keeps learned state"


def _sklearn_check(name):
    check = getattr(estimator_checks, name)

    def wrapped(strategy):
        check(type(strategy).__name__, clone(strategy))

    wrapped.__name__ = wrapped.__qualname__ = f"check_sklearn_{name[6:]}"
    return wrapped


def yield_checks():
    """Yield every check; those of scikit-learn last."""
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            yield check
    for name in _SKLEARN_CHECKS:
        if hasattr(estimator_checks, name):  # scikit-learn moves them now and then
            yield _sklearn_check(name)
