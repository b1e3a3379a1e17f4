"""``lsgm eval``: measure models under a named task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction

from lsgm.config import Execution
from lsgm.errors import ConfigError
from lsgm.files.names import shown
from lsgm.logs import log
from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from lsgm_eval.task import Images, Task

HELP = "measure models: distances, likelihoods, cost, all with intervals"

EXAMPLES = (
    "lsgm eval glyphs --model runs/glyphs-lsgm",
    "lsgm eval glyphs --model lsgm=runs/a --model vae=runs/b --tier quick --out results/both",
    "lsgm eval mnist --model my_package.models:factory --tier smoke --json > rows.jsonl",
    "lsgm eval glyphs --model runs/glyphs-lsgm --only nelbo   # one measurement; the same command resumes",
    "lsgm eval cifar10 --model a=samples.npz --model b=./pngs --only quality   # ready images",
    "lsgm eval cifar10 --model runs/a --extractor torchscript:mine.ts   # another feature space, not FID",
    "lsgm eval image-folder --data ./photos --model runs/mine",
    "lsgm eval image-folder --data ./photos --model a=./pngs --images all --only quality",
    "lsgm eval image-folder --reference inception=ffhq.npz --model a=samples.npz --only quality",
    "torchrun --nproc-per-node 8 -m lsgm eval cifar10 --model runs/a --tier full --save npz",
)


@dataclass(frozen=True)
class EvalOptions:
    """EvalOptions of ``lsgm eval``."""

    task: Annotated[Positional[str], arg(metavar="TASK")]
    """A task of `lsgm ls tasks`, or a TOML file of your own."""
    model: UseAppendAction[tuple[str, ...]] = ()
    """Run directory, checkpoint, hf://OWNER/NAME of the Hub, package.module:factory (code that is run), or
    ready images (a folder, zip, npz or npy); named by NAME= before it; repeat for more."""
    tier: str = "quick"
    """How much is measured: smoke, quick or full; numbers of different tiers are never comparable."""
    out: Path | None = None
    """Folder of results.jsonl, samples/ and per-image/ (default: results/TASK-TIER)."""
    extractor: UseAppendAction[tuple[str, ...]] = ()
    """Measure sample quality in this feature space in the place of the task's: inception, inception-clean,
    export:FILE.pt2, torchscript:FILE, dinov2:DIR[:MODEL] or glyphs; may be repeated. Only the official
    Inceptions give FID. torchscript:, dinov2: and inception-clean:FILE run what is in their files: name only
    those that you trust; export: and inception:FILE take numbers from theirs and run nothing else."""
    reference: UseAppendAction[tuple[str, ...]] = ()
    """SPACE=FILE.npz: take mean and covariance of the reference (mu, sigma) from a file; may be repeated. No
    data are needed where every space has one and no likelihood is asked for."""
    export_reference: Path | None = None
    """Write the references' mean and covariance into this folder as SPACE.npz, as others read them."""
    save: Literal["", "png", "npz"] = ""
    """Keep all images of the headline's numbers below OUT/images, as PNG files or as one npz (arr_0)."""
    images: str = ""
    """Draw this many images in the place of the tier's number, or all of ready images; the rows' task says so
    (glyphs@2/quick-images-500), and they stand apart from the tier's."""
    first_seed: int | None = None
    """Draw the images from this seed on in the place of the tier's first one: others of the same models, and
    the rows' task says so (glyphs@3/quick-seed-1000). Likelihoods do not depend on it."""
    data: str = ""
    """A folder, zip, npz or npy of images in the place of the task's, cropped and reduced to the models'
    size."""
    convert: str = ""
    """Allow images of --data and ready images that are not plain 8-bit greyscale or RGB: words such as
    grey,palette,alpha, or all."""
    only: UseAppendAction[tuple[Literal["quality", "nelbo", "iw", "ode", "curve"], ...]] = ()
    """Measure this alone; may be repeated."""
    batch_size: int | Literal["auto"] = 250
    """Images at a time; no number but the seconds depends on it. auto tries which is fastest of those that
    memory is enough for."""
    execution: Execution = "eager"
    """How the score network runs: eager; compiled, by torch.compile, which changes roundings; graphs,
    recorded as CUDA graphs, bit for bit as eager on a GPU; compiled-graphs, both."""
    workers: int = 0
    """Image files that are decoded at once; 0: as many as there are cores. No number depends on it."""
    device: str = "auto"
    """Where the model runs, such as cpu or cuda."""
    allow_failures: bool = False
    """Leave out images whose likelihood cannot be told, and say how many, instead of ending at the first."""
    json: bool = False
    """Print the rows as JSON lines on standard output instead of a table."""
    report: Literal["yes", "no"] = "yes"
    """Whether `lsgm report OUT` is run in the end, also on what is finished when something fails."""


def run(argv: list[str]) -> int:
    """Evaluate the models named on the command line; 0 where every number was measured."""
    options = parse(
        EvalOptions,
        argv,
        prog="lsgm eval",
        description="Measure models under a named task: every number with its interval and its cost.",
        examples=list(EXAMPLES),
        may_be_empty=("--save",),
    )
    from lsgm import typefaces
    from lsgm_eval.task import load_task

    asked = load_task(options.task)
    if asked.dataset == "glyphs":
        typefaces.begin()  # while torch is imported
    from lsgm.data.decoding import set_workers
    from lsgm.devices import pick_device
    from lsgm.distributed import join
    from lsgm.errors import UserError
    from lsgm.files.names import file_name
    from lsgm.files.write import claim
    from lsgm.model.running import settle
    from lsgm.progress import aligned
    from lsgm_eval.cache import claim_results
    from lsgm_eval.live import count_words, measurement_table
    from lsgm_eval.models import open_models
    from lsgm_eval.rows import value_cells
    from lsgm_eval.run.calls import evaluate
    from lsgm_eval.run.manifest import MeasuringCall, describe_call, words_of
    from lsgm_eval.run.runner import measuring
    from lsgm_eval.run.steps import MEASUREMENTS

    if not options.model:
        raise UserError("there is nothing to measure; name a run with --model DIR")
    if options.batch_size != "auto" and options.batch_size < 1:
        raise UserError(f"batch-size is {options.batch_size}; it must be at least 1")
    set_workers(options.workers)
    references = dict(named_file(word) for word in options.reference)
    task = changed_task(asked, options.extractor, options.data, options.convert, alone=bool(references))
    images = number_of_images(options.images)
    seed = task.tier(options.tier).other_seed(options.first_seed)
    task.tier(options.tier).drawing(images, seed)
    world = join(pick_device(options.device))
    models = open_models(options.model, device=world.device, convert=options.convert)
    out = claim_results(options.out or Path("results") / f"{file_name(task.name)}-{options.tier}")
    if options.export_reference is not None:
        claim(options.export_reference)
    named = dict(zip(options.model, models, strict=True))
    command = ["lsgm", "eval", *argv]
    plain = replace(options, out=None, json=False, report="yes", save="", export_reference=None, workers=0)

    def again(words: Sequence[str], changes: Mapping[str, Any]) -> list[str]:
        return ["lsgm", "eval", *words_of(replace(plain, model=tuple(words), **changes), "task")]

    about = describe_call(command, named, task, options.tier, None, world.device, images, seed)
    call = MeasuringCall(out, about, again)
    with measuring(out, command, measurement_table, world=world, call=call, report=options.report) as runner:
        rows = evaluate(
            models,
            task,
            options.tier,
            out,
            only=options.only or MEASUREMENTS,
            batch_size=settle(models, options.execution, options.batch_size, world),
            world=world,
            allow_failures=options.allow_failures,
            references=references,
            insist=bool(options.extractor),
            save=options.save,
            export_reference=options.export_reference,
            images=images,
            first_seed=seed,
            runner=runner,
        )
    if not world.main:
        return 0
    cells = [("model", "metric", "value", "95 % interval", "n", "sampler")]
    for row in rows:
        told = value_cells(row.value, row.ci_low, row.ci_high)
        cells.append((row.model, row.metric, *told, count_words(row), row.sampler or ""))
    lines = (json.dumps(row.as_dict()) for row in rows) if options.json else map(shown, aligned(cells))
    print("\n".join(lines))
    for why in dict.fromkeys(row.note or "" for row in rows if row.value is None and row.group == "quality"):
        log.warning(f"not measured: {why}")
    log.info(f"rows in {out / 'results.jsonl'}, sample grids in {out / 'samples'}")
    return 0


def number_of_images(word: str) -> Images | None:
    """Return what ``--images`` says, None where it is not given. Raises ConfigError for no number."""
    if word in ("", "all"):
        return "all" if word else None
    if not word.isdecimal():
        raise ConfigError(f"--images is '{word}': give a number, or all")
    return int(word)


def changed_task(
    task: Task, extractors: Sequence[str], data: str, convert: str = "", *, alone: bool = False
) -> Task:
    """Return the task with the feature spaces and the images of the command line in the place of its own.

    Another feature space is measured in every way that the task's first one is. Its rows bear its name; other
    images are another data set, which the rows name too; ``convert`` is for those of a path. A task without
    images of its own needs some, unless files of statistics stand ``alone`` for them.
    """
    from lsgm.results.metrics import DISTANCES
    from lsgm_eval.features.extractor import check_spec
    from lsgm_eval.task import SpaceSpec

    for word in extractors:
        check_spec(word)
    if extractors:
        statistics = task.spaces[0].statistics if task.spaces else DISTANCES
        named = {space.extractor: space.name for space in task.spaces}
        task = replace(
            task, spaces=tuple(SpaceSpec(word, named.get(word, ""), statistics) for word in extractors)
        )
    if data:
        task = replace(task, dataset=data, levels={}, convert=convert or task.convert)
    elif not task.dataset and not alone:
        raise ConfigError(f"task {task.name} has no data set of its own: name a folder or zip by --data")
    return task


def named_file(word: str) -> tuple[str, Path]:
    """Return the name and the file of ``SPACE=FILE.npz``. Raises ConfigError for another form."""
    name, found, file = word.partition("=")
    if not (name and found and file):
        raise ConfigError(f"--reference is '{word}': give SPACE=FILE.npz, such as inception=cifar10.npz")
    return name, Path(file)
