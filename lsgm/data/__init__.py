"""Image datasets: found or rendered, verified, split, and served to training in a reproducible order."""

from lsgm.config import Convert, parse_convert
from lsgm.data.folder import is_images, open_images
from lsgm.data.images import ImageSet, PixelKind, PixelPipeline, sha256_of, test_levels
from lsgm.data.registry import dataset_names, load
from lsgm.data.source import (
    ImageSource,
    Resident,
    Streaming,
    batch_indices,
    carve_validation,
    epoch_order,
    make_source,
)

__all__ = [
    "Convert",
    "ImageSet",
    "ImageSource",
    "PixelKind",
    "PixelPipeline",
    "Resident",
    "Streaming",
    "batch_indices",
    "carve_validation",
    "dataset_names",
    "epoch_order",
    "is_images",
    "load",
    "make_source",
    "open_images",
    "parse_convert",
    "sha256_of",
    "test_levels",
]
