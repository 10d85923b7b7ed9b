"""A person's answers: positions, types, rows that nobody can decide."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop, MarginQuery

RNG = np.random.default_rng(0)
TRUTH = np.arange(60) % 3
X = RNG.normal(size=(60, 2)) + 4 * np.array([[0, 0], [1, 0], [0, 1]])[TRUTH]
NAMES = np.array(["ant", "beetle", "c"])[TRUTH]


def make_loop(**kwargs):
    options = {"n_initial": 6, "batch_size": 4, "oracle": "ask", "random_state": 0}
    return ActiveLearningLoop(LogisticRegression(), MarginQuery(), **(options | kwargs))


def asked_about(y, **kwargs):
    return make_loop(initial=[7, 2, 40], **kwargs).fit(X, y)


# -- label --------------------------------------------------------------------------

INDEX = RNG.permutation(60)


@pytest.mark.filterwarnings("ignore:y is a Series")
@pytest.mark.parametrize(
    "y",
    [
        np.full(60, -1),
        np.full(60, -1.0),
        [-1] * 60,
        (-1,) * 60,
        pd.Series(-1, index=INDEX),
        pd.Series(-1, index=INDEX, dtype="Int64"),
        pd.Series([-1] * 60, dtype="category"),
        torch.full((60,), -1),
    ],
)
@pytest.mark.parametrize("answers", [[1, 0, 2], np.array([1, 0, 2]), (1, 0, -1)])
def test_answers_land_at_their_positions(y, answers):
    before = list(y)
    told = asked_about(y).label(y, [7, 2, 40], answers)
    assert type(told) is type(y) and list(y) == before
    expected = [-1] * 60
    expected[7], expected[2], expected[40] = (int(answer) for answer in answers)
    assert [int(label) for label in told] == expected
    if hasattr(y, "index") and hasattr(y, "iloc"):
        assert (told.index == y.index).all()


@pytest.mark.parametrize(
    "y",
    [
        np.full(60, -1),
        np.array(["c"] + [""] * 59),
        [None] * 60,
        pd.Series(-1, index=range(60)),
        pd.Series([None] * 60, dtype="string"),
        pd.Series(["c"] + ["?"] * 59, dtype="category"),
    ],
)
def test_names_are_never_cut(y):
    mark = {-1: -1, "": "", "?": "?"}.get(list(y)[1])
    loop = asked_about(y, missing_label=mark)
    told = list(loop.label(y, loop.next_query_, NAMES[loop.next_query_]))
    assert [told[row] for row in (7, 2, 40)] == ["beetle", "c", "beetle"]
    again = make_loop(missing_label=mark).fit(X, told)
    assert {"beetle", "c"} == set(again.classes_)


def test_labels_of_polars():
    polars = pytest.importorskip("polars")
    y = polars.Series("animal", [None] * 60)
    told = asked_about(y, missing_label=None).label(y, [7, 2], ["b", "c"])
    assert told.to_list()[:8] == [None, None, "c", None, None, None, None, "b"]
    assert told.name == "animal" and y.to_list() == [None] * 60


@pytest.mark.parametrize("y", [np.full((60, 1), -1), pd.DataFrame({"t": [-1] * 60})])
@pytest.mark.filterwarnings("ignore:A column-vector")
def test_columns_take_no_answers(y):
    with pytest.raises(TypeError, match="y must be one-dimensional"):
        asked_about(y).label(y, [7], [0])


def test_a_shuffled_series_is_warned_of_and_labelled_by_position():
    y = pd.Series(-1, index=INDEX)
    loop = make_loop(classes=range(3))
    for _ in range(4):
        with pytest.warns(UserWarning, match="not 0..n-1.*position.*label"):
            loop.fit(X, y)
        y = loop.label(y, loop.next_query_, TRUTH[loop.next_query_])
    assert (y.to_numpy()[y >= 0] == TRUTH[y >= 0]).all() and (y >= 0).sum() == 18
    with pytest.warns(UserWarning, match="Series"):
        make_loop(oracle=lambda rows: TRUTH[rows], n_rounds=0).fit(X, y)
    make_loop(oracle=None, n_rounds=0).fit(X, pd.Series(TRUTH, index=INDEX))


@pytest.mark.parametrize(
    ("rows", "answers", "error", "message"),
    [
        ([7, 3], [0, 1], ValueError, r"\[3\] were not asked"),
        ([7, 2], [0], ValueError, "1 answers to 2 rows"),
        ([7, 2], 0, TypeError, "list or 1-D array"),
        ([7, 2], "ab", TypeError, "list or 1-D array"),
        ([7, 7], [0, 1], ValueError, "distinct"),
        ([7, -58], [0, 1], ValueError, "between 0 and 59"),
        ([True, False], [0, 1], ValueError, "rows must hold"),
        ([7, 2], [0, "b"], ValueError, "mixes labels"),
        ([7, 2], [0, None], ValueError, "NaN or None"),
        ([7, 2], [0, 0.5], ValueError, "continuous"),
        ([7, 2], [0, 5], ValueError, r"answers holds labels outside.*\[5\]"),
    ],
)
def test_answers_that_cannot_be_meant(rows, answers, error, message):
    y = np.full(60, -1)
    loop = asked_about(y, classes=range(3))
    with pytest.raises(error, match=message):
        loop.label(y, rows, answers)
    with pytest.raises(ValueError, match="59 labels for the 60 rows"):
        loop.label(y[1:], [7], [0])
    assert (y == -1).all()


def test_rows_asked_for_earlier_may_be_answered_later():
    y = np.full(60, -1)
    loop = asked_about(y)
    y = loop.label(y, [7, 2], TRUTH[[7, 2]])
    loop.fit(X, y)
    assert loop.label(y, [40, 7], [1, 2])[[40, 7]].tolist() == [1, 2]
    with pytest.raises(NotFittedError):
        make_loop().label(y, [7], [1])


# -- rows that nobody can decide ----------------------------------------------------


@pytest.mark.parametrize("how", ["rows", "mark", "both"])
@pytest.mark.parametrize("mark", [-2, "unclear"])
def test_skipped_rows_are_not_asked_for_and_not_trained_on(how, mark):
    loop, y = make_loop(classes=range(3)), np.full(60, -1, dtype=object)
    hopeless = np.arange(0, 60, 4)
    y[[1, 4, 8]] = TRUTH[[1, 4, 8]]
    options = {}
    if how != "mark":
        options["skip"] = hopeless
    if how != "rows":
        y[hopeless] = mark
        options["skip_label"] = mark
    for _ in range(30):
        loop.fit(X, y, **options)
        if not len(loop.next_query_):
            break
        assert not np.isin(loop.next_query_, hopeless).any()
        y = loop.label(y, loop.next_query_, TRUTH[loop.next_query_])
    assert loop.termination_condition_ == "pool_exhausted"
    assert loop.labeled_indices_.tolist() == [r for r in range(60) if r % 4]
    assert loop.history_["n_labeled"][-1] == 45


def test_skip_in_other_modes():
    for options in ({"oracle": None}, {"oracle": lambda rows: TRUTH[rows]}):
        y = TRUTH if options["oracle"] is None else None
        loop = make_loop(n_rounds=None, classes=range(3), initial=[3, 4, 5], **options)
        loop.fit(X, y, skip=[4, 50])
        assert sorted({*range(60)} - {*loop.labeled_indices_}) == [4, 50]
    loop = make_loop(oracle=None, initial="balanced", n_rounds=0)
    loop.fit(X, TRUTH, skip=np.arange(45))
    assert np.bincount(TRUTH[loop.labeled_indices_]).tolist() == [2, 2, 2]
    assert loop.labeled_indices_.min() >= 45
    with pytest.raises(ValueError, match="skip must hold distinct row numbers"):
        make_loop().fit(X, np.full(60, -1), skip=[60])


def test_a_skip_may_be_an_answer():
    y = np.full(60, -1)
    loop = make_loop(initial=[7, 2, 40]).fit(X, y, skip_label="unclear")
    y = loop.label(y, [7, 2, 40], ["unclear", 2, 1])
    loop.fit(X, y, skip_label="unclear")
    assert loop.labeled_indices_.tolist() == [2, 40] and 7 not in loop.next_query_
    assert loop.classes_.tolist() == [1, 2]
    y[y == -1] = TRUTH[y == -1]
    with pytest.warns(UserWarning, match="Pass all classes"):
        loop.fit(X, y, skip_label="unclear")
    assert loop.termination_condition_ == "pool_exhausted"  # never a simulation


# -- before there is a model --------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_predictions_before_there_are_two_classes(method):
    y = np.full(60, -1)
    loop = make_loop().fit(X, y)
    args = (X, TRUTH) if method == "score" else (X,)
    with pytest.raises(NotFittedError, match="0 labels so far are of 0 of the two"):
        getattr(loop, method)(*args)
    y[0] = y[3] = 0
    loop.fit(X, y)
    with pytest.raises(NotFittedError, match="2 labels so far are of 1 of the two"):
        getattr(loop, method)(*args)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(make_loop(), method)(*args)


@pytest.mark.parametrize("kind", ["polars", "arrow", "nullable"])
def test_columns_that_numpy_has_no_type_for(kind):
    """Large numbers beside holes, which floats cannot tell apart."""
    large = [2**60, 2**60 + 1]
    if kind == "polars":
        y = pytest.importorskip("polars").Series([None] * 10)
    elif kind == "arrow":
        y = pytest.importorskip("pyarrow").array([None] * 10)
    else:
        y = pd.array([None] * 10, dtype="Int64")
    loop = ActiveLearningLoop(
        LogisticRegression(),
        MarginQuery(),
        initial=[7, 2],
        oracle="ask",
        missing_label=None,
    )
    loop.fit(np.arange(20.0).reshape(10, 2), y)
    y = loop.label(y, [7, 2], large)
    loop.fit(np.arange(20.0).reshape(10, 2), y)
    assert loop.classes_.tolist() == large
    assert np.flatnonzero(loop.labeled_iter_ == 0).tolist() == [2, 7]
