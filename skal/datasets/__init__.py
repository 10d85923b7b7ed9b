"""Image data sets by name, ready for an active learning experiment."""

from skal.datasets._augment import CropFlip
from skal.datasets._images import DamagedImageError
from skal.datasets._load import load_dataset

__all__ = ["CropFlip", "DamagedImageError", "load_dataset"]
