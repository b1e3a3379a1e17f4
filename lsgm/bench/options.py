"""What the benchmarks of this package take, and what their help says. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from lsgm.config import require
from lsgm.errors import ConfigError
from lsgm.options import Positional, arg, between_commas

Coordinate = Literal["time", "angle"]
Number = TypeVar("Number", int, float)


def numbers(text: str, name: str, kind: Callable[[str], Number]) -> list[Number]:
    """Return the numbers between commas. Raises ConfigError where there is none, or something else."""
    try:
        found = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{name} is '{text}', not {what} between commas") from None
    require(bool(found), f"{name} lists no number; give at least one")
    return found


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What all benchmarks take; the module ``lsgm.bench.NAME`` measures and writes the page."""

    help: ClassVar[str]
    description: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    may_be_empty: ClassVar[tuple[str, ...]] = ()
    """Options of which an empty value means something."""

    json: bool = False
    """Print the rows as JSON lines instead of the page."""


@dataclass(frozen=True, kw_only=True)
class OnDevice(BenchOptions):
    """What all benchmarks take that compute something."""

    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    out: Path | None = None
    """Write the Markdown page here, and the rows beside it as .jsonl."""

    def __post_init__(self) -> None:
        require(
            self.out is None or self.out.suffix != ".jsonl",
            f"--out is {self.out}, and the rows take that ending; name the page, bench.md for one",
        )


@dataclass(frozen=True, kw_only=True)
class TrainBench(OnDevice):
    """Options of ``lsgm bench train``."""

    help = "seconds of a training step: of each stage, by every way, where they go"
    description = """\
Train each stage of some recipes for a few steps in a temporary directory and say what a step
costs: steps and images per second, and the shares of data, forward, backward and optimiser. For an LSGM, also
time a joint step with one backward pass against the two of algorithm 3 of arXiv:2106.05931, after checking
that they give the same gradients; time whole steps by every way that the device has (dtypes, orders of
memory, in parts, compiled, CUDA graphs); and say where the time of one goes and what its floor is. Nothing is
kept but the numbers."""
    examples = (
        "lsgm bench train",
        "lsgm bench train --recipes glyphs,glyphs-sgm --steps 50 --out bench.md",
        "lsgm bench train --recipes omniglot,cifar10-fid --width 0.125 --batch 8 --steps 5",
        "lsgm bench train --recipes mine.toml --device cuda --json > bench.jsonl",
        "lsgm bench train --recipes mnist-small --measure ways --ways two,one,compiled",
    )

    recipes: str = "glyphs"
    """Names of recipes or paths of TOML files, between commas."""
    steps: int = 20
    """Steps of each stage, and rounds of the comparison, that count."""
    width: float = 1.0
    """Share of the networks' widths that is kept; depth, latents and resolutions stay."""
    batch: int | None = None
    """Images per step; the recipe's own number unless given."""
    measure: str = "stages,passes,ways,profile"
    """What is measured, between commas."""
    ways: str = "auto"
    """Ways to make a joint step, between commas: two, two-tf32, one, parts, channels-last, bfloat16, float16,
    compiled, bfloat16-compiled, graphs. auto takes those of the device, on a CPU none that is compiled; the
    first is what others are compared with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, f"steps is {self.steps}; give at least 1")
        known = ("stages", "passes", "ways", "profile")
        wrong = [what for what in self.measures if what not in known]
        require(
            bool(self.measures) and not wrong,
            f"measure is '{self.measure}'; give some of {', '.join(known)}",
        )

    @property
    def measures(self) -> list[str]:
        """What is measured, each once."""
        return list(dict.fromkeys(between_commas(self.measure)))


@dataclass(frozen=True, kw_only=True)
class CostBench(BenchOptions):
    """Options of ``lsgm bench cost``."""

    help = "parameters and floating-point operations of recipes, counted and not run"
    description = """\
Count the parameters of a recipe's networks and the floating-point operations of its
training: convolutions, matrix products and attention of every pass, elementwise work left out. Nothing is
trained and no data are needed. The hours are for a rate, not for this machine."""
    examples = (
        "lsgm bench cost cifar10-fid mnist",
        "lsgm bench cost mine.toml --json",
        "lsgm bench cost --write      # renew what `lsgm ls recipes` shows",
    )

    recipes: Annotated[Positional[tuple[str, ...]], arg(metavar="RECIPE")] = ()
    """Names of recipes or paths of TOML files; every installed recipe unless given."""
    write: bool = False
    """Write the costs of all installed recipes into costs.json beside them."""

    def __post_init__(self) -> None:
        require(
            not (self.write and self.recipes), "--write is about all installed recipes; name none with it"
        )


@dataclass(frozen=True, kw_only=True)
class FoldBench(OnDevice):
    """Options of ``lsgm bench fold``."""

    help = "forward time of a VAE with its normalisations folded into the convolutions, and without"
    description = """\
Time the forward pass of a recipe's VAE in eval mode as it was trained and after folding:
weight norm, and batch norm where that is exact, become part of the convolutions. Both are timed in turn on
one batch, after a check in float64 that they compute the same. Nothing is trained and no data are needed."""
    examples = (
        "lsgm bench fold --recipes omniglot --width 0.25 --batch 8",
        "lsgm bench fold --recipes cifar10-fid --device cuda --json",
    )

    recipes: str = "omniglot"
    """Names of recipes or paths of TOML files, between commas."""
    rounds: int = 10
    """Rounds that count; each times either way once."""
    width: float = 1.0
    """Share of the networks' widths that is kept."""
    batch: int = 16
    """Images in the batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rounds >= 1, f"rounds is {self.rounds}; give at least 1")


@dataclass(frozen=True, kw_only=True)
class MemoryBench(OnDevice):
    """Options of ``lsgm bench memory``."""

    help = "peak memory of a joint step with activations kept, and recomputed"
    description = """\
Run a joint step of a recipe's stage 2, forward and backward, in a fresh process each way:
with activations kept for the backward pass, and with the networks' `recompute`. On a GPU the peak is
that of torch's allocations, on a CPU that of the process's resident memory. No data are needed."""
    examples = (
        "lsgm bench memory --recipes omniglot --width 0.25 --batch 8",
        "lsgm bench memory --recipes cifar10-fid,mnist --device cuda --json",
    )

    recipes: str = "omniglot"
    """Names of recipes or paths of TOML files, between commas."""
    width: float = 1.0
    """Share of the networks' widths that is kept."""
    batch: int | None = None
    """Images per step; the recipe's own number unless given."""


@dataclass(frozen=True, kw_only=True)
class NLLBench(OnDevice):
    """Options of ``lsgm bench nll``."""

    help = "evaluations and error of log-densities by probability flow, against the reference procedure"
    description = """\
Compute log p(z_0) of one batch by the probability flow, each way at several settings, and
compare evaluations and seconds per image at equal measured error with the reference implementation's
procedure: SciPy's RK45 over the whole batch and its log-densities in one vector, a Gaussian probe redrawn at
every evaluation. The truth is this package's solver in float64 at a tight tolerance with the exact trace.
Two errors are measured, RMS over images in nats: of the number itself, in which the noise of probes counts,
and of its steps alone, where the truth's trace replaces the probes. Without --model the score is that of a
mixture of Gaussians, in closed form; a trained model's exact trace is beyond reach, and --truth-probes stand
for it."""
    examples = (
        "lsgm bench nll",
        "lsgm bench nll --batch 8",
        "lsgm bench nll --model runs/mnist-small --batch 4 --tols 1e-2 --own-tols 1e-2,1e-3 --truth-tol 1e-5",
    )

    model: str | None = None
    """A trained LSGM, run or checkpoint directory, whose own samples are scored; None: a mixture in latent
    shape."""
    batch: int = 64
    """Images scored together; the reference procedure shares one step size among them."""
    tols: str = "1e-3,1e-4,1e-5"
    """Tolerances, rtol = atol, of the reference procedure, between commas."""
    own_tols: str = "1e-3,1e-4,1e-5,1e-6,3e-7,1e-7,1e-8,1e-9"
    """Tolerances of this package's way, between commas; where --tols has one too, with all --probes."""
    probes: str = "1,2,4,8,16,32"
    """Probes per image and solve of this package's way, between commas."""
    steps: str = "10,20,40"
    """Steps of RK4 over a fixed grid, between commas."""
    coordinates: str = "time,angle"
    """What this package's adaptive steps go along, between commas."""
    truth_tol: float = 1e-10
    """Tolerance of the truth."""
    truth_probes: int = 16
    """Fixed probes that stand for a trained model's exact trace."""
    repeats: int = 4
    """Runs of every way but the reference, each with other probes."""
    isolate: bool = True
    """Also run one probe fixed or redrawn, the log-density in or out of step control."""
    seed: int = 1
    """Seed of what is scored and of all probes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch >= 1, f"batch is {self.batch}; give at least 1 image")
        require(self.repeats >= 1, f"repeats is {self.repeats}; give at least 1")
        require(self.truth_tol > 0, f"truth-tol is {self.truth_tol}; it must be above 0")
        require(
            self.truth_probes >= 2, "truth-probes must be at least 2, or the truth's own error is unknown"
        )
        tols = [*numbers(self.tols, "tols", float), *numbers(self.own_tols, "own-tols", float)]
        require(min(tols) > self.truth_tol, "tols and own-tols must lie above truth-tol")
        for name in ("probes", "steps"):
            counts = numbers(getattr(self, name), name, float)
            require(all(n >= 1 and n % 1 == 0 for n in counts), f"{name} must be whole numbers of at least 1")
        require(bool(self.along), f"coordinates is '{self.coordinates}'; give time, angle, or both")

    @property
    def along(self) -> list[Coordinate]:
        """The coordinates that are named; none where a word is neither of them."""
        words = [word.strip() for word in self.coordinates.split(",")]
        known: tuple[Coordinate, ...] = ("time", "angle")
        return [name for name in known if name in words] if set(words) <= set(known) else []


@dataclass(frozen=True, kw_only=True)
class SampleBench(OnDevice):
    """Options of ``lsgm bench sample``."""

    help = "images per second against batch size at equal evaluations; a sampler's own time per step"
    description = """\
Draw images by the networks of some recipes, with weights as they are initialised, all with
the same number of network evaluations: images per second against batch size, by each way to run the network,
the decoder's pass timed apart. Then the share of a run that a sampler spends outside the network, at the
recipes of --overhead. Weights do not change what a fixed number of evaluations costs."""
    examples = (
        "lsgm bench sample",
        "lsgm bench sample --recipes glyphs-small,glyphs-small-sgm --nfe 20 --batches 1,16,64",
        "lsgm bench sample --recipes mnist-small,mnist-small-sgm --device cuda --json --out bench.md",
    )
    may_be_empty = ("--overhead", "--samplers")

    recipes: str = "glyphs,glyphs-sgm"
    """Names of recipes or paths of TOML files with a diffusion, between commas."""
    sampler: str = "heun"
    """A fixed-step sampler of `lsgm ls samplers`."""
    nfe: int = 20
    """Network evaluations per image; the most steps that they pay for are taken."""
    batches: str = "1,16,64"
    """Images drawn together, between commas."""
    rounds: int = 5
    """Times that every way is timed, in turn."""
    compiled: bool = True
    """Also time networks under torch.compile, where that works."""
    bfloat16: bool = True
    """Also time networks in bfloat16, where it is computed."""
    overhead: str = "omniglot-small"
    """Recipes at whose size the time outside the network is measured, between commas; empty: not at all."""
    samplers: str = "heun,euler,ancestral"
    """Samplers of which it is measured, between commas."""
    width: float = 1.0
    """Share of the networks' widths that is kept; depth, latents and resolutions stay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rounds >= 1, f"rounds is {self.rounds}; give at least 1")
        require(min(self.sizes) >= 1, "batches has a size below 1; give numbers of images of at least 1")

    @property
    def sizes(self) -> list[int]:
        """The batch sizes as numbers. Raises ConfigError where they are none."""
        return numbers(self.batches, "batches", int)


@dataclass(frozen=True, kw_only=True)
class ScaleBench(BenchOptions):
    """Options of ``lsgm bench scale``."""

    help = "hours, memory and traffic of published recipes on up to 64 GPUs"
    description = """\
Count what the published recipes of CelebA-HQ-256 and CIFAR-10 take on 1, 8 and 64 GPUs: hours
at published rates, memory, checkpoints, the traffic of DDP and FSDP; and what many samples take. Nothing is
run: the tables are those of docs/scale.md. A minute of one core."""
    examples = ("lsgm bench scale",)


@dataclass(frozen=True, kw_only=True)
class VarianceBench(OnDevice):
    """Options of ``lsgm bench variance``."""

    help = "noise of the cross entropy and of its gradient, without and with control variates"
    description = """\
Measure how much one image's cross entropy, and the gradient that trains its VAE, vary over
draws of t and eps: as before, and less the error of a Normal prior's prediction, which is known in closed
form. The Normal law is N(0, I), or has the moments of training latents by channel, dimension or frequency.
Every form has the same expectation and sees the same draws. Without a checkpoint those of checkpoints/ are
measured whose dataset is at hand."""
    examples = (
        "lsgm bench variance",
        "lsgm bench variance checkpoints/glyphs-lsgm --images 64 --draws 64",
        "lsgm bench variance runs/mnist-small --json",
    )

    checkpoints: Annotated[Positional[tuple[str, ...]], arg(metavar="[CHECKPOINT...]")] = ()
    """Run or checkpoint directories of LSGMs; none: those of checkpoints/."""
    images: int | None = None
    """Held-out images of each; none takes 32, and fewer where they have more than 100,000 latents."""
    draws: int = 32
    """Draws of t and eps for the gradient, in eights of stratified times; for the value as many eights."""
    fit: int = 8000
    """Training images whose latents the Normal laws are fitted to."""
    seed: int = 0
    """Seed of latents, times and noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.images is None or self.images >= 2, f"images is {self.images}; give at least 2")
        require(
            self.draws >= 16 and self.draws % 8 == 0,
            f"draws is {self.draws}; give a multiple of 8, at least 16",
        )
        require(self.fit >= 2, f"fit is {self.fit}; give at least 2 images")


@dataclass(frozen=True, kw_only=True)
class AllBench(BenchOptions):
    """Options of ``lsgm bench all``."""

    help = "all of these and the tests of the device, within a budget"
    description = """\
Run the tests of the device (`pytest -m cuda` in a clone) and then each benchmark, in a process of
its own with its share of the budget, with sizes that suit the device and the budget. A part that overruns is
stopped, and said to be. What is done is kept: the same command goes on with what is missing or failed. All
pages are one in FOLDER/all.md, all rows in FOLDER/all.jsonl, with the machine and a table of targets."""
    examples = (
        "lsgm bench all --device cuda --budget 480 --out results/h100",
        "lsgm bench all --device cpu --budget 240",
        "lsgm bench all --only tests,train --anew",
    )
    may_be_empty = ("--only",)

    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    budget: float = 480.0
    """Seconds for all parts that are not done yet."""
    out: Path = Path("results/bench")
    """Folder of pages, rows and what the parts said."""
    only: str = ""
    """Parts to measure, between commas; empty: all."""
    anew: bool = False
    """Measure also what is done."""

    def __post_init__(self) -> None:
        require(self.budget > 0, f"budget is {self.budget:g}; give the seconds of all parts, 480 for one")


BENCHMARKS: dict[str, type[BenchOptions]] = {
    "all": AllBench,
    "train": TrainBench,
    "cost": CostBench,
    "fold": FoldBench,
    "memory": MemoryBench,
    "nll": NLLBench,
    "sample": SampleBench,
    "scale": ScaleBench,
    "variance": VarianceBench,
}
"""The benchmarks of this package by name, in the order of their lists."""
