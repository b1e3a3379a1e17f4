"""A report before it has a format: titled sections of text, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lsgm_reports.table import Table

__all__ = ["Block", "Bullets", "Picture", "Report", "Section", "Text"]


@dataclass(frozen=True)
class Text:
    """One paragraph; `code` between backquotes and **bold** are all the mark-up there is."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """Short statements, each marked up as a `Text` is."""

    lines: list[str]


@dataclass(frozen=True)
class Picture:
    """An image file with what it shows."""

    file: Path
    """PNG; of a figure there may be an SVG of the same name beside it."""
    caption: str
    dark: Path | None = None
    """The same for a dark page."""
    drawn: bool = True
    """Whether this project drew it, so that an SVG beside it may stand among the words of a page."""


Block = Text | Bullets | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, sections of the next level at the end."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """A titled page: `Report.sections` are the tasks, then samples, neighbours, training and provenance."""

    title: str
    sections: list[Section]
