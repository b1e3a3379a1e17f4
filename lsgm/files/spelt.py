"""Words of a command line as text that a file can hold."""

from __future__ import annotations

__all__ = ["spelt"]


def spelt(word: str) -> str:
    r"""Return a word as it is, but for bytes of a file's name that are no UTF-8, which become ``\xNN``."""
    try:
        raw = word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character, which no file's name has
        raw = word.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")
