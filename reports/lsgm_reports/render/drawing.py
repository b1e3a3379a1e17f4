"""A figure by matplotlib among the words of a page: in the page's colours, its points links to their rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from lsgm.files.names import one_line
from lsgm_reports.figures.style import GRID, INK, PALETTE

__all__ = ["inline_svg"]

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
