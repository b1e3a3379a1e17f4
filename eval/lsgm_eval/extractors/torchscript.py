"""A user's own feature space: a TorchScript file that takes uint8 images and gives float features."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor

from lsgm.data.store import file_sha256
from lsgm.errors import DataError, UserError
from lsgm_eval.extractors.base import check_features, check_images
from lsgm_eval.extractors.weights import find_own

__all__ = ["TorchScriptExtractor", "find_script", "load_script"]


class TorchScriptExtractor:
    """Features of ``torchscript:FILE``: uint8 [N, C, H, W] in, float [N, D] out, D found by asking once.

    The file's name without suffix is the name of the feature space, its sha256 its identity. Raises DataError
    for a file that is missing or is no TorchScript, UserError for a module that breaks the shape above.
    """

    resize = ""

    def __init__(
        self, file: str, image_shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
    ) -> None:
        path = find_script(file)
        self.name, self.sha256 = path.stem, file_sha256(path)
        self.image_shape, self.device = image_shape, torch.device(device)
        self.module = load_script(path, self.device)
        self.dim = int(self._features(torch.zeros((2, *image_shape), dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, D]."""
        check_images(self.name, images, self.image_shape)
        return check_features(self.name, self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        try:
            out = self.module(images.to(self.device))
        except RuntimeError as error:
            shape = "x".join(map(str, images.shape))
            last = str(error).strip().splitlines()[-1]
            raise UserError(
                f"the TorchScript extractor {self.name} failed on uint8 images of {shape} ({last}): "
                "it must take uint8 N x C x H x W of the task's shape"
            ) from error
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(images):
            raise UserError(f"the TorchScript extractor {self.name} must return features N x D")
        return out.float().cpu()


def find_script(file: str) -> Path:
    """Return the file as given, or below a data folder. Raises DataError naming every place."""
    return find_own(file, f"the TorchScript extractor {file}")


def load_script(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """Return the module of a TorchScript file in evaluation mode. Raises DataError where it is none."""
    try:
        with warnings.catch_warnings():
            # torch.jit is deprecated in favour of torch.export, which does not read these files.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(io.BytesIO(path.read_bytes()), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} is not a TorchScript file or is damaged: write it with torch.jit.save"
        ) from error
    script: torch.jit.ScriptModule = module.eval()
    return script
