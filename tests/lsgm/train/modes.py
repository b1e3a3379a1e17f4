"""Every mode of stage 2 as a tiny recipe, and what two processes train of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny

from lsgm.kinds import recipe_from
from lsgm.train.loop import train_recipe

PENALTY = {"spectral": 1e-3, "gain": 1e-3}
STEPS = {"stage1": {"steps": 3}, "stage2": {"steps": 3}}
"""Of which a third and two thirds are no end of a stage."""
RISING = {"start": 0.5, "end": 1.0, "portion": 0.8, "balance": True}
# fmt: off
MODES: dict[str, dict[str, Any]] = {
    "own": {"stage2": {"vae_times": "own", "vae_penalty": PENALTY, "prior_penalty": PENALTY}},
    "disjoint, averaged prior": {
        "stage2": {"vae_times": "disjoint", "ema_prior": True, "vae_importance_sampling": False}
    },
    "balanced": {"stage1": {"kl": RISING, "vae_penalty": PENALTY}, "stage2": {"kl": RISING}},
    "VAE stays": {"stage2": {"train_vae": False, "drop_inactive": True}},
    "VAE stays, cached": {"stage2": {"train_vae": False, "cached_draws": 2}, "data": {"flip": True}},
    "hierarchical, all at once": {
        "vae": {
            "kind": "nvae", "width": 4, "multipliers": [1, 1, 1], "blocks": 1, "scales": 2, "groups": 2,
            "latents": 2, "flows": 1, "input_skip": True, "pre_cells": 1, "post_cells": 1,
            "encoder_cells": 1, "decoder_cells": 1, "recompute": True,
        },
        "prior": {"network": {"recompute": True}},
        "stage1": {"kl": RISING, "vae_penalty": PENALTY},
        "stage2": {
            "vae_times": "disjoint", "ema_prior": True, "drop_inactive": True,
            "precision": "bfloat16", "kl": RISING, "vae_penalty": PENALTY, "prior_penalty": PENALTY,
        },
    },
    "prior first, velocity": {
        "prior": {"parameterisation": "velocity"},
        "prior_stage": {
            "steps": 3, "batch_size": 4, "ema": 0.8, "log_every": 1, "val_every": 3, "drop_inactive": True,
            "prior": {"lr": 5e-3}, "prior_penalty": PENALTY,
        },
        "data": {"flip": True},
    },
    "without control variate": {"prior": {"objective": {"control_variate": False}}},
    "in parts": {"stage1": {"accumulate": 2}, "stage2": {"accumulate": 4, "prior_penalty": PENALTY}},
    "largest variance from the data": {"prior": {"sde": {"kind": "ve", "sigma2_max": "data"}}},
}
# fmt: on


def recipe(mode: str, *, dropout: float = 0.1) -> Any:
    changes = {"prior": {"network": {"dropout": dropout}, "objective": {"weighting": "re"}}} | STEPS
    tables = tiny.merged(changes, MODES[mode])
    if "vae" in tables:  # tiny's own is of the other kind
        others = {key: value for key, value in tiny.TABLES.items() if key != "vae"}
        return recipe_from(tiny.merged(others, tables), "the hierarchical recipe")
    return tiny.recipe(tables)


SHARED = [
    "disjoint, averaged prior",
    "balanced",
    "VAE stays",
    "VAE stays, cached",
    "prior first, velocity",
    "hierarchical, all at once",
    "in parts",
]


def share(folder: Path) -> None:
    """Train without what differs between processes: dropout's stream, bfloat16's rounding."""
    for index, mode in enumerate(SHARED):
        exact = recipe(mode, dropout=0.0)
        exact = replace(exact, stage2=replace(exact.stage2, precision="float32"))
        train_recipe(exact, folder / str(index), images=tiny.bars())


SHARDED = ["own", "VAE stays, cached", "without control variate"]


def in_pieces(mode: str, *, sharded: bool) -> Any:
    """Return an exact recipe whose second stage, and where it may its first, is shared out in pieces."""
    exact = recipe(mode, dropout=0.0)
    second = replace(exact.stage2, sharded=sharded)
    return replace(exact, stage1=replace(exact.stage1, sharded=sharded), stage2=second)


def share_pieces(folder: Path) -> None:
    """Train modes whole and in pieces, and begin one in pieces that others go on with."""
    for index, mode in enumerate(SHARDED):
        for how in ("whole", "pieces"):
            exact = in_pieces(mode, sharded=how == "pieces")
            train_recipe(exact, folder / f"{index}-{how}", images=tiny.bars())
    go_on_in_pieces(folder)


def go_on_in_pieces(folder: Path) -> None:
    """Train in pieces from wherever the run stands, in the first call up to a step of the second stage."""
    train_recipe(in_pieces(SHARDED[0], sharded=True), folder / "mixed", images=tiny.bars(), max_steps=4)
