"""Displays, which keep the numbers of a picture, and a sketch without matplotlib."""

from skal.plotting._learning_curve import LearningCurveDisplay
from skal.plotting._sketch import sketch_curve

__all__ = ["LearningCurveDisplay", "sketch_curve"]
