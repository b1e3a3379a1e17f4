"""HTML as text: elements, and foreign words that stay words."""

from __future__ import annotations

import re
import unicodedata
from html import escape

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
    """Return markup that holds every character of a text, but those that no page may: they are U+FFFD."""
    return escape("".join("\ufffd" if _forbidden(symbol) else symbol for symbol in text))


def _forbidden(symbol: str) -> bool:
    return unicodedata.category(symbol) in ("Cc", "Cs") and symbol not in "\t\n"


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

    def new(self, title: str) -> str:
        """Return an id that resembles a title and is no other's."""
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-") or "part"
        found, count = f"s-{stem}", 1
        while found in self._taken:
            count += 1
            found = f"s-{stem}-{count}"
        self._taken.add(found)
        return found
