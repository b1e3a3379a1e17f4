"""Tables as Markdown, LaTeX (booktabs) and terminal text. Golden files guard every byte."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lsgm_reports.lossless import from_csv, rows_from_jsonl, to_csv, to_jsonl
from lsgm_reports.table import Cell, Table
from lsgm_reports.text import latex, literal, marked_up, one_line

__all__ = [
    "from_csv",
    "rows_from_jsonl",
    "to_csv",
    "to_jsonl",
    "to_latex",
    "to_markdown",
    "to_terminal",
]


def to_markdown(table: Table) -> str:
    """Return a pipe table, its caption below and its footnotes, as GitHub renders them.

    A pipe table has no rules between its lines: a line of dashes stands for one.
    """

    def shown(cell: Cell) -> str:
        text = literal(cell.text)
        text = f"**{text}**" if cell.best else text
        return f"{text}<sup>{literal(cell.mark)}</sup>" if cell.mark else text

    lines = [[literal(column.head) for column in table.columns]]
    for index, line in enumerate(table.lines):
        if index in table.rules:
            lines.append(["—"] * len(line))
        lines.append([shown(cell) for cell in line])
    # A rule of a colon alone would be no table: three places are what every renderer takes.
    widths = [max(3, *(min(_width(line[i]), _WIDEST) for line in lines)) for i in range(len(table.columns))]
    rule = [
        "-" * (width - 1) + ":" if column.align == "right" else "-" * width
        for width, column in zip(widths, table.columns, strict=True)
    ]
    grid = [_padded(lines[0], widths, table), rule, *(_padded(line, widths, table) for line in lines[1:])]
    parts = ["\n".join(f"| {' | '.join(line)} |" for line in grid)]
    if table.caption:
        parts.append(marked_up(table.caption))
    if table.notes:
        notes = (f"<sup>{literal(letter)}</sup> {marked_up(text)}" for letter, text in table.notes)
        parts.append("  \n".join(notes))
    return "\n\n".join(parts) + "\n"


def to_terminal(table: Table) -> str:
    """Return aligned text; the best of a column carries a star."""

    def shown(cell: Cell) -> str:
        return f"{one_line(cell.text)}{'*' if cell.best else ''}{f' [{cell.mark}]' if cell.mark else ''}"

    lines = [
        [one_line(column.head) for column in table.columns],
        *([shown(cell) for cell in line] for line in table.lines),
    ]
    widths = [max(min(_width(line[i]), _WIDEST) for line in lines) for i in range(len(table.columns))]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    head, *body = ["  ".join(_padded(line, widths, table)).rstrip() for line in lines]
    for index in sorted(table.rules, reverse=True):
        body.insert(index, rule)
    foot = [f"[{letter}] {one_line(text)}" for letter, text in table.notes]
    if any(cell.best for line in table.lines for cell in line):
        foot.insert(0, "* best of its column by more than the errors; ± is half the 95 % interval")
    return "\n".join([one_line(table.title), rule, head, rule, *body, rule, *foot]) + "\n"


def to_latex(table: Table) -> str:
    """Return a floating table in the manner of booktabs, footnotes beneath."""

    def shown(cell: Cell) -> str:
        text = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
        return rf"{text}\textsuperscript{{{latex(cell.mark)}}}" if cell.mark else text

    def joined(words: Sequence[str]) -> str:
        line = " & ".join(words) + r" \\"
        # After the end of a line TeX takes a bracket for a length, and a star for a page break.
        return "{}" + line if line.startswith(("[", "*")) else line

    align = "".join("r" if column.align == "right" else "l" for column in table.columns)
    body = [joined([shown(cell) for cell in line]) for line in table.lines]
    for index in sorted(table.rules, reverse=True):
        body.insert(index, r"\midrule")
    notes = [
        rf"\par\footnotesize\textsuperscript{{{latex(letter)}}} {latex(text)}" for letter, text in table.notes
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(f'{table.title}. {table.caption}')}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            joined([latex(column.head) for column in table.columns]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


_WIDEST = 200
"""Columns to which a cell is filled up: one cell that is longer makes no other so."""


def _width(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(symbol) else 2 if unicodedata.east_asian_width(symbol) in "WF" else 1
        for symbol in text
    )


def _padded(line: Sequence[str], widths: Sequence[int], table: Table) -> list[str]:
    out = []
    for text, width, column in zip(line, widths, table.columns, strict=True):
        gap = " " * (width - _width(text))
        out.append(gap + text if column.align == "right" else text + gap)
    return out
