"""Foreign text inside a page: names and notes of rows stay words, whatever characters they are made of."""

from __future__ import annotations

import re

from lsgm.files.shown import shown

__all__ = ["latex", "literal", "marked_up", "one_line"]


def one_line(text: str) -> str:
    """Return a text without breaks: white space becomes single spaces, what is not printed an escape.

    Every renderer of Markdown and HTML does the former; a terminal would obey the latter, and a page would
    turn the direction of what follows.
    """
    return shown(" ".join(text.split()))


_TAGS = r"<(?=[A-Za-z/!?])|&(?=#?\w+;)"
"""What Markdown takes for HTML; other < and & stand for themselves."""
_WORD_ENDS = r"(?<!\w)_|_(?!\w)"
_LITERAL = re.compile(rf"[\\|*`\[\]~$]|{_TAGS}|{_WORD_ENDS}")
_MARKED_UP = re.compile(rf"[\\`\[\]~$]|(?<!\*)\*(?!\*)|{_TAGS}|{_WORD_ENDS}")
_OPENING = re.compile(r"\A(\d{1,9}(?=[.)](?:\s|\Z))|(?=#{1,6}(?:\s|\Z)|>|[-+](?:\s|\Z)|---|=+\Z))")
"""The beginning of a line before the mark that would open a heading, a quotation, a list, or draw a rule."""
_CODE = re.compile(r"(`[^`]+`)")


def literal(text: str) -> str:
    """Return Markdown that shows exactly this text, on one line, within a table as well as elsewhere."""
    return _LITERAL.sub(r"\\\g<0>", one_line(text))


def marked_up(text: str) -> str:
    """Return Markdown of a text in which `code` and **bold** are mark-up, and nothing else is.

    It may begin a line, where a mark would open a heading, a list or a quotation.
    """
    parts = _CODE.split(one_line(text))  # every second part is code
    whole = "".join(part if k % 2 else _MARKED_UP.sub(r"\\\g<0>", part) for k, part in enumerate(parts))
    return _OPENING.sub(r"\1\\", whole)


_TEX = {
    **{symbol: f"\\{symbol}" for symbol in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    "–": "--",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "∞": r"$\infty$",
}


def latex(text: str) -> str:
    """Return LaTeX that shows this text, on one line."""
    return "".join(_TEX.get(symbol, symbol) for symbol in one_line(text))
