"""Text of others made fit to be printed."""

from __future__ import annotations

import re

__all__ = ["brief", "said", "shown"]

_ADDRESS = re.compile(r" object at 0x[0-9a-fA-F]+")


def shown(text: str) -> str:
    r"""Return a text that prints on one line as what it is: bytes that are no UTF-8 as ``\xNN``.

    Control characters, line ends and what turns the direction of writing (U+202E) come out as escapes.
    """
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "surrogateescape" if _escaped(text) else "backslashreplace")
    whole_text = whole.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole_text)


def brief(value: object, room: int = 60) -> str:
    """Return a value of a file as Python writes it, for a sentence: its beginning where it is long."""
    text = shown(repr(value))
    return text if len(text) <= room else f"{text[:room]}…"


def said(problem: BaseException) -> str:
    """Return what a library says of damage, on one line and without the places in memory it speaks of."""
    words = _ADDRESS.sub("", " ".join(str(problem).split()))
    return shown(words)[:200] or type(problem).__name__


def _escaped(text: str) -> bool:
    """Say whether all halves of characters in a text are bytes of a file's name (PEP 383)."""
    return all(not 0xD800 <= ord(c) <= 0xDFFF or 0xDC80 <= ord(c) <= 0xDCFF for c in text)
