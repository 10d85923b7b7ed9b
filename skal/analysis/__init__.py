"""Learning curves, areas, labels saved and paired comparisons, over tidy records."""

from skal.analysis.comparison import (
    doubling_checkpoints,
    holm_adjust,
    paired_t_test,
    penalties,
    penalty_matrix,
    rank_strategies,
    signed_rank,
)
from skal.analysis.statistics import (
    area_under_curve,
    areas_by_seed,
    as_frame,
    class_balance,
    label_quartiles,
    labels_saved,
    labels_to_target,
    learning_curves,
    mean_curve,
    mean_interval,
    overlap,
)

__all__ = [
    "area_under_curve",
    "areas_by_seed",
    "as_frame",
    "class_balance",
    "doubling_checkpoints",
    "holm_adjust",
    "label_quartiles",
    "labels_saved",
    "labels_to_target",
    "learning_curves",
    "mean_curve",
    "mean_interval",
    "overlap",
    "paired_t_test",
    "penalties",
    "penalty_matrix",
    "rank_strategies",
    "signed_rank",
]
