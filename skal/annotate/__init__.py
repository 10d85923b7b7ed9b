"""People label: the store of their answers, and the project around it."""

from skal.annotate.store import Answer, LabelStore

__all__ = ["Answer", "LabelStore"]
