"""Seconds of drawing images: network, decoder and sampler apart, one batch size after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.cost import recipe_pixels
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
from lsgm.bench.options import SampleBench
from lsgm.config import SamplerConfig, require
from lsgm.generative import GenerativeModel
from lsgm.kinds import find_kind
from lsgm.rng import SeededNoise
from lsgm.runs.load import fresh_networks
from lsgm.sampling import draw, find_sampler
from lsgm.score import per_sample
from lsgm.sde import SDE


class FreeScore:
    """A score function without a network: eps(z, t) = z sigma_t / (1 + sigma_t^2), which keeps z finite.

    What ``draw`` takes with it is the time outside the network: coefficients, steps, noise, counting, and
    of a velocity the arithmetic that makes it of eps.
    """

    def __init__(self, sde: SDE) -> None:
        self.sde = sde

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the predicted noise, of as little work as can be."""
        sigma = self.sde.sigma(t[:1])
        return z_t * (sigma / (1 + sigma**2)).to(z_t.dtype)

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity f z + g^2 eps / (2 sigma_t), arXiv:2106.05931 section 2."""
        f, weight = self.sde.f(t), self.sde.g2(t) / (2 * self.sde.sigma(t))
        return per_sample(f, z_t) * z_t + per_sample(weight, z_t) * self.eps(z_t, t)


def speed_rows(
    recipe: Any,
    sampler: SamplerConfig,
    sizes: Sequence[int],
    *,
    label: str,
    compiled: bool,
    rounds: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return a row for each batch size and way (eager, compiled): images per second and the decoder's share.

    Where compiling fails the row has no numbers and says why. Raises ConfigError for a recipe without a
    diffusion.
    """
    rows = []
    for way in ("eager", "compiled") if compiled else ("eager",):
        model, networks = _model(recipe, label, device)
        if way == "compiled":
            # A score model is asked through its methods, and only a call of a module is compiled.
            networks.prior.network.compile()
        for size in sizes:
            row: dict[str, Any] = {"what": "speed", "recipe": label, "kind": recipe.kind, "way": way}
            row |= {"batch_size": size, "sampler": sampler.name, "steps": sampler.steps, "rounds": rounds}
            try:
                rows.append(row | _speed(model, sampler, size, rounds, device, f"{label} {way} {size}"))
            except Exception as error:
                if way == "eager":
                    raise
                # Compilers fail in ways of their own, on machines without one for a start.
                rows.append(row | {"note": f"torch.compile fails: {str(error).strip().splitlines()[0]}"})
                break
    return rows


def _model(recipe: Any, label: str, device: torch.device) -> tuple[Any, Any]:
    """Return a recipe's model as the harness sees it, with fresh weights, and its networks."""
    networks = fresh_networks(recipe, recipe_pixels(recipe)).to(device).eval()
    state = {"name": label, "sha256": ""}
    model: GenerativeModel = find_kind(recipe.kind).measurable(recipe, networks, state)
    require(
        model.has_prior, f"recipe '{label}' has no diffusion, whose sampling could be timed; leave it out"
    )
    return model, networks


def _speed(
    model: Any, sampler: SamplerConfig, size: int, rounds: int, device: torch.device, desc: str
) -> dict[str, Any]:
    """Return the rates of one batch size; latents of no training decode at the same cost as others."""
    seeds = list(range(size))
    z = SeededNoise(seeds, device=device, stream="prior").normal(*model.coder.latent_shape)
    nfe = int(model.sample(seeds, sampler).nfe.max())
    seconds = time_in_turn(
        {"all": partial(model.sample, seeds, sampler), "decoder": partial(_decode, model, z, seeds)},
        rounds,
        device,
        desc=desc,
    )
    return {
        "nfe": nfe,
        **quartiles("images_per_second", size / seconds["all"]),
        **quartiles("decoder_ms_per_image", 1e3 * seconds["decoder"] / size),
        **quartiles("decoder_share", seconds["decoder"] / seconds["all"]),
    }


@torch.no_grad()
def _decode(model: Any, z: Tensor, seeds: Sequence[int]) -> object:
    """Take a batch from the sampler's result to p(x | z)."""
    return model.coder.decode(z, SeededNoise(seeds, device=z.device, stream="lower latents").normal)


def overhead_rows(
    recipe: Any,
    samplers: Sequence[SamplerConfig],
    sizes: Sequence[int],
    *,
    label: str,
    rounds: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return a row for each sampler and batch size: its own milliseconds per step, and the network's.

    ``overhead`` is the sampler's own time over the time of as many bare evaluations of the network as it
    makes, within each round. Raises ConfigError for a recipe without a diffusion.
    """
    model, networks = _model(recipe, label, device)
    prior, shape = networks.prior, model.coder.latent_shape
    rows = []
    for config in samplers:
        sampler = find_sampler(config.name)
        evaluations = sampler.evaluations(config) or 0
        for size in sizes:
            noise = partial(SeededNoise, list(range(size)), device=device, stream="prior")
            ways: dict[str, Callable[[], object]] = {
                "own": partial(_draw_free, prior.sde, shape, noise, config),
                "network": partial(_evaluate, prior, noise().normal(*shape), sampler.nfe_per_step),
            }
            seconds = time_in_turn(ways, rounds, device, desc=f"{label} {config.name} {size}")
            own = seconds["own"] / config.steps
            bare = seconds["network"] * evaluations / sampler.nfe_per_step / config.steps
            rows.append(
                {
                    "what": "overhead",
                    "recipe": label,
                    "sampler": config.name,
                    "steps": config.steps,
                    "nfe": evaluations,
                    "batch_size": size,
                    "rounds": rounds,
                    **quartiles("own_ms", 1e3 * own),
                    **quartiles("network_ms", 1e3 * bare),
                    **quartiles("overhead", own / bare),
                }
            )
    return rows


def _draw_free(
    sde: SDE, shape: Sequence[int], noise: Callable[[], SeededNoise], config: SamplerConfig
) -> None:
    draw(FreeScore(sde), shape, noise(), config)


@torch.no_grad()
def _evaluate(prior: Any, z: Tensor, times: int) -> None:
    """Evaluate the network as often as one step does."""
    t = torch.full((len(z),), 0.5, dtype=torch.float64, device=z.device)
    for _ in range(times):
        prior.eps(z, t)


def _speed_cell(text: Callable[[Row], str]) -> Callable[[Row], str]:
    """Return what makes a cell of a row with numbers, and a dash of one that says why it has none."""
    return lambda row: "–" if "note" in row else text(row)


_SPEEDS: Columns = {
    "recipe": "{recipe}",
    "way": "{way}",
    "sampler": "{sampler}, {steps} steps",
    "NFE": _speed_cell(lambda row: str(row["nfe"])),
    "batch": "{batch_size}",
    "images/s": _speed_cell(lambda row: spread(row, "images_per_second", ".3g")),
    "decoder, ms/image": _speed_cell(lambda row: f"{row['decoder_ms_per_image']:.3g}"),
    "decoder's share": _speed_cell(lambda row: f"{row['decoder_share']:.1%}"),
}
_OVERHEADS: Columns = {
    "recipe": "{recipe}",
    "sampler": "{sampler}",
    "steps": "{steps}",
    "batch": "{batch_size}",
    "own, ms/step": lambda row: spread(row, "own_ms", ".1f"),
    "network, ms/step": lambda row: spread(row, "network_ms", ".1f"),
    "own / network": lambda row: spread(row, "overhead", ".1%"),
}


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the page: the machine, images per second, and the samplers' own time where it was measured."""
    speeds = [row for row in rows if row["what"] == "speed"]
    overheads = [row for row in rows if row["what"] == "overhead"]
    parts = [
        "# What sampling costs",
        about,
        "## Images per second",
        columns(_SPEEDS, speeds),
        "Medians with quartiles, whole batches from noise to pixels; weights as initialised, which does not "
        "change the cost of a fixed number of evaluations. One evaluation in latents and one of whole "
        "images are different amounts of work: compare images per second, not evaluations.",
        *sorted({f"{row['recipe']}: {row['note']}." for row in speeds if "note" in row}),
    ]
    if overheads:
        parts += [
            "## Outside the network",
            columns(_OVERHEADS, overheads),
            "A sampler's own time per step, with a score that costs nothing, against bare evaluations of the "
            "network as many as the step makes; the last column is the ratio of the two.",
        ]
    return "\n\n".join(parts)


def fixed_steps(name: str, nfe: int) -> SamplerConfig:
    """Return a sampler with the most steps within ``nfe`` evaluations.

    Raises ConfigError for an adaptive one, whose evaluations nobody can ask for, and for too few.
    """
    sampler = find_sampler(name)
    require(
        not sampler.adaptive,
        f"sampler '{name}' chooses its own evaluations; give one of fixed steps, heun for one",
    )
    return SamplerConfig(name=name, steps=sampler.steps_within(nfe, SamplerConfig(name=name)))


def run(options: SampleBench) -> int:
    """Measure, then print or write; the exit status is 0."""
    sampler = fixed_steps(options.sampler, options.nfe)
    names = [name.strip() for name in options.samplers.split(",") if name.strip()]
    others = [fixed_steps(name, options.nfe) for name in names]
    recipes = read_recipes(options.recipes, width=options.width)
    sized = read_recipes(options.overhead, width=options.width) if options.overhead else {}

    def rows(device: torch.device) -> list[dict[str, Any]]:
        how: dict[str, Any] = {"rounds": options.rounds, "device": device}
        found: list[dict[str, Any]] = []
        for name, recipe in recipes.items():
            found += speed_rows(recipe, sampler, options.sizes, label=name, compiled=options.compiled, **how)
        for name, recipe in sized.items():
            found += overhead_rows(recipe, others, options.sizes, label=name, **how)
        return found

    return measured("sample", options, rows, page)
