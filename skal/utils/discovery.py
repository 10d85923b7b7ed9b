"""Find every strategy, of skal and of other packages; there is no registry to edit."""

import inspect
import pkgutil
import re
import warnings
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


def all_strategies() -> list[tuple[str, type[Any]]]:
    """List the public strategies of `skal.query` and of other packages.

    A package names each of its strategies in an entry point of the group
    `skal.strategies`: `my-margin = "package.module:MyMarginQuery"`, where the name is
    that on the command line, see `command_line_name`.

    Returns
    -------
    strategies : list of (str, class)
        Class names and classes, sorted by name; abstract bases are left out.

    Warns
    -----
    UserWarning
        For a strategy of another package that cannot be imported; it is left out.

    Raises
    ------
    ValueError
        Where two strategies have one name.
    """
    query = import_module("skal.query")
    base = query.QueryStrategy
    found = {}
    for info in pkgutil.iter_modules(query.__path__, prefix="skal.query."):
        module = import_module(info.name)
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if (
                issubclass(cls, base)
                and cls.__module__ == module.__name__
                and not name.startswith("_")
                and not inspect.isabstract(cls)
            ):
                found[name] = cls
    places = {command_line_name(cls): cls.__module__ for cls in found.values()}
    for point in sorted(set(entry_points(group="skal.strategies"))):
        if point.name in places:
            raise ValueError(
                f"There are two strategies {point.name!r}, in {places[point.name]} and "
                f"in {point.value}; uninstall one of the packages."
            )
        places[point.name] = point.value
        try:
            cls = _load(point, base)
        except (Exception, SystemExit) as error:  # whatever another package does
            reason = f"{type(error).__name__}: {error}"
            text = f"the strategy {point.name!r}, {point.value}, is left out ({reason})"
            warnings.warn(text, stacklevel=2)
        else:
            found[cls.__name__] = cls
    return sorted(found.items())


def _load(point, base):
    cls = point.load()
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise TypeError("not a class below skal.query.QueryStrategy")
    if command_line_name(cls) != point.name:
        raise ValueError(f"name its entry point {command_line_name(cls)!r}")
    cls()  # without arguments, as the command line makes it
    return cls


def named_strategies() -> dict[str, Any]:
    """Make every strategy that needs no other one, by its name in `skal list`.

    Returns
    -------
    strategies : dict of str to QueryStrategy
        In the order of the names. One with a parameter `posterior` comes with its
        default spelled out, and with -dropout and -ensemble where that is another.
        `StochasticQuery` is named by the strategy that it wraps, as in power-bald.

    Raises
    ------
    ValueError
        As of `all_strategies`.
    """
    posteriors = import_module("skal.posterior")
    found = {}
    for _, cls in all_strategies():
        if hasattr(cls, "active_strategy"):
            continue
        name, strategy = command_line_name(cls), cls()
        if hasattr(strategy, "active_posterior"):
            default = strategy.active_posterior
            if default is None:
                found[f"{name}-dropout"] = cls(posterior=posteriors.MCDropout())
            found[f"{name}-ensemble"] = cls(posterior=posteriors.DeepEnsemble())
            strategy.set_params(posterior=default)
        found[name] = strategy
    stochastic = import_module("skal.query").StochasticQuery
    for name in ("bald", "entropy", "margin"):
        found[f"power-{name}"] = stochastic(found[name])
    return dict(sorted(found.items()))


def innermost(strategy: Any) -> Any:
    """Take a strategy out of those that wrap it.

    Parameters
    ----------
    strategy : QueryStrategy

    Returns
    -------
    strategy : QueryStrategy
        Itself where it wraps none.
    """
    while hasattr(strategy, "active_strategy"):
        strategy = strategy.active_strategy
    return strategy


def command_line_name(cls: type[Any]) -> str:
    """Name of a strategy on the command line: `KCenterGreedyQuery`, k-center-greedy.

    Parameters
    ----------
    cls : class
        A strategy.

    Returns
    -------
    name : str

    Examples
    --------
    >>> class KCenterGreedyQuery: pass
    >>> command_line_name(KCenterGreedyQuery)
    'k-center-greedy'
    """
    stem = cls.__name__.removesuffix("Query")
    return re.sub(r"(?<=.)(?=[A-Z])", "-", stem).lower()
