"""Run the checks: all at once, or one test each with pytest."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from unittest import SkipTest

from sklearn.base import clone
from sklearn.utils import estimator_checks

from skal.query import QueryStrategy
from skal.testing import _checks

# Those of scikit-learn that speak of constructors and parameters; the others want a
# `fit` of X and y.
_SKLEARN_CHECKS = """
check_estimator_cloneable check_estimator_repr check_no_attributes_set_in_init
check_do_not_raise_errors_in_init_or_set_params check_mixin_order
check_parameters_default_constructible check_get_params_invariance check_set_params
check_valid_tag_types
""".split()


def _sklearn_check(name):
    def check(strategy):
        function = getattr(estimator_checks, name, None)
        if function is None:  # scikit-learn moves them now and then
            raise SkipTest(f"scikit-learn has no {name}")
        function(type(strategy).__name__, clone(strategy))

    check.__name__ = check.__qualname__ = f"check_sklearn_{name[6:]}"
    return check


def yield_checks() -> Iterator[Callable[[QueryStrategy], None]]:
    """Yield every check, a function of one strategy; those of scikit-learn last.

    Yields
    ------
    check : callable
        Raises where the strategy fails, and `unittest.SkipTest` where it cannot tell.
    """
    for name, check in vars(_checks).items():
        if name.startswith("check_"):
            yield check
    yield from map(_sklearn_check, _SKLEARN_CHECKS)


def _expected(strategy, expected_failed_checks):
    """Validate the two arguments that both ways share."""
    if not isinstance(strategy, QueryStrategy):
        raise TypeError(f"strategy must be an instance of a strategy, got {strategy!r}")
    expected = dict(expected_failed_checks or {})
    unknown = set(expected) - {check.__name__ for check in yield_checks()}
    if unknown:
        raise ValueError(
            f"expected_failed_checks names no checks: {', '.join(sorted(unknown))}; "
            "skal.testing.yield_checks() gives them all"
        )
    return expected


def check_strategy(
    strategy: QueryStrategy,
    *,
    expected_failed_checks: Mapping[str, str] | None = None,
    on_fail: str | None = "raise",
) -> list[dict[str, Any]]:
    """Check that a strategy does all that skal's own do.

    Parameters
    ----------
    strategy : QueryStrategy
        An instance; it is cloned, never changed. One that trains a network is best
        given few epochs, as each of some thirty checks trains it several times.
    expected_failed_checks : dict of str to str, default=None
        Names of checks that may fail, and why.
    on_fail : {"raise", "warn"} or None, default="raise"
        What to do at a failure that was not expected: raise at the first, warn of
        each, or only list it.

    Returns
    -------
    results : list of dict
        In the order of the checks: `check_name`; `status`, one of "passed", "failed",
        "xfail" (expected to fail, and did) and "skipped"; `exception`, what was raised,
        or None; `expected_to_fail_reason`, or None.

    Raises
    ------
    AssertionError
        Where a check fails; it names the check and what is wrong.

    Examples
    --------
    >>> from skal import RandomQuery
    >>> from skal.testing import check_strategy
    >>> results = check_strategy(RandomQuery())  # doctest: +SKIP
    >>> results[0]["status"]  # doctest: +SKIP
    'passed'
    """
    if on_fail not in ("raise", "warn", None):
        raise ValueError(f"on_fail must be 'raise', 'warn' or None, got {on_fail!r}")
    expected = _expected(strategy, expected_failed_checks)
    results = []
    for check in yield_checks():
        name, reason = check.__name__, expected.get(check.__name__)
        status, exception = "passed", None
        try:
            check(strategy)
        except SkipTest as error:
            status, exception = "skipped", error
        except Exception as error:  # a faulty strategy may raise anything
            status, exception = "xfail" if reason else "failed", error
        if status == "failed":
            message = f"{type(strategy).__name__} fails {name}: {exception}"
            if on_fail == "raise":
                raise AssertionError(message) from exception
            if on_fail == "warn":
                warnings.warn(message, stacklevel=2)
        results.append(
            {
                "check_name": name,
                "status": status,
                "exception": exception,
                "expected_to_fail_reason": reason,
            }
        )
    return results


def parametrize_with_checks(
    strategies: Iterable[QueryStrategy],
    *,
    expected_failed_checks: Callable[[QueryStrategy], Mapping[str, str] | None]
    | None = None,
) -> Any:
    """Parametrize a pytest function with each check of each strategy.

    Parameters
    ----------
    strategies : iterable of QueryStrategy
        Instances.
    expected_failed_checks : callable, default=None
        Takes a strategy and returns a dict from names of checks that must fail to why,
        or None.

    Returns
    -------
    decorator : pytest.MarkDecorator
        For a function with the parameters `strategy` and `check`.

    Examples
    --------
    >>> from skal import MarginQuery
    >>> from skal.testing import parametrize_with_checks
    >>> @parametrize_with_checks([MarginQuery()])
    ... def test_strategy(strategy, check):
    ...     check(strategy)
    """
    import pytest

    cases = []
    for strategy in strategies:
        reasons = expected_failed_checks(strategy) if expected_failed_checks else {}
        expected = _expected(strategy, reasons)
        for check in yield_checks():
            name = check.__name__
            marks = ()
            if name in expected:
                marks = pytest.mark.xfail(reason=expected[name], strict=True)
            case = f"{type(strategy).__name__}-{name}"
            cases.append(pytest.param(strategy, check, marks=marks, id=case))
    return pytest.mark.parametrize("strategy, check", cases)
