import ast
from pathlib import Path

import pytest
from packaging.version import Version
from sklearn.base import BaseEstimator, clone

import skal
from skal.utils import deprecated, warn_deprecated


def overdue(source, version=skal.__version__):
    """Lines that mark something which is to be gone by now."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("deprecated", "warn_deprecated")
        for keyword in node.keywords
        if keyword.arg == "until" and Version(keyword.value.value) <= Version(version)
    ]


def test_calls_of_a_function_warn_and_work():
    @deprecated("use max", since="0.2", until="0.4")
    def largest(numbers):
        return max(numbers)

    with pytest.warns(FutureWarning, match="largest .* since skal 0.2, until 0.4: use"):
        assert largest([1, 3, 2]) == 3


def test_a_class_warns_and_stays_an_estimator():
    @deprecated("use Other", since="0.2", until="0.4")
    class Old(BaseEstimator):
        def __init__(self, *, width=1):
            self.width = width

    with pytest.warns(FutureWarning, match="Old .* use Other"):
        old = Old(width=2)
    with pytest.warns(FutureWarning):
        assert clone(old).get_params() == {"width": 2}


def test_a_parameter_warns_where_it_is_given():
    def herd(width=None):
        if width is not None:
            warn_deprecated("width", "give scale", since="0.2", until="0.4")

    herd()
    with pytest.warns(
        FutureWarning, match="^width is deprecated; .*give scale"
    ) as seen:
        herd(width=1)
    assert seen[0].filename == __file__


def test_nothing_deprecated_is_overdue():
    for path in Path(skal.__file__).parent.rglob("*.py"):
        assert overdue(path.read_text(encoding="utf-8")) == [], path


def test_what_is_overdue_is_found():
    source = "@deprecated('x', since='0.2', until='0.4')\ndef f(): pass"
    assert overdue(source, "0.4.0") == [1]
    assert overdue(source, "0.3.9") == []
