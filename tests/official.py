"""Files as the authors' code writes them, made from the golden checkpoints: for tests of their import."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from golden import golden
from torch import Tensor

__all__ = ["averaged", "raw", "save", "vae_alone"]


def averaged(name: str, **args: Any) -> dict[str, Any]:
    """The kind of checkpoint_fid.pt: averaged weights alone. ``args`` are changed."""
    content = golden(name)[0]
    content["args"] = argparse.Namespace(**{**vars(content["args"]), **args})
    content["vae_state_dict"], content["dae_state_dict"] = (
        dict(content[part]) for part in ("vae_state_dict", "dae_state_dict")
    )
    return content


def raw(name: str, **args: Any) -> dict[str, Any]:
    """The kind of checkpoint.pt: last weights, and averaged ones (twice as large here) in the optimiser."""
    content = averaged(name, **args)
    prior: dict[str, Tensor] = content["dae_state_dict"]
    state = {
        i: {"step": 5, "exp_avg": 0 * x, "exp_avg_sq": 0 * x, "ema": 2 * x}
        for i, x in enumerate(prior.values())
    }
    optimizer = {"state": state, "param_groups": [{"lr": 1e-4, "params": list(range(len(prior)))}]}
    others = {"grad_scalar": {"scale": 1024.0}, "dae_scheduler": {"last_epoch": 1}, "vae_optimizer": {}}
    return {**content, "dae_optimizer": optimizer, **others}


def vae_alone(name: str) -> dict[str, Any]:
    """The kind that stage 1 writes."""
    content = averaged(name)
    kept = {key: content[key] for key in ("epoch", "global_step", "args")}
    return {**kept, "state_dict": content["vae_state_dict"], "optimizer": {"state": {}}}


def save(content: dict[str, Any], path: Path) -> Path:
    """Write a file and return its path."""
    torch.save(content, path)
    return path
