"""Texts of others made fit: a name for a file, words for a line of the screen or for a file of ours."""

from __future__ import annotations

import hashlib
import re

LONGEST = 120
"""Bytes of a file's name, endings and numbers of a caller's not counted."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('/\\:*?"<>|')
_DIGEST = re.compile(r"-(?=[0-9]*[a-f])[0-9a-f]{8}$")
"""The end that is given to a name that cannot stay; a date, of numerals alone, is none."""
_ADDRESS = re.compile(r" object at 0x[0-9a-fA-F]+")


def file_name(name: str) -> str:
    """Return a name as one part of a path: it leads nowhere, hides nothing, and every system can hold it.

    A name that is all of this is returned as it is. In another, what cannot stay becomes ``-``, and eight
    digits of its sha256 follow, so that two names do not share a file: not even with a name that looks as if
    it had been made so. Every text has such a name, of at most 140 bytes.
    """
    kept = "".join(c if c.isprintable() and c not in _FORBIDDEN else "-" for c in name)
    kept = kept.lstrip(".-~ ").encode()[:LONGEST].decode(errors="ignore").rstrip(". ")
    if kept == name and kept and not _RESERVED.fullmatch(kept) and not _DIGEST.search(kept):
        return name
    whole = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    windows = (whole[start : start + 8] for start in range(len(whole)))
    digest = next((window for window in windows if _DIGEST.fullmatch(f"-{window}")), f"a{whole[:7]}")
    return f"{kept or 'name'}-{digest}" if not _RESERVED.fullmatch(kept) else f"name-{kept}-{digest}"


def shown(text: str) -> str:
    r"""Return a text that prints on one line as what it is: bytes that are no UTF-8 as ``\xNN``.

    Control characters, line ends and what turns the direction of writing (U+202E) come out as escapes.
    """
    if text.isprintable():
        return text
    whole = text.encode("utf-8", "surrogateescape" if _escaped(text) else "backslashreplace")
    whole_text = whole.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole_text)


def one_line(text: str) -> str:
    """Return a text without breaks: white space becomes single spaces, what is not printed an escape.

    Every renderer of Markdown and HTML does the former; a terminal would obey the latter, and a page would
    turn the direction of what follows.
    """
    return shown(" ".join(text.split()))


def spelt(word: str) -> str:
    r"""Return a word as it is, but for bytes of a file's name that are no UTF-8, which become ``\xNN``."""
    try:
        raw = word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character, which no file's name has
        raw = word.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")


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
