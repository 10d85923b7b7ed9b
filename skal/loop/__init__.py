"""The loop: labels and codes, data checks, the trial, training, prediction."""

from skal.loop.loop import ActiveLearningLoop

__all__ = ["ActiveLearningLoop"]
