"""Seconds of drawing images: network, decoder and sampler apart, one batch size after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.measuring import spread_of, time_in_turn
from lsgm.bench.train import Row, spread, table
from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError
from lsgm.generative import GenerativeModel
from lsgm.kinds import find_kind
from lsgm.options import parse
from lsgm.rng import SeededNoise
from lsgm.runs.load import fresh_networks
from lsgm.sampling import draw, find_sampler
from lsgm.score import per_sample
from lsgm.sde import SDE

__all__ = ["HELP", "FreeScore", "Options", "overhead_rows", "page", "run", "speed_rows"]


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
    shares = [part / whole for part, whole in zip(seconds["decoder"], seconds["all"], strict=True)]
    return {
        "nfe": nfe,
        **spread_of([size / value for value in seconds["all"]]).as_row("images_per_second"),
        **spread_of([1e3 * value / size for value in seconds["decoder"]]).as_row("decoder_ms_per_image"),
        **spread_of(shares).as_row("decoder_share"),
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
            own = [value / config.steps for value in seconds["own"]]
            bare = [value * evaluations / sampler.nfe_per_step / config.steps for value in seconds["network"]]
            rows.append(
                {
                    "what": "overhead",
                    "recipe": label,
                    "sampler": config.name,
                    "steps": config.steps,
                    "nfe": evaluations,
                    "batch_size": size,
                    "rounds": rounds,
                    **spread_of([1e3 * value for value in own]).as_row("own_ms"),
                    **spread_of([1e3 * value for value in bare]).as_row("network_ms"),
                    **spread_of([a / b for a, b in zip(own, bare, strict=True)]).as_row("overhead"),
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


# The sampling benchmark's rows as a Markdown page


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the page: the machine, images per second, and the samplers' own time where it was measured."""
    speeds = [row for row in rows if row["what"] == "speed"]
    overheads = [row for row in rows if row["what"] == "overhead"]
    parts = [
        "# What sampling costs",
        about,
        "## Images per second",
        table(_SPEEDS, map(_speed_sample_page, speeds)),
    ]
    parts.append(
        "Medians with quartiles, whole batches from noise to pixels; weights as initialised, which does not "
        "change the cost of a fixed number of evaluations. One evaluation in latents and one of whole "
        "images are different amounts of work: compare images per second, not evaluations."
    )
    parts += sorted({f"{row['recipe']}: {row['note']}." for row in speeds if "note" in row})
    if overheads:
        parts += ["## Outside the network", table(_OVERHEADS, map(_overhead, overheads))]
        parts.append(
            "A sampler's own time per step, with a score that costs nothing, against bare evaluations of the "
            "network as many as the step makes; the last column is the ratio of the two."
        )
    return "\n\n".join(parts) + "\n"


_SPEEDS = ("recipe", "way", "sampler", "NFE", "batch", "images/s", "decoder, ms/image", "decoder's share")
_OVERHEADS = ("recipe", "sampler", "steps", "batch", "own, ms/step", "network, ms/step", "own / network")


def _speed_sample_page(row: Row) -> list[str]:
    head = [row["recipe"], row["way"], f"{row['sampler']}, {row['steps']} steps"]
    if "note" in row:
        return [*head, "–", str(row["batch_size"]), "–", "–", "–"]
    rate = [f"{row[f'images_per_second{end}']:.3g}" for end in ("", "_q1", "_q3")]
    return [
        *head,
        str(row["nfe"]),
        str(row["batch_size"]),
        f"{rate[0]} ({rate[1]}–{rate[2]})",
        f"{row['decoder_ms_per_image']:.3g}",
        f"{row['decoder_share']:.1%}",
    ]


def _overhead(row: Row) -> list[str]:
    share = [f"{row[f'overhead{end}']:.1%}" for end in ("", "_q1", "_q3")]
    return [
        row["recipe"],
        row["sampler"],
        str(row["steps"]),
        str(row["batch_size"]),
        spread(row, "own_ms", 1),
        spread(row, "network_ms", 1),
        f"{share[0]} ({share[1]}–{share[2]})",
    ]


# ``lsgm bench sample``: images per second against batch size, and what a sampler adds to its network

HELP = "images per second against batch size at equal evaluations; a sampler's own time per step"

DESCRIPTION = """Draw images by the networks of some recipes, with weights as they are initialised, all with
the same number of network evaluations: images per second against batch size, eager and compiled, the
decoder's pass timed apart. Then the time that a sampler spends outside the network: the same steps with a
score that costs nothing, as a share of the network's time at the first recipe of --overhead. Weights do not
change what a fixed number of evaluations costs."""

EXAMPLES = (
    "lsgm bench sample",
    "lsgm bench sample --recipes glyphs-small,glyphs-small-sgm --nfe 20 --batches 1,16,64",
    "lsgm bench sample --recipes mnist-small,mnist-small-sgm --device cuda --json --out bench.md",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench sample``."""

    recipes: str = "glyphs,glyphs-sgm"
    """Names of recipes or paths of TOML files with a diffusion, between commas."""
    sampler: str = "heun"
    """A fixed-step sampler of `lsgm ls samplers`."""
    nfe: int = 20
    """Network evaluations per image; the most steps that they pay for are taken."""
    batches: str = "1,8,64"
    """Images drawn together, between commas."""
    rounds: int = 5
    """Times that every way is timed, in turn."""
    compiled: bool = True
    """Also time networks under torch.compile, where that works."""
    overhead: str = "omniglot-small"
    """Recipe at whose size the samplers' own time is measured; empty: not at all."""
    samplers: str = "heun,euler,ancestral"
    """Samplers of which it is measured, between commas."""
    width: float = 1.0
    """Share of the networks' widths that is kept; depth, latents and resolutions stay."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    out: Path | None = None
    """Write the Markdown page here, and the rows beside it as .jsonl."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds is {self.rounds}; give at least 1")
        require(min(self.sizes) >= 1, "batches has a size below 1; give numbers of images of at least 1")
        require(
            self.out is None or self.out.suffix != ".jsonl",
            f"--out is {self.out}, and the rows take that ending; name the page, bench.md for one",
        )

    @property
    def sizes(self) -> list[int]:
        """The batch sizes as numbers. Raises ConfigError where they are none."""
        try:
            found = [int(part) for part in self.batches.split(",") if part.strip()]
        except ValueError:
            raise ConfigError(f"batches is '{self.batches}', not whole numbers between commas") from None
        require(bool(found), "batches lists no number; give at least one")
        return found


def fixed_steps(name: str, nfe: int) -> SamplerConfig:
    """Return a sampler with the most steps within ``nfe`` evaluations.

    Raises ConfigError for an adaptive one, whose evaluations nobody can ask for, and for too few.
    """
    from lsgm.sampling import find_sampler

    sampler = find_sampler(name)
    require(
        not sampler.adaptive,
        f"sampler '{name}' chooses its own evaluations; give one of fixed steps, heun for one",
    )
    return SamplerConfig(name=name, steps=sampler.steps_within(nfe, SamplerConfig(name=name)))


def run(argv: list[str]) -> int:
    """Measure, then print or write; the exit status is 0."""
    options = parse(
        Options,
        argv,
        prog="lsgm bench sample",
        description=DESCRIPTION,
        examples=EXAMPLES,
        may_be_empty=("--overhead", "--samplers"),
    )
    sampler = fixed_steps(options.sampler, options.nfe)
    names = [name.strip() for name in options.samplers.split(",") if name.strip()]
    others = [fixed_steps(name, options.nfe) for name in names]
    from lsgm.bench.measuring import describe, machine, read_recipes
    from lsgm.bench.train import make_room, write_page
    from lsgm.devices import pick_device

    recipes = read_recipes(options.recipes, width=options.width)
    sized = read_recipes(options.overhead, width=options.width) if options.overhead else {}
    if options.out is not None:
        make_room(options.out)
    device = pick_device(options.device)
    about = machine(device)
    how: dict[str, Any] = {"rounds": options.rounds, "device": device}
    rows: list[dict[str, Any]] = []
    for name, recipe in recipes.items():
        rows += speed_rows(recipe, sampler, options.sizes, label=name, compiled=options.compiled, **how)
    for name, recipe in sized.items():
        rows += overhead_rows(recipe, others, options.sizes, label=name, **how)
    lines = [json.dumps({"bench": "sample", "width": options.width, **row, **about}) for row in rows]
    text = page(rows, about=describe(about))
    if options.out is not None:
        write_page(options.out, text)
        write_page(options.out.with_suffix(".jsonl"), "\n".join(lines) + "\n")
    print("\n".join(lines) if options.json else text.rstrip("\n"))
    return 0
