"""On a pretended second device nothing meets what is on the CPU, and a step brings no number to Python.

It is what can be known of a GPU without one: which tensors meet, and where the host would wait.
"""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import FAR, Elsewhere
from parity import levels, tiny_lsgm
from tiny import TABLES, bars, merged, recipe
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.kinds import recipe_from
from lsgm.model.diffusion import measure_lsgm
from lsgm.train.loop import train_recipe
from lsgm_eval.features.glyphs import GlyphExtractor

STATE = {"name": "tiny", "sha256": "0" * 64, "stage": "stage2", "step": 1, "meta": {}}
RISING = {"start": 0.5, "end": 1.0, "portion": 0.8, "balance": True}
PENALTY = {"gain": 1e-3}
# fmt: off
KINDS: dict[str, dict[str, Any]] = {
    "small VAE, prior first": {"prior_stage": {"steps": 2, "batch_size": 8, "drop_inactive": True}},
    "hierarchical, two draws": {
        "vae": {
            "kind": "nvae", "width": 4, "multipliers": [1, 1, 1], "blocks": 1, "scales": 2, "groups": 2,
            "latents": 2, "flows": 1, "pre_cells": 1, "post_cells": 1, "encoder_cells": 1,
            "decoder_cells": 1, "recompute": True,
        },
        "stage1": {"kl": RISING, "vae_penalty": PENALTY},
        "stage2": {
            "vae_times": "disjoint", "ema_prior": True, "vae_penalty": PENALTY, "prior_penalty": PENALTY,
        },
    },
}
# fmt: on


def test_the_pretence_refuses_what_a_gpu_refuses_and_notes_what_waits() -> None:
    with Elsewhere() as pretence:
        there = torch.zeros(3, device=FAR)
        assert there.device == FAR == (2 * there + torch.tensor(1.0)).device == torch.ones(2).to(there).device
        assert torch.zeros(3).device != FAR
        with pytest.raises(RuntimeError, match="add of tensors on two devices"):
            torch.add(there, torch.ones(3))
        layer = torch.nn.Linear(3, 1).to(FAR)
        layer(there).sum().backward()
        assert layer.weight.grad.device == FAR
        assert there.cpu().device != FAR
    assert not pretence.waits  # no line of the packages


@pytest.mark.parametrize("kind", KINDS)
def test_training_keeps_to_its_device_and_waits_where_it_checks_and_logs(kind: str, tmp_path: Path) -> None:
    quiet = {name: {"steps": 2, "log_every": 100, "val_every": 100} for name in ("stage1", "stage2")}
    usual = {name: table for name, table in TABLES.items() if name != "vae" or name not in KINDS[kind]}
    tables = merged(merged(usual, quiet), KINDS[kind])
    with Elsewhere() as pretence:
        assert train_recipe(recipe_from(tables, kind), tmp_path, device=FAR, images=bars()).finished
    waits: Counter[str] = Counter()
    for line, count in pretence.waits.items():
        waits[line.partition(":")[0]] += count
    stages = 2 + ("prior_stage" in KINDS[kind])
    # The guard looks at each step's numbers, on a GPU while the next step is under way; the log once a stage.
    assert waits.pop("train/signals.py") == 2 * stages
    assert waits.pop("train/engine.py") == stages
    # All else is before and after the steps: checkpoints, scores of held-out images, channels in use.
    assert waits.keys() <= {"runs/checkpoint.py", "train/stage.py", "train/prepare.py"}


@pytest.mark.parametrize(
    "name", ["heun", "ancestral", "unipc-3", "edm-heun", "predictor-corrector", "dopri5"]
)
def test_samples_keep_to_their_device_and_steps_wait_for_nothing(name: str) -> None:
    waits = []
    networks = tiny_lsgm()
    for steps in (3, 5):
        with Elsewhere() as pretence:
            model = measure_lsgm(recipe().prior.objective, copy.deepcopy(networks).to(FAR), STATE)
            config = SamplerConfig(name, steps=steps, time_end=0.01, rtol=1e-2, atol=1e-2)
            model.sample(range(2), config)
        waits.append(pretence.waits.total())
    assert waits[0] == waits[1]


@pytest.mark.parametrize("method", ["nelbo", "iw"])
def test_bounds_keep_to_their_device(method: Any) -> None:
    with Elsewhere():
        model = measure_lsgm(recipe().prior.objective, tiny_lsgm().to(FAR), STATE)
        config = DensityConfig(method=method, samples=2, draws=2, solver="heun", steps=2)
        assert bool(model.density(levels(2), range(2), config).nats.isfinite().all())


def test_a_density_by_fixed_steps_waits_for_none_of_them() -> None:
    waits = []
    for steps in (2, 5):
        with Elsewhere() as pretence:
            model = measure_lsgm(recipe().prior.objective, tiny_lsgm().to(FAR), STATE)
            model.density(levels(2), range(2), DensityConfig(method="ode", solver="rk4", steps=steps))
        waits.append(pretence.waits.total())
    assert waits[0] == waits[1]


def test_features_keep_to_their_device() -> None:
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    with Elsewhere():
        features: Tensor = GlyphExtractor(device=FAR)(images)
        assert features.device != FAR
