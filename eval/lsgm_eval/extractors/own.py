"""A user's own feature space: a network in a file that takes uint8 images and gives float features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lsgm.errors import UserError
from lsgm.files.limits import FEATURES
from lsgm.files.shown import shown
from lsgm_eval.extractors.base import check_features, check_images

__all__ = ["OwnNetwork", "plain_features"]


class OwnNetwork:
    """Features of a network: uint8 [N, C, H, W] in, float [N, D] out, D found by asking once.

    The file's name without suffix is the name of the feature space, its sha256 its identity. ``what`` is how
    errors call it. Raises UserError for a network that breaks the shape above.
    """

    resize = ""

    def __init__(
        self,
        what: str,
        path: Path,
        sha256: str,
        net: Callable[[Tensor], object],
        image_shape: tuple[int, int, int],
        device: torch.device | str,
    ) -> None:
        self.what, self.name, self.sha256 = what, path.stem, sha256
        self.net, self.image_shape, self.device = net, image_shape, torch.device(device)
        self.dim = int(self._features(torch.zeros((2, *image_shape), dtype=torch.uint8)).shape[1])

    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, D]."""
        check_images(self.name, images, self.image_shape)
        return check_features(self.name, self._features(images))

    # The first question as well: an interpreter that plans for gradients in one call cannot do without in the
    # next, where the network's parameters require them.
    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        try:
            out = plain_features(self.net(images.to(self.device)), len(images))
        # Networks of others, and torch's interpreters of them, raise whatever they like; also for want of
        # memory.
        except Exception as error:
            shape = "x".join(map(str, images.shape))
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(
                f"the {self.what} {shown(self.name)} failed on uint8 images of {shape} "
                f"({shown(last)[:300]}): it must take uint8 N x C x H x W of the task's shape"
            ) from error
        if out is None:
            raise UserError(f"the {self.what} {shown(self.name)} must return features N x D")
        FEATURES.hold(f"an image in the {self.what} {shown(self.name)}", out.shape[1], UserError)
        return out


def plain_features(out: object, count: int) -> Tensor | None:
    """Return features [N, D] of real numbers on the CPU; None for anything else."""
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != count or not out.shape[1]:
        return None
    if out.is_complex() or out.is_quantized or out.layout is not torch.strided:
        return None
    return out.float().cpu()
