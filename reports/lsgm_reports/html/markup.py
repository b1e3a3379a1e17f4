"""HTML as text: elements, and foreign words that stay words."""

from __future__ import annotations

import re
import unicodedata
from html import escape

from lsgm.files.shown import shown
from lsgm_reports.text import one_line

__all__ = ["Anchors", "exact", "said", "tag", "words"]


def tag(name: str, inner: str = "", /, **attributes: str | int | bool | None) -> str:
    """Return an element around markup, `inner`; attribute values are plain text.

    ``cls`` is written ``class``, an underscore a hyphen; True is an attribute without a value, None and
    False are none.
    """
    parts = [name]
    for key, value in attributes.items():
        label = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(label)
        elif value is not None and value is not False:
            parts.append(f'{label}="{exact(str(value))}"')
    return f"<{' '.join(parts)}>{inner}</{name}>"


def words(text: str) -> str:
    """Return markup that shows this text, on one line."""
    return escape(one_line(text))


def exact(text: str) -> str:
    """Return markup that holds every character of a text, but an escape for those that are not printed.

    A page may not hold some of them, and obeys others; spaces, tabs and line feeds stay.
    """
    if text.isprintable():
        return escape(text)
    return escape("".join(symbol if _kept(symbol) else shown(symbol) for symbol in text))


def _kept(symbol: str) -> bool:
    return symbol.isprintable() or symbol in "\t\n" or unicodedata.category(symbol) == "Zs"


_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*(.+?)\*\*")


def said(text: str) -> str:
    """Return markup of a text in which `code` and **bold** are marked up, and nothing else is."""
    parts = _CODE.split(one_line(text))  # every second part is code
    return "".join(
        f"<code>{escape(part)}</code>" if k % 2 else _BOLD.sub(r"<strong>\1</strong>", escape(part))
        for k, part in enumerate(parts)
    )


class Anchors:
    """Hands out the ids of a page, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def new(self, title: str) -> str:
        """Return an id that resembles a title and is no other's."""
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-") or "part"
        found, count = f"s-{stem}", self._counts.get(stem, 1)
        while found in self._taken:
            count += 1
            found = f"s-{stem}-{count}"
        self._taken.add(found)
        self._counts[stem] = count
        return found
