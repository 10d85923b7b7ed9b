"""Strategies by their name on the command line."""

import csv
import inspect
import re
from collections import namedtuple
from pathlib import Path

from skal.experiment.options import UsageError, unknown
from skal.posterior import DeepEnsemble, MCDropout
from skal.query import PartitionedQuery, SubsampleQuery
from skal.utils.discovery import named_strategies
from skal.utils.validation import check_params

Description = namedtuple(
    "Description", "name needs labels query_s year paper reads doc options"
)
# Measured by benchmarks/label_efficiency/proof.py.
_MEASURED = Path(__file__).with_name("measured.csv")
_PREDICTIONS = {"proba", "log_proba", "logits", "decision_values"}


def named_strategy(name):
    """Make the strategy of a name on the command line.

    Parameters
    ----------
    name : str

    Returns
    -------
    strategy : QueryStrategy
    """
    by_name = named_strategies()
    if name not in by_name:
        raise UsageError(f"--strategy cannot be {unknown(name, by_name)}.")
    return by_name[name]


def taken_options(name, options):
    """Choose of options of a grid those that a strategy has.

    Parameters
    ----------
    name : str
        On the command line.
    options : dict

    Returns
    -------
    taken : dict
        All, where nobody knows the strategy.
    """
    strategy = named_strategies().get(name)
    params = options if strategy is None else strategy.get_params()
    return {key: value for key, value in options.items() if key in params}


def build_strategy(config):
    """Make the strategy of a run.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    strategy : QueryStrategy
    """
    strategy = named_strategy(config.strategy)
    try:
        strategy.set_params(**config.strategy_options)
    except (AttributeError, ValueError) as error:
        known = strategy.get_params()
        unknown = [name for name in config.strategy_options if name not in known]
        raise UsageError(
            f"--strategy {config.strategy} has no option {', '.join(unknown)}; allowed "
            f"are {', '.join(known)}."
        ) from error
    try:
        check_params(strategy)
    except ValueError as error:
        raise UsageError(f"--strategy-option: {error}") from error
    if not strategy.requires:  # what reads nothing has all pools alike
        return strategy
    if config.n_parts is not None:
        strategy = PartitionedQuery(strategy, n_parts=config.n_parts)
    if config.max_rows is not None:
        strategy = SubsampleQuery(strategy, max_rows=config.max_rows)
    return strategy


def describe_strategies():
    """Say of every strategy what it needs, what it is good for and where it is from.

    Returns
    -------
    descriptions : list of Description
        Its name on the command line; what it needs, in words; from how many labels a
        class on it was ahead of random, and seconds of a query, both as measured, "-"
        for never and "" for unknown; year and paper of the first reference of its
        docstring; the outputs of the pool that it reads; its docstring; and its
        options, a dict.
    """
    with open(_MEASURED, newline="") as file:
        measured = {line.pop("strategy"): line for line in csv.DictReader(file)}
    descriptions = []
    for name, strategy in named_strategies().items():
        # That of the posterior, where the name has it.
        source = type(strategy)
        if name.endswith(("-dropout", "-ensemble")):
            source = type(strategy.posterior)
        doc = inspect.getdoc(source) or ""
        _, _, references = doc.partition("References\n---")
        paper = re.split(r"\n\n|\n\.\. \[", references.partition("] ")[2])[0]
        paper = " ".join(paper.split())
        descriptions.append(
            Description(
                name=name,
                needs=_needs(strategy),
                labels=measured.get(name, {}).get("labels", ""),
                query_s=measured.get(name, {}).get("query_s", ""),
                year=re.search(r"\b(?:19|20)\d\d\b|$", paper)[0],
                paper=paper,
                reads=", ".join(strategy.requires),
                doc=inspect.getdoc(type(strategy)) or "",
                options=strategy.get_params(),
            )
        )
    return descriptions


def _needs(strategy):
    """Say in words what of a model a strategy needs."""
    reads = {name.removeprefix("labeled.") for name in strategy.requires}
    posterior = getattr(strategy, "active_posterior", None)
    found = {
        "several models": isinstance(posterior, DeepEnsemble),
        "dropout": isinstance(posterior, MCDropout),
        "predictions": bool(reads & _PREDICTIONS),
        "embeddings": "embeddings" in reads,
        "rows": "features" in reads,
        "gradients": "input_gradients" in reads,
        "a network": "hidden_means" in reads,
        "own training": "aux" in strategy.get_params(deep=False),
    }
    return ", ".join(name for name, needed in found.items() if needed) or "nothing"
