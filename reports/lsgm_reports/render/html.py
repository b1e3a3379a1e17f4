"""A report as one self-contained HTML page, ``report.html``, with its drawings and pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count, groupby
from pathlib import Path
from xml.etree import ElementTree

from lsgm.errors import DataError
from lsgm.files.limits import PICTURES
from lsgm.files.names import one_line, shown
from lsgm.files.regular import read_bytes
from lsgm.files.text import read_text
from lsgm.results.row import Row
from lsgm_reports.blocks import Block, Bullets, Picture, Report, Section, Table, Text
from lsgm_reports.figures.style import GRID, INK, PALETTE
from lsgm_reports.read import Reading
from lsgm_reports.render.html_tables import Anchors, said, table_html, tag, words
from lsgm_reports.render.records import Records
from lsgm_reports.tables.details import EVERY_ROW

__all__ = ["POLICY", "inline_svg", "to_html"]

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
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda found: _colour(found[0], kind), value)


def _colour(colour: str, kind: str) -> str:
    known = _COLOURS.get(colour.lower())
    return colour if known is None else f"var(--{kind}-{known})"


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
    records = Records(reading, out)
    page = _Page(records)
    body = "".join(page.section(section, 2) for section in report.sections)
    if not page.listed:
        body += page.section(Section(EVERY_ROW), 2)
    main = (
        tag("h1", words(report.title))
        + tag("p", _lead([each.row for each in reading.placed]), cls="lead")
        + body
    )
    return _TEMPLATE.format(
        policy=POLICY,
        icon=_ICON,
        title=words(report.title),
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
    return files("lsgm_reports.render").joinpath(name).read_text(encoding="utf-8")


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
        self._anchors, self._gallery = Anchors(), _Gallery(records.labels)
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


# Pictures within the page: drawings as they are, images as data, and what is read out in their place

_INCH = 72
_NARROWEST = 68
"""CSS pixels per inch of a drawing below which its words are too small: then it scrolls within its box."""
_SMALL = 200
"""Width of an image in pixels up to which it is shown larger, pixel by pixel."""
_SHEET = 600
_WIDEST = 2**15
"""Pixels of a side that browsers show."""


class _Gallery:
    """Renders the pictures of one page; ``rows`` says of the id of a row what a point in a figure shows."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = rows
        self._numbers = count(1)
        self._size = 0
        """Bytes of the images so far."""

    def together(self, pictures: Sequence[Picture]) -> str:
        """Return pictures side by side where there is room.

        Raises DataError naming a file that is none, and where all of the page's are more than one may hold.
        """
        figures = "".join(self._figure(picture) for picture in pictures)
        return tag("div", figures, cls="gallery") if len(pictures) > 1 else figures

    def _figure(self, picture: Picture) -> str:
        drawing = picture.file.with_suffix(".svg")
        inner = self._drawing(drawing, picture) if picture.drawn and drawing.is_file() else ""
        kind = "drawing"
        if not inner:
            inner, kind = self._image(picture)
        return tag("figure", inner + tag("figcaption", f"{words(picture.caption)}."), cls=kind)

    def _drawing(self, file: Path, picture: Picture) -> str:
        """Return a drawing in a box that scrolls, or "" where the file is none and the image must do."""
        try:
            text = read_text(file)
            svg = inline_svg(text, f"d{next(self._numbers)}-", picture.caption, self._rows)
        except (DataError, ValueError):
            return ""
        width = float(svg.partition('viewBox="')[2].split()[2])
        style = f"min-width:{round(width / _INCH * _NARROWEST)}px"
        return _box(tag("div", svg, style=style), picture.caption)

    def _image(self, picture: Picture) -> tuple[str, str]:
        """Return the image of a picture, in a box where it needs the whole width, and of what kind it is."""
        image = self._read(picture.file)
        inner = image.html(picture.caption)
        return (_box(inner, picture.caption), "sheet") if image.is_sheet else (inner, "image")

    def _read(self, file: Path) -> _Image:
        content = read_bytes(file, PICTURES)
        self._size += len(content)
        PICTURES.hold(f"the page, with {shown(str(file))},", self._size)
        if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR" or len(content) < 33:
            raise DataError(f"{shown(str(file))} is no PNG image; make it again, or remove it")
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        if not (0 < width <= _WIDEST and 0 < height <= _WIDEST):
            raise DataError(
                f"{shown(str(file))} claims {width:,} by {height:,} pixels; make it again, or remove it"
            )
        return _Image(content, width, height)


def _box(inner: str, label: str) -> str:
    return tag("div", inner, cls="scroll", tabindex=0, role="region", aria_label=label)


@dataclass(frozen=True)
class _Image:
    """A PNG file: its bytes, and pixels across and down."""

    content: bytes
    width: int
    height: int

    @property
    def is_sheet(self) -> bool:
        """Whether it is large and wide, as a sheet of images with words is: it needs the whole width."""
        return self.width > _SHEET and self.width > 1.3 * self.height

    def html(self, caption: str) -> str:
        """Return the element, enlarged pixel by pixel where it is small."""
        data = base64.b64encode(self.content).decode()
        pixels = ' class="pixels"' if self.width <= _SMALL else ""
        sizes = f'width="{self.width}" height="{self.height}"'
        return f'<img src="data:image/png;base64,{data}" alt="{words(caption)}" {sizes}{pixels}>'
