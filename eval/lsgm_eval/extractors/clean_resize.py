"""clean-fid's resize: each image and channel by Pillow in float, without rounding in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm_eval.torchvision_import import ensure_torchvision

__all__ = ["CleanResize"]


class CleanResize:
    """Bring images uint8 [N, 3, H, W] to float32 [N, 3, side, side] in 0..255 by an antialiased bicubic.

    The arithmetic is clean-fid's ``make_resizer("PIL", False, "bicubic", (side, side))`` (arXiv:2104.11222),
    called image by image; Pillow frees the interpreter meanwhile, so that threads share a batch.
    """

    def __init__(self, side: int) -> None:
        ensure_torchvision()
        from cleanfid.resize import make_resizer

        self.one: Callable[[NDArray[Any]], NDArray[Any]] = make_resizer("PIL", False, "bicubic", (side, side))
        self.threads = min(16, os.cpu_count() or 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images in the new size, in their order, on the CPU."""
        pictures = images.cpu().permute(0, 2, 3, 1).numpy()
        with ThreadPoolExecutor(self.threads) as pool:
            resized = list(pool.map(self.one, pictures))
        return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
