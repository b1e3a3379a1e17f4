"""Times a VAE folded and not, after a check that both compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.cost import recipe_pixels
from lsgm.bench.measuring import (
    Columns,
    Row,
    columns,
    labelled,
    measured,
    quartiles,
    read_recipes,
    spread,
    time_in_turn,
)
from lsgm.bench.options import FoldBench
from lsgm.config import require
from lsgm.generative import Pixels
from lsgm.nets.folding import fold
from lsgm.nets.layers import BatchNorm
from lsgm.runs.load import fresh_networks

TOLERANCE = 1e-9
"""Dozens of layers of float64 roundings, each of 1e-16 and growing with the depth."""

_CHECKED = 2


def compare_folded(
    recipe: Any, *, batch: int, rounds: int, device: torch.device, label: str
) -> list[dict[str, Any]]:
    """Return a row for encoding and decoding, and one for decoding alone.

    Raises ConfigError for a model without anything to fold, ArithmeticError where folding changes outputs.
    """
    pixels = recipe_pixels(recipe)
    networks = fresh_networks(recipe, pixels).eval().requires_grad_(False)
    vae: Any = networks.get_submodule("vae") if "vae" in dict(networks.named_children()) else None
    folded = copy.deepcopy(vae)
    count = fold(folded) if vae is not None else 0
    require(count > 0, f"recipe '{label}' has nothing to fold; give one whose VAE is hierarchical")
    difference = largest_difference(vae, pixels, seed=recipe.seed)
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"{label}: folding changes the decoder's output by {difference:.1e} of it")
    ways = {"plain": vae.to(device), "folded": folded.to(device)}
    levels = _levels(pixels, batch, recipe.seed).to(device)
    rows = []
    for part, work in (("encode and decode", _encode_and_decode), ("decode", _decode)):
        works = {name: work(way, levels) for name, way in ways.items()}
        with torch.no_grad():
            seconds = time_in_turn(works, rounds, device, desc=f"{label} folded or not")
        rows.append(
            {
                "what": "fold",
                "recipe": label,
                "part": part,
                "batch_size": batch,
                "rounds": rounds,
                "folded": count,
                "largest_difference": difference,
                **quartiles("plain_ms", 1e3 * seconds["plain"]),
                **quartiles("folded_ms", 1e3 * seconds["folded"]),
                **quartiles("plain_over_folded", seconds["plain"] / seconds["folded"]),
            }
        )
    return rows


def largest_difference(vae: Any, pixels: Pixels, *, seed: int) -> float:
    """Return how far folding moves the decoder's output in float64, relative to the largest entry.

    On a copy whose parameters and running statistics are moved first: fresh ones would hide mistakes.
    """
    generator = torch.Generator().manual_seed(seed)
    plain = copy.deepcopy(vae).double().eval()
    for layer in plain.modules():
        if isinstance(layer, BatchNorm):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                tensor.data.add_(0.1 * torch.randn(tensor.shape, generator=generator).double())
            layer.running_var.data.mul_(1 + torch.rand(layer.running_var.shape, generator=generator).double())
    folded = copy.deepcopy(plain)
    fold(folded)
    levels = _levels(pixels, _CHECKED, seed)
    a, b = (_output(way, levels, seed) for way in (plain, folded))
    return float((a - b).abs().max() / a.abs().max())


_COLUMNS: Columns = {
    "recipe": labelled,
    "part": "{part}",
    "batch": "{batch_size}",
    "folded": "{folded}",
    "plain, ms": lambda row: spread(row, "plain_ms", ".0f"),
    "folded, ms": lambda row: spread(row, "folded_ms", ".0f"),
    "plain / folded": lambda row: spread(row, "plain_over_folded", ".2f"),
    "difference": "{largest_difference:.0e}",
}


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the rows as a Markdown page."""
    note = (
        f"Forward passes in eval mode, float32, medians of {rows[0]['rounds']} rounds with quartiles, taken "
        "in turn. *Folded* counts the normalisations that went; the last column is the largest difference of "
        "the decoder's output in float64, relative to its largest entry."
    )
    return "\n\n".join(["# What folding saves", about, columns(_COLUMNS, rows), note])


def _levels(pixels: Pixels, batch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(pixels.levels, (batch, *pixels.shape), generator=generator, dtype=torch.uint8)


def _output(vae: Any, levels: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        z = vae.posterior(levels, lambda *shape: torch.randn(len(levels), *shape, generator=generator)).z
        output: Tensor = vae.decoder_parameters(z)
    return output


def _encode_and_decode(vae: Any, levels: Tensor) -> Callable[[], Any]:
    noise = [torch.randn(len(levels), *shape, device=levels.device) for shape in vae.groups.shapes]

    def work() -> Any:
        left = iter(noise)
        return vae.decoder_parameters(vae.posterior(levels, lambda *shape: next(left)).z)

    return work


def _decode(vae: Any, levels: Tensor) -> Callable[[], Any]:
    z = tuple(torch.randn(len(levels), *shape, device=levels.device) for shape in vae.groups.shapes)
    return lambda: vae.decoder_parameters(z)


def run(options: FoldBench) -> int:
    """Measure, then print; the exit status is 0."""
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)
    how: dict[str, Any] = {"batch": options.batch, "rounds": options.rounds}

    def rows(device: torch.device) -> list[dict[str, Any]]:
        found = (compare_folded(recipe, device=device, label=name, **how) for name, recipe in recipes.items())
        return list(chain.from_iterable(found))

    return measured("fold", options, rows, page)
