"""``lsgm bench nll``: log-densities by probability flow, and what they cost the reference procedure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lsgm.commands.options import parse
from lsgm.config import require
from lsgm.errors import ConfigError

__all__ = ["HELP", "Options", "run"]

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
    from lsgm.bench.flow_costs import at_equal_error, measure_ways
    from lsgm.bench.flow_page import page
    from lsgm.bench.flow_problems import mixture_problem, model_problem
    from lsgm.bench.machine import describe, machine
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
