"""DINOv2 features from a local clone of its repository, through torch.hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import DataError, UserError
from lsgm.files.limits import FEATURES
from lsgm.files.regular import refuse_shared_folder
from lsgm_eval.features.extractor import ImageShape, check_features, last_line, to_rgb
from lsgm_eval.features.inception import CleanResize
from lsgm_eval.features.own import plain_features

__all__ = ["DinoV2", "state_sha256"]

SIDE = 224
MODEL = "dinov2_vitl14"
REPOSITORY = "https://github.com/facebookresearch/dinov2"
# Of ImageNet in 0..1, as DINOv2 was trained (arXiv:2304.07193).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2:
    """Features [N, D] of the class token of DINOv2, in which Frechet distances follow human judgement better.

    The protocol is that of arXiv:2306.04675: antialiased bicubic resize to 224x224, ImageNet's mean and
    standard deviation, ViT-L/14 unless another model is named. ``dinov2:DIR[:MODEL]`` names a folder with a
    ``hubconf.py``, whose code is run, so it must be one that you trust; it finds its weights in the cache of
    torch.hub, or downloads them. The sha256 is that of all tensors by name.

    Raises DataError for a folder, a model or weights that are missing, UserError for a model that does not
    give features.
    """

    resize = "clean-fid-pil-bicubic-224"
    image_shape: ImageShape = (3, None, None)
    """Grey images are taken as well, repeated over the channels."""

    def __init__(self, spec: str, *, device: torch.device | str = "cpu") -> None:
        folder, model = _split(spec)
        self.device = torch.device(device)
        net, self.sha256 = _load(folder, model)
        self.net, self.name = net.to(self.device), model.replace("_", "-")
        self.to_size = CleanResize(SIDE)
        self.shift, self.scale = (torch.tensor(c, device=self.device)[:, None, None] for c in (MEAN, STD))
        self.dim = int(self._features(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)).shape[1])

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, D]."""
        return check_features(self.name, self._features(to_rgb(self.name, images))).cpu()

    @torch.inference_mode()
    def _features(self, images: Tensor) -> Tensor:
        unit = self.to_size(images).to(self.device) / 255
        try:
            out = plain_features(self.net((unit - self.shift) / self.scale), len(images))
        except Exception as error:  # whatever code of others raises, also for want of memory
            raise UserError(
                f"the torch.hub model {self.name} failed on images of 3x{SIDE}x{SIDE} "
                f"({last_line(error)}): it must take float N x 3 x H x W"
            ) from error
        if out is None:
            raise UserError(f"the torch.hub model {self.name} must return features N x D")
        FEATURES.hold(f"an image in the torch.hub model {self.name}", out.shape[1], UserError)
        return out


def state_sha256(net: torch.nn.Module) -> str:
    """Return the sha256 over the names, dtypes, shapes and bytes of all tensors of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(spec: str) -> tuple[Path, str]:
    """Return (folder, model) of DIR[:MODEL]; a model is a Python name, which no drive or path is."""
    folder, colon, model = spec.rpartition(":")
    if colon and not folder.strip():
        raise UserError(f"the extractor dinov2:{spec} names no folder: write dinov2:DIR or dinov2:DIR:MODEL")
    return (
        (Path(folder).expanduser(), model)
        if colon and model.isidentifier()
        else (Path(spec).expanduser(), MODEL)
    )


def _load(folder: Path, model: str) -> tuple[Any, str]:
    """Return a model of a folder's hubconf.py in evaluation mode, and the sha256 of its tensors."""
    if not (folder / "hubconf.py").is_file():
        raise DataError(
            f"{folder} has no hubconf.py: run `git clone {REPOSITORY} {folder}`, "
            "or name the folder that holds it as dinov2:DIR"
        )
    # Its attention asks for xFormers where that is installed, which has no kernels for CPUs.
    os.environ.setdefault("XFORMERS_DISABLED", "1")
    # Both are code, or are unpickled by it.
    refuse_shared_folder(folder / "hubconf.py")
    refuse_shared_folder(Path(torch.hub.get_dir()) / "checkpoints" / "weights")
    try:
        net: Any = torch.hub.load(str(folder), model, source="local")  # type: ignore[no-untyped-call]
        if not isinstance(net, torch.nn.Module):
            raise TypeError(f"it gave a {type(net).__name__}")
        return net.eval().requires_grad_(False), state_sha256(net)
    except (Exception, SystemExit) as error:  # whatever code of others, or torch's reader of weights, raises
        raise DataError(
            f"{folder} did not give the model {model} ({last_line(error)}): name one of its hubconf.py as "
            f"dinov2:{folder}:MODEL, and put its weights into {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from error
