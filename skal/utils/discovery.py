"""Find every strategy that skal ships; there is no registry to edit."""

import inspect
import pkgutil
import re
from importlib import import_module


def all_strategies():
    """List the public strategies of `skal.query`.

    Returns
    -------
    strategies : list of (str, class)
        Class names and classes, sorted by name; abstract bases are left out.
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
    return sorted(found.items())


def command_line_name(cls):
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
