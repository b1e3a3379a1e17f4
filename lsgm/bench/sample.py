"""Seconds of drawing images: network, decoder and sampler apart, one batch size after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.floor import rates
from lsgm.bench.measuring import (
    WARM_UP,
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
from lsgm.bench.targets import towards, verdicts
from lsgm.config import Execution, Precision, SamplerConfig, require
from lsgm.devices import clock, computes_bfloat16
from lsgm.generative import GenerativeModel
from lsgm.kinds import find_kind
from lsgm.model.running import prepare
from lsgm.options import between_commas
from lsgm.rng import SeededNoise
from lsgm.runs.load import fresh_networks
from lsgm.sampling import draw, find_sampler

LARGE = 16
"""Images from which on the target for time outside of networks holds."""


class Stopwatch:
    """Seconds within the calls of a network, and of everything.

    On a CPU they are the processor's, which other work on the machine leaves alone; on a GPU the clock's, and
    the device is waited for around every call: what it would do meanwhile counts as time outside.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.now = time.process_time if device.type == "cpu" else partial(clock, device)
        self.inside = self._began = 0.0
        self._hooks = (
            network.register_forward_pre_hook(lambda *_: self._start()),
            network.register_forward_hook(lambda *_: self._stop()),
        )

    def _start(self) -> None:
        self._began = self.now()

    def _stop(self) -> None:
        self.inside += self.now() - self._began

    def around(self, work: Callable[[], object]) -> tuple[float, float]:
        """Return the seconds of some work and those of them that the network took."""
        self.inside = 0.0
        began = self.now()
        work()
        return self.now() - began, self.inside

    def remove(self) -> None:
        """Leave the network alone."""
        for hook in self._hooks:
            hook.remove()


def speed_rows(
    recipe: Any,
    sampler: SamplerConfig,
    sizes: Sequence[int],
    *,
    label: str,
    compiled: bool,
    low: bool,
    rounds: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return a row for each batch size and way to run the network: images per second and the decoder's share.

    Where a way cannot be had the row has no numbers and says why. Raises ConfigError for a recipe without a
    diffusion.
    """
    rows = []
    for execution, precision in ways_on(device, compiled=compiled, low=low):
        model, _ = _model(recipe, label, device)
        flops, best = model.sampling_flops(), _best_rate(device, getattr(torch, precision))
        config = replace(sampler, precision=precision)
        way = execution if precision == "float32" else f"{execution}, {precision}"
        for size in sizes:
            row: dict[str, Any] = {"what": "speed", "recipe": label, "kind": recipe.kind, "way": way}
            row |= {"batch_size": size, "sampler": sampler.name, "steps": sampler.steps, "rounds": rounds}
            if why := prepare(model, execution, size):
                rows.append(row | {"note": why})
                break
            row |= _speed(model, config, size, rounds, device, f"{label} {way} {size}")
            rate = (row["nfe"] * flops.evaluation + flops.decoder) * row["images_per_second"]
            rows.append(row | {"flops_per_second": rate, "floor_share": rate / best})
    return rows


def ways_on(device: torch.device, *, compiled: bool, low: bool) -> list[tuple[Execution, Precision]]:
    """Return how networks are run on a device: as written first, in bfloat16 where that is computed.

    On a GPU all but the first are graphs, without which small networks wait for Python.
    """
    plain: Execution = "graphs" if device.type == "cuda" else "eager"
    fast: list[Execution] = ["compiled-graphs" if device.type == "cuda" else "compiled"] if compiled else []
    lowered: Sequence[Precision] = ["bfloat16"] if low and computes_bfloat16(device) else []
    ways: list[tuple[Execution, Precision]] = [("eager", "float32"), (plain, "float32")]
    ways += [(plain, precision) for precision in lowered]
    ways += [(each, precision) for each in fast for precision in ("float32", *lowered)]
    return list(dict.fromkeys(ways))


@cache
def _best_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the better of a device's rates of products and convolutions, in FLOP/s."""
    found = rates(device, dtype)
    return max(found["product"], found["convolution"])


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
    """Return a row for each sampler and batch size: milliseconds per evaluation in the network and outside.

    ``overhead`` is the share of a whole run, from the grid of its times to the samples, that is spent outside
    of the network, within each round. The largest one at a batch of at least `LARGE` says whether the target
    is met. Raises ConfigError for a recipe without a diffusion.
    """
    model, networks = _model(recipe, label, device)
    prior, shape = networks.prior, model.coder.latent_shape
    watch = Stopwatch(prior.network, device)
    rows: list[dict[str, Any]] = []
    for config, size in product(samplers, sizes):
        evaluations = find_sampler(config.name).evaluations(config) or 1

        def work(config: SamplerConfig = config, size: int = size) -> None:
            draw(prior, shape, SeededNoise(range(size), device=device, stream="prior"), config)

        found = np.array([watch.around(work) for _ in range(WARM_UP + rounds)])[WARM_UP:]
        whole, inside = found.T
        rows.append(
            {
                "what": "overhead",
                "recipe": label,
                "sampler": config.name,
                "steps": config.steps,
                "nfe": evaluations,
                "batch_size": size,
                "rounds": rounds,
                **quartiles("own_ms", 1e3 * (whole - inside) / evaluations),
                **quartiles("network_ms", 1e3 * inside / evaluations),
                **quartiles("overhead", (whole - inside) / whole),
            }
        )
    watch.remove()
    if large := [row for row in rows if row["batch_size"] >= LARGE]:
        worst = max(large, key=lambda row: row["overhead"])
        of = f"{label}, {worst['sampler']}, batch {worst['batch_size']}, the largest of {len(large)}"
        why = f"an evaluation takes {worst['network_ms']:.2g} ms, beside which any operation is long"
        worst |= towards("sampling-overhead", worst["overhead"], of, why)
    return rows


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
    "GFLOP/s": _speed_cell(lambda row: f"{row['flops_per_second'] / 1e9:.3g}"),
    "of the best rate": _speed_cell(lambda row: f"{row['floor_share']:.0%}"),
    "decoder's share": _speed_cell(lambda row: f"{row['decoder_share']:.1%}"),
}
_OVERHEADS: Columns = {
    "recipe": "{recipe}",
    "sampler": "{sampler}",
    "steps": "{steps}",
    "batch": "{batch_size}",
    "outside, ms/evaluation": lambda row: spread(row, "own_ms", ".1f"),
    "network, ms/evaluation": lambda row: spread(row, "network_ms", ".1f"),
    "share outside": lambda row: spread(row, "overhead", ".1%"),
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
        "images are different amounts of work: compare images per second, not evaluations. GFLOP/s are of "
        "convolutions and products, and the best rate is what a large one of these reaches here, in float32 "
        "or bfloat16 as the network: the share is that of the least possible time in the time taken.",
        *sorted({f"{row['recipe']}: {row['note']}." for row in speeds if "note" in row}),
    ]
    if overheads:
        parts += [
            "## Outside the network",
            columns(_OVERHEADS, overheads),
            "Whole runs, of which outside is all but the network's own forward passes: times, coefficients, "
            "noise, the score made of the network's output, and the steps. Processor's time on a CPU; on a "
            "GPU the clock's, with the device waited for around every pass.",
            verdicts(rows, every=False),
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
    names = between_commas(options.samplers)
    others = [fixed_steps(name, options.nfe) for name in names]
    recipes = read_recipes(options.recipes, width=options.width)
    sized = read_recipes(options.overhead, width=options.width) if options.overhead else {}

    def rows(device: torch.device) -> list[dict[str, Any]]:
        how: dict[str, Any] = {"rounds": options.rounds, "device": device}
        found: list[dict[str, Any]] = []
        for name, recipe in recipes.items():
            found += speed_rows(
                *(recipe, sampler, options.sizes),
                label=name,
                compiled=options.compiled,
                low=options.bfloat16,
                **how,
            )
        for name, recipe in sized.items():
            found += overhead_rows(recipe, others, options.sizes, label=name, **how)
        return found

    return measured("sample", options, rows, page)
