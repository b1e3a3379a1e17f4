"""``lsgm nfe``: quality against cost for every sampler, and what it costs to reach a quality."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from lsgm.config import Execution, require
from lsgm.files.names import shown
from lsgm.logs import log
from lsgm.options import parse

HELP = "quality against evaluations, seconds and FLOPs for every sampler, and speed-ups between models"

DESCRIPTION = """Measure models' samples at every sampler and budget, then what it costs to reach a quality.

Every point is a unit of its own, the cheapest come first, and all draw from the same seeds: interrupt it at
any moment, and the same command goes on. `torchrun -m lsgm nfe ...` shares its images over processes."""

EXAMPLES = (
    "lsgm nfe --model lsgm=runs/a --model sgm=runs/b --task cifar10",
    "lsgm nfe --model runs/a --task glyphs --samplers heun,dpmpp-2m@logsnr,edm-heun@edm:churn=10",
    "lsgm nfe --model runs/a --model runs/b --task glyphs --nfe 5,10,20 --tol none --reach 20,10",
    "lsgm nfe --model runs/a --task cifar10 --extractor torchscript:mine.ts --images 9000 --time-budget 600",
)


@dataclass(frozen=True)
class NfeOptions:
    """NfeOptions of ``lsgm nfe``."""

    model: UseAppendAction[tuple[str, ...]] = ()
    """Run directory, checkpoint, hf://OWNER/NAME of the Hub, package.module:factory (code that is run) or
    ready images, named by NAME= before it; repeat for more. Ratios are of the first over the later ones."""
    task: str = ""
    """A task of `lsgm ls tasks`, or a TOML file of your own."""
    samplers: str = "ddim,heun,dpmpp-2m,unipc-3,ancestral"
    """NAME[@GRID][:OPTION=VALUE...] between commas; `lsgm ls samplers` lists them."""
    nfe: str = "5,8,10,15,20,35,50,100,250,1000"
    """Evaluations that samplers with fixed steps may take."""
    tol: str = "1e-1..1e-5"
    """Tolerances of adaptive samplers (dopri5 where none is named), by decades or between commas; or none."""
    images: int | None = None
    """Images of every point (default: the tier's number of a curve)."""
    first_seed: int | None = None
    """Draw them from this seed on in the place of the tier's first one, as in `lsgm eval`."""
    metric: str = "frechet"
    """What is measured of the images: frechet, kernel, precision, ..."""
    reach: str = ""
    """Qualities whose costs are told, between commas (default: the best that every model attains)."""
    extractor: UseAppendAction[tuple[str, ...]] = ()
    """Measure in this feature space in the place of the task's, as in `lsgm eval`; may be repeated.
    torchscript:, dinov2: and inception-clean:FILE run what is in their files, export: does not."""
    reference: UseAppendAction[tuple[str, ...]] = ()
    """SPACE=FILE.npz: mean and covariance of the reference from a file; may be repeated."""
    tier: str = "quick"
    """Which of the task's protocols gives seeds, reference and the default of images."""
    data: str = ""
    """A folder, zip, npz or npy of images in the place of the task's."""
    convert: str = ""
    """Allow images of --data and ready images that are not plain greyscale or RGB, as in `lsgm eval`."""
    out: Path | None = None
    """Folder of results.jsonl and of the finished points (default: results/TASK-TIER-nfe)."""
    time_budget: Annotated[float | None, arg(metavar="SECONDS")] = None
    """Begin no further point that would end later; the same command goes on."""
    batch_size: int | Literal["auto"] = 250
    """Images at a time, which seconds depend on; auto tries which is fastest of those that memory is enough
    for."""
    execution: Execution = "eager"
    """How the score network runs: eager; compiled, by torch.compile, which changes roundings; graphs,
    recorded as CUDA graphs, bit for bit as eager on a GPU; compiled-graphs, both."""
    device: str = "auto"
    """Where the model runs, such as cpu or cuda."""
    json: bool = False
    """Print the rows as JSON lines on standard output instead of tables."""
    report: Literal["yes", "no"] = "yes"
    """Whether `lsgm report OUT`, which draws the curves, is run in the end, also when something fails."""

    def __post_init__(self) -> None:
        require(
            self.batch_size == "auto" or self.batch_size >= 1,
            f"batch-size is {self.batch_size}; it must be at least 1",
        )
        require(
            self.images is None or self.images >= 40,
            f"images is {self.images}; a distance needs at least 40 images",
        )
        require(
            self.time_budget is None or self.time_budget > 0,
            f"time-budget is {self.time_budget}; give seconds above 0, or leave it out",
        )


def run(argv: list[str]) -> int:
    """Sweep the models named on the command line; 0 where every point was measured or is left for later."""
    options = parse(
        NfeOptions,
        argv,
        prog="lsgm nfe",
        description=DESCRIPTION,
        examples=EXAMPLES,
        may_be_empty=("--tol", "--reach"),
    )
    require(bool(options.model), "there is nothing to measure; name a run with --model DIR")
    require(bool(options.task), "--task is missing; `lsgm ls tasks` lists them")
    from lsgm.devices import pick_device
    from lsgm.distributed import join
    from lsgm.files.names import file_name
    from lsgm.model.running import settle
    from lsgm_eval.cache import claim_results
    from lsgm_eval.commands.eval import changed_task, named_file
    from lsgm_eval.cost_curve.points import (
        check_metric,
        plan_points,
        samplers_of,
        targets_of,
        tolerances_of,
        whole_numbers,
    )
    from lsgm_eval.cost_curve.reach import point_lines, reach_lines
    from lsgm_eval.live import sweep_table
    from lsgm_eval.models import open_models
    from lsgm_eval.run.calls import sweep
    from lsgm_eval.run.manifest import MeasuringCall, describe_call, words_of
    from lsgm_eval.run.runner import measuring
    from lsgm_eval.task import load_task

    task = changed_task(load_task(options.task), options.extractor, options.data, options.convert)
    family, tier = check_metric(options.metric), task.tier(options.tier)
    samplers, budgets = samplers_of(options.samplers), whole_numbers(options.nfe, "--nfe")
    points = plan_points(samplers, budgets, tolerances_of(options.tol))
    n = options.images or tier.curve_samples or tier.n_samples
    require(n >= 40, f"task {task.name} draws no images in the tier {options.tier}: say how many by --images")
    seed = tier.other_seed(options.first_seed)
    targets, references = targets_of(options.reach), dict(named_file(word) for word in options.reference)
    world = join(pick_device(options.device))
    models = open_models(options.model, device=world.device, convert=options.convert)
    out = claim_results(options.out or Path("results") / f"{file_name(task.name)}-{options.tier}-nfe")
    named = dict(zip(options.model, models, strict=True))
    command = ["lsgm", "nfe", *argv]
    plain = replace(options, out=None, json=False, report="yes", time_budget=None)

    def again(words: Sequence[str], changes: Mapping[str, Any]) -> list[str]:
        return ["lsgm", "nfe", *words_of(replace(plain, model=tuple(words), **changes))]

    about = describe_call(command, named, task, options.tier, device=world.device, seed=seed)
    call = MeasuringCall(out, about, again)
    with measuring(out, command, sweep_table, world=world, call=call, report=options.report) as runner:
        rows = sweep(
            models,
            task,
            options.tier,
            points,
            n,
            out,
            family=family,
            targets=targets,
            batch_size=settle(models, options.execution, options.batch_size, world),
            world=world,
            insist=bool(options.extractor),
            references=references,
            seconds=options.time_budget,
            first_seed=seed,
            runner=runner,
        )
    if not world.main:
        return 0
    if options.json:
        print("\n".join(json.dumps(row.as_dict()) for row in rows))
    else:
        found = point_lines([row for row in rows if row.group == "curve"])
        derived = reach_lines([row for row in rows if row.group == "reach"])
        print("\n".join(map(shown, [*found, "", *derived])))
    log.info(f"rows in {out / 'results.jsonl'}")
    return 0
