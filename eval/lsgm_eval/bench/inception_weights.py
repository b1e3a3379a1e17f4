"""Random weights for Inception-v3 in the formats of both official files: the cost is that of real ones."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsgm_eval.torchvision_import import ensure_torchvision

__all__ = ["random_state", "write_random_state", "write_script"]

SIDE = 299


def random_state(seed: int) -> dict[str, Tensor]:
    """Return a state dict with torch-fidelity's names and shapes.

    Convolutions keep the variance of what they see (He et al. 2015), so that features depend on the image.
    """
    state: dict[str, Tensor] = _blank().state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.startswith("fc."):
            tensor.normal_(0, 0.05, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            tensor.normal_(0, 0.1, generator=generator)
    return state


def write_random_state(path: Path, seed: int) -> None:
    """Write `random_state` as a file of weights."""
    torch.save(random_state(seed), path)


def write_script(state: Path, path: Path) -> None:
    """Write the network of a state dict as the TorchScript ``inception-2015-12-05.pt`` of clean-fid.

    Its ``layers`` take images [N, 3, 299, 299] in [-1, 1) to features [N, 2048, 1, 1].
    """
    net = _blank()
    net.load_state_dict(torch.load(state, map_location="cpu", weights_only=True), strict=True)
    with warnings.catch_warnings():
        # torch.jit is deprecated in favour of torch.export, which clean-fid does not read.
        warnings.simplefilter("ignore")
        script: Any = torch.jit
        module = script.script(_Script(net.eval()))
        script.save(module, str(path))


class _Script(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        trunk = nn.Sequential(*(layer for name, layer in net.named_children() if name != "fc"))
        trace: Any = torch.jit.trace
        self.layers = trace(trunk, torch.zeros(2, 3, SIDE, SIDE))
        self.output = net.fc

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.layers((x.float() - 128) / 128)
        return pooled.view(-1, 2048)


def _blank() -> Any:
    """Return torch-fidelity's network without its weights, which it would download."""
    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Blank(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
            if "strict" in kwargs:
                super().load_state_dict(*args, **kwargs)

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Blank("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
