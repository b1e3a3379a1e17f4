"""Random weights in the formats of the official Inception files, whose features do depend on the image."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

__all__ = ["photographs", "random_script"]


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
