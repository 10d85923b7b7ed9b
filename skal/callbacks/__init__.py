"""Callbacks of the loop: what is done after each round, and when to stop.

They follow scikit-learn's protocol and are given to `ActiveLearningLoop.set_callbacks`.
Those of scikit-learn itself need its version 1.9.
"""

from skal.callbacks._base import RoundCallback
from skal.callbacks._logging import (
    CSVLogger,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from skal.callbacks._score_rules import ExpectedGain, ScorePlateau
from skal.callbacks._stopping import (
    LabelBudget,
    MaximumUncertainty,
    OverallUncertainty,
    Round,
    StabilizingPredictions,
    StoppingRule,
)

__all__ = [
    "CSVLogger",
    "ExpectedGain",
    "LabelBudget",
    "MLflowLogger",
    "MaximumUncertainty",
    "OverallUncertainty",
    "Round",
    "RoundCallback",
    "ScorePlateau",
    "StabilizingPredictions",
    "StoppingRule",
    "TensorBoardLogger",
    "WandbLogger",
]
