"""Callbacks of the loop: what is done after each round.

They follow scikit-learn's protocol and are given to `ActiveLearningLoop.set_callbacks`
(scikit-learn >= 1.9).
"""

from skal.callbacks._base import RoundCallback
from skal.callbacks._logging import (
    CSVLogger,
    MLflowLogger,
    TensorBoardLogger,
    WandbLogger,
)

__all__ = [
    "CSVLogger",
    "MLflowLogger",
    "RoundCallback",
    "TensorBoardLogger",
    "WandbLogger",
]
