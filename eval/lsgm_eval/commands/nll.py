"""``lsgm nll``: bounds on -log P(x) of trained models, on a named task's images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction

from lsgm.config import DensityConfig, require
from lsgm.files.names import shown
from lsgm.logs import log
from lsgm.options import Positional, arg, parse
from lsgm.results import Row

if TYPE_CHECKING:
    from lsgm.data import ImageSet
    from lsgm.generative import GenerativeModel
    from lsgm_eval.images import ScoredImages
    from lsgm_eval.run.steps import Protocol
    from lsgm_eval.task import Method, Task

HELP = "score images: nats and bits/dim by NELBO, importance weighting or probability flow"

DESCRIPTION = """Bound -log P(x) on a task's images, in nats per image and bits per dimension, with errors.

Interrupt it at any moment: the same command goes on, and finished images are never scored twice.
`torchrun --nproc-per-node 2 -m lsgm nll ...` shares the images over several processes."""

EXAMPLES = (
    "lsgm nll runs/mnist-small --task mnist",
    "lsgm nll runs/mnist-small-vae --task mnist --method nelbo --method iw --samples 1000 --tier full",
    "lsgm nll runs/mnist-small --task mnist --method ode --tol 1e-5 --limit 500",
    "lsgm nll runs/mnist-small --task mnist --times 64 --no-control-variate",
    "lsgm nll lsgm=runs/a sgm=runs/b --task cifar10 --method ode --dequantise uniform --samples 4",
    "lsgm nll runs/photos --data ./photos              # all images of your own, or the test ones of splits",
    "lsgm nll runs/photos --data ./photos --limit 20   # twenty of them, drawn uniformly",
    "lsgm nll runs/photos --data one.png               # a single image, which has no interval",
)

FLOW = ("rtol", "atol", "step_control", "coordinate", "solver", "steps", "probes", "divergence")
"""Settings of the probability flow, which the score-matching bound does without."""


@dataclass(frozen=True)
class NllOptions:
    """NllOptions of ``lsgm nll``. What is None stays as the task's tier has it."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL")] = ()
    """Run directories, checkpoints, hf://OWNER/NAME of the Hub or package.module:factory (code that is run),
    each named by NAME= before it."""
    task: str = ""
    """A task of `lsgm ls tasks`, or a TOML file of your own (with --data: image-folder)."""
    data: str = ""
    """A folder, zip, npz or npy of images, or one image, in the place of the task's, cropped and reduced to
    the models' size."""
    convert: str = ""
    """Allow images of --data that are not plain 8-bit greyscale or RGB: words such as grey,palette,alpha, or
    all."""
    method: UseAppendAction[tuple[Literal["nelbo", "iw", "ode"], ...]] = ()
    """nelbo (default): score matching; iw: importance weighted; ode: probability flow. May be repeated."""
    tier: str = "quick"
    """How much is measured: smoke, quick or full; numbers of different tiers are never comparable."""
    limit: int | None = None
    """Score this many images instead, the first of the tier's order; the rows' task says so."""
    samples: int | None = None
    """Latent draws per image: the K of iw, else averaged."""
    times: int | None = None
    """nelbo: times t per latent draw."""
    control_variate: bool = True
    """nelbo of a latent prior: off, its whole cross entropy is estimated, and not what the network adds to a
    Normal prior's; the same expectation with far more noise."""
    tol: float | None = None
    """Short for --rtol and --atol."""
    rtol: float | None = None
    """Relative tolerance of dopri5."""
    atol: float | None = None
    """Absolute tolerance of dopri5."""
    step_control: Literal["auto", "state", "density"] | None = None
    """What the steps of dopri5 follow: the state, or its log-density too, to --atol nats per dimension."""
    coordinate: Literal["time", "angle"] | None = None
    """What dopri5 steps along: time, or the angle arctan(sigma_t / m_t), for fewer evaluations of a variance
    preserving SDE's flow."""
    solver: Literal["dopri5", "rk4", "heun", "euler"] | None = None
    """Of the probability flow: adaptive, or one with fixed steps."""
    steps: int | None = None
    """Steps of a solver with fixed steps."""
    probes: int | None = None
    """Hutchinson probes per draw."""
    divergence: Literal["hutchinson", "exact"] | None = None
    """Estimated without bias, or exact where the dimension is small."""
    dequantise: Literal["noise", "uniform"] | None = None
    """How a data-space model's levels become continuous; others need neither."""
    out: Path | None = None
    """Folder of results.jsonl, per-image/ and scores/ (default: results/TASK-TIER)."""
    batch_size: int | Literal["auto"] = 250
    """Images at a time; no number but the seconds depends on it. auto tries which is fastest of those that
    memory is enough for, and sets --at-once too."""
    at_once: int | None = None
    """Draws at a time, over all images of a batch: memory and speed, never a number."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one, or each process its own."""
    json: bool = False
    """Print the rows as JSON lines on standard output instead of a table."""
    allow_failures: bool = False
    """Leave out images that cannot be scored, and say how many, instead of ending at the first."""

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 2, f"limit is {self.limit}; an error needs 2 images")
        require(
            self.batch_size == "auto" or self.batch_size >= 1,
            f"batch-size is {self.batch_size}; it must be at least 1",
        )
        clash = self.tol is not None and (self.rtol is not None or self.atol is not None)
        require(not clash, "--tol sets both --rtol and --atol: give it or them")
        methods = self.method or ("nelbo",)
        require(self.times is None or "nelbo" in methods, "--times is of --method nelbo alone")
        controlled = self.control_variate or "nelbo" in methods
        require(controlled, "--no-control-variate is of --method nelbo alone")
        for name in ("tol", *FLOW):
            unused = getattr(self, name) is not None and set(methods) == {"nelbo"}
            option = name.replace("_", "-")
            require(
                not unused, f"--{option} is of --method ode or iw: the score-matching bound solves no flow"
            )


def run(argv: list[str]) -> int:
    """Score the models named on the command line; 0 where every number was measured."""
    options = parse(NllOptions, argv, prog="lsgm nll", description=DESCRIPTION, examples=EXAMPLES)
    require(bool(options.models), "there is nothing to score; name a run, `lsgm nll RUN --task TASK`")
    require(not options.convert or bool(options.data), "--convert is for the images of --data")
    given = bool(options.task or options.data)
    require(given, "--task is missing; `lsgm ls tasks` lists them, and --data names images of your own")
    from lsgm.devices import pick_device
    from lsgm.distributed import join
    from lsgm.files.names import file_name
    from lsgm.model.running import settle
    from lsgm_eval.cache import claim_results
    from lsgm_eval.commands.eval import changed_task
    from lsgm_eval.images import scored_images_of
    from lsgm_eval.live import measurement_table
    from lsgm_eval.models import open_model
    from lsgm_eval.run.calls import score
    from lsgm_eval.run.manifest import MeasuringCall, describe_call, words_of
    from lsgm_eval.run.plan import task_images
    from lsgm_eval.run.runner import measuring
    from lsgm_eval.task import load_task

    task = changed_task(load_task(options.task or "image-folder"), (), options.data, options.convert)
    task.tier(options.tier)
    world = join(pick_device(options.device))
    models = [open_model(word, device=world.device) for word in options.models]
    methods = dict.fromkeys(options.method or ("nelbo",))
    out = claim_results(options.out or Path("results") / f"{file_name(task.name)}-{options.tier}")
    found = task_images(task, models, few=bool(options.data))
    whole = False
    if options.data:
        task, whole = _scored_task(task, found, options)
    images = scored_images_of(task, found)
    batch = settle(models, "eager", options.batch_size, world, flow=set(methods) != {"nelbo"})
    if options.batch_size == "auto" and options.at_once is None:
        options = replace(options, at_once=batch)
    protocols = [_protocol(task, options, method, models, images, whole=whole) for method in methods]
    named = dict(zip(options.models, models, strict=True))
    command = ["lsgm", "nll", *argv]

    def again(words: Sequence[str], changes: Mapping[str, Any]) -> list[str]:
        plain = replace(options, out=None, json=False, models=tuple(words), **changes)
        return ["lsgm", "nll", *words_of(plain, "models")]

    call = MeasuringCall(
        out, describe_call(command, named, task, options.tier, images.dataset, world.device), again
    )
    with measuring(out, command, measurement_table, world=world, call=call) as runner:
        rows = score(
            models,
            images,
            task,
            options.tier,
            protocols,
            out,
            world=world,
            batch_size=batch,
            allow_failures=options.allow_failures,
            runner=runner,
        )
    if world.main:
        print("\n".join((json.dumps(row.as_dict()) for row in rows) if options.json else table(rows)))
        kept = f"rows in {out / 'results.jsonl'}, every image's numbers in {out / 'per-image'}"
        log.info(kept)
    return 0


def estimator(base: DensityConfig, options: NllOptions) -> DensityConfig:
    """Return a tier's estimator with what the command line changes in those settings that its method has.

    Raises ConfigError for values out of range, and for settings of the other kind of solver.
    """
    fields = ("samples", "dequantise", "at_once", *(() if base.method == "nelbo" else FLOW))
    given = {name: getattr(options, name) for name in fields}
    if base.method == "nelbo":
        # A tier without it stays so: the option is on where the command line says nothing.
        control = base.control_variate and options.control_variate
        given |= {"draws": options.times, "control_variate": control}
    elif options.tol is not None:
        given |= {"rtol": options.tol, "atol": options.tol}
    config = replace(base, **{name: value for name, value in given.items() if value is not None})
    adaptive, flow = config.solver == "dopri5", base.method != "nelbo"
    require(
        not (flow and adaptive and options.steps is not None),
        "--steps is of solvers with fixed steps: add --solver rk4, or give dopri5 a tolerance by --tol",
    )
    tolerance = any(value is not None for value in (options.tol, options.rtol, options.atol))
    require(
        not (flow and not adaptive and tolerance),
        f"{config.solver} has fixed steps and no tolerance: give it --steps",
    )
    controlled = flow and not adaptive and options.step_control is not None
    require(
        not controlled, f"{config.solver} has fixed steps, which follow nothing: leave out --step-control"
    )
    along = flow and not adaptive and options.coordinate is not None
    require(not along, f"{config.solver} has times of its own: leave out --coordinate")
    exact = flow and config.divergence == "exact" and options.probes is not None
    require(not exact, "--probes is of the hutchinson divergence: an exact one has none")
    return config


def _scored_task(task: Task, images: ImageSet, options: NllOptions) -> tuple[Task, bool]:
    """Return the task with the split of images by path that is scored, and whether it is all; say which.

    It is that called test. Of a set without splits it is all of it, unless one of the models was trained on
    it: then it is the share that training left out.
    """
    from lsgm.data.splits import images_of
    from lsgm.progress import say
    from lsgm_eval.models import trained_on

    flat = {"val", "test"} <= set(images.carved)
    known = [word for word in options.models if flat and trained_on(word) == images.sha256]
    split = task.likelihood_split if known or not flat else "+".join(images.splits)
    total = len(images.split(split))
    whole = split != task.likelihood_split or set(images.splits) == {split}
    if whole:
        taken = min(options.limit or total, total)
        part = f"{taken:,} of the " if taken < total else "all " if total > 1 else "the "
        say(f"{options.data}: {part}{images_of(total)} scored")
    elif images.remark:
        reason = f", which {known[0]} was not trained on" if known else ""
        say(f"{options.data}: {images.remark}; scored are test images{reason}")
    return replace(task, likelihood_split=split), whole


def _protocol(
    task: Task,
    options: NllOptions,
    method: Method,
    models: Sequence[GenerativeModel],
    images: ScoredImages,
    *,
    whole: bool,
) -> Protocol:
    """Return what is measured by one method: the tier's, unless the command line changes it.

    Changed for one of the models it is another protocol for all, so that they stand in one table. A single
    image, or all images of a set without splits, are a protocol of their own, whatever the tier asks for.
    """
    from lsgm_eval.likelihood.store import data_tag
    from lsgm_eval.run.steps import Protocol

    tier, priors = task.tier(options.tier), [model.has_prior for model in models]
    bases = [tier.config_for(method, prior) for prior in priors]
    configs = tuple(estimator(base, options) for base in bases)
    limit = options.limit or (len(images.levels) if whole or len(images.levels) == 1 else None)
    counts = tuple(limit or tier.images_for(method, prior) for prior in priors)
    custom = any(
        replace(config, at_once=base.at_once) != base for config, base in zip(configs, bases, strict=True)
    )
    # A call for one method alone is without the settings that it does not have.
    flow = {"tol": None, **dict.fromkeys(FLOW)}
    others: dict[str, Any] = flow if method == "nelbo" else {"times": None, "control_variate": True}
    name = task.identity(options.tier, limit=limit, custom=custom)
    variant = name.removeprefix(task.identity(options.tier))
    return Protocol(
        name,
        configs,
        counts,
        data_tag(task.dataset, images.dataset) + variant,
        [model.name for model in models] if custom else (),
        {"method": (method,), **others},
    )


def table(rows: list[Row]) -> list[str]:
    """Return aligned lines as they print, then every model's note; terms by latent groups are left out."""
    from lsgm.progress import aligned
    from lsgm_eval.live import count_words

    cells = [("model", "metric", "value", "± 95 %", "solver error", "n", "NFE", "estimator")]
    for row in rows:
        if "/" in row.metric:
            continue
        value = "-" if row.value is None else f"{row.value:.6g}"
        margin = "" if row.ci_high is None else f"± {row.ci_high - row.number:.2g}"
        solver = "" if row.solver_error is None else f"{row.solver_error:.2g}"
        solver += f" ± {row.solver_error_margin:.1g}" if row.solver_error_margin is not None else ""
        nfe = f"{row.nfe_mean:.1f}" if row.nfe_mean else ""
        n = count_words(row)
        cells.append((row.model, row.metric, value, margin, solver, n, nfe, row.sampler or ""))
    notes = dict.fromkeys((row.model, row.sampler, row.note) for row in rows if row.note)
    said = [f"{', '.join(filter(None, (model, sampler)))}: {note}" for model, sampler, note in notes]
    return [shown(line) for line in [*aligned(cells), *said]]
