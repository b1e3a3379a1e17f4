"""Log-densities by probability flow: ways at several settings, compared at equal measured error.

What is scored are draws of a mixture in latent shape, whose score is known, or of a trained prior.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
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
from lsgm.bench.measuring import Columns, Row, columns, measured
from lsgm.bench.options import Coordinate, NLLBench, numbers
from lsgm.bench.targets import towards, verdicts
from lsgm.config import SamplerConfig
from lsgm.errors import ConfigError
from lsgm.model.diffusion import ScoreBasedModel
from lsgm.progress import bar
from lsgm.rng import SeededNoise
from lsgm.runs.load import load_model
from lsgm.sampling import draw
from lsgm.sampling.grids import time_end_of
from lsgm.sde import VPSDE

SHAPE = (8, 4, 4)
"""Of the mixture's draws: small enough for a minute, large enough that probes are noisy."""


@dataclass(frozen=True)
class FlowProblem:
    """A flow in the networks' own dtype, and the truth of its log-densities [B] with its standard error."""

    name: str
    flow: Flow
    truth: Tensor
    truth_error: Tensor


def mixture_problem(*, batch: int, seed: int, truth_tol: float) -> FlowProblem:
    """Return the problem on a mixture of four Gaussians under the variance preserving SDE, in float64."""
    world = mixture_score(VPSDE(), SHAPE)
    flow = Flow(world, world.draw(batch, seed), time_end_of(world.sde))
    truth, error = true_log_p(flow, truth_tol)
    return FlowProblem(f"mixture, {'x'.join(map(str, SHAPE))}", flow, truth, error)


def model_problem(
    path: str, *, batch: int, seed: int, truth_tol: float, truth_probes: int, device: torch.device
) -> FlowProblem:
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
    return FlowProblem(f"{model.name}, {'x'.join(map(str, shape))}", flow, truth, error)


REFERENCE, OWN = "reference", "this package"
ERRORS = {"error": "the number", "step_error": "its steps"}
"""The two errors at which costs are compared, and what they are of."""


def measure_ways(
    problem: FlowProblem,
    *,
    tols: Sequence[float],
    own_tols: Sequence[float],
    probes: Sequence[int],
    steps: Sequence[int],
    coordinates: Sequence[Coordinate],
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
    if not problem.flow.score.sde.is_vp_like:  # of which alone there is an angle
        coordinates = ["time"]
    listed = _settings(tols, own_tols, probes, steps, coordinates, isolate)
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


def at_equal_error(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return, per setting of the reference and kind of error, this package's cheapest one as good or better.

    Nothing is interpolated, which favours the reference. Cheapest is by evaluations plus gradients; ``own``
    is None where no setting reaches the error. Errors that the truth is too coarse for are left out. The row
    with the largest share of the reference's seconds says whether the target is met.
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
    if reached := [shown for shown in compared if "seconds_ratio" in shown]:
        worst = min(reached, key=lambda shown: shown["seconds_ratio"])
        of = f"{worst['on']}, batch {worst['batch_size']}, error of {ERRORS[worst['at']]}, "
        of += f"the largest of {len(reached)} shares"
        if absent := len(compared) - len(reached):
            of += f"; {absent} of the errors are reached by no setting"
        worst |= towards("adaptive-nll", 1 / worst["seconds_ratio"], of)
    return compared


def _settings(
    tols: Sequence[float],
    own_tols: Sequence[float],
    probes: Sequence[int],
    steps: Sequence[int],
    coordinates: Sequence[Coordinate],
    isolate: bool,
) -> list[tuple[tuple[str, dict[str, Any]], Way]]:
    ways: list[tuple[tuple[str, dict[str, Any]], Way]] = []
    for tol in tols:
        ways.append(((REFERENCE, {"tol": tol, "probes": 1}), reference(tol)))
    for coordinate, tol in product(coordinates, own_tols):
        along: dict[str, Any] = {} if coordinate == "time" else {"coordinate": coordinate}
        # Elsewhere one probe will do: it costs the steps that are judged there.
        for count in probes if tol in tols else probes[:1]:
            way = adaptive(tol, count, coordinate)
            ways.append(((OWN, {"tol": tol, "probes": count, **along}), way))
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


def _setting(row: Row) -> str:
    where = f"{row['steps']} steps" if "steps" in row else f"tol {row['tol']:.0e}"
    along = f", by the {row['coordinate']}" if "coordinate" in row else ""
    return f"{where}, {row['probes']} probe{'s' if row['probes'] > 1 else ''}{along}"


def _known(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


_WAYS: Columns = {
    "way": "{way}",
    "setting": _setting,
    "evaluations": "{evaluations:.0f}",
    "gradients": "{gradients:.0f}",
    "seconds": lambda row: _known(row["seconds"], ".3g"),
    "error of the number": lambda row: _known(row["error"], ".2g"),
    "of its steps": "{step_error:.1e}",
}
_EQUAL: Columns = {
    "error of": lambda row: ERRORS[row["at"]],
    "reference at": "{reference[tol]:.0e}",
    "nats": lambda row: f"{row['reference'][row['at']]:.2g}",
    "evaluations": "{reference[evaluations]:.0f}",
    "here": lambda row: _known(row["own"] and row["own"]["evaluations"], ".0f"),
    "reached by": lambda row: _setting(row["own"]) if row["own"] else "no setting",
    "fewer": lambda row: _known(row.get("evaluations_ratio"), ".1f"),
    "gradients": lambda row: _known(row.get("gradients_ratio"), ".1f"),
    "seconds": lambda row: _known(row.get("seconds_ratio"), ".1f"),
}


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
            columns(_EQUAL, equal),
            "The cheapest setting of this package whose error is not above that of the reference procedure. "
            "The last three columns are ratios, the reference's cost over this package's.",
            verdicts(equal, every=False),
            "## Every way",
            columns(_WAYS, ways),
            "Per image: evaluations of the network, vector-Jacobian products through it, wall seconds "
            "(medians). Errors are RMS over images in nats: of the number with its probes' noise, and of its "
            "steps alone, where the truth's trace stands for the probes. "
            f"The truth's own standard error is {first['truth_error']:.2g} nats; an error that it would hide "
            "is not shown.",
        ]
    )


def run(options: NLLBench) -> int:
    """Measure, then print; the exit status is 0."""
    shared: dict[str, Any] = {"batch": options.batch, "seed": options.seed, "truth_tol": options.truth_tol}

    def rows(device: torch.device) -> list[dict[str, Any]]:
        if options.model is None:
            problem = mixture_problem(**shared)
        else:
            how: dict[str, Any] = {"truth_probes": options.truth_probes, "device": device}
            problem = model_problem(options.model, **how, **shared)
        ways = measure_ways(
            problem,
            tols=numbers(options.tols, "tols", float),
            own_tols=numbers(options.own_tols, "own-tols", float),
            probes=[int(n) for n in numbers(options.probes, "probes", float)],
            steps=[int(n) for n in numbers(options.steps, "steps", float)],
            coordinates=options.along,
            isolate=options.isolate,
            repeats=options.repeats,
            seed=options.seed,
        )
        return [*ways, *at_equal_error(ways)]

    return measured("nll", options, rows, page)
