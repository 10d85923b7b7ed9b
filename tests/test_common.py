"""Every strategy that skal ships keeps the common contract."""

import pytest
from strategy_checks import make_strategy, yield_checks

from skal.utils import all_strategies

EXPECTED_FAILURES = {
    ("BadgeQuery", "check_no_position_bias"): (
        "kmeans_plusplus takes the lowest position among equal norms first"
    )
}


def _cases():
    for name, cls in all_strategies():
        for check in yield_checks():
            marks = []
            if check.__name__.endswith("_gpu"):
                marks.append(pytest.mark.gpu)
            reason = EXPECTED_FAILURES.get((name, check.__name__))
            if reason:
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(cls, check, marks=marks, id=f"{name}-{check.__name__}")


@pytest.mark.filterwarnings("ignore:the batch is saturated")
@pytest.mark.filterwarnings("ignore:the posterior of the VAE")  # after 3 steps
@pytest.mark.parametrize("cls, check", list(_cases()))
def test_strategy(cls, check):
    check(make_strategy(cls))
