"""Inception-v3 as clean-fid runs it: the same network behind another resize, and so another FID."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import DataError
from lsgm.files.shown import shown
from lsgm_eval.extractors.base import ImageShape, check_features, to_rgb
from lsgm_eval.extractors.clean_resize import CleanResize
from lsgm_eval.extractors.torchscript import load_script
from lsgm_eval.extractors.weights import CLEAN_INCEPTION, open_own, read_own, read_published

__all__ = ["CleanInception"]

SIDE = 299


class CleanInception:
    """Pooled features [N, 2048] of clean-fid's ``mode="clean"`` with its TorchScript file.

    Every image is resized to 299x299 by clean-fid's own function (see ``CleanResize``), moved to [-1, 1) and
    sent through the ``layers`` of the file. With the official file its Frechet distance is FID by clean-fid's
    protocol (arXiv:2104.11222) and ``official`` is true; a TorchScript of one's own in the same format
    (``inception-clean:FILE``), a program that is run, is named after its file and is another space. The
    weight of its ``output``, without the bias, gives the classes of the Inception Score.

    Raises DataError for a file that is missing, damaged or of another format.
    """

    dim = 2048
    resize = "clean-fid-pil-bicubic-299"
    image_shape: ImageShape = (3, None, None)
    """Grey images are taken as well, repeated over the channels."""

    def __init__(self, file: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

        def read(path: Path) -> tuple[bytes, tuple[Any, Tensor]]:
            raw = read_own(path)
            return raw, _open(path, raw, self.device)

        if file:
            path, (raw, opened) = open_own(file, f"the weights {file}", read, runs=True)
        else:
            path, raw = read_published(CLEAN_INCEPTION)
            opened = _open(path, raw, self.device)
        self.layers, self.weight = opened
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.official = self.sha256 == CLEAN_INCEPTION.sha256
        self.name = "inception-clean" if self.official else f"inception-clean-own-{path.stem}"
        self.to_size = CleanResize(SIDE)
        self.classes = len(self.weight)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, 2048]."""
        resized = self.to_size(to_rgb(self.name, images)).to(self.device)
        return check_features(self.name, _pooled(self.layers, resized, self.name)).cpu()

    @torch.inference_mode()
    def class_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [N, classes] without bias."""
        return features.to(self.device, torch.float32).mm(self.weight.T).cpu()


def _pooled(layers: Any, resized: Tensor, name: str) -> Tensor:
    """Return ``layers`` of images [N, 3, 299, 299] in 0..255 as a matrix [N, 2048]."""
    try:
        features: Tensor = layers.forward((resized - 128) / 128).reshape(len(resized), -1)
    except Exception as error:  # whatever a program of others makes torch's interpreter raise
        raise DataError(f"the layers of {name} failed on images 3x299x299: {_last(error)}") from error
    if features.shape[1] != CleanInception.dim:
        raise DataError(
            f"the layers of {name} give {features.shape[1]} features instead of {CleanInception.dim}: "
            "name another network as export:FILE.pt2"
        )
    return features.float()


def _open(path: Path, raw: bytes, device: torch.device) -> tuple[Any, Tensor]:
    """Return the layers and the weight [classes, 2048] of the output of a TorchScript file."""
    module: Any = load_script(path, raw, device)
    layers, weight = getattr(module, "layers", None), getattr(getattr(module, "output", None), "weight", None)
    if layers is None or not isinstance(weight, Tensor) or weight.shape[1:] != (CleanInception.dim,):
        raise DataError(
            f"{path} is not a TorchScript in the format of {CLEAN_INCEPTION.file} (`layers`, and an `output` "
            f"with a weight classes x {CleanInception.dim}): name another network as export:FILE.pt2"
        )
    return layers, weight.detach().float()


def _last(error: Exception) -> str:
    return shown((str(error).strip() or type(error).__name__).splitlines()[-1])[:200]
