"""All tables of a report as LaTeX, for a paper: ``tables.tex``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lsgm_reports.blocks import Report, Section
from lsgm_reports.details import EVERY_ROW
from lsgm_reports.formats import to_latex
from lsgm_reports.table import Table
from lsgm_reports.text import one_line

__all__ = ["tables_of", "tables_tex"]


def tables_of(sections: Sequence[Section]) -> Iterator[Table]:
    """Yield the tables of sections in the order of the page."""
    for section in sections:
        yield from (block for block in section.blocks if isinstance(block, Table))
        yield from tables_of(section.sections)


def tables_tex(report: Report) -> str:
    """Return the tables, with comments that say how each row is measured again: too long for a page."""
    parts = ["% needs \\usepackage{booktabs}\n"]
    for table in tables_of(report.sections):
        parts.append(_comments(table) if table.title == EVERY_ROW else to_latex(table))
    return "\n".join(parts)


def _comments(table: Table) -> str:
    lines = [
        [column.head for column in table.columns],
        *([cell.text for cell in line] for line in table.lines),
    ]
    return "".join(f"% {' | '.join(one_line(word) for word in line)}\n" for line in lines)
