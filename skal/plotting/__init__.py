"""Displays: the numbers of a picture on an object, and the drawing."""

from skal.plotting._learning_curve import LearningCurveDisplay

__all__ = ["LearningCurveDisplay"]
