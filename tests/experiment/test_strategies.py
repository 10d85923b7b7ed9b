import pytest

from skal.datasets._load import DATASETS
from skal.experiment import names
from skal.experiment.config import RunConfig
from skal.experiment.options import UsageError
from skal.experiment.strategies import (
    _MEASURED,
    build_strategy,
    describe_strategies,
)
from skal.posterior import DeepEnsemble
from skal.query import BaldQuery
from skal.utils import all_strategies, command_line_name
from skal.utils.discovery import named_strategies


def test_options_reach_the_strategy():
    config = RunConfig(strategy="k-means", strategy_options={"n_init": 3})
    assert build_strategy(config).n_init == 3


@pytest.mark.parametrize("option", ["fist", "first__depth", "posterior__n_draws"])
def test_unknown_options_are_listed(option):
    config = RunConfig(strategy="badge", strategy_options={option: 1})
    match = f"--strategy badge has no option {option}; allowed are first, random_state"
    with pytest.raises(UsageError, match=match):
        build_strategy(config)


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("badge", {"first": "foo"}, "'first' parameter of BadgeQuery"),
        ("badge", {"random_state": "x"}, "'random_state' parameter of BadgeQuery"),
        (
            "k-means",
            {"n_init": 0},
            "'n_init' parameter of KMeansQuery",
        ),
        ("k-means", {"max_iter": 2.5}, "'max_iter' parameter of KMeansQuery"),
    ],
)
def test_bad_values(name, options, match):
    config = RunConfig(strategy=name, strategy_options=options)
    with pytest.raises(UsageError, match=f"--strategy-option: The {match}"):
        build_strategy(config)


def test_unknown_strategy():
    with pytest.raises(UsageError, match="'bagde'; did you mean 'badge'. Allowed are"):
        build_strategy(RunConfig(strategy="bagde"))


def test_every_strategy_is_described():
    described = {each.name: each for each in describe_strategies()}
    discovered = {command_line_name(cls) for _, cls in all_strategies()}
    assert discovered - {"stochastic", "partitioned", "subsample"} <= set(described)
    assert described["power-bald"].reads == "sample_proba"
    assert described["power-bald"].year == "2023"
    badge = described["badge"]
    assert badge.year == "2020" and badge.paper.startswith("Ash, Zhang")
    assert badge.paper.endswith("ICLR 2020.")
    assert badge.reads == "proba, decision_values, embeddings, head_bias"
    random = described["random"]
    assert (random.needs, random.year, random.paper) == ("nothing", "", "")
    assert badge.needs == "predictions, embeddings"
    assert described["bald-ensemble"].needs == "several models"
    assert described["power-bald"].needs == "dropout"
    assert described["vaal"].needs == "rows, own training"
    assert described["entropy-dropout"].paper.startswith("Gal and Ghahramani")
    assert described["entropy-dropout"].year == "2016"
    assert described["entropy-ensemble"].year == "2017"


@pytest.mark.parametrize("name", ["bald", "batch-bald"])
def test_bald_has_options_of_its_posterior(name):
    config = RunConfig(strategy=name, strategy_options={"posterior__n_draws": 7})
    assert build_strategy(config).posterior.n_draws == 7
    assert build_strategy(RunConfig(strategy=name)).posterior.n_draws == 100
    ensemble = build_strategy(RunConfig(strategy=f"{name}-ensemble")).posterior
    assert isinstance(ensemble, DeepEnsemble)
    assert f"{name}-dropout" not in named_strategies()


def test_power_strategies_have_options_of_what_they_wrap():
    options = {"beta": 4, "strategy__posterior__n_draws": 7}
    strategy = build_strategy(
        RunConfig(strategy="power-bald", strategy_options=options)
    )
    assert isinstance(strategy.strategy, BaldQuery) and strategy.beta == 4
    assert strategy.active_posterior.n_draws == 7
    with pytest.raises(UsageError, match="power-margin has no option gamma"):
        options = {"gamma": 1}
        build_strategy(RunConfig(strategy="power-margin", strategy_options=options))


def test_the_names_of_the_command_line_are_those_discovered():
    assert list(named_strategies()) == sorted(names.STRATEGIES)
    assert list(names.DATASETS) == list(DATASETS)


def test_what_is_measured_is_of_strategies_that_are_there():
    measured = [each for each in describe_strategies() if each.query_s]
    assert {"badge", "margin", "random", "u-herding"} <= {e.name for e in measured}
    for each in measured:
        assert float(each.query_s) >= 0 and each.labels in {"1", "5", "20", "-", ""}
    with open(_MEASURED) as file:
        assert len(file.readlines()) == 1 + len(measured)
