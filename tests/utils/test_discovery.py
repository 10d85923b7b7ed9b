"""Strategies are found, not registered."""

import inspect
import sys

import pytest

import skal.query
from skal.utils import all_strategies, command_line_name

NEW_MODULE = """
from abc import abstractmethod

from skal.query import QueryStrategy, RandomQuery


class FreshQuery(RandomQuery):
    pass


class _HiddenQuery(RandomQuery):
    pass


class UnfinishedQuery(QueryStrategy):
    @abstractmethod
    def _more(self):
        pass


class NoStrategyQuery:
    pass
"""


def test_every_public_strategy_is_found_once():
    found = dict(all_strategies())
    assert list(found) == sorted(found)
    assert len(found) == len(all_strategies())
    assert set(found) == set(skal.query.__all__) - {"QueryStrategy", "ScoreQuery"}
    for name, cls in found.items():
        assert cls.__name__ == name
        assert getattr(skal.query, name) is cls
        assert getattr(skal, name) is cls
        assert issubclass(cls, skal.query.QueryStrategy)
        assert not inspect.isabstract(cls)


def test_a_new_file_is_enough(tmp_path, monkeypatch):
    (tmp_path / "_fresh.py").write_text(NEW_MODULE)
    before = {name for name, _ in all_strategies()}
    paths = [*skal.query.__path__, str(tmp_path)]
    monkeypatch.setattr(skal.query, "__path__", paths)
    try:
        after = {name for name, _ in all_strategies()}
    finally:
        sys.modules.pop("skal.query._fresh", None)
        vars(skal.query).pop("_fresh", None)
    assert after - before == {"FreshQuery"}
    assert before <= after


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BadgeQuery", "badge"),
        ("KCenterGreedyQuery", "k-center-greedy"),
        ("KMeansQuery", "k-means"),
        ("BatchBaldQuery", "batch-bald"),
        ("CoreGcnQuery", "core-gcn"),
        ("QueryQuery", "query"),
        ("Other", "other"),
    ],
)
def test_command_line_name(name, expected):
    assert command_line_name(type(name, (), {})) == expected


def test_command_line_names_are_distinct():
    names = [command_line_name(cls) for _, cls in all_strategies()]
    assert len(set(names)) == len(names)
