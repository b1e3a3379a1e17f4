"""Data-space score models: the score network on pixels, its training stage, its coders and its measurement.

As a latent model it has a coder that adds the smallest noise and rounds it away.
With x the levels on [-1, 1], q(z | x) = N(z; m_e x, var_e I) at the smallest time e, and p(x | z) is
proportional to N(z; m_e x, var_e) over the levels (Kingma et al., arXiv:2107.00630, section 3.3). The same
bound as an LSGM's then holds for the discrete images, so that the two stand in one table, in the same nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.model.diffusion import ScoreBasedModel, likelihood_bound, training_remark
from lsgm.model.lsgm import Encoded, make_prior, parameter_counts
from lsgm.objective.bound import Objective, diffuse
from lsgm.pixels import PixelDistribution, network_input
from lsgm.recipes.recipe import ObjectiveConfig, PriorConfig
from lsgm.rng import StepNoise
from lsgm.score import ScoreModel
from lsgm.sde import SDE
from lsgm.train.optim import ParamGroup
from lsgm.train.stage import Losses, Stage
from lsgm.train.stages import make_objective
from lsgm.vae.base import LOG_2PI, Noise, repeated, sum_per_sample
from lsgm_baselines.recipe import ScoreStage, SGMRecipe

CHUNK = 1 << 24
"""Largest number of (sub-pixel, level) pairs held at once."""


class RoundedPixels:
    """p(x | z) of levels x given noisy pixels z [B, C, H, W]: softmax of -(z - m x)^2 / (2 var) over x."""

    is_mass = True

    def __init__(self, z: Tensor, mean: float, var: float, levels: int) -> None:
        self.z = z
        self.mean_coef = mean
        self.var = var
        self.values = torch.linspace(-1, 1, levels, device=z.device)

    def _logits(self, z: Tensor) -> Tensor:
        return -((z[..., None] - self.mean_coef * self.values) ** 2) / (2 * self.var)

    def _by_pieces(self, work: Callable[[Tensor, Tensor], Tensor], of_each: Tensor) -> Tensor:
        """Return ``work`` of all logits [B, C, H, W, L] and what belongs to each image, some at a time."""
        rows = max(1, CHUNK // (self.z[0].numel() * len(self.values)))
        parts = zip(torch.split(self.z, rows), torch.split(of_each, rows), strict=True)
        return torch.cat([work(self._logits(z), own[..., None]) for z, own in parts])

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p of the given levels per sub-pixel, in nats."""
        return self._by_pieces(
            lambda logits, index: torch.log_softmax(logits, dim=-1).gather(-1, index)[..., 0], levels.long()
        )

    def mean(self) -> Tensor:
        """Return the expected image in [0, 1]."""
        return self._by_pieces(
            lambda logits, _: ((torch.softmax(logits, dim=-1) * self.values).sum(dim=-1) + 1) / 2, self.z
        )

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1] by inverting the distribution function."""
        last = len(self.values) - 1

        def draw(logits: Tensor, own: Tensor) -> Tensor:
            return (torch.softmax(logits, dim=-1).cumsum(dim=-1) < own).sum(dim=-1).clamp(max=last) / last

        return self._by_pieces(draw, uniform)


class NoisyPixels:
    """The coder of a data-space score model, at the smallest time it was trained at."""

    step_control: Literal["state", "density"] = "density"

    def __init__(self, sde: SDE, pixels: Pixels, time_eps: float) -> None:
        self.sde = sde
        self.pixels = pixels
        self.latent_shape = pixels.shape
        self.ode_start = time_eps
        t = torch.tensor([time_eps], dtype=torch.float64)
        self._mean, self._var = float(sde.mean(t)), float(sde.var(t))

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        """Draw z_e = m_e x + sigma_e n for images given as levels, uint8 [B, C, H, W], ``draws`` for each."""
        levels = repeated(levels, draws)
        x = network_input(levels, self.pixels)
        n = noise(*self.pixels.shape)
        t = torch.full((len(x),), self.ode_start, dtype=torch.float64, device=x.device)
        z_e = diffuse(self.sde, x, t, n).z_t
        log_sigma = 0.5 * math.log(self._var)
        log_q = sum_per_sample(-0.5 * n**2 - log_sigma - 0.5 * LOG_2PI)
        log_q_mean = torch.full_like(log_q, -self.pixels.dims * self.sde.entropy_const(self.ode_start))
        reconstruction = -sum_per_sample(self.decode(z_e).log_prob(levels))
        return Encoded(x, z_e, log_q, log_q_mean, reconstruction)

    def decode(self, z: Tensor, noise: Noise | None = None) -> PixelDistribution:
        """Return p(x | z_e), for which no noise is needed."""
        return RoundedPixels(z, self._mean, self._var, self.pixels.levels)


# Data-space score models of dequantised levels: coders by uniform noise on each level's cell


def dequantised(levels: Tensor, uniform: Tensor, count: int) -> Tensor:
    """Return 2 (level + u) / L - 1 for u in [0, 1): points of the cells of L = ``count`` levels, float32."""
    return ((levels + uniform) * (2.0 / count) - 1.0).float()


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """Return log(Phi(high) - Phi(low)) for low < high, both float64, however far out and however narrow.

    Across 0 the two error functions have opposite signs and nothing cancels. On one side, mirrored to the
    left, Phi(high) (1 - Phi(low) / Phi(high)) is taken in logarithms, where Phi itself would underflow.
    """
    mirrored = low + high > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    across = ((torch.erf(high / math.sqrt(2)) - torch.erf(low / math.sqrt(2))) / 2).log()
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    return torch.where(high > 0, across, log_high + (-torch.expm1(log_low - log_high)).log())


def _uniform(noise: Noise, pixels: Pixels) -> Tensor:
    """Return u ~ U[0, 1) as Phi(n) of Normal noise, float64.

    Coders are given Normal noise and nothing else, so that their protocol stays one function. Phi rounds to 1
    for n above 8.2, which [0, 1) leaves out.
    """
    uniform: Tensor = torch.special.ndtr(noise(*pixels.shape).double())
    return uniform.clamp(max=1 - 2**-53)


class CellPixels:
    """p(x | z) of levels x given points z [B, C, H, W]: 1 for the cell of z, the nearest one outside."""

    is_mass = True

    def __init__(self, z: Tensor, levels: int) -> None:
        self.z = z
        self.levels = levels

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return 0 where z lies in the level's cell, -inf elsewhere."""
        return torch.zeros_like(self.z).masked_fill(self._level() != levels, -torch.inf)

    def mean(self) -> Tensor:
        """Return the image in [0, 1]."""
        return self._level() / (self.levels - 1)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return the image in [0, 1]: nothing is left to chance."""
        return self.mean()

    def _level(self) -> Tensor:
        return ((self.z + 1) * (self.levels / 2)).floor().clamp(0, self.levels - 1)


class NoisyCellPixels(RoundedPixels):
    """p(x | z) proportional to Phi((z - m a) / sigma) - Phi((z - m b) / sigma), with [a, b] the cell of x.

    It is the posterior of x given z = m v + sigma n for v uniform on [-1, 1], whose cells have equal chances.
    """

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p of the given levels per sub-pixel, in nats, float64; the sum over cells telescopes."""
        side = torch.ones_like(self.z, dtype=torch.float64)
        return self.log_cell(levels) - self._log_mass(-side, side)

    def mean(self) -> Tensor:
        """Return the most probable image in [0, 1], the cell that z / m lies in: a mean is between levels."""
        return CellPixels(self.z / self.mean_coef, len(self.values)).mean()

    def log_cell(self, levels: Tensor) -> Tensor:
        """Return log P(n : z - sigma n in m times the level's cell) per sub-pixel, float64."""
        low = levels.double() * (2 / len(self.values)) - 1
        return self._log_mass(low, low + 2 / len(self.values))

    def _log_mass(self, low: Tensor, high: Tensor) -> Tensor:
        z, sigma = self.z.double(), math.sqrt(self.var)
        return log_mass((z - self.mean_coef * high) / sigma, (z - self.mean_coef * low) / sigma)

    def _logits(self, z: Tensor) -> Tensor:
        every = torch.arange(len(self.values), device=z.device)
        return NoisyCellPixels(z[..., None], self.mean_coef, self.var, len(every)).log_cell(every)


class NoisyCells(NoisyPixels):
    """The coder of a model trained on dequantised levels, at the smallest time e it was trained at.

    With v uniform on the level's cell [a, b] and z_e = m_e v + sigma_e n, per sub-pixel

        q(z_e | x) = (Phi((z_e - m_e a) / sigma_e) - Phi((z_e - m_e b) / sigma_e)) / (m_e (b - a)),

    and p(x | z_e) is `NoisyCellPixels`. Both are exact, so that the bound is strict, by theorem 1 and by flow
    alike: what the theorem says of CE(q(z_e | v) || p_e) holds of its mean over v. The entropy of q(z_e | x)
    has no closed form; log q of the very draw stands for it, and its noise cancels the reconstruction's.
    """

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        """Draw v and z_e for images given as levels, uint8 [B, C, H, W]; ``draws`` rows for each, in turn."""
        count = self.pixels.levels
        levels = repeated(levels, draws)
        v = dequantised(levels, _uniform(noise, self.pixels), count)
        t = torch.full((len(v),), self.ode_start, dtype=torch.float64, device=v.device)
        z_e = diffuse(self.sde, v, t, noise(*self.pixels.shape)).z_t
        decoded = self.decode(z_e)
        log_q = sum_per_sample(decoded.log_cell(levels) - math.log(2 * self._mean / count))
        return Encoded(v, z_e, log_q, log_q, -sum_per_sample(decoded.log_prob(levels)))

    def decode(self, z: Tensor, noise: Noise | None = None) -> NoisyCellPixels:
        """Return p(x | z_e), for which no noise is needed."""
        return NoisyCellPixels(z, self._mean, self._var, self.pixels.levels)


class DequantisedPixels:
    """Uniform dequantisation, the coder that published bits per dimension of data-space models come from.

    A density p on [-1, 1]^D gives an image the mass of its cell, P(x) = int_cell p(z) dz. With u ~ U[0, 1)

        z = 2 (x + u) / L - 1,    -log P(x) <= E_u[-log p(z)] + D log(L / 2).

    p is the density of the process at ``ode_start``, the smallest time that the model was trained at, and z
    itself stands for z_e. It is the density that the model samples, which makes the bound strict for that
    model with its samples rounded to cells. z has none of the noise that theorem 1 is about: the bound is by
    flow only.

    It asks for a density that fills the cells, as a model's does that was trained on dequantised levels. One
    trained on the levels' own points keeps its mass within sigma_e of them. Where sigma_e is well below a
    cell's width most of z is improbable by many nats, and the bound valid but loose. Binary levels are the
    extreme: their cells are [-1, 0] and [0, 1], their points the outer edges; half of the mass falls outside
    of both, and the inside costs about 1 / (6 sigma_e^2) nats per pixel. `NoisyPixels` scores such a model.
    """

    step_control: Literal["state", "density"] = "density"

    def __init__(self, pixels: Pixels, time_eps: float) -> None:
        self.pixels = pixels
        self.latent_shape = pixels.shape
        self.ode_start = time_eps

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        """Draw z for images given as levels, uint8 [B, C, H, W]; ``draws`` rows for each, in turn."""
        count = self.pixels.levels
        z = dequantised(repeated(levels, draws), _uniform(noise, self.pixels), count)
        log_q = torch.full(
            (len(z),), self.pixels.dims * math.log(count / 2), dtype=torch.float64, device=z.device
        )
        return Encoded(z, z, log_q, log_q, torch.zeros_like(log_q))

    def decode(self, z: Tensor, noise: Noise | None = None) -> PixelDistribution:
        """Return the level whose cell each z lies in, for which no noise is needed."""
        return CellPixels(z, self.pixels.levels)


# The model itself, and its only stage


class SGM(nn.Module):
    """A score model of pixels on [-1, 1]."""

    def __init__(self, config: PriorConfig, pixels: Pixels) -> None:
        super().__init__()
        self.pixels = pixels
        self.prior = make_prior(config, pixels.shape)


class ScoreLoss(nn.Module):
    """Denoising score matching on the pixels, E_t [lambda(t) || eps - eps_theta(x_t, t) ||^2].

    x are the levels' own points or, with ``dequantise`` uniform, new points of their cells at every step.
    """

    def __init__(
        self,
        prior: ScoreModel,
        pixels: Pixels,
        objective: Objective,
        *,
        dequantise: Literal["none", "uniform"] = "none",
    ) -> None:
        super().__init__()
        self.prior = prior
        self.pixels = pixels
        self.objective = objective
        self.dequantise = dequantise

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        """Return the mean loss over uint8 levels [B, C, H, W]; every term is in nats per image.

        Of the levels' own points ``kl`` is the bound on -log P(x) without the cost of rounding z_e to levels;
        of dequantised levels ``nelbo`` is at most looser than that bound by the noise beyond the outer cells.
        """
        x = self._points(levels, noise)
        eps = noise.normal(*self.pixels.shape)
        ce = self.objective.cross_entropy(self.prior, x, noise.stratified(), eps)
        terms = {"score_loss": ce.score_loss, **self._bound(ce.value)}
        return Losses(ce.surrogate.mean(), {name: x.mean() for name, x in terms.items()})

    def _points(self, levels: Tensor, noise: StepNoise) -> Tensor:
        if self.dequantise == "none":
            return network_input(levels, self.pixels)
        return dequantised(levels, noise.uniform(*self.pixels.shape), self.pixels.levels)

    def _bound(self, cross_entropy: Tensor) -> dict[str, Tensor]:
        sde, e, dims = self.objective.sde, self.objective.time_eps, self.pixels.dims
        if self.dequantise == "none":
            return {"kl": cross_entropy - dims * sde.entropy_const(e)}
        cell = 2 * float(sde.mean(torch.tensor(e, dtype=torch.float64))) / self.pixels.levels
        return {"nelbo": cross_entropy - dims * math.log(cell)}


@dataclass(frozen=True)
class ScoreStep(Stage):
    """The only stage: the score model on the images."""

    networks: SGM
    objective: ObjectiveConfig
    config: ScoreStage
    dequantise: Literal["none", "uniform"] = "none"
    name: str = "score"
    compile_of: tuple[str, ...] = ("prior.network",)

    @cached_property
    def module(self) -> ScoreLoss:
        """The loss, with the score model inside."""
        prior = self.networks.prior
        objective = make_objective(self.objective, prior)
        return ScoreLoss(prior, self.networks.pixels, objective, dequantise=self.dequantise)

    def groups(self) -> list[ParamGroup]:
        """Return the score model's parameters."""
        return [ParamGroup("prior", list(self.networks.prior.parameters()), self.config.prior)]


def measure_sgm(recipe: SGMRecipe, networks: SGM, state: Mapping[str, Any]) -> ScoreBasedModel:
    """Return a trained data-space score model as the harness sees it; its flow ends where training did.

    Its own coder is that of the points it was trained on: the levels' own, or those of their cells.
    """
    prior, pixels, config = networks.prior, networks.pixels, recipe.prior.objective
    uniform = recipe.dequantise == "uniform"
    coder = NoisyCells if uniform else NoisyPixels
    remarks = (training_remark(state, pixels), "trained on dequantised levels" if uniform else "")
    return ScoreBasedModel(
        coder=coder(prior.sde, pixels, config.time_eps),
        prior=prior,
        bound=likelihood_bound(prior, config),
        name=state["name"],
        sha256=state["sha256"],
        parameters=parameter_counts(networks),
        remark="; ".join(filter(None, remarks)),
        dequantised=DequantisedPixels(pixels, config.time_eps),
    )
