"""A report as one self-contained HTML page: ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from lsgm_reports.blocks import Block, Bullets, Picture, Report, Section, Text
from lsgm_reports.html.markup import Anchors, said, tag, words
from lsgm_reports.html.pictures import Gallery
from lsgm_reports.html.records import Records
from lsgm_reports.html.tables import table_html
from lsgm_reports.reading import read_placed
from lsgm_reports.rows import Row
from lsgm_reports.table import Table

__all__ = ["EVERY_ROW", "POLICY", "to_html"]

EVERY_ROW = "Every row"
"""Title of the section whose table lists all rows; on a page the records of the rows stand in its place."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What the page may load: nothing but what it holds."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%230b62b5'/%3E"
    "%3Ccircle cx='8' cy='8' r='2.6' fill='white'/%3E%3C/svg%3E"
)


def to_html(
    report: Report,
    rows: Sequence[Row],
    sources: Sequence[Path],
    *,
    title: str | None = None,
    out: Path | None = None,
    places: Mapping[Row, Path] | None = None,
) -> str:
    """Return the page of a report of rows, which were read from the files ``sources``.

    Every number of ``rows`` that a table or a figure shows leads to its record: the number unrounded, what it
    was measured on, the call that measured it, and how to measure it again. The page holds its style, script
    and pictures, and asks for nothing else.

    ``out`` is the folder that the page will lie in, from which the files of rows are named: that of the first
    source unless given. ``places`` says which file each row is of; else the sources are read again.

    Raises DataError naming a picture that cannot be shown.
    """
    if out is None:
        out = sources[0].parent if sources else Path()
    if places is None:
        places = {each.row: each.file for each in read_placed(sources, skip_malformed=True).placed}
    records = Records(rows, places, out)
    page = _Page(records)
    title = title or report.title
    body = "".join(page.section(section, 2) for section in report.sections)
    if not page.listed:
        body += page.section(Section(EVERY_ROW), 2)
    main = tag("h1", words(title)) + tag("p", _lead(rows), cls="lead") + body
    return _TEMPLATE.format(
        policy=POLICY,
        icon=_ICON,
        title=words(title),
        style=_asset("style.css"),
        early=_asset("early.js"),
        contents=page.contents(),
        main=main,
        script=_asset("page.js"),
    )


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="lsgm report">
<title>{title}</title>
<link rel="icon" href="{icon}">
<style>
{style}</style>
<script>
{early}</script>
</head>
<body>
<a class="skip" href="#content">Skip to the results</a>
<div class="page">
<nav class="contents" aria-label="Contents">
<details open><summary>Contents</summary>
{contents}
</details>
</nav>
<main id="content" tabindex="-1">
{main}
</main>
</div>
<dialog id="provenance" aria-labelledby="provenance-title"></dialog>
<p id="status" class="unseen" role="status"></p>
<script>
{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("lsgm_reports.html").joinpath(name).read_text(encoding="utf-8")


def _lead(rows: Sequence[Row]) -> str:
    """Return what the page holds, in a sentence, and what can be done with it."""
    numbers = sum(row.value is not None for row in rows)
    models = len({row.model for row in rows if row.group != "reach" and not row.metric.startswith("paired_")})
    count = f"{numbers:,} measured {'number' if numbers == 1 else 'numbers'}"
    of = f"{models} {'model' if models == 1 else 'models'}"
    return f"{count} of {of}. Select any number to see what it was measured on and how to measure it again."


_LONG, _SHOWN = 9, 6
"""Lists of at least so many lines show the first few, and the others on request."""


def _bullets(lines: Sequence[str]) -> str:
    items = [tag("li", said(line)) for line in lines]
    if len(items) < _LONG:
        return tag("ul", "".join(items))
    more = tag("summary", f"{len(items) - _SHOWN} more") + tag("ul", "".join(items[_SHOWN:]))
    return tag("ul", "".join(items[:_SHOWN])) + tag("details", more, cls="more")


class _Page:
    """Renders sections, and remembers them for the table of contents."""

    def __init__(self, records: Records) -> None:
        self.listed = False
        """Whether the records have been shown."""
        self._records, self._known = records, records.labels
        self._anchors, self._gallery = Anchors(), Gallery(records.labels)
        self._entries: list[tuple[int, str, str]] = []

    def section(self, section: Section, level: int) -> str:
        """Return a section under a heading of a level, 2 or more, with those below it."""
        anchor = self._anchors.new(section.title)
        self._entries.append((level, anchor, section.title))
        heading = f"h{min(level, 6)}"
        inner = tag(heading, words(section.title), id=anchor)
        if section.title == EVERY_ROW:
            self.listed = True
            inner += self._records.html(f"h{min(level + 1, 6)}")
        else:
            inner += self._blocks(section.blocks, section.title)
        inner += "".join(self.section(below, level + 1) for below in section.sections)
        return "\n" + tag("section", inner, aria_labelledby=anchor)

    def _blocks(self, blocks: Sequence[Block], title: str) -> str:
        parts = []
        for pictures, group in groupby(blocks, key=lambda block: isinstance(block, Picture)):
            if pictures:
                parts.append(self._gallery.together([block for block in group if isinstance(block, Picture)]))
            else:
                parts += [self._block(block, title) for block in group]
        return "".join(parts)

    def _block(self, block: Block, title: str) -> str:
        match block:
            case Text(text):
                return tag("p", said(text))
            case Bullets(lines):
                return _bullets(lines)
            case Table():
                return table_html(block, self._anchors, self._known, titled=block.title != title)
            case Picture():
                return self._gallery.together([block])

    def contents(self) -> str:
        """Return the table of contents: the sections of the page and those directly below them."""
        parts, inside = [], False
        for level, anchor, title in self._entries:
            link = tag("a", words(title), href=f"#{anchor}")
            if level == 2:
                parts.append(("</ul></li>" if inside else "") + f"<li>{link}<ul>")
                inside = True
            elif level == 3:
                parts.append(f"<li>{link}</li>")
        closing = "</ul></li>" if inside else ""
        return tag("ul", "".join(parts) + closing).replace("<ul></ul>", "")
