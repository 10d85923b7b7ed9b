"""Image data sets by name, ready for an active learning experiment."""

from skal.datasets._augment import CropFlip
from skal.datasets._dialect import find_dialect, has_header
from skal.datasets._images import DamagedImageError, image_paths, read_image
from skal.datasets._load import load_dataset
from skal.datasets._parquet import ParquetRows

__all__ = [
    "CropFlip",
    "DamagedImageError",
    "ParquetRows",
    "find_dialect",
    "has_header",
    "image_paths",
    "load_dataset",
    "read_image",
]
