"""``lsgm reproduce``: the command that measured a number, and whether it gives the number again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.errors import ConfigError, UserError
from lsgm.files.names import file_name, shown
from lsgm.files.write import claim
from lsgm.options import Positional, arg, parse
from lsgm.progress import aligned

if TYPE_CHECKING:
    from lsgm.results.row import Row
    from lsgm_reports.read import Placed
    from lsgm_reports.reproduce.apart import Foreign
    from lsgm_reports.reproduce.checks import Check

__all__ = ["HELP", "Options", "run"]

HELP = "print, or run, the command that measures a row or trains a run again"

DESCRIPTION = """Print what must hold for a number to come out again, and the command that measures it.

A ROW is PLACE#ID (the id that a report shows, or its beginning), PLACE:LINE, or PLACE with --model, --metric
and --sampler, where PLACE is a results.jsonl or a folder that holds one. With --run the command is run and
the new number compared: exit status 1 where it lies outside of the recorded interval. A training run's
directory gives the command that trains it again, and --run compares the weights.

Of what the results record only the commands that measure are run, with options whose values are data. What
runs code of others (a model of a module's factory, the networks torchscript:, export: and dinov2:) is shown
and refused without --trust-code; modules are looked for where you are, never in the recorded directory."""

EXAMPLES = (
    "lsgm reproduce runs/eval-glyphs#3f2a91c0d4e8",
    "lsgm reproduce runs/eval-glyphs --model lsgm --metric frechet_glyphs --run",
    "lsgm reproduce results/a/results.jsonl:12 --run --out results/again",
    "lsgm reproduce runs/glyphs      # a training run",
)


DEVICE = r"[a-z]{1,20}(:[0-9]{1,3})?"


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
    trust_code: bool = False
    """Also print, or run, a command that runs the code of others which is shown before it."""


def run(argv: list[str]) -> int:
    """Print the command; with --run 0 where the number came out again, 1 where it did not."""
    options = parse(Options, argv, prog="lsgm reproduce", description=DESCRIPTION, examples=EXAMPLES)
    if not options.row:
        raise ConfigError("ROW is missing; give PLACE#ID as a report shows it, or a folder of results")
    if options.device and not re.fullmatch(DEVICE, options.device):
        raise ConfigError(f"--device is '{options.device}'; give a device, such as cpu or cuda:1")
    from lsgm.results.row import row_id
    from lsgm_reports.read import rows_at
    from lsgm_reports.reproduce.trained import is_training_run

    place = Path(options.row)
    if is_training_run(place) and not os.path.isfile(place / "results.jsonl"):
        return _train(place, options)
    found = rows_at(options.row, model=options.model, metric=options.metric, sampler=options.sampler)
    if len(found) > 1:
        for line in _listed(found):
            _say(line)
        raise UserError(f"{len(found)} rows fit; name one by PLACE#ID, or by --model, --metric and --sampler")
    name = row_id(found[0].row)
    out = _fresh(options.out or _own(Path("results") / f"reproduced-{name}", found[0].file.parent))
    return _measure(found[0], name, out, options)


def _listed(found: Sequence[Placed]) -> list[str]:
    """Return a line for each row: how to name it, and what it is."""
    from lsgm.results.row import row_id
    from lsgm_reports.reproduce.apart import place_word

    cells = [
        (
            f"{shlex.quote(place_word(str(each.file.parent)))}#{row_id(each.row)}",
            *(each.row.model, each.row.metric),
            *(_value(each.row.value), each.row.sampler or "", each.row.task),
        )
        for each in found
    ]
    return aligned(cells)


def _value(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.6g}"


def _fresh(out: Path) -> Path:
    """Return a folder that holds nothing. Raises ConfigError for another: what it holds would be reused."""
    if not os.path.lexists(out):
        return out
    if not os.path.isdir(out):
        raise ConfigError(f"{out} is there and is no folder; choose a fresh folder with --out")
    try:
        holds = any(out.iterdir())
    except OSError as error:
        raise ConfigError(f"{out} cannot be looked into ({error.strerror}); choose another --out") from error
    if holds:
        raise ConfigError(f"{out} is not empty; choose a fresh folder with --out, or remove it")
    return out


def _own(out: Path, place: Path) -> Path:
    """Return the default folder to write into. Raises ConfigError where a link leads it elsewhere."""
    received = Path.cwd().resolve().is_relative_to(place.resolve())
    if received and out.parent.is_symlink():
        raise ConfigError(f"{out.parent} is a link in the folder that was given; choose a folder with --out")
    return out


def _say(line: str) -> None:
    """Print one line, in which files of others may have a say."""
    print(shown(line))


def _told(checks: Sequence[Check], remarks: Sequence[str], foreign: Sequence[Foreign] = ()) -> None:
    """Print what must hold, and what would be run of others."""
    print("it takes:")
    for line in (*(check.line for check in checks), *(f"note: {remark}" for remark in remarks)):
        _say(line)
    if foreign:
        print("it runs code of others:")
    for each in foreign:
        _say(f"  {each.text}")


def _measure(placed: Placed, name: str, out: Path, options: Options) -> int:
    """Print how to measure a row again, and do so where asked to."""
    from lsgm.results.manifest import manifest_of
    from lsgm_reports.read import read_placed
    from lsgm_reports.reproduce.again import plan_again

    row, folder = placed.row, placed.file.parent
    manifest = manifest_of(row, folder)
    interval = f" ({row.interval[0]!r} to {row.interval[1]!r})" if row.interval else ""
    sampler = f", {row.sampler}" if row.sampler else ""
    _say(f"row {name}: {row.metric} of {row.model} = {row.value!r}{interval}, {row.task}{sampler}")
    if manifest is None:
        return _tell_keys(row, run=options.run)
    siblings = [each.row for each in read_placed([placed.file]).placed]
    again = plan_again(row, manifest, folder, siblings, out, options.device)
    _told(again.checks, again.remarks, again.foreign)
    if again.foreign and not options.trust_code:
        sys.stdout.flush()
        words = " and ".join(each.word for each in again.foreign)
        raise UserError(
            f"the command runs code of others, {words}: look at it, and add --trust-code if you trust where "
            "it comes from"
        )
    _show(again.shell)
    if not options.run:
        return 0
    _complete(again.missing)
    if again.processes > 1:
        print(f"lsgm: in one process, where {again.processes} shared the images", file=sys.stderr)
    from lsgm_reports.reproduce.apart import run_apart

    claim(out)
    agreed = [each.word for each in again.foreign]
    # Threads are counted when torch is first imported, which has not happened in this process.
    status = run_apart(again.argv, again.directory, again.environment, agreed, [folder])
    return status or _compare(row, folder, out)


def _tell_keys(row: Row, *, run: bool) -> int:
    """Print all that is known of a row without a manifest. Raises UserError where it was to be run."""
    named = row.manifest and f"the manifest {row.manifest} is not beside the row"
    why = f"{named or 'the row names no manifest'}: no more is known of how it was measured than its keys say"
    if run:
        raise UserError(f"{why}; bring the manifest, or type the command yourself")
    known = [(key, str(value)) for key, value in vars(row).items() if value not in (None, {}, ())]
    for line in aligned(known):
        _say(f"  {line}")
    _say(why)
    return 0


def _show(shell: str) -> None:
    """Print a command between empty lines."""
    print()
    _say(shell)
    print(flush=True)


def _compare(row: Row, folder: Path, out: Path) -> int:
    """Print the recorded and the new value, and what differs between the two calls."""
    from lsgm.results.manifest import manifest_of
    from lsgm_reports.read import read_placed
    from lsgm_reports.reproduce.checks import same_measurement, verdict

    rows = [each.row for each in read_placed([out / "results.jsonl"]).placed]
    new = same_measurement(row, rows)
    if new is None:
        tasks = ", ".join(sorted({other.task for other in rows}))
        raise UserError(
            f"{out} holds no row of {row.metric} of {row.model} under {row.task}, but of {tasks}; "
            "the manifest is not of this row, or this version measures otherwise"
        )
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
    from lsgm_reports.reproduce.apart import run_apart
    from lsgm_reports.reproduce.trained import read_training_run, same_weights

    if options.model or options.metric or options.sampler:
        raise ConfigError(f"{folder} is a training run and holds no rows to choose from; give its name alone")
    default = Path("runs") / f"reproduced-{file_name(folder.resolve().name)}"
    out = _fresh(options.out or _own(default, folder))
    training = read_training_run(folder, out, options.device)
    _say(f"training run {folder}")
    _told(training.checks, training.remarks)
    _show(training.shell)
    if not options.run:
        return 0
    _complete(training.missing)
    claim(out)
    status = run_apart(training.argv, Path.cwd(), training.environment, strangers=[folder])
    if status:
        return status
    same, sentence = same_weights(folder, out)
    _say(sentence)
    return 0 if same else 1


def _complete(missing: Sequence[str]) -> None:
    """Raise UserError where something is not here that the command needs."""
    if missing:
        raise UserError(f"cannot run it: {'; '.join(missing)}; bring that here first")
