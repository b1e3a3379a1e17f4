"""Tables as Markdown, LaTeX (booktabs) and terminal text; rows as CSV. Golden files guard every byte."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, fields

from lsgm_reports.rows import Row
from lsgm_reports.table import Cell, Table

__all__ = ["to_csv", "to_latex", "to_markdown", "to_terminal"]


def to_csv(rows: Sequence[Row]) -> str:
    """Return all rows with all keys, numbers as they were measured, not rounded."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """Return a pipe table, its caption below and its footnotes, as GitHub renders them."""

    def shown(cell: Cell) -> str:
        text = cell.text.replace("|", "\\|")
        text = f"**{text}**" if cell.best else text
        return f"{text}<sup>{cell.mark}</sup>" if cell.mark else text

    lines = [[column.head.replace("|", "\\|") for column in table.columns]]
    lines += [[shown(cell) for cell in line] for line in table.lines]
    # A rule of a colon alone would be no table: three places are what every renderer takes.
    widths = [max(3, *(_width(line[i]) for line in lines)) for i in range(len(table.columns))]
    rule = [
        "-" * (width - 1) + ":" if column.align == "right" else "-" * width
        for width, column in zip(widths, table.columns, strict=True)
    ]
    grid = [_padded(lines[0], widths, table), rule, *(_padded(line, widths, table) for line in lines[1:])]
    parts = ["\n".join(f"| {' | '.join(line)} |" for line in grid)]
    if table.caption:
        parts.append(table.caption)
    if table.notes:
        parts.append("  \n".join(f"<sup>{letter}</sup> {text}" for letter, text in table.notes))
    return "\n\n".join(parts) + "\n"


def to_terminal(table: Table) -> str:
    """Return aligned text; the best of a column carries a star."""

    def shown(cell: Cell) -> str:
        return f"{cell.text}{'*' if cell.best else ''}{f' [{cell.mark}]' if cell.mark else ''}"

    lines = [
        [column.head for column in table.columns],
        *([shown(cell) for cell in line] for line in table.lines),
    ]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(table.columns))]
    grid = ["  ".join(_padded(line, widths, table)).rstrip() for line in lines]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    foot = [f"[{letter}] {text}" for letter, text in table.notes]
    if any(cell.best for line in table.lines for cell in line):
        foot.insert(0, "* best of its column by more than the errors; ± is half the 95 % interval")
    return "\n".join([table.title, rule, grid[0], rule, *grid[1:], rule, *foot]) + "\n"


_TEX = {
    **{symbol: f"\\{symbol}" for symbol in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    "–": "--",
    "≤": r"$\leq$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "∞": r"$\infty$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(symbol, symbol) for symbol in text)


def to_latex(table: Table) -> str:
    """Return a floating table in the manner of booktabs, footnotes beneath."""

    def shown(cell: Cell) -> str:
        text = rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
        return rf"{text}\textsuperscript{{{_tex(cell.mark)}}}" if cell.mark else text

    align = "".join("r" if column.align == "right" else "l" for column in table.columns)
    body = [" & ".join(shown(cell) for cell in line) + r" \\" for line in table.lines]
    notes = [
        rf"\par\footnotesize\textsuperscript{{{_tex(letter)}}} {_tex(text)}" for letter, text in table.notes
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(f'{table.title}. {table.caption}'.strip())}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(_tex(column.head) for column in table.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _width(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
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
