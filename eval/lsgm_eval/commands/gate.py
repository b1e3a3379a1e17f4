"""``lsgm gate``: whether a checkpoint still measures what its golden rows say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.config import require
from lsgm.files.names import shown
from lsgm.logs import log
from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from lsgm_eval.gate.golden import Golden, Plan
    from lsgm_eval.gate.verdict import Verdict

HELP = "check a checkpoint against its golden rows; the exit status is for continuous integration"

DESCRIPTION = """Measure a checkpoint again and compare with its golden rows.

Numbers at fixed seeds may differ by rounding alone, estimates by what other seeds explain: the sizes of both
were recorded when the rows were written. Exit status 0: all rows stand. 1: some do not, and are named.
2: they cannot be checked (another task version, other data, no such file)."""

EXAMPLES = (
    "lsgm gate checkpoints/glyphs-lsgm",
    "lsgm gate runs/mine --golden reports/golden/glyphs-lsgm.json --retrained",
    "lsgm gate runs/mine --golden mine.json --task glyphs --update --reason 'first golden rows'",
    "lsgm gate checkpoints/glyphs-lsgm --update --reason 'times of the bound are stratified now'",
)

PLAN = ("images", "draws", "samples", "repeats")


@dataclass(frozen=True)
class GateOptions:
    """Options of ``lsgm gate``."""

    checkpoint: Annotated[Positional[str], arg(metavar="CHECKPOINT")]
    """A run directory, a checkpoint, hf://OWNER/NAME of the Hub, or package.module:factory."""
    golden: Path | None = None
    """The golden rows (default: reports/golden/NAME.json, NAME being the checkpoint's folder)."""
    retrained: bool = False
    """For a checkpoint trained anew: leave replays out, and fail only where an estimate is worse."""
    seeds: int = 0
    """Which seeds the estimates have, 0, 1, ...: never those of the golden rows."""
    update: bool = False
    """Write new golden rows instead of checking; what stood there before stays in their history."""
    reason: str = ""
    """Why new golden rows are right; --update needs it."""
    task: str = ""
    """The task, where the golden rows do not exist yet or are of a TOML file of your own."""
    data: str = ""
    """The folder or zip of images that golden rows of the task image-folder are of."""
    images: int | None = None
    """--update: images of every estimated bound (512)."""
    draws: int | None = None
    """--update: times per image of the score-matching bound (8)."""
    samples: int | None = None
    """--update: images drawn for every distance (100); 0 leaves distances out."""
    repeats: int | None = None
    """--update: how often every estimate is measured, to learn its error (12)."""
    device: str = "cpu"
    """cpu, cuda, ...: golden rows written on another kind of device differ by more than its rounding."""
    json: bool = False
    """Print the verdicts as JSON lines on standard output instead of a table."""
    junit: Path | None = None
    """Write the verdicts to this file too, as JUnit XML."""

    def __post_init__(self) -> None:
        require(bool(self.checkpoint), "there is nothing to check; name a checkpoint, `lsgm gate CHECKPOINT`")
        require(self.seeds >= 0, f"seeds is {self.seeds}; it must be at least 0")
        require(
            not self.update or bool(self.reason.strip()),
            "new golden rows need a reason: --update --reason 'what changed, and why that is right'",
        )
        require(self.update or not self.reason, "--reason is of --update, which writes new golden rows")
        require(
            not (self.update and (self.retrained or self.junit or self.seeds)),
            "--update writes golden rows and checks none: leave --retrained, --seeds and --junit out",
        )
        for name in PLAN:
            unused = getattr(self, name) is not None and not self.update
            require(not unused, f"--{name} is of --update: a check measures as much as its golden rows did")


def run(argv: list[str]) -> int:
    """Check the checkpoint named on the command line, or write its golden rows."""
    options = parse(
        GateOptions,
        argv,
        prog="lsgm gate",
        description=DESCRIPTION,
        examples=EXAMPLES,
        may_be_empty=("--reason",),
    )
    return _update(options) if options.update else _check(options)


def _check(options: GateOptions) -> int:
    from lsgm_eval.gate.verdict import check, write_junit

    outcome = check(
        options.checkpoint,
        options.golden,
        task=options.task,
        data=options.data,
        seeds=options.seeds,
        retrained=options.retrained,
        device=options.device,
    )
    if options.json:
        for verdict in outcome.verdicts:
            print(json.dumps(asdict(verdict), allow_nan=False))
    else:
        print("\n".join(_table(outcome.verdicts)))
    if options.junit is not None:
        write_junit(options.junit, f"lsgm gate {outcome.golden.model}", outcome.verdicts)
    for remark in outcome.remarks:
        log.warning(remark)
    for verdict in outcome.failing:
        log.error(verdict.sentence)
    total, failing = len(outcome.verdicts), len(outcome.failing)
    said = f"{failing} of {total} golden rows do not stand" if failing else f"all {total} golden rows stand"
    (log.error if failing else log.info)(f"{said} ({outcome.golden.model}, {outcome.golden.task})")
    return 1 if failing else 0


def _update(options: GateOptions) -> int:
    from lsgm_eval.gate.golden import default_golden, read_golden, write_golden
    from lsgm_eval.gate.measure import open_subject, task_of
    from lsgm_eval.gate.record import moves, record

    path = options.golden or default_golden(Path(options.checkpoint))
    previous = read_golden(path) if path.exists() else None
    task = options.task or (task_of(previous).partition("@")[0] if previous else "")
    require(bool(task), f"{path} does not exist yet: say by --task what its rows are measured on")
    subject, described = open_subject(
        options.checkpoint, task, _plan(options, previous), data=options.data, device=options.device
    )
    golden = record(subject, described, options.reason, previous)
    write_golden(path, golden)
    for line in moves(previous, golden) or ["no row moved"]:
        print(shown(line))
    log.info(f"{len(golden.rows)} golden rows in {path}")
    return 0


def _plan(options: GateOptions, previous: Golden | None) -> Plan:
    """Return how much is measured: what was before, unless the command line says otherwise."""
    from lsgm_eval.gate.golden import Plan

    given = {name: value for name in PLAN if (value := getattr(options, name)) is not None}
    plan = replace(previous.plan if previous else Plan(), **given)
    return replace(plan, replay_images=min(plan.replay_images, plan.images))


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    """Return aligned lines: row, golden, measured, difference, allowed, verdict."""
    from lsgm.progress import aligned

    cells: list[tuple[str, ...]] = [("row", "golden", "measured", "difference", "allowed", "")]
    for verdict in verdicts:
        numbers = [
            "-" if number is None else f"{number:{digits}}"
            for number, digits in (
                (verdict.golden, ".6g"),
                (verdict.measured, ".6g"),
                (verdict.difference, ".2g"),
                (verdict.allowed, ".2g"),
            )
        ]
        cells.append((shown(verdict.row), *numbers, "stands" if verdict.passed else "FAILS"))
    return aligned(cells)
