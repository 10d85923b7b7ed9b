"""skal: deep active learning for scikit-learn users.

>>> from skal import ActiveLearningLoop, BadgeQuery
>>> loop = ActiveLearningLoop(estimator, BadgeQuery()).fit(X, y)  # doctest: +SKIP

Names are loaded on first use (PEP 562), so that `import skal` loads neither torch nor
the heavy parts of scikit-learn; `__init__.pyi` shows them to type checkers.
"""

from importlib import import_module as _import_module

from skal._version import __version__ as __version__

_MODULES = (
    "analysis annotate callbacks datasets experiment loop models plotting pool "
    "posterior query report selection testing utils"
).split()
_NAMES = {
    "skal.loop": ["ActiveLearningLoop"],
    "skal.pool": ["PoolView"],
    "skal.query": """
        AsalQuery BadgeQuery BaitQuery BaldQuery BatchBaldQuery ClusterMarginQuery
        CoreGcnQuery CoreSetQuery DeepFoolQuery DropQuery EntropyQuery EpigQuery
        FalcunQuery KCenterGreedyQuery KMeansQuery LearningLossQuery
        LeastConfidenceQuery MarginQuery MaxHerdingQuery PartitionedQuery
        ProbCoverQuery QueryStrategy RandomQuery ScoreQuery StochasticQuery
        SubsampleQuery TypiClustQuery UHerdingQuery UncertainGcnQuery VaalQuery
        WaalQuery
    """.split(),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
__all__ = list(_HOMES)


def __getattr__(name):
    if name in _MODULES:
        return _import_module(f"skal.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'skal' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOMES[name]), name)
    return value


def __dir__():
    return sorted([*_HOMES, *_MODULES, "__version__"])
