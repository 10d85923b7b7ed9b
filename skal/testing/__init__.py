"""What every strategy must do, as checks for strategies of your own.

>>> from skal import EntropyQuery
>>> from skal.testing import check_strategy
>>> results = check_strategy(EntropyQuery())  # doctest: +SKIP

or, with pytest, one test a check:

>>> from skal.testing import parametrize_with_checks
>>> @parametrize_with_checks([EntropyQuery()])
... def test_strategy(strategy, check):
...     check(strategy)
"""

from skal.testing._suite import check_strategy, parametrize_with_checks, yield_checks

__all__ = ["check_strategy", "parametrize_with_checks", "yield_checks"]
