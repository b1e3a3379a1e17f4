"""Tiny pipelines of the diffusers library, made by the library itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lsgm_eval.features.published import ensure_torchvision

__all__ = ["NOISING", "UNET", "library", "pipeline", "scheduler", "unet"]

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
NOISING: dict[str, Any] = {"num_train_timesteps": 20, "beta_start": 1e-3, "beta_end": 0.3}
"""Twenty betas after which 3 % of an image's variance are left."""


def library() -> Any:
    """Return the diffusers library, or skip the test that needs it."""
    ensure_torchvision()  # which it imports where there is one
    return pytest.importorskip("diffusers")


def unet(**options: Any) -> Any:
    """Return a small UNet2DModel with weights from a seed, all of them far from 0."""
    torch.manual_seed(0)
    network = library().UNet2DModel(**(UNET | options)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1 and parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    return network


def scheduler(name: str = "DDPMScheduler", **options: Any) -> Any:
    """Return a scheduler with few betas."""
    return getattr(library(), name)(**(NOISING | options))


def pipeline(folder: Path, network: Any = None, noising: Any = None) -> Any:
    """Save a pipeline and return it."""
    made = library().DDPMPipeline(network or unet(), noising or scheduler())
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder)
    return made
