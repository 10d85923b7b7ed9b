"""The checks find bad strategies: each kind of fault fails the check meant for it."""

import subprocess
import sys
from operator import attrgetter

import numpy as np
import pytest
import torch
from test_common import place_of

from skal.query import QueryStrategy, ScoreQuery
from skal.testing import check_strategy, parametrize_with_checks, yield_checks

CHECKS = {check.__name__: check for check in yield_checks()}


class Honest(QueryStrategy):
    requires = ("proba", "embeddings")

    def _query(self, pool, n_samples, rng):
        pool.proba, pool.embeddings  # noqa: B018
        return rng.permutation(len(pool))[:n_samples]


class HonestScores(ScoreQuery):
    requires = ("proba",)

    def _score(self, pool):
        return -pool.proba.amax(1)


class Repeats(Honest):
    def query(self, pool, n_samples):
        picks = super().query(pool, n_samples)
        picks[1:2] = picks[:1]
        return picks


class TooFew(Honest):
    def query(self, pool, n_samples):
        return super().query(pool, n_samples)[: max(1, n_samples - 1)]


class TooMany(Honest):
    def query(self, pool, n_samples):
        return np.resize(super().query(pool, n_samples), n_samples)


class OutOfRange(Honest):
    def query(self, pool, n_samples):
        return super().query(pool, n_samples) + 1


class Int32(Honest):
    def query(self, pool, n_samples):
        return super().query(pool, n_samples).astype(np.int32)


class RepeatsInsideQuery(Honest):
    def _query(self, pool, n_samples, rng):
        return rng.integers(len(pool), size=n_samples)


class EmptyList(Honest):
    def query(self, pool, n_samples):
        return super().query(pool, n_samples) if len(pool) else []


class NeedsTwoRows(Honest):
    def _query(self, pool, n_samples, rng):
        pool.embeddings.topk(2, dim=0)
        return rng.permutation(len(pool))[:n_samples]


class AnyNumber(Honest):
    def query(self, pool, n_samples):
        return super().query(pool, max(1, int(n_samples)))


class GlobalNumpy(Honest):
    def _query(self, pool, n_samples, rng):
        return np.random.permutation(len(pool))[:n_samples]


class GlobalTorch(Honest):
    def _query(self, pool, n_samples, rng):
        return torch.randperm(len(pool))[:n_samples].numpy()


class SeedsGlobalNumpy(Honest):
    def _query(self, pool, n_samples, rng):
        np.random.seed(rng.integers(2**31))
        return super()._query(pool, n_samples, rng)


class FixedSeed(Honest):
    def _query(self, pool, n_samples, rng):
        return super()._query(pool, n_samples, np.random.default_rng(0))


class OwnSeedOnly(Honest):
    def _generator(self, pool):
        return np.random.default_rng(self.random_state)


class PoolSeedOnly(Honest):
    def _generator(self, pool):
        return np.random.default_rng(pool.random_state)


class HashSeed(Honest):
    def _query(self, pool, n_samples, rng):
        salted = np.random.default_rng(hash("salt") % 2**32)
        return super()._query(pool, n_samples, salted)


class Remembers(Honest):
    def query(self, pool, n_samples):
        self.count_ = getattr(self, "count_", 0) + 1
        return np.roll(np.arange(len(pool)), 7 * self.count_)[:n_samples]


class TiesByPosition(HonestScores):
    def _query(self, pool, n_samples, rng):
        scores = self._score(pool).numpy()
        return np.argsort(-scores, kind="stable")[:n_samples]


class TiesFromTheEnd(HonestScores):
    def _query(self, pool, n_samples, rng):
        scores = self._score(pool).numpy()
        return np.argsort(scores, kind="stable")[::-1][:n_samples].copy()


class InPoolOrder(Honest):
    def _query(self, pool, n_samples, rng):
        return np.arange(n_samples)


class ClusterForEachPick(Honest):
    def _query(self, pool, n_samples, rng):
        distinct = np.unique(pool.embeddings.numpy(), axis=0, return_index=True)[1]
        if len(distinct) < n_samples:
            raise ValueError("fewer distinct rows than picks")
        return rng.permutation(len(pool))[:n_samples]


class LogOfZero(Honest):
    def _query(self, pool, n_samples, rng):
        entropy = -(pool.proba * pool.proba.log()).sum(1)
        if bool(entropy.isnan().any()):
            raise ValueError("NaN")
        return rng.permutation(len(pool))[:n_samples]


class NetworkOnly(Honest):
    requires = ("head_weight",)

    def _query(self, pool, n_samples, rng):
        if pool.head_weight is None:
            raise ValueError("needs a head")
        return rng.permutation(len(pool))[:n_samples]


class ChangesWeights(Honest):
    requires = (*Honest.requires, "estimator")

    def _query(self, pool, n_samples, rng):
        if hasattr(pool.estimator, "module_"):
            for weight in pool.estimator.module_.parameters():
                weight.data.mul_(2)
        return super()._query(pool, n_samples, rng)


class ModuleOfNet(Honest):
    requires = (*Honest.requires, "estimator")

    def _query(self, pool, n_samples, rng):
        self.touch(getattr(pool.estimator, "module_", torch.nn.Linear(1, 1)))
        return super()._query(pool, n_samples, rng)


class TrainMode(ModuleOfNet):
    def touch(self, module):
        module.train()


class EvalMode(ModuleOfNet):
    def touch(self, module):
        module.eval()


class Freezes(ModuleOfNet):
    def touch(self, module):
        module.requires_grad_(False)


class LeavesGradients(ModuleOfNet):
    def touch(self, module):
        sum((p.double() ** 2).sum() for p in module.parameters()).backward()


class LeavesHook(ModuleOfNet):
    def touch(self, module):
        module.register_forward_hook(lambda *args: None)


class ChangesRows(Honest):
    requires = (*Honest.requires, "features")

    def _query(self, pool, n_samples, rng):
        pool.features[0] = 0
        return super()._query(pool, n_samples, rng)


class ChangesLabeledRows(Honest):
    requires = (*Honest.requires, "labeled.features")

    def _query(self, pool, n_samples, rng):
        pool.labeled.features[0] = 0
        return super()._query(pool, n_samples, rng)


class ChangesOutputs(Honest):
    def _query(self, pool, n_samples, rng):
        pool.proba.zero_()
        return super()._query(pool, n_samples, rng)


class ChangesParameters(Honest):
    def _query(self, pool, n_samples, rng):
        self.random_state = 7
        return super()._query(pool, n_samples, rng)


class HiddenState(Honest):
    def fit(self, pool):
        self._size = len(pool)
        return self


class Unlisted(Honest):
    requires = ("proba",)


class UnlistedLabeled(Honest):
    def _query(self, pool, n_samples, rng):
        pool.labeled.embeddings  # noqa: B018
        return super()._query(pool, n_samples, rng)


class ReadsEstimator(Honest):
    def _query(self, pool, n_samples, rng):
        pool.estimator  # noqa: B018
        return super()._query(pool, n_samples, rng)


class Misspelt(Honest):
    requires = (*Honest.requires, "probas")


class TwoPasses(Honest):
    def _query(self, pool, n_samples, rng):
        pool.proba  # noqa: B018
        getattr(pool, "_pool", pool)._cache.clear()
        return super()._query(pool, n_samples, rng)


class LabeledToo(Honest):
    def _query(self, pool, n_samples, rng):
        pool.labeled.proba  # noqa: B018
        return super()._query(pool, n_samples, rng)


class MeanOfChunk(ScoreQuery):
    requires = ("proba",)

    def _score(self, pool):
        return pool.by_rows(lambda p: (p[:, 0] - p[:, 0].mean()).abs(), pool.proba)


class Positional(Honest):
    def __init__(self, random_state=None):
        super().__init__(random_state=random_state)


class OtherDefault(Honest):
    def __init__(self, *, random_state=0):
        super().__init__(random_state=random_state)


class StoresMore(Honest):
    def __init__(self, *, random_state=None):
        super().__init__(random_state=random_state)
        self.extra = 1


class ChangesInInit(Honest):
    def __init__(self, *, first="norm", random_state=None):
        super().__init__(random_state=random_state)
        self.first = first.upper()


class Unvalidated(Honest):
    def __init__(self, *, depth=1, random_state=None):
        super().__init__(random_state=random_state)
        self.depth = depth


class Unpicklable(Honest):
    def fit(self, pool):
        self.function_ = lambda: None
        return self


BAD = [
    (Repeats, "check_number_of_picks", "repeat"),
    (TooFew, "check_number_of_picks", "picks wanted"),
    (TooMany, "check_number_of_picks", "picks wanted"),
    (OutOfRange, "check_number_of_picks", "outside"),
    (Int32, "check_number_of_picks", "not int64"),
    (RepeatsInsideQuery, "check_number_of_picks", "distinct positions"),
    (AnyNumber, "check_n_samples_validated", "n_samples=0"),
    (NeedsTwoRows, "check_pool_of_one_row", "out of range"),
    (EmptyList, "check_empty_pool", "no array"),
    (GlobalNumpy, "check_global_rng_untouched", "numpy"),
    (GlobalTorch, "check_global_rng_untouched", "torch"),
    (SeedsGlobalNumpy, "check_global_rng_untouched", "numpy"),
    (GlobalNumpy, "check_same_seed_same_picks", "not equal"),
    (Remembers, "check_same_seed_same_picks", "leaves a trace"),
    (FixedSeed, "check_seed_decides_ties", "pool's seed"),
    (OwnSeedOnly, "check_seed_decides_ties", "pool's seed"),
    (PoolSeedOnly, "check_seed_decides_ties", "random_state is ignored"),
    (HashSeed, "check_same_picks_in_another_process", "another process"),
    (TiesByPosition, "check_no_position_bias", "lean by -"),
    (TiesFromTheEnd, "check_no_position_bias", "lean by \\+"),
    (InPoolOrder, "check_permuting_the_pool_permutes_the_picks", "not equal"),
    (ClusterForEachPick, "check_equal_rows", "fewer distinct"),
    (ClusterForEachPick, "check_duplicate_rows", "fewer distinct"),
    (LogOfZero, "check_predictions_of_one_class", "NaN"),
    (NetworkOnly, "check_estimator_without_network", "needs no network, but"),
    (ChangesWeights, "check_network_untouched", "weights"),
    (TrainMode, "check_network_untouched", "flags"),
    (EvalMode, "check_network_untouched", "flags"),
    (Freezes, "check_network_untouched", "requires_grad"),
    (LeavesGradients, "check_network_untouched", "gradients"),
    (LeavesHook, "check_network_untouched", "hooks"),
    (ChangesRows, "check_rows_untouched", "X changed"),
    (ChangesLabeledRows, "check_rows_untouched", "X_labeled changed"),
    (ChangesOutputs, "check_outputs_untouched", "pool.proba"),
    (ChangesParameters, "check_params_untouched", "parameters changed"),
    (HiddenState, "check_params_untouched", "_size"),
    (Unlisted, "check_reads_only_required_outputs", "embeddings"),
    (UnlistedLabeled, "check_reads_only_required_outputs", "labeled.embeddings"),
    (ReadsEstimator, "check_reads_only_required_outputs", "estimator"),
    (Misspelt, "check_reads_only_required_outputs", "probas"),
    (TwoPasses, "check_one_pass_over_the_rows", "pass the network 1 times"),
    (LabeledToo, "check_one_pass_over_the_rows", "labeled.row"),
    (MeanOfChunk, "check_same_picks_under_a_memory_limit", "under a memory limit"),
    (Positional, "check_constructor", "keyword-only"),
    (OtherDefault, "check_constructor", "None by default"),
    (StoresMore, "check_sklearn_no_attributes_set_in_init", "extra"),
    (ChangesInInit, "check_clone", "cannot clone|Cannot clone"),
    (Unvalidated, "check_parameters_validated", "say what 'depth' may be"),
    (Unpicklable, "check_pickle", "pickle|local object"),
]


@pytest.mark.parametrize(
    "cls, check, message",
    [pytest.param(*bad, id=f"{bad[0].__name__}-{bad[1]}") for bad in BAD],
)
def test_fault_fails_the_check_meant_for_it(cls, check, message):
    with pytest.raises(Exception, match=message):
        CHECKS[check](cls())


def failing_checks(strategy):
    results = check_strategy(strategy, on_fail=None)
    return {r["check_name"] for r in results if r["status"] == "failed"}


@pytest.mark.parametrize("cls", [Honest, HonestScores])
def test_honest_strategies_pass(cls):
    assert failing_checks(cls()) == set()


@pytest.mark.parametrize(
    "cls",
    [Repeats, GlobalNumpy, FixedSeed, TiesByPosition, ChangesRows, TrainMode, Unlisted],
)
def test_one_fault_fails_few_checks(cls):
    meant = {check for bad, check, _ in BAD if bad is cls}
    failing = failing_checks(cls())
    assert meant <= failing
    assert len(failing) <= 6, f"{cls.__name__} fails {sorted(failing)}"


@pytest.mark.parametrize(
    "file, requires",
    [
        ("_uncertainty", ()),
        ("_uncertainty", ("logits",)),
        ("_diversity", ("embeddings",)),
        ("_diversity", ("features", "labeled.embeddings")),
        ("_hybrid", ("proba", "embeddings")),
        ("_hybrid", ("log_proba", "labeled.embeddings")),
        ("_adversarial", ("proba", "input_gradients")),
    ],
)
def test_file_follows_from_the_outputs(file, requires):
    def query(self, pool, n_samples, rng):
        for name in requires:
            attrgetter(name)(pool)
        return rng.permutation(len(pool))[:n_samples]

    made = type("Made", (QueryStrategy,), {"_query": query})
    assert place_of(made()) == file


def test_every_check_meets_a_fault():
    own = {name for name in CHECKS if not name.startswith("check_sklearn_")}
    unmet = own - {check for _, check, _ in BAD}
    assert unmet == {"check_same_picks_on_gpu"}


def test_check_strategy_names_strategy_check_and_fault():
    with pytest.raises(AssertionError, match="Int32 fails check_number_of_picks: .*32"):
        check_strategy(Int32())
    with pytest.warns(UserWarning, match="Int32 fails") as caught:
        results = check_strategy(Int32(), on_fail="warn")
    assert len(caught) == sum(r["status"] == "failed" for r in results) > 1


def test_check_strategy_tells_an_expected_failure_from_a_pass():
    reason = {"check_number_of_picks": "int32 is shorter"}
    results = check_strategy(Int32(), expected_failed_checks=reason, on_fail=None)
    by_name = {result["check_name"]: result for result in results}
    assert list(by_name) == list(CHECKS)
    failed = by_name["check_number_of_picks"]
    assert failed["status"] == "xfail"
    assert failed["expected_to_fail_reason"] == "int32 is shorter"
    assert "not int64" in str(failed["exception"])
    assert by_name["check_pickle"]["status"] == "passed"
    assert by_name["check_pickle"]["exception"] is None
    permuted = by_name["check_permuting_the_pool_permutes_the_picks"]
    assert permuted["status"] == "skipped" and "seed" in str(permuted["exception"])


@pytest.mark.parametrize(
    "strategy, options, error, message",
    [
        (Honest, {}, TypeError, "instance of a strategy"),
        (Honest(), {"on_fail": "stop"}, ValueError, "on_fail.*'stop'"),
        (
            Honest(),
            {"expected_failed_checks": {"check_nothing": "typo"}},
            ValueError,
            "expected_failed_checks.*check_nothing",
        ),
    ],
)
def test_check_strategy_refuses(strategy, options, error, message):
    with pytest.raises(error, match=message):
        check_strategy(strategy, **options)


def test_parametrize_with_checks_marks_what_is_expected_to_fail():
    mark = parametrize_with_checks(
        [Honest(), Int32()],
        expected_failed_checks=lambda strategy: (
            {"check_number_of_picks": "why"} if isinstance(strategy, Int32) else None
        ),
    ).mark
    assert mark.args[0] == "strategy, check"
    cases = {case.id: case for case in mark.args[1]}
    assert len(cases) == 2 * len(CHECKS)
    marked = [name for name, case in cases.items() if case.marks]
    assert marked == ["Int32-check_number_of_picks"]
    (xfail,) = cases[marked[0]].marks
    assert xfail.kwargs == {"reason": "why", "strict": True}


PLAIN = """
import sys
sys.modules["pytest"] = None
from skal import RandomQuery
from skal.testing import check_strategy
print({result["status"] for result in check_strategy(RandomQuery())})


class OfANotebook(RandomQuery):
    pass


(skipped,) = [
    result
    for result in check_strategy(OfANotebook())
    if result["check_name"] == "check_same_picks_in_another_process"
]
print(skipped["exception"])
"""


@pytest.mark.slow
def test_check_strategy_needs_no_pytest():
    child = subprocess.run(
        [sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True
    )
    statuses, notebook = child.stdout.splitlines()
    assert "passed" in statuses and "failed" not in statuses
    assert "__main__" in notebook
    assert not child.stderr
