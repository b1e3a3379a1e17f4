"""Tables and reports as Markdown, LaTeX and terminal text; foreign names and notes stay words in each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from rich.cells import cell_len

from lsgm.files.names import one_line
from lsgm_reports.blocks import Block, Bullets, Cell, Picture, Report, Section, Table, Text
from lsgm_reports.tables.headline import EVERY_ROW

_TAGS = r"<(?=[A-Za-z/!?])|&(?=#?\w+;)"
"""What Markdown takes for HTML; other < and & stand for themselves."""
_WORD_ENDS = r"(?<!\w)_|_(?!\w)"
_LITERAL = re.compile(rf"[\\|*`\[\]~$]|{_TAGS}|{_WORD_ENDS}")
_MARKED_UP = re.compile(rf"[\\`\[\]~$]|(?<!\*)\*(?!\*)|{_TAGS}|{_WORD_ENDS}")
_OPENING = re.compile(r"\A(\d{1,9}(?=[.)](?:\s|\Z))|(?=#{1,6}(?:\s|\Z)|>|[-+](?:\s|\Z)|---|=+\Z))")
"""The beginning of a line before the mark that would open a heading, a quotation, a list, or draw a rule."""
_CODE = re.compile(r"(`[^`]+`)")


def literal(text: str) -> str:
    """Return Markdown that shows exactly this text, on one line, within a table as well as elsewhere."""
    return _LITERAL.sub(r"\\\g<0>", one_line(text))


def marked_up(text: str) -> str:
    """Return Markdown of a text in which `code` and **bold** are mark-up, and nothing else is.

    It may begin a line, where a mark would open a heading, a list or a quotation.
    """
    parts = _CODE.split(one_line(text))  # every second part is code
    whole = "".join(part if k % 2 else _MARKED_UP.sub(r"\\\g<0>", part) for k, part in enumerate(parts))
    return _OPENING.sub(r"\1\\", whole)


_TEX = {
    **{symbol: f"\\{symbol}" for symbol in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    "–": "--",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "∞": r"$\infty$",
}


def latex(text: str) -> str:
    """Return LaTeX that shows this text, on one line."""
    return "".join(_TEX.get(symbol, symbol) for symbol in one_line(text))


# Tables as Markdown, LaTeX (booktabs) and terminal text


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
    widths, (head, *body) = _aligned(lines, table, least=3)
    rule = [
        "-" * (width - 1) + ":" if column.align == "right" else "-" * width
        for width, column in zip(widths, table.columns, strict=True)
    ]
    parts = ["\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))]
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
    widths, padded = _aligned(lines, table)
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    head, *body = ["  ".join(line).rstrip() for line in padded]
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
    notes = [rf"\par\footnotesize\textsuperscript{{{latex(a)}}} {latex(text)}" for a, text in table.notes]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(f'{table.title}. {table.caption}')}}}",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        joined([latex(column.head) for column in table.columns]),
        r"\midrule",
        *[*body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""],
    ]
    return "\n".join(lines)


_WIDEST = 200
"""Columns to which a cell is filled up: one cell that is longer makes no other so."""


def _aligned(
    lines: Sequence[Sequence[str]], table: Table, least: int = 0
) -> tuple[list[int], list[list[str]]]:
    """Return the width of each column, and the cells of every line filled up to it on the column's side."""
    columns = list(zip(*lines, strict=True))
    widths = [max(least, *(min(cell_len(text), _WIDEST) for text in column)) for column in columns]
    filled = []
    for column, width, texts in zip(table.columns, widths, columns, strict=True):
        gaps = [" " * (width - cell_len(text)) for text in texts]
        pairs = zip(texts, gaps, strict=True)
        filled.append([gap + text if column.align == "right" else text + gap for text, gap in pairs])
    return widths, [list(line) for line in zip(*filled, strict=True)]


def markdown(report: Report, out: Path) -> str:
    """Return the page; pictures are named relative to the folder ``out`` that it will lie in."""
    parts = [f"# {literal(report.title)}"]
    for section in report.sections:
        parts += _section(section, 2, out)
    return "\n\n".join(parts) + "\n"


def _section(section: Section, level: int, out: Path) -> list[str]:
    parts = [f"{'#' * level} {literal(section.title)}", *(_block(block, out) for block in section.blocks)]
    for below in section.sections:
        parts += _section(below, level + 1, out)
    return parts


def _block(block: Block, out: Path) -> str:
    match block:
        case Text(text):
            return marked_up(text)
        case Bullets(lines):
            return "\n".join(f"- {marked_up(line)}" for line in lines)
        case Picture(file, caption):
            return (
                f"![{literal(caption)}]({quote(os.fsencode(relative(file, out)))})\n\n*{literal(caption)}.*"
            )
        case _:
            return to_markdown(block).rstrip("\n")


def relative(path: Path, out: Path) -> str:
    """Return how a file is named from a folder, with slashes; its URI where they share no root."""
    # Not `Path.resolve`, which raises of its own where links lead in a circle.
    whole = os.path.realpath(path)
    try:
        return Path(os.path.relpath(whole, os.path.realpath(out))).as_posix()
    except ValueError:  # another drive
        return Path(whole).as_uri()


def tables_of(sections: Sequence[Section]) -> Iterator[Table]:
    """Yield the tables of sections in the order of the page."""
    for section in sections:
        yield from (block for block in section.blocks if isinstance(block, Table))
        yield from tables_of(section.sections)


def tables_tex(report: Report) -> str:
    """Return the tables, with comments that say how each row is measured again: too long for a page."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for table in tables_of(report.sections):
        if table.title != EVERY_ROW:
            parts.append(to_latex(table))
            continue
        lines = [[column.head for column in table.columns]]
        lines += [[cell.text for cell in line] for line in table.lines]
        parts.append("".join(f"% {' | '.join(map(one_line, line))}\n" for line in lines))
    return "\n".join(parts)
