"""Image datasets: found or rendered, verified, split, and served to training in a reproducible order.

A name is loaded when it is asked for: processes that decode files (`lsgm.data.decoding`) do without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_PLACES = {
    "lsgm.config": ("Convert", "parse_convert"),
    "lsgm.data.folder": ("is_images", "open_images"),
    "lsgm.data.images": ("ImageSet", "PixelKind", "PixelPipeline", "sha256_of", "test_levels"),
    "lsgm.data.registry": ("dataset_names", "load"),
}


def __getattr__(name: str) -> object:
    """Load what the package offers when it is asked for."""
    if name in __all__:
        place = next((place for place, names in _PLACES.items() if name in names), "lsgm.data.source")
        found: object = getattr(import_module(place), name)
        return found
    raise AttributeError(f"module 'lsgm.data' has no attribute '{name}'")
