"""The first set: chosen when it is needed, once; and classes that are rare."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from torch.utils.data import Dataset, TensorDataset

from skal import ActiveLearningLoop, KMeansQuery, PoolView, RandomQuery
from skal.loop import initial as first_set
from skal.loop.initial import check_initial, initial_order
from skal.selection import herding

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


def test_a_strategy_for_the_first_set_keeps_to_the_memory_limit(monkeypatch):
    limits, make = [], PoolView.__init__
    monkeypatch.setattr(
        PoolView,
        "__init__",
        lambda view, *args, memory_limit=None, **kwargs: (
            limits.append(memory_limit),
            make(view, *args, memory_limit=memory_limit, **kwargs),
        )[1],
    )
    for skip in ([], [3]):
        options = {"initial": KMeansQuery(), "memory_limit": "20K", "n_rounds": 0}
        make_loop(**options).fit(X, X[:, 0] > 0, skip=skip)
        assert limits[0] == "20K"
        limits.clear()


# -- herding ------------------------------------------------------------------------


def first(X, initial=None, size=8, skipped=(), seed=0):
    mask = np.zeros(X.shape[0] if hasattr(X, "shape") else len(X), dtype=bool)
    mask[list(skipped)] = True
    order = initial_order(initial, size, X, None, mask, seed)
    assert sorted(np.concatenate(order)) == list(range(len(mask)))
    return order[0].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_herding_is_of_standardised_columns(seed):
    """Scales and origins of columns play no part, constant columns neither."""
    rows = X[:200] * [1e6, 1e-3] + [5, -1e3]
    expected = first(X[:200], "herding", seed=seed)
    assert first(rows, "herding", seed=seed) == expected
    constant = np.column_stack([rows, np.full(200, 7.0)])
    assert first(constant, "herding", seed=seed) == expected
    z = (X[:200] - X[:200].mean(0)) / X[:200].std(0)
    shuffled = np.random.default_rng(seed).permutation(200)
    rng = np.random.default_rng(seed)
    rng.permutation(200)
    picks = herding(z[shuffled].astype(np.float32), 8, random_state=rng)
    assert shuffled[picks].tolist() == expected


def test_herding_of_many_columns_is_by_their_angle():
    """Columns that hardly vary say nothing, and one of large numbers not all."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 150)) + 4 * rng.normal(size=(5, 150)).repeat(40, 0)
    z = rows - rows.mean(0)
    z /= np.maximum(rows.std(0), np.quantile(rows.std(0), 0.9))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    shuffled, rng = np.random.default_rng(0).permutation(200), np.random.default_rng(0)
    rng.permutation(200)
    picks = herding(z[shuffled].astype(np.float32), 5, random_state=rng)
    assert first(rows, size=5) == shuffled[picks].tolist()
    assert sorted(row // 40 for row in first(rows, size=5)) == list(range(5))
    noise = 1e-6 * rng.normal(size=(200, 15))
    large = 1e9 * rng.normal(size=(200, 1))
    for more in (noise, large):
        picks = first(np.hstack([rows, more]), size=5)
        assert sorted(row // 40 for row in picks) == list(range(5))
    assert first(np.hstack([rows * 3 + 7, np.full((200, 1), 2.0)]), size=5) == first(
        rows, size=5
    )


def test_rows_of_features_are_herded_by_default_whatever_holds_them():
    rows = X[:200]
    herded, drawn = first(rows, "herding"), first(rows, "uniform")
    assert herded != drawn
    kinds = pd.DataFrame, torch.tensor, sparse.csr_array, lambda x: (x * 2**20).round()
    for same in (rows, *(kind(rows) for kind in kinds)):
        assert first(same) == first(same, "herding")
    data = TensorDataset(torch.tensor(rows))
    assert first(data) == first(data, "herding") == herded
    images = rows.reshape(100, 2, 2)
    text = pd.DataFrame({"a": ["x", "y"] * 100, "b": rows[:, 0]})
    holes = np.where(np.arange(200)[:, None] == 3, np.nan, rows)
    words = sparse.random(200, 1001, density=0.01, format="csr", random_state=0)
    for others in (images, text, holes, words):
        assert first(others) == first(others, "uniform")


def test_skipped_rows_are_not_herded():
    skipped = first(X[:200])[:4]
    assert not set(first(X[:200], skipped=skipped)) & set(skipped)


def test_many_rows_are_sampled(monkeypatch):
    monkeypatch.setattr(first_set, "N_HERDED", 50)
    shuffled = np.random.default_rng(0).permutation(1000)
    assert set(first(X)) <= set(shuffled[:50])
    assert set(first(X, size=60)) == set(shuffled[:60])


def test_after_many_herded_rows_come_others_at_random(monkeypatch):
    monkeypatch.setattr(first_set, "N_CHOSEN", 20)
    rows = first(X, size=60)
    assert rows[:20] == first(X, size=20) and len(set(rows)) == 60
    shuffled = np.random.default_rng(0).permutation(1000)
    others = shuffled[~np.isin(shuffled, rows[:20])]
    assert rows[20:] == others[:40].tolist()
    assert sorted(first(X, size=1000)) == list(range(1000))


def test_herding_finds_the_classes_of_digits():
    """Ten uniform rows show six or seven of ten classes."""
    rows, y = load_digits(return_X_y=True)
    seen = [len(set(y[first(rows, size=10, seed=seed)])) for seed in range(5)]
    drawn = [len(set(y[first(rows, "uniform", 10, seed=s)])) for s in range(5)]
    assert min(seen) >= 8 > np.mean(drawn)


class Items(list, Dataset):
    """A list whose items are read one by one."""


def test_herding_of_what_is_no_numbers_is_refused():
    rows = np.where(np.arange(50)[:, None] == 3, np.nan, X[:50])
    loop = make_loop(initial="herding").set_params(estimator=DecisionTreeClassifier())
    with pytest.raises(ValueError, match="herding' compares rows, but X holds NaN"):
        loop.fit(rows, np.arange(50) % 2)
    with pytest.raises(ValueError, match="herding' compares rows, but the rows are no"):
        check_initial("herding", np.array([["a"], ["b"]]), "simulate")
    sizes = Items([torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)])
    with pytest.raises(ValueError, match="of one shape.*pass initial='uniform'"):
        check_initial("herding", sizes, "simulate")
    with pytest.raises(ValueError, match="'herding'"):
        make_loop(initial="herd").fit(X, RARE)
    items = Items(torch.from_numpy(np.float32(X)))
    items[77][0] = np.nan  # A few rows that are looked at do not tell.
    with pytest.raises(ValueError, match="row 77 of X holds NaN .*='uniform'"):
        first(items, "herding")


@pytest.mark.parametrize("of", [sparse.csr_array, torch.tensor, pd.DataFrame])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_the_first_set_of_rows_with_holes_is_uniform_by_default(of, odd):
    rows = X.copy()
    rows[77, 0] = odd
    np.testing.assert_array_equal(first(of(rows), None), first(rows, "uniform"))
    loop = make_loop().set_params(
        estimator=make_pipeline(SimpleImputer(), DecisionTreeClassifier()),
        strategy=RandomQuery(),
    )
    if np.isnan(odd) and of is not torch.tensor:
        loop.fit(of(rows), np.arange(len(rows)) % 2)


@pytest.mark.parametrize("shape", [(300, 6), (200, 150)])
def test_huge_and_tiny_rows_are_herded_as_others(shape):
    rows = np.random.default_rng(0).normal(size=shape)
    picks = first(rows, "herding")
    for scale in (2.0**600, 2.0**-600):
        np.testing.assert_array_equal(first(scale * rows, "herding"), picks)


def test_labels_given_need_no_first_set(monkeypatch):
    monkeypatch.delattr(first_set, "herding")
    y = np.where(np.arange(1000) < 900, -1, np.arange(1000) % 2)
    assert len(make_loop().fit(X, y).next_query_) == 30
