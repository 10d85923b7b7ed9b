"""People label: the store of their answers, and the project around it."""

from skal.annotate.project import LabelProject
from skal.annotate.store import Answer, LabelStore

__all__ = ["Answer", "LabelProject", "LabelStore"]
