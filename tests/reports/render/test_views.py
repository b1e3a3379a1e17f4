"""Any valid rows have every view, and a table in Markdown is the table."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from reports.any_rows import any_rows, texts
from reports.render.fake_report import read

from lsgm.files.names import one_line
from lsgm.results.row import Row
from lsgm_reports.blocks import Cell, Column, Report, Table, transposed
from lsgm_reports.document import Pictures, main_table, report, tasks_of
from lsgm_reports.render.html import to_html
from lsgm_reports.render.text import (
    latex,
    literal,
    markdown,
    marked_up,
    tables_of,
    tables_tex,
    to_latex,
    to_markdown,
    to_terminal,
)

CASES = settings(deadline=None, max_examples=15)
FOLDER = Path("results")


def report_of(rows: list[Row]) -> Report:
    return report(
        read(rows, FOLDER / "results.jsonl"), Pictures(), [FOLDER / "results.jsonl"], FOLDER, recalled=True
    )


def unescaped(text: str) -> str:
    """Return what CommonMark shows of a text without mark-up: a backslash before punctuation is gone."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text)


def grid_of(page: str) -> list[list[tuple[str, bool, str]]]:
    """Return text, emphasis and mark of every cell of a pipe table, as GitHub reads it."""
    lines = [line for line in page.split("\n\n")[0].split("\n") if line]
    grid = []
    for number, line in enumerate(lines):
        cells = re.findall(r"((?:\\.|[^\\|])*)\|", line)[1:]
        if number == 1:
            assert all(re.fullmatch(r"-{2,}[-:]", cell.strip()) for cell in cells)
            continue
        found = [re.fullmatch(r"(\*\*)?(.*?)\1?(?:<sup>(.*)</sup>)?", cell.strip(" ")) for cell in cells]
        grid.append([(unescaped(m[2]), bool(m[1]), unescaped(m[3] or "")) for m in found if m is not None])
    return grid


def tables() -> st.SearchStrategy[Table]:
    """Return tables of any texts, some emphasised, some marked."""
    cell = st.builds(Cell, texts, best=st.booleans(), mark=st.sampled_from(["", "a", "†", "*"]))

    def of_width(width: int) -> st.SearchStrategy[Table]:
        columns = st.lists(st.builds(Column, texts), min_size=width, max_size=width)
        lines = st.lists(st.lists(cell, min_size=width, max_size=width), max_size=4)
        return st.builds(
            Table, texts, columns, lines, st.lists(st.tuples(st.sampled_from("ab"), texts), max_size=2), texts
        )

    return st.integers(1, 4).flatmap(of_width)


@settings(deadline=None, max_examples=50)
@given(tables())
def test_a_table_in_markdown_parses_back_into_its_grid(table: Table) -> None:
    head, *lines = grid_of(to_markdown(table))
    assert [text for text, _, _ in head] == [one_line(column.head) for column in table.columns]
    assert [[text for text, _, _ in line] for line in lines] == [
        [one_line(cell.text) for cell in line] for line in table.lines
    ]
    assert [[(best, mark) for _, best, mark in line] for line in lines] == [
        [(cell.best, cell.mark) for cell in line] for line in table.lines
    ]


@settings(deadline=None, max_examples=50)
@given(tables())
def test_a_table_has_one_line_per_line_in_a_terminal_and_in_tex(table: Table) -> None:
    shown = to_terminal(table).split("\n")
    assert len(shown) == 1 + 3 + 1 + len(table.lines) + len(table.notes) + 1 + (
        "* best" in to_terminal(table)
    )
    assert not any(ord(symbol) < 32 or 127 <= ord(symbol) < 160 for line in shown for symbol in line)
    assert to_latex(table).count(r" \\" + "\n") == 1 + len(table.lines)


@CASES
@given(any_rows().filter(bool))
def test_any_rows_have_every_view(rows: list[Row]) -> None:
    page = report_of(rows)
    for table in tables_of(page.sections):
        assert all(len(line) == len(table.columns) for line in table.lines)
        assert len(grid_of(to_markdown(table))) == 1 + len(table.lines) + len(table.rules)
        to_terminal(transposed(table))
    assert markdown(page, FOLDER).startswith("# Results: ")
    assert tables_tex(page).startswith("% needs")
    assert to_html(page, read(rows, FOLDER / "results.jsonl"), FOLDER).startswith("<!DOCTYPE html>")
    for task, mine in tasks_of(rows).items():
        assert to_terminal(main_table(mine, task))


@CASES
@given(any_rows().filter(bool))
def test_every_row_is_named_in_the_report_and_no_gap_is_without_a_reason(rows: list[Row]) -> None:
    page = report_of(rows)
    *_, every = tables_of(page.sections)
    assert len(every.lines) == len(rows)
    for table in tables_of(page.sections):
        letters = {letter for letter, _ in table.notes}
        marks = {cell.mark for line in table.lines for cell in line if cell.mark}
        assert marks <= letters


def test_mark_up_is_code_and_bold_and_nothing_else() -> None:
    assert marked_up("**a** is `x_<b>`, 1 < 2 & 3") == "**a** is `x_<b>`, 1 < 2 & 3"
    assert marked_up("<b>&amp; [x](y) *i* \n$z$") == r"\<b>\&amp; \[x\](y) \*i\* \$z\$"
    assert literal("a_b _c_ **d**") == r"a_b \_c\_ \*\*d\*\*"
    assert latex("50% of {a}\n") == r"50\% of \{a\}"
    assert one_line(" a\x1b[31m\r\n b\x00 ") == r"a\x1b[31m b\x00"
