"""Tables that stand in a page of somebody's own, a README or a paper's notes, and are written anew from rows.

A block begins with a comment that says what it shows, and ends with one:

    <!-- lsgm report results/mnist-full --table "Paired differences" --columns "Models, Difference" -->
    <!-- end of lsgm report -->

Between the two stands the table, as `lsgm report` writes it into report.md. Places are relative to the page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from lsgm.errors import ConfigError, DataError, did_you_mean
from lsgm.files.names import shown
from lsgm.files.text import read_text
from lsgm.files.write import atomic_path, writing
from lsgm.options import Positional, arg, between_commas, parse
from lsgm.results.row import Row
from lsgm_reports.blocks import Table
from lsgm_reports.document import main_table, tasks_of
from lsgm_reports.read import distinct, one_protocol, read_placed, results_of
from lsgm_reports.render.text import to_markdown
from lsgm_reports.tables.headline import paired_table, quality_tables
from lsgm_reports.tables.likelihood import likelihood_tables
from lsgm_reports.tables.points import cost_tables

_BLOCK = re.compile(
    r"(?P<head>^<!-- lsgm report (?P<words>[^\n]*?) -->\n).*?(?P<end>^<!-- end of lsgm report -->$)",
    re.M | re.S,
)
_HEAD = re.compile(r"^<!-- lsgm report ", re.M)


@dataclass(frozen=True)
class _Asked:
    """What the comment at the head of a block asks for."""

    places: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN_OR_DIR")]
    """Result files, or folders that hold them."""
    table: str = ""
    """Title of a table; the first one of the first task unless given."""
    columns: str = ""
    """Heads of columns, in order, between commas; all unless given."""
    caption: bool = True
    """Write the sentence that goes with the table below it."""
    models: str = ""
    """Names of models whose lines are shown, in order, between commas; all unless given."""


def refresh(page: Path) -> bool:
    """Write every block of a page anew and return whether anything changed.

    Raises DataError for a page that cannot be read or written and for rows that no table can show,
    ConfigError for a block that asks for what there is not, or has no end.
    """
    text = read_text(page)
    if len(_HEAD.findall(text)) != len(_BLOCK.findall(text)):
        raise ConfigError(
            f"a block of {shown(str(page))} has no end; write <!-- end of lsgm report --> on a line of its "
            "own after it"
        )
    if not _HEAD.search(text):
        raise ConfigError(
            f"{shown(str(page))} has no block to write; put <!-- lsgm report RESULTS --> and "
            "<!-- end of lsgm report --> where a table shall stand, each on a line of its own"
        )
    new = _BLOCK.sub(lambda block: _written(block, page), text)
    if new == text:
        return False
    with writing(page), atomic_path(page) as temporary:
        temporary.write_bytes(new.encode())
    return True


def _written(block: re.Match[str], page: Path) -> str:
    try:
        asked = parse(
            _Asked, shlex.split(block["words"]), prog="lsgm report", description="A table of a page."
        )
        table = _table(asked, [page.parent / place for place in asked.places])
    except ValueError as error:  # a quote that is not closed
        raise ConfigError(f"{shown(str(page))}: `lsgm report {block['words']}`: {error}") from None
    except (ConfigError, DataError) as error:
        raise type(error)(f"{shown(str(page))}: `lsgm report {block['words']}`: {error}") from None
    return f"{block['head']}\n{to_markdown(table)}\n{block['end']}"


def _table(asked: _Asked, places: Sequence[Path]) -> Table:
    if not places:
        raise ConfigError("RUN_OR_DIR is missing; name a results.jsonl or a folder that holds one")
    placed = read_placed([file for place in places for file in results_of(place)]).placed
    one_protocol(placed)
    rows = [each.row for each in distinct(placed)[0]]
    tables = [table for task, mine in tasks_of(rows).items() for table in _tables(mine, task)]
    known = {table.title: table for table in reversed(tables)}
    if asked.table and asked.table not in known:
        hint = did_you_mean(asked.table, list(known)) or f"; there are {', '.join(reversed(known))}"
        raise ConfigError(f"there is no table '{asked.table}'{hint}")
    table = known[asked.table] if asked.table else tables[0]
    table = table if asked.caption else replace(table, caption="")
    table = _lines(table, between_commas(asked.models)) if asked.models else table
    return _columns(table, between_commas(asked.columns)) if asked.columns else table


def _tables(rows: Sequence[Row], task: str) -> list[Table]:
    bounds = likelihood_tables(rows, task)
    rest = filter(None, [paired_table(rows)])
    return [main_table(rows, task), *quality_tables(rows), *bounds, *rest, *cost_tables(rows)]


def _lines(table: Table, models: Sequence[str]) -> Table:
    """Return the lines of these models, in this order."""
    known = list(dict.fromkeys(line[0].text for line in table.lines))
    for model in models:
        if model not in known:
            hint = did_you_mean(model, known) or f"; there are {', '.join(known)}"
            raise ConfigError(f"there is no line of '{model}' in the table '{table.title}'{hint}")
    return replace(table, lines=[line for model in models for line in table.lines if line[0].text == model])


def _columns(table: Table, heads: Sequence[str]) -> Table:
    """Return the columns of these heads, arrows left out, in this order; the notes of their cells alone."""
    known = {column.head.rstrip(" ↑↓"): index for index, column in enumerate(table.columns)}
    for head in heads:
        if head not in known:
            hint = did_you_mean(head, list(known)) or f"; there are {', '.join(known)}"
            raise ConfigError(f"there is no column '{head}' in the table '{table.title}'{hint}")
    kept = [known[head] for head in heads]
    lines = [[line[index] for index in kept] for line in table.lines]
    marks = {cell.mark for line in lines for cell in line}
    notes = [(letter, text) for letter, text in table.notes if letter in marks]
    return replace(table, columns=[table.columns[index] for index in kept], lines=lines, notes=notes)
