"""A report as Markdown, as GitHub renders it: ``report.md``."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from lsgm_reports.blocks import Block, Bullets, Picture, Report, Section, Text
from lsgm_reports.formats import to_markdown
from lsgm_reports.text import literal, marked_up

__all__ = ["markdown", "relative"]


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
