"""``lsgm report``: tables, figures and one document from result files."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from lsgm.errors import ConfigError, DataError, did_you_mean
from lsgm.files.names import file_name, one_line, shown
from lsgm.files.regular import listed
from lsgm.files.write import atomic_path, claim, make_folder
from lsgm.logs import log
from lsgm.options import Positional, arg, between_commas, parse
from lsgm.results.files import is_bare_run, to_csv
from lsgm.results.row import Row
from lsgm.results.status import find_statuses
from lsgm_reports.blocks import Table, transposed
from lsgm_reports.document import Pictures, main_table, only_costs, report, tasks_of
from lsgm_reports.figures.cost import cost_figure, crowded, curve_rows, save
from lsgm_reports.figures.training import MOST_RUNS, read_training, training_figure
from lsgm_reports.pages import refresh
from lsgm_reports.published import statement_on
from lsgm_reports.read import (
    Reading,
    distinct,
    one_protocol,
    read_placed,
    results_of,
    sentence_on,
    unknown_metrics,
)
from lsgm_reports.render.html import to_html
from lsgm_reports.render.text import markdown, tables_tex, to_terminal
from lsgm_reports.tables.headline import quality_tables
from lsgm_reports.tables.likelihood import only_bounds
from lsgm_reports.tables.points import cost_tables

HELP = "turn result files into tables, figures and a document"

_FORMATS = ("md", "csv", "tex", "html")
_LOGS = ("metrics.jsonl", "*/metrics.jsonl")
"""Where a training run lies among the places, or directly below one of them."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of ``lsgm report``."""

    places: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN_OR_DIR")] = ()
    """Result files, or folders that hold them; training runs beside or below them add their curves."""
    format: str = "md,csv,tex,html"
    """What to write, separated by commas: md, csv, tex, html (one page that needs nothing else)."""
    out: Path | None = None
    """Folder to write to; the first folder given unless set."""
    recalled: bool = False
    """Show published numbers that were recalled and not looked up too, marked as such."""
    separate: bool = False
    """Take rows of different versions or tiers of one task, each in a section of its own."""
    skip_malformed: bool = False
    """Leave out lines that cannot be read, and name each."""
    keep_last: bool = False
    """Of rows that measure the same thing with different outcomes take the last."""
    refresh: tuple[Path, ...] = ()
    """Write nothing but the tables of these Markdown pages: each block between the lines
    <!-- lsgm report RESULTS --table "..." --> and <!-- end of lsgm report --> from the rows that it names."""

    def __post_init__(self) -> None:
        for word in self.formats:
            if word not in _FORMATS:
                hint = did_you_mean(word, _FORMATS) or f"; there are {', '.join(_FORMATS)}"
                raise ConfigError(f"there is no format '{word}'{hint}")
        if not self.formats:
            raise ConfigError(f"--format names nothing; there are {', '.join(_FORMATS)}")
        if bool(self.places) == bool(self.refresh):
            both = "not both" if self.places else "RUN_OR_DIR is missing"
            raise ConfigError(
                f"give a results.jsonl or a folder that holds one, or pages to --refresh: {both}"
            )

    @property
    def formats(self) -> list[str]:
        """The formats as a list."""
        return between_commas(self.format)


def run(argv: list[str]) -> int:
    """Write the report, print the table of every task, and say where everything lies."""
    options = parse(
        ReportOptions,
        argv,
        prog="lsgm report",
        description="Read result rows (JSON lines); write a document, a page for the browser, a CSV, tables "
        "as LaTeX, and figures.",
        examples=[
            "lsgm report runs/eval-glyphs",
            "lsgm report runs/a runs/b/results.jsonl --format md,tex --out report",
            "lsgm report results/glyphs-quick runs/glyphs   # with the training curves of the run",
            "lsgm report runs/smoke runs/quick --separate --out report",
            "lsgm report --refresh README.md docs/results.md   # the tables that stand in pages of your own",
        ],
    )
    if options.refresh:
        for page in options.refresh:
            said = "wrote the tables of" if refresh(page) else "nothing to change in"
            print(f"{said} {shown(str(page))}")
        return 0
    made = make(options)
    _print(made.tasks, made.files, options.recalled)
    for path in made.written:
        print(f"wrote {shown(str(path))}")
    return 0


class WrittenReport(NamedTuple):
    """A report that was written."""

    written: list[Path]
    """Its files, in the order in which they were written."""
    tasks: dict[str, list[Row]]
    """What it is of, task by task."""
    files: list[Path]
    """The result files."""


def make(options: ReportOptions) -> WrittenReport:
    """Write the report of result files. Raises DataError for what cannot be read or written."""
    bare = [place for place in options.places if is_bare_run(place)]
    holding = [place for place in options.places if place not in bare] or bare
    files = list(dict.fromkeys(file for place in holding for file in results_of(place)))
    reading = _read(files, options)
    first = options.places[0]
    out = claim(options.out or (first if first.is_dir() else first.parent))
    try:
        make_folder(out)
    except OSError as error:
        why = f"cannot write to {shown(str(error.filename or out))}: {error.strerror}"
        raise DataError(f"{why}; choose another folder with --out") from None
    tasks = tasks_of([each.row for each in reading.placed])
    return WrittenReport(_write(reading, tasks, files, options, out), tasks, files)


def _read(files: Sequence[Path], options: ReportOptions) -> Reading:
    """Return the rows that the report is of; what was dropped or is not known goes to standard error."""
    reading = read_placed(files, skip_malformed=options.skip_malformed)
    if not reading.placed:
        why = f": {reading.left_out[0]}" if reading.left_out else ""
        raise DataError(f"{shown(str(files[0]))} holds no rows{why}; run `lsgm eval` or `lsgm nll` first")
    if not options.separate:
        one_protocol(reading.placed)
    placed, dropped = distinct(reading.placed, keep_last=options.keep_last)
    said = [f"{sentence}: left out" for sentence in reading.left_out]
    said += [f"{file} holds no rows" for file in reading.blank]
    _warn([*said, *dropped, *unknown_metrics([each.row for each in placed])])
    return Reading(placed, reading.left_out)


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        log.warning(sentence)


# What is written: the rows as a table, then figures and the documents that show them


def _write(
    reading: Reading, tasks: dict[str, list[Row]], files: Sequence[Path], options: ReportOptions, out: Path
) -> list[Path]:
    written: list[Path] = []

    def put(name: str, text: str) -> None:
        # A reader sees the old file or the new one, never half of it; no line end is translated.
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(text.encode())
        written.append(out / name)

    if "csv" in options.formats:
        put("results.csv", to_csv([each.row for each in reading.placed]))
    if options.formats == ["csv"]:
        return written
    curves = _curves(tasks, out, written)
    training = _training(options.places, out, written)
    folders = dict.fromkeys(file.parent for file in files)
    grids, neighbours = (
        [picture for folder in folders for picture in listed(folder / name, "*.png")]
        for name in ("samples", "neighbours")
    )
    grids.sort(key=lambda grid: grid.stem.partition("@")[0] != "data")
    pictures = Pictures(curves, training, grids, neighbours, _sheets(options.places))
    page = report(reading, pictures, files, out, recalled=options.recalled)
    if "md" in options.formats:
        put("report.md", markdown(page, out))
    if "tex" in options.formats:
        put("tables.tex", tables_tex(page))
    if "html" in options.formats:
        put("report.html", to_html(page, reading, out))
    return written


def _curves(tasks: dict[str, list[Row]], out: Path, written: list[Path]) -> dict[str, Path]:
    curves: dict[str, Path] = {}
    taken: set[str] = set()
    for task, mine in tasks.items():
        why = crowded(mine)
        if len(curves) >= 40:  # each takes seconds
            why = "40 others are drawn; report fewer tasks at a time to see it"
        if why and curve_rows(mine):
            _warn([f"the figure of {task} is left out: {why}"])
        elif (figure := cost_figure(mine)) is not None:
            stem = "nfe" if len(tasks) == 1 else f"nfe-{re.sub(r'[^0-9A-Za-z_.]+', '-', task)[:80]}"
            stem = file_name(f"{stem}-{len(taken)}" if stem in taken else stem)
            taken.add(stem)
            made = save(figure, out / "figures" / stem)
            curves[task] = made[0]
            written += made
    return curves


def _training(places: Sequence[Path], out: Path, written: list[Path]) -> Path | None:
    """Draw the training curves of the runs among the places, and directly below them."""
    logs = {log for place in places for name in _LOGS for log in listed(place, name)}
    runs = [run for log in sorted(logs) if (run := read_training(log)) is not None]
    if len(runs) > MOST_RUNS:
        _warn([f"the figure of {len(runs):,} training runs is left out: it has room for {MOST_RUNS}"])
    elif (figure := training_figure(runs)) is not None:
        made = save(figure, out / "figures" / "training")
        written += made
        return made[0]
    return None


def _sheets(places: Sequence[Path]) -> list[Path]:
    """Return the last sheet of samples that each stage of a training run has drawn."""
    runs = {log.parent for place in places for name in _LOGS for log in listed(place, name)}
    last = {
        (run, sheet.stem.rpartition("-")[0]): sheet
        for run in sorted(runs)
        for sheet in listed(run / "sheets", "*.png")
    }
    return list(last.values())[:MOST_RUNS]


# What is printed: the tables of every task


def _print(tasks: dict[str, list[Row]], files: Sequence[Path], recalled: bool) -> None:
    room = shutil.get_terminal_size((120, 40)).columns
    for task, mine in tasks.items():
        # Bounds of different kinds, and costs, are read downwards; models, being few, across as well.
        print(_page(main_table(mine, task), room, turns=not only_bounds(mine) and not only_costs(mine)))
        for table in [*quality_tables(mine), *cost_tables(mine)[only_costs(mine) :]]:
            print(_page(table, room, turns=False))
            print(_filled(table.caption, room), end="\n" if table.caption else "")
        if statement := statement_on(mine[0].dataset_name, recalled=recalled):
            print(_filled(statement, room))
    for status in find_statuses(list(dict.fromkeys(file.parent for file in files))):
        if status.unfinished:
            print(_filled(f"Not finished: {sentence_on(status)}", room))


def _page(table: Table, room: int, *, turns: bool) -> str:
    """Return a table for the terminal, on its side where that is narrower and the other way is too wide."""
    pages = [to_terminal(table), to_terminal(transposed(table))]
    widths = [len(page.splitlines()[1]) for page in pages]
    fits = widths[0] <= (min(widths[1], room) if turns else room)
    return pages[0] if fits or widths[0] <= widths[1] else pages[1]


def _filled(text: str, room: int) -> str:
    return textwrap.fill(one_line(text), max(min(room, 120), 40), break_on_hyphens=False) + "\n"
