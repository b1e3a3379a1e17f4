"""``lsgm reproduce``: the command that measured a number, and whether it gives the number again."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.commands.options import Positional, arg, parse
from lsgm.errors import ConfigError, UserError

if TYPE_CHECKING:
    from lsgm_reports.reading import Placed
    from lsgm_reports.reproduce.checks import Check
    from lsgm_reports.reproduce.trained import Training
    from lsgm_reports.rows import Row

__all__ = ["HELP", "Options", "run"]

HELP = "print, or run, the command that measures a row or trains a run again"

DESCRIPTION = """Print what must hold for a number to come out again, and the command that measures it.

A ROW is PLACE#ID (the id that a report shows, or its beginning), PLACE:LINE, or PLACE with --model, --metric
and --sampler, where PLACE is a results.jsonl or a folder that holds one. With --run the command is run and
the new number compared: exit status 1 where it lies outside of the recorded interval. A training run's
directory gives the command that trains it again, and --run compares the weights."""

EXAMPLES = (
    "lsgm reproduce runs/eval-glyphs#3f2a91c0d4e8",
    "lsgm reproduce runs/eval-glyphs --model lsgm --metric frechet_glyphs --run",
    "lsgm reproduce results/a/results.jsonl:12 --run --out results/again",
    "lsgm reproduce runs/glyphs      # a training run",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm reproduce``."""

    row: Annotated[Positional[str], arg(metavar="ROW")] = ""
    """PLACE#ID, PLACE:LINE, PLACE, or the directory of a training run."""
    model: str | None = None
    """Of the rows of PLACE, that of this model."""
    metric: str | None = None
    """Of the rows of PLACE, that of this metric."""
    sampler: str | None = None
    """Of the rows of PLACE, that of this sampler or estimator, as the rows call it."""
    run: bool = False
    """Run the command and compare."""
    out: Path | None = None
    """A fresh folder to measure or train in (default: results/reproduced-ID, runs/reproduced-RUN)."""
    device: str = ""
    """Where to run instead of the recorded device, such as cpu or cuda."""


def run(argv: list[str]) -> int:
    """Print the command; with --run 0 where the number came out again, 1 where it did not."""
    options = parse(Options, argv, prog="lsgm reproduce", description=DESCRIPTION, examples=EXAMPLES)
    if not options.row:
        raise ConfigError("ROW is missing; give PLACE#ID as a report shows it, or a folder of results")
    from lsgm_reports.provenance import row_id, rows_at
    from lsgm_reports.reproduce.trained import is_training_run

    place = Path(options.row)
    if is_training_run(place) and not (place / "results.jsonl").is_file():
        return _train(place, options)
    found = rows_at(options.row, model=options.model, metric=options.metric, sampler=options.sampler)
    if len(found) > 1:
        print("\n".join(_listed(found)))
        raise UserError(f"{len(found)} rows fit; name one by PLACE#ID, or by --model, --metric and --sampler")
    name = row_id(found[0].row)
    out = _fresh(options.out or Path("results") / f"reproduced-{name}")
    return _measure(found[0], name, out, options)


def _listed(found: Sequence[Placed]) -> list[str]:
    """Return a line for each row: how to name it, and what it is."""
    from lsgm_reports.provenance import row_id

    cells = [
        (
            *(f"{each.file.parent}#{row_id(each.row)}", each.row.model, each.row.metric),
            *(_value(each.row.value), each.row.sampler or "", each.row.task),
        )
        for each in found
    ]
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _value(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.6g}"


def _fresh(out: Path) -> Path:
    """Return a folder that holds nothing. Raises ConfigError for another: what it holds would be reused."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; choose a fresh folder with --out, or remove it")
    return out


def _told(checks: Sequence[Check], remarks: Sequence[str], shell: str) -> None:
    print("\n".join(["it takes:", *(check.line for check in checks)]))
    for remark in remarks:
        print(f"note: {remark}")
    print(f"\n{shell}\n", flush=True)


def _measure(placed: Placed, name: str, out: Path, options: Options) -> int:
    """Print how to measure a row again, and do so where asked to."""
    from lsgm_reports.reading import read_placed
    from lsgm_reports.reproduce.again import plan_again

    row, folder = placed.row, placed.file.parent
    siblings = [each.row for each in read_placed([placed.file]).placed]
    again = plan_again(row, folder, siblings, out, options.device)
    interval = f" ({row.interval[0]!r} to {row.interval[1]!r})" if row.interval else ""
    sampler = f", {row.sampler}" if row.sampler else ""
    print(f"row {name}: {row.metric} of {row.model} = {row.value!r}{interval}, {row.task}{sampler}")
    _told(again.checks, again.remarks, again.shell)
    if not options.run:
        return 0
    _complete(again.missing)
    if again.processes > 1:
        print(f"lsgm: in one process, where {again.processes} shared the images", file=sys.stderr)
    # Threads are counted when torch is first imported, which has not happened in this process.
    with _set(again.environment), contextlib.chdir(again.directory):
        status = _main(again.argv)
    return status or _compare(row, folder, out)


def _compare(row: Row, folder: Path, out: Path) -> int:
    """Print the recorded and the new value, and what differs between the two calls."""
    from lsgm_reports.provenance import manifest_of
    from lsgm_reports.reading import read_placed
    from lsgm_reports.reproduce.verdict import same_measurement, verdict

    rows = [each.row for each in read_placed([out / "results.jsonl"]).placed]
    new = same_measurement(row, rows)
    if new is None:
        tasks = ", ".join(sorted({other.task for other in rows}))
        raise UserError(f"{out} holds no row of {row.metric} of {row.model} under {row.task}, but of {tasks}")
    outcome = verdict(row, new)
    print(f"\nrecorded    {row.value!r}\nnew         {new.value!r}")
    if outcome.difference is not None:
        print(f"difference  {outcome.difference:.3g}")
    before, after = manifest_of(row, folder), manifest_of(new, out)
    if before is not None and after is not None and before.code_version != after.code_version:
        print("note: the code that measured is not the same to the byte")
    print(outcome.sentence, flush=True)
    return 0 if outcome.reproduced else 1


def _train(folder: Path, options: Options) -> int:
    """Print how to train a run again, and do so where asked to."""
    from lsgm_reports.reproduce.trained import read_training_run, same_weights, write_recipe

    if options.model or options.metric or options.sampler:
        raise ConfigError(f"{folder} is a training run and holds no rows to choose from; give its name alone")
    out = _fresh(options.out or Path("runs") / f"reproduced-{folder.resolve().name}")
    training: Training = read_training_run(folder, out, options.device)
    print(f"training run {folder}")
    _told(training.checks, training.remarks, training.shell)
    if not options.run:
        return 0
    _complete(training.missing)
    write_recipe(training)
    with _set(training.environment):
        status = _main(training.argv)
    if status:
        return status
    same, sentence = same_weights(folder, out)
    print(sentence)
    return 0 if same else 1


def _complete(missing: Sequence[str]) -> None:
    """Raise UserError where something is not here that the command needs."""
    if missing:
        raise UserError(f"cannot run it: {'; '.join(missing)}; bring that here first")


def _main(argv: Sequence[str]) -> int:
    """Run a line of `lsgm` in this process."""
    from lsgm.cli import main

    return main(list(argv[1:]))


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
