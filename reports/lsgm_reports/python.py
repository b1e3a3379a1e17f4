"""A report from Python: of the rows of a DataFrame, or of result files and folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lsgm import results
from lsgm.errors import DataError
from lsgm.files.names import shown
from lsgm.files.write import claim, make_folder
from lsgm.results.files import read_rows, write_rows
from lsgm_reports.commands.report import ReportOptions, make

if TYPE_CHECKING:
    import pandas as pd


def report(
    source: pd.DataFrame | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("md", "csv", "tex", "html"),
    recalled: bool = False,
    separate: bool = False,
) -> list[Path]:
    """Write tables, figures, a document and a page, as `lsgm report` does; return the files.

    Args:
        source: Rows as `lsgm_eval.evaluate` returns them (`lsgm.results.frame`), or a result file, a folder
            that holds some, or several.
        out: The folder to write to. The rows of a table are kept there as ``results.jsonl``.
        formats: Any of ``md``, ``csv``, ``tex``, ``html``.
        recalled: Show published numbers that were recalled and not looked up too, marked as such.
        separate: Take rows of different versions or tiers of one task, each in a section of its own.

    Raises DataError for rows that are none, for none at all, and where ``out`` keeps other rows.
    """
    place = Path(os.fspath(out)).expanduser()
    if isinstance(source, str | os.PathLike):
        places = [Path(os.fspath(source))]
    elif isinstance(source, Sequence):
        places = [Path(os.fspath(each)) for each in source]
    else:
        places = [_kept(source, place)]
    options = ReportOptions(tuple(places), ",".join(formats), place, recalled=recalled, separate=separate)
    return make(options).written


def _kept(frame: pd.DataFrame, out: Path) -> Path:
    """Keep the rows of a table in a folder; return the file."""
    rows, file = results.rows(frame), claim(out) / "results.jsonl"
    if not rows:
        raise DataError("the table has no rows; give what lsgm_eval.evaluate returns")
    if file.exists() and list(read_rows(file)) != rows:
        raise DataError(f"{shown(str(file))} holds other rows; give another folder, or remove it")
    make_folder(out)
    write_rows(file, rows)
    return file
