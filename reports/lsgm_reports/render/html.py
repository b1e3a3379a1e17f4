"""A report as one self-contained HTML page, ``report.html``, with its drawings and pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import count, groupby
from pathlib import Path
from xml.etree import ElementTree

from lsgm.errors import DataError
from lsgm.files.limits import PICTURES
from lsgm.files.names import one_line, shown
from lsgm.files.regular import read_bytes
from lsgm.files.text import read_text
from lsgm_reports.blocks import Block, Bullets, Picture, Report, Section, Table, Text
from lsgm_reports.figures.style import GRID, INK, PALETTE
from lsgm_reports.read import Reading
from lsgm_reports.render.html_tables import Anchors, said, table_html, tag, words
from lsgm_reports.render.records import Records
from lsgm_reports.tables.headline import EVERY_ROW

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_KEPT = frozenset(
    (
        *("svg", "g", "defs", "clipPath", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon"),
        *("use", "text", "tspan", "a"),
    )
)
"""Elements that draw; nothing else, a script among them, enters the page."""
_ATTRIBUTES = frozenset(
    (
        *("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry", "width", "height", "points"),
        *("transform", "style", "id", "clip-path", "viewBox"),
    )
)
_COLOURS = {
    INK: "ink",
    GRID: "grid",
    "#ffffff": "ground",
    **{colour.lower(): str(index) for index, colour in enumerate(PALETTE)},
}
_ROUNDED = ("d", "x", "y", "points")
_STYLES = ("fill", "stroke", "opacity", "font", "text-anchor", "clip-path", "clip-rule")
"""Beginnings of the properties of a style that draw; others could lay an element over the page."""
_VIEW_BOX = re.compile(r"-?[0-9.]{1,12}(?: -?[0-9.]{1,12}){3}")
_ADDRESS = re.compile(r"url\(\s*(?:#([\w.-]+)\s*\)|[^)]*\)?)", re.IGNORECASE)
_DEEPEST, _MOST = 50, 200_000
"""Elements within one another, and in all."""


def inline_svg(text: str, prefix: str, label: str, rows: Mapping[str, str]) -> str:
    """Return the markup of a drawing by matplotlib, for a page that defines its colours.

    Colours of `lsgm_reports.figures.style` become ``var(--fig-...)``, of words ``var(--fig-text-...)``; ids
    get a prefix, so that several drawings share a page; a link ``#row-ID`` stays where ``rows`` has the
    id, with what the row says. ``label`` is read out in place of the drawing.

    Raises ValueError where the text is no SVG, or one that no figure of ours is.
    """
    if "<!ENTITY" in text:
        raise ValueError("it defines entities")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    if root.tag != f"{{{_SVG}}}svg" or not _VIEW_BOX.fullmatch(root.get("viewBox", "")):
        raise ValueError("it has no viewBox")
    if not 0 < float(root.get("viewBox", "").split()[2]) < 1e5:
        raise ValueError("its width is none")
    if sum(1 for _ in root.iter()) > _MOST:
        raise ValueError("it has too many elements")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    drawn = _element(root, prefix, used, rows)
    drawn.attrib |= {"role": "img", "aria-label": one_line(label)}
    return ElementTree.tostring(drawn, encoding="unicode")


def _element(
    given: ElementTree.Element, prefix: str, used: set[str], rows: Mapping[str, str], depth: int = 0
) -> ElementTree.Element:
    """Return an element and what it holds as a page has it. Raises ValueError where they nest too deeply."""
    if depth > _DEEPEST:
        raise ValueError("it nests too deeply")
    name = given.tag.removeprefix(f"{{{_SVG}}}")
    target = given.get(_HREF) or given.get("href") or ""
    linked = name == "a" and target.removeprefix("#row-") in rows
    out = ElementTree.Element("g" if name == "a" and not linked else name)
    for key, value in given.attrib.items():
        if key in _ATTRIBUTES and not (key == "id" and value not in used):
            out.set(key, _value(key, value, prefix, name))
    if linked:
        # By keys the same rows are reached in the tables, one by one.
        out.attrib |= {"href": target, "class": "number", "tabindex": "-1"}
        ElementTree.SubElement(out, "title").text = one_line(rows[target.removeprefix("#row-")])
    elif name == "use" and target.startswith("#"):
        out.set("href", f"#{prefix}{target[1:]}")
    if name in ("text", "tspan"):
        out.text = one_line(given.text) if given.text else None
    for child in given:
        if isinstance(child.tag, str) and child.tag.removeprefix(f"{{{_SVG}}}") in _KEPT:
            out.append(_element(child, prefix, used, rows, depth + 1))
    return out


def _value(key: str, value: str, prefix: str, name: str) -> str:
    if key == "id":
        return prefix + value
    if key in _ROUNDED:
        return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))
    if key == "style":
        value = "; ".join(part.strip() for part in value.split(";") if part.strip().startswith(_STYLES))
    # What is not of the drawing itself is not asked for.
    value = _ADDRESS.sub(lambda found: f"url(#{prefix}{found[1]})" if found[1] else "none", value)
    if key != "style":
        return value
    kind = "fig-text" if name in ("text", "tspan") else "fig"

    def colour(found: re.Match[str]) -> str:
        known = _COLOURS.get(found[0].lower())
        return found[0] if known is None else f"var(--{kind}-{known})"

    return re.sub(r"#[0-9a-fA-F]{6}\b", colour, value)


# A report as one self-contained HTML page, ``report.html``: its pictures, its sections, its contents

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What the page may load: nothing but what it holds."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%230b62b5'/%3E"
    "%3Ccircle cx='8' cy='8' r='2.6' fill='white'/%3E%3C/svg%3E"
)


def to_html(report: Report, reading: Reading, out: Path) -> str:
    """Return the page of a report of the rows that were read, for the folder ``out``.

    Every number of these rows that a table or a figure shows leads to its record: the number unrounded, what
    it was measured on, the call that measured it, and how to measure it again. The page holds its style,
    script and pictures, and asks for nothing else. Files are named as from ``out``.

    Raises DataError naming a picture that cannot be shown.
    """
    page = _Page(Records(reading, out))
    body = "".join(page.section(section, 2) for section in report.sections)
    if not page.listed:
        body += page.section(Section(EVERY_ROW), 2)
    rows = [each.row for each in reading.placed]
    models = {row.model for row in rows if row.group != "reach" and not row.metric.startswith("paired_")}
    numbers = sum(row.value is not None for row in rows)
    count = f"{numbers:,} measured {'number' if numbers == 1 else 'numbers'}"
    of = f"{len(models)} {'model' if len(models) == 1 else 'models'}"
    more = "Select any number to see what it was measured on and how to measure it again."
    lead = tag("p", f"{count} of {of}. {more}", cls="lead")
    return _TEMPLATE.format(
        policy=POLICY,
        icon=_ICON,
        title=words(report.title),
        style=_asset("style.css"),
        early=_asset("early.js"),
        contents=page.contents(),
        main=tag("h1", words(report.title)) + lead + body,
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
    return files("lsgm_reports.render").joinpath(name).read_text(encoding="utf-8")


def _bullets(lines: Sequence[str]) -> str:
    """Return a list; of a long one the first few are shown, and the others on request."""
    items = [tag("li", said(line)) for line in lines]
    if len(items) < 9:
        return tag("ul", "".join(items))
    more = tag("summary", f"{len(items) - 6} more") + tag("ul", "".join(items[6:]))
    return tag("ul", "".join(items[:6])) + tag("details", more, cls="more")


_INCH = 72
_NARROWEST = 68
"""CSS pixels per inch of a drawing below which its words are too small: then it scrolls within its box."""
_SMALL = 200
"""Width of an image in pixels up to which it is shown larger, pixel by pixel."""
_SHEET = 600
"""Width from which on a wide image is a sheet of images with words, which needs the whole page's."""
_WIDEST = 2**15
"""Pixels of a side that browsers show."""


class _Page:
    """Renders sections and their pictures, and remembers the sections for the table of contents."""

    def __init__(self, records: Records) -> None:
        self.listed = False
        """Whether the records have been shown."""
        self._records, self._known, self._anchors = records, records.labels, Anchors()
        self._entries: list[tuple[int, str, str]] = []
        self._drawings = count(1)
        self._size = 0
        """Bytes of the images so far."""

    def section(self, section: Section, level: int) -> str:
        """Return a section under a heading of a level, 2 or more, with those below it.

        Raises DataError naming a picture that is none, and where all of the page's are more than it may hold.
        """
        anchor = self._anchors.new(section.title)
        self._entries.append((level, anchor, section.title))
        inner = tag(f"h{min(level, 6)}", words(section.title), id=anchor)
        if section.title == EVERY_ROW:
            self.listed = True
            inner += self._records.html(f"h{min(level + 1, 6)}")
        else:
            for pictures, group in groupby(section.blocks, key=lambda block: isinstance(block, Picture)):
                parts = [self._block(block, section.title) for block in group]
                beside = pictures and len(parts) > 1
                inner += tag("div", "".join(parts), cls="gallery") if beside else "".join(parts)
        inner += "".join(self.section(below, level + 1) for below in section.sections)
        return "\n" + tag("section", inner, aria_labelledby=anchor)

    def _block(self, block: Block, title: str) -> str:
        match block:
            case Text(text):
                return tag("p", said(text))
            case Bullets(lines):
                return _bullets(lines)
            case Table():
                return table_html(block, self._anchors, self._known, titled=block.title != title)
            case Picture():
                inner, kind = self._drawing(block), "drawing"
                if not inner:
                    inner, kind = self._image(block)
                return tag("figure", inner + tag("figcaption", f"{words(block.caption)}."), cls=kind)

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

    def _drawing(self, picture: Picture) -> str:
        """Return the drawing of a picture in a box that scrolls, "" where there is none."""
        file = picture.file.with_suffix(".svg")
        if not picture.drawn or not file.is_file():
            return ""
        try:
            svg = inline_svg(read_text(file), f"d{next(self._drawings)}-", picture.caption, self._known)
        except (DataError, ValueError):
            return ""
        width = float(svg.partition('viewBox="')[2].split()[2])
        style = f"min-width:{round(width / _INCH * _NARROWEST)}px"
        return _box(tag("div", svg, style=style), picture.caption)

    def _image(self, picture: Picture) -> tuple[str, str]:
        """Return a picture's PNG, in a box where it needs the whole width, and of what kind it is."""
        place, content = shown(str(picture.file)), read_bytes(picture.file, PICTURES)
        self._size += len(content)
        PICTURES.hold(f"the page, with {place},", self._size)
        if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
            raise DataError(f"{place} is no PNG image; make it again, or remove it")
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        if not (0 < width <= _WIDEST and 0 < height <= _WIDEST):
            raise DataError(f"{place} claims {width:,} by {height:,} pixels; make it again, or remove it")
        pixels = ' class="pixels"' if width <= _SMALL else ""
        data = f'src="data:image/png;base64,{base64.b64encode(content).decode()}"'
        image = f'<img {data} alt="{words(picture.caption)}" width="{width}" height="{height}"{pixels}>'
        if width > _SHEET and width > 1.3 * height:
            return _box(image, picture.caption), "sheet"
        return image, "image"


def _box(inner: str, label: str) -> str:
    return tag("div", inner, cls="scroll", tabindex=0, role="region", aria_label=label)
