"""``lsgm sweep``: recipes x seeds x settings as jobs, on this machine or as an array of SLURM's."""

from __future__ import annotations

import itertools
import json
import shlex
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction

from lsgm.commands.job import Job, told
from lsgm.config import require
from lsgm.errors import ConfigError, DataError
from lsgm.files.limits import DOCUMENT
from lsgm.files.names import file_name
from lsgm.files.regular import read_bytes
from lsgm.files.text import read_table
from lsgm.files.write import claim, make_folder, replace_file, writing
from lsgm.kinds import recipe_from
from lsgm.options import Positional, arg, between_commas, parse
from lsgm.progress import markdown_table, say
from lsgm.recipes import ORIGINS, load_recipe

if TYPE_CHECKING:
    from submitit import Executor

HELP = "train and measure recipes x seeds x settings as jobs, here or on a SLURM cluster"

DESCRIPTION = """Train every combination of recipes, seeds and settings, each in a folder and a job of its
own, and measure it if asked to. submitit (`pip install 'lsgm-bench[slurm]'`) carries jobs to processes of
this machine, or to SLURM as a job array. A job that is preempted saves, is queued again and goes on; the same
command passes over what is finished, and starts again what failed. `--status` says how far all are."""

EXAMPLES = (
    "lsgm sweep glyphs --seeds 1,2,3 --jobs 2",
    "lsgm sweep glyphs glyphs-sgm --seeds 1,2 --measure eval,nll --tier smoke",
    "lsgm sweep glyphs --set stage2.prior.lr=1e-3,3e-4 --set stage2.ema=0.99,0.999",
    "lsgm sweep cifar10-fid --seeds 1,2,3 --executor slurm --partition gpu --gpus 8 --processes 8 --hours 24",
    "lsgm sweep --out runs/sweep --status",
)

MEASURES = ("eval", "nll", "nfe")
POLL = 0.3
TIMES = 1000
"""How often a job may be queued again because its time was up."""


@dataclass(frozen=True)
class SweepOptions:
    """Options of `lsgm sweep`."""

    recipes: Annotated[Positional[tuple[str, ...]], arg(metavar="[RECIPE...]")] = ()
    """Names of recipes or paths of TOML files."""
    seeds: str = ""
    """Seeds between commas; each recipe's own unless given."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE,VALUE: values of one of the recipe's settings; may be repeated, and all combinations run."""
    out: Path = Path("runs/sweep")
    """Folder of the recipes as they are run, the runs, the results and the jobs' logs."""
    measure: str = ""
    """What to do with each trained run, between commas: eval, nll and nfe."""
    task: str = ""
    """The task that is measured; the recipe's dataset unless given."""
    tier: str = "quick"
    """How much is measured: smoke, quick or full."""
    executor: Literal["local", "slurm"] = "local"
    """Processes of this machine, which are waited for, or jobs of SLURM, which are left to it."""
    jobs: int = 1
    """Jobs at the same time."""
    processes: int = 1
    """Processes of each job on each node, started by torchrun where there are several."""
    nodes: int = 1
    """Machines of each job; SLURM only."""
    gpus: int = 0
    """GPUs of each job on each node."""
    cpus: int | None = None
    """Processor cores of each job on each node; SLURM only."""
    hours: float = 24.0
    """How long a job may run before it is queued again."""
    partition: str = ""
    """SLURM's partition."""
    slurm: UseAppendAction[tuple[str, ...]] = ()
    """KEY=VALUE: another option of sbatch, account=mine for one; may be repeated."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes GPUs where there are any."""
    status: bool = False
    """Only say how far the jobs in --out are."""

    def __post_init__(self) -> None:
        for name in ("jobs", "processes", "nodes"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; give at least 1")
        require(self.gpus >= 0, f"gpus is {self.gpus}; it cannot be negative")
        require(self.hours > 0, f"hours is {self.hours}; it must be above 0")
        require(
            self.executor == "slurm" or self.nodes == 1,
            f"nodes is {self.nodes}, and this machine is one; give --executor slurm",
        )
        wrong = [word for word in between_commas(self.measure) if word not in MEASURES]
        require(not wrong, f"measure has '{''.join(wrong[:1])}'; give some of {', '.join(MEASURES)}")
        require(bool(self.recipes) != self.status, "name recipes to sweep, or ask for --status alone")


def run(argv: list[str]) -> int:
    """Run what is not finished; the exit status is 0, or 1 where a job has failed."""
    options = parse(
        SweepOptions, argv, prog="lsgm sweep", description=DESCRIPTION, examples=EXAMPLES, may_be_empty=()
    )
    out = claim(options.out.expanduser())
    if options.status:
        return _tell(_known(out))
    jobs = [_job(cell, options, out) for cell in _cells(options)]
    _keep(out, jobs)
    waiting = [job for job in jobs if told(job.note, job.commands).get("state") != "finished"]
    if passed := len(jobs) - len(waiting):
        say(f"{passed} of {len(jobs)} jobs are finished already")
    if waiting:
        executor = _executor(options, out)
        if options.executor == "slurm":
            _submit(executor, waiting, out)
            return 0
        _run_here(executor, waiting, options.jobs)
    return _tell(jobs)


# Which trainings a sweep is made of


@dataclass(frozen=True)
class _Cell:
    name: str
    recipe: Mapping[str, Any]
    """Its tables, which have been looked at."""


def _cells(options: SweepOptions) -> list[_Cell]:
    """Return all combinations. Raises ConfigError, before anything runs, for one that is no recipe."""
    axes = [_axis(word) for word in options.set]
    seeds: list[int | None] = [_seed(word) for word in between_commas(options.seeds)] or [None]
    found: dict[str, _Cell] = {}
    settings_of = [
        dict(zip((key for key, _ in axes), values, strict=True))
        for values in itertools.product(*(values for _, values in axes))
    ]
    for recipe, seed, settings in itertools.product(options.recipes, seeds, settings_of):
        tables = {key: value for key, value in load_recipe(recipe).items() if key not in ORIGINS}
        for key, text in settings.items():
            _put(tables, key, text)
        if seed is not None:
            tables["seed"] = seed
        varied = [f"{key}={settings[key]}" for key, values in axes if len(values) > 1]
        name = file_name("-".join([Path(recipe).stem, *([] if seed is None else [f"seed{seed}"]), *varied]))
        recipe_from(tables, name)
        require(name not in found, f"two jobs would be called {name}; give each recipe and value once")
        found[name] = _Cell(name, tables)
    return list(found.values())


def _seed(word: str) -> int:
    require(word.isascii() and word.isdecimal() and len(word) < 19, f"seed '{word}' is no whole number")
    return int(word)


def _axis(word: str) -> tuple[str, list[str]]:
    key, equals, values = word.partition("=")
    require(
        bool(key.strip() and equals and between_commas(values)),
        f"--set {word}: give KEY=VALUE, or KEY=VALUE,VALUE",
    )
    return key.strip().replace("-", "_"), between_commas(values)


def _put(tables: dict[str, Any], key: str, text: str) -> None:
    """Set a value by its dotted name, read as TOML has it, or as text."""
    *path, last = key.split(".")
    for part in path:
        tables = tables.setdefault(part, {})
        require(
            isinstance(tables, dict), f"--set {key} leads through '{part}', which is a value and no table"
        )
    try:
        tables[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        tables[last] = text


# What is run for each of them, and where


def _job(cell: _Cell, options: SweepOptions, out: Path) -> Job:
    """Return the commands that train and measure a cell; its recipe is written for them."""
    import tomli_w

    recipe, model = out / "recipes" / f"{cell.name}.toml", out / cell.name
    content = tomli_w.dumps(dict(cell.recipe)).encode()
    with writing(recipe):
        make_folder(recipe.parent)
        if not recipe.is_file() or read_bytes(recipe, DOCUMENT) != content:
            replace_file(recipe, content)
    task = options.task or str(cell.recipe.get("data", {}).get("dataset", "glyphs"))
    where = ["--tier", options.tier, "--out", str(out / "results" / cell.name), "--device", options.device]
    words = {
        "eval": ["eval", task, "--model", str(model), *where],
        "nll": ["nll", str(model), "--task", task, *where],
        "nfe": ["nfe", "--task", task, "--model", str(model), *where],
    }
    train = ["train", str(recipe), "--out", str(model), "--device", options.device]
    commands = [train, *(words[what] for what in between_commas(options.measure))]
    return Job(cell.name, commands, out / "jobs" / f"{cell.name}.json", options.processes, options.nodes)


def _keep(out: Path, jobs: Sequence[Job]) -> None:
    """Write down which jobs the folder is of, beside those of earlier calls, for `--status`."""
    known = {job.name: job for job in [*_known(out), *jobs]}
    table = {name: [list(words) for words in job.commands] for name, job in known.items()}
    with writing(out / "sweep.json"):
        replace_file(out / "sweep.json", (json.dumps(table, indent=1) + "\n").encode())


def _known(out: Path) -> list[Job]:
    path = out / "sweep.json"
    if not path.is_file():
        return []
    return [
        Job(name, commands, out / "jobs" / f"{file_name(name)}.json")
        for name, commands in read_table(path).items()
    ]


def _executor(options: SweepOptions, out: Path) -> Executor:
    """Return submitit's executor. Raises ConfigError where it, or SLURM, is not here."""
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            "submitit, which carries jobs, is not installed; python -m pip install 'lsgm-bench[slurm]'"
        ) from None
    logs = out / "jobs"
    try:
        many = {"slurm_max_num_timeout": TIMES, "local_max_num_timeout": TIMES}
        executor = submitit.AutoExecutor(logs, cluster=options.executor, **many)
    except RuntimeError as error:
        raise ConfigError(f"there is no SLURM here ({error}); give --executor local") from error
    asked: dict[str, Any] = {"timeout_min": max(1, round(60 * options.hours)), "nodes": options.nodes}
    asked |= {"tasks_per_node": 1, "gpus_per_node": options.gpus, "name": "lsgm-sweep"}
    if options.executor == "slurm":
        asked |= {"slurm_array_parallelism": options.jobs, "slurm_signal_delay_s": 180}
        asked |= {"slurm_partition": options.partition} if options.partition else {}
        asked |= {"cpus_per_task": options.cpus} if options.cpus else {}
        extra = dict(word.partition("=")[::2] for word in options.slurm)
        asked |= {"slurm_additional_parameters": extra} if extra else {}
    executor.update_parameters(**asked)
    return executor


def _submit(executor: Any, jobs: Sequence[Job], out: Path) -> None:
    """Hand the jobs to SLURM as one array."""
    with executor.batch():
        handles = [executor.submit(job) for job in jobs]
    for job, handle in zip(jobs, handles, strict=True):
        say(f"{job.name}: job {handle.job_id}")
    say(f"`lsgm sweep --out {shlex.quote(str(out))} --status` says how far they are")


def _run_here(executor: Any, jobs: Sequence[Job], at_once: int) -> None:
    """Run jobs on this machine, some at a time; when this process is ended, they save and end too."""
    waiting = list(jobs)
    running: dict[str, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                handle = running[job.name] = executor.submit(job)
                say(f"{job.name}: process {handle.job_id}, its log is {handle.paths.stderr}")
            time.sleep(POLL)
            for name, handle in list(running.items()):
                if handle.done():
                    del running[name]
                    say(f"{name}: {_ended(handle)}")
    finally:
        for handle in running.values():
            handle.cancel(check=False)


def _ended(handle: Any) -> str:
    failed = handle.exception()
    if failed is not None:
        return f"ended without a result; see {handle.paths.stderr}"
    status = handle.result()
    return "finished" if status == 0 else f"ended with status {status}; see {handle.paths.stderr}"


def _tell(jobs: Sequence[Job]) -> int:
    """Print how far the jobs are; return 1 where one has failed."""
    rows, failed = [], False
    for job in jobs:
        note = told(job.note, job.commands)
        state, done = str(note.get("state", "not begun")), int(note.get("done", 0))
        failed |= state == "failed"
        command = job.commands[done][0] if done < len(job.commands) else ""
        why = f", status {note['status']}" if state == "failed" else ""
        out = Path(next(b for a, b in itertools.pairwise(job.commands[0]) if a == "--out"))
        rows.append([job.name, f"{state}{why}", command, _trained(out), f"{done} of {len(job.commands)}"])
    print(markdown_table(["run", "state", "command", "trained", "commands done"], rows, 4))
    return int(failed)


def _trained(run: Path) -> str:
    """Return where the newest checkpoint of a run stands."""
    found = sorted(run.glob("checkpoints/step-*/state.json"))
    if not found:
        return ""
    try:
        state = read_table(found[-1])
    except DataError:
        return ""
    return f"step {state.get('step')}" + (
        ", finished" if state.get("finished") else f" of {state.get('stage')}"
    )
