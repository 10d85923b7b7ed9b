"""Parts of a pool, in this process and in others, and random subsets."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.svm import LinearSVC

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    BaldQuery,
    ClusterMarginQuery,
    CoreGcnQuery,
    CoreSetQuery,
    DeepFoolQuery,
    EntropyQuery,
    KCenterGreedyQuery,
    LearningLossQuery,
    MarginQuery,
    MaxHerdingQuery,
    PartitionedQuery,
    PoolView,
    RandomQuery,
    SubsampleQuery,
    TypiClustQuery,
    UHerdingQuery,
    VaalQuery,
)
from skal.posterior import MCDropout
from skal.query import QueryStrategy
from skal.testing._pools import N_CLASSES, N_FEATURES, make_estimator
from skal.utils.blocks import BlockRows

N_ROWS = 600


def make_rows(seed=0, n_rows=N_ROWS):
    rng = np.random.default_rng(seed)
    centers = 3 * rng.standard_normal((12, N_FEATURES))
    rows = centers[rng.integers(12, size=n_rows)] + rng.standard_normal((n_rows, 1))
    return (rows + 0.3 * rng.standard_normal(rows.shape)).astype(np.float32)


def wide_pool(X=None, estimator="net", **options):
    """600 rows under a small net, 30 others labelled."""
    X = make_rows() if X is None else X
    labeled, codes = make_rows(1, 30), np.arange(30) % N_CLASSES
    if isinstance(estimator, str):
        estimator = make_estimator(estimator)
    return PoolView(
        estimator,
        X,
        X_labeled=labeled,
        y_labeled=codes,
        **{"random_state": 0, **options},
    )


def picks_of(strategy, pool=None, n_samples=20, n_parts=5, **params):
    strategy = PartitionedQuery(strategy, n_parts=n_parts, **params)
    picks = strategy.query(wide_pool() if pool is None else pool, n_samples)
    assert strategy.n_parts_ == n_parts
    return picks.tolist()


KINDS = [
    KCenterGreedyQuery(),
    BadgeQuery(),
    EntropyQuery(),
    UHerdingQuery(),
    BaldQuery(posterior=MCDropout(n_draws=4)),
]


# What is chosen


@pytest.mark.parametrize("strategy", [EntropyQuery(), MarginQuery()])
@pytest.mark.parametrize("estimator", ["net", "linear"])
def test_scores_of_single_rows_give_the_picks_of_the_whole(strategy, estimator):
    whole = strategy.query(wide_pool(estimator=estimator), 20)
    assert picks_of(strategy, wide_pool(estimator=estimator)) == whole.tolist()


def test_decision_values_will_do_where_they_do_alone():
    y = np.arange(N_ROWS) % N_CLASSES
    model = LinearSVC().fit(make_rows(), y)
    whole = MarginQuery().query(wide_pool(estimator=model), 20)
    assert picks_of(MarginQuery(), wide_pool(estimator=model)) == whole.tolist()
    assert len(set(picks_of(BadgeQuery(), wide_pool(estimator=model)))) == 20


def test_the_radius_is_about_that_of_the_whole():
    losses = []
    for seed in range(5):
        X = make_rows(seed, 4000)

        def radius(strategy, X=X, seed=seed):
            picks = strategy.query(PoolView(None, X, random_state=seed), 60)
            return pairwise_distances(X, X[picks]).min(1).max()

        parts = radius(PartitionedQuery(KCenterGreedyQuery(), n_parts=4))
        losses.append(parts / radius(KCenterGreedyQuery()) - 1)
    assert np.mean(losses) < 0.05


def test_coverage_counts_the_rows_that_are_in_no_union():
    """900 copies of 0, and 100 single rows far away, which unions are full of."""
    X = np.concatenate([np.zeros((900, 2)), 50 * make_rows(3, 100)[:, :2]])
    pool = PoolView(None, X, random_state=0)
    strategy = PartitionedQuery(MaxHerdingQuery(space="features", width=1.0), n_parts=3)
    first = strategy.query(pool, 1)[0]
    assert not X[first].any()


def test_each_row_of_a_union_stands_for_as_many_as_it_should():
    class Weighing(QueryStrategy):
        seen = []

        def _query(self, pool, n_samples, rng):
            self.seen.append((len(pool), pool.weights))
            return rng.permutation(len(pool))[:n_samples]

    PartitionedQuery(Weighing(), n_parts=3).query(wide_pool(), 10)
    *parts, (n_union, weights) = Weighing.seen
    assert parts == [(171, None), (172, None), (171, None)]
    assert n_union == 86 + 3 * 10
    assert weights.sum() == pytest.approx(N_ROWS)
    assert (weights[-30:] == 1).all()
    np.testing.assert_allclose(weights[:86], (N_ROWS - 30) / 86)


@pytest.mark.parametrize("n_samples", [40, 85, 100, 119, 120, 200, 201, 600])
def test_no_part_has_less_than_twice_the_rows_wanted(n_samples):
    class Counting(QueryStrategy):
        seen = []

        def _query(self, pool, n_samples, rng):
            self.seen.append(len(pool))
            return rng.permutation(len(pool))[:n_samples]

    strategy = PartitionedQuery(Counting(), n_parts=50)
    strategy.query(wide_pool(), n_samples)
    *parts, _ = Counting.seen
    n_parts = max(1, (N_ROWS / n_samples - 1) // 2)  # and the first, half as large
    assert strategy.n_parts_ == n_parts
    assert len(parts) == (n_parts if n_parts > 1 else 0)
    assert all(n_rows >= 2 * n_samples - 1 for n_rows in parts)


def test_chosen_rows_count_as_labelled_in_the_other_parts():
    class Looking(KCenterGreedyQuery):
        seen = []

        def _query(self, pool, n_samples, rng):
            self.seen.append((n_samples, len(pool.labeled.embeddings)))
            return super()._query(pool, n_samples, rng)

    PartitionedQuery(Looking(), n_parts=3).query(wide_pool(), 20)
    assert Looking.seen == [(15, 30), *(4 * [(5, 45)])]


@pytest.mark.parametrize("n_samples", [1, 2, 3, 7])
@pytest.mark.parametrize("labeled", [True, False])
def test_few_rows_are_found_in_order_of_their_distance(n_samples, labeled):
    X = np.arange(64.0)[:, None]
    pool = PoolView(None, X, X_labeled=X[:1] if labeled else None, random_state=0)
    picks = PartitionedQuery(KCenterGreedyQuery(), n_parts=4).query(pool, n_samples)
    assert len(set(picks.tolist())) == n_samples
    if n_samples == 1 and labeled:
        assert picks == [63]


def test_a_pool_too_small_for_parts_is_chosen_from_as_a_whole():
    strategy = PartitionedQuery(KCenterGreedyQuery(), n_parts=8)
    for n_samples, n_parts in [(200, 1), (100, 2), (10, 8)]:
        picks = strategy.query(wide_pool(), n_samples)
        assert strategy.n_parts_ == n_parts
        assert len(np.unique(picks)) == n_samples
    whole = KCenterGreedyQuery().query(wide_pool(), 200)
    np.testing.assert_array_equal(strategy.query(wide_pool(), 200), whole)


@pytest.mark.parametrize(
    "strategy",
    [CoreSetQuery(), TypiClustQuery(), ClusterMarginQuery(), DeepFoolQuery()],
    ids=lambda strategy: type(strategy).__name__,
)
def test_others_choose_in_parts_too(strategy):
    picks = picks_of(strategy)
    assert len(set(picks)) == 20
    assert picks == picks_of(strategy)


def test_each_row_passes_once_and_no_row_again_that_is_known():
    pool, counts = wide_pool(), []
    pool.estimator.module_.register_forward_pre_hook(
        lambda module, args: counts.append(len(args[0]))
    )
    picks_of(UHerdingQuery(), pool)
    assert sum(counts) == N_ROWS + 30
    counts.clear()
    pool.proba, pool.embeddings  # noqa: B018
    before = sum(counts)
    picks_of(UHerdingQuery(), pool)
    assert sum(counts) == before


def test_memory_may_be_limited():
    limited = wide_pool(memory_limit=20_000)
    assert picks_of(EntropyQuery(), limited) == picks_of(EntropyQuery())
    assert len(set(picks_of(BadgeQuery(), wide_pool(memory_limit=20_000)))) == 20


# Parameters


def test_what_trains_a_net_is_refused():
    for strategy in (VaalQuery(), CoreGcnQuery()):
        parted = PartitionedQuery(strategy)
        message = r"trains a net on the whole pool.*use SubsampleQuery\("
        with pytest.raises(ValueError, match=message):
            parted.prepare(make_estimator())
        with pytest.raises(ValueError, match=message):
            parted.query(wide_pool(), 3)
    net = clone(make_estimator())
    loop = ActiveLearningLoop(net, PartitionedQuery(VaalQuery()))
    with pytest.raises(ValueError, match=r"use SubsampleQuery\(VaalQuery"):
        loop.fit(make_rows(), np.arange(N_ROWS) % N_CLASSES)


def test_what_is_refused_is_named_within_a_wrapping_strategy():
    parted = PartitionedQuery(SubsampleQuery(VaalQuery()))
    with pytest.raises(ValueError, match=r"use SubsampleQuery\(VaalQuery\("):
        parted.query(wide_pool(), 3)


@pytest.mark.parametrize(
    "strategy", [BadgeQuery(), MarginQuery(), KCenterGreedyQuery()]
)
def test_subsets_of_parts_and_parts_of_subsets(strategy):
    """Of rows of a part that were not drawn nothing is known."""
    for wrapped in (
        PartitionedQuery(SubsampleQuery(strategy, max_rows=60), n_parts=3),
        SubsampleQuery(PartitionedQuery(strategy, n_parts=3), max_rows=200),
    ):
        picks = wrapped.query(wide_pool(), 10)
        assert len(set(picks.tolist())) == 10


class Untrainable(LogisticRegression):
    def fit(self, X, y):
        raise AssertionError("trained")


def test_no_processes_are_refused_before_anything_is_trained():
    loop = ActiveLearningLoop(Untrainable(), PartitionedQuery(MarginQuery(), n_jobs=0))
    with pytest.raises(ValueError, match="'n_jobs' parameter of Partitioned.* Got 0"):
        loop.fit(make_rows(), np.arange(N_ROWS) % N_CLASSES)


@pytest.mark.parametrize("wrap", [PartitionedQuery, SubsampleQuery])
def test_what_is_no_strategy_is_refused(wrap):
    for wrong in ("badge", BadgeQuery, None, LogisticRegression()):
        message = f"The 'strategy' parameter of {wrap.__name__} must be"
        with pytest.raises(ValueError, match=message):
            wrap(wrong).query(wide_pool(), 3)
        with pytest.raises(ValueError, match=message):
            loop = ActiveLearningLoop(LogisticRegression(), wrap(wrong))
            loop.fit(make_rows(), np.arange(N_ROWS) % N_CLASSES)


@pytest.mark.parametrize("wrap", [PartitionedQuery, SubsampleQuery])
def test_all_else_is_the_strategys(wrap):
    inner = BaldQuery(posterior=MCDropout(n_draws=3))
    strategy = wrap(inner)
    assert strategy.requires == inner.requires
    assert strategy.active_posterior is inner.posterior
    assert strategy.training_note == inner.training_note
    strategy.set_params(strategy__posterior__n_draws=5)
    assert inner.posterior.n_draws == 5
    with pytest.raises(TypeError, match="strategy"):
        wrap()


def test_random_subsets():
    pool = PoolView(None, np.arange(1000.0)[:, None], random_state=3)
    strategy = SubsampleQuery(RandomQuery(), max_rows=40, random_state=0)
    first = strategy.query(pool, 40)
    second = strategy.set_params(random_state=1).query(pool, 40)
    assert set(first) != set(second)
    assert abs(np.mean([first, second]) - 500) < 150
    with pytest.raises(ValueError, match="max_rows=40 is less than the 41 rows asked"):
        strategy.query(pool, 41)


def test_a_pool_within_max_rows_is_chosen_from_as_it_is():
    for strategy in (BadgeQuery(), KCenterGreedyQuery(random_state=1)):
        wrapped = SubsampleQuery(clone(strategy), max_rows=N_ROWS)
        np.testing.assert_array_equal(
            wrapped.query(wide_pool(), 9), strategy.query(wide_pool(), 9)
        )


def test_what_reads_inner_layers_chooses_from_a_subset_in_a_loop():
    strategy = SubsampleQuery(LearningLossQuery(layers=["body"]), max_rows=50)
    loop = ActiveLearningLoop(
        clone(make_estimator()), strategy, initial="uniform", n_rounds=1, random_state=0
    )
    loop.fit(make_rows(), np.arange(N_ROWS) % N_CLASSES)
    assert loop.strategy_.strategy.layers_ == ("body",)
    loop.set_params(strategy__strategy__layers=["no"])
    with pytest.raises(ValueError, match="no"):
        loop.fit(make_rows(), np.arange(N_ROWS) % N_CLASSES)


def test_only_the_drawn_rows_pass_the_network():
    pool, counts = wide_pool(), []
    pool.estimator.module_.register_forward_pre_hook(
        lambda module, args: counts.append(len(args[0]))
    )
    SubsampleQuery(EntropyQuery(), max_rows=70).query(pool, 5)
    assert sum(counts) == 70


@pytest.mark.parametrize("seed", [0, None])
def test_what_trains_a_net_chooses_from_the_rows_it_was_trained_with(seed):
    inner = CoreGcnQuery().set_params(aux__max_epochs=2)
    strategy = SubsampleQuery(inner, max_rows=50)
    pool = wide_pool(random_state=seed)
    picks = strategy.fit(pool).query(pool, 10)
    assert np.isin(picks, strategy.rows_).all()
    assert len(strategy.rows_) == 50


# Elsewhere


def same_in_here(X=None):
    return [picks_of(strategy, wide_pool(X)) for strategy in KINDS]


def test_processes_change_no_pick():
    here = same_in_here()
    with parallel_config("loky", n_jobs=2):
        assert same_in_here() == here
    assert [picks_of(strategy, n_jobs=2) for strategy in KINDS[:2]] == here[:2]


class Dying(KCenterGreedyQuery):
    """Kills the first other process that asks it."""

    def __init__(self, *, flag="", home=None, always=False, random_state=None):
        super().__init__(random_state=random_state)
        self.flag, self.home, self.always = flag, home, always

    def _query(self, pool, n_samples, rng):
        if os.getpid() != self.home:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                if self.always:
                    os.kill(os.getpid(), signal.SIGKILL)
        return super()._query(pool, n_samples, rng)


def dying(tmp_path, **params):
    return Dying(flag=str(tmp_path / "flag"), home=os.getpid(), **params)


@pytest.mark.slow
def test_a_part_whose_worker_ends_is_chosen_from_again(tmp_path):
    with parallel_config("loky", n_jobs=2):
        picks = picks_of(dying(tmp_path))
    assert (tmp_path / "flag").exists()
    assert picks == picks_of(KCenterGreedyQuery())


@pytest.mark.slow
def test_a_part_whose_worker_always_ends_is_given_up(tmp_path):
    with parallel_config("loky", n_jobs=2):
        with pytest.raises(RuntimeError, match="a worker ended .* 3 times"):
            picks_of(dying(tmp_path, always=True))


@pytest.fixture(scope="module")
def dask_address():
    """Address of a scheduler that has two workers."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    cli = [sys.executable, "-m", "distributed.cli"]
    host, port = address.split(":")
    commands = [[f"{cli[2]}.dask_scheduler", "--host", host, "--port", port]]
    commands += 2 * [[f"{cli[2]}.dask_worker", address, "--nthreads", "1"]]
    folder = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    started = [
        subprocess.Popen(
            [*cli[:2], *command, "--no-dashboard"],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # with what it starts itself, one group
        )
        for command in commands
    ]
    try:
        yield address
    finally:
        for process in started:  # a worker that is asked to end may wait for minutes
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def dask_client(dask_address):
    import distributed

    with distributed.Client(dask_address, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


@pytest.mark.slow
def test_dask_changes_no_pick(dask_client, tmp_path):
    da = pytest.importorskip("dask.array")
    here = same_in_here()
    blocks = da.from_array(make_rows(), chunks=(70, -1))
    of_blocks = same_in_here(blocks)
    with parallel_config("dask"):
        assert same_in_here() == here
        assert same_in_here(blocks) == of_blocks
        assert same_in_here(blocks.persist()) == of_blocks
        assert picks_of(dying(tmp_path)) == here[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray's own
def test_ray_changes_no_pick(tmp_path):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    found = {"PYTHONPATH": os.pathsep.join(sys.path)}  # by its workers, this file, too
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        runtime_env={"env_vars": found},
    )
    try:
        register_ray()
        with parallel_config("ray", n_jobs=2):
            assert picks_of(UHerdingQuery()) == picks_of(UHerdingQuery(), n_jobs=1)
            assert picks_of(dying(tmp_path)) == picks_of(KCenterGreedyQuery(), n_jobs=1)
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_worker_computes_the_blocks_of_its_parts_itself(dask_client):
    da = pytest.importorskip("dask.array")

    def load(block):
        return np.full_like(block, threading.get_ident(), dtype=float)

    blocks = da.from_array(make_rows(), chunks=(70, -1)).map_blocks(load, dtype=float)

    def threads(rows):
        return set(rows[:].ravel()) == {float(threading.get_ident())}

    rows = BlockRows(blocks)
    assert dask_client.submit(threads, rows, pure=False).result()
    # What the cluster holds is not computed again.
    held = blocks.persist()
    assert not dask_client.submit(threads, BlockRows(held), pure=False).result()


# dask arrays


COMPUTED = []


def load(block):
    if len(block) > 1:  # else dask asks for the type
        COMPUTED.append(len(block))
    return block


def counted_blocks(X, n_rows):
    """A dask array of X in blocks, and the list of the sizes of those computed."""
    da = pytest.importorskip("dask.array")
    COMPUTED.clear()
    return da.from_array(X, chunks=(n_rows, -1)).map_blocks(load), COMPUTED


@pytest.mark.parametrize(
    "strategy, estimator",
    [
        (EntropyQuery(), "net"),
        (UHerdingQuery(), "net"),
        (EntropyQuery(), "linear"),
        (KCenterGreedyQuery(), "linear"),
    ],
)
def test_blocks_of_a_dask_array_are_computed_one_by_one(strategy, estimator):
    X = make_rows()
    blocks, computed = counted_blocks(X, 130)
    whole = strategy.query(wide_pool(X, estimator), 20)
    pool = wide_pool(blocks, estimator)
    np.testing.assert_array_equal(strategy.query(pool, 20), whole)
    assert computed == [130, 130, 130, 130, 80]


def test_parts_of_a_dask_array_are_blocks():
    blocks, computed = counted_blocks(make_rows(), 50)
    picks = picks_of(EntropyQuery(), wide_pool(blocks))
    assert picks == EntropyQuery().query(wide_pool(), 20).tolist()
    # A block in which a cut falls is in two parts.
    assert len(computed) <= 12 + 5


def test_what_travels_of_a_dask_array_is_the_blocks_of_a_part():
    blocks, computed = counted_blocks(make_rows(), 50)
    pool = wide_pool(blocks)
    part = pool.part(np.arange(110, 190))
    again = pickle.loads(pickle.dumps(part))
    assert computed == []
    assert again._X.shape == (100, N_FEATURES)
    np.testing.assert_array_equal(again.indices, np.arange(110, 190))
    torch.testing.assert_close(again.proba, wide_pool().proba[110:190])
    assert computed == [50, 50]


def test_a_loop_over_a_dask_array():
    X, y = make_rows(), (make_rows()[:, 0] > 0).astype(int)
    blocks, computed = counted_blocks(X, 100)
    loops = [
        ActiveLearningLoop(
            LogisticRegression(),
            PartitionedQuery(MarginQuery(), n_parts=3),
            initial="uniform",
            n_rounds=2,
            random_state=0,
        ).fit(rows, y)
        for rows in (X, blocks)
    ]
    assert max(computed) == 100
    np.testing.assert_array_equal(*(loop.labeled_indices_ for loop in loops))
    np.testing.assert_array_equal(loops[1].predict(X[:9]), loops[0].predict(X[:9]))
    bad = X.copy()
    bad[500, 2] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        loops[1].fit(counted_blocks(bad, 100)[0], y)
