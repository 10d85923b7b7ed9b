"""The first set: chosen when it is needed, once; and classes that are rare."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop, KMeansQuery, RandomQuery

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1000, 2))
RARE = (np.arange(1000) % 250 == 249).astype(int)
FEW = "held one class only"


def make_loop(**kwargs):
    options = {"n_initial": 20, "batch_size": 30, "random_state": 0}
    return ActiveLearningLoop(LogisticRegression(), RandomQuery(), **(options | kwargs))


@pytest.mark.parametrize("seed", range(4))
def test_rare_classes_within_the_plan_and_in_whole_batches(seed):
    """1 row of 250: the second class takes its batches out of the rounds."""
    loop = make_loop(n_rounds=25, random_state=seed)
    with pytest.warns(UserWarning, match=FEW):
        loop.fit(X, RARE)
    sizes = loop.history_["n_labeled"]
    assert sizes[-1] == 20 + 25 * 30 and set(np.diff(sizes)) == {30}
    assert sizes[0] > 20 and (sizes[0] - 20) % 30 == 0
    assert loop.n_iter_ == 25 - (sizes[0] - 20) // 30
    first = loop.labeled_indices_[: sizes[0]]
    assert len(set(RARE[first])) == 2 and len(set(RARE[first[:-30]])) == 1
    asked = make_loop(oracle="ask", random_state=seed)
    y, n_fits = np.full(1000, -1), 0
    while not hasattr(asked.fit(X, y), "estimator_"):
        y[asked.next_query_] = RARE[asked.next_query_]
        n_fits += 1
    assert np.flatnonzero(y >= 0).tolist() == np.sort(first).tolist()
    assert n_fits == 1 + (sizes[0] - 20) // 30
    assert asked.history_["n_labeled"].tolist() == [sizes[0]]
    assert (asked.labeled_iter_[first] == 0).all()


@pytest.mark.parametrize("oracle", [None, lambda rows: RARE[rows]])
def test_a_plan_without_a_second_class(oracle):
    alone = np.flatnonzero(RARE == 0)[:5]
    loop = make_loop(n_rounds=2, batch_size=3, initial=alone, oracle=oracle)
    with pytest.raises(ValueError, match="11 labels, all that.*initial='balanced'"):
        loop.fit(X, RARE if oracle is None else None)
    assert (loop.transduction_ != -1).sum() == len(loop.labeled_indices_) == 11


def test_skipped_rows_are_not_made_up_for():
    skipped = []

    def oracle(rows):
        answers = [row % 2 for row in rows.tolist()]
        if not skipped:
            skipped.extend(rows[:2])
            answers[:2] = [-1, -1]
        return answers

    loop = make_loop(n_initial=10, batch_size=4, n_rounds=3, oracle=oracle).fit(X)
    assert loop.history_["n_labeled"].tolist() == [8, 12, 16, 20]


def test_one_rare_row_among_many_is_found_in_linear_time():
    n = 3000
    y = np.zeros(n, dtype=int)
    y[n - 1] = 1
    loop = make_loop(n_initial=2, batch_size=1, n_rounds=None)
    callback = pytest.importorskip("sklearn.callback")

    class StopAtOnce:
        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context):
            return True

        def teardown(self, estimator, context):
            pass

    assert isinstance(StopAtOnce(), callback.FitCallback)
    with pytest.warns(UserWarning, match=FEW):
        loop.set_callbacks(StopAtOnce()).fit(np.zeros((n, 1)), y)
    assert loop.labeled_indices_[-1] == n - 1
    assert loop.termination_condition_ == "callback"


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the pools that k-means was asked about."""
    sizes, query = [], KMeansQuery._query

    def count(self, pool, n_samples, rng):
        sizes.append(len(pool))
        return query(self, pool, n_samples, rng)

    monkeypatch.setattr(KMeansQuery, "_query", count)
    return sizes


def test_the_first_set_is_chosen_when_it_is_needed(calls):
    y = np.where(np.arange(1000) < 300, RARE, -1)
    loop = make_loop(initial=KMeansQuery(), oracle="ask")
    for _ in range(3):
        loop.fit(X, y)
        y[loop.next_query_] = RARE[loop.next_query_]
    assert calls == []


def test_the_first_set_is_chosen_once(calls):
    y = np.full(1000, -1)
    loop = make_loop(initial=KMeansQuery(), n_initial=6, batch_size=3, oracle="ask")
    first = loop.fit(X, y).next_query_
    for rows in (first[:4], first[4:]):
        y[rows] = 0
        loop.fit(X, y)
    assert calls == [1000] and len(loop.next_query_) == 3
    assert not np.isin(loop.next_query_, first).any()
    y[loop.next_query_] = 1
    loop.fit(X, y)
    assert calls == [1000] and hasattr(loop, "estimator_")


def test_without_a_seed_the_first_set_is_the_same_one_still():
    y = np.full(1000, -1)
    loop = make_loop(oracle="ask", random_state=None)
    first = loop.fit(X, y).next_query_
    y[first[:5]] = 0
    loop.fit(X, y)
    assert (loop.next_query_[:15] == first[5:]).all() and len(loop.next_query_) == 30


def test_rows_after_a_first_set_by_class_are_shuffled():
    """They came in the order of X, which may be sorted by class."""
    y = np.full(1000, -1)
    loop = make_loop(oracle="ask", initial=[0, 1]).fit(X, y)
    y[[0, 1]] = 0
    rows = loop.fit(X, y).next_query_
    assert len(rows) == 30 and (np.diff(rows) < 0).any() and rows.max() > 500
