"""Two runs side by side as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from lsgm.files.shown import shown
from lsgm_eval.compare.parts import parts
from lsgm_eval.compare.whole import Compared

__all__ = ["to_markdown", "to_text"]


def to_text(found: Compared) -> str:
    """Return what a terminal shows: sentences and aligned tables."""
    blocks = [f"A: {_line(found.places[0])}\nB: {_line(found.places[1])}"]
    for part in parts(found):
        lines = [part.title.upper(), *part.said, *_aligned(part.table)]
        lines += [f"- {point}" for point in part.points]
        lines += [f"    {line}".rstrip() for line in part.raw]
        blocks.append("\n".join(map(_line, lines)))
    return "\n\n".join(blocks)


def to_markdown(found: Compared) -> str:
    """Return the same as a Markdown document."""
    blocks = ["# Two runs side by side", f"- A: {_code(found.places[0])}\n- B: {_code(found.places[1])}"]
    for part in parts(found):
        blocks += [f"## {_escaped(part.title)}", *(_escaped(sentence) for sentence in part.said)]
        if part.table:
            head, *lines = [f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in part.table]
            blocks.append("\n".join([head, "|" + " --- |" * len(part.table[0]), *lines]))
        if part.points:
            blocks.append("\n".join(f"- {_escaped(point)}" for point in part.points))
        if part.raw:
            blocks.append("\n".join(["```", *map(_line, part.raw), "```"]))
    return "\n\n".join(blocks)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    if not table:
        return []
    table = [[_line(cell) for cell in line] for line in table]
    widths = [max(len(line[k]) for line in table) for k in range(len(table[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def _line(text: object) -> str:
    """Return what is said of files of others as one line of the terminal, which obeys nothing in it."""
    return shown(str(text))


def _escaped(text: str) -> str:
    """Return text that a Markdown table shows as it is: no markup, no link, no picture."""
    text = _line(text).replace("\\", "\\\\")
    for mark in "|_*[]`~":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("<", "&lt;")


def _code(value: object) -> str:
    return f"`{_line(value).replace('`', chr(39))}`"
