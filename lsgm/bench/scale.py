"""What the published recipes take on 1, 8 and 64 GPUs: hours, memory, checkpoints, traffic; and many samples.

Operations and bytes are counted on shapes, nothing is run; the rates of devices are published ones, and the
share of them that is reached is an assumption. docs/scale.md has the tables, and says what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lsgm.bench.cost import counted, recipe_pixels
from lsgm.bench.measuring import publish, table
from lsgm.bench.memory import with_recompute
from lsgm.bench.options import ScaleBench
from lsgm.kinds import recipe_from
from lsgm.model.lsgm import sketch
from lsgm.recipes import TrainingCost, find_recipes, load_recipe, read_costs, shown_flops
from lsgm.recipes.recipe import LSGMRecipe
from lsgm.train.stages import second_step

RECIPES = ("celebahq256-qualitative", "celebahq256-quantitative", "cifar10-fid", "cifar10-nll")
"""LSGMs in their published sizes."""
SAMPLED = (*RECIPES, "celebahq256-sgm", "cifar10-sgm")
"""Those of which samples are drawn: beside them data-space models of the same images."""
COUNTS = (1, 8, 64)
"""GPUs; 8 of them to a machine."""
REACHED = (0.15, 0.4)
"""Shares of a peak between which convolutional networks of these sizes are assumed to compute."""


@dataclass(frozen=True)
class Device:
    """A GPU by its published figures: dense operations a second, bytes, bytes a second in one direction."""

    name: str
    low: float
    """Of bfloat16 on tensor cores, or float16 where there is no bfloat16."""
    single: float
    """Of float32, none of it TF32."""
    memory: float
    nvlink: float
    network: float
    """Of a machine's InfiniBand, all of its ports together."""

    def ring(self, count: int) -> float:
        """Return the bytes a second that each GPU of a ring sends to the next one.

        Between machines of 8 the data travel in as many rings as there are ports, so that every byte leaves a
        machine once, by one of them.
        """
        return self.nvlink if count <= 8 else min(self.nvlink, self.network)


DEVICES = (
    Device("V100 SXM2 32 GB", 125e12, 15.7e12, 32e9, 150e9, 50e9),
    Device("A100 SXM 80 GB", 312e12, 19.5e12, 80e9, 300e9, 200e9),
    Device("H100 SXM 80 GB", 989e12, 67e12, 80e9, 450e9, 400e9),
    Device("H200 SXM 141 GB", 989e12, 67e12, 141e9, 450e9, 400e9),
)
V100, A100, H100, H200 = DEVICES

IMAGES, SAMPLERS = 50_000, 10
BUDGETS = (5, 8, 10, 15, 20, 30, 50, 75, 100, 200)
"""Network evaluations for an image."""
INCEPTION = 11_422_336_192
"""Operations of the Inception-v3 of FID on one image of 299 x 299."""


Cells = list[list[str]]


class Kept(NamedTuple):
    """Bytes held between forward and backward: for each image, and whatever the batch (cast weights)."""

    image: int
    fixed: int


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows the storages of all that was computed, which are still held, and which hang on weights alone."""

    def __init__(self, networks: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        weights = (*networks.parameters(), *networks.buffers())
        self._made: dict[int, tuple[Any, int]] = {}
        self._fixed = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note its results."""
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        fixed = bool(given) and all(x.untyped_storage()._cdata in self._fixed for x in given)
        out = func(*args, **(kwargs or {}))
        for result in tree_leaves(out):
            if isinstance(result, Tensor):
                storage = result.untyped_storage()
                if any(storage._cdata == x.untyped_storage()._cdata for x in given):
                    continue  # a view
                weak: Any = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._made[storage._cdata] = weak, storage.nbytes()
                (self._fixed.add if fixed else self._fixed.discard)(storage._cdata)
        return out

    def held(self) -> Kept:
        """Return the bytes that are held now."""
        sizes = {key: size for key, (storage, size) in self._made.items() if not storage.expired()}
        fixed = sum(size for key, size in sizes.items() if key in self._fixed)
        return Kept(sum(sizes.values()) - fixed, fixed)


def kept(recipe: LSGMRecipe, images: int = 1) -> Kept:
    """Return what a joint step on some images keeps for its backward pass, in stage 2's precision."""
    pixels, low = recipe_pixels(recipe), recipe.stage2.precision != "float32"
    networks: Any = sketch(recipe, pixels).train()
    with FakeTensorMode():
        _materialised(networks)
        levels = torch.zeros(images, *pixels.shape, dtype=torch.uint8)
        times = torch.full((images,), 0.5).double()

        def forward() -> list[Tensor]:
            z = networks.vae.posterior(levels, partial(torch.zeros, images)).z
            eps = networks.prior.eps(networks.vae.groups.stack(z), times)
            return [networks.vae.likelihood(z).log_prob(levels), eps]

        return held(networks, forward, low=low)


def held(networks: nn.Module, forward: Callable[[], object], *, low: bool) -> Kept:
    """Return what is held once networks have been run with gradients, results included; ``low``: autocast."""
    watch = _Watch(networks)
    with watch, torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        results = forward()
    found = watch.held()
    del results
    return found


def _materialised(networks: nn.Module) -> None:
    """Put tensors without contents on the CPU in the place of those of the meta device."""
    for module in networks.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@cache
def _recipe(name: str) -> Any:
    return recipe_from(load_recipe(name), f"recipe '{name}'")


def _cost(name: str) -> TrainingCost:
    """Return what was counted of an installed recipe (`lsgm bench cost --write`)."""
    return read_costs(find_recipes()[name].parent)[name]


def _parameters(name: str) -> int:
    return sum(_cost(name).parameters.values())


class Table(NamedTuple):
    """A table of the page: its cells, heads first, under a heading, and what they are."""

    title: str
    cells: Cells
    note: str

    def __str__(self) -> str:
        heads, *rows = self.cells
        return f"## {self.title}\n\n{table(heads, rows, 1)}\n\n{self.note}"

    def rows(self) -> list[dict[str, str]]:
        """Return a line each by heads."""
        heads, *rows = self.cells
        return [{"what": self.title, **dict(zip(heads, row, strict=True))} for row in rows]


def devices() -> Cells:
    """Return the table of published figures."""
    heads = ["GPU", "bfloat16, TFLOP/s", "float32, TFLOP/s", "memory", "NVLink", "network of a machine"]
    rows = (
        [
            device.name,
            f"{device.low / 1e12:g}" + (" (float16)" if device is V100 else ""),
            f"{device.single / 1e12:g}",
            f"{device.memory / 1e9:g} GB",
            f"{device.nvlink / 1e9:g} GB/s",
            f"{device.network / 1e9:g} GB/s",
        ]
        for device in DEVICES
    )
    return [heads, *rows]


def training(names: Sequence[str]) -> Cells:
    """Return the table of operations, and of the hours that they take."""
    heads = ["recipe", "training", "GPU", *(f"{count} GPU{'s' * (count > 1)}" for count in COUNTS)]
    rows = []
    for name in names:
        flops = _cost(name).flops or 0.0
        for device in (V100, A100, H100):
            cells = [_span(flops, device.low * count) for count in COUNTS]
            rows.append([name, shown_flops(flops), device.name.split()[0], *cells])
    return [heads, *rows]


def _span(flops: float, peak: float) -> str:
    """Return the hours that operations take at the most and at the least that is assumed to be reached."""
    fast, slow = (flops / (peak * share) / 3600 for share in REACHED[::-1])
    return f"{_digits(fast)}–{_digits(slow)} h"


def _digits(x: float) -> str:
    """Return two digits, all of a number above 100 in whole ones."""
    return f"{float(f'{x:.2g}'):,.0f}" if x >= 10 else f"{x:.2g}"


def memory(names: Sequence[str]) -> Cells:
    """Return the table of bytes that a GPU holds in stage 2, and of the images that it has room for."""
    heads = ["recipe", "weights, gradients, Adam, average", "activations", "an image", "also"]
    heads += [f"images in {device.memory / 1e9:g} GB" for device in (V100, H100, H200)]
    heads += [f"asked of {', '.join(map(str, COUNTS))}"]
    rows = []
    for name in names:
        recipe, state = _recipe(name), 20 * _parameters(name)
        for recompute in (False, True):
            found = kept(with_recompute(recipe, recompute))
            room = (
                max(device.memory - state - found.fixed, 0) / found.image for device in (V100, H100, H200)
            )
            rows.append(
                [
                    name,
                    _bytes(state),
                    "recomputed" if recompute else "kept",
                    _bytes(found.image),
                    _bytes(found.fixed),
                    *(f"{int(images)}" for images in room),
                    ", ".join(f"{recipe.stage2.batch_size / count:g}" for count in COUNTS),
                ]
            )
    return [heads, *rows]


def _bytes(x: float) -> str:
    unit, name = next((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if x >= unit)
    digits = f"{float(f'{x / unit:.3g}'):g}"
    return f"{digits} {name}"


def checkpoints(names: Sequence[str]) -> Cells:
    """Return the table of a checkpoint's files, from the state dicts of stage 2."""
    heads = ["recipe", "parameters", "model.safetensors", "ema.safetensors", "optimizer.pt", "together"]
    rows = []
    for name in names:
        sizes = checkpoint_bytes(_recipe(name))
        parameters = f"{_parameters(name) / 1e6:.0f} M"
        rows.append([name, parameters, *map(_bytes, sizes), _bytes(sum(sizes))])
    return [heads, *rows]


def checkpoint_bytes(recipe: LSGMRecipe) -> tuple[int, int, int]:
    """Return the bytes of the tensors in stage 2's raw and averaged weights, and in its optimisers' state."""
    networks: Any = sketch(recipe, recipe_pixels(recipe))
    stage = second_step(networks.vae, networks.prior, recipe.prior.objective, recipe.stage2)
    weights = sum(value.numel() * value.element_size() for value in stage.module.state_dict().values())
    # Two moments of every number that is trained.
    moments = sum(2 * p.numel() * p.element_size() for group in stage.groups() for p in group.params)
    return weights, weights, moments


def traffic(names: Sequence[str]) -> Cells:
    """Return the table of bytes that a GPU sends in a step of stage 2, and of their milliseconds."""
    heads = ["recipe", "GPUs", "step, ms", "DDP, sent", "ms", "FSDP, sent", "ms"]
    rows = []
    for name in names:
        for count in COUNTS[1:]:
            flops = _cost(name).step_flops["stage2"] / count
            fast, slow = (1e3 * flops / (H100.low * share) for share in REACHED[::-1])
            step = f"{_digits(fast)}–{_digits(slow)}"
            ways = (_bytes(way) for way in sent(_parameters(name), count))
            seconds = (_digits(1e3 * way / H100.ring(count)) for way in sent(_parameters(name), count))
            cells = (cell for pair in zip(ways, seconds, strict=True) for cell in pair)
            rows.append([name, str(count), step, *cells])
    return [heads, *rows]


def sent(parameters: int, processes: int) -> tuple[float, float]:
    """Return the bytes that each of N processes sends in a step: by DDP, by FSDP.

    DDP adds up float32 gradients in a ring, 2 (N - 1) / N of their bytes. FSDP gathers float32 weights
    before the forward pass and again before the backward one, and scatters the sums: (N - 1) / N each.
    """
    share = 4 * parameters * (processes - 1) / processes
    return 2 * share, 3 * share


def sampling(names: Sequence[str]) -> Cells:
    """Return the table of many samples: operations, and hours in bfloat16 and in float32."""
    heads = ["model", "an evaluation", "decoder", "all samples", "decoders' part", "features' part"]
    heads += ["bfloat16, 1 H100", "float32, 1 H100", "float32, 8", "float32, 64"]
    rows = []
    for name in names:
        one, _ = counted(_recipe(name))
        decoder = max(one.vae - one.encode, 0)
        drawn = IMAGES * SAMPLERS * len(BUDGETS)
        evaluations = IMAGES * SAMPLERS * sum(BUDGETS)
        parts = (evaluations * one.prior, drawn * decoder, drawn * INCEPTION)
        total = float(sum(parts))
        cells = [shown_flops(one.prior), shown_flops(decoder) if decoder else "–", shown_flops(total)]
        cells += [f"{part / total:.1%}" if part else "–" for part in parts[1:]]
        cells += [_span(total, H100.low), *(_span(total, H100.single * count) for count in COUNTS)]
        rows.append([name, *cells])
    return [heads, *rows]


def tables(names: Sequence[str] = RECIPES, sampled: Sequence[str] = SAMPLED) -> list[Table]:
    """Return all tables, as docs/scale.md has them."""
    share = f"{REACHED[0]:.0%} to {REACHED[1]:.0%}"
    drawn = IMAGES * SAMPLERS * len(BUDGETS)
    return [
        Table(
            "Devices",
            devices(),
            "Published peaks, dense. Links in one direction: of a GPU; of all ports of a machine of 8 GPUs.",
        ),
        Table(
            "Hours of training",
            training(names),
            f"All stages, at {share} of the peak, which is an assumption; waiting for links is left out. "
            "H200: as H100.",
        ),
        Table(
            "Memory",
            memory(names),
            "Stage 2 in float32 weights: 4 bytes each of weights, gradients and average, 8 of Adam's "
            "moments; FSDP divides them by the number of GPUs. *An image*: what the forward pass leaves for "
            "the backward one; *also*: weights cast to bfloat16. *Asked*: images a GPU of the recipe's batch "
            "on 1, 8 and 64 GPUs. Gradients in passing and workspaces are not counted.",
        ),
        Table(
            "Checkpoints", checkpoints(names), "Tensors of stage 2's state dicts; headers are not counted."
        ),
        Table(
            "Traffic of a step",
            traffic(names),
            f"Stage 2 on H100. *Step*: its operations at {share} of the peak. The other milliseconds are "
            "bytes over the link's rate, NVLink's for 8 GPUs and the network's for 64. DDP sends while the "
            "backward pass goes on.",
        ),
        Table(
            "Samples",
            sampling(sampled),
            f"{IMAGES:,} images by each of {SAMPLERS} samplers at each of {', '.join(map(str, BUDGETS))} "
            f"evaluations: {drawn:,} images with {sum(BUDGETS) * IMAGES * SAMPLERS:.2g} evaluations, their "
            f"decoders and Inception's features, at {share} of the peak.",
        ),
    ]


def run(options: ScaleBench) -> int:
    """Count, then print; the exit status is 0."""
    found = tables()
    rows = [row for each in found for row in each.rows()]
    publish("scale", rows, "\n\n".join(map(str, found)), as_json=options.json)
    return 0
