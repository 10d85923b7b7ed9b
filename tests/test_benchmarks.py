"""Benchmarks that cover all strategies run with each, and say what they hold."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a module of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if BENCHMARKS in Path(getattr(sys.modules[name], "__file__", "") or "").parents:
            del sys.modules[name]


def test_the_benchmark_of_queries_runs_every_strategy(load):
    bench_query = load("bench_query")
    pool = bench_query.made_pool(60, 20)
    names = {name for name, _ in bench_query.STRATEGIES}
    assert {"BadgeQuery", "DropQuery", "EpigQuery", "UHerdingQuery"} <= names
    for name, cls in bench_query.STRATEGIES:
        picks = cls(**bench_query.OPTIONS.get(name, {})).fit(pool).query(pool, 5)
        assert len(np.unique(picks)) == 5, name


@pytest.mark.parametrize(
    "measured, shown, mark",
    [
        ({"seconds": 2.0, "other": 25.0, "goal": ">= 10x"}, "12.5x as fast", "ok"),
        ({"seconds": 2.0, "other": 1.0, "goal": ">= 10x"}, "0.5x as fast", "MISSED"),
        ({"seconds": 2.1, "other": 2.0, "goal": "<= 1.1x"}, "1.05x as long", "ok"),
        ({"seconds": 3.0, "other": 2.0, "goal": "<= 1.1x"}, "1.5x as long", "MISSED"),
        ({"seconds": 2.0, "other": 1.0}, "2x as long", ""),
        ({"seconds": 1.0, "other": 2.0}, "2x as fast", ""),
        ({"seconds": 0.5, "goal": "<= 0.5 s"}, "", "ok"),
        ({"memory": 601_000_000, "goal": "<= 600 MB"}, "", "MISSED"),
        ({"value": 1.25, "goal": "<= 2 %"}, "1.25 %", "ok"),
        ({"seconds": 1.0}, "", ""),
    ],
)
def test_a_ratio_points_where_its_goal_does(load, measured, shown, mark):
    row = load("measuring").Row("name", **measured)
    assert (row.held[1], row.mark) == (shown, mark)
    assert shown in str(row) and mark in str(row)


def test_the_summary_counts_goals_and_names_those_missed(load):
    measuring = load("measuring")
    rows = [
        measuring.Row("first", 2.0, "loop", 25.0, goal=">= 10x"),
        measuring.Row("second", 0.75, goal="<= 0.5 s"),
        measuring.Row("third", 1.0),
    ]
    assert measuring.summary(rows) == [
        "1 of 2 goals met",
        "missed: second: 0.75 s, goal <= 0.5 s",
    ]


@pytest.mark.parametrize("text", ["10x", "< 10x", ">= fast", "<= 2%", "<= 0.5s"])
def test_a_goal_that_cannot_be_read_is_an_error(load, text):
    with pytest.raises(ValueError, match="is not like '>= 8x'"):
        load("measuring").Goal(text)


def test_a_goal_without_its_measurement_is_an_error(load):
    for goal in ("<= 2 %", "<= 2 s", "<= 2 MB"):
        row = load("measuring").Row("radius", goal=goal)
        with pytest.raises(ValueError, match=f"goal='{goal}' of 'radius' needs value"):
            row.mark  # noqa: B018


def test_medians_are_of_rounds_in_turn_within_the_budget(load):
    measure, calls = load("measuring").medians_in_turn, []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert list(measure(functions, budget=60, n_rounds=3)) == ["a", "b"]
    assert "".join(calls) == "ababab"
    measure(functions, budget=0)
    assert "".join(calls) == "abababab"
