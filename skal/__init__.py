"""skal: deep active learning for scikit-learn users.

>>> from skal import ActiveLearningLoop, BadgeQuery
>>> loop = ActiveLearningLoop(estimator, BadgeQuery()).fit(X, y)  # doctest: +SKIP

Names are loaded on first use (PEP 562), so that `import skal` loads neither torch nor
the heavy parts of scikit-learn.
"""

from importlib import import_module

from skal._version import __version__ as __version__

_HOMES = {"ActiveLearningLoop": "skal.loop", "PoolView": "skal.pool"}
_MODULES = (
    "analysis datasets experiment loop models plotting pool posterior query report "
    "selection testing utils"
).split()


def __getattr__(name):
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        return import_module(f"skal.{name}")
    elif name == "__all__":
        return [*_HOMES, *import_module("skal.query").__all__]
    elif name.endswith(("Query", "QueryStrategy")):
        value = getattr(import_module("skal.query"), name)
    else:
        raise AttributeError(f"module 'skal' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_MODULES, *__getattr__("__all__")})
