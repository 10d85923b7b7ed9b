"""Every strategy that skal ships keeps the common contract."""

import pytest

from skal.query import KCenterGreedyQuery
from skal.testing import parametrize_with_checks
from skal.testing._checks import EMBEDDINGS, PREDICTIONS, touched_outputs, trains
from skal.utils import all_strategies

# Strategies that train a network are checked with few epochs.
QUICK = {
    "AsalQuery": {"aux__max_epochs": 3, "n_steps": 3},
    "CoreGcnQuery": {"aux__max_epochs": 3},
    "UncertainGcnQuery": {"aux__max_epochs": 3},
    "VaalQuery": {"aux__max_epochs": 3},
}
WRAPPED = {
    "PartitionedQuery": {"strategy": KCenterGreedyQuery()},
    "SubsampleQuery": {"strategy": KCenterGreedyQuery(), "max_rows": 40},
}
STRATEGIES = [
    cls(**WRAPPED.get(name, {})).set_params(**QUICK.get(name, {}))
    for name, cls in all_strategies()
    if cls.__module__.startswith("skal.")
]
FEWER = "of 40 rows no more can be chosen"
EXPECTED_FAILURES = {
    "SubsampleQuery": {
        "check_number_of_picks": FEWER,
        "check_duplicate_rows": FEWER,
        "check_equal_rows": FEWER,
    },
    "BadgeQuery": {
        "check_no_position_bias": (
            "kmeans_plusplus takes the lowest position among equal norms first"
        )
    },
}


def expected_failures(strategy):
    return EXPECTED_FAILURES.get(type(strategy).__name__)


@pytest.mark.filterwarnings("ignore:the batch is saturated")
@pytest.mark.filterwarnings("ignore:the posterior of the VAE")  # after 3 steps
@pytest.mark.filterwarnings("ignore:VaalQuery holds out none")
@pytest.mark.filterwarnings("ignore:the discriminator of VaalQuery tells")
@parametrize_with_checks(STRATEGIES, expected_failed_checks=expected_failures)
def test_strategy(strategy, check):
    check(strategy)


def place_of(strategy):
    """File that a strategy belongs in: the first yes of the design's table wins."""
    touched = {name.removeprefix("labeled.") for name in touched_outputs(strategy)}
    if "input_gradients" in touched:
        return "_adversarial"
    if touched & PREDICTIONS and touched & EMBEDDINGS:
        return "_hybrid"
    if "sample_proba" in touched:
        return "_bayesian"
    return "_diversity" if touched & EMBEDDINGS else "_uncertainty"


@pytest.mark.parametrize(
    "strategy",
    [s for s in STRATEGIES if not trains(s) and type(s).__name__ not in WRAPPED],
    ids=lambda strategy: type(strategy).__name__,
)
def test_strategy_sits_in_its_file(strategy):
    assert type(strategy).__module__ == f"skal.query.{place_of(strategy)}"
