"""Strategies are found, not registered."""

import inspect
import sys

import pytest

import skal.query
from skal.posterior import DeepEnsemble, MCDropout
from skal.utils import all_strategies, command_line_name
from skal.utils.discovery import named_strategies

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


PACKAGE = """
from skal.query import RandomQuery


class {0}(RandomQuery):
    pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make packages with a strategy, as if they were installed."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package, point, cls="TheirMarginQuery", source=PACKAGE):
        (tmp_path / f"{package}.py").write_text(source.format(cls))
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
        line = f"[skal.strategies]\n{point} = {package}:{cls}\n"
        (folder / "entry_points.txt").write_text(line)

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_strategies_of_other_packages_are_found(install):
    before = all_strategies()
    install("theirs", "their-margin")
    after = dict(all_strategies())
    assert after.pop("TheirMarginQuery").__module__ == "theirs"
    assert list(after.items()) == before


@pytest.mark.parametrize(
    "point, source, reason",
    [
        ("their-margin", "import nothing_of_this_name", "No module named 'nothing_of"),
        ("their-margin", "raise SystemExit(3)", "SystemExit: 3"),
        ("their-margin", "{0} = 3", "TypeError: not a class below"),
        ("their-margin", "class {0}: pass", "TypeError: not a class below"),
        ("their-margin", "", "AttributeError"),
        ("margin-of-theirs", PACKAGE, "name its entry point 'their-margin'"),
        (
            "their-margin",
            PACKAGE.replace("pass", "def __init__(self, needed): pass"),
            "'needed'",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(install, point, source, reason):
    before = all_strategies()
    install("theirs", point, source=source)
    said = f"the strategy '{point}', theirs:TheirMarginQuery, is left out .*{reason}"
    with pytest.warns(UserWarning, match=said):
        assert all_strategies() == before


@pytest.mark.parametrize(
    "point, cls", [("their-margin", "TheirMarginQuery"), ("margin", "MarginQuery")]
)
def test_two_strategies_of_one_name_are_refused(install, point, cls):
    install("theirs", "their-margin")
    install("others", point, cls)
    message = f"two strategies '{point}', in .* and in .*; uninstall one"
    with pytest.raises(ValueError, match=message):
        all_strategies()


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


@pytest.mark.parametrize("measure", ["entropy", "least-confidence", "margin"])
def test_names_of_posteriors(measure):
    named = named_strategies()
    assert named[measure].posterior is None
    assert isinstance(named[f"{measure}-dropout"].posterior, MCDropout)
    assert isinstance(named[f"{measure}-ensemble"].posterior, DeepEnsemble)
