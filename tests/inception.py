"""Random weights in the formats of the official Inception files, whose features do depend on the image."""

from __future__ import annotations

import io
import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsgm_eval.torchvision_import import ensure_torchvision

__all__ = ["photographs", "random_script", "random_state"]


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict with torch-fidelity's names and shapes.

    Convolutions keep the variance of what they see (He et al. 2015), so that no layer forgets its input.
    """
    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Blank(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    state: dict[str, Tensor] = Blank("x", ["2048"], feature_extractor_weights_path=nothing).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.startswith("fc."):
            tensor.normal_(0, 0.05, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            tensor.normal_(0, 0.1, generator=generator)
    return state


class Script(nn.Module):
    """The outside of the official TorchScript file around a few layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 8, 7, stride=5),
                act=nn.ReLU(),
                conv_1=nn.Conv2d(8, 32, 5, stride=4),
                act_1=nn.ReLU(),
                conv_2=nn.Conv2d(32, 2048, 3, stride=3),
                pool2=nn.AdaptiveAvgPool2d(1),
            )
        )
        self.output = nn.Linear(2048, 1008)

    def forward(self, x: Tensor, return_features: bool = True) -> Tensor:
        return self.layers((x.float() - 128) / 128).view(-1, 2048)


def random_script(path: Path, module: nn.Module | None = None) -> Path:
    """Write a TorchScript in the format of ``inception-2015-12-05.pt`` and return where."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(0)
        torch.jit.script(module or Script()).save(str(path))
    return path


def photographs(count: int) -> Tensor:
    """Return the first test images of CIFAR-10, uint8 [N, 3, 32, 32]; skip the test where they are not."""
    from lsgm.data import load
    from lsgm.errors import DataError

    shared = Path(os.environ.get("LSGM_SHARED", Path(__file__).parents[1].parent / "shared"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LSGM_CACHE", raising=False)
        patch.setenv("LSGM_DATA", os.environ.get("LSGM_DATA", str(shared / "data")))
        try:
            return load("cifar10").splits["test"][:count]
        except DataError as error:
            pytest.skip(f"CIFAR-10 is not here: {error}")
