"""Benchmarks that cover all strategies run with each."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench_query(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench_query

    yield bench_query
    del sys.modules["bench_query"]


def test_the_benchmark_of_queries_runs_every_strategy(bench_query):
    pool = bench_query.made_pool(60, 20)
    names = {name for name, _ in bench_query.STRATEGIES}
    assert {"BadgeQuery", "DropQuery", "EpigQuery", "UHerdingQuery"} <= names
    for name, cls in bench_query.STRATEGIES:
        picks = cls(**bench_query.OPTIONS.get(name, {})).fit(pool).query(pool, 5)
        assert len(np.unique(picks)) == 5, name
