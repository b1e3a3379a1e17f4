"""What training costs: a step's seconds by phase, and a joint step with one backward pass or with two.

Each stage is trained by the real engine in a run directory that is thrown away.

Algorithm 3 of arXiv:2106.05931 trains the VAE with the likelihood weighting and the prior with another one on
the same draw of t: backward through the VAE's loss, which keeps the graph; the prior's gradients are thrown
away; backward through the prior's loss. Written as in the paper the second pass runs down to the encoder,
whose gradients nobody wants; cut, it stops at the prior's parameters.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsgm.bench.cost import training_stages
from lsgm.bench.measuring import (
    Columns,
    Row,
    columns,
    measured,
    quartiles,
    read_recipes,
    spread,
    time_in_turn,
)
from lsgm.bench.options import TrainBench
from lsgm.config import StageConfig, require
from lsgm.data import ImageSet, PixelPipeline, batch_indices
from lsgm.model.lsgm import LSGM
from lsgm.objective.bound import Objective, diffuse
from lsgm.progress import bar
from lsgm.recipes.recipe import KLConfig
from lsgm.rng import StepNoise
from lsgm.runs.load import fresh_networks
from lsgm.times import Weighting, importance_weight
from lsgm.train.loop import load_images, pixels_of, train_recipe
from lsgm.train.losses import JointLoss
from lsgm.train.signals import PHASES, StepTimer
from lsgm.vae.base import sum_per_sample

WARM_UP = 3
"""Steps that do not count: compilation, caches, first allocations."""


class _ShownTimer(StepTimer):
    """A step timer that also keeps each step's seconds and moves a progress bar."""

    def __init__(self, progress: Any, *, skip: int) -> None:
        super().__init__(skip=skip)
        self.each: list[float] = []
        self._progress = progress

    def mark(self, phase: str) -> None:
        """End a phase, and with the last one the step."""
        super().mark(phase)
        if phase != PHASES[-1]:
            return
        self._progress.update()
        if self.steps > len(self.each):
            self.each.append(sum(self.seconds.values()) - sum(self.each))


def time_stage(
    recipe: Any, stage: str, images: ImageSet, *, steps: int, device: torch.device, label: str
) -> dict[str, Any]:
    """Train one stage alone for ``WARM_UP + steps`` steps and return its row.

    The stage keeps its schedules, batch and precision; validations and checkpoints on the way are switched
    off. Rates count the time between the start of a step and the end of its optimisers.
    """
    alone = _only(recipe, stage, WARM_UP + steps)
    with bar(total=WARM_UP + steps, desc=f"{label} {stage}", unit="step") as progress:
        timer = _ShownTimer(progress, skip=WARM_UP)
        # The engine's own bar would stand beside this one, and its closing sentence would advise going on
        # with a run that is about to vanish.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            outcome = train_recipe(
                alone,
                Path(folder) / "run",
                device=device,
                images=images,
                timer=timer,
                max_steps=WARM_UP + steps,
            )
    if outcome.exit_status:
        raise KeyboardInterrupt
    config: StageConfig = getattr(recipe, stage)
    return {
        "what": "stage",
        "recipe": label,
        "stage": stage,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "compile": config.compile,
        "steps": timer.steps,
        "steps_per_second": timer.steps_per_second,
        "images_per_second": timer.steps_per_second * config.batch_size,
        **quartiles("step_ms", [1e3 * seconds for seconds in timer.each]),
        **{f"share_{phase}": share for phase, share in timer.shares().items()},
    }


def _only(recipe: Any, stage: str, steps: int) -> Any:
    """Return the recipe with one stage left, which neither ends, validates nor saves within ``steps``."""
    changes: dict[str, StageConfig] = {}
    for name, config in training_stages(recipe).items():
        ends = {"steps": max(config.steps, steps + 1), "seconds": None}
        quiet = {"val_every": steps + 1, "checkpoint_every": 1e9}
        changes[name] = dataclasses.replace(config, **(ends | quiet if name == stage else {"steps": 0}))
    return dataclasses.replace(recipe, **changes)


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

    The networks must be a float64 copy on the CPU, without dropout, which this function changes: layers that
    start at zero would hide mistakes behind zero gradients, so every parameter is moved a little first.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    backward = Backward(joint_loss(networks, weighting, time_eps=time_eps), levels, seed)
    found = {name: _gradients(networks, backward, way) for name, way in PASSES.items()}
    first, *others = found.values()
    parts = [name for name, _ in networks.named_children()]
    return max(_distance(first, other, part) for other in others for part in parts)


def _gradients(networks: nn.Module, backward: Backward, way: Callable[[Backward], None]) -> dict[str, Tensor]:
    networks.zero_grad()
    way(backward)
    return {name: p.grad.clone() for name, p in networks.named_parameters() if p.grad is not None}


def _distance(a: dict[str, Tensor], b: dict[str, Tensor], part: str) -> float:
    """Return max |a - b| / max |a| over the parameters of one part."""
    if a.keys() != b.keys():
        raise ArithmeticError(f"gradients of {sorted(a.keys() ^ b.keys())} exist in one way only")
    names = [name for name in a if name.startswith(f"{part}.")]
    scale = max(float(a[name].abs().max()) for name in names)
    return max(float((a[name] - b[name]).abs().max()) for name in names) / scale


CHECKED = 4
"""Images on which the gradients are compared, in float64."""
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
    # With the likelihood weighting and k = 1 the two losses are one, and nobody needs a second pass.
    weighting = objective.weighting if objective.weighting != "ll" else "re"
    levels = _levels(recipe, images, config.batch_size, device)
    difference = largest_difference(
        copy.deepcopy(networks).double().eval(),
        weighting,
        levels[:CHECKED].cpu(),
        time_eps=objective.time_eps,
        seed=recipe.seed,
    )
    if not difference <= TOLERANCE:
        raise ArithmeticError(
            f"{label}: one backward pass and two differ by {difference:.1e} of the gradient"
        )
    loss = joint_loss(networks.to(device).train(), weighting, time_eps=objective.time_eps)
    dtype = torch.bfloat16 if config.precision == "bfloat16" else None
    backward = Backward(loss, levels, recipe.seed, dtype)
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
    return row


def _levels(recipe: Any, images: ImageSet, size: int, device: torch.device) -> Tensor:
    """Return the batch that training would begin with."""
    train = images.split("train")
    raw = train[batch_indices(len(train), size, recipe.seed, 0)].to(device)
    pipeline = PixelPipeline.of(images, bits=recipe.data.bits, flip=recipe.data.flip)
    return pipeline.levels(raw, StepNoise(recipe.seed, 0, global_batch=size, device=device))


_STAGES: Columns = {
    "recipe": "{recipe}",
    "stage": "{stage}",
    "batch": "{batch_size}",
    "precision": lambda row: row["precision"] + (", compiled" if row["compile"] else ""),
    "steps/s": "{steps_per_second:.3g}",
    "images/s": lambda row: (
        f"{row['images_per_second']:{'.3g' if row['images_per_second'] < 1000 else '.0f'}}"
    ),
    "step, ms": lambda row: spread(row, "step_ms", ".0f"),
    **{phase: f"{{share_{phase}:.0%}}" for phase in PHASES},
}
_PASSES: Columns = {
    "recipe": "{recipe}",
    "weighting": "{weighting}",
    "batch": "{batch_size}",
    "precision": "{precision}",
    "one, ms": lambda row: spread(row, "one_ms", ".0f"),
    "two, ms": lambda row: spread(row, "two_ms", ".0f"),
    "two, cut, ms": lambda row: spread(row, "two_cut_ms", ".0f"),
    "two / one": lambda row: spread(row, "two_over_one", ".2f"),
    "two, cut / one": lambda row: spread(row, "two_cut_over_one", ".2f"),
    "difference": "{largest_difference:.0e}",
}


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the page: the machine, the table of stages, and that of backward passes where there is one."""
    stages = [row for row in rows if row["what"] == "stage"]
    passes = [row for row in rows if row["what"] == "backward"]
    if (width := stages[0]["width"]) != 1:
        about += f" Networks at {width:g} of their recipes' width."
    parts = [
        "# What training costs",
        about,
        "## Steps",
        columns(_STAGES, stages),
        f"{stages[0]['steps']} steps of each stage in the training engine, after {WARM_UP} not counted. "
        "Rates are means, step times medians with quartiles, shares those of the summed time. Clipping, the "
        "moving average and the finite check count as optimiser; validation and checkpoints are left out.",
    ]
    if passes:
        parts += [
            "## One backward pass for both objectives",
            columns(_PASSES, passes),
            f"Forward and backward of a joint step, medians of {passes[0]['rounds']} rounds with quartiles, "
            "taken in turn on one model and batch, not compiled. *Two* is algorithm 3 of arXiv:2106.05931 as "
            "it is written; *two, cut* stops the second pass at the prior's parameters. Ratios are medians "
            "within rounds. The last column is the largest difference of any gradient in float64, relative "
            "to the largest gradient of its part.",
        ]
    return "\n\n".join(parts)


def run(options: TrainBench) -> int:
    """Measure, then print or write; the exit status is 0."""
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)

    def rows(device: torch.device) -> list[dict[str, Any]]:
        sets = {name: load_images(recipe) for name, recipe in recipes.items()}
        stages: list[dict[str, Any]] = []
        passes: list[dict[str, Any]] = []
        for name, recipe in recipes.items():
            how: dict[str, Any] = {"device": device, "label": name}
            for stage in training_stages(recipe):
                stages.append(time_stage(recipe, stage, sets[name], steps=options.steps, **how))
            if (row := compare_passes(recipe, sets[name], rounds=options.steps, **how)) is not None:
                passes.append(row)
        require(bool(stages), "every stage of every recipe has 0 steps; give at least one of them a budget")
        return stages + passes

    return measured("train", options, rows, page)
