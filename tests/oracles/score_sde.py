"""A checkpoint of score_sde_pytorch written down anew: its networks, its scores, and the files it saves.

The network is `SlowNCSNpp` with score_sde's own counting: resampling without weights has no number, and
random frequencies of log sigma are layer 0. Scores are of pixels as score_sde's SDEs have them, on [0, 1]
unless they are centred. It knows nothing of the importer.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from oracles.ncsnpp import SlowNCSNpp, slow_down, slow_up
from torch import Tensor
from torch.nn import functional as F

from lsgm.nets.config import ScoreNetConfig

__all__ = ["SlowScoreSDE", "contents", "save"]

NETWORK = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions")
BRANCHES = ("fir", "progressive", "progressive_input", "progressive_combine")


class SlowScoreSDE(SlowNCSNpp):
    """A model with these settings, drawn at random, in float64 but with weights that float32 can hold."""

    def __init__(self, settings: dict[str, Any], *, channels: int = 3, seed: int = 0) -> None:
        nf, multipliers, blocks, attention = (settings[key] for key in NETWORK)
        branches = {key: settings[key] for key in BRANCHES if key in settings}
        super().__init__(ScoreNetConfig(nf, tuple(multipliers), blocks, tuple(attention), **branches), seed)
        self.settings = {"sde": "vpsde", "centered": True, "sigma_min": 0.01, "sigma_max": 50.0, **settings}
        side = settings["image_size"]
        with torch.no_grad():
            self.score(
                torch.zeros(1, channels, side, side, dtype=torch.float64), torch.tensor([0.5]).double()
            )
        for name, value in self.weights.items():
            self.weights[name] = value.detach().float().double()

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the score at x [B, C, H, W] and t [B], both float64."""
        _, sigma = self.kernel(t)
        if self.settings["sde"] == "vesde":
            seen = x if self.settings["centered"] else 2 * x - 1
            return self.forward(seen, sigma) / sigma[:, None, None, None]
        return -self.forward(x, 999 * t) / sigma[:, None, None, None]

    def kernel(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean coefficient and standard deviation of x at t given x at 0."""
        if self.settings["sde"] == "vesde":
            low, high = self.settings["sigma_min"], self.settings["sigma_max"]
            return torch.ones_like(t), low * (high / low) ** t
        decay = torch.exp(-(0.1 * t + 19.9 * t**2 / 2))
        return decay.sqrt(), (1 - decay).sqrt() if self.settings["sde"] == "vpsde" else 1 - decay

    def times(self, t: Tensor) -> Tensor:
        """Embed what the network is told of the time: the time itself, or sigma."""
        nf = self.config.width
        if self.settings["sde"] == "vesde":
            angles = 2 * math.pi * torch.log(t)[:, None] * self.weight(f"{self.name()}.W", nf)
        else:
            half = nf // 2
            angles = t[:, None] * torch.exp(-math.log(10000) / (half - 1) * torch.arange(half).double())
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        first = self.affine(waves, self.name(), 4 * nf)
        return self.affine(F.silu(first), self.name(), 4 * nf)

    def plain_down(self, x: Tensor) -> Tensor:
        """Halve the side; it has no number."""
        return slow_down(x, fir=self.config.fir)

    def plain_up(self, x: Tensor) -> Tensor:
        """Double the side; it has no number."""
        return slow_up(x, fir=self.config.fir)


def contents(slow: SlowScoreSDE, step: int = 7) -> dict[str, Any]:
    """Return a file's contents: the oracle's weights are the averages, and the last ones are half of them."""
    s = slow.settings
    sigmas = torch.linspace(math.log(s["sigma_max"]), math.log(s["sigma_min"]), 1000, dtype=torch.float64)
    weights = OrderedDict([("module.sigmas", sigmas.exp())])
    for name, value in slow.weights.items():
        frequencies = name.endswith(".W") and value.ndim == 1
        weights[f"module.{name}"] = (value if frequencies else value / 2).float()
    trained = [value for name, value in slow.weights.items() if not (name.endswith(".W") and value.ndim == 1)]
    moments = {i: {"step": step, "exp_avg": torch.zeros_like(value)} for i, value in enumerate(trained)}
    return {
        "optimizer": {"state": moments, "param_groups": [{"lr": 2e-4, "params": list(range(len(trained)))}]},
        "model": weights,
        "ema": {
            "decay": 0.999,
            "num_updates": step,
            "shadow_params": [value.float() for value in trained],
        },
        "step": step,
    }


def save(content: dict[str, Any], path: Path) -> Path:
    """Write a file and return its path."""
    torch.save(content, path)
    return path
