"""Whatever the data come in: the same picks and predictions as with plain arrays.

One oracle for all kinds of containers, types, labels and marks: the loop over float32
rows and the labels 0, 1, 2.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import TensorDataset

from skal import ActiveLearningLoop, BadgeQuery, EntropyQuery, MarginQuery

rng = np.random.default_rng(0)
CODES = np.arange(48) % 3
# Whole numbers, so that every type of number holds them exactly.
ROWS = rng.integers(0, 9, (48, 4)).astype(np.float32) + 3 * np.eye(4)[CODES]
ROWS = ROWS.astype(np.float32)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.norm(x))


def as_float32(X):
    return np.asarray(X.toarray() if sparse.issparse(X) else X, np.float32)


ESTIMATORS = {
    "net": lambda: NeuralNetClassifier(
        Linear, criterion=nn.CrossEntropyLoss, max_epochs=2, batch_size=8, verbose=0
    ),
    "tree": lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    # Sums of other float types round otherwise, and near ties would go another way.
    "logistic": lambda: make_pipeline(
        FunctionTransformer(as_float32), LogisticRegression(max_iter=2000)
    ),
}
STRATEGIES = {
    "margin": MarginQuery,
    "entropy": EntropyQuery,
    "badge": BadgeQuery,
}
DTYPES = "float32 float64 float16 >f4 >f8 int64 int32 uint8".split()


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def polars_frame(X):
    return pytest.importorskip("polars").DataFrame(
        {f"c{j}": X[:, j] for j in range(X.shape[1])}
    )


PLAIN = {"array", "fortran", "backwards", "strided", "read-only", "list"}
COLUMNS = list("abcd")
CONTAINERS = {
    "array": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "backwards": lambda X: X[::-1].copy()[::-1],
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "read-only": read_only,
    "list": lambda X: X.tolist(),
    "frame": lambda X: pd.DataFrame(X, columns=COLUMNS),
    "shuffled-index": lambda X: pd.DataFrame(
        X, columns=COLUMNS, index=np.arange(len(X))[::-1]
    ),
    "nullable": lambda X: pd.DataFrame(X, columns=COLUMNS).convert_dtypes(),
    "mixed": lambda X: pd.DataFrame(X, columns=COLUMNS).astype(
        {"a": "Float64", "b": "float32"}
    ),
    "csr": sparse.csr_array,
    "csc": sparse.csc_matrix,
    "polars": polars_frame,
}
OF_NETS = {
    "tensor": torch.as_tensor,
    "dataset": lambda X: TensorDataset(torch.as_tensor(X), torch.zeros(len(X))),
}
# Names of the classes in sorted order, and how their arrays are made.
LABELS = {
    "int64": ([0, 1, 2], lambda y: np.array(y)),
    "int8": ([0, 1, 2], lambda y: np.array(y, np.int8)),
    "float": ([0.0, 1.0, 7.0], lambda y: np.array(y)),
    "gaps": ([-7, 10, 2**60 + 1], lambda y: np.array(y)),
    "str": (["ash", "birch", "oak"], lambda y: np.array(y)),
    "numerals": (["007", "1_1", "1e2"], lambda y: np.array(y)),
    "object": (["ash", "birch", "oak"], lambda y: np.array(y, dtype=object)),
    "list": (["ash", "birch", "oak"], lambda y: list(y)),
    "series": ([3, 4, 5], lambda y: pd.Series(y)),
    "category": (["ash", "birch", "oak"], lambda y: pd.Series(y, dtype="category")),
    "Int64": ([2**60, 2**60 + 1, 2**60 + 2], lambda y: pd.Series(y, dtype="Int64")),
    "string": (["ash", "birch", "oak"], lambda y: pd.Series(y, dtype="string")),
}
# What marks a missing label, the labels it may stand beside, and how it is put there.
MARKS = {
    "-1": (-1, "int64 int8 float gaps series"),
    "nan": (np.nan, "float object category string"),
    "None": (None, "object gaps list"),
    "?": ("?", "object str list numerals"),
    "NA": (pd.NA, "Int64 string category"),
}


def marked(y, unknown, mark, kind):
    """Put marks into labels, in a container that can hold both."""
    if kind in ("Int64", "string", "category"):
        return y.where(~unknown)
    values = [
        mark if hidden else label for label, hidden in zip(y, unknown, strict=True)
    ]
    if kind == "list":
        return values
    if isinstance(y, pd.Series):
        return pd.Series(values)
    if mark is None or y.dtype == object:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    return np.array(values, dtype=None if isinstance(mark, str) else y.dtype)


def play(X, y, mode, estimator, strategy, seed, mark=-1, kind="int64", names=(0, 1, 2)):
    """Buy 6 + 2 x 4 labels; returns picks, predictions and probabilities."""
    loop = ActiveLearningLoop(
        ESTIMATORS[estimator](),
        STRATEGIES[strategy](),
        n_initial=6,
        batch_size=4,
        n_rounds=2,
        random_state=seed,
        missing_label=mark,
        # All classes at once: one that appears later would be warned of.
        **({"oracle": "ask", "initial": range(6)} if mode == "ask" else {}),
    )
    if mode == "simulate":
        loop.fit(X, y)
        return loop, loop.labeled_indices_.tolist()
    picks, answers = [], [names[code] for code in CODES]
    y = marked(y, np.ones(len(CODES), dtype=bool), mark, kind)
    for _ in range(3):
        loop.fit(X, y)
        picks += loop.next_query_.tolist()
        rows = loop.next_query_
        y = loop.label(y, rows, [answers[row] for row in rows])
    loop.fit(X, y)
    return loop, picks


@cache
def oracle(mode, estimator, strategy, seed):
    loop, picks = play(ROWS, CODES, mode, estimator, strategy, seed)
    return picks, loop.predict(ROWS).tolist(), loop.predict_proba(ROWS)


@st.composite
def cases(draw):
    estimator = draw(st.sampled_from(sorted(ESTIMATORS)))
    containers = CONTAINERS | (OF_NETS if estimator == "net" else {})
    mode = draw(st.sampled_from(["simulate", "ask"]))
    mark, kind = "-1", draw(st.sampled_from(sorted(LABELS)))
    if mode == "ask":
        mark = draw(st.sampled_from(sorted(MARKS)))
        kind = draw(st.sampled_from(MARKS[mark][1].split()))
    return {
        "mode": mode,
        "estimator": estimator,
        "strategy": draw(st.sampled_from(sorted(STRATEGIES))),
        "container": draw(st.sampled_from(sorted(containers))),
        "dtype": draw(st.sampled_from(DTYPES)),
        "kind": kind,
        "mark": mark,
        "seed": draw(st.integers(0, 3)),
    }


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(case=cases())
def test_any_data_give_what_plain_arrays_give(case):
    rows = ROWS.astype(case["dtype"])
    container = case["container"]
    if container not in PLAIN:  # the others cannot hold every type
        rows = rows.astype(rows.dtype.newbyteorder("="))
        rows = rows.astype(np.float32) if rows.dtype == np.float16 else rows
    X = {**CONTAINERS, **OF_NETS}[container](rows)
    names, make = LABELS[case["kind"]]
    y = make([names[code] for code in CODES])
    mark = MARKS[case["mark"]][0]
    how = {name: case[name] for name in ("mode", "estimator", "strategy", "seed")}
    loop, picks = play(X, y, **how, mark=mark, kind=case["kind"], names=names)
    expected_picks, codes, proba = oracle(**how)
    assert picks == expected_picks
    assert loop.classes_.tolist() == names
    assert loop.predict(X).tolist() == [names[code] for code in codes]
    np.testing.assert_array_equal(loop.predict_proba(X), proba)
