"""Golden vectors: small random-weight models of the authors' code with what it computes of them, in float64.

They lie in ``$LSGM_SHARED/golden``, or in the folder ``shared`` beside this repository; without them the
tests that need them are skipped. Each of `FOLDERS` has

- ``checkpoint.pt``, laid out as the released checkpoints: epoch, global_step, args (an argparse.Namespace),
  vae_state_dict and dae_state_dict, float32;
- ``meta.json``: the args as plain JSON, and under ``step`` the averages of one training step;
- ``io.safetensors``: images, noises, latents, times, weights and gradients.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

__all__ = ["FOLDERS", "GOLDEN", "checkpoint_path", "golden", "golden_args", "needs_golden"]

FOLDERS = ("omniglot", "mnist", "cifar10_fid", "cifar10_nll", "celeba_256")
"""One small model for each family of the published experiments."""


def _find() -> Path | None:
    shared = os.environ.get("LSGM_SHARED")
    root = Path(shared) if shared else Path(__file__).resolve().parents[2] / "shared"
    return root / "golden" if (root / "golden").is_dir() else None


GOLDEN: Path | None = _find()
"""The folder of the golden vectors, None where there is none."""

needs_golden = pytest.mark.skipif(
    GOLDEN is None, reason="there are no golden vectors: LSGM_SHARED names no folder that holds golden/"
)
"""Marks a test that cannot run without the golden vectors."""


def golden(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Return a folder's (checkpoint, meta, inputs and outputs); only in a test marked `needs_golden`."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(checkpoint_path(name), map_location="cpu", weights_only=True)
    folder = checkpoint_path(name).parent
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return dict(checkpoint), dict(meta), dict(safetensors.torch.load_file(folder / "io.safetensors"))


def checkpoint_path(name: str) -> Path:
    """Return where a folder's checkpoint lies."""
    assert GOLDEN is not None, "mark the test with needs_golden"
    return GOLDEN / name / "checkpoint.pt"


def golden_args(name: str) -> dict[str, Any]:
    """Return the arguments of a folder's model as plain JSON has them."""
    meta = json.loads((checkpoint_path(name).parent / "meta.json").read_text(encoding="utf-8"))
    return dict(meta["args"])
