"""Query strategies: which rows of a pool to label next."""

from skal.query._adversarial import DeepFoolQuery
from skal.query._asal import AsalQuery
from skal.query._base import QueryStrategy, ScoreQuery
from skal.query._bayesian import BaldQuery, BatchBaldQuery, EpigQuery
from skal.query._diversity import (
    CoreSetQuery,
    KCenterGreedyQuery,
    KMeansQuery,
    MaxHerdingQuery,
    ProbCoverQuery,
    TypiClustQuery,
)
from skal.query._graph import CoreGcnQuery, UncertainGcnQuery
from skal.query._hybrid import (
    BadgeQuery,
    BaitQuery,
    ClusterMarginQuery,
    DropQuery,
    UHerdingQuery,
)
from skal.query._learning_loss import LearningLossQuery
from skal.query._partitioned import PartitionedQuery, SubsampleQuery
from skal.query._uncertainty import (
    EntropyQuery,
    FalcunQuery,
    LeastConfidenceQuery,
    MarginQuery,
    RandomQuery,
    StochasticQuery,
)
from skal.query._vaal import VaalQuery
from skal.query._waal import WaalQuery

__all__ = [
    "AsalQuery",
    "BadgeQuery",
    "BaitQuery",
    "BaldQuery",
    "BatchBaldQuery",
    "ClusterMarginQuery",
    "CoreGcnQuery",
    "CoreSetQuery",
    "DeepFoolQuery",
    "DropQuery",
    "EntropyQuery",
    "EpigQuery",
    "FalcunQuery",
    "KCenterGreedyQuery",
    "KMeansQuery",
    "LearningLossQuery",
    "LeastConfidenceQuery",
    "MarginQuery",
    "MaxHerdingQuery",
    "PartitionedQuery",
    "ProbCoverQuery",
    "QueryStrategy",
    "RandomQuery",
    "ScoreQuery",
    "StochasticQuery",
    "SubsampleQuery",
    "TypiClustQuery",
    "UHerdingQuery",
    "UncertainGcnQuery",
    "VaalQuery",
    "WaalQuery",
]
