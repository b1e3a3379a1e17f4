"""``lsgm reproduce``: the command that measured a number, and whether it gives the number again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.errors import ConfigError, UserError
from lsgm.files.names import file_name, shown
from lsgm.files.write import claim
from lsgm.logs import log
from lsgm.options import Positional, arg, parse
from lsgm.progress import aligned

if TYPE_CHECKING:
    from lsgm.results.row import Row
    from lsgm_reports.read import Placed
    from lsgm_reports.reproduce.again import Again

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


@dataclass(frozen=True)
class ReproduceOptions:
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
    options = parse(ReproduceOptions, argv, prog="lsgm reproduce", description=DESCRIPTION, examples=EXAMPLES)
    if not options.row:
        raise ConfigError("ROW is missing; give PLACE#ID as a report shows it, or a folder of results")
    if options.device and not re.fullmatch(r"[a-z]{1,20}(:[0-9]{1,3})?", options.device):
        raise ConfigError(f"--device is '{options.device}'; give a device, such as cpu or cuda:1")
    from lsgm.results.row import row_id
    from lsgm_reports.read import rows_at
    from lsgm_reports.reproduce.again import is_training_run
    from lsgm_reports.reproduce.apart import place_word

    place = Path(options.row)
    if is_training_run(place) and not os.path.isfile(place / "results.jsonl"):
        return _train(place, options)
    found = rows_at(options.row, model=options.model, metric=options.metric, sampler=options.sampler)
    if len(found) == 1:
        return _measure(found[0], row_id(found[0].row), options)
    cells = [
        (
            f"{shlex.quote(place_word(str(each.file.parent)))}#{row_id(row := each.row)}",
            *(row.model, row.metric, "n/a" if row.value is None else f"{row.value:.6g}"),
            *(row.sampler or "", row.task),
        )
        for each in found
    ]
    for line in aligned(cells):
        _say(line)
    raise UserError(f"{len(found)} rows fit; name one by PLACE#ID, or by --model, --metric and --sampler")


def _folder(options: ReproduceOptions, default: Path, received: Path) -> Path:
    """Return the folder to write into, which holds nothing: what it holds would be reused.

    Raises ConfigError for another, and where a link in the folder that was given leads the default elsewhere.
    """
    out = options.out or default
    within = Path.cwd().resolve().is_relative_to(received.resolve())
    if options.out is None and within and out.parent.is_symlink():
        raise ConfigError(f"{out.parent} is a link in the folder that was given; choose a folder with --out")
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


def _say(line: str) -> None:
    """Print one line, in which files of others may have a say."""
    print(shown(line))


def _carry_out(
    again: Again, out: Path, received: Path, options: ReproduceOptions, compare: Callable[[], int]
) -> int:
    """Print what must hold and the command; run it where asked to, and return what ``compare`` says of it.

    Raises UserError where it runs code of others that is not trusted, or needs what is not here.
    """
    print("it takes:")
    for line in (*(check.line for check in again.checks), *(f"note: {remark}" for remark in again.remarks)):
        _say(line)
    if again.foreign:
        print("it runs code of others:")
    for each in again.foreign:
        _say(f"  {each.text}")
    words = [each.word for each in again.foreign]
    if words and not options.trust_code:
        sys.stdout.flush()
        raise UserError(
            f"the command runs code of others, {' and '.join(words)}: look at it, and add --trust-code if "
            "you trust where it comes from"
        )
    print()
    _say(again.shell)
    print(flush=True)
    if not options.run:
        return 0
    if again.missing:
        raise UserError(f"cannot run it: {'; '.join(again.missing)}; bring that here first")
    if again.processes > 1:
        log.warning(f"in one process, where {again.processes} shared the images")
    from lsgm_reports.reproduce.apart import run_apart

    claim(out)
    # Threads are counted when torch is first imported, which has not happened in this process.
    return run_apart(again.argv, again.directory, again.environment, words, [received]) or compare()


def _measure(placed: Placed, name: str, options: ReproduceOptions) -> int:
    from lsgm.results.manifest import manifest_of
    from lsgm_reports.reproduce.again import row_again

    row, folder = placed.row, placed.file.parent
    out = _folder(options, Path("results") / f"reproduced-{name}", folder)
    manifest = manifest_of(row, folder)
    interval = f" ({row.interval[0]!r} to {row.interval[1]!r})" if row.interval else ""
    sampler = f", {row.sampler}" if row.sampler else ""
    _say(f"row {name}: {row.metric} of {row.model} = {row.value!r}{interval}, {row.task}{sampler}")
    if manifest is None:
        return _tell_keys(row, run=options.run)
    again = row_again(row, manifest, folder, out, options.device)
    return _carry_out(again, out, folder, options, lambda: _compare(row, folder, out))


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


def _compare(row: Row, folder: Path, out: Path) -> int:
    from lsgm.results.manifest import manifest_of
    from lsgm_reports.read import read_placed
    from lsgm_reports.reproduce.again import same_measurement, verdict

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


def _train(folder: Path, options: ReproduceOptions) -> int:
    from lsgm_reports.reproduce.again import training_again
    from lsgm_reports.reproduce.weights import same_weights

    if options.model or options.metric or options.sampler:
        raise ConfigError(f"{folder} is a training run and holds no rows to choose from; give its name alone")
    out = _folder(options, Path("runs") / f"reproduced-{file_name(folder.resolve().name)}", folder)
    again = training_again(folder, out, options.device)

    def compare() -> int:
        same, sentence = same_weights(folder, out)
        _say(sentence)
        return 0 if same else 1

    _say(f"training run {folder}")
    return _carry_out(again, out, folder, options, compare)
