"""``lsgm report``: tables, figures and one document from result files."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.commands.options import Positional, arg, parse
from lsgm.errors import ConfigError, DataError, UserError, did_you_mean

if TYPE_CHECKING:
    from lsgm_reports.document import Pictures
    from lsgm_reports.rows import Row
    from lsgm_reports.table import Table

__all__ = ["HELP", "Options", "run"]

HELP = "turn result files into tables, figures and a document"

_FORMATS = ("md", "csv", "tex")


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm report``."""

    places: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN_OR_DIR")]
    """Result files, or folders that hold them; run directories among them add training curves."""
    format: str = "md,csv,tex"
    """What to write, separated by commas: md, csv, tex."""
    out: Path | None = None
    """Folder to write to; the first folder given unless set."""
    recalled: bool = False
    """Show published sample quality that was recalled and not looked up too, marked as such."""

    def __post_init__(self) -> None:
        for word in self.formats:
            if word not in _FORMATS:
                hint = did_you_mean(word, _FORMATS) or f"; there are {', '.join(_FORMATS)}"
                raise ConfigError(f"there is no format '{word}'{hint}")

    @property
    def formats(self) -> list[str]:
        """The formats as a list."""
        return [word.strip() for word in self.format.split(",") if word.strip()]


def run(argv: list[str]) -> int:
    """Write the report, print the table of every task, and say where everything lies."""
    options = parse(
        Options,
        argv,
        prog="lsgm report",
        description="Read result rows (JSON lines); write a document, a CSV, tables as LaTeX, and figures.",
        examples=[
            "lsgm report runs/eval-glyphs",
            "lsgm report runs/a runs/b/results.jsonl --format md,tex --out report",
        ],
    )
    if not options.places:
        raise ConfigError("RUN_OR_DIR is missing; give a results.jsonl or a folder that holds one")
    from lsgm_reports.rows import find_results, read_rows

    files = list(dict.fromkeys(file for place in options.places for file in find_results(place)))
    rows = read_rows(files)
    if not rows:
        raise DataError(f"{files[0]} holds no rows; run `lsgm eval` or `lsgm nll` first")
    first = options.places[0]
    out = options.out or (first if first.is_dir() else first.parent)
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = _write(rows, files, options, out)
    except OSError as error:
        raise UserError(
            f"cannot write to {error.filename or out}: {error.strerror}; choose another folder with --out"
        ) from None
    _print(rows, options, written)
    return 0


def _write(rows: Sequence[Row], files: Sequence[Path], options: Options, out: Path) -> list[Path]:
    """Write every format asked for; return the files."""
    from lsgm_reports.document import markdown
    from lsgm_reports.formats import to_csv

    written: list[Path] = []

    def put(name: str, text: Callable[[], str]) -> None:
        # A reader sees the old file or the new one, never half of it.
        temporary = out / f".{name}.{os.getpid()}"
        temporary.write_text(text(), encoding="utf-8")
        temporary.replace(out / name)
        written.append(out / name)

    pictures = _draw(rows, files, options, out, written)
    if "md" in options.formats:
        put("report.md", lambda: markdown(rows, pictures, files, out, recalled=options.recalled))
    if "csv" in options.formats:
        put("results.csv", lambda: to_csv(rows))
    if "tex" in options.formats:
        put("tables.tex", lambda: _latex(rows, options))
    return written


def _latex(rows: Sequence[Row], options: Options) -> str:
    from lsgm_reports.details import paired_table
    from lsgm_reports.document import cost_tables, likelihood_tables, only_costs, quality_tables, tasks_of
    from lsgm_reports.formats import to_latex
    from lsgm_reports.headline import headline
    from lsgm_reports.likelihood import only_bounds

    tables: list[Table | None] = []
    for task, mine in tasks_of(rows).items():
        tables += [] if only_bounds(mine) or only_costs(mine) else [headline(mine, task)]
        tables += quality_tables(mine, recalled=options.recalled)
        tables += [*likelihood_tables(mine, task), paired_table(mine), *cost_tables(mine)]
    return "% needs \\usepackage{booktabs}\n\n" + "\n".join(to_latex(t) for t in tables if t is not None)


def _draw(
    rows: Sequence[Row], files: Sequence[Path], options: Options, out: Path, written: list[Path]
) -> Pictures:
    """Draw the figures of a document or a paper, and find the pictures beside the rows."""
    from lsgm_reports.document import Pictures, tasks_of
    from lsgm_reports.figures import cost_figure, save
    from lsgm_reports.training import read_training, training_figure

    grids, neighbours = (
        [picture for file in files for picture in sorted((file.parent / folder).glob("*.png"))]
        for folder in ("samples", "neighbours")
    )
    grids.sort(key=lambda grid: grid.stem != "data")
    if not {"md", "tex"} & set(options.formats):
        return Pictures()
    curves, tasks = {}, tasks_of(rows)
    for task, mine in tasks.items():
        if (figure := cost_figure(mine)) is not None:
            stem = "nfe" if len(tasks) == 1 else f"nfe-{task.replace('/', '-').replace('@', '-')}"
            made = save(figure, out / "figures" / stem)
            curves[task] = made[0]
            written += made
    logs = {log for place in options.places if place.is_dir() for log in _logs(place)}
    runs = [run for log in sorted(logs) if (run := read_training(log)) is not None]
    training = None
    if (figure := training_figure(runs)) is not None:
        made = save(figure, out / "figures" / "training")
        training = made[0]
        written += made
    return Pictures(curves, training, grids, neighbours)


def _logs(place: Path) -> list[Path]:
    """Return the metrics of a run directory, or of those directly below."""
    return [file for file in (place / "metrics.jsonl", *place.glob("*/metrics.jsonl")) if file.is_file()]


def _print(rows: Sequence[Row], options: Options, written: Sequence[Path]) -> None:
    from lsgm_reports.document import cost_tables, main_table, only_costs, quality_tables, tasks_of
    from lsgm_reports.likelihood import only_bounds
    from lsgm_reports.published import statement_on

    room = shutil.get_terminal_size((120, 40)).columns
    for task, mine in tasks_of(rows).items():
        # Bounds of different kinds, and costs, are read downwards; models, being few, across as well.
        print(_page(main_table(mine, task), room, turns=not only_bounds(mine) and not only_costs(mine)))
        below = quality_tables(mine, recalled=options.recalled)
        below += cost_tables(mine)[1:] if only_costs(mine) else cost_tables(mine)
        for table in below:
            print(_page(table, room, turns=False))
            print(_filled(table.caption, room), end="\n" if table.caption else "")
        if statement := statement_on(mine[0].dataset_name):
            print(_filled(statement, room))
    for path in written:
        print(f"wrote {path}")


def _page(table: Table, room: int, *, turns: bool) -> str:
    """Return a table for the terminal, on its side where that is narrower and the other way is too wide."""
    from lsgm_reports.formats import to_terminal
    from lsgm_reports.table import transposed

    pages = [to_terminal(table), to_terminal(transposed(table))]
    widths = [len(page.splitlines()[1]) for page in pages]
    fits = widths[0] <= (min(widths[1], room) if turns else room)
    return pages[0] if fits or widths[0] <= widths[1] else pages[1]


def _filled(text: str, room: int) -> str:
    return textwrap.fill(text, max(min(room, 120), 40), break_on_hyphens=False) + "\n"
