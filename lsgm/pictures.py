"""Images for a notebook: those of a dataset or a folder as one tensor, and many as one picture, a sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from lsgm.config import require
from lsgm.data import dataset_names, load, test_levels
from lsgm.sampling.keep import tiled

if TYPE_CHECKING:
    from torch import Tensor


def images(
    source: str,
    *,
    limit: int | None = None,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    convert: str = "",
) -> Tensor:
    """Return images uint8 [N, C, H, W] in 0..255.

    Args:
        source: A dataset and one of its splits, ``glyphs:test`` (``test`` unless given), or the path of a
            folder, zip, npz or npy of images, all of them unless a split is named (``./photos:train``).
        limit: A uniform subset of so many, drawn in one order: fewer are the first of more.
        size: A side, or (height, width), to which images by path are cropped and reduced; None leaves them.
        seed: Of the pixels of a binary set, which are drawn from its grey values.
        convert: What is allowed for images of your own that are not plain greyscale or RGB.

    Raises DataError for a name that is none, a split that there is not, and damaged files.
    """
    name, found, split = source.rpartition(":")
    if not found or "/" in split:
        name, split = source, ""
    require(limit is None or limit >= 1, f"limit is {limit}; it must be at least 1")
    known = load(name, image_size=size, convert=convert, few=True)
    every = "test" if name in dataset_names() else "+".join(known.splits)
    levels = test_levels(known, split or every, seed, bits=8, limit=limit)
    return levels * 255 if known.pixels == "binary" else levels


def sheet(images: Tensor, *, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Return images uint8 [N, C, H, W], or [rows, columns, C, H, W], as one picture on grey.

    Rows are read from left to right. Small images are enlarged, by ``scale`` or to about 64 pixels.
    """
    require(images.ndim in (4, 5), f"images have {images.ndim} dimensions; give [N, C, H, W]")
    if images.ndim == 5:
        columns, images = columns or images.shape[1], images.flatten(0, 1)
    return tiled(images, columns=columns or min(10, len(images)), scale=scale)
