"""A joint step with one backward pass or with two: that they give the same gradients, and what each costs.

Algorithm 3 of arXiv:2106.05931 trains the VAE with the likelihood weighting and the prior with another one on
the same draw of t: backward through the VAE's loss, which keeps the graph; the prior's gradients are thrown
away; backward through the prior's loss. Written as in the paper the second pass runs down to the encoder,
whose gradients nobody wants; cut, it stops at the prior's parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.bench.measuring import quartiles, time_in_turn
from lsgm.bench.targets import towards
from lsgm.data import ImageSet, PixelPipeline, batch_indices
from lsgm.model.lsgm import LSGM
from lsgm.objective.bound import Objective, diffuse
from lsgm.recipes.recipe import KLConfig
from lsgm.rng import StepNoise
from lsgm.runs.load import fresh_networks
from lsgm.times import Weighting, importance_weight
from lsgm.train.computing import low_precision
from lsgm.train.loop import pixels_of
from lsgm.train.losses import JointLoss
from lsgm.vae.base import sum_per_sample

KL_WEIGHT = 0.7
"""An annealing coefficient other than 1, so that a mistake in its place would show."""


def joint_loss(networks: LSGM, weighting: str, *, time_eps: float) -> JointLoss:
    """Return stage 2's loss of these networks with a constant KL coefficient, as the paper has it.

    That is without the control variate, which is no evaluation and no pass more.
    """
    objective = Objective.make(
        networks.prior.sde,
        weighting=weighting,
        importance_sampling=True,
        time_eps=time_eps,
        control_variate=False,
    )
    return JointLoss(networks.vae, networks.prior, objective, KLConfig(KL_WEIGHT, KL_WEIGHT, 0.0))


@dataclass(frozen=True)
class Backward:
    """Forward and backward of a joint step on a batch of uint8 levels, autocast to ``dtype`` unless None."""

    loss: JointLoss
    levels: Tensor
    seed: int
    dtype: torch.dtype | None = None

    def one(self) -> None:
        """The objective of this package: one backward pass."""
        with self._autocast():
            total = self.loss(self.levels, self._noise(), 1.0).total
        total.backward()

    def two(self) -> None:
        """Algorithm 3 as it is written."""
        self._two(lambda prior_loss: prior_loss.backward())  # type: ignore[no-untyped-call]

    def two_cut(self) -> None:
        """Algorithm 3 with a second pass that goes no further than the prior's parameters."""
        prior = list(self.loss.prior.parameters())
        self._two(lambda prior_loss: torch.autograd.backward(prior_loss, inputs=prior))

    def _two(self, second: Callable[[Tensor], None]) -> None:
        vae_loss, prior_loss = self._two_losses()
        vae_loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        # These are the VAE's gradients: what the second pass would add belongs to another loss.
        vae = [(parameter, parameter.grad) for parameter in self.loss.vae.parameters()]
        self.loss.zero_grad()
        second(prior_loss)
        for parameter, gradient in vae:
            parameter.grad = gradient

    def _two_losses(self) -> tuple[Tensor, Tensor]:
        """Return the VAE's loss and the prior's on the noise that the one pass draws."""
        loss, noise = self.loss, self._noise()
        objective, sde = loss.objective, loss.objective.sde
        k = loss.kl.at(1.0)
        with self._autocast():
            z, log_q_groups = loss.vae.posterior(self.levels, noise.normal)
            groups = loss.vae.groups
            z_0, log_q = groups.stack(z), torch.stack(log_q_groups).sum(dim=0) - groups.log_p_lower(z)
            reconstruction = -sum_per_sample(loss.vae.likelihood(z).log_prob(self.levels))
            eps = noise.normal(*z_0.shape[1:])
            t = objective.proposal.sample(noise.stratified())
            w_p = importance_weight(sde, objective.weighting, objective.proposal, t)
            w_q = importance_weight(sde, Weighting.LL, objective.proposal, t)
            error = sum_per_sample((eps - loss.prior.eps(diffuse(sde, z_0, t, eps).z_t, t)) ** 2)
            cross_entropy = w_q * error + sum_per_sample(sde.terminal_kl(z_0))
            vae_loss = (reconstruction + k * (log_q + cross_entropy)).mean()
            return vae_loss, (w_p.to(error.dtype) * error).mean()

    def _noise(self) -> StepNoise:
        return StepNoise(self.seed, 0, global_batch=len(self.levels), device=self.levels.device)

    def _autocast(self) -> torch.autocast:
        kind = self.levels.device.type
        return torch.autocast(kind, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)


PASSES: dict[str, Callable[[Backward], None]] = {
    "one": Backward.one,
    "two": Backward.two,
    "two_cut": Backward.two_cut,
}
"""The ways to the same gradients, by name; the first is the one in use."""


def largest_difference(
    networks: LSGM, weighting: str, levels: Tensor, *, time_eps: float, seed: int
) -> float:
    """Return how far the other ways' gradients lie from the first's, relative to the largest gradient.

    The networks must be a float64 copy, without dropout, which this function changes: layers that
    start at zero would hide mistakes behind zero gradients, so every parameter is moved a little first.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in networks.parameters():
            shift = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.05 * shift.to(parameter.device))
    backward = Backward(joint_loss(networks, weighting, time_eps=time_eps), levels, seed)
    reference, *others = PASSES.values()
    first, largest = _gradients(networks, backward, reference), 0.0
    parts = [name for name, _ in networks.named_children()]
    for way in others:  # one after the other: at full width each one's gradients are gigabytes
        found = _gradients(networks, backward, way)
        largest = max(largest, *(_distance(first, found, part) for part in parts))
    return largest


def _gradients(networks: nn.Module, backward: Backward, way: Callable[[Backward], None]) -> dict[str, Tensor]:
    networks.zero_grad()
    way(backward)
    return {name: p.grad for name, p in networks.named_parameters() if p.grad is not None}


def _distance(a: dict[str, Tensor], b: dict[str, Tensor], part: str) -> float:
    """Return max |a - b| / max |a| over the parameters of one part."""
    if a.keys() != b.keys():
        raise ArithmeticError(f"gradients of {sorted(a.keys() ^ b.keys())} exist in one way only")
    names = [name for name in a if name.startswith(f"{part}.")]
    scale = max(float(a[name].abs().max()) for name in names)
    return max(float((a[name] - b[name]).abs().max()) for name in names) / scale


CHECKED = 2
"""Images on which the gradients are compared, in float64."""
MOST = "5/3 is the most that there is, of steps that are convolutions and nothing else"
"""Why two passes may cost less than is asked: a forward pass and two of twice its work, over one and one."""
TOLERANCE = 1e-10
"""Both ways sum the same products in another order: a few hundred roundings of 1e-16 each."""


def compare_passes(
    recipe: Any, images: ImageSet, *, rounds: int, device: torch.device, label: str
) -> dict[str, Any] | None:
    """Return the row of a recipe, None for a model without two objectives: no LSGM, or its VAE frozen.

    Ratios are taken within a round. Raises ArithmeticError where the gradients differ.
    """
    pixels = pixels_of(images, recipe.data.bits)
    networks = fresh_networks(recipe, pixels)
    if not isinstance(networks, LSGM) or not recipe.stage2.train_vae:
        return None
    objective, config = recipe.prior.objective, recipe.stage2
    weighting = weighting_of(recipe)
    levels = first_levels(recipe, images, config.batch_size, device)
    difference = largest_difference(
        copy.deepcopy(networks).to(device, torch.float64).eval(),
        weighting,
        levels[:CHECKED],
        time_eps=objective.time_eps,
        seed=recipe.seed,
    )
    if not difference <= TOLERANCE:
        raise ArithmeticError(
            f"{label}: one backward pass and two differ by {difference:.1e} of the gradient"
        )
    loss = joint_loss(networks.to(device).train(), weighting, time_eps=objective.time_eps)
    backward = Backward(loss, levels, recipe.seed, low_precision(config.precision, device))
    seconds = time_in_turn(
        {name: partial(way, backward) for name, way in PASSES.items()},
        rounds,
        device,
        desc=f"{label} one pass or two",
        before=loss.zero_grad,
    )
    row: dict[str, Any] = {
        "what": "backward",
        "recipe": label,
        "weighting": weighting,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "rounds": rounds,
        "largest_difference": difference,
    }
    for name, times in seconds.items():
        row |= quartiles(f"{name}_ms", 1e3 * times)
        if name != "one":
            row |= quartiles(f"{name}_over_one", times / seconds["one"])
    of = f"{label}, forward and backward, batch {config.batch_size}, {device.type}"
    return row | towards("joint-step", row["two_over_one"], of, MOST)


def first_levels(recipe: Any, images: ImageSet, size: int, device: torch.device) -> Tensor:
    """Return the batch that training would begin with."""
    train = images.split("train")
    raw = train[batch_indices(len(train), size, recipe.seed, 0)].to(device)
    pipeline = PixelPipeline.of(images, bits=recipe.data.bits, flip=recipe.data.flip)
    return pipeline.levels(raw, StepNoise(recipe.seed, 0, global_batch=size, device=device))


def weighting_of(recipe: Any) -> str:
    """Return the prior's weighting in comparisons with two passes.

    With the likelihood weighting and k = 1 the two losses are one, and nobody needs a second pass.
    """
    asked: str = recipe.prior.objective.weighting
    return asked if asked != "ll" else "re"
