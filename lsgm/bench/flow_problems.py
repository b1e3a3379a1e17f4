"""What the benchmark of log-densities scores: draws of a mixture in latent shape, or of a trained prior."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from lsgm.bench.flow_ways import Flow, true_log_p
from lsgm.bench.worlds import mixture_score
from lsgm.config import SamplerConfig
from lsgm.errors import ConfigError
from lsgm.models.load import load_model
from lsgm.models.measured import ScoreBasedModel
from lsgm.rng import SeededNoise
from lsgm.samplers import draw
from lsgm.samplers.grids import time_end_of
from lsgm.sde import VPSDE

__all__ = ["SHAPE", "Problem", "mixture_problem", "model_problem"]

SHAPE = (8, 4, 4)
"""Of the mixture's draws: small enough for a minute, large enough that probes are noisy."""


@dataclass(frozen=True)
class Problem:
    """A flow in the networks' own dtype, and the truth of its log-densities [B] with its standard error."""

    name: str
    flow: Flow
    truth: Tensor
    truth_error: Tensor


def mixture_problem(*, batch: int, seed: int, truth_tol: float) -> Problem:
    """Return the problem on a mixture of four Gaussians under the variance preserving SDE, in float64."""
    world = mixture_score(VPSDE(), SHAPE)
    flow = Flow(world, world.draw(batch, seed), time_end_of(world.sde))
    truth, error = true_log_p(flow, truth_tol)
    return Problem(f"mixture, {'x'.join(map(str, SHAPE))}", flow, truth, error)


def model_problem(
    path: str, *, batch: int, seed: int, truth_tol: float, truth_probes: int, device: torch.device
) -> Problem:
    """Return the problem on draws z_0 of a trained prior; its network runs in float32, the truth in float64.

    Raises ConfigError for a model without a score prior, CheckpointError where there is none.
    """
    model = load_model(path, device=device)
    if not isinstance(model, ScoreBasedModel):
        raise ConfigError(f"{path} has no probability flow; give a model with a score prior")
    shape, start = model.coder.latent_shape, model.coder.ode_start
    seeds = range(seed, seed + batch)
    sampler = SamplerConfig(name="heun", steps=20, time_end=start)
    z0 = draw(model.prior, shape, SeededNoise(seeds, device=device, stream="prior"), sampler).z
    noise = SeededNoise(seeds, device=device, stream="truth")
    vectors = torch.stack([noise.rademacher(*shape) for _ in range(truth_probes)])
    exact = Flow(copy.deepcopy(model.prior).double(), z0.double(), start, vectors.double())
    truth, error = true_log_p(exact, truth_tol)
    flow = Flow(model.prior, z0, start, vectors)
    return Problem(f"{model.name}, {'x'.join(map(str, shape))}", flow, truth, error)
