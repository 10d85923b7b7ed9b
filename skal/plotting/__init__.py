"""Displays, which keep the numbers of a picture, and a sketch without matplotlib."""

from skal.plotting._learning_curve import LearningCurveDisplay
from skal.plotting._looks import limits, looks, score_range, ticks
from skal.plotting._pairwise_comparison import PairwiseComparisonDisplay
from skal.plotting._query_map import QueryMapDisplay
from skal.plotting._query_sheet import QuerySheetDisplay
from skal.plotting._sketch import sketch_curve

__all__ = [
    "LearningCurveDisplay",
    "PairwiseComparisonDisplay",
    "QueryMapDisplay",
    "QuerySheetDisplay",
    "limits",
    "looks",
    "score_range",
    "sketch_curve",
    "ticks",
]
