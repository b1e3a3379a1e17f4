"""What the benchmark of log-densities scores: draws of a mixture in latent shape, or of a trained prior."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from lsgm.bench.flow_ways import (
    Flow,
    Way,
    adaptive,
    controlled,
    fixed_steps,
    mixture_score,
    reference,
    true_log_p,
)
from lsgm.bench.train import table
from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError
from lsgm.model.diffusion import ScoreBasedModel
from lsgm.options import parse
from lsgm.progress import bar
from lsgm.rng import SeededNoise
from lsgm.runs.load import load_model
from lsgm.sampling import draw
from lsgm.sampling.grids import time_end_of
from lsgm.sde import VPSDE

__all__ = [
    "ERRORS",
    "HELP",
    "OWN",
    "REFERENCE",
    "SHAPE",
    "Options",
    "Problem",
    "at_equal_error",
    "measure_ways",
    "mixture_problem",
    "model_problem",
    "page",
    "run",
]

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


# Runs the ways of `lsgm.bench.flow_ways` over their settings and compares them at equal measured error

REFERENCE, OWN = "reference", "this package"
ERRORS = {"error": "the number", "step_error": "its steps"}
"""The two errors at which costs are compared, and what they are of."""


def measure_ways(
    problem: Problem,
    *,
    tols: Sequence[float],
    own_tols: Sequence[float],
    probes: Sequence[int],
    steps: Sequence[int],
    isolate: bool,
    repeats: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return a row per way and setting: evaluations, gradients and seconds per image, errors in nats.

    ``error`` is the RMS over images of log p minus the truth, the truth's own variance taken off, and None
    where that variance is most of it; in ``step_error`` the truth's trace stands for the probes, so that the
    steps are judged alone. Every way but the reference, whose noise many evaluations average, runs
    ``repeats`` times with other probes: a fixed probe's noise has heavy tails.
    """
    listed = _settings(tols, own_tols, probes, steps, isolate)
    rows = []
    for (name, setting), way in bar(listed, desc="log-densities", unit="way"):
        batch = len(problem.truth)
        # Seeds of a run are seed, ..., seed + batch - 1.
        runs = [way(problem.flow, seed + k * batch) for k in range(1 if name == REFERENCE else repeats)]
        taken = [found.seconds for found in runs if found.seconds is not None]
        errors = torch.cat([found.log_p - problem.truth for found in runs])
        step_errors = torch.cat([found.smooth - problem.truth for found in runs])
        rows.append(
            {
                "what": "way",
                "on": problem.name,
                "batch_size": batch,
                "way": name,
                **setting,
                "evaluations": fmean(found.evaluations for found in runs),
                "gradients": fmean(found.gradients for found in runs),
                "seconds": median(taken) / batch if taken else None,
                "error": _beyond(errors, problem.truth_error),
                "step_error": _rms(step_errors),
                "truth_error": _rms(problem.truth_error),
            }
        )
    return rows


def at_equal_error(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, per setting of the reference and kind of error, this package's cheapest one as good or better.

    Nothing is interpolated, which favours the reference. Cheapest is by evaluations plus gradients; ``own``
    is None where no setting reaches the error. Errors that the truth is too coarse for are left out.
    """
    own = [row for row in rows if row["way"] == OWN]
    compared = []
    for row in (row for row in rows if row["way"] == REFERENCE):
        for kind in (kind for kind in ERRORS if row[kind] is not None):
            good = [other for other in own if other[kind] is not None and other[kind] <= row[kind]]
            best = min(good, key=lambda other: other["evaluations"] + other["gradients"], default=None)
            shown: dict[str, Any] = {"what": "equal", "on": row["on"], "batch_size": row["batch_size"]}
            shown |= {"at": kind, "reference": dict(row), "own": None if best is None else dict(best)}
            if best is not None:
                costs = ("evaluations", "gradients", "seconds")
                shown |= {f"{cost}_ratio": row[cost] / best[cost] for cost in costs}
            compared.append(shown)
    return compared


def _settings(
    tols: Sequence[float],
    own_tols: Sequence[float],
    probes: Sequence[int],
    steps: Sequence[int],
    isolate: bool,
) -> list[tuple[tuple[str, dict[str, Any]], Way]]:
    ways: list[tuple[tuple[str, dict[str, Any]], Way]] = []
    for tol in tols:
        ways.append(((REFERENCE, {"tol": tol, "probes": 1}), reference(tol)))
    for tol in own_tols:
        # Elsewhere one probe will do: it costs the steps that are judged there.
        for count in probes if tol in tols else probes[:1]:
            ways.append(((OWN, {"tol": tol, "probes": count}), adaptive(tol, count)))
    for count in steps:
        ways.append((("rk4, fixed steps", {"steps": count, "probes": 1}), fixed_steps(count)))
    for tol in tols if isolate else ():
        for inside in (False, True):
            for redrawn in (False, True):
                name = (
                    f"{'redrawn' if redrawn else 'fixed'} probe, log p {'in' if inside else 'out of'} control"
                )
                way = controlled(tol, inside=inside, redrawn=redrawn)
                ways.append(((name, {"tol": tol, "probes": 1}), way))
    return ways


def _rms(values: Tensor) -> float:
    """Return the root mean square over images."""
    return math.sqrt(float(values.double().square().mean()))


def _beyond(values: Tensor, noise: Tensor) -> float | None:
    """Return the RMS of ``values`` less the truth's variance, or None where most of it is the truth's."""
    square, own = _rms(values) ** 2, _rms(noise) ** 2
    return math.sqrt(square - own) if square >= 2 * own else None


# The rows of the benchmark of log-densities as a Markdown page

Row = Mapping[str, Any]

_WAYS = ("way", "setting", "evaluations", "gradients", "seconds", "error of the number", "of its steps")
_EQUAL = (
    "error of",
    "reference at",
    "nats",
    "evaluations",
    "here",
    "reached by",
    "fewer",
    "gradients",
    "seconds",
)


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the machine, the comparison at equal error, and the table of all ways."""
    ways = [row for row in rows if row["what"] == "way"]
    equal = [row for row in rows if row["what"] == "equal"]
    first = ways[0]
    return "\n\n".join(
        [
            f"# Log-densities by probability flow: {first['on']}, batch of {first['batch_size']}",
            about,
            "## At equal error",
            table(_EQUAL, map(_equal, equal)),
            "The cheapest setting of this package whose error is not above that of the reference procedure. "
            "The last three columns are ratios, the reference's cost over this package's.",
            "## Every way",
            table(_WAYS, map(_way, ways)),
            "Per image: evaluations of the network, vector-Jacobian products through it, wall seconds "
            "(medians). Errors are RMS over images in nats: of the number with its probes' noise, and of its "
            "steps alone, where the truth's trace stands for the probes. "
            f"The truth's own standard error is {first['truth_error']:.2g} nats; an error that it would hide "
            "is not shown.",
        ]
    )


def _way(row: Row) -> list[str]:
    seconds = "–" if row["seconds"] is None else f"{row['seconds']:.3g}"
    cost = [f"{row[name]:.0f}" for name in ("evaluations", "gradients")]
    error = "–" if row["error"] is None else f"{row['error']:.2g}"
    return [row["way"], _setting(row), *cost, seconds, error, f"{row['step_error']:.1e}"]


def _equal(row: Row) -> list[str]:
    theirs, ours = row["reference"], row["own"]
    nats = theirs[row["at"]]
    head = [ERRORS[row["at"]], f"{theirs['tol']:.0e}", f"{nats:.2g}", f"{theirs['evaluations']:.0f}"]
    if ours is None:
        return [*head, "–", "no setting", "–", "–", "–"]
    ratios = [f"{row[f'{name}_ratio']:.1f}" for name in ("evaluations", "gradients", "seconds")]
    return [*head, f"{ours['evaluations']:.0f}", _setting(ours), *ratios]


def _setting(row: Row) -> str:
    where = f"{row['steps']} steps" if "steps" in row else f"tol {row['tol']:.0e}"
    return f"{where}, {row['probes']} probe{'s' if row['probes'] > 1 else ''}"


# ``lsgm bench nll``: log-densities by probability flow, and what they cost the reference procedure

HELP = "evaluations and error of log-densities by probability flow, against the reference procedure"

DESCRIPTION = """Compute log p(z_0) of one batch by the probability flow, each way at several settings, and
compare evaluations and seconds per image at equal measured error with the reference implementation's
procedure: SciPy's RK45 over the whole batch and its log-densities in one vector, a Gaussian probe redrawn at
every evaluation. The truth is this package's solver in float64 at a tight tolerance with the exact trace.
Two errors are measured, RMS over images in nats: of the number itself, in which the noise of probes counts,
and of its steps alone, where the truth's trace replaces the probes. Without --model the score is that of a
mixture of Gaussians, in closed form; a trained model's exact trace is beyond reach, and --truth-probes stand
for it."""

EXAMPLES = (
    "lsgm bench nll",
    "lsgm bench nll --batch 8",
    "lsgm bench nll --model runs/mnist-small --batch 4 --tols 1e-2 --own-tols 1e-2,1e-3 --truth-tol 1e-5",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench nll``."""

    model: str | None = None
    """A trained LSGM, run or checkpoint directory, whose own samples are scored; None: a mixture in latent
    shape."""
    batch: int = 64
    """Images scored together; the reference procedure shares one step size among them."""
    tols: str = "1e-3,1e-4,1e-5"
    """Tolerances, rtol = atol, of the reference procedure, between commas."""
    own_tols: str = "1e-3,1e-4,1e-5,1e-6,1e-7,1e-8,1e-9"
    """Tolerances of this package's way, between commas; where --tols has one too, with all --probes."""
    probes: str = "1,2,4,8,16,32"
    """Probes per image and solve of this package's way, between commas."""
    steps: str = "10,20,40"
    """Steps of RK4 over a fixed grid, between commas."""
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
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        require(self.batch >= 1, f"batch is {self.batch}; give at least 1 image")
        require(self.repeats >= 1, f"repeats is {self.repeats}; give at least 1")
        require(self.truth_tol > 0, f"truth-tol is {self.truth_tol}; it must be above 0")
        require(
            self.truth_probes >= 2, "truth-probes must be at least 2, or the truth's own error is unknown"
        )
        tols = [*numbers(self.tols), *numbers(self.own_tols)]
        require(min(tols) > self.truth_tol, "tols and own-tols must lie above truth-tol")
        for name in ("probes", "steps"):
            counts = numbers(getattr(self, name))
            require(all(n >= 1 and n % 1 == 0 for n in counts), f"{name} must be whole numbers of at least 1")


def numbers(text: str) -> list[float]:
    """Return the numbers between commas. Raises ConfigError where there is none, or something else."""
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"'{text}' is not a list of numbers between commas") from None
    require(bool(found), "an option that lists numbers lists none")
    return found


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench nll", description=DESCRIPTION, examples=EXAMPLES)
    from lsgm.bench.measuring import describe, machine
    from lsgm.devices import pick_device

    device = pick_device(options.device)
    about = machine(device)
    problem = (
        mixture_problem(batch=options.batch, seed=options.seed, truth_tol=options.truth_tol)
        if options.model is None
        else model_problem(
            options.model,
            batch=options.batch,
            seed=options.seed,
            truth_tol=options.truth_tol,
            truth_probes=options.truth_probes,
            device=device,
        )
    )
    rows = measure_ways(
        problem,
        tols=numbers(options.tols),
        own_tols=numbers(options.own_tols),
        probes=[int(n) for n in numbers(options.probes)],
        steps=[int(n) for n in numbers(options.steps)],
        isolate=options.isolate,
        repeats=options.repeats,
        seed=options.seed,
    )
    rows += at_equal_error(rows)
    if options.json:
        print("\n".join(json.dumps({"bench": "nll", **row, **about}) for row in rows))
    else:
        print(page(rows, about=describe(about)))
    return 0
