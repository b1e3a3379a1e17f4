"""Inception-v3 as torch-fidelity runs it: the feature space of FID, KID and the Inception Score."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.errors import DataError
from lsgm.files.shown import shown
from lsgm_eval.extractors.base import ImageShape, check_features, to_rgb
from lsgm_eval.extractors.weights import FIDELITY_INCEPTION, open_own, read_own, read_published
from lsgm_eval.torchvision_import import ensure_torchvision

__all__ = ["FidelityInception"]

SPATIAL_CHANNELS = 7


class FidelityInception:
    """Pooled features [N, 2048] of torch-fidelity's ``FeatureExtractorInceptionV3``.

    Images of any size are brought to 299x299 by TensorFlow 1's bilinear interpolation, inside its network.
    With the official weights its Frechet distance is FID (arXiv:1706.08500) by torch-fidelity's protocol and
    ``official`` is true; weights of one's own (``inception:FILE``) are named after their file and are another
    space. Its linear layer, without the bias as torch-fidelity has it, gives the classes of the Inception
    Score. Spatial features are those of sFID (arXiv:2103.03841) as ADM measures it: the first 7 channels of
    the 17x17 map ``mixed_6/conv`` of the TensorFlow graph, here ``Mixed_6d.branch1x1``, flattened to 2023.

    Raises DataError for weights that are missing, damaged or of another network.
    """

    dim = 2048
    spatial_dim = SPATIAL_CHANNELS * 17 * 17
    classes = 1008
    resize = "tensorflow1-bilinear-299"
    image_shape: ImageShape = (3, None, None)
    """Grey images are taken as well, repeated over the channels."""

    def __init__(self, file: str = "", *, device: torch.device | str = "cpu") -> None:
        def read(path: Path) -> tuple[bytes, Any]:
            raw = read_own(path)
            return raw, _build(path, raw)

        if file:
            path, (raw, net) = open_own(file, f"the weights {file}", read)
        else:
            path, raw = read_published(FIDELITY_INCEPTION)
            net = _build(path, raw)
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.official = self.sha256 == FIDELITY_INCEPTION.sha256
        self.name = "inception" if self.official else f"inception-own-{path.stem}"
        self.device = torch.device(device)
        self.net = net.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 [N, 2048]."""
        (pooled,) = self.net(to_rgb(self.name, images).to(self.device))
        return check_features(self.name, pooled).cpu()

    @torch.inference_mode()
    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features [N, 2048], spatial features [N, 2023]) of one pass."""
        seen: list[Tensor] = []
        hook = self.net.Mixed_6d.branch1x1.register_forward_hook(lambda *args: seen.append(args[-1]))
        try:
            pooled = self(images)
        finally:
            hook.remove()
        spatial = seen[0][:, :SPATIAL_CHANNELS].flatten(1)
        return pooled, check_features(self.name, spatial).cpu()

    @torch.inference_mode()
    def class_logits(self, features: Tensor) -> Tensor:
        """Return logits float32 [N, 1008] without bias, torch-fidelity's ``logits_unbiased``."""
        logits: Tensor = features.to(self.device, torch.float32).mm(self.net.fc.weight.T)
        return logits.cpu()


def _build(path: Path, raw: bytes) -> Any:
    """Return the network in evaluation mode with the weights that the bytes of a file hold."""
    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        with warnings.catch_warnings():
            # Of a TorchScript, which the error below is about.
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        # The package unpickles its file without restriction: it is given one made anew of what is tensors.
        clean = io.BytesIO()
        torch.save(_tensors(state), clean)
        clean.seek(0)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=clean
        )
    except Exception as error:  # torch's reader has no one kind of error for bytes that are no weights
        reason = shown(" ".join(str(error).split()) or type(error).__name__)[:200]
        raise DataError(
            f"{path} does not hold the weights of torch-fidelity's Inception-v3 ({reason}): give the "
            f"official file {FIDELITY_INCEPTION.file} or a state dict with its names and shapes"
        ) from error


def _tensors(state: object) -> dict[str, Tensor]:
    """Return a state dict of plain tensors of real numbers. Raises ValueError for anything else."""
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}")
    clean: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise ValueError(f"'{name}' is no tensor")
        counter = name.endswith("num_batches_tracked")
        if not (tensor.is_floating_point() or counter):
            raise ValueError(f"'{name}' is {tensor.dtype}")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise ValueError(f"'{name}' claims more numbers than it has")
        clean[name] = tensor.detach().contiguous()
    return clean
