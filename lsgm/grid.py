"""Pictures of images: one sheet to look at, or one file per image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lsgm.files.write import atomic_path

__all__ = ["save_grid", "save_image"]


def save_grid(
    images: Tensor, path: Path, *, columns: int = 10, gap: int = 2, scale: int | None = None
) -> Path:
    """Write uint8 images [N, 1 or 3, H, W] as one PNG, row by row on grey; small images are enlarged."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 128, np.uint8)
    for k, picture in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    factor = scale if scale is not None else max(1, 64 // height)
    return _write(sheet, path, factor)


def save_image(image: Tensor, path: Path) -> Path:
    """Write one uint8 image [1 or 3, H, W] as a PNG of its own size."""
    return _write(image.permute(1, 2, 0).cpu().numpy(), path, 1)


def _write(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], path: Path, factor: int) -> Path:
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    size = (picture.width * factor, picture.height * factor)
    with atomic_path(path) as temporary:
        picture.resize(size, Image.Resampling.NEAREST).save(temporary, format="PNG")
    return path
